// A chain of chunkservers in this process, a scripted metaserver and a client, for tests.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "chunkserver/server.h"
#include "common/proto/chunk.pb.h"
#include "common/proto/control.pb.h"
#include "common/rpc/rpc.h"
#include "tests/support/fake_files.h"

namespace shoal::test {

using ScrubbedSet = std::multiset<uint64_t>;  // chunks that servers said they have scrubbed

// Registers whoever comes, grants leases, and writes down what it is told. Start on any thread; the rest too.
class FakeMeta {
 public:
  explicit FakeMeta(std::string cluster = "cluster-1", uint16_t port = 0, uint32_t incarnation = 0, uint64_t life = 0);
  ~FakeMeta();

  Address address() const { return {"127.0.0.1", server_->port()}; }
  // The connection that the named server made.
  std::shared_ptr<Connection> ConnectionOf(const std::string& name);
  EventLoop& loop() { return loop_; }
  std::vector<pb::ReportBadReplicaRequest> bad_reports();
  std::vector<pb::RegisterRequest> registrations();
  pb::HeartbeatRequest last_heartbeat(uint32_t server);
  std::vector<pb::InventoryBucketRequest> buckets();
  ScrubbedSet scrubbed();

  std::atomic<uint64_t> lease_ms{60'000};
  std::atomic<uint64_t> heartbeat_ms{20};
  std::atomic<uint64_t> create_floor{0};
  std::atomic<uint64_t> last_txn{0}, durable_txn{0};
  std::atomic<bool> want_inventory{false};
  std::atomic<bool> refuse_heartbeats{false};
  std::atomic<int> refuse_reports{0};  // so many reports of bad replicas are not taken
  std::atomic<uint64_t> heartbeats{0};

 private:
  void Answer(Request request);

  EventLoop loop_{"meta"};
  RpcContext context_;
  const uint64_t life_;
  Dispatcher dispatcher_;
  std::unique_ptr<RpcServer> server_;
  std::mutex mutex_;  // guards what follows
  std::map<std::string, std::shared_ptr<Connection>> connections_;
  std::map<std::string, uint32_t> ids_;
  std::vector<pb::RegisterRequest> registrations_;
  std::vector<pb::ReportBadReplicaRequest> bad_;
  std::vector<pb::InventoryBucketRequest> buckets_;
  ScrubbedSet scrubbed_;
  std::map<uint32_t, pb::HeartbeatRequest> heartbeats_;
};

// One member of the test's cluster.
struct Member {
  std::string name;
  std::unique_ptr<FakeFiles> files;
  std::unique_ptr<ChunkServer> server;
  uint16_t port = 0;
};

// What the tests of servers are made of: members 0, 1, 2 with a fake file system each, in which they have "/data".
class ClusterTest : public testing::Test {
 protected:
  explicit ClusterTest(int members = 3);
  ~ClusterTest() override;

  void StartMember(size_t i, uint64_t capacity = 0);
  void StopMember(size_t i) { members_[i].server.reset(); }
  void WaitRegistered(size_t i);

  // Calls as a client; the answer's message and payload.
  template <typename Response>
  Result<Typed<Response>> Call(size_t member, pb::Method method, const google::protobuf::MessageLite& message,
                               Payload payload = {}, Duration timeout = 10s) {
    return RunOn(loop_, CallTask<Response>(member, method, &message, std::move(payload), timeout));
  }
  // Calls as the metaserver, on the connection that the member made.
  template <typename Response>
  Result<Typed<Response>> Order(size_t member, pb::Method method, const google::protobuf::MessageLite& message) {
    auto connection = meta_->ConnectionOf(members_[member].name);
    return RunOn(meta_->loop(), OrderTask<Response>(connection, method, &message));
  }

  // A write to the chain of the given members; the instance of a replica on member i is 100 + i.
  pb::WriteChunkRequest WriteRequest(const std::vector<size_t>& chain, uint64_t chunk, uint32_t offset,
                                     const std::string& bytes);
  Status Write(const std::vector<size_t>& chain, uint64_t chunk, uint32_t offset, const std::string& bytes,
               bool create = true, bool sync = false);
  Status Sync(size_t member, uint64_t chunk);
  Status Send(size_t member, const pb::WriteChunkRequest& message, const std::string& bytes);
  Result<std::string> Read(size_t member, uint64_t chunk, uint32_t offset, uint32_t length);
  std::string PathOf(size_t member, uint64_t chunk) const;
  uint64_t Metric(size_t member, const std::string& name);

  uint32_t version_ = 1;
  uint64_t lease_ = 1;
  uint64_t write_id_ = 0;
  Duration clean_after_ = 10s;
  uint64_t scrub_rate_ = 0;
  Duration scrub_every_ = 6h;
  std::unique_ptr<FakeMeta> meta_;
  std::vector<Member> members_;

 private:
  template <typename Response>
  Task<Result<Typed<Response>>> CallTask(size_t member, pb::Method method, const google::protobuf::MessageLite* message,
                                         Payload payload, Duration timeout) {
    auto& channel = channels_[members_[member].port];
    if (!channel) channel = std::make_unique<Channel>(loop_, context_, Address{"127.0.0.1", members_[member].port});
    auto connection = co_await channel->Get(timeout, true);
    if (!connection) co_return Fail(std::move(connection).error());
    std::shared_ptr<Connection> live = *connection;
    co_return co_await CallTyped<Response>(live, method, *message, std::move(payload), timeout);
  }
  template <typename Response>
  Task<Result<Typed<Response>>> OrderTask(std::shared_ptr<Connection> connection, pb::Method method,
                                          const google::protobuf::MessageLite* message) {
    Payload nothing;
    co_return co_await CallTyped<Response>(connection, method, *message, std::move(nothing), 20s);
  }

  EventLoop loop_{"client"};
  RpcContext context_;
  std::map<uint16_t, std::unique_ptr<Channel>> channels_;
};

std::string RandomBytes(size_t size, uint64_t seed);
// Waits for a condition that another thread brings about.
void Await(const std::function<bool()>& condition);

}  // namespace shoal::test
