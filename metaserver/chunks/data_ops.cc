#include "metaserver/chunks/data_ops.h"

#include <sys/stat.h>

#include <algorithm>

#include "common/log.h"
#include "metaserver/attr.h"
#include "metaserver/chunks/recovery.h"
#include "metaserver/chunks/repair.h"
#include "metaserver/permission.h"
#include "metaserver/sessions.h"

namespace shoal::meta {
namespace {

constexpr uint32_t kMaxExtents = 64;
constexpr uint32_t kMaxGrants = 16;
constexpr uint64_t kPromise = 16 << 10;  // bytes that a new chunk counts for until its server's next report
constexpr Duration kStartRetry = 20ms;

Status CheckRegular(InodeId id, const pb::InodeRecord* inode) {
  if (!inode) return Fail(ErrorCode::kStale, fmt::format("inode {} is gone", id.value));
  if (S_ISDIR(inode->mode())) return Fail(ErrorCode::kIsDirectory, fmt::format("inode {} is a directory", id.value));
  if (!S_ISREG(inode->mode())) return Fail(ErrorCode::kInvalidArgument, fmt::format("inode {} is no file", id.value));
  return {};
}

}  // namespace

void DataOps::Register() {
  Driver& driver = *state_.context.driver;
  driver.On(pb::GET_EXTENTS, OpKind::kRead, this, &DataOps::GetExtents);
  driver.On(pb::GRANT_WRITE, OpKind::kMutation, this, &DataOps::GrantWrite);
  driver.On(pb::COMMIT_WRITE, OpKind::kMutation, this, &DataOps::CommitWrite);
  driver.OnTask<pb::ReportReplicaRequest, pb::ReportReplicaResponse>(
      pb::REPORT_REPLICA,
      [this](CallInfo info, const pb::ReportReplicaRequest& request, pb::ReportReplicaResponse& response) {
        return ReportReplica(std::move(info), request, response);
      });
  driver.OnTask<pb::FsyncRequest, pb::FsyncResponse>(
      pb::FSYNC, [this](CallInfo info, const pb::FsyncRequest& request, pb::FsyncResponse& response) {
        return Fsync(std::move(info), request, response);
      });
  driver.OnTask<pb::FallocateRequest, pb::AttrResponse>(
      pb::FALLOCATE, [this](CallInfo info, const pb::FallocateRequest& request, pb::AttrResponse& response) {
        return Fallocate(std::move(info), request, response);
      });
}

// Permission was checked when the session opened the file; others need it now.
Status DataOps::CheckMayWrite(View& view, InodeId id, const pb::Caller& caller, const pb::InodeRecord** inode) {
  TRY(view.WaitWhileBusy(id));
  TRY_ASSIGN(*inode, view.GetInode(id));
  TRY(CheckRegular(id, *inode));
  if (!view.again() && !state_.context.sessions->IsOpen(SessionId(caller.session()), id)) {
    TRY(CheckAccess(caller, **inode, kWrite));
  }
  TRY(truncator_.CutTail(view, id));
  TRY_ASSIGN(*inode, view.GetInode(id));
  return {};
}

// ---- reading ----

Status DataOps::AddExtent(View& view, InodeId id, uint64_t index,
                          google::protobuf::RepeatedPtrField<pb::Extent>* extents) {
  TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, index));
  if (!extent) return {};
  ChunkId chunk(extent->chunk());
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
  if (!record)
    return Fail(ErrorCode::kCorrupt,
                fmt::format("inode {} names chunk {:016x}, which has no record", id.value, chunk.value));
  if (state_.recovery->Raising(chunk) && !view.again()) {
    return view.Require([this, chunk]() -> Task<Status> { return state_.recovery->WaitFor(chunk); });
  }
  // Left over by a restart or a writer: finish it. If that can't be done now, the reader tries the copies there are.
  bool unfinished = (record->pending_version() && !state_.recovery->Running(chunk)) || NeedsFence(state_, *record);
  if (unfinished && !view.again() && !state_.recovery->FailedLately(chunk)) {
    RecoveryRequest request;
    request.chunk = chunk;
    request.version = record->version();
    request.for_write = false;
    return view.Require([this, request]() -> Task<Status> { return TryRecover(request); });
  }
  FillExtent(state_, chunk, index, *record, 0, extents->Add());
  return {};
}

