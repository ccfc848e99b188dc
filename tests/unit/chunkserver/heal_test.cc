// Replicas that are damaged in places: each block that is good somewhere is read, copied and healed.
#include "chunkserver/layout.h"
#include "tests/unit/chunkserver/cluster.h"

namespace shoal {
namespace {

using test::Await;
using test::RandomBytes;

constexpr uint32_t kBlocks = 600;  // two pages of the table
constexpr uint32_t kSize = kBlocks * kBlockSize;

class HealTest : public test::ClusterTest {
 protected:
  HealTest() : ClusterTest(4) {}

  void Fill(uint64_t chunk) {
    bytes_ = RandomBytes(kSize, chunk);
    for (uint32_t at = 0; at < kSize; at += 1 << 20) {
      ASSERT_TRUE(Write(all_, chunk, at, bytes_.substr(at, 1 << 20)).has_value());
    }
    for (size_t i : all_) ASSERT_TRUE(Sync(i, chunk).has_value());
  }
  void Damage(size_t member, uint64_t chunk, uint32_t block) {
    members_[member].files->FlipBit(PathOf(member, chunk), kDataOffset + uint64_t{block} * kBlockSize + 77);
  }
  // Of the whole page, its checksum too.
  void DestroyTablePage(size_t member, uint64_t chunk, uint32_t page) {
    std::string noise = RandomBytes(4096, member);
    auto file = members_[member].files->Open(PathOf(member, chunk), Files::Mode::kReadWrite);
    ASSERT_TRUE((*file)->Write(TablePageOffset(page), {reinterpret_cast<const uint8_t*>(noise.data()), noise.size()}));
  }
  bool Verify(size_t member, uint64_t chunk) {
    pb::VerifyChunkRequest verify;
    verify.set_chunk(chunk);
    verify.set_version(version_);
    verify.set_length(kSize);
    auto verdict = Call<pb::VerifyChunkResponse>(member, pb::VERIFY_CHUNK, verify);
    EXPECT_TRUE(verdict.has_value()) << (verdict ? "" : verdict.error().message);
    return verdict && verdict->message.good();
  }
  pb::Replica Place(size_t member) {
    pb::Replica place;
    place.set_instance(100 + member);
    place.set_address("127.0.0.1:" + std::to_string(members_[member].port));
    return place;
  }
  bool Freeze(size_t member, uint64_t chunk) {
    pb::FreezeReplicaRequest freeze;
    freeze.set_chunk(chunk);
    freeze.set_version(version_);
    freeze.set_instance(100 + member);
    freeze.set_order(++order_);
    auto frozen = Order<pb::FreezeReplicaResponse>(member, pb::FREEZE_REPLICA, freeze);
    EXPECT_TRUE(frozen.has_value()) << (frozen ? "" : frozen.error().message);
    return frozen && frozen->message.damaged();
  }
  // To the next version. The source: -1.
  Result<pb::SetVersionResponse> Raise(size_t member, uint64_t chunk, int source, bool accept_lost = false) {
    pb::SetVersionRequest raise;
    raise.set_chunk(chunk);
    raise.set_old_version(version_);
    raise.set_new_version(version_ + 1);
    raise.set_instance(100 + member);
    raise.set_order(++order_);
    raise.set_accept_lost(accept_lost);
    raise.set_sure_others(sure_);
    raise.mutable_lost_blocks()->Add(lost_.begin(), lost_.end());
    if (source >= 0) {
      raise.set_source(Place(static_cast<size_t>(source)).address());
      raise.set_source_instance(100 + static_cast<uint64_t>(source));
    }
    for (size_t i : all_) {
      if (i != member && static_cast<int>(i) != source) *raise.add_others() = Place(i);
    }
    auto raised = Order<pb::SetVersionResponse>(member, pb::SET_VERSION, raise);
    if (!raised) return Fail(raised.error());
    return std::move(raised->message);
  }
  // As the metaserver does it: a member that is not damaged is the source, if there is one.
  void Recover(uint64_t chunk, bool accept_lost = false) {
    int source = -1;
    for (size_t i : all_) {
      if (!Freeze(i, chunk) && source < 0) source = static_cast<int>(i);
    }
    size_t first = source < 0 ? 0 : static_cast<size_t>(source);
    auto raised = Raise(first, chunk, -1, accept_lost);
    ASSERT_TRUE(raised.has_value()) << raised.error().message;
    lost_.assign(raised->lost_blocks().begin(), raised->lost_blocks().end());
    for (size_t i : all_) {
      if (i == first) continue;
      auto levelled = Raise(i, chunk, static_cast<int>(first), accept_lost);
      ASSERT_TRUE(levelled.has_value()) << i << ": " << levelled.error().message;
    }
    ++version_;
  }
  void ExpectWhole(uint64_t chunk) {
    for (size_t i : all_) {
      EXPECT_TRUE(Verify(i, chunk)) << i;
      auto read = Read(i, chunk, 0, kSize);
      ASSERT_TRUE(read.has_value()) << i << ": " << read.error().message;
      EXPECT_TRUE(*read == bytes_) << i;
    }
  }
  Result<std::string> CopyTo3(uint64_t chunk) {
    pb::ReplicateRequest copy;
    copy.set_chunk(chunk);
    copy.set_version(version_);
    copy.set_instance(103);
    copy.set_source(Place(0).address());
    copy.set_source_instance(100);
    copy.set_order(++order_);
    for (size_t i : {1, 2}) *copy.add_others() = Place(i);
    auto copied = Order<pb::ReplicateResponse>(3, pb::REPLICATE, copy);
    if (!copied) return Fail(copied.error());
    return Read(3, chunk, 0, kSize);
  }

