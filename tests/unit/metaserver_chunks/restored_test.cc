// After a restore: the records are older than what the servers have. Nothing is deleted, nothing older is served beside
// something newer, and what was granted before the restore counts for nothing.
#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include "common/limits.h"
#include "common/proto/admin.pb.h"
#include "metaserver/backup/state_db.h"
#include "metaserver/batch.h"
#include "metaserver/commit.h"
#include "tests/unit/metaserver_chunks/fake_cluster.h"

namespace shoal::meta {
namespace {

constexpr uint32_t kFloor = 1 << 16;  // versions of before incarnation 2 lie below

class RestoredTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 4; ++i) cluster.AddServer();
    client = &cluster.AddClient();
    inode = client->Create("file");
    auto granted = client->Grant(inode);
    ASSERT_TRUE(granted) << ToString(granted.error());
    extent = *granted;
    ASSERT_TRUE(client->Commit(inode, extent, 1000));
    cluster.Materialize(extent);
    chunk = extent.chunk();
  }

  // As a restore leaves the state: a new life, no session.
  void Restore() {
    for (auto& s : cluster.servers) s->Die();
    cluster.StopMeta();
    {
      auto state = StateDb::Open(cluster.options.data_dir + "/db", StateDb::Mode::kExisting);
      ASSERT_TRUE(state) << ToString(state.error());
      pb::LifeRecord life;
      life.set_incarnation(2);
      life.set_restored_incarnation(2);
      life.set_id(77);
      std::string ranges;
      ASSERT_TRUE((*state)->db()->Get(leveldb::ReadOptions(), std::string(IdRangesKey().view()), &ranges).ok());
      pb::IdRanges ids;
      ASSERT_TRUE(ids.ParseFromString(ranges));
      ids.set_lease(uint64_t{2} << 48);
      leveldb::WriteBatch batch;
      PutRecord(&batch, LifeKey(), life);
      PutRecord(&batch, IdRangesKey(), ids);
      pb::SessionRecord lapsed;
      lapsed.set_lapsed(true);
      PutRecord(&batch, SessionKey(SessionId(client->session)), lapsed);
      ASSERT_TRUE((*state)->db()->Write(leveldb::WriteOptions(), &batch).ok());
    }
    cluster.StartMeta();
    for (auto& s : cluster.servers) s->start_id++;
  }
  FakeServer& Holder(int i) { return cluster.server(extent.replicas(i).server()); }
  FakeServer& Spare() {
    for (auto& s : cluster.servers) {
      if (!s->replicas.contains(chunk)) return *s;
    }
    return *cluster.servers[0];
  }
  void ConnectAndTell() {
    for (auto& s : cluster.servers) s->Connect();
    for (auto& s : cluster.servers) s->SendInventory();
  }
  bool AllServe() {
    return cluster.Eventually([&] { return cluster.core->context().life.reconciled; }) && LeasesCome();
  }
  bool LeasesCome() {
    for (auto& s : cluster.servers) {
      for (int i = 0; i < 500 && s->lease_ms == 0; ++i) {
        EXPECT_EQ(s->Heartbeat(), ErrorCode::kOk);
        cluster.Eventually([n = 0]() mutable { return ++n > 2; });
      }
      if (s->lease_ms == 0) return false;
    }
    return true;
  }
  pb::MetaUnknownResponse Unknown() {
    auto answer = client->Call<pb::MetaUnknownResponse>(pb::META_UNKNOWN, pb::MetaUnknownRequest());
    EXPECT_TRUE(answer);
    return answer ? *answer : pb::MetaUnknownResponse();
  }
  FakeClient& NewClient() { return *(client = &cluster.AddClient()); }
  bool Drops() {
    bool any = false;
    for (auto& s : cluster.servers) {
      for (const std::string& order : s->TakeOrders()) any |= order.find("drop") != std::string::npos;
    }
    return any;
  }

  FakeCluster cluster;
  FakeClient* client = nullptr;
  uint64_t inode = 0, chunk = 0;
  pb::Extent extent;
};

TEST_F(RestoredTest, NoServerServesBeforeAllHaveTold) {
  Restore();
  for (auto& s : cluster.servers) s->Connect();
  NewClient();
  for (auto& s : cluster.servers) EXPECT_EQ(s->lease_ms, 0u);
  EXPECT_EQ(Unknown().waiting_for_size(), 4);
  for (size_t i = 0; i < 3; ++i) cluster.servers[i]->SendInventory();
  EXPECT_EQ(Unknown().waiting_for_size(), 1);
  EXPECT_EQ(Unknown().waiting_for(0), cluster.servers[3]->name);
  for (auto& s : cluster.servers) {
    EXPECT_EQ(s->Heartbeat(), ErrorCode::kOk);
    EXPECT_EQ(s->lease_ms, 0u);
  }
  cluster.servers[3]->SendInventory();
  EXPECT_TRUE(AllServe());
  EXPECT_EQ(Unknown().waiting_for_size(), 0);
  bool again = false;
  EXPECT_EQ(cluster.servers[0]->Heartbeat(&again), ErrorCode::kOk);
  EXPECT_TRUE(again) << "and tells once more, with the records as they are now";
}

