// The metaserver's orders: freeze, raise and level, copy, drop.
#include "chunkserver/layout.h"
#include "tests/unit/chunkserver/cluster.h"

namespace shoal {
namespace {

using test::Await;
using test::RandomBytes;

class RecoveryTest : public test::ClusterTest {
 protected:
  Result<Typed<pb::FreezeReplicaResponse>> Freeze(size_t member, uint64_t chunk, uint64_t lease) {
    pb::FreezeReplicaRequest freeze;
    freeze.set_chunk(chunk);
    freeze.set_version(version_);
    freeze.set_instance(100 + member);
    freeze.set_lease(lease);
    freeze.set_order(++order_);
    return Order<pb::FreezeReplicaResponse>(member, pb::FREEZE_REPLICA, freeze);
  }
  Status Raise(size_t member, uint64_t chunk, uint32_t version, uint64_t lease, int source = -1) {
    pb::SetVersionRequest raise;
    raise.set_chunk(chunk);
    raise.set_old_version(version_);
    raise.set_new_version(version);
    raise.set_instance(100 + member);
    raise.set_lease(lease);
    raise.set_order(++order_);
    if (source >= 0) {
      raise.set_source("127.0.0.1:" + std::to_string(members_[static_cast<size_t>(source)].port));
      raise.set_source_instance(100 + static_cast<uint64_t>(source));
    }
    auto raised = Order<pb::SetVersionResponse>(member, pb::SET_VERSION, raise);
    return raised ? Status() : Fail(raised.error());
  }
  pb::ReplicateRequest CopyRequest(size_t to, size_t from, uint64_t chunk) {
    pb::ReplicateRequest copy;
    copy.set_chunk(chunk);
    copy.set_version(version_);
    copy.set_instance(100 + to);
    copy.set_source("127.0.0.1:" + std::to_string(members_[from].port));
    copy.set_source_instance(100 + from);
    copy.set_order(++order_);
    return copy;
  }
  const std::vector<size_t> all_{0, 1, 2};
  uint64_t order_ = 0;
};

TEST_F(RecoveryTest, ALaggingReplicaIsLevelled) {
  std::string bytes = RandomBytes(3 << 20, 1);
  for (uint32_t at = 0; at < bytes.size(); at += 1 << 20) {
    ASSERT_TRUE(Write(all_, 7, at, bytes.substr(at, 1 << 20)).has_value());
  }
  // What only the first two have, as when the third was lost in the middle of it.
  ASSERT_TRUE(Write({0, 1}, 7, 100, "only here").has_value());
  bytes.replace(100, 9, "only here");
  pb::WriteChunkRequest zero = WriteRequest({0, 1}, 7, 1 << 20, "");
  zero.set_kind(pb::WRITE_ZERO);
  zero.mutable_segments(0)->set_length(300 << 10);
  ASSERT_TRUE(Send(0, zero, "").has_value());
  bytes.replace(1 << 20, 300 << 10, 300 << 10, '\0');

  uint64_t applied[3];
  for (size_t i : all_) {
    auto frozen = Freeze(i, 7, 50);
    ASSERT_TRUE(frozen.has_value()) << frozen.error().message;
    EXPECT_TRUE(frozen->message.exists());
    EXPECT_TRUE(frozen->message.known());
    EXPECT_EQ(frozen->message.version(), 1u);
    applied[i] = frozen->message.applied();
  }
  EXPECT_EQ(applied[0], 5u);
  EXPECT_EQ(applied[1], 5u);
  EXPECT_EQ(applied[2], 3u);
  EXPECT_EQ(Write(all_, 7, 0, "no").error().code, ErrorCode::kNotReady);
  EXPECT_TRUE(Read(2, 7, 0, 10).has_value()) << "reads go on";

  ASSERT_TRUE(Raise(0, 7, 2, 50).has_value());
  Status levelled = Raise(2, 7, 2, 50, 0);
  ASSERT_TRUE(levelled.has_value()) << levelled.error().message;
  ASSERT_TRUE(Raise(1, 7, 2, 50, 0).has_value());
  EXPECT_LE(Metric(2, "shoal_chunkserver_copied_bytes_total"), 4096u) << "only what differs";
  EXPECT_EQ(Metric(1, "shoal_chunkserver_copied_bytes_total"), 0u);
  EXPECT_EQ(Read(0, 7, 0, 10).error().code, ErrorCode::kVersionMismatch);
  version_ = 2;
  for (size_t i : all_) EXPECT_EQ(*Read(i, 7, 0, 3 << 20), bytes);

  EXPECT_EQ(Write(all_, 7, 0, "late").error().code, ErrorCode::kLeaseLapsed) << "a writer from before";
  lease_ = 50;
  Status written = Write(all_, 7, 0, "hello");
  ASSERT_TRUE(written.has_value()) << written.error().message;
  ASSERT_TRUE(Raise(0, 7, 2, 50).has_value()) << "done before: nothing happens";
  ASSERT_TRUE(Write(all_, 7, 5, "again").has_value());
  for (size_t i : all_) EXPECT_EQ(*Read(i, 7, 0, 10), "helloagain");
  EXPECT_EQ(Raise(0, 7, 1, 50).error().code, ErrorCode::kVersionMismatch);
}

TEST_F(RecoveryTest, AfterARestartTheRecoveryBringsItBack) {
  std::string bytes = RandomBytes(1 << 20, 2);
  ASSERT_TRUE(Write(all_, 7, 0, bytes).has_value());
  StopMember(2);
  // Killed between a block and its checksum.
  members_[2].files->FlipBit(PathOf(2, 7), kDataOffset + 5 * kBlockSize);
  StartMember(2);
  WaitRegistered(2);
  auto frozen = Freeze(2, 7, 50);
  ASSERT_TRUE(frozen.has_value()) << frozen.error().message;
  EXPECT_FALSE(frozen->message.known());
  for (size_t i : {0, 1}) ASSERT_TRUE(Freeze(i, 7, 50).has_value());
  ASSERT_TRUE(Raise(0, 7, 2, 50).has_value());
  for (size_t i : {1, 2}) ASSERT_TRUE(Raise(i, 7, 2, 50, 0).has_value());
  EXPECT_EQ(Metric(2, "shoal_chunkserver_copied_bytes_total"), 4096u) << "its own blocks are verified";
  version_ = 2;
  lease_ = 50;
  ASSERT_TRUE(Write(all_, 7, 10, "and on").has_value());
  bytes.replace(10, 6, "and on");
  for (size_t i : all_) EXPECT_EQ(*Read(i, 7, 0, 1 << 20), bytes);
}

TEST_F(RecoveryTest, FreezingWhatIsNotThere) {
  auto frozen = Freeze(0, 99, 5);
  ASSERT_TRUE(frozen.has_value());
  EXPECT_FALSE(frozen->message.exists());
  EXPECT_EQ(Raise(0, 99, 2, 5).error().code, ErrorCode::kNoReplica);
}

// What a recovery has found to be absent does not come into being afterwards by a write that was granted before it.
TEST_F(RecoveryTest, OldGrantsMakeNoReplica) {
  ASSERT_TRUE(Freeze(1, 99, 5).has_value());
  lease_ = 5;
  Status late = Write({1}, 99, 0, "abc");
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code, ErrorCode::kLeaseLapsed);
  EXPECT_FALSE(Write({0, 1}, 99, 0, "abc").has_value());  // also as a member
  lease_ = 6;
  EXPECT_TRUE(Write({1}, 99, 0, "abc").has_value());
}

TEST_F(RecoveryTest, ANewProcessMakesNoReplicaForOldGrants) {
  meta_->create_floor = 40;
  StopMember(0);
  StartMember(0);
  WaitRegistered(0);
  lease_ = 40;
  EXPECT_EQ(Write({0}, 99, 0, "abc").error().code, ErrorCode::kLeaseLapsed);
  lease_ = 41;
  EXPECT_TRUE(Write({0}, 99, 0, "abc").has_value());
}

// A first write that was refused, or never came to be applied, leaves nothing that a copy would find in its place.
TEST_F(RecoveryTest, AFirstWriteThatFailedLeavesNothing) {
  ASSERT_TRUE(Write({0, 1}, 7, 0, "abc").has_value());
  pb::WriteChunkRequest second = WriteRequest({2}, 7, 3, "def");
  second.set_create(true);
  second.set_number(2);
  second.set_numbering(5);
  Payload payload;
  payload.push_back(Buffer::CopyOf("def"));
  EXPECT_FALSE(Call<pb::WriteChunkResponse>(2, pb::WRITE_CHUNK, second, std::move(payload), 300ms).has_value());
  for (size_t i : {0, 1}) ASSERT_TRUE(Freeze(i, 7, 50).has_value());
  auto frozen = Freeze(2, 7, 50);
  ASSERT_TRUE(frozen.has_value()) << frozen.error().message;
  EXPECT_FALSE(frozen->message.exists());
  ASSERT_TRUE(Raise(0, 7, 2, 50).has_value());
  version_ = 2;
  auto copied = Order<pb::ReplicateResponse>(2, pb::REPLICATE, CopyRequest(2, 0, 7));
  ASSERT_TRUE(copied.has_value()) << copied.error().message;
  EXPECT_EQ(*Read(2, 7, 0, 3), "abc");
}

TEST_F(RecoveryTest, ARaisedVersionSurvivesAPowerCut) {
  ASSERT_TRUE(Write(all_, 7, 0, "abc").has_value());
  ASSERT_TRUE(Freeze(0, 7, 50).has_value());
  ASSERT_TRUE(Raise(0, 7, 2, 50).has_value());
  StopMember(0);
  members_[0].files->PowerCut();
  StartMember(0);
  WaitRegistered(0);
  version_ = 2;
  EXPECT_EQ(*Read(0, 7, 0, 3), "abc");
}

TEST_F(RecoveryTest, ACopyIsExactDurableAndGoesOnInTheChain) {
  std::string bytes = RandomBytes(2500000, 3);
  for (uint32_t at = 0; at < bytes.size(); at += 1 << 20) {
    ASSERT_TRUE(Write({0, 1}, 7, at, bytes.substr(at, 1 << 20)).has_value());
  }
  pb::ReplicateRequest copy = CopyRequest(2, 0, 7);
  auto copied = Order<pb::ReplicateResponse>(2, pb::REPLICATE, copy);
  ASSERT_TRUE(copied.has_value()) << copied.error().message;
  EXPECT_EQ(copied->message.bytes(), (bytes.size() + 4095) / 4096 * 4096);
  auto again = Order<pb::ReplicateResponse>(2, pb::REPLICATE, copy);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->message.bytes(), copied->message.bytes()) << "the same order has the same answer";
  EXPECT_EQ(*Read(2, 7, 0, 1 << 20), bytes.substr(0, 1 << 20));
  // Nothing was written meanwhile: the chain goes on with it, without a recovery.
  Status written = Write(all_, 7, 5, "joined");
  ASSERT_TRUE(written.has_value()) << written.error().message;
  bytes.replace(5, 6, "joined");
  EXPECT_EQ(*Read(2, 7, 0, 1 << 20), bytes.substr(0, 1 << 20));

