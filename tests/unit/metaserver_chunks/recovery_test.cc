// Recoveries of chunks with scripted chunkservers.
#include <gtest/gtest.h>

#include "metaserver/chunks/registry.h"
#include "metaserver/sessions.h"
#include "tests/unit/metaserver_chunks/fake_cluster.h"

namespace shoal::meta {
namespace {

class RecoveryTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; i++) cluster.AddServer();
    client = &cluster.AddClient();
    inode = client->Create("file");
    auto granted = client->Grant(inode);
    ASSERT_TRUE(granted) << ToString(granted.error());
    extent = *granted;
    ASSERT_EQ(extent.replicas_size(), 3);
    cluster.Materialize(extent, 5);
    ASSERT_TRUE(client->Commit(inode, extent, 100));
  }
  FakeServer& member(int i) { return cluster.server(extent.replicas(i).server()); }
  FakeReplica& replica(int i) { return member(i).replicas[extent.chunk()]; }
  std::set<uint32_t> Servers(const pb::ChunkRecord& record) {
    std::set<uint32_t> ids;
    for (const auto& r : record.replicas()) ids.insert(r.server());
    return ids;
  }
  void ReportDamaged() { ReportBad(false, true); }
  void ReportBad(bool unsettled = false, bool damaged = false) {
    pb::ReportBadReplicaRequest report;
    report.mutable_replica()->set_bad(!unsettled);
    report.mutable_replica()->set_damaged(damaged);
    report.mutable_replica()->set_unsettled(unsettled);
    report.set_server(member(0).id);
    report.mutable_replica()->set_chunk(extent.chunk());
    report.mutable_replica()->set_version(1);
    report.mutable_replica()->set_instance(extent.replicas(0).instance());
    report.set_why("a bit flipped");
    auto done = RunOn(cluster.loop, CallTyped<pb::ReportBadReplicaResponse>(
                                        member(0).connection, pb::REPORT_BAD_REPLICA, report, Payload(), 5s));
    ASSERT_TRUE(done) << ToString(done.error());
  }
  void AwaitCommit(uint32_t version) {
    auto deadline = std::chrono::steady_clock::now() + 20s;
    while (cluster.Chunk(extent.chunk()).version() != version && std::chrono::steady_clock::now() < deadline) {
    }
    EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), version);
  }
  // The client's session ends without a word.
  void Lapse() {
    cluster.options.session_timeout = 100ms;
    EXPECT_TRUE(cluster.Eventually([&] { return cluster.core->context().sessions->all().empty(); }));
    cluster.options.session_timeout = 30s;
  }
  bool HasOrder(FakeServer& s, const std::string& part) {
    bool has = false;
    cluster.loop.Sync([&] {
      for (const auto& order : s.orders) has |= order.find(part) != std::string::npos;
    });
    return has;
  }

  FakeCluster cluster;
  FakeClient* client = nullptr;
  uint64_t inode = 0;
  pb::Extent extent;
};

TEST_F(RecoveryTest, AllAnswerWellAllStayAndTheHighestAppliedIsTheSource) {
  replica(1).applied = 7;
  auto fresh = client->Report(inode, extent, extent.replicas(2).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->version(), 2u);
  EXPECT_EQ(fresh->replicas_size(), 3);
  EXPECT_GT(fresh->lease(), extent.lease());
  std::string source = member(1).name + ":1";
  EXPECT_TRUE(HasOrder(member(0), "set " + std::to_string(extent.chunk()) + " v2 from " + source));
  EXPECT_TRUE(HasOrder(member(2), "v2 from " + source));
  EXPECT_FALSE(HasOrder(member(1), "from"));
  auto record = cluster.Chunk(extent.chunk());
  EXPECT_EQ(record.version(), 2u);
  EXPECT_EQ(record.pending_version(), 0u);
  // An old report changes nothing more.
  auto again = client->Report(inode, extent, extent.replicas(2).server());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->version(), 2u);
}