TEST_F(RestoredTest, AServerThatStaysAwayIsWaitedForNoLongerThanTheGrace) {
  cluster.options.rereplication_grace = 2s;
  Restore();
  for (size_t i = 0; i < 3; ++i) cluster.servers[i]->Connect();
  for (size_t i = 0; i < 3; ++i) cluster.servers[i]->SendInventory();
  EXPECT_TRUE(cluster.Eventually([&] { return cluster.core->context().life.reconciled; }));
  // It stays so after a restart.
  for (auto& s : cluster.servers) s->Die();
  cluster.RestartMeta();
  EXPECT_TRUE(cluster.core->context().life.reconciled);
}

TEST_F(RestoredTest, TheNewestVersionIsTakenInAndOlderOnesAreLeftOut) {
  // Since the backup: the first holder was left out, a fourth server came in, the version was raised to 5.
  FakeServer& spare = Spare();
  cluster.loop.Sync([&] {
    spare.replicas[chunk] = FakeReplica{uint64_t{1} << 48 | 5000, 5, 9, true, false};
    Holder(1).replicas[chunk].version = 5;
    Holder(2).replicas[chunk].version = 5;
  });
  Restore();
  ConnectAndTell();
  ASSERT_TRUE(AllServe());
  NewClient();
  EXPECT_TRUE(cluster.Eventually([&] { return Holder(1).replicas[chunk].version > kFloor; }));
  pb::ChunkRecord record;
  for (int i = 0; i < 1000; ++i) {
    record = cluster.Chunk(chunk);
    if (!record.pending_version()) break;
    cluster.Eventually([n = 0]() mutable { return ++n > 2; });
  }
  EXPECT_GT(record.version(), kFloor);
  EXPECT_FALSE(record.adopted());
  std::set<uint32_t> servers;
  for (const auto& r : record.replicas()) servers.insert(r.server());
  EXPECT_EQ(servers, (std::set<uint32_t>{spare.id, Holder(1).id, Holder(2).id}));
  for (uint32_t id : servers) EXPECT_EQ(cluster.server(id).replicas[chunk].version, record.version());
}

TEST_F(RestoredTest, AnOlderVersionOfBeforeIsKeptAndNotDropped) {
  FakeServer& spare = Spare();
  cluster.loop.Sync([&] { spare.replicas[chunk] = FakeReplica{uint64_t{1} << 48 | 5000, 1, 9, true, false}; });
  // A replica of a chunk that no record knows: of a file that was made since.
  cluster.loop.Sync([&] { spare.replicas[chunk + 1000] = FakeReplica{uint64_t{1} << 48 | 5001, 1, 9, true, false}; });
  Restore();
  ConnectAndTell();
  ASSERT_TRUE(AllServe());
  NewClient();
  pb::MetaUnknownResponse unknown = Unknown();
  ASSERT_EQ(unknown.replicas_size(), 2) << unknown.DebugString();
  for (const auto& r : unknown.replicas()) EXPECT_EQ(r.server(), spare.id);
  EXPECT_EQ(unknown.restored_incarnation(), 2u);
  spare.SendInventory();
  EXPECT_EQ(Unknown().replicas_size(), 2);
  EXPECT_TRUE(spare.replicas.contains(chunk) && spare.replicas.contains(chunk + 1000));
}

TEST_F(RestoredTest, WhatWasWrittenSinceTheRestoreIsNeverReplacedByAnotherHistory) {
  FakeServer& late = Spare();
  Restore();
  for (auto& s : cluster.servers) {
    if (s.get() != &late) s->Connect();
  }
  for (auto& s : cluster.servers) {
    if (s.get() != &late) s->SendInventory();
  }
  late.Connect();
  late.SendInventory();
  ASSERT_TRUE(AllServe());
  NewClient();
  auto granted = client->Grant(inode);
  ASSERT_TRUE(granted) << ToString(granted.error());
  EXPECT_GT(granted->version(), kFloor) << "the first grant raises the version above all of before";
  EXPECT_EQ(granted->lease() >> 48, 2u);
  // It turns out that the server has a version 7 of the other history.
  cluster.loop.Sync([&] { late.replicas[chunk] = FakeReplica{uint64_t{1} << 48 | 5000, 7, 9, true, false}; });
  late.SendInventory();
  pb::MetaUnknownResponse unknown = Unknown();
  ASSERT_EQ(unknown.replicas_size(), 1) << unknown.DebugString();
  EXPECT_EQ(unknown.replicas(0).version(), 7u);
  EXPECT_EQ(cluster.Chunk(chunk).version(), granted->version());
  EXPECT_TRUE(late.replicas.contains(chunk));
}

