// MetaContext: the parts of one metaserver, for those who work with several of them.
#pragma once

#include <functional>

#include "common/event_loop.h"
#include "common/metrics.h"
#include "common/rpc/rpc.h"
#include "metaserver/options.h"

namespace shoal::meta {

class BusyTable;
class ChunkHooks;
class Commit;
class Driver;
class HandIn;
class IdAllocator;
class Reaper;
class Sessions;
class Store;

// References to the parts of one metaserver; all of them live on the namespace thread `loop`, and as long as the
// MetaServer (or a test's harness) that owns this. The pointers are set before anything is served, in this order.
struct MetaContext {
  EventLoop& loop;
  const MetaServerOptions& options;
  Metrics& metrics;
  RpcContext& rpc;          // cluster uuid, incarnation
  Dispatcher& dispatcher;   // methods that do not go through the driver (raw requests)
  Commit* commit = nullptr;
  Store* store = nullptr;
  IdAllocator* ids = nullptr;
  BusyTable* busy = nullptr;
  Driver* driver = nullptr;
  Sessions* sessions = nullptr;
  ChunkHooks* chunks = nullptr;
  Reaper* reaper = nullptr;
  HandIn* hand_in = nullptr;
  // What stands in the CommitRecord, as of the last submitted batch.
  struct Totals {
    int64_t inodes = 0;
    int64_t file_bytes = 0;
    int64_t chunks = 0;
  } totals;
  // Of the LifeRecord: what was given under a lower incarnation than the last restore's is not of this history.
  struct Life {
    uint32_t restored_incarnation = 0;  // 0: never restored
    int64_t restored_ns = 0;
    uint64_t id = 0;
    bool reconciled = true;
  } life;
  uint64_t hash_seed = 0;
  uint32_t hash_bits = 55;           // tests make it small to force collisions
  uint32_t default_copies = 0;       // the root's
  SteadyTime started{};
  std::function<int64_t()> now_ns;   // the wall clock
};

}  // namespace shoal::meta
