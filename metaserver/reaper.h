// Reaper: drops the extents of files that are gone, in small batches, in the background.
#pragma once

#include <deque>
#include <vector>

#include "common/event_loop.h"
#include "common/ids.h"
#include "common/result.h"
#include "metaserver/context.h"
#include "metaserver/view.h"

namespace shoal::meta {

// Works off the ReapRecords, those of before a restart first. Every batch changes a bounded number of keys; a crash
// between two goes on with the next. Owner: MetaServer; namespace thread. Errors are logged, and tried again.
class Reaper {
 public:
  explicit Reaper(MetaContext& context);
  ~Reaper();
  // Starts the worker. Add may be called from then on.
  void Start();
  // Ends it; what is not done yet is found again at the next start.
  Task<void> Stop();

  void Add(InodeId inode);
  // Ends when nothing is left to do.
  Task<void> WaitIdle();
  size_t pending() const { return queue_.size(); }

 private:
  Task<void> Work();
  Task<Status> Refill();
  Task<Status> DropSome();
  Task<Status> DropSmall(std::vector<InodeId> inodes, std::vector<InodeId>* large);
  Task<Status> DropLarge(InodeId inode);

  MetaContext& context_;
  std::deque<InodeId> queue_;
  bool more_in_store_ = true;  // records that are not in the queue
  bool working_ = false;
  bool stop_ = false;
  WaitList wake_, idle_;
  TaskGroup group_;
};

}  // namespace shoal::meta
