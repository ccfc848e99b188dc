// Core: all parts of a metaserver but the network.
#pragma once

#include <functional>
#include <memory>

#include "metaserver/chunk_hooks.h"
#include "metaserver/commit.h"
#include "metaserver/context.h"
#include "metaserver/database.h"
#include "metaserver/driver.h"
#include "metaserver/ids.h"
#include "metaserver/reaper.h"
#include "metaserver/sessions.h"
#include "metaserver/store.h"

namespace shoal::meta {

class BackupOps;
class CheckOps;
class ReaderPool;

// Opens the metadata and starts everything that works on it. Owner: MetaServer, or a test, which can run operations
// with context().driver without a network. `loop` must run; Start and Stop are called once each, from a plain thread.
// What is given to the constructor outlives it.
class Core {
 public:
  using MakeChunks = std::function<std::unique_ptr<ChunkHooks>(MetaContext&)>;

  Core(EventLoop& loop, const MetaServerOptions& options, Metrics& metrics, RpcContext& rpc, Dispatcher& dispatcher);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // See Database::Open for its errors.
  Status Start(MakeChunks make_chunks);
  // Ends all work, writes and syncs everything.
  void Stop();

  MetaContext& context() { return context_; }

 private:
  Task<Status> StartParts();
  Task<void> StopParts();

  MetaContext context_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Commit> commit_;
  std::unique_ptr<IdAllocator> ids_;
  std::unique_ptr<BusyTable> busy_;
  std::unique_ptr<Driver> driver_;
  std::unique_ptr<Sessions> sessions_;
  std::unique_ptr<HandIn> hand_in_;
  std::unique_ptr<Reaper> reaper_;
  std::unique_ptr<ChunkHooks> chunks_;
  std::unique_ptr<ReaderPool> admin_pool_;  // a thread for what takes long
  std::unique_ptr<BackupOps> backup_;
  std::unique_ptr<CheckOps> check_;
};

}  // namespace shoal::meta
