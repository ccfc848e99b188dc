#include "tests/fault/damage.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

namespace fs = std::filesystem;

namespace shoal::test {
namespace {

// An open file, closed at the end. On the stack.
struct Fd {
  explicit Fd(const std::string& path) : fd(open(path.c_str(), O_RDWR | O_CLOEXEC)) {}
  ~Fd() {
    if (fd >= 0) close(fd);
  }
  int fd;
};

std::string ServerDirectory(const std::string& path) { return fs::path(path).parent_path().parent_path(); }

ChunkId ChunkOf(const std::string& path) {
  ChunkId chunk;
  InstanceId instance;
  ParseReplicaFileName(fs::path(path).filename(), chunk, instance);
  return chunk;
}

std::string ZeroPage(const std::string& path, uint64_t offset) {
  Fd file(path);
  Page zeros{};
  bool good = file.fd >= 0 && pwrite(file.fd, zeros.data(), zeros.size(), static_cast<off_t>(offset)) > 0;
  return good ? "" : strerror(errno);
}

std::string Append(const std::string& path, std::mt19937_64& random) {
  Fd file(path);
  std::string garbage(1 + random() % 20000, '\0');
  for (char& c : garbage) c = static_cast<char>(random());
  bool good = file.fd >= 0 && lseek(file.fd, 0, SEEK_END) >= 0 && write(file.fd, garbage.data(), garbage.size()) > 0;
  return good ? "" : strerror(errno);
}

}  // namespace

std::string FlipRandomBit(const std::string& path, uint64_t offset, uint64_t length, std::mt19937_64& random) {
  Fd file(path);
  unsigned char byte;
  auto at = static_cast<off_t>(offset + random() % length);
  if (file.fd < 0 || pread(file.fd, &byte, 1, at) != 1) return "can't be read";
  byte = static_cast<unsigned char>(byte ^ (1 << random() % 8));
  return pwrite(file.fd, &byte, 1, at) == 1 ? "" : strerror(errno);
}

std::vector<uint32_t> WrittenBlocks(const std::string& path) {
  std::vector<uint32_t> blocks;
  Fd file(path);
  for (uint32_t p = 0; p < kTablePages && file.fd >= 0; ++p) {
    TablePage table;
    if (pread(file.fd, &table, sizeof table, static_cast<off_t>(TablePageOffset(p))) != sizeof table) break;
    for (uint32_t b = p * kEntriesPerPage; b < FirstBlockAfter(p); ++b) {
      if (table.entries[TableSlotOf(b)] != 0) blocks.push_back(b);
    }
  }
  return blocks;
}

const std::vector<std::string>& Damage::Kinds() {
  static const std::vector<std::string> kinds{"flip-data",  "flip-blocks", "flip-table", "flip-header",
                                              "flip-state", "zero-data",   "zero-table", "zero-header",
                                              "zero-state", "truncate",    "delete",     "swap",
                                              "copy-over",  "stale",       "append"};
  return kinds;
}

void Damage::Begin() {
  replicas_ = data_.Replicas();
  chunks_.clear();
  spared_.clear();
  in_places_.clear();
  blocks_.clear();
  for (const auto& [chunk, paths] : replicas_) {
    if (data_.file(data_.FileOf(chunk).first).lost) continue;
    chunks_.push_back(chunk);
    spared_[chunk] = paths[Below(paths.size())];
    if (Below(8) == 0) in_places_.insert(chunk);
  }
}

std::string Damage::KeepSome(int count) {
  for (int i = 0; i < count; ++i) {
    std::string path = Victim();
    if (path.empty()) break;
    std::string kept = cluster_.dir() + "/kept-" + std::to_string(next_kept_++);
    Outcome copied = RunProgram({"cp", "--sparse=always", path, kept});
    if (copied.exit != 0) return copied.Text();
    auto [file, index] = data_.FileOf(ChunkOf(path));
    std::string failed = data_.Overwrite(file, index);
    if (!failed.empty()) return failed;
    kept_.emplace_back(path, kept);
  }
  return {};
}

bool Damage::MayDamage(ChunkId chunk, const std::string& path) {
  return !in_places_.contains(chunk) && spared_[chunk] != path;
}

std::string Damage::Victim() {
  for (int tries = 0; tries < 100; ++tries) {
    ChunkId chunk = chunks_[Below(chunks_.size())];
    const auto& paths = replicas_[chunk];
    const std::string& path = paths[Below(paths.size())];
    if (MayDamage(chunk, path) && fs::exists(path)) return path;
  }
  return {};
}

std::string Damage::Strike(const std::string& kind) {
  if (kind == "flip-blocks") return FlipBlock();
  if (kind == "stale") return PutBack();
  std::string path = Victim();
  if (path.empty()) return "no replica file is left for it";
  last_ = kind + " " + path;
  return StrikeFile(kind, path);
}

std::string Damage::StrikeFile(const std::string& kind, const std::string& path) {
  if (kind == "swap") return Swap(path);
  if (kind == "copy-over") return CopyOver(path);
  if (kind == "append") return Append(path, random_);
  if (kind == "delete") return unlink(path.c_str()) == 0 ? "" : strerror(errno);
  if (kind == "truncate") {
    // Any length: inside header, table or data, or only the hole behind them.
    uint64_t size = Below(3) ? Below(kReplicaFileSize) : Below(kDataOffset + (64 << 10));
    last_ += " to " + std::to_string(size);
    return truncate(path.c_str(), static_cast<off_t>(size)) == 0 ? "" : strerror(errno);
  }
  uint64_t at = 0, length = 4096;
  if (kind.ends_with("state")) {
    // A page that says something: the second one is blank until it is used.
    at = kStateOffset;
  } else if (!kind.ends_with("header")) {
    std::vector<uint32_t> blocks = WrittenBlocks(path);
    if (blocks.empty()) return "nothing is written there";
    uint32_t block = blocks[Below(blocks.size())];
    at = kind.ends_with("data") ? kDataOffset + uint64_t{block} * kBlockSize : TablePageOffset(TablePageOf(block));
  }
  last_ += " at " + std::to_string(at);
  return kind.starts_with("zero") ? ZeroPage(path, at) : FlipRandomBit(path, at, length, random_);
}

// A block that is good in the other copies, in a chunk whose copies may all have bad ones.
std::string Damage::FlipBlock() {
  for (int tries = 0; tries < 50 && !in_places_.empty(); ++tries) {
    ChunkId chunk = *std::next(in_places_.begin(), static_cast<long>(Below(in_places_.size())));
    const auto& paths = replicas_[chunk];
    const std::string& path = paths[Below(paths.size())];
    std::vector<uint32_t> blocks = WrittenBlocks(path);
    if (blocks.empty()) continue;
    uint32_t block = blocks[Below(blocks.size())];
    if (!blocks_.emplace(chunk, block).second) continue;
    last_ = "flip-blocks " + path + " block " + std::to_string(block);
    return FlipRandomBit(path, kDataOffset + uint64_t{block} * kBlockSize, kBlockSize, random_);
  }
  return "no block is left for it";
}

std::string Damage::Swap(const std::string& path) {
  for (int tries = 0; tries < 30; ++tries) {
    std::string other = Victim();
    if (other.empty() || other == path || ServerDirectory(other) != ServerDirectory(path)) continue;
    last_ += " with " + other;
    return renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0 ? "" : strerror(errno);
  }
  return "no other file of that server";
}

// Another replica's bytes, all of them, in the same file: each of its parts is good by itself.
std::string Damage::CopyOver(const std::string& path) {
  std::string other = Victim();
  if (other.empty() || other == path) return "no other file";
  last_ += " with " + other;
  Outcome copied = RunProgram({"cp", "--sparse=always", other, path});
  return copied.exit == 0 ? "" : copied.Text();
}

std::string Damage::PutBack() {
  while (!kept_.empty()) {
    auto [path, kept] = kept_.back();
    kept_.pop_back();
    if (!fs::exists(path) || !MayDamage(ChunkOf(path), path)) continue;
    last_ = "stale " + path;
    return rename(kept.c_str(), path.c_str()) == 0 ? "" : strerror(errno);
  }
  return "nothing old is kept";
}

}  // namespace shoal::test
