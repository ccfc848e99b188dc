#include "tests/fault/data_set.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <regex>

#include "common/checksum.h"

namespace fs = std::filesystem;

namespace shoal::test {
namespace {

constexpr uint64_t kMaxRunBlocks = 12;

void FillRandom(std::mt19937_64& random, Page& page) {
  for (size_t i = 0; i < page.size(); i += 8) {
    uint64_t word = random();
    std::memcpy(page.data() + i, &word, 8);
  }
}

}  // namespace

std::string ReadAt(const std::string& path, uint64_t offset, size_t length, std::string* bytes, int* error) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return path + ": open: " + strerror(errno);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  bytes->resize(length);
  ssize_t n = pread(fd, bytes->data(), length, static_cast<off_t>(offset));
  int failed = n < 0 ? errno : 0;
  close(fd);
  if (error) *error = failed;
  bytes->resize(n < 0 ? 0 : static_cast<size_t>(n));
  return failed == 0 ? "" : path + " at " + std::to_string(offset) + ": read: " + strerror(failed);
}

std::string DataFile::Expected(uint64_t offset, size_t length) const {
  length = offset >= size ? 0 : std::min<uint64_t>(length, size - offset);
  std::string bytes(length, '\0');
  for (auto it = blocks.lower_bound(offset / kBlockSize); it != blocks.end(); ++it) {
    uint64_t begin = it->first * kBlockSize;
    if (begin >= offset + length) break;
    uint64_t from = std::max(begin, offset), to = std::min(begin + kBlockSize, offset + length);
    std::memcpy(bytes.data() + (from - offset), it->second.data() + (from - begin), to - from);
  }
  return bytes;
}

DataSet::DataSet(const Cluster& cluster, int files, uint64_t seed) : cluster_(cluster), random_(seed) {
  for (int i = 0; i < files; ++i) {
    auto file = std::make_unique<DataFile>();
    file->path = cluster.Path("file-" + std::to_string(i));
    uint64_t chunks = random_() % 6 == 0 ? 2 + random_() % 2 : 1;
    file->chunks.resize(chunks);
    for (uint64_t c = 0; c < chunks; ++c) {
      for (uint64_t run = 1 + random_() % 3; run > 0; --run) {
        // Most of it near the beginning, as in small files; some of it anywhere, and on every page of the table.
        uint64_t first = random_() % 2 ? random_() % 64 : random_() % (kBlocksPerChunk - kMaxRunBlocks);
        for (uint64_t b = 0, n = 1 + random_() % kMaxRunBlocks; b < n; ++b)
          FillRandom(random_, file->blocks[c * kBlocksPerChunk + first + b]);
      }
    }
    file->size = (file->blocks.rbegin()->first + 1) * kBlockSize;
    files_.push_back(std::move(file));
  }
}