TEST_F(RecoveryTest, AMemberThatRestartedIsNoSource) {
  replica(0).applied = 0;
  replica(0).known = false;
  replica(1).applied = 3;
  replica(2).applied = 2;
  ASSERT_TRUE(client->Report(inode, extent, extent.replicas(0).server()));
  EXPECT_TRUE(HasOrder(member(0), "from " + member(1).name));
}

TEST_F(RecoveryTest, ADeadMemberIsLeftOutAtOnceAndItsReplicaDroppedWhenItIsBack) {
  member(2).Die();
  auto before = std::chrono::steady_clock::now();
  auto fresh = client->Report(inode, extent, extent.replicas(2).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_LT(std::chrono::steady_clock::now() - before, 900ms);  // its connection ended cleanly: no wait for the lease
  EXPECT_EQ(fresh->version(), 2u);
  EXPECT_EQ(fresh->replicas_size(), 2);
  uint64_t stale = extent.replicas(2).instance();
  member(2).start_id = 2;
  member(2).Connect();
  EXPECT_TRUE(cluster.Eventually([&] {
    auto& replicas = member(2).replicas;
    return !replicas.contains(extent.chunk()) || replicas[extent.chunk()].instance != stale;
  }));
  // And the third copy comes back.
  EXPECT_TRUE(cluster.Eventually([&] { return member(2).replicas.contains(extent.chunk()); }));
  EXPECT_TRUE(cluster.Eventually([&] { return member(2).replicas[extent.chunk()].version >= 2; }));
}

TEST_F(RecoveryTest, AServerThatIsBackServesOnlyWithoutTheReplicasThatWereLeftOut) {
  EXPECT_EQ(member(2).lease_ms, 1000u);
  auto has_stale = [&] {
    auto it = member(2).replicas.find(extent.chunk());
    return it != member(2).replicas.end() && it->second.instance == extent.replicas(2).instance();
  };
  auto serves_only_without = [&] {
    EXPECT_EQ(member(2).Heartbeat(), ErrorCode::kOk);
    EXPECT_EQ(member(2).lease_ms, 0u);
    auto deadline = std::chrono::steady_clock::now() + 20s;
    while (member(2).lease_ms == 0 && std::chrono::steady_clock::now() < deadline) {
      EXPECT_EQ(member(2).Heartbeat(), ErrorCode::kOk);
    }
    EXPECT_EQ(member(2).lease_ms, 1000u);
    cluster.loop.Sync([&] { EXPECT_FALSE(has_stale()); });
  };
  // Frozen longer than its lease.
  member(2).Freeze();
  ASSERT_TRUE(client->Report(inode, extent, extent.replicas(2).server()));
  member(2).fail[pb::DROP_REPLICA] = {ErrorCode::kOverloaded, ErrorCode::kOverloaded};
  member(2).Thaw();
  serves_only_without();
  // Started again, with what a recovery left out.
  auto granted = client->Grant(inode, 1);
  ASSERT_TRUE(granted);
  cluster.Materialize(*granted);
  extent = *granted;
  member(2).Die();
  ASSERT_TRUE(client->Report(inode, extent, extent.replicas(2).server()));
  member(2).fail[pb::DROP_REPLICA] = {ErrorCode::kOverloaded, ErrorCode::kOverloaded};
  member(2).Connect();
  EXPECT_EQ(member(2).lease_ms, 0u);
  serves_only_without();
}

// After a power cut a replica may lack writes, with blocks and checksums that match.
TEST_F(RecoveryTest, ASuspectIsASourceOnlyWhereThereIsNoOther) {
  cluster.loop.Sync([&] {
    replica(0).suspect = true;
    replica(0).applied = 9;
    replica(1).known = replica(2).known = false;
  });
  ASSERT_TRUE(client->Report(inode, extent, 0));
  EXPECT_TRUE(HasOrder(member(0), "v2 from "));
  EXPECT_TRUE(HasOrder(member(1), "v2 with 2 others") || HasOrder(member(2), "v2 with 2 others"));
}

TEST_F(RecoveryTest, AnUnsettledReplicaIsRecoveredAndStays) {
  ReportBad(true);
  EXPECT_TRUE(cluster.Eventually([&] { return replica(0).version == 2; }));
  EXPECT_TRUE(cluster.Eventually([&] { return replica(1).version == 2 && replica(2).version == 2; }));
  pb::ChunkRecord record = cluster.Chunk(extent.chunk());
  EXPECT_EQ(record.replicas_size(), 3);
  ReportBad(true);  // late, of the version before: all is done
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 2u);
}

