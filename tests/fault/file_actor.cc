// One sparse file of three chunks against a model of it.
#include <algorithm>
#include <cstring>

#include "tests/fault/actors.h"

namespace shoal::test {
namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kChunk = 64 << 20;
constexpr uint64_t kIsland =
    512 << 10;  // work goes on around the chunks' borders: a small set of blocks, written often
constexpr size_t kLongestWrite = 200'000;

}  // namespace

FileActor::FileActor(const Cluster& cluster, std::string name, uint64_t seed, FileMaker maker)
    : Actor(std::move(name), seed), cluster_(cluster), maker_(maker), file_(maker(cluster, this->name())) {
  if (std::string error = file_->Open(false); !error.empty()) Broken(error);
}

uint64_t FileActor::RandomOffset() {
  uint64_t border = Below(3) * kChunk;
  uint64_t offset = border + Below(kIsland);
  return border == 0 ? offset : offset - kIsland / 2;
}

void FileActor::WriteSome() {
  uint64_t offset = RandomOffset();
  if (Below(3) == 0) offset = offset / kBlock * kBlock;
  std::string bytes = Bytes(1 + Below(Below(4) == 0 ? kLongestWrite : 9000));
  if (std::string error = Call([&] { return file_->Write(bytes, offset); }); !error.empty()) return Broken(error);
  for (size_t at = 0; at < bytes.size();) {
    uint64_t in_block = (offset + at) % kBlock;
    size_t n = std::min<size_t>(bytes.size() - at, kBlock - in_block);
    memcpy(blocks_[(offset + at) / kBlock].data() + in_block, bytes.data() + at, n);
    at += n;
  }
  size_ = std::max(size_, offset + bytes.size());
}

void FileActor::Cut() {
  uint64_t size = Below(4) == 0 ? Below(kIsland) : RandomOffset();
  if (std::string error = Call([&] { return file_->Truncate(size); }); !error.empty()) return Broken(error);
  blocks_.erase(blocks_.lower_bound((size + kBlock - 1) / kBlock), blocks_.end());
  if (auto last = blocks_.find(size / kBlock); last != blocks_.end()) {
    std::fill(last->second.begin() + static_cast<long>(size % kBlock), last->second.end(), '\0');
  }
  size_ = size;
}

std::string FileActor::Compare(OpenFile& file, uint64_t offset, size_t size) {
  std::string bytes;
  if (std::string error = Call([&] { return file.Read(offset, size, &bytes); }); !error.empty()) return error;
  size_t wanted = offset >= size_ ? 0 : std::min<uint64_t>(size, size_ - offset);
  if (bytes.size() != wanted) {
    return "read of " + std::to_string(size) + " bytes at " + std::to_string(offset) + " gave " +
           std::to_string(bytes.size()) + "; the file has " + std::to_string(size_);
  }
  static constexpr std::array<char, kBlock> kZeros{};
  for (size_t at = 0; at < wanted;) {
    uint64_t in_block = (offset + at) % kBlock;
    size_t n = std::min<size_t>(wanted - at, kBlock - in_block);
    auto block = blocks_.find((offset + at) / kBlock);
    const char* right = (block == blocks_.end() ? kZeros.data() : block->second.data()) + in_block;
    for (size_t i = 0; i < n; ++i) {
      if (bytes[at + i] != right[i])
        return "wrong byte at " + std::to_string(offset + at + i) + " of " + std::to_string(size_);
    }
    at += n;
  }
  return {};
}

void FileActor::Round() {
  std::string error;
  switch (Below(20)) {
    case 0:
      return Cut();
    case 1:
    case 2:
      error = Call([&] { return file_->Sync(Below(2) == 0); });
      break;
    case 3:
      error = Call([&] { return file_->Close(); });
      if (error.empty()) error = Call([&] { return file_->Open(false); });
      break;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
      error = Compare(*file_, RandomOffset(), 1 + Below(64 << 10));
      break;
    default:
      return WriteSome();
  }
  if (!error.empty()) Broken(error);
}

std::string FileActor::Verify() {
  std::unique_ptr<OpenFile> again = maker_(cluster_, name());
  if (std::string error = again->Open(false); !error.empty()) return name() + ": " + error;
  for (uint64_t border : {uint64_t{0}, kChunk, 2 * kChunk}) {
    uint64_t begin = border == 0 ? 0 : border - kIsland;
    std::string error = Compare(*again, begin, 2 * kIsland);
    if (!error.empty()) return name() + " in the end: " + error;
  }
  return again->Close();
}

}  // namespace shoal::test
