// Servers are killed and frozen under a reader and a program that unpacks a tree: no error reaches either.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/cluster/load.h"

namespace shoal::test {
namespace {

constexpr size_t kLarge = 160 << 20;
constexpr int kTreeFiles = 1500;

// A cluster with a reader and an unpacker at work in its mount.
class Failover : public testing::Test {
 protected:
  void SetUp() override {
    MakeTree(local_.path() + "/tree", kTreeFiles);
    ASSERT_EQ(Shell("tar cf " + archive_ + " -C " + local_.path() + " tree").exit, 0);
    cluster_ = Cluster::Start();
    ASSERT_NE(cluster_, nullptr);
    ASSERT_EQ(mkdir(cluster_->Path("unpacked").c_str(), 0755), 0);
    reader_ = std::make_unique<Reader>(cluster_->Path("large"), kLarge);
    unpacker_ = std::make_unique<Unpacker>(archive_, cluster_->Path("unpacked"));
  }
  void StartWork() {
    reader_->Start();
    unpacker_->Start();
    ASSERT_TRUE(AwaitWork()) << "the work does not get going: " << Errors();
  }
  // Both go on: pieces are read, and files appear.
  bool AwaitWork() {
    size_t files = unpacker_->FilesSoFar();
    return reader_->Advance(200) &&
           Eventually([&] { return unpacker_->failed() || unpacker_->FilesSoFar() >= files + 150; }, Milliseconds(120000)) &&
           !unpacker_->failed();
  }
  std::string Errors() {
    return (reader_->failed() ? reader_->Stop() : "") + (unpacker_->failed() ? unpacker_->Stop() : "");
  }
  // Ends the work, and compares all that was unpacked with the original.
  void StopWorkAndCompare() {
    EXPECT_EQ(reader_->Stop(), "");
    EXPECT_EQ(unpacker_->Stop(), "");
    ASSERT_GE(unpacker_->rounds(), 1u);
    cluster_->Remount();
    for (uint64_t round = 0; round < unpacker_->rounds(); ++round) {
      Outcome same = Shell("diff -r --no-dereference " + local_.path() + "/tree " +
                           cluster_->Path("unpacked/round-" + std::to_string(round) + "/tree"), Milliseconds(300000));
      EXPECT_EQ(same.exit, 0) << same.Text().substr(0, 2000);
    }
  }

  TestDirectory local_;
  std::string archive_ = local_.path() + "/tree.tar";
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Reader> reader_;
  std::unique_ptr<Unpacker> unpacker_;
};

TEST_F(Failover, KilledChunkserver) {
  StartWork();
  cluster_->Kill("chunkserver-2");
  ASSERT_TRUE(AwaitWork()) << Errors();
  ASSERT_TRUE(AwaitWork()) << Errors();
  cluster_->StartMissing();
  ASSERT_TRUE(AwaitWork()) << Errors();
  StopWorkAndCompare();
  EXPECT_TRUE(Eventually([&] { return cluster_->Shortage().empty(); }, Milliseconds(120000))) << cluster_->Shortage();
}

TEST_F(Failover, FrozenChunkserver) {
  Writer writer(cluster_->Path("written"));
  StartWork();
  writer.Start();
  ASSERT_TRUE(writer.Advance(50)) << writer.Stop();
  reader_->ResetWorst();
  writer.ResetWorst();
  cluster_->Freeze("chunkserver-1");
  EXPECT_TRUE(AwaitWork()) << Errors();
  EXPECT_TRUE(writer.Advance(50)) << writer.Stop();
  // Until the metaserver has given the server up and everybody works without it.
  EXPECT_TRUE(Eventually([&] {
    nlohmann::json known = cluster_->Json({"servers"});
    for (const auto& server : known["servers"]) {
      if (server["name"] == "chunkserver-1" && server["state"] == "dead") return true;
    }
    return false;
  }, Milliseconds(30000)));
  EXPECT_TRUE(writer.Advance(50)) << writer.Stop();
  EXPECT_TRUE(AwaitWork()) << Errors();
  Milliseconds worst_read = reader_->worst(), worst_write = writer.worst();
  cluster_->Thaw("chunkserver-1");
  EXPECT_TRUE(AwaitWork()) << Errors();
  RecordProperty("worst_read_ms", static_cast<int>(worst_read.count()));
  RecordProperty("worst_write_ms", static_cast<int>(worst_write.count()));
  printf("worst read %ld ms, worst write %ld ms\n", static_cast<long>(worst_read.count()), static_cast<long>(worst_write.count()));
  EXPECT_LE(worst_read, Milliseconds(2000) * kSlowness);
  EXPECT_LE(worst_write, Milliseconds(8000) * kSlowness);
  EXPECT_EQ(writer.Stop(), "");
  StopWorkAndCompare();
  EXPECT_EQ(writer.Verify(), "");
  EXPECT_TRUE(Eventually([&] { return cluster_->Shortage().empty(); }, Milliseconds(120000))) << cluster_->Shortage();
}

TEST_F(Failover, KilledMetaserver) {
  Writer writer(cluster_->Path("written"));
  StartWork();
  writer.Start();
  ASSERT_TRUE(writer.Advance(50)) << writer.Stop();
  for (int i = 0; i < 2; ++i) {
    cluster_->Kill("metaserver");
    auto starting = cluster_->BeginStartMissing();
    ASSERT_TRUE(AwaitWork()) << Errors();
    ASSERT_TRUE(writer.Advance(20)) << writer.Stop();
    Outcome started = starting->Wait(Milliseconds(150000) * kSlowness);
    ASSERT_EQ(started.exit, 0) << started.Text();
  }
  printf("worst read %ld ms, worst write %ld ms\n", static_cast<long>(reader_->worst().count()), static_cast<long>(writer.worst().count()));
  EXPECT_LE(reader_->worst(), Milliseconds(10000) * kSlowness);
  EXPECT_LE(writer.worst(), Milliseconds(10000) * kSlowness);
  EXPECT_EQ(writer.Stop(), "");
  StopWorkAndCompare();
  EXPECT_EQ(writer.Verify(), "");
  EXPECT_EQ(cluster_->Shortage(), "");
}

}  // namespace
}  // namespace shoal::test
