#include "metaserver/chunks/status_ops.h"

#include <sys/stat.h>

#include <algorithm>

#include "common/proto/control.pb.h"
#include "metaserver/attr.h"
#include "metaserver/chunks/loss_watch.h"
#include "metaserver/dentry.h"
#include "metaserver/permission.h"
#include "metaserver/sessions.h"

#ifndef SHOAL_VERSION
#define SHOAL_VERSION "0.1.0"
#endif

namespace shoal::meta {
namespace {

constexpr uint64_t kBytesPerInode = 4096;

uint64_t MillisecondsSince(BootTime then, BootTime now) {
  return then >= now ? 0
                     : static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now - then).count());
}

}  // namespace

void StatusOps::Register() {
  Driver& driver = *state_.context.driver;
  driver.OnTask<pb::ClusterStatusRequest, pb::ClusterStatusResponse>(
      pb::CLUSTER_STATUS,
      [this](CallInfo info, const pb::ClusterStatusRequest& request, pb::ClusterStatusResponse& response) {
        return ClusterStatus(std::move(info), request, response);
      });
  driver.OnTask<pb::ListServersRequest, pb::ListServersResponse>(
      pb::LIST_SERVERS,
      [this](CallInfo info, const pb::ListServersRequest& request, pb::ListServersResponse& response) {
        return ListServers(std::move(info), request, response);
      });
  driver.OnTask<pb::SyncAllRequest, pb::SyncAllResponse>(
      pb::SYNC_ALL, [this](CallInfo info, const pb::SyncAllRequest& request, pb::SyncAllResponse& response) {
        return SyncAll(std::move(info), request, response);
      });
  driver.On(pb::STAT_FS, OpKind::kRead, this, &StatusOps::StatFs);
  driver.On(pb::STAT_PATH, OpKind::kRead, this, &StatusOps::StatPath);
}

void StatusOps::FillServer(const ServerEntry& entry, pb::ServerStatus* out) const {
  BootTime now = state_.now();
  out->set_id(entry.id.value);
  out->set_name(entry.name);
  out->set_address(entry.address);
  out->set_host(entry.host);
  out->set_rack(entry.rack);
  switch (state_.registry.State(entry, now)) {
    case ServerState::kLive:
      out->set_state("live");
      break;
    case ServerState::kSuspect:
      out->set_state("suspect");
      break;
    case ServerState::kDead:
      out->set_state("dead");
      break;
  }
  SpaceSum space = entry.space();
  out->set_capacity_bytes(space.capacity);
  out->set_used_bytes(space.used);
  out->set_free_bytes(space.free);
  out->set_replicas(entry.replicas());
  out->set_last_heartbeat_ms(MillisecondsSince(entry.last_heartbeat, now));
  out->set_version(entry.version);
  out->set_load(entry.load);
  out->set_unsynced_bytes(entry.unsynced_bytes);
  for (const DiskState& disk : entry.disks) {
    pb::DiskStatus* d = out->add_disks();
    d->set_path(disk.path);
    d->set_capacity_bytes(disk.capacity);
    d->set_used_bytes(disk.used);
    d->set_free_bytes(disk.free);
    d->set_state(disk.failed ? "failed" : disk.free <= kPlacementReserve ? "full" : "ok");
    d->set_reason(disk.reason);
  }
}

Task<Result<TxnId>> StatusOps::ClusterStatus(CallInfo, const pb::ClusterStatusRequest&,
                                             pb::ClusterStatusResponse& response) {
  MetaContext& context = state_.context;
  Task<Result<LossWatch::Found>> look = state_.losses->Look();
  Result<LossWatch::Found> found = co_await look;
  if (!found) co_return Fail(found.error());
  response.set_cluster_uuid(context.rpc.cluster_uuid);
  response.set_incarnation(context.rpc.incarnation);
  response.set_txn(context.commit->submitted().value);
  response.set_durable_txn(context.commit->durable().value);
  response.set_unsynced_operations(context.commit->unsynced_operations());
  response.set_unsynced_operation_bytes(context.commit->unsynced_bytes());
  uint64_t unsynced = 0;
  for (const auto& [id, entry] : state_.registry.all()) unsynced += entry.unsynced_bytes;
  response.set_unsynced_file_bytes(unsynced);
  auto now = std::chrono::steady_clock::now();
  response.set_uptime_ms(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now - context.started).count()));
  response.set_inodes(static_cast<uint64_t>(context.totals.inodes));
  response.set_file_bytes(static_cast<uint64_t>(context.totals.file_bytes));
  response.set_chunks(static_cast<uint64_t>(context.totals.chunks));
  response.set_default_copies(context.default_copies);
  response.set_chunks_short(found->chunks_short);
  response.set_chunks_unavailable(found->chunks_unavailable);
  response.set_chunks_lost(found->chunks_lost);
  response.set_files_unavailable(found->files_unavailable.size());
  response.set_files_lost(found->files_lost.size());
  state_.losses->FillTroubled(*found, &response);
  response.set_version(SHOAL_VERSION);
  response.set_replicas_bad_total(state_.bad_replicas.value());
  response.set_min_copies(state_.MinCopies(context.default_copies));
  for (const auto& [id, entry] : state_.registry.all()) FillServer(entry, response.add_servers());
  SpaceSum space = state_.registry.Space(state_.now());
  response.set_capacity_bytes(space.capacity);
  response.set_used_bytes(space.used);
  response.set_free_bytes(space.free);
  response.set_sessions(static_cast<uint32_t>(context.sessions->all().size()));
  for (const auto& [id, session] : context.sessions->all()) {
    pb::SessionStatus* s = response.add_session_list();
    s->set_id(id.value);
    s->set_name(session->name);
    auto connection = session->connection.lock();
    s->set_address(connection ? connection->peer_host() : session->host);
    s->set_open_files(session->opens.size());
    s->set_last_seen_ms(
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now - session->last_seen).count()));
  }
  co_return TxnId();
}

