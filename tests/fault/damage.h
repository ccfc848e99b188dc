// Damage of the corruption run: what is done to replica files.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/fault/data_set.h"

namespace shoal::test {

// Damages replica files of one data set, by chance. Between two calls of Begin one copy of each chunk is left alone, or
// only blocks are damaged, each in one copy. One thread; owner: the run.
class Damage {
 public:
  Damage(const Cluster& cluster, DataSet& data, uint64_t seed) : cluster_(cluster), data_(data), random_(seed) {}

  static const std::vector<std::string>& Kinds();
  // All replicas are right now.
  void Begin();
  // Keeps replica files as they are, of chunks that Overwrite changes then: they are stale.
  std::string KeepSome(int count);
  // "" when it was done; else why not. What was done stands in `last`.
  std::string Strike(const std::string& kind);
  const std::string& last() const { return last_; }

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }
  // A replica file that may be damaged as a whole. "": none was found.
  std::string Victim();
  bool MayDamage(ChunkId chunk, const std::string& path);
  std::string StrikeFile(const std::string& kind, const std::string& path);
  std::string FlipBlock();
  std::string Swap(const std::string& path);
  std::string CopyOver(const std::string& path);
  std::string PutBack();

  const Cluster& cluster_;
  DataSet& data_;
  std::mt19937_64 random_;
  std::map<ChunkId, std::vector<std::string>> replicas_;  // at Begin
  std::vector<ChunkId> chunks_;
  std::map<ChunkId, std::string> spared_;                // the copy that is left alone
  std::set<ChunkId> in_places_;                          // only blocks of these, in all copies
  std::set<std::pair<ChunkId, uint32_t>> blocks_;        // that are damaged in one of the copies
  std::vector<std::pair<std::string, std::string>> kept_;  // where it stood, where it is kept
  int next_kept_ = 0;
  std::string last_;
};

// A bit, a page, at an offset. "" or the error.
std::string FlipRandomBit(const std::string& path, uint64_t offset, uint64_t length, std::mt19937_64& random);
// Blocks of a replica file that have a checksum.
std::vector<uint32_t> WrittenBlocks(const std::string& path);

}  // namespace shoal::test
