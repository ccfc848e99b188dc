// One server and its metaserver: registration, leases, reports, failing disks, bad input.
#include <thread>

#include "chunkserver/layout.h"
#include "tests/unit/chunkserver/cluster.h"

namespace shoal {
namespace {

using test::Await;
using test::FakeMeta;
using test::RandomBytes;

class ServerTest : public test::ClusterTest {
 protected:
  ServerTest() : ClusterTest(1) {}
};

TEST_F(ServerTest, RegistersAndBelongsToTheClusterFromThenOn) {
  auto registrations = meta_->registrations();
  ASSERT_EQ(registrations.size(), 1u);
  EXPECT_EQ(registrations[0].name(), "cs-0");
  EXPECT_EQ(registrations[0].host(), "host-0");
  EXPECT_EQ(registrations[0].cluster_uuid(), "");
  EXPECT_EQ(registrations[0].address(), "127.0.0.1:" + std::to_string(members_[0].port));
  ASSERT_EQ(registrations[0].disks_size(), 1);
  EXPECT_GT(registrations[0].disks(0).free_bytes(), 0u);
  StopMember(0);
  StartMember(0);
  WaitRegistered(0);
  auto again = meta_->registrations();
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[1].cluster_uuid(), "cluster-1");
  EXPECT_EQ(again[1].server_uuid(), registrations[0].server_uuid());
  EXPECT_NE(again[1].start_id(), registrations[0].start_id());
  EXPECT_NE(members_[0].server->state().find("registered as server 1"), std::string::npos) << members_[0].server->state();
}

TEST_F(ServerTest, AnotherClustersMetaserverIsRefusedByName) {
  StopMember(0);
  meta_ = std::make_unique<FakeMeta>("cluster-2");
  StartMember(0);
  Await([&] { return members_[0].server->state().find("cluster-2") != std::string::npos; });
  EXPECT_NE(members_[0].server->state().find("cluster-1"), std::string::npos) << members_[0].server->state();
  EXPECT_FALSE(members_[0].server->serving());
}

// ---- restores of the metadata ----

class RestoredMetaTest : public test::ClusterTest {
 protected:
  RestoredMetaTest() : ClusterTest(1) {}
  // Another metaserver takes the place of the one before.
  void Meet(uint32_t incarnation, uint64_t life, uint64_t last_txn = 1000) {
    StopMember(0);
    Stay(incarnation, life, last_txn);
    StartMember(0);
  }
  void Stay(uint32_t incarnation, uint64_t life, uint64_t last_txn) {
    uint16_t port = meta_->address().port;
    meta_.reset();
    meta_ = std::make_unique<FakeMeta>("cluster-1", port, incarnation, life);
    meta_->last_txn = last_txn;
    meta_->durable_txn = last_txn;
  }
  void AwaitState(const std::string& what) {
    Await([&] { return members_[0].server->state().find(what) != std::string::npos; });
  }
  void ExpectRefused(const std::string& why) {
    AwaitState(why);
    EXPECT_FALSE(members_[0].server->serving()) << members_[0].server->state();
  }
};

TEST_F(RestoredMetaTest, AnEarlierIncarnationIsRefusedAlsoByANewProcess) {
  Meet(1, 0);
  WaitRegistered(0);
  Meet(2, 77);
  WaitRegistered(0);
  Meet(1, 0);
  ExpectRefused("it is not the current one");
  Meet(2, 77);
  WaitRegistered(0);
  EXPECT_EQ(meta_->registrations().back().incarnation(), 2u);
  EXPECT_EQ(meta_->registrations().back().life(), 77u);
}

TEST_F(RestoredMetaTest, AnotherRestoreWithTheSameIncarnationIsRefused) {
  Meet(2, 77);
  WaitRegistered(0);
  Meet(2, 78);
  ExpectRefused("--incarnation-above 2");
  Meet(3, 79);
  WaitRegistered(0);
}

TEST_F(RestoredMetaTest, AnOlderCopyOfTheStateIsRefusedUnlessItsIncarnationIsHigher) {
  Meet(2, 77, 1000);
  WaitRegistered(0);
  Stay(2, 77, 900);
  AwaitState("older copy of the state");
  Stay(3, 78, 900);
  AwaitState("registered as server");
}

TEST_F(RestoredMetaTest, GrantsOfBeforeAreRefused) {
  Meet(1, 0);
  WaitRegistered(0);
  ASSERT_TRUE(Write({0}, 7, 0, "abc"));
  Meet(2, 77);
  WaitRegistered(0);
  Status late = Write({0}, 7, 0, "xyz");
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kLeaseLapsed);
  EXPECT_EQ(Write({0}, 8, 0, "new").error().code, ErrorCode::kLeaseLapsed);
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
}

