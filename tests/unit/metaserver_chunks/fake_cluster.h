// A metaserver core, scripted chunkservers and clients in one process and on one event loop, over real connections.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/proto/check.pb.h"
#include "common/proto/chunk.pb.h"
#include "common/proto/control.pb.h"
#include "common/proto/meta.pb.h"
#include "metaserver/core.h"

namespace shoal::meta {

class FakeCluster;

// One replica at a FakeServer. A plain value.
struct FakeReplica {
  uint64_t instance = 0;
  uint32_t version = 1;
  uint64_t applied = 0;
  bool known = true;
  bool frozen = false;
  bool bad = false;  // what VERIFY_CHUNK finds
  bool suspect = false;
  bool damaged = false;          // until SET_VERSION has levelled it or, as the source, could ask all `others`
  std::vector<uint32_t> lost{};  // blocks of it that it finds good nowhere, as the source
  uint64_t digest = 1;  // what SCRUB_REPLICA tells of its content
};

// A chunkserver that does what a test says: it keeps no bytes, remembers its orders as text, and can fail or ignore
// them. Owner: FakeCluster. Everything but the functions marked "test thread" is on the loop.
class FakeServer {
 public:
  FakeServer(FakeCluster& cluster, std::string name);

  // Test thread.
  void Connect();            // connects, registers and sends heartbeats
  void Die();                // closes its connection, as the kernel does for a killed process
  void Freeze();             // stays connected, but neither answers nor sends anything
  void Thaw();
  std::vector<std::string> TakeOrders();
  ErrorCode Heartbeat(bool* want_inventory = nullptr);
  // Compares inventories as a chunkserver does; returns the number of differing buckets.
  int SendInventory();

  uint32_t id = 0;
  uint64_t lease_ms = 0;  // as Connect or Heartbeat was told
  uint64_t start_id = 1;
  uint64_t create_floor = 0;  // what the last registration told
  std::string name, rack;
  uint64_t capacity = 100ull << 30, free = 100ull << 30;
  std::map<uint64_t, FakeReplica> replicas;           // by chunk
  std::map<int, std::deque<ErrorCode>> fail;          // by method: answers to give first
  std::set<int> ignore;                               // methods that get no answer
  bool copies_are_behind = false;
  std::set<uint64_t> undroppable;                     // chunks whose drops fail
  std::vector<std::string> orders;
  std::function<void(const std::string&)> on_order;
  std::shared_ptr<Connection> connection;

 private:
  void Answer(pb::Method method);
  void Beat();
  pb::RegisterRequest Registration() const;
  void FillDisk(pb::DiskReport* disk) const;
  Status Freeze(const pb::FreezeReplicaRequest& request, pb::FreezeReplicaResponse* response);
  Status SetVersion(const pb::SetVersionRequest& request, pb::SetVersionResponse* response);
  Status Write(const pb::WriteChunkRequest& request);
  Status Scrub(const pb::ScrubReplicaRequest& request, pb::ScrubReplicaResponse* response);
  Status Verify(const pb::VerifyChunkRequest& request, pb::VerifyChunkResponse* response);
  template <typename Req, typename Resp>
  void On(pb::Method method, std::function<Status(const Req&, Resp*)> handle);

  FakeCluster& cluster_;
  RpcContext context_;
  Dispatcher dispatcher_;
  std::unique_ptr<Channel> channel_;
  std::unique_ptr<EventLoop::Timer> beat_;
  bool frozen_ = false;
  std::vector<Request> held_;  // arrived while frozen or ignored: never answered before the end
};

// A client's session. Owner: FakeCluster. Test thread.
class FakeClient {
 public:
  explicit FakeClient(FakeCluster& cluster);
  // Connects and opens its session, or resumes it.
  void Connect(std::vector<uint64_t> open_inodes = {}, std::vector<pb::LockOwnerState> locks = {});
  pb::Caller caller(bool mutating = false);

  template <typename Resp, typename Req>
  Result<Resp> Call(pb::Method method, const Req& request, Duration timeout = 20s);
  // Without waiting for the answer.
  template <typename Req>
  std::shared_ptr<OneShot<Result<Reply>>> Start(pb::Method method, const Req& request, Duration timeout = 20s);

  uint64_t Create(const std::string& name);  // opened; returns the inode
  Result<pb::Extent> Grant(uint64_t inode, uint64_t index = 0);
  Result<pb::Attr> Commit(uint64_t inode, const pb::Extent& extent, uint64_t end);
  Result<pb::Attr> SetSize(uint64_t inode, uint64_t size);
  Result<pb::Extent> Report(uint64_t inode, const pb::Extent& extent, uint32_t server, bool for_write = true,
                            ErrorCode reason = ErrorCode::kUnavailable);
  std::vector<pb::Extent> Extents(uint64_t inode, uint64_t first = 0, uint32_t count = 64);
  uint64_t session = 0;

 private:
  FakeCluster& cluster_;
  RpcContext context_;
  std::unique_ptr<Channel> channel_;
  std::shared_ptr<Connection> connection_;
  uint64_t sequence_ = 0;
};

// See the head of this file. Test thread unless noted.
class FakeCluster {
 public:
  FakeCluster();
  ~FakeCluster();
  void StartMeta();
  void StopMeta();
  void RestartMeta();
  FakeServer& AddServer(std::string rack = {});
  FakeClient& AddClient();
  // Runs an operation directly on the core.
  Status Execute(std::function<Status(View&)> op);
  pb::ChunkRecord Chunk(uint64_t chunk);
  // Waits, bounded by 20 s, until `condition`, which is evaluated on the loop, holds.
  bool Eventually(std::function<bool()> condition);
  // The replicas named by an extent as the fakes would have them after a write.
  void Materialize(const pb::Extent& extent, uint64_t applied = 1);
  FakeServer& server(uint32_t id);
  uint16_t port() const { return rpc_->port(); }

  EventLoop loop;
  MetaServerOptions options;
  std::unique_ptr<Core> core;
  std::vector<std::unique_ptr<FakeServer>> servers;
  std::vector<std::unique_ptr<FakeClient>> clients;

 private:
  std::string directory_;
  struct Meta {
    Metrics metrics;
    RpcContext context;
    Dispatcher dispatcher;
  };
  std::unique_ptr<Meta> meta_;
  std::unique_ptr<RpcServer> rpc_;
  std::optional<uint16_t> port_;
};

template <typename Req>
std::shared_ptr<OneShot<Result<Reply>>> FakeClient::Start(pb::Method method, const Req& request, Duration timeout) {
  auto shot = std::make_shared<OneShot<Result<Reply>>>(cluster_.loop);
  struct Wait {
    static Task<void> For(PendingReply pending, std::shared_ptr<OneShot<Result<Reply>>> into) {
      Result<Reply> reply = co_await pending;
      into->Set(std::move(reply));
    }
  };
  auto connection = connection_;
  cluster_.loop.Sync([&, connection] {
    auto pending = connection->Call(method, request, Payload(), timeout);
    cluster_.core->context().driver->Spawn(Wait::For(std::move(pending), shot));
  });
  return shot;
}

template <typename Resp, typename Req>
Result<Resp> FakeClient::Call(pb::Method method, const Req& request, Duration timeout) {
  Result<Typed<Resp>> reply = RunOn(cluster_.loop, CallTyped<Resp>(connection_, method, request, Payload(), timeout));
  if (!reply) return Fail(reply.error());
  return std::move(reply->message);
}

}  // namespace shoal::meta