TEST_F(RecoveryTest, ACopyThatIsBehindIsLevelledFirst) {
  FakeServer& fourth = cluster.AddServer();
  // The copy goes there, or back to the server of the bad one.
  fourth.copies_are_behind = member(0).copies_are_behind = true;
  pb::CloseSessionRequest close;
  close.set_session(client->session);
  ASSERT_TRUE(client->Call<pb::CloseSessionResponse>(pb::CLOSE_SESSION, close));  // nobody may be writing
  ReportBad();
  EXPECT_TRUE(cluster.Eventually([&] {
    for (FakeServer* server : {&fourth, &member(0)}) {
      auto at = server->replicas.find(extent.chunk());
      if (at != server->replicas.end() && at->second.version == 3) return true;
    }
    return false;
  }));
  EXPECT_TRUE(HasOrder(fourth, "v3 from ") || HasOrder(member(0), "v3 from "));
  EXPECT_EQ(cluster.Chunk(extent.chunk()).replicas_size(), 3);
}

TEST_F(RecoveryTest, AFrozenMemberIsWaitedForUntilItsLeaseIsOver) {
  member(1).Freeze();
  auto before = std::chrono::steady_clock::now();
  auto fresh = client->Report(inode, extent, extent.replicas(1).server());
  auto took = std::chrono::steady_clock::now() - before;
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_GT(took, 900ms);  // less than a heartbeat before, its lease of 1 s began
  EXPECT_LT(took, 5s);
  EXPECT_EQ(fresh->replicas_size(), 2);
  EXPECT_FALSE(Servers(cluster.Chunk(extent.chunk())).contains(extent.replicas(1).server()));
}

TEST_F(RecoveryTest, AMemberThatFreezesAfterItsAnswerStopsNothingForLong) {
  replica(1).applied = 7;
  for (int i : {0, 1}) {  // a member, then the source
    member(i).on_order = [&, i](const std::string& order) {
      if (order.starts_with("freeze")) member(i).Freeze();
    };
    auto before = std::chrono::steady_clock::now();
    auto fresh = client->Report(inode, extent, extent.replicas(i).server());
    if (i == 0) {
      ASSERT_TRUE(fresh) << ToString(fresh.error());
      EXPECT_EQ(fresh->replicas_size(), 2);
      extent.set_version(fresh->version());
    }
    EXPECT_LT(std::chrono::steady_clock::now() - before, 5s);
  }
}

TEST_F(RecoveryTest, AMemberThatThawsInTimeStays) {
  member(1).Freeze();
  pb::ReportReplicaRequest request;
  *request.mutable_caller() = client->caller();
  request.set_inode(inode);
  request.set_chunk(extent.chunk());
  request.set_version(1);
  request.set_server(extent.replicas(1).server());
  request.set_for_write(true);
  auto reply = client->Start(pb::REPORT_REPLICA, request);
  ASSERT_TRUE(cluster.Eventually([&] { return !member(0).orders.empty(); }));  // the others are frozen
  member(1).Thaw();
  ASSERT_TRUE(cluster.Eventually([&] { return reply->is_set(); }));
  auto record = cluster.Chunk(extent.chunk());
  EXPECT_EQ(record.version(), 2u);
  EXPECT_EQ(record.replicas_size(), 3);
}

TEST_F(RecoveryTest, TransientErrorsAreAskedAgain) {
  member(0).fail[pb::FREEZE_REPLICA] = {ErrorCode::kOverloaded, ErrorCode::kNotReady};
  member(1).fail[pb::SET_VERSION] = {ErrorCode::kOverloaded};
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->replicas_size(), 3);
}

TEST_F(RecoveryTest, AnIoErrorOfItsOwnCostsAMemberItsPlace) {
  member(0).fail[pb::FREEZE_REPLICA] = {ErrorCode::kIo};
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->replicas_size(), 2);
  EXPECT_TRUE(cluster.Eventually([&] { return HasOrder(member(0), "drop"); }));
}