TEST_F(ServerTest, ALapsedLeaseRefusesReadsAndWrites) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  meta_->lease_ms = 0;
  Await([&] { return !members_[0].server->serving(); });
  EXPECT_EQ(Read(0, 7, 0, 3).error().code, ErrorCode::kLeaseLapsed);
  EXPECT_EQ(Write({0}, 7, 0, "xyz").error().code, ErrorCode::kLeaseLapsed);
  meta_->lease_ms = 60'000;
  WaitRegistered(0);
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
}

TEST_F(ServerTest, AServerThatLeavesTheMetaserverServesNoLonger) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  meta_->refuse_heartbeats = true;
  Await([&] { return !members_[0].server->serving(); });
  EXPECT_EQ(Read(0, 7, 0, 3).error().code, ErrorCode::kLeaseLapsed);
  meta_->refuse_heartbeats = false;
  WaitRegistered(0);
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
}

TEST_F(ServerTest, ReconnectsToARestartedMetaserver) {
  uint16_t port = meta_->address().port;
  meta_.reset();
  meta_ = std::make_unique<FakeMeta>("cluster-1", port);
  Await([&] { return !meta_->registrations().empty() && meta_->heartbeats > 2; });
  EXPECT_EQ(meta_->registrations()[0].cluster_uuid(), "cluster-1");
}

TEST_F(ServerTest, FlippedBitsAreReported) {
  struct {
    uint64_t chunk, offset;
    bool in_data;
  } cases[] = {{1, 40, false}, {2, kTableOffset + 1, false}, {3, kDataOffset + 100, true}};
  size_t reports = 0;
  for (auto& c : cases) {
    ASSERT_TRUE(Write({0}, c.chunk, 0, RandomBytes(kBlockSize, c.chunk)).has_value());
    members_[0].files->FlipBit(PathOf(0, c.chunk), c.offset);
    auto read = Read(0, c.chunk, 0, kBlockSize);
    EXPECT_EQ(read.has_value(), !c.in_data) << "header and table can be mended";
    if (c.in_data) {  // the client saw it, and tells
      EXPECT_EQ(read.error().code, ErrorCode::kChecksumMismatch);
      pb::VerifyChunkRequest verify;
      verify.set_chunk(c.chunk);
      verify.set_version(1);
      verify.set_length(kBlockSize);
      auto verdict = Call<pb::VerifyChunkResponse>(0, pb::VERIFY_CHUNK, verify);
      ASSERT_TRUE(verdict.has_value());
      EXPECT_FALSE(verdict->message.good());
    }
    ++reports;
    Await([&] { return meta_->bad_reports().size() == reports; });
    auto report = meta_->bad_reports().back();
    EXPECT_EQ(report.replica().chunk(), c.chunk);
    EXPECT_EQ(report.replica().instance(), 100u);
    EXPECT_TRUE(report.replica().bad() && report.replica().damaged());
    EXPECT_EQ(report.reason(), static_cast<uint32_t>(ErrorCode::kCorrupt));
    EXPECT_GE(Metric(0, "shoal_chunkserver_corrupt_blocks_total"), reports);
  }
}