std::string DataSet::Create() {
  for (size_t i = 0; i < files_.size(); ++i) {
    DataFile& file = *files_[i];
    int fd = open(file.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return file.path + ": " + strerror(errno);
    bool good = true;
    for (const auto& [block, page] : file.blocks) {
      good = good && pwrite(fd, page.data(), page.size(), static_cast<off_t>(block * kBlockSize)) ==
                         static_cast<ssize_t>(page.size());
    }
    good = good && fsync(fd) == 0;
    good = close(fd) == 0 && good;
    if (!good) return file.path + ": writing: " + strerror(errno);
    std::string learnt = LearnChunks(file, i);
    if (!learnt.empty()) return learnt;
  }
  return {};
}

std::string DataSet::LearnChunks(DataFile& file, size_t number) {
  nlohmann::json stat = cluster_.Json({"stat", file.path});
  if (!stat.contains("chunks")) return "no chunks: " + stat.dump();
  for (const auto& chunk : stat["chunks"]) {
    uint64_t index = chunk["offset_bytes"].get<uint64_t>() / kChunkSize;
    if (index >= file.chunks.size()) return "a chunk too many: " + stat.dump();
    file.chunks[index] = ChunkId{chunk["chunk"].get<uint64_t>()};
    by_chunk_[file.chunks[index]] = {number, index};
  }
  return {};
}

std::string DataSet::Overwrite(size_t number, uint64_t index) {
  DataFile& file = *files_[number];
  std::unique_lock lock(file.mutex);
  auto it = file.blocks.lower_bound(index * kBlocksPerChunk);
  std::vector<uint64_t> blocks;
  for (; it != file.blocks.end() && it->first / kBlocksPerChunk == index; ++it) blocks.push_back(it->first);
  uint64_t block = blocks[random_() % blocks.size()];
  Page page;
  FillRandom(random_, page);
  int fd = open(file.path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return file.path + ": " + strerror(errno);
  bool good = pwrite(fd, page.data(), page.size(), static_cast<off_t>(block * kBlockSize)) ==
                  static_cast<ssize_t>(page.size()) && fsync(fd) == 0;
  good = close(fd) == 0 && good;
  if (!good) return file.path + ": writing: " + strerror(errno);
  file.blocks[block] = page;
  return {};
}

std::string DataSet::Check(size_t number) {
  DataFile& file = *files_[number];
  std::shared_lock lock(file.mutex);
  std::string bytes;
  for (auto it = file.blocks.begin(); it != file.blocks.end();) {
    uint64_t first = it->first, last = first;
    while (++it != file.blocks.end() && it->first == last + 1) ++last;
    // With a little of the hole around it.
    uint64_t begin = first * kBlockSize - (first ? 100 : 0), end = (last + 1) * kBlockSize + 100;
    std::string failed = ReadAt(file.path, begin, end - begin, &bytes);
    if (!failed.empty()) return failed;
    if (bytes != file.Expected(begin, end - begin)) return file.path + " at " + std::to_string(begin) + ": wrong bytes";
  }
  return {};
}

std::string DataSet::CheckReplica(const std::string& path) const {
  ChunkId chunk;
  InstanceId instance;
  if (!ParseReplicaFileName(fs::path(path).filename(), chunk, instance)) return "not a replica's name";
  auto [number, index] = FileOf(chunk);
  const DataFile& file = *files_[number];
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return strerror(errno);
  std::string wrong;
  Page page;
  auto at = [&](uint64_t offset) {
    bool good = pread(fd, page.data(), page.size(), static_cast<off_t>(offset)) == static_cast<ssize_t>(page.size());
    if (!good) wrong = "it ends before " + std::to_string(offset);
    return good;
  };
  if (lseek(fd, 0, SEEK_END) != static_cast<off_t>(kReplicaFileSize)) wrong = "its size";
  if (wrong.empty() && at(0)) {
    auto header = ReplicaHeader::Decode(page);
    if (!header || header->chunk != chunk || header->instance != instance) wrong = "the header";
  }
  for (uint64_t i = 0; i < 2 && wrong.empty() && at(kStateOffset + i * 4096); ++i) {
    bool blank = std::all_of(page.begin(), page.end(), [](uint8_t byte) { return byte == 0; });
    if (!ReplicaState::Decode(page) && !(blank && i == 1)) wrong = "state page " + std::to_string(i);
  }
  for (uint32_t p = 0; p < kTablePages && wrong.empty() && at(TablePageOffset(p)); ++p) {
    TablePage table;
    std::memcpy(&table, page.data(), sizeof table);
    if (!table.Valid()) wrong = "page " + std::to_string(p) + " of the table";
    for (uint32_t b = p * kEntriesPerPage; b < FirstBlockAfter(p) && wrong.empty(); ++b) {
      uint64_t entry = table.entries[TableSlotOf(b)];
      auto expected = file.blocks.find(index * kBlocksPerChunk + b);
      bool hole = expected == file.blocks.end();
      if (hole != (entry == 0)) wrong = "entry " + std::to_string(b);
      if (hole || !wrong.empty() || !at(kDataOffset + uint64_t{b} * kBlockSize)) continue;
      if (page != expected->second || BlockChecksum(page.data(), page.size()) != entry)
        wrong = "block " + std::to_string(b);
    }
  }
  close(fd);
  return wrong;
}

std::map<ChunkId, std::vector<std::string>> DataSet::Replicas() const {
  std::map<ChunkId, std::vector<std::string>> found;
  for (const std::string& server : cluster_.Chunkservers()) {
    std::error_code error;
    fs::recursive_directory_iterator it(cluster_.dir() + "/" + server, error), end;
    for (; it != end && !error; it.increment(error)) {
      ChunkId chunk;
      InstanceId instance;
      bool replica = it->path().parent_path().parent_path().filename() == "chunks" &&
                     ParseReplicaFileName(it->path().filename(), chunk, instance);
      if (replica && by_chunk_.contains(chunk)) found[chunk].push_back(it->path());
    }
  }
  return found;
}

std::string DataSet::CheckReplicas(size_t copies) const {
  auto replicas = Replicas();
  for (const auto& [chunk, place] : by_chunk_) {
    if (files_[place.first]->lost) continue;
    const auto& paths = replicas[chunk];
    if (paths.size() != copies) {
      std::string all;
      for (const auto& path : paths) all += "\n  " + path;
      return files_[place.first]->path + " chunk " + std::to_string(place.second) + " has " +
             std::to_string(paths.size()) + " replica files" + all;
    }
    for (const std::string& path : paths) {
      std::string wrong = CheckReplica(path);
      if (!wrong.empty()) return path + ": " + wrong;
    }
  }
  return {};
}

void DataReader::Round() {
  size_t number = random_() % data_.size();
  DataFile& file = data_.file(number);
  std::shared_lock lock(file.mutex);
  if (file.lost) return;
  auto it = file.blocks.lower_bound(random_() % (file.size / kBlockSize));
  if (it == file.blocks.end()) return;
  uint64_t at = it->first * kBlockSize;
  uint64_t begin = at - std::min<uint64_t>(at, random_() % 9000);
  size_t length = 1 + random_() % 60000;
  std::string bytes, failed = Timed([&] { return ReadAt(file.path, begin, length, &bytes); });
  if (!failed.empty()) return Fail(failed);
  if (bytes != file.Expected(begin, length)) return Fail(file.path + " at " + std::to_string(begin) + ": wrong bytes");
  ++progress_;
}

}  // namespace shoal::test