Task<Result<TxnId>> StatusOps::ListServers(CallInfo, const pb::ListServersRequest&, pb::ListServersResponse& response) {
  for (const auto& [id, entry] : state_.registry.all()) FillServer(entry, response.add_servers());
  co_return TxnId();
}

// Asks until the server has synced or is dead.
Task<void> StatusOps::SyncServer(ServerId server, SteadyTime deadline, Status* status) {
  pb::SyncReplicasRequest request;
  while (!state_.IsDead(server.value)) {
    auto left = deadline - std::chrono::steady_clock::now();
    if (left <= 0s || state_.stopping()) {
      *status = Fail(ErrorCode::kTimeout, fmt::format("chunkserver {} has not synced in time", server.value));
      co_return;
    }
    Task<Result<pb::SyncReplicasResponse>> call =
        CallServer<pb::SyncReplicasResponse>(state_, server.value, pb::SYNC_REPLICAS, request, left);
    Result<pb::SyncReplicasResponse> synced = co_await call;
    if (synced) co_return;
    if (IsReplicaError(synced.error().code)) {
      *status = Fail(synced.error());
      co_return;
    }
    auto wait = state_.changed.Wait();
    co_await wait;
  }
}

Task<Result<TxnId>> StatusOps::SyncAll(CallInfo info, const pb::SyncAllRequest&, pb::SyncAllResponse&) {
  std::vector<ServerId> servers;
  for (const auto& [id, entry] : state_.registry.all()) servers.push_back(id);
  std::vector<Status> results(servers.size());
  TaskGroup group(state_.context.loop);
  for (size_t i = 0; i < servers.size(); i++) group.Spawn(SyncServer(servers[i], info.deadline, &results[i]));
  TxnId seen = state_.context.commit->submitted();
  Task<Status> wait = state_.context.commit->Wait(seen, CommitLevel::kDurable);
  Status durable = co_await wait;
  Task<void> join = group.Join();
  co_await join;
  if (!durable) co_return Fail(durable.error());
  for (const Status& result : results) {
    if (!result) co_return Fail(result.error());
  }
  co_return seen;
}

Status StatusOps::StatFs(View&, const pb::StatFsRequest&, pb::StatFsResponse& response) {
  uint32_t copies = std::max<uint32_t>(1, state_.context.default_copies);
  BootTime now = state_.now();
  response.set_capacity_bytes(UsableSpace(state_.registry.Shares(true, now), copies));
  response.set_free_bytes(UsableSpace(state_.registry.Shares(false, now), copies));
  auto inodes = static_cast<uint64_t>(std::max<int64_t>(0, state_.context.totals.inodes));
  uint64_t free_inodes = response.free_bytes() / kBytesPerInode;
  response.set_inodes(inodes + free_inodes);
  response.set_free_inodes(free_inodes);
  response.set_copies(copies);
  return {};
}

Result<InodeId> ResolvePath(View& view, std::string_view path) {
  InodeId id = kRootInode;
  while (!path.empty()) {
    size_t slash = path.find('/');
    std::string_view name = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    if (name.empty() || name == ".") continue;
    TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
    if (!inode || !S_ISDIR(inode->mode())) {
      return Fail(ErrorCode::kNotDirectory, fmt::format("\"{}\" in the path is no directory", name));
    }
    TRY(CheckAccess(view.caller(), *inode, kExecute));
    if (name == "..") {
      id = InodeId(inode->parent() ? inode->parent() : kRootInode.value);
    } else {
      TRY_ASSIGN(Dentry entry, FindDentry(view, id, name));
      if (!entry) return Fail(ErrorCode::kNotFound, fmt::format("no \"{}\" in the path", name));
      id = entry.inode;
    }
  }
  return id;
}

Status StatusOps::StatPath(View& view, const pb::StatPathRequest& request, pb::StatPathResponse& response) {
  InodeId id(request.inode());
  if (!id) {
    TRY_ASSIGN(id, ResolvePath(view, request.path()));
  }
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  if (!inode) return Fail(ErrorCode::kNotFound, fmt::format("no inode {}", id.value));
  FillAttr(id, *inode, response.mutable_attr());
  if (!S_ISREG(inode->mode()) || inode->extents() == 0) return {};
  uint64_t chunks = (inode->size() + kChunkSize - 1) / kChunkSize;
  uint32_t max = std::clamp<uint32_t>(request.max_chunks() ? request.max_chunks() : 64, 1, 1024);
  ClusterHealth health(state_);
  uint64_t index = request.first_index();
  for (uint64_t i = index; i < std::min<uint64_t>(chunks, index + max); i++) {
    view.Want<pb::ExtentRecord>(ExtentKey(id, i));
  }
  for (; index < chunks && index < request.first_index() + max; index++) {
    TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, index));
    if (!extent) continue;
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(ChunkId(extent->chunk())));
    if (!record) continue;
    FillExtent(state_, ChunkId(extent->chunk()), index, *record, 0, response.add_extents());
    health.Fill(ChunkId(extent->chunk()), *record, index, response.add_health());
  }
  response.set_more(index < chunks);
  return {};
}

}  // namespace shoal::meta