Task<Status> DataOps::TryRecover(RecoveryRequest request) {
  Task<Status> recover = state_.recovery->Recover(request);
  Status recovered = co_await recover;
  if (!recovered && !state_.recovery->FailedLately(request.chunk)) co_return recovered;
  co_return Status();
}

Status DataOps::FillExtents(View& view, InodeId id, const pb::InodeRecord& inode, size_t max,
                            google::protobuf::RepeatedPtrField<pb::Extent>* extents) {
  uint64_t chunks = (inode.size() + kChunkSize - 1) / kChunkSize;
  if (inode.extents() == 0) return {};
  uint64_t count = std::min<uint64_t>(chunks, max);
  for (uint64_t index = 0; index < count; index++) {
    TRY(AddExtent(view, id, index, extents));
  }
  return {};
}

Status DataOps::GetExtents(View& view, const pb::GetExtentsRequest& request, pb::GetExtentsResponse& response) {
  InodeId id(request.inode());
  TRY(view.WaitWhileBusy(id));
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  TRY(CheckRegular(id, inode));
  if (!state_.context.sessions->IsOpen(SessionId(request.caller().session()), id)) {
    TRY(CheckAccess(request.caller(), *inode, kRead));
  }
  FillAttr(id, *inode, response.mutable_attr());
  if (inode->extents() == 0) return {};
  uint32_t count = std::min(std::max(request.count(), 1u), kMaxExtents);
  for (uint32_t i = 0; i < count; i++) view.Want<pb::ExtentRecord>(ExtentKey(id, request.first_index() + i));
  for (uint32_t i = 0; i < count; i++) {
    TRY(AddExtent(view, id, request.first_index() + i, response.mutable_extents()));
  }
  return {};
}

// ---- grants ----

Status DataOps::GrantWrite(View& view, const pb::GrantWriteRequest& request, pb::GrantWriteResponse& response) {
  InodeId id(request.inode());
  const pb::InodeRecord* inode = nullptr;
  TRY(CheckMayWrite(view, id, request.caller(), &inode));
  uint32_t count = std::min(std::max(request.count(), 1u), kMaxGrants);
  constexpr uint64_t kMaxChunks = kMaxFileSize / kChunkSize;
  if (request.first_index() > kMaxChunks || request.first_index() + count > kMaxChunks) {
    return Fail(ErrorCode::kFileTooBig, "behind the largest size of a file");
  }
  for (uint32_t i = 0; i < count; i++) view.Want<pb::ExtentRecord>(ExtentKey(id, request.first_index() + i));
  SessionId session(request.caller().session());
  for (uint32_t i = 0; i < count; i++) {
    TRY(GrantIndex(view, id, request.first_index() + i, session, response.add_extents()));
  }
  return {};
}

