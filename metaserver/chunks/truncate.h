// Truncator: makes files shorter (and longer), in one batch where that can be done.
#pragma once

#include <optional>

#include "metaserver/chunks/state.h"

namespace shoal::meta {

// A truncation that cuts inside a written chunk, or drops more extents than one batch takes, is a job: a durable
// intent, the cut as a numbered write of the chunk's chain, the extents behind it in bounded batches, then one batch
// that sets the size and removes the intent. The inode is busy (BusyTable) all the while. A job that can't be begun
// (too few servers) ends, with its error; one whose intent is stored goes on until it is done: after failures, and
// after a restart. Namespace thread; owner: ChunkService.
class Truncator {
 public:
  explicit Truncator(ChunkState& state) : state_(state) {}
  // See ChunkHooks::Truncate.
  Status Truncate(View& view, InodeId id, uint64_t size);
  // After a restore, before a file of before it grows: bytes that were written behind its end since the backup become
  // zeros (once). Part of an operation; the file must be there.
  Status CutTail(View& view, InodeId id);
  // Resumes the jobs whose intents are stored. They are busy when this ends.
  Task<Status> Start();
  // Drops the extents [first, last] of an inode as far as they exist, in bounded batches.
  Task<Status> DropBatches(InodeId id, uint64_t first, uint64_t last);

 private:
  struct Job {
    InodeId id;
    pb::TruncateIntent intent;
    bool begun = false;  // the intent is stored
    bool tail = false;   // only the bytes behind the end are cut off
    std::shared_ptr<Status> result = std::make_shared<Status>();  // of the last try, when it ends
  };
  Task<Status> RunJob(InodeId id, uint64_t size, bool tail);
  bool HasOldTail(InodeId id, const pb::InodeRecord& inode) const;
  Task<void> Drive(Job job);
  Task<Status> Steps(Job* job);
  Status Begin(View& view, Job* job, bool* nothing);
  Status CheckCanCut(ChunkId chunk, const pb::ChunkRecord& record) const;
  Task<Status> Cut(const Job* job);
  Task<Status> SendCut(const Job* job, uint64_t write_id, bool* done);
  Status Commit(View& view, const Job& job);

  ChunkState& state_;
};

}  // namespace shoal::meta
