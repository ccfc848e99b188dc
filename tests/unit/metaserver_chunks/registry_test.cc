#include "metaserver/chunks/registry.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

// A connection that goes nowhere: the registry only compares and keeps it.
class FakeConnection : public Connection {
 public:
  PendingReply Call(pb::Method, const google::protobuf::MessageLite&, Payload, Duration) override { std::abort(); }
  void Close(const Error&) override { closed_ = true; }
  bool closed() const override { return closed_; }
  void OnClose(std::move_only_function<void(const Error&, bool)>) override {}
  EventLoop& loop() override { std::abort(); }
  RpcContext& context() override { std::abort(); }
  const std::string& peer() const override { return name_; }
  const std::string& peer_host() const override { return name_; }
  pb::Role peer_role() const override { return pb::ROLE_CHUNKSERVER; }
  const std::string& peer_name() const override { return name_; }
  size_t queued_bytes() const override { return 0; }
  SteadyTime last_received() const override { return {}; }

 protected:
  void SendResponse(uint64_t, pb::Method, ErrorCode, const google::protobuf::MessageLite*, std::string_view, Payload,
                    TxnId, size_t) override {}

 private:
  std::string name_ = "fake";
  bool closed_ = false;
};

constexpr BootTime kStart = 1000s;
const ServerId kOne{1};

ServerEntry Entry(uint64_t start_id = 7) {
  ServerEntry e;
  e.id = kOne;
  e.uuid = "u1";
  e.name = "one";
  e.start_id = start_id;
  DiskState disk;
  disk.capacity = 1000 << 20;
  disk.free = 600 << 20;
  disk.used = 400 << 20;
  e.disks = {disk};
  return e;
}

TEST(Registry, LeaseRunsFromTheLastHeartbeat) {
  ServerRegistry reg;
  auto conn = std::make_shared<FakeConnection>();
  EXPECT_EQ(reg.State(kOne, kStart), ServerState::kDead);  // unknown
  reg.Register(Entry(), conn, kStart);
  EXPECT_EQ(reg.State(kOne, kStart + 4s), ServerState::kLive);
  EXPECT_TRUE(reg.Heartbeat(kOne, conn.get(), {}, 3, kStart + 4s));
  EXPECT_EQ(reg.State(kOne, kStart + 8s), ServerState::kLive);
  EXPECT_EQ(reg.State(kOne, kStart + 9s), ServerState::kSuspect);
  EXPECT_FALSE(reg.Tick(kStart + 9s));
  EXPECT_EQ(reg.State(kOne, kStart + 9s + kServerLeaseMargin), ServerState::kDead);
  EXPECT_TRUE(reg.Tick(kStart + 10s));
  EXPECT_FALSE(reg.Tick(kStart + 10s));  // told once
  EXPECT_EQ(reg.DeadFor(*reg.Find(kOne), kStart + 12s), 12s - 9s - kServerLeaseMargin);
  // It thaws: its next heartbeat makes it live again.
  EXPECT_TRUE(reg.Heartbeat(kOne, conn.get(), {}, 0, kStart + 20s));
  EXPECT_EQ(reg.State(kOne, kStart + 20s), ServerState::kLive);
  EXPECT_EQ(reg.DeadFor(*reg.Find(kOne), kStart + 20s), 0s);
}

TEST(Registry, AFileSystemThatDirectoriesShareCountsOnce) {
  ServerRegistry reg;
  ServerEntry one = Entry(), two = Entry();
  two.id = ServerId(2);
  one.machine = two.machine = "here";
  for (ServerEntry* entry : {&one, &two}) {
    for (DiskState& disk : entry->disks) disk.file_system = 5, disk.fs_capacity = 1000 << 20, disk.fs_free = 100 << 20;
  }
  one.disks.push_back(one.disks[0]);
  EXPECT_EQ(one.space().capacity, 1000u << 20);
  EXPECT_EQ(one.space().used, 800u << 20);
  EXPECT_EQ(one.space().free, 100u << 20);
  reg.Register(one, std::make_shared<FakeConnection>(), kStart);
  reg.Register(two, std::make_shared<FakeConnection>(), kStart);
  EXPECT_EQ(reg.Space(kStart).capacity, 1000u << 20);
  EXPECT_EQ(reg.Space(kStart).used, 1200u << 20);
  EXPECT_EQ(reg.Space(kStart).free, 100u << 20);
  two.machine = "there";  // the same number of another machine's
  reg.Register(two, std::make_shared<FakeConnection>(), kStart);
  EXPECT_EQ(reg.Space(kStart).capacity, 2000u << 20);
}