  pb::ReplicateRequest second = CopyRequest(2, 0, 7);
  second.set_instance(777);
  ASSERT_TRUE(Order<pb::ReplicateResponse>(2, pb::REPLICATE, second).has_value());
  StopMember(2);
  members_[2].files->PowerCut();
  for (const auto& path : members_[2].files->Paths()) EXPECT_EQ(path.find("/tmp/"), std::string::npos) << path;
  StartMember(2);
  WaitRegistered(2);
  pb::ReadChunkRequest read;
  read.set_chunk(7);
  read.set_version(1);
  read.set_instance(777);
  read.set_length(4096);
  auto reply = Call<pb::ReadChunkResponse>(2, pb::READ_CHUNK, read);
  ASSERT_TRUE(reply.has_value()) << reply.error().message;
  EXPECT_EQ(reply->payload.view(), bytes.substr(0, 4096));
}

TEST_F(RecoveryTest, ACopyOfABadSourceFails) {
  ASSERT_TRUE(Write({0, 1}, 7, 0, RandomBytes(100000, 4)).has_value());
  members_[0].files->FlipBit(PathOf(0, 7), kDataOffset + 50000);
  auto copied = Order<pb::ReplicateResponse>(2, pb::REPLICATE, CopyRequest(2, 0, 7));
  ASSERT_FALSE(copied.has_value());
  EXPECT_EQ(copied.error().code, ErrorCode::kChainFailed);
  for (const auto& path : members_[2].files->Paths()) EXPECT_EQ(path.find("0000000000000007"), std::string::npos) << path;
  Await([&] { return meta_->bad_reports().size() == 1; });
  EXPECT_EQ(meta_->bad_reports()[0].replica().chunk(), 7u);
  EXPECT_EQ(meta_->bad_reports()[0].replica().instance(), 100u);
  EXPECT_FALSE(members_[2].server->metrics().Text().find("disk_failed{directory=\"/data\"} 1") != std::string::npos);
  ASSERT_TRUE(Order<pb::ReplicateResponse>(2, pb::REPLICATE, CopyRequest(2, 1, 7)).has_value());
}

