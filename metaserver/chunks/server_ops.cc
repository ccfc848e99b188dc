#include "metaserver/chunks/server_ops.h"

#include "common/log.h"
#include "metaserver/commit.h"
#include "metaserver/hand_in.h"
#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/drops.h"
#include "metaserver/chunks/reconcile.h"
#include "metaserver/chunks/recovery.h"
#include "metaserver/chunks/repair.h"

namespace shoal::meta {
namespace {

std::vector<DiskState> DisksOf(const google::protobuf::RepeatedPtrField<pb::DiskReport>& reports) {
  std::vector<DiskState> disks;
  for (const pb::DiskReport& r : reports) {
    DiskState d;
    d.path = r.path();
    d.capacity = r.capacity_bytes();
    d.used = r.used_bytes();
    d.free = r.free_bytes();
    d.file_system = r.file_system();
    d.fs_capacity = r.fs_capacity_bytes();
    d.fs_free = r.fs_free_bytes();
    d.replicas = r.replicas();
    d.failed = r.failed();
    d.reason = r.reason();
    disks.push_back(std::move(d));
  }
  return disks;
}

uint64_t Milliseconds(Duration d) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
}

// Logs directories that fail or recover; true when the set of failed ones changed.
bool NoteDisks(const ServerEntry& entry, const std::vector<DiskState>& disks) {
  bool changed = false;
  for (const DiskState& now : disks) {
    bool before = false;
    for (const DiskState& d : entry.disks) before |= d.path == now.path && d.failed;
    if (before == now.failed) continue;
    changed = true;
    if (now.failed) LogError("{}:{} has failed: {}", entry.name, now.path, now.reason);
    if (!now.failed) LogInfo("{}:{} works again", entry.name, now.path);
  }
  return changed;
}

}  // namespace

void ServerOps::Register() {
  Driver& driver = *state_.context.driver;
  driver.OnTask<pb::RegisterRequest, pb::RegisterResponse>(
      pb::REGISTER, [this](CallInfo info, const pb::RegisterRequest& request, pb::RegisterResponse& response) {
        return RegisterServer(std::move(info), request, response);
      });
  driver.OnTask<pb::HeartbeatRequest, pb::HeartbeatResponse>(
      pb::HEARTBEAT, [this](CallInfo info, const pb::HeartbeatRequest& request, pb::HeartbeatResponse& response) {
        return Heartbeat(std::move(info), request, response);
      });
  driver.OnTask<pb::ReportBadReplicaRequest, pb::ReportBadReplicaResponse>(
      pb::REPORT_BAD_REPLICA,
      [this](CallInfo info, const pb::ReportBadReplicaRequest& request, pb::ReportBadReplicaResponse& response) {
        return BadReplica(std::move(info), request, response);
      });
}

Task<Status> ServerOps::Start() {
  Key next(KeyKind::kServer);
  Key end = next.PrefixEnd();
  while (!next.empty()) {
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> found = co_await scan;
    if (!found) co_return Fail(found.error());
    for (const ScannedRecord& scanned : found->records) {
      pb::ServerRecord record;
      if (!record.ParseFromString(scanned.value) || record.removed()) continue;
      ServerEntry entry;
      entry.id = ServerId(static_cast<uint32_t>(scanned.key.number(0)));
      entry.uuid = record.uuid();
      entry.name = record.name();
      entry.address = record.address();
      entry.host = record.host();
      entry.rack = record.rack();
      entry.version = record.version();
      entry.start_id = record.start_id();
      state_.registry.AddKnown(std::move(entry), state_.now());
    }
    next = found->next;
  }
  co_return Status();
}

// This is the newest state that the server knows of. If not, nothing more may be written here.
Status ServerOps::CheckNewest(const pb::RegisterRequest& request) const {
  const MetaContext& context = state_.context;
  uint32_t ours = context.rpc.incarnation;
  if (request.incarnation() < ours) return {};
  Error error{ErrorCode::kOldIncarnation, {}};
  if (request.incarnation() > ours) {
    error.message = fmt::format("chunkserver {} has seen incarnation {}, this metaserver is an earlier one ({}): it was "
                                "replaced or restored, stop it", request.name(), request.incarnation(), ours);
  } else if (request.life() != 0 && request.life() != context.life.id) {
    error.message = fmt::format("chunkserver {} has seen another restore with incarnation {}: restore again with "
                                "--incarnation-above {}", request.name(), ours, ours);
  } else {
    Status newest = context.hand_in->CheckDurable("chunkserver " + request.name(), request.durable_txn());
    if (newest) return {};
    error = newest.error();
  }
  context.commit->Refuse(error);
  return Fail(std::move(error));
}

