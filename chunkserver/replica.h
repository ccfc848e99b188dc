// Replica: one replica of a chunk on this server, as its requests see it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>

#include "chunkserver/replica_file.h"
#include "chunkserver/write_order.h"
#include "common/event_loop.h"
#include "common/ids.h"

namespace shoal {

class Disk;

// Made when a request first touches the replica; lives until it is dropped. Shared by the store and by requests under
// way, on any thread. Locks are taken in the order: sync, io, mutex; none is held across a suspension.
class Replica {
 public:
  Replica(ChunkId chunk_id, InstanceId instance_id, Disk& on_disk)
      : chunk(chunk_id), instance(instance_id), disk(on_disk) {}

  const ChunkId chunk;
  const InstanceId instance;
  Disk& disk;

  std::mutex sync;       // held by a sync or a version raise of the file (disk threads)
  std::shared_mutex io;  // exclusive: a write to the file; shared: reads (try only, on a loop)

  std::mutex mutex;                   // guards what follows
  std::shared_ptr<ReplicaFile> file;  // null: not open
  ChunkVersion version;               // zero: the header was not read yet
  bool exists = true;                 // false: its first write will make the file
  bool dropped = false;
  std::optional<Error> bad;  // no longer to be trusted, and why
  // Not bad, but in places it does not match its checksums. The rest of it is right, and served; it takes part in writes and
  // recoveries, and the next SET_VERSION makes it whole from the others.
  std::optional<Error> damaged;
  WriteOrder order;
  bool applying = false;        // a disk thread is at work on `order`
  bool recovering = false;      // a SET_VERSION is at work
  bool name_synced = true;      // its directory entry is durable
  uint64_t changes = 0;         // writes applied; those of earlier processes count as one
  uint64_t synced_changes = 0;  // of these, known to be durable
  uint64_t changed_bytes = 0;   // the payloads of the writes applied
  uint64_t synced_bytes = 0;    // of these, known to be durable
  bool cleaning = false;        // in the disk's list of those to be cleaned (ReplicaFile::Clean)
  std::vector<Callback> idle_waiters;  // told when `applying` ends

  std::atomic<bool> touched{false};  // used since the store last looked for files to close
};

}  // namespace shoal