TEST_F(RecoveryTest, AMemberOnAReadOnlyFileSystemIsLeftOut) {
  for (pb::Method method : {pb::FREEZE_REPLICA, pb::SET_VERSION}) {
    member(0).fail[method] = std::deque<ErrorCode>(10, ErrorCode::kReadOnly);
  }
  replica(1).applied = 7;  // the source
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->replicas_size(), 2);
  EXPECT_EQ(fresh->version(), 2u);
}

TEST_F(RecoveryTest, AMemberWithoutRoomToBeLevelledIsLeftOut) {
  replica(1).applied = 7;
  member(0).fail[pb::SET_VERSION] = std::deque<ErrorCode>(10, ErrorCode::kNoSpace);
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->replicas_size(), 2);
  EXPECT_EQ(fresh->version(), 2u);
}

// A full member makes room for another server, which gets a copy; as long as no other has room, nothing happens.
TEST_F(RecoveryTest, AFullMemberIsLeftOutWhenAnotherServerHasRoom) {
  cluster.loop.Sync([&] { member(1).free = 0; });
  replica(1).applied = 7;  // what it has is not lost
  auto none = client->Report(inode, extent, 0, true, ErrorCode::kNoSpace);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), extent.version());
  EXPECT_FALSE(HasOrder(member(1), "freeze"));
  cluster.AddServer();
  auto fresh = client->Report(inode, extent, 0, true, ErrorCode::kNoSpace);
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->replicas_size(), 2);
  EXPECT_FALSE(Servers(cluster.Chunk(extent.chunk())).contains(extent.replicas(1).server()));
  EXPECT_TRUE(HasOrder(member(0), "set " + std::to_string(extent.chunk()) + " v2 from"));
  EXPECT_TRUE(cluster.Eventually([&] {
    return std::ranges::any_of(cluster.servers.back()->orders, [](const auto& order) { return order.starts_with("replicate"); });
  }));
}

TEST_F(RecoveryTest, ASourceIsNotLeftOutOnAnothersWord) {
  replica(1).applied = 7;
  member(0).fail[pb::SET_VERSION] = {ErrorCode::kChainFailed};  // a bit flipped on the way
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->replicas_size(), 3);
  // One that is bad says so itself the next time.
  replica(1).applied = 7;
  member(0).fail[pb::SET_VERSION] = {ErrorCode::kChainFailed};
  member(0).fail[pb::FREEZE_REPLICA] = {ErrorCode::kOverloaded};
  member(1).on_order = [&](const std::string& order) {
    if (order.starts_with("set")) member(1).fail[pb::FREEZE_REPLICA] = {ErrorCode::kCorrupt};
  };
  auto without = client->Report(inode, *fresh, extent.replicas(0).server());
  ASSERT_TRUE(without) << ToString(without.error());
  EXPECT_EQ(without->replicas_size(), 2);
  EXPECT_FALSE(Servers(cluster.Chunk(extent.chunk())).contains(extent.replicas(1).server()));
}

TEST_F(RecoveryTest, AMissingReplicaOfAWrittenChunkIsLostNotEmpty) {
  member(0).replicas.erase(extent.chunk());
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_FALSE(Servers(cluster.Chunk(extent.chunk())).contains(extent.replicas(0).server()) &&
               cluster.Chunk(extent.chunk()).replicas_size() == 3 &&
               cluster.Chunk(extent.chunk()).replicas(0).instance() == extent.replicas(0).instance());
}

TEST_F(RecoveryTest, TheLastGoodCopyStays) {
  member(0).replicas.erase(extent.chunk());
  member(1).replicas.erase(extent.chunk());
  member(2).fail[pb::FREEZE_REPLICA] = {ErrorCode::kCorrupt, ErrorCode::kCorrupt, ErrorCode::kCorrupt};
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_FALSE(fresh);
  EXPECT_EQ(fresh.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).replicas_size(), 3);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 1u);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).pending_version(), 0u);
  auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(client->Extents(inode).size(), 1u);
  EXPECT_LT(std::chrono::steady_clock::now() - before, 150ms);
}

