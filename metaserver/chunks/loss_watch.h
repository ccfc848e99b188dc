// LossWatch: which chunks have no good copy in reach, and the names of their files.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "metaserver/chunks/health.h"

namespace shoal::meta {

// Looks at the chunks that may be concerned: those with a copy on a server that is away, with one known to be bad, or
// waiting for repair; all others have every copy. While bad copies are known it looks by itself, so that health() is of
// the last seconds. The names of a few of the files are searched for in the background. In memory only.
// Namespace thread; owner: ChunkService.
class LossWatch {
 public:
  // A few of the files, lost ones first. A plain value.
  struct Found {
    uint64_t chunks_short = 0, chunks_unavailable = 0, chunks_lost = 0;
    std::set<uint64_t> files_unavailable, files_lost;  // inodes; bounded
  };
  explicit LossWatch(ChunkState& state) : state_(state) {}
  void Tick();
  // Looks now. The answer may be cut off at 100000 chunks.
  Task<Result<Found>> Look();
  void FillTroubled(const Found& found, pb::ClusterStatusResponse* out);
  // kCorrupt when something is lost.
  const Status& health() const { return health_; }

 private:
  // Of one chunk. A plain value.
  struct Judged {
    uint64_t inode = 0;
    pb::Safety safety = pb::SAFE;
  };
  Task<Status> AddAway(std::set<uint64_t>* chunks);
  Task<Result<Found>> JudgeAll(std::set<uint64_t> chunks);
  Status JudgeSome(View& view, const ClusterHealth& health, const std::vector<uint64_t>& chunks, size_t at,
                   std::vector<Judged>* judged);
  Task<void> LookAtBad();
  std::set<uint64_t> BadChunks() const;
  void SetHealth(const Found& found);
  std::string NameOf(uint64_t inode);
  Task<void> FindNames();
  Task<Result<std::map<uint64_t, std::pair<uint64_t, std::string>>>> FindEntries(Key start, Key end,
                                                                                 std::set<uint64_t> inodes);
  Task<Result<std::string>> PathOf(uint64_t parent, std::string name);

  ChunkState& state_;
  Status health_;
  bool looking_ = false;
  size_t bad_before_ = 0;
  SteadyTime next_look_{};
  std::map<uint64_t, std::string> names_;  // by inode; "": not found yet
  bool finding_ = false;
  bool new_names_ = false;  // some of names_ were never searched for
  SteadyTime next_find_{};
};

}  // namespace shoal::meta
