// InodeState: what the client knows of a file that is open here or has data on its way.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "client/attr.h"
#include "client/gather.h"
#include "common/event_loop.h"
#include "common/ids.h"
#include "common/proto/chunk.pb.h"
#include "common/result.h"
#include "common/rpc/rpc.h"

namespace shoal::client {

// Where one replica is. A plain value.
struct ReplicaPlace {
  ServerId server;
  InstanceId instance;
  std::string address;  // empty: the server is not known to live
  bool live = false;
};

// What the metaserver said of one chunk of a file. Immutable once shared.
struct Location {
  ChunkId chunk;  // none: a hole
  ChunkVersion version;
  bool written = false;  // false: its content is zeros
  uint64_t lease = 0;    // of our write grant; 0: none
  std::vector<ReplicaPlace> replicas;
};
using LocationPtr = std::shared_ptr<const Location>;

// One WRITE_CHUNK on its way. Owner: its chunk's queue; the calls under way share it.
struct WriteOp {
  uint64_t seq = 0;       // order of making, over all chunks of the client
  uint64_t write_id = 0;  // the same in every retry
  pb::WriteKind kind = pb::WRITE_DATA;
  std::vector<std::pair<uint32_t, uint32_t>> segments;  // offset, length
  Payload payload;
  std::vector<uint64_t> checksums;
  size_t bytes = 0;        // of memory credit
  uint32_t begin = 0;      // of all segments
  uint32_t end = 0;
  bool sync = false;
  bool sent = false;       // an answer is awaited
  bool done = false;       // applied by the whole chain
  int timeouts = 0;        // tries without an answer: the next one may take longer
  SteadyTime deadline{};   // from the first attempt
};
using WriteOpPtr = std::shared_ptr<WriteOp>;

// The way of one chunk's data to its servers. Owner: its inode's state.
struct ChunkWriter : std::enable_shared_from_this<ChunkWriter> {
  explicit ChunkWriter(uint64_t i) : index(i) {}
  const uint64_t index;
  Gather gather;
  SteadyTime oldest{};             // when the oldest gathered byte came
  std::deque<WriteOpPtr> queue;    // in order; done ones are taken off the front
  size_t in_flight = 0;
  bool running = false;            // the coroutine that sends is alive
  bool failed = false;             // an op of this round failed: nothing more is sent until none is in flight
  Error failure;
  Duration pause{0};               // before the next round
  int no_space = 0;                // rounds in a row that a full server ended
  // How many ops were applied, and how many of the first of these are on the disks of all replicas.
  uint64_t acked = 0;
  uint64_t synced = 0;
  // Of the version written last: the highest number of an op that was applied without a sync, and with one (which covers
  // all that have lower numbers).
  ChunkVersion version;
  uint64_t plain_number = 0;
  uint64_t sync_number = 0;
  bool idle() const { return gather.empty() && queue.empty(); }
  bool all_synced() const { return synced == acked; }
};

// Owner: the engine's table of inodes, the handles, and coroutines at work on it; lives on the engine's loop. It stays
// in the table while a handle is open or data is on its way.
struct InodeState {
  InodeState(EventLoop& loop, InodeId i) : inode(i), progress(loop) {}
  const InodeId inode;
  int opens = 0;
  int pins = 0;  // operations that need it to stay in the table
  bool made_here = false;   // by Create, and neither written nor closed yet
  Cred cred;  // of the last who opened it for writing

  // Metadata as the metaserver told it last.
  Attr attr;
  SteadyTime attr_time{};
  uint64_t remembered_change = 0;  // of attr, when it was closed here last
  bool foreign = false;  // somebody else has changed it since the last open here

  // Where chunks are; an entry without a chunk is a hole.
  std::map<uint64_t, LocationPtr> locations;

  // Data on its way.
  std::map<uint64_t, std::shared_ptr<ChunkWriter>> writers;
  uint64_t local_end = 0;      // the file is at least this long, committed or not
  int64_t local_mtime_ns = 0;  // of the last write not committed; 0: none
  bool kill_suid_sgid = false;  // one without CAP_FSETID wrote: the next commit clears the set-id bits
  bool killing = false;         // ... that commit is under way
  bool gathered = false;       // is in the engine's list of inodes to look after

  // Applied by the chains, to be committed.
  uint64_t pending_end = 0;
  bool pending = false;
  SteadyTime pending_since{};
  std::map<uint64_t, ChunkId> fresh;  // chunks that got their first data and are not committed as written
  bool committing = false;

  // Chunks that all replicas have on their disks, up to this client's last write there: told by the next FSYNC.
  std::set<ChunkId> synced;

  bool exclusive = false;  // a truncation is under way: writes wait
  uint64_t errors = 0;     // how many times writing out has failed
  Error last_error;
  uint64_t write_epoch = 0;  // raised by every write and truncation: prefetched data is old
  WaitList progress;         // woken whenever something above has changed for those who wait

  uint64_t size() const { return std::max(attr.size, local_end); }
  bool clean() const {
    if (pending || committing || local_mtime_ns != 0) return false;
    for (const auto& [index, writer] : writers) {
      if (!writer->idle()) return false;
    }
    return true;
  }
};
using StatePtr = std::shared_ptr<InodeState>;

}  // namespace shoal::client
