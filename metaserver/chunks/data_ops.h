// What clients ask about the data of files: GET_EXTENTS, GRANT_WRITE, COMMIT_WRITE, FSYNC, REPORT_REPLICA, FALLOCATE.
#pragma once

#include "common/proto/meta.pb.h"
#include "metaserver/chunks/recovery.h"
#include "metaserver/chunks/state.h"
#include "metaserver/chunks/truncate.h"

namespace shoal::meta {

// Methods of clients. Namespace thread; owner: ChunkService.
class DataOps {
 public:
  DataOps(ChunkState& state, Truncator& truncator) : state_(state), truncator_(truncator) {}
  void Register();

  // See ChunkHooks.
  Result<bool> GrantFirstChunk(View& view, InodeId id, pb::Extent* extent);
  Status FillExtents(View& view, InodeId id, const pb::InodeRecord& inode, size_t max,
                     google::protobuf::RepeatedPtrField<pb::Extent>* extents);

  // ---- the methods ----
  Status GetExtents(View& view, const pb::GetExtentsRequest& request, pb::GetExtentsResponse& response);
  Status GrantWrite(View& view, const pb::GrantWriteRequest& request, pb::GrantWriteResponse& response);
  Status CommitWrite(View& view, const pb::CommitWriteRequest& request, pb::CommitWriteResponse& response);
  Task<Result<TxnId>> Fsync(CallInfo info, const pb::FsyncRequest& request, pb::FsyncResponse& response);
  Task<Result<TxnId>> ReportReplica(CallInfo info, const pb::ReportReplicaRequest& request,
                                    pb::ReportReplicaResponse& response);
  Task<Result<TxnId>> Fallocate(CallInfo info, const pb::FallocateRequest& request, pb::AttrResponse& response);

 private:
  // One extent of a regular file, if it exists; waits for a recovery that is raising it.
  Status AddExtent(View& view, InodeId id, uint64_t index, google::protobuf::RepeatedPtrField<pb::Extent>* extents);
  // A recovery that a reader can do without: succeeds, or FailedLately is true.
  Task<Status> TryRecover(RecoveryRequest request);
  // The right to write one chunk for a session; allocates it when it isn't there.
  Status GrantIndex(View& view, InodeId id, uint64_t index, SessionId session, pb::Extent* out);
  Status DetachOld(View& view, InodeId id, uint64_t index, ChunkId chunk, const pb::ChunkRecord& record);
  // Servers for a new chunk: at least as many as must have it.
  Status Place(View& view, uint32_t copies, std::vector<ServerId>* out);
  Status Allocate(View& view, InodeId id, uint64_t index, SessionId session, pb::Extent* out);
  Result<uint64_t> CommitChunks(View& view, const pb::CommitWriteRequest& request, const pb::InodeRecord& inode,
                                uint64_t* newly_written);
  Task<Status> LoadUnsynced(InodeId id);
  Status CheckUnsynced(View& view, const pb::FsyncRequest& request, pb::FsyncResponse* response);
  Status ClearWriters(View& view, const pb::FsyncRequest& request, uint64_t index, ChunkId chunk,
                      const pb::ChunkRecord& record);
  Status CheckMayWrite(View& view, InodeId id, const pb::Caller& caller, const pb::InodeRecord** inode);
  Task<Status> WaitForLive(ChunkId chunk, SteadyTime deadline);

  ChunkState& state_;
  Truncator& truncator_;
};

}  // namespace shoal::meta