TEST_F(ServerTest, ABadReplicaIsReportedUntilTheMetaserverHasTakenItAndAtEachRegistration) {
  ASSERT_TRUE(Write({0}, 7, 0, RandomBytes(kBlockSize, 1)).has_value());
  members_[0].files->FlipBit(PathOf(0, 7), 40);
  meta_->refuse_reports = 2;
  EXPECT_TRUE(Read(0, 7, 0, kBlockSize).has_value());
  Await([&] { return meta_->bad_reports().size() == 3; });
  uint64_t beats = meta_->heartbeats;
  Await([&] { return meta_->heartbeats > beats + 3; });
  EXPECT_EQ(meta_->bad_reports().size(), 3u) << "taken: once";
  uint16_t port = meta_->address().port;
  meta_.reset();
  meta_ = std::make_unique<FakeMeta>("cluster-1", port);
  Await([&] { return meta_->bad_reports().size() == 1; });
  EXPECT_EQ(meta_->bad_reports()[0].replica().chunk(), 7u);
}

TEST_F(ServerTest, VerifyOfAGoodReplicaSaysSo) {
  ASSERT_TRUE(Write({0}, 7, 0, RandomBytes(100000, 1)).has_value());
  pb::VerifyChunkRequest verify;
  verify.set_chunk(7);
  verify.set_version(1);
  verify.set_length(100000);
  auto verdict = Call<pb::VerifyChunkResponse>(0, pb::VERIFY_CHUNK, verify);
  ASSERT_TRUE(verdict.has_value()) << verdict.error().message;
  EXPECT_TRUE(verdict->message.good());
  EXPECT_TRUE(meta_->bad_reports().empty());
}

TEST_F(ServerTest, AMissingFileIsALostReplicaNotZeros) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc", true, true).has_value());
  StopMember(0);
  StartMember(0);
  WaitRegistered(0);
  ASSERT_TRUE(members_[0].files->Unlink(PathOf(0, 7)).has_value());
  auto read = Read(0, 7, 0, 3);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::kNoReplica);
  Await([&] { return meta_->bad_reports().size() == 1; });
}

TEST_F(ServerTest, AFullDiskRefusesNewDataAndGoesOn) {
  ASSERT_TRUE(Write({0}, 7, 0, RandomBytes(100000, 2)).has_value());
  members_[0].files->capacity = 0;
  Await([&] { return meta_->last_heartbeat(1).disks_size() > 0 && meta_->last_heartbeat(1).disks(0).free_bytes() == 0; });
  EXPECT_FALSE(meta_->last_heartbeat(1).disks(0).failed());
  EXPECT_EQ(Write({0}, 8, 0, "abc").error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(Write({0}, 7, 0, "abc").error().code, ErrorCode::kNoSpace) << "refused before it was numbered";
  EXPECT_EQ(*Read(0, 7, 0, 100000), RandomBytes(100000, 2));
  members_[0].files->capacity = 1ull << 40;
  Await([&] { return meta_->last_heartbeat(1).disks(0).free_bytes() > 0; });
  EXPECT_TRUE(Write({0}, 7, 0, "abc").has_value());
  EXPECT_TRUE(Write({0}, 8, 0, "abc").has_value());
}

TEST_F(ServerTest, ARefusedFirstWriteLeavesNoReplica) {
  StopMember(0);
  StartMember(0, 4 << 20);
  WaitRegistered(0);
  ASSERT_TRUE(Write({0}, 7, 0, RandomBytes(1 << 20, 3)).has_value());
  ASSERT_TRUE(Write({0}, 7, 1 << 20, RandomBytes(1 << 20, 3)).has_value());
  ASSERT_TRUE(Write({0}, 7, 2 << 20, RandomBytes(1 << 20, 3)).has_value());
  EXPECT_EQ(Write({0}, 8, 0, RandomBytes(1 << 20, 3)).error().code, ErrorCode::kNoSpace);
  Await([&] { return meta_->last_heartbeat(1).disks(0).used_bytes() > 3u << 20; });
  EXPECT_EQ(meta_->last_heartbeat(1).disks(0).replicas(), 1u);
}

// Half of the reserve is for forwarded writes, and when that is gone too the write is refused before it has a number.
TEST_F(ServerTest, AForwardedWriteWithoutRoomIsRefusedBeforeItIsAdmitted) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  pb::WriteChunkRequest first = WriteRequest({0}, 8, 0, "abc");
  first.set_create(true);
  first.set_number(1);
  first.set_numbering(9);
  ASSERT_TRUE(Send(0, first, "abc").has_value());
  members_[0].files->capacity = 0;
  Await([&] { return meta_->last_heartbeat(1).disks(0).free_bytes() == 0; });
  pb::WriteChunkRequest next = WriteRequest({0}, 8, 3, "def");
  next.set_number(2);
  next.set_numbering(9);
  EXPECT_EQ(Send(0, next, "def").error().code, ErrorCode::kNoSpace);
  members_[0].files->capacity = 1ull << 40;
  Await([&] { return meta_->last_heartbeat(1).disks(0).free_bytes() > 0; });
  Status again = Send(0, next, "def");
  EXPECT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(*Read(0, 8, 0, 6), "abcdef");
}

