#include "chunkserver/write_intent.h"

#include <algorithm>
#include <cstring>

#include "chunkserver/layout.h"
#include "common/checksum.h"

namespace shoal {
namespace {

constexpr char kMagic[] = "SHOALINT";
constexpr uint32_t kFormat = 1;
constexpr size_t kHeaderBytes = 32;
constexpr size_t kEntryBytes = 16;

template <typename T>
T Take(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

WriteIntent::Content Decode(const std::vector<uint8_t>& bytes) {
  WriteIntent::Content content;
  if (bytes.size() < kHeaderBytes + 8 || std::memcmp(bytes.data(), kMagic, 8) != 0) return content;
  auto count = Take<uint32_t>(bytes.data() + 12);
  size_t size = kHeaderBytes + uint64_t{count} * kEntryBytes;
  if (Take<uint32_t>(bytes.data() + 8) != kFormat || count > kBlocksPerChunk || bytes.size() < size + 8) return content;
  if (Take<uint64_t>(bytes.data() + size) != Checksum(bytes.data(), size)) return content;
  content.chunk = ChunkId{Take<uint64_t>(bytes.data() + 16)};
  content.instance = InstanceId{Take<uint64_t>(bytes.data() + 24)};
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t* entry = bytes.data() + kHeaderBytes + uint64_t{i} * kEntryBytes;
    content.changes.push_back({Take<uint32_t>(entry), Take<uint64_t>(entry + 8)});
  }
  return content;
}

}  // namespace

Result<std::unique_ptr<WriteIntent>> WriteIntent::Open(Files& files, const std::string& path) {
  auto file = files.Open(path, Files::Mode::kReadWrite);
  if (!file && file.error().code == ErrorCode::kNotFound) {
    file = files.Open(path, Files::Mode::kCreate);
    // Its space is taken now, so that a full disk can still be overwritten.
    std::vector<uint8_t> zeros(32 << 10, 0);
    if (file) {
      TRY((*file)->Write(0, zeros));
    }
  }
  if (!file) return Fail(std::move(file).error());
  std::unique_ptr<WriteIntent> intent(new WriteIntent(std::move(*file)));
  TRY_ASSIGN(uint64_t size, intent->file_->Size());
  std::vector<uint8_t> bytes(std::min<uint64_t>(size, kHeaderBytes + uint64_t{kBlocksPerChunk} * kEntryBytes + 8));
  TRY_ASSIGN(size_t n, intent->file_->Read(0, bytes));
  bytes.resize(n);
  intent->left_behind_ = Decode(bytes);
  return intent;
}

Status WriteIntent::Note(ChunkId chunk, InstanceId instance, const std::vector<BlockChange>& changes) {
  bytes_.assign(kHeaderBytes + changes.size() * kEntryBytes + 8, 0);
  auto put = [this](size_t at, auto value) { std::memcpy(bytes_.data() + at, &value, sizeof value); };
  std::memcpy(bytes_.data(), kMagic, 8);
  put(8, kFormat);
  put(12, static_cast<uint32_t>(changes.size()));
  put(16, chunk.value);
  put(24, instance.value);
  size_t at = kHeaderBytes;
  for (const BlockChange& change : changes) {
    put(at, change.block);
    put(at + 8, change.checksum);
    at += kEntryBytes;
  }
  put(at, Checksum(bytes_.data(), at));
  return file_->Write(0, bytes_);
}

}  // namespace shoal