// The source has another write whenever the copy looks: the copy is made all the same, and a recovery levels it.
TEST_F(RecoveryTest, AChunkThatIsAlwaysWrittenIsCopied) {
  std::string bytes = RandomBytes(100000, 5);
  ASSERT_TRUE(Write({0, 1}, 7, 0, bytes).has_value());
  members_[2].files->fails = [&](const std::string& call, const std::string& path) {
    if (call != "write" || path.find("/tmp/") == std::string::npos) return 0;
    std::string next = RandomBytes(100, write_id_);
    EXPECT_TRUE(Write({0, 1}, 7, 5000, next).has_value());
    bytes.replace(5000, 100, next);
    return 0;
  };
  pb::ReplicateRequest copy = CopyRequest(2, 0, 7);
  auto refused = Order<pb::ReplicateResponse>(2, pb::REPLICATE, copy);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotReady);
  EXPECT_NE(members_[2].server->metrics().Text().find("used_bytes{directory=\"/data\"} 0\n"), std::string::npos)
      << "a copy that failed takes no space";
  copy.set_take_behind(true);
  copy.set_order(++order_);
  auto copied = Order<pb::ReplicateResponse>(2, pb::REPLICATE, copy);
  ASSERT_TRUE(copied.has_value()) << copied.error().message;
  EXPECT_TRUE(copied->message.behind());
  members_[2].files->fails = nullptr;
  EXPECT_EQ(Write(all_, 7, 0, "no").error().code, ErrorCode::kChainFailed);
  bytes.replace(0, 2, "no");  // by those that had applied it
  for (size_t i : {0, 1}) ASSERT_TRUE(Freeze(i, 7, 50).has_value());
  ASSERT_TRUE(Raise(0, 7, 2, 50).has_value());
  for (size_t i : {1, 2}) ASSERT_TRUE(Raise(i, 7, 2, 50, 0).has_value());
  version_ = 2;
  for (size_t i : all_) EXPECT_EQ(*Read(i, 7, 0, 100000), bytes);
}

