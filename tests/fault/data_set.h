// The files of the corruption run: what must be in them, readers that compare all the time, and the same for their
// replica files.
#pragma once

#include <map>
#include <random>
#include <shared_mutex>
#include <string>
#include <vector>

#include "chunkserver/layout.h"
#include "tests/cluster/load.h"

namespace shoal::test {

// One file: its blocks that are not holes. Reading it takes `mutex` shared, changing it exclusive. Owner: DataSet.
struct DataFile {
  std::string path;
  std::map<uint64_t, Page> blocks;  // by number, in the file
  uint64_t size = 0;
  std::vector<ChunkId> chunks;  // by index; none: a hole
  bool lost = false;            // some of it is: not read, not checked
  std::shared_mutex mutex;

  uint64_t chunk_count() const { return chunks.size(); }
  std::string Expected(uint64_t offset, size_t length) const;
};

// Small and sparse files of one to three chunks. Owner: the run; Write by one thread, the rest by any.
class DataSet {
 public:
  DataSet(const Cluster& cluster, int files, uint64_t seed);

  // Writes all of them. "" or what went wrong.
  std::string Create();
  // Overwrites something in one of them, and makes it durable. `within` a chunk that has data; gives "" or the error.
  std::string Overwrite(size_t file, uint64_t chunk_index);
  // Reads the whole file (its blocks, and a hole between them) and compares.
  std::string Check(size_t file);

  // A replica file against what must be in its chunk; "" if header, state, table and all data are right, and it is as
  // long as it must be. Another text: what is not.
  std::string CheckReplica(const std::string& path) const;

  // Every replica file of every server of a chunk that is known, by chunk.
  std::map<ChunkId, std::vector<std::string>> Replicas() const;
  // "" when each chunk has exactly `copies` replica files and all of them are right.
  std::string CheckReplicas(size_t copies) const;

  size_t size() const { return files_.size(); }
  DataFile& file(size_t i) { return *files_[i]; }
  // Of a chunk: number of the file, and index in it.
  std::pair<size_t, uint64_t> FileOf(ChunkId chunk) const { return by_chunk_.at(chunk); }

 private:
  std::string LearnChunks(DataFile& file, size_t number);

  const Cluster& cluster_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<DataFile>> files_;
  std::map<ChunkId, std::pair<size_t, uint64_t>> by_chunk_;
};

// Reads files of the set by chance, through the mount and without its kernel's cache. Progress: reads.
class DataReader : public Background {
 public:
  DataReader(DataSet& data, uint64_t seed) : data_(data), random_(seed) {}
  ~DataReader() override { Stop(); }

 protected:
  void Round() override;

 private:
  DataSet& data_;
  std::mt19937_64 random_;
};

// Reads at an offset without the kernel's cache; "" and the bytes, or the error's text (its errno in `error`).
std::string ReadAt(const std::string& path, uint64_t offset, size_t length, std::string* bytes, int* error = nullptr);

}  // namespace shoal::test
