// Scrubbing: asked for by the metaserver, and by itself.
#include "chunkserver/layout.h"
#include "chunkserver/scrubber.h"
#include "common/proto/check.pb.h"
#include "tests/unit/chunkserver/cluster.h"

namespace shoal {
namespace {

using test::Await;
using test::RandomBytes;

constexpr uint64_t kFast = 1ull << 40;

class ScrubTest : public test::ClusterTest {
 protected:
  explicit ScrubTest(int members = 1) : ClusterTest(members) {}
  Result<pb::ScrubReplicaResponse> Scrub(size_t member, uint64_t chunk, bool table_only = false) {
    pb::ScrubReplicaRequest request;
    request.set_chunk(chunk);
    request.set_version(version_);
    request.set_instance(100 + member);
    request.set_table_only(table_only);
    auto answer = Order<pb::ScrubReplicaResponse>(member, pb::SCRUB_REPLICA, request);
    if (!answer) return Fail(answer.error());
    return answer->message;
  }
  void Restart() {
    StopMember(0);
    StartMember(0);
    WaitRegistered(0);
  }
  test::FakeFiles& files() { return *members_[0].files; }
};

class ChainScrubTest : public ScrubTest {
 protected:
  ChainScrubTest() : ScrubTest(3) {}
};

TEST_F(ScrubTest, AGoodReplicaIsReadOnlyWhereSomethingIsWritten) {
  ASSERT_TRUE(Write({0}, 7, 5 << 20, RandomBytes(10 * kBlockSize, 1)).has_value());
  ASSERT_TRUE(Write({0}, 7, 60 << 20, RandomBytes(kBlockSize, 2), false).has_value());
  auto scrub = Scrub(0, 7);
  ASSERT_TRUE(scrub) << ToString(scrub.error());
  EXPECT_EQ(scrub->bytes(), 11u * kBlockSize);
  EXPECT_EQ(scrub->applied(), 2u);
  EXPECT_TRUE(scrub->known());
  EXPECT_EQ(Scrub(0, 7, true)->bytes(), 0u);
  EXPECT_EQ(Scrub(0, 8).error().code, ErrorCode::kNoReplica);
  version_ = 2;
  EXPECT_EQ(Scrub(0, 7).error().code, ErrorCode::kVersionMismatch);
  EXPECT_TRUE(meta_->bad_reports().empty());
}

TEST_F(ScrubTest, OnlyTheMetaserverMayAsk) {
  pb::ScrubReplicaRequest request;
  request.set_chunk(7);
  auto answer = Call<pb::ScrubReplicaResponse>(0, pb::SCRUB_REPLICA, request);
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().code, ErrorCode::kNotPermitted);
}

TEST_F(ChainScrubTest, DigestsAreOfTheContent) {
  ASSERT_TRUE(Write({0, 1, 2}, 7, 100, RandomBytes(100000, 1)).has_value());
  uint64_t digest = Scrub(0, 7)->digest();
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_EQ(Scrub(i, 7)->digest(), digest);
    EXPECT_EQ(Scrub(i, 7)->numbering(), Scrub(0, 7)->numbering());
  }
  ASSERT_TRUE(Write({0, 1, 2}, 7, 100, "x", false).has_value());
  EXPECT_NE(Scrub(0, 7)->digest(), digest);
  EXPECT_EQ(Scrub(2, 7)->digest(), Scrub(0, 7)->digest());
}

TEST_F(ScrubTest, EveryKindOfDamageIsFoundAndReported) {
  const std::vector<std::pair<std::string, std::function<void(uint64_t)>>> damages = {
      {"data", [&](uint64_t chunk) { files().FlipBit(PathOf(0, chunk), kDataOffset + 70000); }},
      {"table", [&](uint64_t chunk) { files().FlipBit(PathOf(0, chunk), kTableOffset + 9); }},
      {"header", [&](uint64_t chunk) { files().FlipBit(PathOf(0, chunk), 33); }},
      {"cut off",
       [&](uint64_t chunk) {
         auto file = files().Open(PathOf(0, chunk), Files::Mode::kReadWrite);
         ASSERT_TRUE(file && (*file)->Truncate(kDataOffset + 100000));
       }},
      {"deleted", [&](uint64_t chunk) { ASSERT_TRUE(files().Unlink(PathOf(0, chunk))); }},
      {"swapped", [&](uint64_t chunk) {
         ASSERT_TRUE(Write({0}, chunk + 256, 0, RandomBytes(100000, chunk), true, true).has_value());
         ASSERT_TRUE(files().Rename(PathOf(0, chunk + 256), PathOf(0, chunk)));
       }}};
  for (bool restart : {false, true}) {
    uint64_t chunk = restart ? 20 : 10;
    size_t reports = meta_->bad_reports().size();
    for (const auto& [name, damage] : damages) {
      ++chunk;
      ASSERT_TRUE(Write({0}, chunk, 0, RandomBytes(100000, chunk), true, true).has_value()) << name;
      if (restart) Restart();
      damage(chunk);
      auto scrub = Scrub(0, chunk);
      // A header that its checksum proves is put right when the file is opened.
      EXPECT_EQ(scrub.has_value(), restart && name == "header") << name;
      if (!scrub) {
        EXPECT_EQ(scrub.error().code, name == "deleted" ? ErrorCode::kNoReplica : ErrorCode::kCorrupt) << name;
      }
      ++reports;
      Await([&] {
        for (const auto& report : meta_->bad_reports()) {
          if (report.replica().chunk() == chunk) return true;
        }
        return false;
      });
    }
  }
}