// Overwrites that were not synced may come back old or new, on each member differently, but never as errors.
TEST_F(RecoveryTest, APowerCutEverywhereInTheMiddleOfOverwrites) {
  constexpr uint32_t kSlot = 128 << 10;
  constexpr uint32_t kSize = 8 * kSlot;
  clean_after_ = 0ms;
  uint64_t accepted = 0;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    version_ = 1;
    lease_ = 1;
    std::string old = RandomBytes(kSize, seed);
    std::string now = old;
    ASSERT_TRUE(Write(all_, seed, 0, old).has_value());
    for (size_t i : all_) ASSERT_TRUE(Sync(i, seed).has_value());
    uint64_t beats = meta_->heartbeats;
    if (seed % 4 > 1) Await([&] { return meta_->heartbeats > beats + 20; });  // cleaned meanwhile, mostly
    for (uint32_t slot = 0; slot < kSize; slot += kSlot) {
      uint32_t offset = slot + static_cast<uint32_t>(random() % kSlot);
      uint32_t length = 1 + static_cast<uint32_t>(random() % (slot + kSlot - offset));
      std::string bytes = RandomBytes(length, random());
      ASSERT_TRUE(Write(all_, seed, offset, bytes).has_value());
      now.replace(offset, length, bytes);
    }
    for (size_t i : all_) {
      accepted += Metric(i, "shoal_chunkserver_accepted_blocks_total");
      StopMember(i);
      members_[i].files->sector = seed % 2 ? 512 : 4096;
      members_[i].files->PowerCut(&random);
      StartMember(i);
    }
    for (size_t i : all_) {
      WaitRegistered(i);
      auto read = Read(i, seed, 0, kSize);
      EXPECT_TRUE(read.has_value() || read.error().code == ErrorCode::kNotReady) << read.error().message;
      auto frozen = Freeze(i, seed, 50);
      ASSERT_TRUE(frozen.has_value()) << frozen.error().message;
    }
    ASSERT_TRUE(Raise(0, seed, 2, 50).has_value());
    for (size_t i : {1, 2}) ASSERT_TRUE(Raise(i, seed, 2, 50, 0).has_value());
    version_ = 2;
    auto first = Read(0, seed, 0, kSize);
    ASSERT_TRUE(first.has_value()) << first.error().message;
    for (size_t i : all_) ASSERT_EQ(*Read(i, seed, 0, kSize), *first);
    for (uint32_t at = 0; at < kSize; at += 512) {
      std::string piece = first->substr(at, 512);
      ASSERT_TRUE(piece == old.substr(at, 512) || piece == now.substr(at, 512)) << at;
    }
  }
  EXPECT_GT(accepted, 0u);
  for (const auto& report : meta_->bad_reports()) EXPECT_FALSE(report.replica().bad()) << report.why();
}