Status DataOps::GrantIndex(View& view, InodeId id, uint64_t index, SessionId session, pb::Extent* out) {
  TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, index));
  if (!extent) return Allocate(view, id, index, session, out);
  ChunkId chunk(extent->chunk());
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
  if (!record)
    return Fail(ErrorCode::kCorrupt,
                fmt::format("inode {} names chunk {:016x}, which has no record", id.value, chunk.value));
  if (!record->written() && state_.IsOfBefore(chunk.value)) {
    // Before the restore something may have been written to it that this history knows nothing of: a new one.
    TRY(DetachOld(view, id, index, chunk, *record));
    return Allocate(view, id, index, session, out);
  }
  // Versions that are not of this history would be taken for newer than what is written now.
  bool broken = record->version() <= state_.VersionFloor() || record->pending_version() != 0 || state_.recovery->Running(chunk) || NeedsFence(state_, *record);
  for (const pb::ReplicaRecord& r : record->replicas()) broken |= state_.IsDead(r.server());
  if (broken && !view.again()) {
    RecoveryRequest request;
    request.chunk = chunk;
    request.version = record->version();
    return view.Require([this, request]() -> Task<Status> { return state_.recovery->Recover(request); });
  }
  bool few = static_cast<uint32_t>(record->replicas_size()) < state_.MinCopies(record->copies());
  if (few && !view.again()) {
    return view.Require([this, chunk]() -> Task<Status> { return state_.repairer->RepairNow(chunk); });
  }
  TRY_ASSIGN(uint64_t lease, view.NewLease());
  if (!record->unsynced() || !HasWriter(*record, session)) {
    auto* changed = view.MutableChunk(chunk);
    changed->set_unsynced(true);
    if (!HasWriter(*changed, session)) changed->add_writers(session.value);
    view.OnApplied([this, id, index](TxnId) { state_.unsynced.Marked(id, index, false); });
    record = changed;
  }
  FillExtent(state_, chunk, index, *record, lease, out);
  view.OnApplied([this, chunk](TxnId) { state_.repairer->MayChange(chunk); });
  return {};
}

// The chunk is none of the file's any more. What servers have of it they report, and it is kept aside.
Status DataOps::DetachOld(View& view, InodeId id, uint64_t index, ChunkId chunk, const pb::ChunkRecord& record) {
  for (const pb::ReplicaRecord& r : record.replicas()) view.Delete(ByServerKey(ServerId(r.server()), chunk));
  view.Delete(ChunkKey(chunk));
  view.Delete(ExtentKey(id, index));
  view.stats().chunks--;
  auto* inode = view.MutableInode(id);
  inode->set_extents(inode->extents() - 1);
  return {};
}

Status DataOps::Place(View& view, uint32_t copies, std::vector<ServerId>* out) {
  if (view.again()) {
    TRY_ASSIGN(*out, view.PlacedThen());
    return out->empty() ? Status(Fail(ErrorCode::kNotEnoughServers)) : Status();
  }
  auto servers = PlaceReplicas(state_.registry.Candidates(state_.now()), {}, copies, state_.rng);
  if (servers.size() < copies && state_.StartingUp()) return view.RetryAfter(kStartRetry);
  uint32_t min_copies = state_.MinCopies(copies);
  if (servers.size() < min_copies) {
    view.NotePlaced({});
    size_t live = state_.registry.live_count(state_.now());
    if (live >= min_copies) return Fail(ErrorCode::kNoSpace, "the chunkservers are full");
    return Fail(ErrorCode::kNotEnoughServers,
                fmt::format("{} chunkservers are alive, {} are needed to write", live, min_copies));
  }
  view.NotePlaced(servers);
  *out = std::move(servers);
  return {};
}

Status DataOps::Allocate(View& view, InodeId id, uint64_t index, SessionId session, pb::Extent* out) {
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  uint32_t copies = state_.CopiesOf(*inode);
  std::vector<ServerId> servers;
  TRY(Place(view, copies, &servers));
  TRY_ASSIGN(ChunkId chunk, view.NewChunkId());
  TRY_ASSIGN(uint64_t lease, view.NewLease());
  auto* record = view.Put<pb::ChunkRecord>(ChunkKey(chunk));
  record->set_version(1);
  record->set_copies(copies);
  record->set_unsynced(true);
  record->add_writers(session.value);
  record->set_inode(id.value);
  record->set_index(index);
  record->set_created_ns(view.now_ns());
  for (ServerId server : servers) {
    TRY_ASSIGN(InstanceId instance, view.NewInstanceId());
    auto* replica = record->add_replicas();
    replica->set_server(server.value);
    replica->set_instance(instance.value);
    auto* by_server = view.Put<pb::ByServerRecord>(ByServerKey(server, chunk));
    by_server->set_instance(instance.value);
    by_server->set_version(1);
  }
  if (servers.size() < copies) PutWork(view, state_, chunk);
  view.Put<pb::ExtentRecord>(ExtentKey(id, index))->set_chunk(chunk.value);
  auto* changed = view.MutableInode(id);
  bool first = changed->extents() == 0;
  changed->set_extents(changed->extents() + 1);
  view.stats().chunks++;
  FillExtent(state_, chunk, index, *record, lease, out);
  view.OnApplied([this, id, index, first, servers = std::move(servers)](TxnId) {
    state_.unsynced.Marked(id, index, first);
    for (ServerId server : servers) state_.registry.Promise(server, kPromise);
  });
  return {};
}

