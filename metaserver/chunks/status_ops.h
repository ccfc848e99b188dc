// What people and their tools ask: CLUSTER_STATUS, LIST_SERVERS, STAT_PATH, STAT_FS, and SYNC_ALL.
#pragma once

#include "common/proto/meta.pb.h"
#include "metaserver/chunks/state.h"

namespace shoal::meta {

// What "a/b" is, from the root; the caller must be allowed to look there.
Result<InodeId> ResolvePath(View& view, std::string_view path);

// Methods that tell of the cluster. Namespace thread; owner: ChunkService.
class StatusOps {
 public:
  explicit StatusOps(ChunkState& state) : state_(state) {}
  void Register();

 private:
  Task<Result<TxnId>> ClusterStatus(CallInfo info, const pb::ClusterStatusRequest& request,
                                    pb::ClusterStatusResponse& response);
  Task<Result<TxnId>> ListServers(CallInfo info, const pb::ListServersRequest& request,
                                  pb::ListServersResponse& response);
  Task<Result<TxnId>> SyncAll(CallInfo info, const pb::SyncAllRequest& request, pb::SyncAllResponse& response);
  Status StatFs(View& view, const pb::StatFsRequest& request, pb::StatFsResponse& response);
  Status StatPath(View& view, const pb::StatPathRequest& request, pb::StatPathResponse& response);
  Task<void> SyncServer(ServerId server, SteadyTime deadline, Status* status);
  void FillServer(const ServerEntry& entry, pb::ServerStatus* out) const;

  ChunkState& state_;
};

}  // namespace shoal::meta
