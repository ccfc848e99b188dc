#include "chunkserver/control.h"

#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/work_queue.h"
#include "common/log.h"
#include "common/proto/check.pb.h"
#include "common/proto/control.pb.h"

namespace shoal {
namespace {

constexpr Duration kConnectTimeout = 3s;
constexpr Duration kCallTimeout = 3s;      // of a heartbeat: the lease is 5 s
constexpr Duration kRegisterTimeout = 10s;
constexpr Duration kInventoryTimeout = 30s;
constexpr Duration kRetry = 200ms;
constexpr Duration kRefusedRetry = 1s;     // after an answer that was no
constexpr int kSilentHeartbeats = 8;       // unanswered, one after the other: the connection is given up

}  // namespace

Control::Control(EventLoop& loop, Node& node, Registration self, std::vector<Address> metaservers,
                 const Dispatcher& dispatcher, Duration heartbeat)
    : loop_(loop), node_(node), self_(std::move(self)), heartbeat_(heartbeat), tasks_(loop) {
  for (const Address& address : metaservers) {
    channels_.push_back(std::make_unique<Channel>(loop, node.control, address, &dispatcher));
  }
}

void Control::Start(Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  tasks_.Spawn(Run());
}

Task<void> Control::Stop() {
  stopping_ = true;
  node_.lease.End();
  for (auto& channel : channels_) channel->Close();
  Wake();
  co_await tasks_.Join();
}

void Control::SetState(std::string state, bool problem) {
  std::lock_guard lock(mutex_);
  if (state == state_) return;
  if (problem) {
    LogWarning("{}", state);
  } else {
    LogInfo("{}", state);
  }
  state_ = std::move(state);
}

std::string Control::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

Task<void> Control::Nap(Duration duration) {
  if (stopping_) co_return;
  nap_ = std::make_shared<OneShot<bool>>(loop_);
  auto nap = nap_;
  auto timer = loop_.RunAfter(duration, [nap] { nap->Set(true); });
  OneShot<bool>& shot = *nap;  // g++ 12 would copy what `*nap` names
  co_await shot;
}

void Control::Wake() {
  if (nap_) nap_->Set(true);
}

Task<void> Control::Run() {
  for (size_t turn = 0; !stopping_ && !channels_.empty(); ++turn) {
    Channel& channel = *channels_[turn % channels_.size()];
    Result<std::shared_ptr<Connection>> connection = co_await channel.Get(kConnectTimeout);
    if (stopping_) break;
    Status registered;
    if (connection) {
      registered = co_await Register(*connection);
    } else {
      registered = Fail(connection.error());
    }
    if (registered) {
      callbacks_.tried({});
      std::shared_ptr<Connection> live = *connection;
      co_await Serve(live);
      continue;
    }
    SetState(fmt::format("not registered with the metaserver {}: {} ({})", channel.address().ToString(),
                         registered.error().message, ErrorName(registered.error().code)), true);
    bool over = RefusedForGood(registered.error());
    callbacks_.tried(over ? registered : Status());
    if (over) break;
    co_await Nap(connection ? kRefusedRetry : kRetry);
  }
}

// One that was registered by this process goes on: a metaserver that was started with wrong data will be put right.
bool Control::RefusedForGood(const Error& why) {
  bool final = why.code == ErrorCode::kWrongCluster || why.code == ErrorCode::kExists;
  refusals_ = final ? refusals_ + 1 : 0;
  return refusals_ >= channels_.size() && server_ == 0;
}

Task<Status> Control::Register(std::shared_ptr<Connection> connection) {
  callbacks_.connected();
  pb::RegisterRequest request;
  request.set_server_uuid(self_.server_uuid);
  request.set_cluster_uuid(self_.cluster_uuid);
  request.set_name(self_.name);
  request.set_address(self_.address);
  request.set_host(self_.host);
  request.set_rack(self_.rack);
  request.set_version(self_.version);
  request.set_start_id(self_.start_id);
  uint32_t incarnation = std::max(self_.incarnation, node_.control.incarnation.load());
  request.set_incarnation(incarnation);
  request.set_txn(node_.control.txn.load());
  if (incarnation == self_.incarnation) {  // else it is new, and nothing more is known of it
    request.set_life(self_.life);
    request.set_durable_txn(durable_txn_);
  }
  for (const auto& disk : node_.store->disks()) *request.add_disks() = disk->Report();
  int64_t sent = ServerLease::NowNs();
  Payload nothing;
  auto reply = co_await CallTyped<pb::RegisterResponse>(connection, pb::REGISTER, request, std::move(nothing),
                                                        kRegisterTimeout);
  if (!reply) co_return Fail(std::move(reply).error());
  const pb::RegisterResponse& response = reply->message;
  CO_TRY(CheckMetaserver(response, connection->peer()));
  CO_TRY(co_await Join(&response));
  server_ = response.server();
  registered_ = connection;
  told_.clear();
  if (response.heartbeat_ms() != 0) heartbeat_ = std::chrono::milliseconds(response.heartbeat_ms());
  node_.create_floor.RaiseTo(response.create_floor());
  // Said before it serves, so that no one who finds it serving reads the state of before.
  SetState(fmt::format("registered as server {} of cluster {} at {}", server_, self_.cluster_uuid, connection->peer()), false);
  if (!stopping_) node_.lease.RenewedAt(sent, response.lease_ms());
  co_return Status();
}

// Whether it is the one of this cluster, and of the newest state that this server knows of.
Status Control::CheckMetaserver(const pb::RegisterResponse& response, const std::string& peer) const {
  if (!self_.cluster_uuid.empty() && response.cluster_uuid() != self_.cluster_uuid) {
    return Fail(ErrorCode::kWrongCluster,
                fmt::format("the data directories belong to cluster {}, the metaserver serves cluster {}",
                            self_.cluster_uuid, response.cluster_uuid()));
  }
  if (self_.cluster_uuid.empty() && response.cluster_uuid().empty()) {
    return Fail(ErrorCode::kBadMessage, "the metaserver names no cluster");
  }
  if (response.incarnation() < self_.incarnation) {
    return Fail(ErrorCode::kOldIncarnation,
                fmt::format("the metaserver {} has incarnation {}, but {} has been seen: it was replaced or restored, stop it", peer,
                            response.incarnation(), self_.incarnation));
  }
  if (response.incarnation() > self_.incarnation) return {};
  if (response.life() != self_.life) {
    return Fail(ErrorCode::kOldIncarnation,
                fmt::format("the metaserver {} was restored as incarnation {}, which this cluster has had before: restore again "
                            "with --incarnation-above {}", peer, response.incarnation(), self_.incarnation));
  }
  if (response.last_txn() != 0 && response.last_txn() < durable_txn_) {
    return Fail(ErrorCode::kOldIncarnation,
                fmt::format("the metaserver {} ends at transaction {}, but {} was durable: it has an older copy of the state; "
                            "bring one in with `shoal meta restore` only", peer, response.last_txn(), durable_txn_));
  }
  return {};
}

// What is new of the cluster is durable before this server serves under it.
Task<Status> Control::Join(const pb::RegisterResponse* response) {
  bool first = self_.cluster_uuid.empty();
  bool newer = response->incarnation() > self_.incarnation;
  if (newer) {  // numbers of another history
    durable_txn_ = 0;
    node_.control.txn = 0;
  }
  durable_txn_ = std::max(durable_txn_, response->durable_txn());
  if (first || (newer && response->life() != 0)) {
    DirectoryIdentity identity{self_.server_uuid, response->cluster_uuid(), response->incarnation(), response->life()};
    CO_TRY(co_await callbacks_.joined(identity));
  }
  self_.cluster_uuid = response->cluster_uuid();
  self_.incarnation = response->incarnation();
  self_.life = response->life();
  co_return Status();
}

// Heartbeats until the connection is gone.
Task<void> Control::Serve(std::shared_ptr<Connection> connection) {
  connection->OnClose([this](const Error&, bool) { Wake(); });
  int silent = 0;
  while (!stopping_ && !connection->closed()) {
    auto begin = std::chrono::steady_clock::now();
    bool send_inventory = false;
    Status beat = co_await Heartbeat(connection, &send_inventory);
    silent = beat ? 0 : silent + 1;
    if (!beat && beat.error().code == ErrorCode::kNotReady) {
      // The metaserver does not know this server on this connection: once more.
      Status registered = co_await Register(connection);
      if (!registered) SetState("the metaserver refuses to register: " + registered.error().message, true);
    } else if (!beat && beat.error().code != ErrorCode::kTimeout && beat.error().code != ErrorCode::kUnavailable) {
      SetState("the metaserver refuses heartbeats: " + beat.error().message, true);
      Leave(*connection, beat.error());
      co_await Nap(kRetry);
      co_return;
    }
    if (silent >= kSilentHeartbeats) {
      Leave(*connection, Error{ErrorCode::kTimeout, "no heartbeat is answered"});
      break;
    }
    if (beat) {
      Status sent = co_await SendBadReports(connection);
      if (!sent) LogWarning("a bad replica could not be reported yet: {}", sent.error().message);
    }
    if (send_inventory && node_.store->inventory_ready() && !inventory_running_) {
      inventory_running_ = true;
      tasks_.Spawn(SendInventory(connection));
    }
    RefreshDisks();
    Duration took = std::chrono::steady_clock::now() - begin;
    if (!stopping_ && !connection->closed() && took < heartbeat_) co_await Nap(heartbeat_ - took);
  }
  if (!stopping_) SetState("the connection to the metaserver was lost", true);
}

// The metaserver takes the end of the connection for the end of the server: nothing is served from before that.
void Control::Leave(Connection& connection, Error why) {
  node_.lease.End();
  connection.Close(std::move(why));
}

Task<Status> Control::Heartbeat(std::shared_ptr<Connection> connection, bool* send_inventory) {
  pb::HeartbeatRequest request;
  request.set_server(server_);
  request.set_load(static_cast<uint32_t>(std::max<int64_t>(0, node_.requests.load())));
  request.set_last_order(node_.last_order.load());
  uint64_t unsynced = 0;
  for (const auto& disk : node_.store->disks()) {
    *request.add_disks() = disk->Report();
    unsynced += disk->UnsyncedBytes();
  }
  request.set_unsynced_bytes(unsynced);
  int64_t sent = ServerLease::NowNs();
  Payload nothing;
  auto reply = co_await CallTyped<pb::HeartbeatResponse>(connection, pb::HEARTBEAT, request, std::move(nothing), kCallTimeout);
  if (!reply) co_return Fail(std::move(reply).error());
  if (!stopping_) node_.lease.RenewedAt(sent, reply->message.lease_ms());
  *send_inventory = reply->message.send_inventory();
  durable_txn_ = std::max(durable_txn_, reply->message.durable_txn());
  co_return Status();
}

// The space of a disk is asked for on its own threads: a disk that hangs keeps its last report.
void Control::RefreshDisks() {
  if (stopping_ || refreshing_.load() > 0) return;
  for (const auto& disk : node_.store->disks()) {
    refreshing_.fetch_add(1);
    disk->syncs().Push([this, raw = disk.get(), &store = *node_.store] {
      raw->RefreshSpace();
      store.CleanIdle(*raw, node_.clean_after);
      refreshing_.fetch_sub(1);
    });
  }
}

void Control::ReportBad() {
  loop_.Post([this] { Wake(); });
}

// One that the metaserver does not take is sent again with the next heartbeat, and keeps no other from being sent.
Task<Status> Control::SendBadReports(std::shared_ptr<Connection> connection) {
  Status all;
  ReplicaStore::BadReports reports = node_.store->bad_reports();
  for (const auto& [replica, why] : reports) {
    std::tuple key{replica.chunk(), replica.instance(), replica.version(), replica.damaged()};
    if (told_.contains(key)) continue;
    pb::ReportBadReplicaRequest request;
    request.set_server(server_);
    *request.mutable_replica() = replica;
    request.set_why(why.message);
    request.set_reason(static_cast<uint32_t>(why.code));
    Payload nothing;
    auto reply = co_await CallTyped<pb::ReportBadReplicaResponse>(connection, pb::REPORT_BAD_REPLICA, request,
                                                                  std::move(nothing), kCallTimeout);
    if (stopping_ || connection->closed()) break;
    if (reply && replica.bad()) told_.insert(key);  // what needs a recovery is told until there was one
    if (!reply) all = Fail(std::move(reply).error());
    if (!all && all.error().code == ErrorCode::kTimeout) break;
  }
  co_return all;
}

Task<void> Control::ReportScrubbed(std::vector<uint64_t> chunks) {
  std::shared_ptr<Connection> connection = registered_.lock();
  if (!connection || connection->closed() || stopping_) co_return;
  pb::ScrubbedRequest request;
  request.set_server(server_);
  request.mutable_chunks()->Add(chunks.begin(), chunks.end());
  Payload nothing;
  auto reply = co_await CallTyped<pb::ScrubbedResponse>(connection, pb::SCRUBBED, request, std::move(nothing), kCallTimeout);
  if (!reply) LogDebug("the metaserver takes no word of what was scrubbed: {}", reply.error().message);
}

Task<void> Control::SendInventory(std::shared_ptr<Connection> connection) {
  ReplicaStore& store = *node_.store;
  OnQueue collect(loop_, store.disks()[0]->syncs(), [&store] { return store.Digests(); });
  std::vector<uint64_t> digests = co_await collect;
  pb::InventoryDigestRequest request;
  request.set_server(server_);
  request.mutable_digests()->Add(digests.begin(), digests.end());
  Payload nothing;
  auto reply = co_await CallTyped<pb::InventoryDigestResponse>(connection, pb::INVENTORY_DIGEST, request,
                                                               std::move(nothing), kInventoryTimeout);
  Status status = reply ? Status() : Fail(reply.error());
  for (int i = 0; status && i < reply->message.differing_size() && !stopping_; ++i) {
    status = co_await SendBucket(connection, reply->message.differing(i));
  }
  if (!status && !stopping_) LogWarning("the inventory was not sent to its end: {}", status.error().message);
  inventory_running_ = false;
}

Task<Status> Control::SendBucket(std::shared_ptr<Connection> connection, uint32_t bucket) {
  pb::InventoryBucketRequest request;
  request.set_server(server_);
  request.set_bucket(bucket);
  for (pb::ReplicaReport& report : node_.store->Bucket(bucket)) *request.add_replicas() = std::move(report);
  Payload nothing;
  auto reply = co_await CallTyped<pb::InventoryBucketResponse>(connection, pb::INVENTORY_BUCKET, request,
                                                               std::move(nothing), kInventoryTimeout);
  if (!reply) co_return Fail(std::move(reply).error());
  co_return Status();
}

}  // namespace shoal