TEST_F(RestoredTest, BytesBehindTheEndAreCutOffBeforeTheFileGrows) {
  Restore();
  ConnectAndTell();
  ASSERT_TRUE(AllServe());
  NewClient();
  Drops();
  ASSERT_TRUE(client->SetSize(inode, 5000));
  bool cut = false;
  for (auto& s : cluster.servers) {
    for (const std::string& order : s->TakeOrders()) cut |= order.find("kind 2 at 1000 ") != std::string::npos;
  }
  EXPECT_TRUE(cut);
  ASSERT_TRUE(client->SetSize(inode, 6000));
  for (auto& s : cluster.servers) EXPECT_TRUE(s->TakeOrders().empty()) << "once";
}

TEST_F(RestoredTest, AChunkThatWasOnlyAllocatedIsMadeAnew) {
  ASSERT_TRUE(client->SetSize(inode, 2 * kChunkSize));
  auto granted = client->Grant(inode, 1);
  ASSERT_TRUE(granted);
  cluster.Materialize(*granted);  // written after the backup
  Restore();
  ConnectAndTell();
  ASSERT_TRUE(AllServe());
  NewClient();
  auto again = client->Grant(inode, 1);
  ASSERT_TRUE(again) << ToString(again.error());
  EXPECT_NE(again->chunk(), granted->chunk());
  EXPECT_EQ(again->chunk() >> 48, 2u);
  EXPECT_FALSE(Drops());
  for (auto& s : cluster.servers) s->SendInventory();
  EXPECT_EQ(Unknown().replicas_size(), granted->replicas_size());
}

TEST_F(RestoredTest, WhatIsKeptLongEnoughIsDropped) {
  cluster.options.keep_unknown = 1s;
  FakeServer& spare = Spare();
  cluster.loop.Sync([&] { spare.replicas[chunk + 1000] = FakeReplica{uint64_t{1} << 48 | 5001, 1, 9, true, false}; });
  Restore();
  ConnectAndTell();
  ASSERT_TRUE(AllServe());
  EXPECT_TRUE(cluster.Eventually([&] { return !spare.replicas.contains(chunk + 1000); }));
  NewClient();
  EXPECT_EQ(Unknown().replicas_size(), 0);
  EXPECT_TRUE(Holder(0).replicas.contains(chunk));
}

TEST_F(RestoredTest, AMetaserverThatIsNotTheNewestWritesNothingMore) {
  Restore();
  pb::RegisterRequest request;
  request.set_server_uuid("uuid of s1");
  request.set_name("s1");
  request.set_address("s1:1");
  auto try_register = [&](std::function<void(pb::RegisterRequest&)> fill) {
    pb::RegisterRequest r = request;
    fill(r);
    RpcContext context;
    context.key = ClusterKey::ForTest();
    context.role = pb::ROLE_CHUNKSERVER;
    context.name = "s1";
    std::unique_ptr<Channel> channel;
    cluster.loop.Sync([&] {
      channel = std::make_unique<Channel>(cluster.loop, context, Address{"127.0.0.1", cluster.port()}, nullptr);
    });
    auto connection = RunOn(cluster.loop, channel->Get(10s, true));
    EXPECT_TRUE(connection);
    auto answer = RunOn(cluster.loop, CallTyped<pb::RegisterResponse>(*connection, pb::REGISTER, r, Payload(), 10s));
    connection->reset();
    cluster.loop.Sync([&] { channel.reset(); });
    return answer ? Error{ErrorCode::kOk, {}} : answer.error();
  };
  Error error = try_register([](auto& r) {
    r.set_incarnation(2);
    r.set_life(78);
  });
  EXPECT_EQ(error.code, ErrorCode::kOldIncarnation);
  EXPECT_NE(error.message.find("--incarnation-above 2"), std::string::npos) << error.message;
  EXPECT_EQ(try_register([](auto& r) {
              r.set_incarnation(2);
              r.set_durable_txn(1'000'000'000);
            }).code,
            ErrorCode::kOldIncarnation);
  EXPECT_EQ(try_register([](auto& r) { r.set_incarnation(3); }).code, ErrorCode::kOldIncarnation);
  Status health;
  cluster.loop.Sync([&] { health = cluster.core->context().commit->health(); });
  EXPECT_FALSE(health);
}

}  // namespace
}  // namespace shoal::meta