Result<bool> DataOps::GrantFirstChunk(View& view, InodeId id, pb::Extent* extent) {
  Status granted = Allocate(view, id, 0, view.session(), extent);
  if (granted) return true;
  if (view.abandoned()) return Fail(granted.error());
  extent->Clear();
  return false;
}

// ---- commit ----

// Returns how far the file reaches by this: bytes that were cut off or punched meanwhile do not make it longer.
Result<uint64_t> DataOps::CommitChunks(View& view, const pb::CommitWriteRequest& request, const pb::InodeRecord& inode,
                                       uint64_t* newly_written) {
  InodeId id(request.inode());
  const uint64_t old_size = inode.size();
  std::set<uint64_t> gone;
  uint64_t reach = 0;  // behind the last named chunk that is there
  for (uint64_t index : request.written_indices()) view.Want<pb::ExtentRecord>(ExtentKey(id, index));
  for (int i = 0; i < request.written_indices_size(); i++) {
    uint64_t index = request.written_indices(i);
    TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, index));
    if (!extent || extent->chunk() != request.chunk_ids(i)) {
      gone.insert(index);
      continue;
    }
    reach = std::max(reach, (index + 1) * kChunkSize);
    ChunkId chunk(extent->chunk());
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
    if (!record || record->written()) continue;
    view.MutableChunk(chunk)->set_written(true);
    (*newly_written)++;
  }
  if (request.end() <= old_size) return old_size;
  uint64_t last = (request.end() - 1) / kChunkSize;
  // Without a chunk there it is a hole that the client has put at the end.
  return gone.contains(last) ? std::min(request.end(), reach) : request.end();
}

Status DataOps::CommitWrite(View& view, const pb::CommitWriteRequest& request, pb::CommitWriteResponse& response) {
  InodeId id(request.inode());
  const pb::InodeRecord* inode = nullptr;
  TRY(CheckMayWrite(view, id, request.caller(), &inode));
  if (request.written_indices_size() != request.chunk_ids_size()) {
    return Fail(ErrorCode::kInvalidArgument, "as many chunk ids as indices are needed");
  }
  if (request.end() > kMaxFileSize) return Fail(ErrorCode::kFileTooBig, "larger than a file can be");
  uint64_t newly_written = 0;
  TRY_ASSIGN(uint64_t end, CommitChunks(view, request, *inode, &newly_written));
  auto* changed = view.MutableInode(id);
  changed->set_written_chunks(changed->written_chunks() + newly_written);
  if (end > changed->size()) SetSize(view, changed, end);
  TouchModified(changed, view.now_ns());
  if (request.mtime_ns()) changed->set_mtime_ns(request.mtime_ns());
  if (request.kill_suid_sgid()) ClearSetIds(changed);
  FillAttr(id, *changed, response.mutable_attr());
  return {};
}

// ---- fsync ----