// A block that was under write at the power cut is taken from a member that has it good, else as it is.
TEST_F(RecoveryTest, ASourceTakesBlocksThatOthersHaveGood) {
  std::string bytes = RandomBytes(10 * kBlockSize, 5);
  ASSERT_TRUE(Write(all_, 7, 0, bytes).has_value());
  for (size_t i : all_) {
    ASSERT_TRUE(Sync(i, 7).has_value());
    StopMember(i);
    members_[i].files->PowerCut();
    if (i < 2) members_[i].files->FlipBit(PathOf(i, 7), kDataOffset + 3 * kBlockSize);
    if (i == 0) members_[i].files->FlipBit(PathOf(i, 7), kDataOffset + 5 * kBlockSize);
    StartMember(i);
    WaitRegistered(i);
  }
  EXPECT_EQ(Read(0, 7, 0, 10 * kBlockSize).error().code, ErrorCode::kNotReady);
  EXPECT_EQ(*Read(0, 7, 0, 3 * kBlockSize), bytes.substr(0, 3 * kBlockSize));
  Await([&] { return meta_->bad_reports().size() > 2; });
  EXPECT_TRUE(meta_->bad_reports()[0].replica().unsettled()) << "until there was a recovery";
  for (size_t i : all_) ASSERT_TRUE(Freeze(i, 7, 50).has_value());
  pb::SetVersionRequest raise;
  raise.set_chunk(7);
  raise.set_old_version(1);
  raise.set_new_version(2);
  raise.set_instance(100);
  for (size_t i : {1, 2}) {
    auto& other = *raise.add_others();
    other.set_instance(100 + i);
    other.set_address("127.0.0.1:" + std::to_string(members_[i].port));
  }
  auto raised = Order<pb::SetVersionResponse>(0, pb::SET_VERSION, raise);
  ASSERT_TRUE(raised.has_value()) << raised.error().message;
  version_ = 2;
  EXPECT_EQ(*Read(0, 7, 0, 10 * kBlockSize), bytes);
  EXPECT_EQ(Metric(0, "shoal_chunkserver_accepted_blocks_total"), 0u);
  for (const auto& report : meta_->bad_reports()) EXPECT_FALSE(report.replica().bad()) << report.why();
}

