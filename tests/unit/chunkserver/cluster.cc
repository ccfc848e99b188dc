#include "tests/unit/chunkserver/cluster.h"

#include <thread>

#include "chunkserver/layout.h"
#include "common/checksum.h"
#include "common/proto/check.pb.h"

namespace shoal::test {

std::string RandomBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

void Await(const std::function<bool()>& condition) {
  auto end = std::chrono::steady_clock::now() + 30s;
  while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(condition()) << "not within 30 s";
}

FakeMeta::FakeMeta(std::string cluster, uint16_t port, uint32_t incarnation, uint64_t life) : life_(life) {
  context_.incarnation = incarnation;
  context_.key = ClusterKey::ForTest();
  context_.role = pb::ROLE_METASERVER;
  context_.name = "metaserver";
  context_.cluster_uuid = std::move(cluster);
  for (auto method : {pb::REGISTER, pb::HEARTBEAT, pb::REPORT_BAD_REPLICA, pb::INVENTORY_DIGEST, pb::INVENTORY_BUCKET,
                      pb::SCRUBBED}) {
    dispatcher_.On(method, [this](Request request) { Answer(std::move(request)); });
  }
  loop_.Start();
  server_ = std::make_unique<RpcServer>(std::vector<EventLoop*>{&loop_}, context_, dispatcher_);
  Status listening = server_->Listen({"127.0.0.1", port});
  EXPECT_TRUE(listening.has_value()) << (listening ? "" : listening.error().message);
}

FakeMeta::~FakeMeta() {
  server_->Stop();
  loop_.Sync([this] {
    std::lock_guard lock(mutex_);
    connections_.clear();
  });
  loop_.Stop();
}

void FakeMeta::Answer(Request request) {
  std::lock_guard lock(mutex_);
  switch (request.method()) {
    case pb::REGISTER: {
      pb::RegisterRequest message;
      ASSERT_TRUE(request.Parse(message).has_value());
      if (refuse_heartbeats && !registrations_.empty()) return request.AnswerError({ErrorCode::kNotPermitted, "not you"});
      registrations_.push_back(message);
      connections_[message.name()] = request.connection();
      uint32_t& id = ids_[message.server_uuid()];
      if (id == 0) id = static_cast<uint32_t>(ids_.size());
      pb::RegisterResponse response;
      response.set_server(id);
      response.set_cluster_uuid(context_.cluster_uuid);
      response.set_lease_ms(lease_ms);
      response.set_heartbeat_ms(heartbeat_ms);
      response.set_create_floor(create_floor);
      response.set_incarnation(context_.incarnation);
      response.set_life(life_);
      response.set_last_txn(last_txn);
      response.set_durable_txn(durable_txn);
      return request.Answer(response);
    }
    case pb::HEARTBEAT: {
      pb::HeartbeatRequest message;
      ASSERT_TRUE(request.Parse(message).has_value());
      if (refuse_heartbeats) return request.AnswerError({ErrorCode::kNotPermitted, "not you"});
      heartbeats_[message.server()] = message;
      heartbeats.fetch_add(1);
      pb::HeartbeatResponse response;
      response.set_lease_ms(lease_ms);
      response.set_send_inventory(want_inventory);
      return request.Answer(response);
    }
    case pb::REPORT_BAD_REPLICA: {
      pb::ReportBadReplicaRequest message;
      ASSERT_TRUE(request.Parse(message).has_value());
      bad_.push_back(message);
      if (refuse_reports.fetch_sub(1) > 0) return request.AnswerError({ErrorCode::kNotReady, "not now"});
      return request.Answer(pb::ReportBadReplicaResponse());
    }
    case pb::INVENTORY_DIGEST: {
      pb::InventoryDigestRequest message;
      ASSERT_TRUE(request.Parse(message).has_value());
      EXPECT_EQ(message.digests_size(), 256);
      pb::InventoryDigestResponse response;
      for (int i = 0; i < message.digests_size(); ++i) {
        if (message.digests(i) != 0) response.add_differing(static_cast<uint32_t>(i));
      }
      return request.Answer(response);
    }
    case pb::SCRUBBED: {
      pb::ScrubbedRequest message;
      ASSERT_TRUE(request.Parse(message).has_value());
      scrubbed_.insert(message.chunks().begin(), message.chunks().end());
      return request.Answer(pb::ScrubbedResponse());
    }
    default: {
      pb::InventoryBucketRequest message;
      ASSERT_TRUE(request.Parse(message).has_value());
      buckets_.push_back(message);
      return request.Answer(pb::InventoryBucketResponse());
    }
  }
}

std::shared_ptr<Connection> FakeMeta::ConnectionOf(const std::string& name) {
  std::lock_guard lock(mutex_);
  return connections_[name];
}
std::vector<pb::ReportBadReplicaRequest> FakeMeta::bad_reports() {
  std::lock_guard lock(mutex_);
  return bad_;
}
std::vector<pb::RegisterRequest> FakeMeta::registrations() {
  std::lock_guard lock(mutex_);
  return registrations_;
}
pb::HeartbeatRequest FakeMeta::last_heartbeat(uint32_t server) {
  pb::HeartbeatRequest last;
  Await([&] {  // the first one
    std::lock_guard lock(mutex_);
    auto it = heartbeats_.find(server);
    if (it != heartbeats_.end()) last = it->second;
    return it != heartbeats_.end();
  });
  return last;
}
std::vector<pb::InventoryBucketRequest> FakeMeta::buckets() {
  std::lock_guard lock(mutex_);
  return buckets_;
}

ScrubbedSet FakeMeta::scrubbed() {
  std::lock_guard lock(mutex_);
  return scrubbed_;
}

ClusterTest::ClusterTest(int members) {
  context_.key = ClusterKey::ForTest();
  context_.role = pb::ROLE_CLIENT;
  context_.name = "test";
  loop_.Start();
  meta_ = std::make_unique<FakeMeta>();
  for (int i = 0; i < members; ++i) {
    Member& member = members_.emplace_back();
    member.name = "cs-" + std::to_string(i);
    member.files = std::make_unique<FakeFiles>();
    EXPECT_TRUE(member.files->CreateDirectory("/data").has_value());
    member.files->SyncAll();
    StartMember(static_cast<size_t>(i));
  }
  for (size_t i = 0; i < members_.size(); ++i) WaitRegistered(i);
}

ClusterTest::~ClusterTest() {
  loop_.Sync([this] { channels_.clear(); });
  for (auto& member : members_) member.server.reset();
  meta_.reset();
  loop_.Stop();
}

void ClusterTest::StartMember(size_t i, uint64_t capacity) {
  // The client may not have seen yet that its connection to the server of before is gone.
  loop_.Sync([&] { channels_.erase(members_[i].port); });
  Member& member = members_[i];
  ChunkServerOptions options;
  options.directories = {{"/data", capacity}};
  options.listen = {"127.0.0.1", member.port};
  options.metaservers = {meta_->address()};
  options.key = ClusterKey::ForTest();
  options.name = member.name;
  options.host = "host-" + std::to_string(i);
  options.network_loops = i == 1 ? 2 : 1;
  options.heartbeat = 20ms;
  options.clean_after = clean_after_;
  options.scrub_rate = scrub_rate_;
  options.scrub_every = scrub_every_;
  options.reserved_bytes = 1 << 20;
  options.files = member.files.get();
  member.server = std::make_unique<ChunkServer>(options);
  Status started = member.server->Start();
  ASSERT_TRUE(started.has_value()) << started.error().message;
  member.port = member.server->port();
}

void ClusterTest::WaitRegistered(size_t i) {
  Await([&] { return members_[i].server->serving(); });
}

pb::WriteChunkRequest ClusterTest::WriteRequest(const std::vector<size_t>& chain, uint64_t chunk, uint32_t offset,
                                                const std::string& bytes) {
  pb::WriteChunkRequest message;
  message.set_chunk(chunk);
  message.set_version(version_);
  message.set_lease(lease_);
  message.set_session(1);
  message.set_write_id(++write_id_);
  message.set_instance(100 + chain[0]);
  for (size_t i = 1; i < chain.size(); ++i) {
    pb::Replica& next = *message.add_chain();
    next.set_server(static_cast<uint32_t>(chain[i] + 1));
    next.set_instance(100 + chain[i]);
    next.set_address("127.0.0.1:" + std::to_string(members_[chain[i]].port));
  }
  auto& segment = *message.add_segments();
  segment.set_offset(offset);
  segment.set_length(static_cast<uint32_t>(bytes.size()));
  for (size_t at = 0; at < bytes.size();) {
    size_t piece = std::min(bytes.size() - at, kBlockSize - (offset + at) % kBlockSize);
    message.add_checksums(BlockChecksum(bytes.data() + at, piece));
    at += piece;
  }
  return message;
}

Status ClusterTest::Send(size_t member, const pb::WriteChunkRequest& message, const std::string& bytes) {
  Payload payload;
  if (!bytes.empty()) payload.push_back(Buffer::CopyOf(bytes));
  auto reply = Call<pb::WriteChunkResponse>(member, pb::WRITE_CHUNK, message, std::move(payload));
  return reply ? Status() : Fail(reply.error());
}

Status ClusterTest::Sync(size_t member, uint64_t chunk) {
  pb::SyncChunkRequest sync;
  auto& one = *sync.add_chunks();
  one.set_chunk(chunk);
  one.set_version(version_);
  one.set_instance(100 + member);
  auto synced = Call<pb::SyncChunkResponse>(member, pb::SYNC_CHUNK, sync);
  return synced ? Status() : Fail(synced.error());
}

Status ClusterTest::Write(const std::vector<size_t>& chain, uint64_t chunk, uint32_t offset, const std::string& bytes,
                          bool create, bool sync) {
  pb::WriteChunkRequest message = WriteRequest(chain, chunk, offset, bytes);
  message.set_create(create);
  message.set_sync(sync);
  return Send(chain[0], message, bytes);
}

Result<std::string> ClusterTest::Read(size_t member, uint64_t chunk, uint32_t offset, uint32_t length) {
  std::string bytes;
  while (length > 512 << 10) {
    TRY_ASSIGN(std::string part, Read(member, chunk, offset, 512 << 10));
    bytes += part;
    offset += 512 << 10;
    length -= 512 << 10;
  }
  pb::ReadChunkRequest message;
  message.set_chunk(chunk);
  message.set_version(version_);
  message.set_instance(100 + member);
  message.set_offset(offset / kBlockSize * kBlockSize);
  uint32_t end = (offset + length + kBlockSize - 1) / kBlockSize * kBlockSize;
  message.set_length(end - message.offset());
  auto reply = Call<pb::ReadChunkResponse>(member, pb::READ_CHUNK, message);
  if (!reply) return Fail(reply.error());
  for (int i = 0; i < reply->message.checksums_size(); ++i) {
    const uint8_t* block = reply->payload.data() + static_cast<size_t>(i) * kBlockSize;
    uint64_t sum = reply->message.checksums(i);
    if (sum != 0 && BlockChecksum(block, kBlockSize) != sum) return Fail(ErrorCode::kChecksumMismatch, "block");
  }
  return bytes.append(reply->payload.view().substr(offset - message.offset(), length));
}

std::string ClusterTest::PathOf(size_t member, uint64_t chunk) const {
  return "/data/chunks/" + ReplicaDirectoryName(ChunkId{chunk}) + "/" +
         ReplicaFileName(ChunkId{chunk}, InstanceId{100 + member});
}

uint64_t ClusterTest::Metric(size_t member, const std::string& name) {
  return members_[member].server->metrics().counter(name, "").value();
}

}  // namespace shoal::test