TEST_F(ScrubTest, ByItselfItReadsEverythingAndReportsWhatIsBad) {
  for (uint64_t chunk = 1; chunk <= 200; ++chunk) {
    ASSERT_TRUE(Write({0}, chunk * 3, 0, RandomBytes(kBlockSize, chunk), true, chunk == 200).has_value());
  }
  files().FlipBit(PathOf(0, 300), kDataOffset + 5);
  scrub_rate_ = kFast;
  Restart();
  Await([&] { return members_[0].server->scrubs()[0].last_ended > 0; });
  test::ScrubbedSet seen = meta_->scrubbed();
  EXPECT_EQ(seen.size(), 199u);
  EXPECT_EQ(seen.count(3), 1u);
  EXPECT_EQ(seen.count(300), 0u);
  Await([&] { return meta_->bad_reports().size() >= 1; });
  EXPECT_EQ(members_[0].server->scrubs()[0].last_errors, 1u);
  EXPECT_EQ(Metric(0, "shoal_chunkserver_scrub_errors_total"), 1u);
  EXPECT_EQ(Metric(0, "shoal_chunkserver_scrubbed_replicas_total"), 199u);
  EXPECT_EQ(Metric(0, "shoal_chunkserver_scrubbed_bytes_total"), 199u * kBlockSize);
  // Not again before its time, also after a restart.
  Restart();
  uint64_t beats = meta_->heartbeats;
  Await([&] { return meta_->heartbeats > beats + 10; });
  EXPECT_EQ(meta_->scrubbed().size(), 199u);
  EXPECT_FALSE(members_[0].server->scrubs()[0].running);
}

TEST_F(ScrubTest, ItGoesOnWhereItWas) {
  for (uint64_t chunk = 1; chunk <= 5; ++chunk) {
    ASSERT_TRUE(Write({0}, chunk, 0, RandomBytes(kBlockSize, chunk), true, true).has_value());
  }
  ScrubPosition position;
  position.chunk = ChunkId{3};
  position.instance = InstanceId{100};
  position.pass_started_ns = 77;
  position.errors = 4;
  StopMember(0);
  ASSERT_TRUE(ReplaceFile(files(), "/data", "scrub", position.Encode()));
  scrub_rate_ = kFast;
  StartMember(0);
  WaitRegistered(0);
  Await([&] { return members_[0].server->scrubs()[0].last_ended > 0; });
  EXPECT_EQ(meta_->scrubbed(), (test::ScrubbedSet{4, 5}));
  EXPECT_EQ(members_[0].server->scrubs()[0].last_errors, 4u);
  // One that can't be read is no reason to stop.
  StopMember(0);
  ASSERT_TRUE(ReplaceFile(files(), "/data", "scrub", "what?"));
  StartMember(0);
  WaitRegistered(0);
  Await([&] { return meta_->scrubbed().size() == 7; });
}

TEST_F(ScrubTest, FilesThatAreNoReplicasAreCountedAndLeftAlone) {
  ASSERT_TRUE(Write({0}, 5, 0, "abc", true, true).has_value());
  StopMember(0);
  ASSERT_TRUE(ReplaceFile(files(), "/data/chunks/05", "strange", "x"));
  scrub_rate_ = kFast;
  StartMember(0);
  WaitRegistered(0);
  Await([&] { return members_[0].server->scrubs()[0].last_ended > 0; });
  EXPECT_EQ(members_[0].server->scrubs()[0].orphans, 1u);
  EXPECT_EQ(files().Content("/data/chunks/05/strange", 0, 1), "x");
}

TEST_F(ScrubTest, WritesGoOnWhileItReads) {
  scrub_rate_ = kFast;
  scrub_every_ = 0s;  // one pass after the other
  Restart();
  std::string expected(1 << 20, '\0');
  ASSERT_TRUE(Write({0}, 7, 0, expected).has_value());
  for (int i = 0; i < 300; ++i) {
    uint32_t at = static_cast<uint32_t>(i) * 3001;
    std::string bytes = RandomBytes(5000, static_cast<uint64_t>(i));
    ASSERT_TRUE(Write({0}, 7, at, bytes, false).has_value());
    expected.replace(at, bytes.size(), bytes);
  }
  size_t before = meta_->scrubbed().count(7);
  Await([&] { return meta_->scrubbed().count(7) > before; });
  EXPECT_EQ(*Read(0, 7, 0, 1 << 20), expected);
  EXPECT_TRUE(meta_->bad_reports().empty());
}

TEST(ScrubPositionTest, IsKeptAsText) {
  ScrubPosition position;
  position.chunk = ChunkId{0xfedcba9876543210};
  position.instance = InstanceId{15};
  position.pass_started_ns = 1;
  position.errors = 2;
  position.orphans = 3;
  position.last_started_ns = 4;
  position.last_ended_ns = 5;
  position.last_errors = 6;
  EXPECT_EQ(position.Encode(),
            "shoal scrub position\nformat 1\nposition fedcba9876543210 000000000000000f\npass 1 2 3\nlast 4 5 6\n");
  auto decoded = ScrubPosition::Decode(position.Encode());
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->Encode(), position.Encode());
  EXPECT_EQ(ScrubPosition::Decode("").error().code, ErrorCode::kCorrupt);
  std::string newer = position.Encode();
  newer.replace(newer.find("format 1"), 8, "format 2");
  EXPECT_EQ(ScrubPosition::Decode(newer).error().code, ErrorCode::kNotSupported);
}

}  // namespace
}  // namespace shoal