  const std::vector<size_t> all_{0, 1, 2};
  std::string bytes_;
  std::vector<uint32_t> lost_;
  uint32_t sure_ = 2;
  uint64_t order_ = 0;
};

TEST_F(HealTest, ThreeReplicasDamagedAtDifferentBlocksAreWholeAfterARecovery) {
  Fill(7);
  Damage(0, 7, 3);
  Damage(1, 7, 3 + 1);
  DestroyTablePage(2, 7, 0);
  Damage(2, 7, 599);
  for (size_t i : all_) EXPECT_FALSE(Verify(i, 7));
  Await([&] { return meta_->bad_reports().size() == 3; });
  for (const auto& report : meta_->bad_reports()) EXPECT_TRUE(report.replica().damaged()) << report.why();
  EXPECT_EQ(*Read(0, 7, 5 * kBlockSize, kBlockSize), bytes_.substr(5 * kBlockSize, kBlockSize)) << "the rest is served";
  EXPECT_TRUE(Read(2, 7, 520 * kBlockSize, kBlockSize).has_value());
  Recover(7);
  EXPECT_TRUE(lost_.empty());
  ExpectWhole(7);
  for (size_t i : all_) EXPECT_FALSE(Freeze(i, 7)) << "healed";
  EXPECT_EQ(Metric(0, "shoal_chunkserver_healed_blocks_total"), 1u) << "one block, not a copy";
}

TEST_F(HealTest, WhatIsHealedSurvivesAPowerCut) {
  Fill(7);
  for (uint32_t i = 0; i < 3; ++i) Damage(i, 7, i);
  for (size_t i : all_) EXPECT_FALSE(Verify(i, 7));
  Recover(7);
  for (size_t i : all_) {
    StopMember(i);
    members_[i].files->PowerCut();
    StartMember(i);
    WaitRegistered(i);
  }
  ExpectWhole(7);
}

// Nobody knew of it before the members were levelled.
TEST_F(HealTest, ASourceThatIsDamagedItselfIsStoodInFor) {
  Fill(7);
  StopMember(2);
  Damage(2, 7, 5);
  StartMember(2);
  WaitRegistered(2);
  Damage(0, 7, 5);
  for (size_t i : all_) EXPECT_FALSE(Freeze(i, 7));
  ASSERT_TRUE(Raise(0, 7, -1).has_value());
  auto levelled = Raise(2, 7, 0);
  ASSERT_TRUE(levelled.has_value()) << levelled.error().message;
  ASSERT_TRUE(Raise(1, 7, 0).has_value());
  ++version_;
  EXPECT_TRUE(Verify(2, 7));
  EXPECT_EQ(*Read(2, 7, 0, 10 * kBlockSize), bytes_.substr(0, 10 * kBlockSize));
  Await([&] { return meta_->bad_reports().size() == 1; });
  EXPECT_EQ(meta_->bad_reports()[0].replica().instance(), 100u);
  Recover(7);
  ExpectWhole(7);
}

TEST_F(HealTest, ACopyOfThreeDamagedReplicasIsWhole) {
  Fill(7);
  for (uint32_t i = 0; i < 3; ++i) Damage(i, 7, 10 + i);
  auto copy = CopyTo3(7);
  ASSERT_TRUE(copy.has_value()) << copy.error().message;
  EXPECT_TRUE(*copy == bytes_);
}

TEST_F(HealTest, ACopyTakesTheTableOfAnotherToo) {
  Fill(7);
  DestroyTablePage(0, 7, 1);
  Damage(1, 7, 10);
  Damage(2, 7, 520);
  auto copy = CopyTo3(7);
  ASSERT_TRUE(copy.has_value()) << copy.error().message;
  EXPECT_TRUE(*copy == bytes_);
}

// What is good nowhere stays unreadable, and costs nothing else.
TEST_F(HealTest, ABlockThatIsGoodNowhere) {
  Fill(7);
  for (size_t i : all_) Damage(i, 7, 9);
  Damage(1, 7, 20);
  EXPECT_EQ(CopyTo3(7).error().code, ErrorCode::kChainFailed);
  for (size_t i : all_) EXPECT_FALSE(Verify(i, 7));
  for (size_t i : all_) EXPECT_TRUE(Freeze(i, 7));
  auto refused = Raise(0, 7, -1);
  ASSERT_FALSE(refused.has_value()) << "somebody who is away may have it";
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(*Read(0, 7, 0, kBlockSize), bytes_.substr(0, kBlockSize)) << "the version is the one of before";
  Recover(7, true);
  EXPECT_EQ(lost_, (std::vector<uint32_t>{9}));
  for (size_t i : all_) {
    EXPECT_FALSE(Verify(i, 7));
    EXPECT_FALSE(Read(i, 7, 9 * kBlockSize, kBlockSize).has_value());
    EXPECT_EQ(*Read(i, 7, 10 * kBlockSize, 100 * kBlockSize), bytes_.substr(10 * kBlockSize, 100 * kBlockSize));
  }
  // Written elsewhere it goes on, and a write of the whole block makes it good.
  ASSERT_TRUE(Write(all_, 7, 100, "more").has_value());
  bytes_.replace(100, 4, "more");
  std::string block = RandomBytes(kBlockSize, 1);
  ASSERT_TRUE(Write(all_, 7, 9 * kBlockSize, block).has_value());
  bytes_.replace(9 * kBlockSize, kBlockSize, block);
  lost_.clear();
  Recover(7);
  ExpectWhole(7);
}

TEST_F(HealTest, AWriteIntoADamagedBlockGoesOnAfterTheRecovery) {
  Fill(7);
  for (uint32_t i = 0; i < 3; ++i) Damage(i, 7, 30 + i);
  pb::WriteChunkRequest write = WriteRequest(all_, 7, 31 * kBlockSize + 5, "in the middle");
  EXPECT_FALSE(Send(0, write, "in the middle").has_value());
  Recover(7);
  write.set_version(version_);
  Status again = Send(0, write, "in the middle");
  ASSERT_TRUE(again.has_value()) << again.error().message;
  bytes_.replace(31 * kBlockSize + 5, 13, "in the middle");
  for (size_t i : all_) Verify(i, 7);
  Recover(7);
  ExpectWhole(7);
}

// A power cut may have taken writes from it that were acknowledged: what it has is only right if it is what is missing.
TEST_F(HealTest, AnOlderBlockOfASuspectIsNotTaken) {
  Fill(7);
  std::string block = RandomBytes(kBlockSize, 1);
  ASSERT_TRUE(Write({0}, 7, 9 * kBlockSize, block).has_value());  // as if the others had lost it
  Damage(0, 7, 9);
  Damage(0, 7, 10);
  EXPECT_FALSE(Verify(0, 7));
  sure_ = 0;
  for (size_t i : all_) Freeze(i, 7);
  auto raised = Raise(0, 7, -1, true);
  ASSERT_TRUE(raised.has_value()) << raised.error().message;
  ASSERT_EQ(raised->lost_blocks_size(), 1);
  EXPECT_EQ(raised->lost_blocks(0), 9u);
}

TEST_F(HealTest, AFlippedBitInHeaderOrTableIsMendedAtOnce) {
  uint64_t chunk = 0;
  for (uint64_t offset : {uint64_t{30}, uint64_t{41}, uint64_t{504}, uint64_t{3000}, kTableOffset + 8 * 5, kTableOffset + 4090,
                          TablePageOffset(1) + 8 * 300}) {
    SCOPED_TRACE(offset);
    Fill(++chunk);
    for (size_t i : all_) members_[i].files->FlipBit(PathOf(i, chunk), offset + (offset >= kTableOffset ? i : 0));
    if (chunk % 2) {  // also while the server is down
      StopMember(0);
      StartMember(0);
      WaitRegistered(0);
    }
    for (size_t i : all_) {
      auto read = Read(i, chunk, 0, kSize);
      ASSERT_TRUE(read.has_value()) << i << ": " << read.error().message;
      EXPECT_TRUE(*read == bytes_);
    }
    // And it is told.
    for (size_t i : all_) EXPECT_TRUE(Freeze(i, chunk)) << i;
    uint32_t before = version_;
    Recover(chunk);
    ExpectWhole(chunk);
    version_ = before;
  }
}

}  // namespace
}  // namespace shoal