Status ServerOps::CheckRegistration(const CallInfo& info, const pb::RegisterRequest& request) const {
  if (info.connection->peer_role() != pb::ROLE_CHUNKSERVER) {
    return Fail(ErrorCode::kNotPermitted, "only chunkservers register");
  }
  const std::string& ours = state_.context.rpc.cluster_uuid;
  if (!request.cluster_uuid().empty() && request.cluster_uuid() != ours) {
    return Fail(ErrorCode::kWrongCluster,
                fmt::format("chunkserver {} belongs to cluster {}, this is cluster {}: give it an empty data directory "
                            "or the address of its own metaserver",
                            request.name(), request.cluster_uuid(), ours));
  }
  TRY(CheckNewest(request));
  if (request.incarnation() == state_.context.rpc.incarnation) state_.context.hand_in->Seen(request.txn());
  if (request.server_uuid().empty() || request.address().empty()) {
    return Fail(ErrorCode::kInvalidArgument, "a registration needs a server uuid and an address");
  }
  return CheckName(request);
}

// Commands name servers: a new one may not have the name of another that is there. One that the cluster knows comes back
// whatever its name is, for it has copies.
Status ServerOps::CheckName(const pb::RegisterRequest& request) const {
  if (request.name().empty() || state_.registry.FindByUuid(request.server_uuid())) return {};
  for (const auto& [id, entry] : state_.registry.all()) {
    if (entry.name != request.name() || !entry.registered_here) continue;
    ServerState state = state_.registry.State(entry, state_.now());
    if (state == ServerState::kDead) continue;
    return Fail(state == ServerState::kLive ? ErrorCode::kExists : ErrorCode::kNotReady,
                fmt::format("there is a chunkserver named '{}' already (number {}, at {}): give this one another name with --name",
                            entry.name, id.value, entry.address));
  }
  return {};
}

Task<Result<ServerId>> ServerOps::RecordServer(const pb::RegisterRequest* request, uint64_t* create_floor) {
  const ServerEntry* known = state_.registry.FindByUuid(request->server_uuid());
  ServerId id = known ? known->id : ServerId(), fresh;
  std::function<Status(View&)> op = [&](View& view) -> Status {
    ServerId server = id;
    int64_t registered = view.now_ns();
    bool same_process = false;
    if (server) {
      TRY_ASSIGN(const pb::ServerRecord* before, view.GetServer(server));
      if (before) registered = before->registered_ns();
      same_process = before && before->start_id() == request->start_id();
    } else {
      if (!fresh) {
        TRY_ASSIGN(fresh, view.NewServerId());
      }
      server = fresh;  // nothing of it may be read
    }
    // A new process knows of no recovery before it: what was granted until now must not make a replica that one of them
    // has found to be absent.
    *create_floor = 0;
    if (!same_process) {
      TRY_ASSIGN(*create_floor, view.NewLease());
    }
    auto* record = view.Put<pb::ServerRecord>(ServerKey(server));
    record->set_uuid(request->server_uuid());
    record->set_name(request->name());
    record->set_address(request->address());
    record->set_host(request->host());
    record->set_rack(request->rack());
    record->set_registered_ns(registered);
    record->set_last_seen_ns(view.now_ns());
    record->set_version(request->version());
    record->set_start_id(request->start_id());
    view.OnApplied([&id, server](TxnId) { id = server; });
    return {};
  };
  Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kDurable);
  Result<TxnId> done = co_await run;
  if (!done) co_return Fail(done.error());
  co_return id;
}

