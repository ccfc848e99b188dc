// The operations on the whole cluster.
#include "client/engine_impl.h"
#include "common/proto/check.pb.h"

namespace shoal::client {

Task<Status> Engine::SyncAll(const Cred& cred) {
  uint64_t errors = impl_->core.write_errors.value();
  co_await impl_->writer.FlushAll();
  std::unordered_map<InodeId, std::vector<uint64_t>> unsynced = std::exchange(impl_->core.unsynced, {});
  pb::SyncAllRequest request;
  Result<pb::SyncAllResponse> response =
      co_await impl_->core.session.Call<pb::SyncAllResponse>(pb::SYNC_ALL, request, cred, CallKind::kMutate);
  if (!response) {
    for (auto& [inode, indices] : unsynced) {
      auto& now = impl_->core.unsynced[inode];
      now.insert(now.end(), indices.begin(), indices.end());
    }
    co_return Fail(std::move(response).error());
  }
  if (impl_->core.write_errors.value() != errors) {
    co_return Fail(ErrorCode::kIo, "some data could not be written: the files' next fsync or close says why");
  }
  co_return Status{};
}

Task<Result<pb::ClusterStatusResponse>> Engine::ClusterStatus() {
  pb::ClusterStatusRequest request;
  Result<pb::ClusterStatusResponse> response =
      co_await impl_->core.session.CallPlain<pb::ClusterStatusResponse>(pb::CLUSTER_STATUS, request);
  co_return response;
}

Task<Result<pb::ListServersResponse>> Engine::ListServers() {
  pb::ListServersRequest request;
  Result<pb::ListServersResponse> response =
      co_await impl_->core.session.CallPlain<pb::ListServersResponse>(pb::LIST_SERVERS, request);
  co_return response;
}

Task<Result<pb::StatPathResponse>> Engine::StatPath(const Cred& cred, std::string_view path, InodeId inode,
                                                    uint64_t first_index, uint32_t max_chunks) {
  pb::StatPathRequest request;
  request.set_path(path.data(), path.size());
  request.set_inode(inode.value);
  request.set_first_index(first_index);
  request.set_max_chunks(max_chunks);
  Result<pb::StatPathResponse> response =
      co_await impl_->core.session.Call<pb::StatPathResponse>(pb::STAT_PATH, request, cred, CallKind::kRead);
  co_return response;
}

Task<Result<pb::FsckResponse>> Engine::Fsck(const pb::FsckRequest& request) {
  pb::FsckRequest sent = request;
  Result<pb::FsckResponse> response = co_await impl_->core.session.CallPlain<pb::FsckResponse>(pb::FSCK, sent);
  co_return response;
}

Task<Result<pb::ScrubResponse>> Engine::Scrub(const pb::ScrubRequest& request) {
  pb::ScrubRequest sent = request;
  Result<pb::ScrubResponse> response = co_await impl_->core.session.CallPlain<pb::ScrubResponse>(pb::SCRUB, sent);
  co_return response;
}

}  // namespace shoal::client
