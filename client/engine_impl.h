// EngineImpl: the parts of an Engine together. Its operations are in names.cc, attrs.cc, files.cc, ranges.cc,
// locking.cc and cluster.cc.
#pragma once

#include "client/core.h"
#include "client/engine.h"
#include "client/locator.h"
#include "client/locks.h"
#include "client/reader.h"
#include "client/writer.h"
#include "common/proto/meta.pb.h"

namespace shoal::client {

// See Engine. Owner: the Engine; lives on its loop.
class EngineImpl {
 public:
  EngineImpl(EventLoop& loop, ClientOptions options, Metrics& metrics)
      : core(loop, std::move(options), metrics), locator(core), writer(core, locator), reader(core, locator, writer) {}

  Core core;
  Locator locator;
  Writer writer;
  Reader reader;
  LockTable locks;
  InodeId root = kRootInode;
  std::unique_ptr<EventLoop::Timer> tick;
  int expect_data = 2;  // above 0: files made lately got data, so ask for a chunk at once

  void FillOpen(pb::OpenSessionRequest& request) const;
  void SessionLost();
  void ArmTick();
  Task<void> SyncOld();  // when too many closed files have unsynced chunks
  bool syncing_old = false;
  Task<Status> FindRoot();

  // What an answer said of an inode, as the caller shall see it.
  Attr Seen(const pb::Attr& attr, bool own = false);
  HandlePtr MakeHandle(const StatePtr& state, const Cred& cred, int flags);
  void TakeExtents(InodeState& state, const pb::OpenResponse& response);
  Status ErrorOf(Handle& handle);

  Task<Status> RefreshAttr(StatePtr state);
  Task<Status> SyncFile(StatePtr state, bool data_only);
  Task<Status> SyncLate(StatePtr state);
  Task<Result<pb::FsyncResponse>> AskFsync(StatePtr state, bool data_only, std::vector<ChunkId> synced);
  Task<void> FsyncBeside(StatePtr state, std::shared_ptr<OneShot<Result<pb::FsyncResponse>>> answer);
  Task<Status> SyncReplicas(StatePtr state, uint64_t index, LocationPtr location);
  Task<void> SyncOneReplica(LocationPtr location, size_t which, std::vector<Status>* results, size_t* left,
                            WaitList* done);
  Task<Result<uint64_t>> Seek(StatePtr state, uint64_t offset, bool data);
  Task<Status> Fallocate(StatePtr state, int mode, uint64_t offset, uint64_t length);
  Task<Result<uint64_t>> CopyRun(Engine* engine, Handle* from, uint64_t from_offset, Handle* to, uint64_t to_offset,
                                 uint64_t length);
  Task<void> SendCancel(uint64_t wait_id);
};

// Checks one name of a path.
Status CheckName(std::string_view name);

}  // namespace shoal::client