TEST_F(RecoveryTest, ARecoveryWithoutHopeChangesNothingAndReadersGetTheRecord) {
  for (auto& s : cluster.servers) s->Die();
  uint64_t lease = cluster.Chunk(extent.chunk()).lease();
  ASSERT_TRUE(cluster.Execute([&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(ChunkId(extent.chunk())));
    if (!record) return Fail(ErrorCode::kNotFound);
    view.MutableChunk(ChunkId(extent.chunk()))->set_pending_version(2);  // as a restart leaves it
    return {};
  }));
  auto extents = client->Extents(inode);
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].version(), 1u);
  EXPECT_EQ(extents[0].replicas_size(), 3);
  auto record = cluster.Chunk(extent.chunk());
  EXPECT_EQ(record.lease(), lease);
  EXPECT_EQ(record.pending_version(), 2u);  // some replica may have it
  // One comes back: the recovery is finished for the next reader.
  ASSERT_NO_FATAL_FAILURE(member(1).Connect());
  auto deadline = std::chrono::steady_clock::now() + 20s;
  while (cluster.Chunk(extent.chunk()).version() != 3 && std::chrono::steady_clock::now() < deadline) {
    client->Extents(inode);
  }
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 3u);
}

TEST_F(RecoveryTest, TooFewServersIsAnAnswerAndNothingChanges) {
  member(1).Die();
  member(2).Die();
  auto fresh = client->Report(inode, extent, extent.replicas(1).server());
  ASSERT_FALSE(fresh);
  EXPECT_EQ(fresh.error().code, ErrorCode::kNotEnoughServers);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).replicas_size(), 3);
  // Reading goes on from the last one.
  auto extents = client->Extents(inode);
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_TRUE(extents[0].replicas(0).live());
  EXPECT_FALSE(extents[0].replicas(1).live());
}

TEST_F(RecoveryTest, AnAllocatedChunkThatNobodyHasIsPlacedAnew) {
  auto granted = client->Grant(inode, 1);
  ASSERT_TRUE(granted);
  cluster.server(granted->replicas(0).server()).Die();
  FakeServer& fourth = cluster.AddServer();
  auto fresh = client->Grant(inode, 1);  // the grant sees the dead member itself
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->chunk(), granted->chunk());
  EXPECT_EQ(fresh->version(), 2u);
  EXPECT_EQ(fresh->replicas_size(), 3);
  EXPECT_TRUE(Servers(cluster.Chunk(fresh->chunk())).contains(fourth.id));
  // All instances are new: a refused write may have left a file of an old one.
  std::set<uint64_t> before;
  for (const auto& r : granted->replicas()) before.insert(r.instance());
  for (const auto& r : fresh->replicas()) EXPECT_FALSE(before.contains(r.instance()));
}

TEST_F(RecoveryTest, AnAllocatedChunkWhoseMembersAreAllAwayIsNotEmpty) {
  auto granted = client->Grant(inode, 1);
  ASSERT_TRUE(granted);
  cluster.Materialize(*granted);  // written and acknowledged, not committed
  for (auto& s : cluster.servers) s->Die();
  cluster.AddServer();
  cluster.AddServer();
  auto fresh = client->Report(inode, *granted, granted->replicas(0).server());
  ASSERT_FALSE(fresh);
  auto record = cluster.Chunk(granted->chunk());
  ASSERT_EQ(record.replicas_size(), 3);
  for (int i = 0; i < 3; i++) EXPECT_EQ(record.replicas(i).instance(), granted->replicas(i).instance());
  // Nor is it when the one that answers has lost what it had.
  FakeServer& back = cluster.server(granted->replicas(0).server());
  back.fail[pb::FREEZE_REPLICA] = {ErrorCode::kCorrupt};
  back.Connect();
  EXPECT_FALSE(client->Report(inode, *granted, granted->replicas(0).server()));
  EXPECT_EQ(cluster.Chunk(granted->chunk()).replicas(0).instance(), granted->replicas(0).instance());
}