TEST_F(RecoveryTest, AReplicaThatLackedASyncAtAPowerCutIsSuspect) {
  clean_after_ = 0ms;
  for (size_t i : all_) {
    StopMember(i);
    StartMember(i);
    WaitRegistered(i);
  }
  ASSERT_TRUE(Write(all_, 7, 0, "abc").has_value());
  for (size_t i : all_) ASSERT_TRUE(Sync(i, 7).has_value());
  uint64_t beats = meta_->heartbeats;
  Await([&] { return meta_->heartbeats > beats + 60; });
  for (size_t i : all_) members_[i].files->SyncAll();  // the state pages that are clean, for which nobody waits
  ASSERT_TRUE(Write({0, 1}, 7, 0, "xyz").has_value());
  for (size_t i : all_) {
    StopMember(i);
    if (i != 1) members_[i].files->PowerCut();
    StartMember(i);
    WaitRegistered(i);
    auto frozen = Freeze(i, 7, 50);
    ASSERT_TRUE(frozen.has_value()) << frozen.error().message;
    EXPECT_FALSE(frozen->message.known());
    EXPECT_EQ(frozen->message.suspect(), i == 0) << i;
  }
  ASSERT_TRUE(Raise(1, 7, 2, 50).has_value());
  ASSERT_TRUE(Raise(0, 7, 2, 50, 1).has_value());
  version_ = 2;
  EXPECT_EQ(*Read(0, 7, 0, 3), "xyz");
  auto frozen = Freeze(0, 7, 60);
  ASSERT_TRUE(frozen.has_value());
  EXPECT_FALSE(frozen->message.suspect());
}

TEST_F(RecoveryTest, DropHitsOneInstance) {
  ASSERT_TRUE(Write(all_, 7, 0, "abc").has_value());
  pb::DropReplicaRequest drop;
  drop.set_chunk(7);
  drop.set_version(1);
  drop.set_instance(55);
  drop.set_order(1);
  ASSERT_TRUE(Order<pb::DropReplicaResponse>(0, pb::DROP_REPLICA, drop).has_value()) << "not there: done";
  EXPECT_TRUE(Read(0, 7, 0, 3).has_value());
  drop.set_instance(100);
  drop.set_order(2);
  ASSERT_TRUE(Order<pb::DropReplicaResponse>(0, pb::DROP_REPLICA, drop).has_value());
  EXPECT_EQ(Read(0, 7, 0, 3).error().code, ErrorCode::kNoReplica);
  EXPECT_TRUE(Read(1, 7, 0, 3).has_value());
  EXPECT_TRUE(members_[0].files->Content(PathOf(0, 7), 0, 1).empty());
}

TEST_F(RecoveryTest, OrdersComeFromTheMetaserverOnly) {
  ASSERT_TRUE(Write(all_, 7, 0, "abc").has_value());
  pb::DropReplicaRequest drop;
  drop.set_chunk(7);
  drop.set_instance(100);
  auto refused = Call<pb::DropReplicaResponse>(0, pb::DROP_REPLICA, drop);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotPermitted);
  EXPECT_TRUE(Read(0, 7, 0, 3).has_value());
}

}  // namespace
}  // namespace shoal