Task<Result<TxnId>> ServerOps::RegisterServer(CallInfo info, const pb::RegisterRequest& request,
                                              pb::RegisterResponse& response) {
  Status fine = CheckRegistration(info, request);
  if (!fine) {
    LogWarning("{} may not register: {}", info.connection->peer(), ToString(fine.error()));
    co_return Fail(fine.error());
  }
  if (registering_.contains(request.server_uuid()) || registering_.contains(request.name())) {
    co_return Fail(ErrorCode::kNotReady, "another registration of this server is under way");
  }
  registering_.insert({request.server_uuid(), request.name()});
  uint64_t create_floor = 0;
  Task<Result<ServerId>> record = RecordServer(&request, &create_floor);
  Result<ServerId> id = co_await record;
  registering_.erase(request.server_uuid());
  registering_.erase(request.name());
  if (!id) co_return Fail(id.error());
  Task<Result<bool>> orders = state_.drops->HasOrders(*id);
  Result<bool> has_orders = co_await orders;
  if (!has_orders) co_return Fail(has_orders.error());

  std::shared_ptr<Connection> connection = info.connection;
  ServerEntry entry;
  entry.id = *id;
  entry.uuid = request.server_uuid();
  entry.name = request.name();
  entry.address = request.address();
  entry.host = request.host();
  entry.rack = request.rack();
  entry.version = request.version();
  entry.machine = connection->peer_host();
  entry.start_id = request.start_id();
  entry.disks = DisksOf(request.disks());
  const bool held = *has_orders || state_.reconciler->Holding();
  entry.held = held;
  bool restarted = state_.registry.Register(std::move(entry), connection, state_.now());
  LogInfo("chunkserver {} ({}) registered from {}{}", id->value, request.name(), connection->peer(),
          restarted ? ", started again" : "");
  const Connection* raw = connection.get();
  ChunkState* state = &state_;
  connection->OnClose([state, alive = state_.alive, server = *id, raw](const Error& why, bool clean) {
    if (!*alive || state->stop) return;
    LogInfo("connection of chunkserver {} ended ({}): {}", server.value, clean ? "cleanly" : "lost", ToString(why));
    state->registry.Disconnected(server, raw, clean, state->now());
  });
  state_.drops->Noted(*id);
  state_.repairer->ServersChanged();
  state_.bad->ServersChanged();
  response.set_server(id->value);
  response.set_cluster_uuid(state_.context.rpc.cluster_uuid);
  response.set_incarnation(state_.context.rpc.incarnation);
  response.set_create_floor(create_floor);
  response.set_last_txn(state_.context.commit->submitted().value);
  response.set_durable_txn(state_.context.commit->durable().value);
  response.set_life(state_.context.life.id);
  response.set_lease_ms(held ? 0 : Milliseconds(state_.context.options.server_lease));
  response.set_heartbeat_ms(Milliseconds(state_.context.options.heartbeat_interval));
  co_return TxnId();
}

Task<Result<TxnId>> ServerOps::Heartbeat(CallInfo info, const pb::HeartbeatRequest& request,
                                         pb::HeartbeatResponse& response) {
  ServerId id(request.server());
  std::vector<DiskState> disks = DisksOf(request.disks());
  ServerEntry* entry = state_.registry.Find(id);
  if (entry && NoteDisks(*entry, disks)) entry->want_inventory = true;
  if (entry && state_.IsDead(id.value)) {  // it was left out of what was written meanwhile
    state_.registry.Hold(id);
    state_.drops->Noted(id);
  }
  if (!state_.registry.Heartbeat(id, info.connection.get(), std::move(disks), request.load(), state_.now())) {
    co_return Fail(ErrorCode::kNotReady, fmt::format("chunkserver {} is not registered on this connection: register",
                                                     id.value));
  }
  entry->unsynced_bytes = request.unsynced_bytes();
  response.set_lease_ms(entry->held ? 0 : Milliseconds(state_.context.options.server_lease));
  // What was handed in may have made the chunks of replicas that no record knows.
  const bool ready = !state_.context.hand_in->holding();
  response.set_send_inventory(ready && (entry->want_inventory || entry->inventory_open));
  response.set_durable_txn(state_.context.commit->durable().value);
  co_return TxnId();
}

Task<Result<TxnId>> ServerOps::BadReplica(CallInfo info, const pb::ReportBadReplicaRequest& request,
                                          pb::ReportBadReplicaResponse&) {
  const ServerEntry* entry = state_.registry.Find(ServerId(request.server()));
  if (!entry || entry->connection != info.connection) {
    co_return Fail(ErrorCode::kNotReady, "not registered on this connection: register");
  }
  if (state_.context.hand_in->holding()) co_return Fail(ErrorCode::kOverloaded, "the metaserver is starting: tell it again");
  ChunkId chunk(request.replica().chunk());
  if (request.replica().unsettled()) {
    bool begun = state_.recovery->Running(chunk) || state_.recovery->FailedLately(chunk);  // it is reported again
    if (!begun) state_.tasks.Spawn(Settle(chunk, request.replica().version()));
    co_return TxnId();
  }
  state_.bad_replicas.Add();
  const bool damaged = request.replica().damaged();
  LogWarning("chunk {:016x}: the replica on server {} ({}) is {}: {}", chunk.value, request.server(), entry->name,
             damaged ? "damaged" : "bad", request.why());
  state_.bad->Add(chunk, InstanceId(request.replica().instance()), ~0u, damaged);
  co_return TxnId();
}

// After a power cut: a recovery, which has the good blocks of all replicas to choose from.
Task<void> ServerOps::Settle(ChunkId chunk, uint32_t version) {
  RecoveryRequest request;
  request.chunk = chunk;
  request.version = version;
  request.for_write = false;
  Task<Status> recover = state_.recovery->Recover(request);
  Status settled = co_await recover;
  if (!settled) LogWarning("chunk {:016x}: not settled after a power cut yet: {}", chunk.value, ToString(settled.error()));
}

}  // namespace shoal::meta
