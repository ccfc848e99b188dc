#include "metaserver/log_reader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/proto/record.pb.h"
#include "metaserver/keys.h"

namespace shoal::meta {
namespace {

constexpr size_t kBlock = 32768;
constexpr size_t kHeader = 7;
constexpr int kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4;

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    table[i] = crc;
  }
  return table;
}
constexpr auto kCrcTable = MakeCrcTable();

// CRC-32C, as LevelDB stores it ("masked").
uint32_t MaskedCrc(std::string_view data) {
  uint32_t crc = 0xffffffffu;
  for (char c : data) crc = kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ (crc >> 8);
  crc ^= 0xffffffffu;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

uint32_t Fixed32(const char* p) {
  uint32_t n;
  std::memcpy(&n, p, 4);
  return n;
}

bool TakeSlice(std::string_view* in, std::string_view* out) {
  uint32_t length = 0;
  for (int shift = 0; shift <= 28; shift += 7) {
    if (in->empty()) return false;
    uint8_t byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    length |= static_cast<uint32_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) {
      if (in->size() < length) return false;
      *out = in->substr(0, length);
      in->remove_prefix(length);
      return true;
    }
  }
  return false;
}

}  // namespace

void LogReader::Damage(size_t at) {
  if (damaged_) return;
  damaged_ = true;
  damaged_at_ = at;
}

LogReader::Piece LogReader::NextPiece(int* type, std::string_view* data) {
  while (true) {
    size_t left = kBlock - position_ % kBlock;
    if (left < kHeader) {
      position_ += left;  // the trailer of a block
      continue;
    }
    if (position_ + kHeader > bytes_.size()) return Piece::kEnd;
    const char* header = bytes_.data() + position_;
    size_t length = static_cast<uint8_t>(header[4]) | static_cast<size_t>(static_cast<uint8_t>(header[5])) << 8;
    *type = static_cast<uint8_t>(header[6]);
    const bool fits = kHeader + length <= left;
    if (fits && position_ + kHeader + length > bytes_.size()) return Piece::kEnd;  // cut short by the end
    if (!fits || *type < kFull || *type > kLast ||
        Fixed32(header) != MaskedCrc(bytes_.substr(position_ + 6, 1 + length))) {
      position_ += left;
      return Piece::kBad;
    }
    *data = bytes_.substr(position_ + kHeader, length);
    position_ += kHeader + length;
    return Piece::kGood;
  }
}

bool LogReader::Next(LogRecord* record) {
  std::string_view batch;
  while (NextRaw(&batch)) {
    if (ParseBatch(batch, record)) return true;
    Damage(record_start_);
  }
  return false;
}

bool LogReader::NextRaw(std::string_view* record) {
  bool inside = false;
  while (true) {
    // The place of the next piece, behind a block's trailer.
    size_t left = kBlock - position_ % kBlock;
    size_t at = left < kHeader ? position_ + left : position_;
    if (!inside) record_start_ = at;
    int type = 0;
    std::string_view data;
    Piece piece = NextPiece(&type, &data);
    if (piece == Piece::kEnd) return false;
    if (piece == Piece::kBad) {
      Damage(record_start_);
      inside = false;
      continue;
    }
    if (type == kFull || type == kFirst) {
      if (inside) Damage(record_start_);
      record_start_ = at;
      assembled_.clear();
      inside = true;
    } else if (!inside) {
      Damage(at);  // the rest of a record whose start is lost
      continue;
    }
    assembled_.append(data);
    if (type == kFirst || type == kMiddle) continue;
    *record = assembled_;
    return true;
  }
}

bool LogReader::ParseBatch(std::string_view batch, LogRecord* record) {
  constexpr size_t kBatchHeader = 12;  // sequence number and count
  *record = LogRecord();
  if (batch.size() < kBatchHeader) return false;
  batch.remove_prefix(kBatchHeader);
  static const Key commit_key = CommitKey();
  while (!batch.empty()) {
    const bool put = batch.front() == 1;
    if (!put && batch.front() != 0) return false;
    batch.remove_prefix(1);
    std::string_view key, value;
    if (!TakeSlice(&batch, &key) || (put && !TakeSlice(&batch, &value))) return false;
    if (!put || key != commit_key.view()) continue;
    pb::CommitRecord commit;
    if (!commit.ParseFromArray(value.data(), static_cast<int>(value.size()))) return false;
    if (record->first_txn == 0) {
      record->first_txn = commit.txn();
      record->previous = commit.previous();
    }
    record->last_txn = commit.txn();
    record->durable = std::max(record->durable, commit.durable());
  }
  return true;
}

}  // namespace shoal::meta