// What is left in a directory below the reserve belongs to the replicas that are there.
TEST(Registry, TheReserveIsNoRoomForNewFiles) {
  ServerRegistry reg;
  ServerEntry entry = Entry();
  entry.disks[0].free = kPlacementReserve;
  reg.Register(entry, std::make_shared<FakeConnection>(), kStart);
  EXPECT_EQ(UsableSpace(reg.Shares(false, kStart), 1), 0u);
  EXPECT_EQ(UsableSpace(reg.Shares(true, kStart), 1), 400u << 20);
}

TEST(Registry, CleanEndIsDeathAtOnceAndALostConnectionIsNot) {
  ServerRegistry reg;
  std::vector<ServerId> changes;
  reg.OnChange([&](ServerId id) { changes.push_back(id); });
  auto conn = std::make_shared<FakeConnection>();
  reg.Register(Entry(), conn, kStart);
  reg.Disconnected(kOne, conn.get(), false, kStart + 1s);
  EXPECT_EQ(reg.State(kOne, kStart + 1s), ServerState::kSuspect);
  auto again = std::make_shared<FakeConnection>();
  EXPECT_FALSE(reg.Register(Entry(), again, kStart + 2s));  // the same process
  EXPECT_EQ(reg.State(kOne, kStart + 2s), ServerState::kLive);
  reg.Disconnected(kOne, conn.get(), true, kStart + 2s);  // late news of the old connection
  EXPECT_EQ(reg.State(kOne, kStart + 2s), ServerState::kLive);
  reg.Disconnected(kOne, again.get(), true, kStart + 3s);
  EXPECT_EQ(reg.State(kOne, kStart + 3s), ServerState::kDead);
  EXPECT_EQ(changes.size(), 4u);
  EXPECT_TRUE(reg.Register(Entry(8), again, kStart + 4s));  // another process
  EXPECT_EQ(reg.State(kOne, kStart + 4s), ServerState::kLive);
}

TEST(Registry, HeartbeatOfAnOldConnectionDoesNotCount) {
  ServerRegistry reg;
  auto old_conn = std::make_shared<FakeConnection>(), conn = std::make_shared<FakeConnection>();
  reg.Register(Entry(), old_conn, kStart);
  reg.Register(Entry(), conn, kStart + 1s);
  EXPECT_FALSE(reg.Heartbeat(kOne, old_conn.get(), {}, 0, kStart + 4s));
  EXPECT_EQ(reg.State(kOne, kStart + 7s), ServerState::kDead);
  EXPECT_NE(reg.State(kOne, kStart + 6s), ServerState::kLive);
}

TEST(Registry, AHeldServerIsSuspectUntilItIsReleasedOnItsConnection) {
  ServerRegistry reg;
  auto old_conn = std::make_shared<FakeConnection>(), conn = std::make_shared<FakeConnection>();
  reg.Register(Entry(), conn, kStart);
  reg.Hold(kOne);
  EXPECT_EQ(reg.State(kOne, kStart + 1s), ServerState::kSuspect);
  EXPECT_TRUE(reg.Heartbeat(kOne, conn.get(), {}, 0, kStart + 2s));
  EXPECT_EQ(reg.State(kOne, kStart + 2s), ServerState::kSuspect);
  EXPECT_TRUE(reg.Candidates(kStart + 2s).empty());
  reg.Release(kOne, old_conn.get());
  EXPECT_EQ(reg.State(kOne, kStart + 2s), ServerState::kSuspect);
  reg.Release(kOne, conn.get());
  EXPECT_EQ(reg.State(kOne, kStart + 2s), ServerState::kLive);
}

TEST(Registry, KnownServersAreSuspectAfterARestart) {
  ServerRegistry reg;
  reg.AddKnown(Entry(0), kStart);
  EXPECT_EQ(reg.State(kOne, kStart), ServerState::kSuspect);
  EXPECT_EQ(reg.State(kOne, kStart + 6s), ServerState::kDead);
  EXPECT_TRUE(reg.Candidates(kStart).empty());
}

TEST(Registry, PlacementSeesPromisesUntilTheNextReport) {
  ServerRegistry reg;
  auto conn = std::make_shared<FakeConnection>();
  reg.Register(Entry(), conn, kStart);
  reg.Promise(kOne, 100 << 20);
  ASSERT_EQ(reg.Candidates(kStart).size(), 1u);
  EXPECT_EQ(reg.Candidates(kStart)[0].free, 500u << 20);
  auto disks = Entry().disks;
  disks[0].failed = true;
  reg.Heartbeat(kOne, conn.get(), disks, 0, kStart + 1s);
  EXPECT_EQ(reg.Candidates(kStart + 1s)[0].free, 0u);  // a failed directory has no room
}

}  // namespace
}  // namespace shoal