TEST_F(RecoveryTest, ARestartBetweenRaiseAndCommitIsRecoveredUnderAHigherVersion) {
  // The state that such a crash leaves: the intent is stored, one replica has been raised.
  ASSERT_TRUE(cluster.Execute([&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(ChunkId(extent.chunk())));
    if (!record) return Fail(ErrorCode::kNotFound);
    view.MutableChunk(ChunkId(extent.chunk()))->set_pending_version(2);
    return {};
  }));
  for (auto& s : cluster.servers) s->Die();
  cluster.RestartMeta();
  replica(1).version = 2;
  replica(1).applied = 0;
  for (auto& s : cluster.servers) s->Connect();
  client->Connect({inode});
  auto extents = client->Extents(inode);
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].version(), 3u);
  EXPECT_EQ(extents[0].replicas_size(), 3);
  for (int i = 0; i < 3; i++) EXPECT_EQ(replica(i).version, 3u);
  EXPECT_TRUE(HasOrder(member(0), "from " + member(1).name));  // the raised one was equal to the best
}

TEST_F(RecoveryTest, WritersThatLapsedAreFencedBeforeOthersWriteOrRead) {
  auto second = client->Grant(inode, 1);
  ASSERT_TRUE(second);
  cluster.Materialize(*second);
  ASSERT_TRUE(client->Commit(inode, *second, kChunkSize + 100));
  Lapse();
  cluster.RestartMeta();
  for (auto& s : cluster.servers) s->Connect();
  FakeClient& other = cluster.AddClient();
  auto granted = other.Grant(inode);
  ASSERT_TRUE(granted) << ToString(granted.error());
  EXPECT_EQ(granted->version(), 2u);
  auto record = cluster.Chunk(extent.chunk());
  EXPECT_GT(record.lease(), extent.lease());  // what the replicas were frozen under
  ASSERT_EQ(record.writers_size(), 1);
  EXPECT_EQ(record.writers(0), other.session);
  // A reader, of the other chunk.
  EXPECT_EQ(cluster.Chunk(second->chunk()).version(), 1u);
  EXPECT_EQ(other.Extents(inode, 1, 1).at(0).version(), 2u);
  EXPECT_EQ(cluster.Chunk(second->chunk()).writers_size(), 0);
  EXPECT_FALSE(cluster.Chunk(second->chunk()).unsynced());
  EXPECT_EQ(other.Extents(inode, 1, 1).at(0).version(), 2u);  // once
}

TEST_F(RecoveryTest, ACopyIsLevelledWhenAWriterHasLapsed) {
  member(2).Die();
  ASSERT_TRUE(client->Report(inode, extent, extent.replicas(2).server()));
  Lapse();
  member(2).Connect();
  EXPECT_TRUE(cluster.Eventually([&] { return member(2).replicas[extent.chunk()].version == 3; }));
  EXPECT_TRUE(HasOrder(member(2), "set " + std::to_string(extent.chunk()) + " v3 from"));
}

TEST_F(RecoveryTest, ASessionThatWasClosedNeedsNoFence) {
  pb::CloseSessionRequest close;
  close.set_session(client->session);
  ASSERT_TRUE(client->Call<pb::CloseSessionResponse>(pb::CLOSE_SESSION, close));
  FakeClient& other = cluster.AddClient();
  EXPECT_EQ(other.Extents(inode).at(0).version(), 1u);
}

TEST_F(RecoveryTest, ABadReplicaIsReplaced) {
  ReportBad();
  EXPECT_TRUE(cluster.Eventually([&] { return HasOrder(member(0), "drop"); }));
  EXPECT_TRUE(cluster.Eventually([&] {
    auto& replicas = member(0).replicas;
    return replicas.contains(extent.chunk()) && replicas[extent.chunk()].instance != extent.replicas(0).instance();
  }));
  EXPECT_TRUE(cluster.Eventually([&] { return replica(0).version == replica(1).version; }));
}