Task<Status> DataOps::LoadUnsynced(InodeId id) {
  state_.unsynced.BeginLoad(id);
  Key next(KeyKind::kExtent, id.value);
  Key end = next.PrefixEnd();
  Status status;
  while (!next.empty() && status) {
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    options.max_records = 256;
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> found = co_await scan;
    if (!found) {
      status = Fail(found.error());
      break;
    }
    std::vector<uint64_t> marked;
    std::function<Status(View&)> op = [&](View& view) -> Status {
      marked.clear();
      pb::ExtentRecord extent;
      for (const ScannedRecord& r : found->records) {
        if (extent.ParseFromString(r.value)) view.Want<pb::ChunkRecord>(ChunkKey(ChunkId(extent.chunk())));
      }
      for (const ScannedRecord& r : found->records) {
        if (!extent.ParseFromString(r.value)) continue;
        TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(ChunkId(extent.chunk())));
        if (record && record->unsynced()) marked.push_back(r.key.number(1));
      }
      return {};
    };
    Task<Result<TxnId>> look = RunOp(state_, std::move(op), CommitLevel::kLogged);
    Result<TxnId> looked = co_await look;
    if (!looked) status = Fail(looked.error());
    for (uint64_t index : marked) state_.unsynced.Marked(id, index, false);
    next = found->next;
  }
  state_.unsynced.EndLoad(id, status.has_value());
  co_return status;
}

Task<Result<TxnId>> DataOps::Fsync(CallInfo, const pb::FsyncRequest& request, pb::FsyncResponse& response) {
  InodeId id(request.inode());
  for (int i = 0; i < 3 && !state_.unsynced.Find(id); i++) {
    Task<Status> load = LoadUnsynced(id);
    Status loaded = co_await load;
    if (!loaded) co_return Fail(loaded.error());
  }
  std::function<Status(View&)> op = [&](View& view) {
    response.Clear();
    return CheckUnsynced(view, request, &response);
  };
  Task<Result<TxnId>> check = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> checked = co_await check;
  if (!checked) co_return Fail(checked.error());
  if (response.remaining_size() > 0) co_return *checked;
  // Everything that the caller can have seen of the file is in a batch up to this one.
  TxnId seen = state_.context.commit->submitted();
  Task<Status> wait = state_.context.commit->Wait(seen, CommitLevel::kDurable);
  Status durable = co_await wait;
  if (!durable) co_return Fail(durable.error());
  co_return seen;
}

Status DataOps::CheckUnsynced(View& view, const pb::FsyncRequest& request, pb::FsyncResponse* response) {
  InodeId id(request.inode());
  TRY(view.WaitWhileBusy(id));
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  if (!inode) return Fail(ErrorCode::kStale, fmt::format("inode {} is gone", id.value));
  const std::set<uint64_t>* marked = state_.unsynced.Find(id);
  if (!marked) return Fail(ErrorCode::kNotReady, "the file's unsynced chunks are being looked up: ask again");
  SessionId self(request.caller().session());
  std::vector<uint64_t> indices(marked->begin(), marked->end());
  for (uint64_t index : indices) view.Want<pb::ExtentRecord>(ExtentKey(id, index));
  for (uint64_t index : indices) {
    TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, index));
    ChunkId chunk(extent ? extent->chunk() : 0);
    const pb::ChunkRecord* record = nullptr;
    if (extent) {
      TRY_ASSIGN(record, view.GetChunk(chunk));
    }
    if (!record || !record->unsynced()) {
      view.OnApplied([this, id, index](TxnId) { state_.unsynced.Cleared(id, index); });
      continue;
    }
    const auto& synced = request.synced_chunks();
    if (std::find(synced.begin(), synced.end(), chunk.value) != synced.end()) {
      TRY(ClearWriters(view, request, index, chunk, *record));
      continue;
    }
    bool others = std::any_of(record->writers().begin(), record->writers().end(),
                              [&](uint64_t writer) { return writer != self.value; });
    if (others) {
      TRY(AddExtent(view, id, index, response->mutable_remaining()));
    }
  }
  return {};
}

