#include "metaserver/backup/format.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>

#include "common/checksum.h"
#include "common/proto/record.pb.h"

namespace shoal::meta {
namespace {

constexpr std::string_view kMagic = "SHOALBAK", kEndMagic = "SHOALEND";
constexpr size_t kHeaderBytes = 128, kUuidBytes = 40, kRecordHead = 16, kTrailerBytes = 48;
constexpr uint32_t kTrailerMark = 0xffffffff;  // in the place of a key's length
constexpr size_t kMaxValue = 64 << 20;
constexpr size_t kBuffer = 1 << 20;

// Numbers are little-endian.
template <typename T>
void Put(std::string* out, T number) {
  for (size_t i = 0; i < sizeof number; ++i) out->push_back(static_cast<char>(number >> (8 * i)));
}
template <typename T>
T Get(std::string_view bytes, size_t at) {
  T number = 0;
  for (size_t i = 0; i < sizeof number; ++i) number |= T{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  return number;
}

std::string EncodeHeader(const BackupHeader& header) {
  std::string out(kMagic);
  Put<uint32_t>(&out, kBackupFormat);
  Put<uint32_t>(&out, header.incarnation);
  Put<uint64_t>(&out, header.txn);
  Put<uint64_t>(&out, static_cast<uint64_t>(header.time_ns));
  out += header.cluster_uuid.substr(0, kUuidBytes);
  out.resize(32 + kUuidBytes, '\0');
  Put<uint32_t>(&out, header.state_format);
  out.resize(kHeaderBytes - 8, '\0');
  Put<uint64_t>(&out, Checksum(out));
  return out;
}

// A record's place counts: one that was moved or doubled does not match.
uint64_t RecordChecksum(uint64_t ordinal, std::string_view lengths, std::string_view key, std::string_view value) {
  return Checksum(value, Checksum(key, Checksum(lengths, ordinal)));
}

void AddToTrailer(BackupTrailer* trailer, uint64_t checksum, size_t bytes) {
  trailer->records++;
  trailer->bytes += bytes;
  trailer->digest = Checksum(&checksum, sizeof checksum, trailer->digest);
}

std::string EncodeTrailer(const BackupTrailer& trailer) {
  std::string out;
  Put<uint32_t>(&out, kTrailerMark);
  Put<uint32_t>(&out, 0);
  out += kEndMagic;
  Put<uint64_t>(&out, trailer.records);
  Put<uint64_t>(&out, trailer.bytes);
  Put<uint64_t>(&out, trailer.digest);
  Put<uint64_t>(&out, Checksum(out));
  return out;
}

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string DirectoryOf(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Result<BackupHeader> HeaderOf(const HeadRecords& records) {
  pb::ClusterRecord cluster;
  pb::LifeRecord life;
  pb::CommitRecord commit;
  if (!cluster.ParseFromString(records.get(ClusterKeyOf())) || cluster.uuid().empty() ||
      !life.ParseFromString(records.get(LifeKey())) || life.incarnation() == 0 ||
      !commit.ParseFromString(records.get(CommitKey())) || commit.txn() == 0) {
    return Fail(ErrorCode::kCorrupt, "there is no cluster, life or commit record: this is no metaserver's state");
  }
  return BackupHeader{cluster.uuid(), life.incarnation(), cluster.format(), commit.txn(), records.time_ns};
}

// ---- writing ----

BackupWriter::BackupWriter(Files& files, std::string path)
    : files_(files), path_(std::move(path)), temporary_(fmt::format("{}.{}.partial", path_, ::getpid())) {}

Result<std::unique_ptr<BackupWriter>> BackupWriter::Create(Files& files, const std::string& path) {
  if (::access(path.c_str(), F_OK) == 0) {
    return Fail(ErrorCode::kExists, path + " is there already: a backup is never overwritten, name another file");
  }
  std::unique_ptr<BackupWriter> writer(new BackupWriter(files, path));
  if (Status gone = files.Unlink(writer->temporary_); !gone && gone.error().code != ErrorCode::kNotFound) {
    return Fail(gone.error());
  }
  TRY_ASSIGN(writer->file_, files.Open(writer->temporary_, Files::Mode::kCreate));
  return writer;
}

BackupWriter::~BackupWriter() {
  if (named_ || !file_) return;
  file_.reset();
  (void)files_.Unlink(temporary_);
}

Status BackupWriter::Put(std::string_view bytes) {
  buffer_ += bytes;
  return buffer_.size() >= kBuffer ? Flush() : Status();
}

Status BackupWriter::Flush() {
  TRY(file_->Write(offset_, Bytes(buffer_)));
  offset_ += buffer_.size();
  buffer_.clear();
  return {};
}

Status BackupWriter::Begin(const BackupHeader& header) { return Put(EncodeHeader(header)); }

Status BackupWriter::Add(std::string_view key, std::string_view value) {
  if (key.empty() || key <= last_key_) return Fail(ErrorCode::kInternal, "the records of a backup must come in order");
  std::string head;
  meta::Put<uint32_t>(&head, static_cast<uint32_t>(key.size()));
  meta::Put<uint32_t>(&head, static_cast<uint32_t>(value.size()));
  uint64_t checksum = RecordChecksum(trailer_.records, head, key, value);
  meta::Put<uint64_t>(&head, checksum);
  AddToTrailer(&trailer_, checksum, key.size() + value.size());
  last_key_ = key;
  TRY(Put(head));
  TRY(Put(key));
  return Put(value);
}

Status BackupWriter::Finish() {
  TRY(Put(EncodeTrailer(trailer_)));
  TRY(Flush());
  TRY(file_->SyncData());
  // As link(2) would: a file that has come into the place meanwhile stays.
  if (::access(path_.c_str(), F_OK) == 0)
    return Fail(ErrorCode::kExists, path_ + " has appeared meanwhile; name another file");
  TRY(files_.Rename(temporary_, path_));
  named_ = true;
  return files_.SyncDirectory(DirectoryOf(path_));
}

// ---- reading ----

std::unexpected<Error> BackupReader::Damaged(const std::string& what) const {
  return Fail(ErrorCode::kCorrupt,
              fmt::format("the backup {} is damaged: {} (at byte {}, after {} good records); use another one", path_,
                          what, buffer_offset_ + at_, trailer_.records));
}

Result<std::unique_ptr<BackupReader>> BackupReader::Open(Files& files, const std::string& path) {
  std::unique_ptr<BackupReader> reader(new BackupReader(path));
  TRY_ASSIGN(reader->file_, files.Open(path, Files::Mode::kRead));
  TRY_ASSIGN(reader->size_, reader->file_->Size());
  TRY(reader->ReadHeader());
  return reader;
}

Result<std::string_view> BackupReader::Peek(size_t bytes) {
  if (buffer_.size() - at_ < bytes) {
    uint64_t begin = buffer_offset_ + at_;
    if (size_ - begin < bytes) return Damaged("it ends too early: it was cut off");
    std::string next(std::min<uint64_t>(std::max(bytes, kBuffer), size_ - begin), '\0');
    TRY_ASSIGN(size_t got, file_->Read(begin, {reinterpret_cast<uint8_t*>(next.data()), next.size()}));
    if (got < next.size()) return Damaged("it became shorter while it was read");
    buffer_ = std::move(next);
    buffer_offset_ = begin;
    at_ = 0;
  }
  return std::string_view(buffer_).substr(at_, bytes);
}

Status BackupReader::ReadHeader() {
  if (size_ < kHeaderBytes)
    return Fail(ErrorCode::kCorrupt, path_ + " is too short to be a backup of Shoal's metadata");
  TRY_ASSIGN(std::string_view bytes, Peek(kHeaderBytes));
  if (!bytes.starts_with(kMagic)) return Fail(ErrorCode::kCorrupt, path_ + " is no backup of Shoal's metadata");
  auto format = Get<uint32_t>(bytes, 8);
  if (format > kBackupFormat) {
    return Fail(ErrorCode::kNotSupported,
                fmt::format("the backup {} has format {}, this program knows formats up to {}: use a newer version",
                            path_, format, kBackupFormat));
  }
  if (Get<uint64_t>(bytes, kHeaderBytes - 8) != Checksum(bytes.substr(0, kHeaderBytes - 8))) {
    return Damaged("its header does not match its checksum");
  }
  header_.incarnation = Get<uint32_t>(bytes, 12);
  header_.txn = Get<uint64_t>(bytes, 16);
  header_.time_ns = static_cast<int64_t>(Get<uint64_t>(bytes, 24));
  header_.cluster_uuid = bytes.substr(32, kUuidBytes);
  header_.cluster_uuid.erase(std::min(header_.cluster_uuid.find('\0'), header_.cluster_uuid.size()));
  header_.state_format = Get<uint32_t>(bytes, 72);
  Skip(kHeaderBytes);
  return {};
}

Status BackupReader::CheckTrailer() {
  TRY_ASSIGN(std::string_view bytes, Peek(kTrailerBytes));
  if (bytes.substr(8, 8) != kEndMagic || Get<uint64_t>(bytes, 40) != Checksum(bytes.substr(0, 40))) {
    return Damaged("its end does not match its checksum");
  }
  if (Get<uint64_t>(bytes, 16) != trailer_.records || Get<uint64_t>(bytes, 24) != trailer_.bytes ||
      Get<uint64_t>(bytes, 32) != trailer_.digest) {
    return Damaged("its end counts other records than it has");
  }
  Skip(kTrailerBytes);
  if (buffer_offset_ + at_ != size_) return Damaged("something stands behind its end");
  ended_ = true;
  return {};
}

Result<bool> BackupReader::Next(std::string* key, std::string* value) {
  if (ended_) return false;
  TRY_ASSIGN(std::string_view head, Peek(kRecordHead));
  auto key_size = Get<uint32_t>(head, 0), value_size = Get<uint32_t>(head, 4);
  if (key_size == kTrailerMark) {
    TRY(CheckTrailer());
    return false;
  }
  if (key_size == 0 || key_size > Key::kMax || value_size > kMaxValue)
    return Damaged("a record's length is impossible");
  TRY_ASSIGN(std::string_view record, Peek(kRecordHead + key_size + value_size));
  std::string_view k = record.substr(kRecordHead, key_size), v = record.substr(kRecordHead + key_size);
  auto checksum = Get<uint64_t>(record, 8);
  if (checksum != RecordChecksum(trailer_.records, record.substr(0, 8), k, v)) {
    return Damaged("a record does not match its checksum");
  }
  if (k <= last_key_) return Damaged("its records are out of order");
  AddToTrailer(&trailer_, checksum, k.size() + v.size());
  last_key_ = *key = k;
  *value = v;
  Skip(record.size());
  return true;
}

}  // namespace shoal::meta