TEST_F(ServerTest, ItsCapacityIsKept) {
  StopMember(0);
  StartMember(0, 4 << 20);
  WaitRegistered(0);
  std::string bytes = RandomBytes(1 << 20, 3);
  Status status;
  int written = 0;
  for (uint32_t i = 0; i < 8 && status; ++i) {
    status = Write({0}, 7, i << 20, bytes);
    if (status) ++written;
  }
  EXPECT_EQ(written, 3);
  EXPECT_EQ(status.error().code, ErrorCode::kNoSpace);
  Await([&] { return meta_->last_heartbeat(1).disks(0).used_bytes() > 3u << 20; });
  EXPECT_EQ(meta_->last_heartbeat(1).disks(0).capacity_bytes(), 4u << 20);
}

TEST_F(ServerTest, AFailingDiskIsReportedAndTheServerLives) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  members_[0].files->fails = [](const std::string& call, const std::string& path) {
    return call == "write" && path.find("/chunks/") != std::string::npos ? EIO : 0;
  };
  EXPECT_EQ(Write({0}, 7, 0, "xyz").error().code, ErrorCode::kIo);
  Await([&] { return meta_->bad_reports().size() == 1; });
  Await([&] { return meta_->last_heartbeat(1).disks(0).failed(); });
  EXPECT_FALSE(meta_->last_heartbeat(1).disks(0).reason().empty());
  EXPECT_FALSE(Write({0}, 8, 0, "abc").has_value()) << "nothing new is placed on it";
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
  EXPECT_TRUE(members_[0].server->serving());
}

TEST_F(ServerTest, AFileSystemThatBecameReadOnlyIsStillRead) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  StopMember(0);
  StartMember(0);
  WaitRegistered(0);
  members_[0].files->fails = [](const std::string& call, const std::string& path) {
    bool writes = call == "open to write" || call == "write" || call == "truncate" || call == "unlink";
    return writes && path.find("/chunks/") != std::string::npos ? EROFS : 0;
  };
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
  Await([&] { return meta_->last_heartbeat(1).disks(0).failed(); });
  pb::SetVersionRequest raise;
  raise.set_chunk(7);
  raise.set_old_version(1);
  raise.set_new_version(2);
  raise.set_instance(100);
  auto raised = Order<pb::SetVersionResponse>(0, pb::SET_VERSION, raise);
  ASSERT_FALSE(raised.has_value());
  EXPECT_EQ(raised.error().code, ErrorCode::kReadOnly);
  Await([&] { return meta_->bad_reports().size() == 1; });
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
}

TEST_F(ServerTest, NoMemoryForAWriteIsNoFailingDisk) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  members_[0].files->fails = [](const std::string& call, const std::string&) { return call == "write" ? ENOMEM : 0; };
  EXPECT_EQ(Write({0}, 7, 0, "xyz").error().code, ErrorCode::kOverloaded);
  members_[0].files->fails = nullptr;
  EXPECT_EQ(Write({0}, 7, 0, "xyz").error().code, ErrorCode::kChainFailed) << "a recovery helps";
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
  EXPECT_TRUE(meta_->bad_reports().empty());
  EXPECT_FALSE(meta_->last_heartbeat(1).disks(0).failed());
}

