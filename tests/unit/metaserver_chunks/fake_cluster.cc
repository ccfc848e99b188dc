#include "tests/unit/metaserver_chunks/fake_cluster.h"

#include <fmt/format.h>
#include <stdlib.h>

#include "common/checksum.h"
#include "metaserver/chunks/server_ops.h"

namespace shoal::meta {

// ---- FakeServer ----

FakeServer::FakeServer(FakeCluster& cluster, std::string server_name)
    : name(std::move(server_name)), cluster_(cluster) {
  context_.key = ClusterKey::ForTest();
  context_.role = pb::ROLE_CHUNKSERVER;
  context_.name = name;
  On<pb::FreezeReplicaRequest, pb::FreezeReplicaResponse>(
      pb::FREEZE_REPLICA, [this](const auto& request, auto* response) { return Freeze(request, response); });
  On<pb::SetVersionRequest, pb::SetVersionResponse>(pb::SET_VERSION,
                                                    [this](const auto& request, auto* response) {
                                                      return SetVersion(request, response);
                                                    });
  On<pb::WriteChunkRequest, pb::WriteChunkResponse>(pb::WRITE_CHUNK,
                                                    [this](const auto& request, auto*) { return Write(request); });
  On<pb::DropReplicaRequest, pb::DropReplicaResponse>(pb::DROP_REPLICA, [this](const auto& request, auto*) -> Status {
    if (undroppable.contains(request.chunk())) return Fail(ErrorCode::kIo, "as the test says");
    orders.push_back(fmt::format("drop {} {}", request.chunk(), request.instance()));
    auto it = replicas.find(request.chunk());
    if (it != replicas.end() && it->second.instance == request.instance()) replicas.erase(it);
    return {};
  });
  On<pb::ReplicateRequest, pb::ReplicateResponse>(pb::REPLICATE, [this](const auto& request, auto* response) -> Status {
    response->set_behind(copies_are_behind);
    orders.push_back(fmt::format("replicate {} v{} from {} with {} others", request.chunk(), request.version(),
                                 request.source(), request.others_size()));
    replicas[request.chunk()] = FakeReplica{request.instance(), request.version(), 0, true, false};
    return {};
  });
  On<pb::SyncReplicasRequest, pb::SyncReplicasResponse>(pb::SYNC_REPLICAS, [this](const auto&, auto*) -> Status {
    orders.push_back("sync");
    return {};
  });
  On<pb::VerifyChunkRequest, pb::VerifyChunkResponse>(
      pb::VERIFY_CHUNK, [this](const auto& request, auto* response) { return Verify(request, response); });
  On<pb::ScrubReplicaRequest, pb::ScrubReplicaResponse>(
      pb::SCRUB_REPLICA, [this](const auto& request, auto* response) { return Scrub(request, response); });
}

template <typename Req, typename Resp>
void FakeServer::On(pb::Method method, std::function<Status(const Req&, Resp*)> handle) {
  dispatcher_.On(method, [this, method, handle](Request request) {
    if (frozen_ || ignore.contains(method)) {
      held_.push_back(std::move(request));
      return;
    }
    auto& failures = fail[method];
    if (!failures.empty()) {
      ErrorCode code = failures.front();
      failures.pop_front();
      request.AnswerError(Error{code, "as the test says"});
      return;
    }
    Req message;
    ASSERT_TRUE(request.Parse(message));
    Resp response;
    size_t before = orders.size();
    Status status = handle(message, &response);
    if (on_order && orders.size() > before) on_order(orders.back());
    if (status) {
      request.Answer(response);
    } else {
      request.AnswerError(status.error());
    }
  });
}

Status FakeServer::Freeze(const pb::FreezeReplicaRequest& request, pb::FreezeReplicaResponse* response) {
  orders.push_back(fmt::format("freeze {} v{}", request.chunk(), request.version()));
  response->set_full(free == 0);
  auto it = replicas.find(request.chunk());
  if (it == replicas.end() || it->second.instance != request.instance()) return {};
  FakeReplica& replica = it->second;
  if (replica.version < request.version()) return Fail(ErrorCode::kVersionMismatch, "older");
  replica.frozen = true;
  response->set_exists(true);
  response->set_version(replica.version);
  response->set_applied(replica.applied);
  response->set_known(replica.known);
  response->set_suspect(replica.suspect);
  response->set_damaged(replica.damaged);
  return {};
}

Status FakeServer::SetVersion(const pb::SetVersionRequest& request, pb::SetVersionResponse* response) {
  orders.push_back(fmt::format("set {} v{}{} with {} others, {} sure", request.chunk(), request.new_version(),
                               request.source().empty() ? "" : " from " + request.source(), request.others_size(),
                               request.sure_others()));
  auto it = replicas.find(request.chunk());
  if (it == replicas.end() || it->second.instance != request.instance()) return Fail(ErrorCode::kNoReplica, "not here");
  if (it->second.version > request.new_version()) return Fail(ErrorCode::kVersionMismatch, "newer");
  if (request.source().empty() && it->second.damaged) {
    response->mutable_lost_blocks()->Add(it->second.lost.begin(), it->second.lost.end());
    if (!it->second.lost.empty() && !request.accept_lost()) return Fail(ErrorCode::kCorrupt, "good nowhere");
  }
  it->second.damaged = !it->second.lost.empty() || request.lost_blocks_size() > 0;
  it->second.version = request.new_version();
  it->second.applied = 0;
  it->second.known = true;
  it->second.frozen = false;
  return {};
}

Status FakeServer::Write(const pb::WriteChunkRequest& request) {
  orders.push_back(fmt::format("write {} v{} kind {} at {} chain {}", request.chunk(), request.version(),
                               static_cast<int>(request.kind()), request.segments(0).offset(), request.chain_size()));
  auto it = replicas.find(request.chunk());
  if (it == replicas.end() || it->second.instance != request.instance()) return Fail(ErrorCode::kNoReplica, "not here");
  if (it->second.version != request.version()) return Fail(ErrorCode::kVersionMismatch, "another version");
  return {};
}

Status FakeServer::Scrub(const pb::ScrubReplicaRequest& request, pb::ScrubReplicaResponse* response) {
  orders.push_back(fmt::format("scrub {}{}", request.chunk(), request.table_only() ? " table" : ""));
  auto it = replicas.find(request.chunk());
  if (it == replicas.end() || it->second.instance != request.instance()) return Fail(ErrorCode::kNoReplica, "not here");
  const FakeReplica& replica = it->second;
  if (replica.version != request.version()) return Fail(ErrorCode::kVersionMismatch, "another version");
  if (replica.bad) return Fail(ErrorCode::kCorrupt, "as the test says");
  response->set_bytes(request.table_only() ? 0 : 4096);
  response->set_digest(replica.digest);
  response->set_applied(replica.applied);
  response->set_known(replica.known);
  response->set_doubted(replica.suspect);
  return {};
}

Status FakeServer::Verify(const pb::VerifyChunkRequest& request, pb::VerifyChunkResponse* response) {
  auto it = replicas.find(request.chunk());
  bool here = it != replicas.end() && (!request.instance() || it->second.instance == request.instance());
  if (!here) return Fail(ErrorCode::kNoReplica, "not here");
  if (request.version() && it->second.version != request.version()) return Fail(ErrorCode::kVersionMismatch);
  response->set_good(!it->second.bad);
  return {};
}

void FakeServer::FillDisk(pb::DiskReport* disk) const {
  disk->set_path("/data");
  disk->set_capacity_bytes(capacity);
  disk->set_free_bytes(free);
  disk->set_used_bytes(capacity - free);
  disk->set_file_system(1);
  disk->set_replicas(replicas.size());
}

pb::RegisterRequest FakeServer::Registration() const {
  pb::RegisterRequest request;
  request.set_server_uuid("uuid of " + name);
  request.set_name(name);
  request.set_address(name + ":1");
  request.set_host("host of " + name);
  request.set_rack(rack);
  request.set_start_id(start_id);
  cluster_.loop.Sync([&] { FillDisk(request.add_disks()); });
  return request;
}

void FakeServer::Connect() {
  cluster_.loop.Sync([&] {
    channel_ = std::make_unique<Channel>(cluster_.loop, context_, Address{"127.0.0.1", cluster_.port()}, &dispatcher_);
    frozen_ = false;
  });
  auto connected = RunOn(cluster_.loop, channel_->Get(10s, true));
  ASSERT_TRUE(connected) << ToString(connected.error());
  connection = *connected;
  pb::RegisterRequest request = Registration();
  auto registered =
      RunOn(cluster_.loop, CallTyped<pb::RegisterResponse>(connection, pb::REGISTER, request, Payload(), 10s));
  ASSERT_TRUE(registered) << ToString(registered.error());
  id = registered->message.server();
  create_floor = registered->message.create_floor();
  lease_ms = registered->message.lease_ms();
  cluster_.loop.Sync([&] { Beat(); });
}

void FakeServer::Beat() {
  if (!frozen_ && connection && !connection->closed()) {
    pb::HeartbeatRequest request;
    request.set_server(id);
    FillDisk(request.add_disks());
    connection->Call(pb::HEARTBEAT, request, Payload(), 1s);
  }
  beat_ = cluster_.loop.RunAfter(100ms, [this] { Beat(); });
}

ErrorCode FakeServer::Heartbeat(bool* want_inventory) {
  pb::HeartbeatRequest request;
  request.set_server(id);
  cluster_.loop.Sync([&] { FillDisk(request.add_disks()); });
  auto reply =
      RunOn(cluster_.loop, CallTyped<pb::HeartbeatResponse>(connection, pb::HEARTBEAT, request, Payload(), 5s));
  if (!reply) return reply.error().code;
  lease_ms = reply->message.lease_ms();
  if (want_inventory) *want_inventory = reply->message.send_inventory();
  return ErrorCode::kOk;
}

int FakeServer::SendInventory() {
  pb::InventoryDigestRequest digest;
  digest.set_server(id);
  std::vector<uint64_t> sums(kInventoryBuckets);
  for (const auto& [chunk, r] : replicas) sums[InventoryBucket(chunk)] += ReplicaDigest(chunk, r.version, r.instance);
  for (uint64_t sum : sums) digest.add_digests(sum);
  auto answer = RunOn(cluster_.loop,
                      CallTyped<pb::InventoryDigestResponse>(connection, pb::INVENTORY_DIGEST, digest, Payload(), 20s));
  EXPECT_TRUE(answer) << ToString(answer.error());
  if (!answer) return -1;
  for (uint32_t bucket : answer->message.differing()) {
    pb::InventoryBucketRequest request;
    request.set_server(id);
    request.set_bucket(bucket);
    for (const auto& [chunk, r] : replicas) {
      if (InventoryBucket(chunk) != bucket) continue;
      auto* report = request.add_replicas();
      report->set_chunk(chunk);
      report->set_version(r.version);
      report->set_instance(r.instance);
    }
    auto done = RunOn(cluster_.loop, CallTyped<pb::InventoryBucketResponse>(connection, pb::INVENTORY_BUCKET, request,
                                                                            Payload(), 20s));
    EXPECT_TRUE(done) << ToString(done.error());
  }
  return answer->message.differing_size();
}

void FakeServer::Die() {
  cluster_.loop.Sync([&] {
    beat_.reset();
    held_.clear();
    if (channel_) channel_->Close();
    channel_.reset();
    connection.reset();
  });
}

void FakeServer::Freeze() {
  cluster_.loop.Sync([&] { frozen_ = true; });
}

void FakeServer::Thaw() {
  cluster_.loop.Sync([&] { frozen_ = false; });
}

std::vector<std::string> FakeServer::TakeOrders() {
  std::vector<std::string> taken;
  cluster_.loop.Sync([&] { taken.swap(orders); });
  return taken;
}

// ---- FakeClient ----

FakeClient::FakeClient(FakeCluster& cluster) : cluster_(cluster) {
  context_.key = ClusterKey::ForTest();
  context_.role = pb::ROLE_CLIENT;
  context_.name = "client";
}

void FakeClient::Connect(std::vector<uint64_t> open_inodes, std::vector<pb::LockOwnerState> locks) {
  cluster_.loop.Sync([&] {
    if (channel_) channel_->Close();
    connection_.reset();
    channel_ = std::make_unique<Channel>(cluster_.loop, context_, Address{"127.0.0.1", cluster_.port()}, nullptr);
  });
  auto connected = RunOn(cluster_.loop, channel_->Get(10s, true));
  ASSERT_TRUE(connected) << ToString(connected.error());
  connection_ = *connected;
  pb::OpenSessionRequest request;
  request.set_session(session);
  request.set_client_uuid(fmt::format("client {}", static_cast<void*>(this)));
  for (uint64_t inode : open_inodes) request.add_open_inodes(inode);
  for (const auto& lock : locks) *request.add_locks() = lock;
  auto opened = Call<pb::OpenSessionResponse>(pb::OPEN_SESSION, request);
  ASSERT_TRUE(opened) << ToString(opened.error());
  EXPECT_EQ(opened->resumed(), session != 0);
  session = opened->session();
}

pb::Caller FakeClient::caller(bool mutating) {
  pb::Caller caller;
  caller.set_session(session);
  if (mutating) caller.set_sequence(++sequence_);
  return caller;
}

uint64_t FakeClient::Create(const std::string& file_name) {
  pb::CreateRequest request;
  *request.mutable_caller() = caller(true);
  request.set_parent(kRootInode.value);
  request.set_name(file_name);
  request.set_mode(0644);
  request.set_open(true);
  request.set_open_flags(2);
  auto created = Call<pb::OpenResponse>(pb::CREATE, request);
  EXPECT_TRUE(created) << ToString(created.error());
  return created ? created->attr().inode() : 0;
}

Result<pb::Extent> FakeClient::Grant(uint64_t inode, uint64_t index) {
  pb::GrantWriteRequest request;
  *request.mutable_caller() = caller(true);
  request.set_inode(inode);
  request.set_first_index(index);
  request.set_count(1);
  TRY_ASSIGN(auto response, Call<pb::GrantWriteResponse>(pb::GRANT_WRITE, request));
  if (response.extents_size() != 1) return Fail(ErrorCode::kInternal, "not one extent");
  return response.extents(0);
}

Result<pb::Attr> FakeClient::Commit(uint64_t inode, const pb::Extent& extent, uint64_t end) {
  pb::CommitWriteRequest request;
  *request.mutable_caller() = caller(true);
  request.set_inode(inode);
  request.set_end(end);
  request.add_written_indices(extent.index());
  request.add_chunk_ids(extent.chunk());
  TRY_ASSIGN(auto response, Call<pb::CommitWriteResponse>(pb::COMMIT_WRITE, request));
  return response.attr();
}

Result<pb::Attr> FakeClient::SetSize(uint64_t inode, uint64_t size) {
  pb::SetAttrRequest request;
  *request.mutable_caller() = caller(true);
  request.set_inode(inode);
  request.set_size(size);
  request.set_opened_for_write(true);
  TRY_ASSIGN(auto response, Call<pb::AttrResponse>(pb::SET_ATTR, request));
  return response.attr();
}

Result<pb::Extent> FakeClient::Report(uint64_t inode, const pb::Extent& extent, uint32_t server, bool for_write,
                                       ErrorCode reason) {
  pb::ReportReplicaRequest request;
  *request.mutable_caller() = caller();
  request.set_inode(inode);
  request.set_index(extent.index());
  request.set_chunk(extent.chunk());
  request.set_version(extent.version());
  request.set_server(server);
  request.set_reason(static_cast<uint32_t>(reason));
  request.set_for_write(for_write);
  TRY_ASSIGN(auto response, Call<pb::ReportReplicaResponse>(pb::REPORT_REPLICA, request));
  return response.extent();
}

std::vector<pb::Extent> FakeClient::Extents(uint64_t inode, uint64_t first, uint32_t count) {
  pb::GetExtentsRequest request;
  *request.mutable_caller() = caller();
  request.set_inode(inode);
  request.set_first_index(first);
  request.set_count(count);
  auto response = Call<pb::GetExtentsResponse>(pb::GET_EXTENTS, request);
  EXPECT_TRUE(response) << ToString(response.error());
  if (!response) return {};
  return {response->extents().begin(), response->extents().end()};
}

// ---- FakeCluster ----

FakeCluster::FakeCluster() : loop("test") {
  char path[] = "/tmp/shoal-chunks-XXXXXX";
  directory_ = mkdtemp(path);
  options.data_dir = directory_ + "/meta";
  options.key = ClusterKey::ForTest();
  options.hand_in_wait = 0s;  // no restart waits for sessions
  options.server_lease = 1s;
  options.server_lease_margin = 100ms;
  options.rereplication_grace = 600s;
  options.drop_delay = 0s;
  loop.Start();
  StartMeta();
}

FakeCluster::~FakeCluster() {
  for (auto& server : servers) server->Die();
  StopMeta();
  loop.Sync([&] {
    clients.clear();
    servers.clear();
  });
  loop.Stop();
  std::filesystem::remove_all(directory_);
}

void FakeCluster::StartMeta() {
  meta_ = std::make_unique<Meta>();
  meta_->context.key = options.key;
  meta_->context.role = pb::ROLE_METASERVER;
  meta_->context.name = "metaserver";
  core = std::make_unique<Core>(loop, options, meta_->metrics, meta_->context, meta_->dispatcher);
  Status started = core->Start(MakeChunkService);
  ASSERT_TRUE(started) << ToString(started.error());
  rpc_ = std::make_unique<RpcServer>(std::vector<EventLoop*>{&loop}, meta_->context, meta_->dispatcher);
  Status listening = rpc_->Listen(Address{"127.0.0.1", 0});
  ASSERT_TRUE(listening) << ToString(listening.error());
}

void FakeCluster::StopMeta() {
  if (!core) return;
  rpc_->Stop();
  core->Stop();
  core.reset();
  rpc_.reset();
  meta_.reset();
}

void FakeCluster::RestartMeta() {
  StopMeta();
  StartMeta();
}

FakeServer& FakeCluster::AddServer(std::string rack) {
  servers.push_back(std::make_unique<FakeServer>(*this, fmt::format("s{}", servers.size() + 1)));
  servers.back()->rack = std::move(rack);
  servers.back()->Connect();
  return *servers.back();
}

FakeClient& FakeCluster::AddClient() {
  clients.push_back(std::make_unique<FakeClient>(*this));
  clients.back()->Connect();
  return *clients.back();
}

Status FakeCluster::Execute(std::function<Status(View&)> op) {
  Result<TxnId> done = RunOn(loop, core->context().driver->Execute(std::move(op)));
  if (!done) return Fail(done.error());
  return {};
}

pb::ChunkRecord FakeCluster::Chunk(uint64_t chunk) {
  pb::ChunkRecord record;
  Status read = Execute([&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* found, view.GetChunk(ChunkId(chunk)));
    record.Clear();
    if (found) record = *found;
    return {};
  });
  EXPECT_TRUE(read);
  return record;
}

bool FakeCluster::Eventually(std::function<bool()> condition) {
  struct Poll {
    static Task<bool> Until(EventLoop* on, std::function<bool()>* check) {
      auto deadline = std::chrono::steady_clock::now() + 20s;
      while (!(*check)()) {
        if (std::chrono::steady_clock::now() > deadline) co_return false;
        auto pause = on->Sleep(5ms);
        co_await pause;
      }
      co_return true;
    }
  };
  return RunOn(loop, Poll::Until(&loop, &condition));
}

void FakeCluster::Materialize(const pb::Extent& extent, uint64_t applied) {
  loop.Sync([&] {
    for (const pb::Replica& r : extent.replicas()) {
      server(r.server()).replicas[extent.chunk()] = FakeReplica{r.instance(), extent.version(), applied, true, false};
    }
  });
}

FakeServer& FakeCluster::server(uint32_t id) {
  for (auto& s : servers) {
    if (s->id == id) return *s;
  }
  ADD_FAILURE() << "no server " << id;
  return *servers.front();
}

}  // namespace shoal::meta