TEST_F(RecoveryTest, ADamagedReplicaIsHealedAndStays) {
  cluster.loop.Sync([&] {
    replica(0).damaged = true;
    replica(0).applied = 9;
  });
  ReportDamaged();
  EXPECT_TRUE(cluster.Eventually([&] { return replica(0).version == 2 && !replica(0).damaged; }));
  EXPECT_TRUE(cluster.Eventually([&] { return replica(1).version == 2 && replica(2).version == 2; }));
  EXPECT_TRUE(HasOrder(member(0), "v2 from s")) << "it is no source where another is whole";
  EXPECT_TRUE(HasOrder(member(0), "with 1 others, 1 sure"));
  AwaitCommit(2);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).replicas_size(), 3);
  for (int i = 0; i < 3; i++) EXPECT_FALSE(HasOrder(member(i), "drop"));
}

// As a writer finds them.
TEST_F(RecoveryTest, ReplicasThatAreAllDamagedStay) {
  cluster.loop.Sync([&] {
    for (int i = 0; i < 3; i++) replica(i).damaged = true;
    replica(2).suspect = true;
    replica(1).applied = 7;
  });
  auto fresh = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(fresh) << ToString(fresh.error());
  EXPECT_EQ(fresh->replicas_size(), 3);
  EXPECT_TRUE(HasOrder(member(1), "v2 with 2 others, 1 sure")) << "the source is healed by the others";
  for (int i = 0; i < 3; i++) {
    EXPECT_FALSE(replica(i).damaged);
    EXPECT_FALSE(HasOrder(member(i), "drop"));
  }
}

TEST_F(RecoveryTest, ABlockThatIsLostEverywhereStopsNothing) {
  cluster.loop.Sync([&] {
    for (int i = 0; i < 3; i++) replica(i).damaged = true;
    replica(1).applied = 7;
    replica(1).lost = {5, 6};
  });
  ReportDamaged();
  EXPECT_TRUE(cluster.Eventually([&] { return replica(0).version == 2 && replica(2).version == 2; }));
  AwaitCommit(2);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).replicas_size(), 3);
  auto again = client->Report(inode, extent, extent.replicas(0).server());
  ASSERT_TRUE(again) << ToString(again.error());
  EXPECT_EQ(again->version(), 2u) << "no recovery after the other for it";
}

// The one that is away may have what is damaged in those that are there.
TEST_F(RecoveryTest, NothingIsLeftOutWhileABlockIsLostWithoutIt) {
  cluster.loop.Sync([&] {
    replica(0).damaged = replica(1).damaged = true;
    replica(0).lost = replica(1).lost = {5};
  });
  member(2).Die();
  auto fresh = client->Report(inode, extent, extent.replicas(2).server());
  ASSERT_FALSE(fresh);
  EXPECT_EQ(fresh.error().code, ErrorCode::kUnavailable);
  pb::ChunkRecord record = cluster.Chunk(extent.chunk());
  EXPECT_EQ(record.version(), 1u);
  EXPECT_EQ(record.pending_version(), 0u);
  EXPECT_EQ(record.replicas_size(), 3);
  auto extents = client->Extents(inode);  // still read
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].version(), 1u);
  member(2).Connect();
  auto healed = client->Report(inode, extent, extent.replicas(2).server());
  ASSERT_TRUE(healed) << ToString(healed.error());
  EXPECT_EQ(healed->replicas_size(), 3);
}

TEST_F(RecoveryTest, ACopyIsToldOfTheOtherReplicas) {
  member(2).Die();
  ASSERT_TRUE(client->Report(inode, extent, extent.replicas(2).server()));
  FakeServer& fourth = cluster.AddServer();
  EXPECT_TRUE(cluster.Eventually([&] {
    for (const auto& order : fourth.orders) {
      if (order.starts_with("replicate") && order.ends_with("with 1 others")) return true;
    }
    return false;
  }));
}

TEST_F(RecoveryTest, ABadReplicaThatHasToStayGoesWhenAnotherIsBack) {
  member(1).Die();
  member(2).Die();
  ReportBad();
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 1u);
  member(1).Connect();
  EXPECT_TRUE(cluster.Eventually([&] { return HasOrder(member(0), "drop"); }));
  EXPECT_GT(cluster.Chunk(extent.chunk()).version(), 1u);
}

}  // namespace
}  // namespace shoal::meta