TEST_F(ServerTest, ASyncThatFailsIsNeverRepeatedInHope) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  members_[0].files->fails = [](const std::string& call, const std::string&) { return call == "sync" ? EIO : 0; };
  EXPECT_FALSE(Write({0}, 7, 0, "xyz", true, true).has_value());
  members_[0].files->fails = nullptr;
  EXPECT_FALSE(Write({0}, 7, 0, "xyz", true, true).has_value());
  Await([&] { return meta_->bad_reports().size() == 1; });
}

TEST_F(ServerTest, TheInventoryIsSentWhenAskedFor) {
  for (uint64_t c : {1, 2, 0x102}) ASSERT_TRUE(Write({0}, c, 0, "abc").has_value());
  meta_->want_inventory = true;
  Await([&] { return meta_->buckets().size() >= 2; });
  meta_->want_inventory = false;
  auto buckets = meta_->buckets();
  EXPECT_EQ(buckets[0].bucket(), 1u);
  EXPECT_EQ(buckets[0].replicas_size(), 1);
  EXPECT_EQ(buckets[1].bucket(), 2u);
  EXPECT_EQ(buckets[1].replicas_size(), 2);
  EXPECT_EQ(buckets[1].replicas(0).version(), 1u);
}

TEST_F(ServerTest, StartErrorsNameTheCause) {
  auto start = [&](ChunkServerOptions options) {
    options.key = ClusterKey::ForTest();
    ChunkServer server(options);
    Status started = server.Start();
    return started ? std::string("started") : started.error().message;
  };
  ChunkServerOptions options;
  options.directories = {{"/tmp/shoal-is-not-there", 0}};
  options.metaservers = {meta_->address()};
  EXPECT_NE(start(options).find("/tmp/shoal-is-not-there"), std::string::npos);
  test::FakeFiles files;
  ASSERT_TRUE(files.CreateDirectory("/d").has_value());
  options.files = &files;
  options.directories = {{"/d", 0}};
  options.listen = {"127.0.0.1", members_[0].port};
  EXPECT_NE(start(options).find(std::to_string(members_[0].port)), std::string::npos) << start(options);
  options.metaservers.clear();
  EXPECT_NE(start(options).find("--meta"), std::string::npos);
}

TEST_F(ServerTest, MessagesThatMakeNoSense) {
  ASSERT_TRUE(Write({0}, 7, 0, "abc").has_value());
  pb::ReadChunkRequest read;
  read.set_chunk(7);
  read.set_version(1);
  read.set_instance(100);
  for (auto [offset, length] : std::vector<std::pair<uint32_t, uint32_t>>{
           {1, 4096}, {0, 1}, {0, 0}, {0xfffff000u, 0xfffff000u}, {64u << 20, 4096}, {0, 2 << 20}}) {
    read.set_offset(offset);
    read.set_length(length);
    EXPECT_EQ(Call<pb::ReadChunkResponse>(0, pb::READ_CHUNK, read).error().code, ErrorCode::kInvalidArgument);
  }
  pb::WriteChunkRequest write = WriteRequest({0}, 7, 0, "abc");
  write.set_create(true);
  write.set_chunk(0);
  EXPECT_FALSE(Send(0, write, "abc").has_value());
  write.set_chunk(9);
  write.set_instance(0);
  EXPECT_FALSE(Send(0, write, "abc").has_value());
  pb::VerifyChunkRequest verify;
  verify.set_chunk(7);
  verify.set_version(1);
  verify.set_offset(0xffffffff);
  verify.set_length(0xffffffff);
  EXPECT_FALSE(Call<pb::VerifyChunkResponse>(0, pb::VERIFY_CHUNK, verify).has_value());
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
}

}  // namespace
}  // namespace shoal