// All replicas of the chunk were synced by the caller: those who wrote it and can't be writing now need not be
// remembered, unless something of theirs may still arrive.
Status DataOps::ClearWriters(View& view, const pb::FsyncRequest& request, uint64_t index, ChunkId chunk,
                             const pb::ChunkRecord& record) {
  InodeId id(request.inode());
  std::vector<uint64_t> left;
  for (uint64_t writer : record.writers()) {
    SessionId session(writer);
    if (MayWrite(state_, session, id) || state_.context.sessions->Lapsed(session)) left.push_back(writer);
  }
  if (left.size() == static_cast<size_t>(record.writers_size())) return {};
  auto* changed = view.MutableChunk(chunk);
  changed->mutable_writers()->Assign(left.begin(), left.end());
  changed->set_unsynced(!left.empty());
  if (left.empty()) view.OnApplied([this, id, index](TxnId) { state_.unsynced.Cleared(id, index); });
  return {};
}

// ---- failures ----

Task<Status> DataOps::WaitForLive(ChunkId chunk, SteadyTime deadline) {
  for (;;) {
    bool live = false;
    std::function<Status(View&)> look = [&](View& view) -> Status {
      TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
      live = !record;
      for (int i = 0; record && i < record->replicas_size(); i++) live |= state_.IsLive(record->replicas(i).server());
      return {};
    };
    Task<Result<TxnId>> looking = RunOp(state_, std::move(look), CommitLevel::kLogged);
    Result<TxnId> looked = co_await looking;
    if (!looked) co_return Fail(looked.error());
    if (live || state_.stopping() || std::chrono::steady_clock::now() > deadline) co_return Status();
    auto wait = state_.changed.Wait();
    co_await wait;
  }
}

Task<Result<TxnId>> DataOps::ReportReplica(CallInfo info, const pb::ReportReplicaRequest& request,
                                           pb::ReportReplicaResponse& response) {
  ChunkId chunk(request.chunk());
  LogInfo("chunk {:016x} version {}: session {} reports {} ({}){}", chunk.value, request.version(),
          request.caller().session(), request.server() ? fmt::format("server {}", request.server()) : "the chain", ErrorName(ErrorFromWire(request.reason())),
          request.for_write() ? " while writing" : "");
  if (request.for_write()) {
    RecoveryRequest recovery;
    recovery.chunk = chunk;
    recovery.version = request.version();
    recovery.no_space = ErrorFromWire(request.reason()) == ErrorCode::kNoSpace;
    Task<Status> recover = state_.recovery->Recover(recovery);
    Status recovered = co_await recover;
    if (!recovered && recovered.error().code != ErrorCode::kNotFound) co_return Fail(recovered.error());
  } else {
    SteadyTime deadline = std::min(info.deadline, std::chrono::steady_clock::now() + 2s);
    Task<Status> wait = WaitForLive(chunk, deadline);
    Status live = co_await wait;
    if (!live) co_return Fail(live.error());
  }
  InodeId id(request.inode());
  pb::GetExtentsResponse found;
  std::function<Status(View&)> op = [&](View& view) -> Status {
    found.Clear();
    TRY(view.WaitWhileBusy(id));
    TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
    TRY(CheckRegular(id, inode));
    TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, request.index()));
    if (!extent) return Fail(ErrorCode::kNoReplica, "the file has no such chunk any more: fetch its extents");
    if (!request.for_write()) return AddExtent(view, id, request.index(), found.mutable_extents());
    return GrantIndex(view, id, request.index(), SessionId(request.caller().session()), found.add_extents());
  };
  // It is no remembered request, which the session could hand in after a power cut.
  Task<Result<TxnId>> grant = RunOp(state_, std::move(op), request.for_write() ? CommitLevel::kDurable : CommitLevel::kLogged);
  Result<TxnId> granted = co_await grant;
  if (!granted) co_return Fail(granted.error());
  if (found.extents_size() > 0) response.mutable_extent()->Swap(found.mutable_extents(0));
  co_return *granted;
}

}  // namespace shoal::meta
