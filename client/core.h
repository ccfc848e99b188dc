// Core: what all parts of the engine share.
#pragma once

#include <unordered_map>
#include <unordered_set>

#include "client/engine.h"
#include "client/inode_state.h"
#include "client/servers.h"
#include "client/session.h"
#include "common/metrics.h"

namespace shoal::client {

// The loop, the connections, the table of inodes, the counters. Owner: EngineImpl; lives on its loop. No errors.
struct Core {
  Core(EventLoop& l, ClientOptions o, Metrics& m);

  EventLoop& loop;
  const ClientOptions options;
  RpcContext context;
  Session session;
  Servers servers;
  TaskGroup tasks;
  std::unordered_map<InodeId, StatePtr> states;
  std::unordered_set<StatePtr> to_write;  // inodes with data gathered, on its way, or to be committed
  size_t dirty_bytes = 0;                 // gathered or on its way
  WaitList room;                          // woken when dirty_bytes has fallen
  uint64_t next_seq = 1;                  // of write operations: order and write id
  uint32_t rotation;                      // spreads clients over replicas
  bool stopping = false;
  // Chunks of closed files that were written here and not synced since: an fsync through a later open must sync them.
  // Bounded by kMaxUnsynced: beyond it everything is synced (SYNC_ALL).
  static constexpr size_t kMaxUnsynced = 200'000;
  std::unordered_map<InodeId, std::vector<uint64_t>> unsynced;

  Counter& bytes_read;
  Counter& bytes_written;
  Counter& checksum_mismatches;
  Counter& hedged_reads;
  Counter& failed_reads;
  Counter& write_recoveries;
  Counter& write_errors;

  // The change counter of files closed here, as long as all changes up to it were ours or seen at an open. Bounded.
  static constexpr size_t kMaxKnownChanges = 500'000;
  std::unordered_map<InodeId, uint64_t> known_changes;
  // An own change of an inode that is not open here.
  void OwnChange(const Attr& attr);

  StatePtr State(InodeId inode);        // finds or makes it
  StatePtr Find(InodeId inode) const;   // or null
  void DropIfUnused(const StatePtr& state);
  static SteadyTime Now() { return std::chrono::steady_clock::now(); }
};

// Nanoseconds since 1970, now.
int64_t WallClock();
Attr FromProto(const pb::Attr& attr);

// Takes what the metaserver said of a file, if it is not older than what is known. Locations that may have changed
// with it are forgotten, those with a write grant stay. `own`: it is the answer to a change of our own.
void ApplyAttr(InodeState& state, const Attr& attr, bool own = false);
// As the caller shall see it: with what is still on its way.
Attr WithLocal(const InodeState& state, Attr attr);

}  // namespace shoal::client
