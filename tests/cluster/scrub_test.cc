// `shoal scrub` finds what is wrong with copies at rest, and has it repaired; `shoal fsck` says what is safe and what
// is lost.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "chunkserver/replica_file.h"
#include "common/checksum.h"
#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

constexpr size_t kSize = 3 << 20;

// One block gets other bytes, and the checksum that belongs to them: the copy agrees with itself.
void Rewrite(const std::string& path, uint32_t block) {
  ChunkId chunk;
  InstanceId instance;
  ASSERT_TRUE(ParseReplicaFileName(std::filesystem::path(path).filename(), chunk, instance));
  auto file = RealFiles().Open(path, Files::Mode::kReadWrite);
  ASSERT_TRUE(file);
  Page bytes;
  bytes.fill(0x5a);
  TablePage table;
  std::span<uint8_t> table_bytes{reinterpret_cast<uint8_t*>(&table), sizeof table};
  ASSERT_TRUE((*file)->Read(TablePageOffset(TablePageOf(block)), table_bytes));
  table.entries[TableSlotOf(block)] = BlockChecksum(bytes.data(), bytes.size());
  table.Seal();
  ASSERT_TRUE((*file)->Write(kDataOffset + uint64_t{block} * kBlockSize, bytes));
  ASSERT_TRUE((*file)->Write(TablePageOffset(TablePageOf(block)), table_bytes));
}

class ScrubTest : public testing::Test {
 protected:
  void SetUp() override {
    cluster_ = Cluster::Start();
    ASSERT_NE(cluster_, nullptr);
  }
  std::string NewFile(const std::string& name, size_t size = kSize) {
    std::string sum = WritePattern(cluster_->Path(name), size, size + name.size());
    EXPECT_NE(sum, "") << name;
    EXPECT_EQ(cluster_->ReplicaFiles(cluster_->Path(name)).size(), 3u) << name;
    return sum;
  }
  std::vector<std::string> Files(const std::string& name) { return cluster_->ReplicaFiles(cluster_->Path(name)); }
  // Nobody has the files open any more, and nothing is in memory.
  void Cold() { cluster_->Remount(); }
  Outcome Fsck(const std::string& path = "") {
    return cluster_->Shoal(path.empty() ? std::vector<std::string>{"fsck", "--json"}
                                        : std::vector<std::string>{"fsck", path, "--json"});
  }
  static size_t CountOf(const nlohmann::json& scrub, const std::string& name, const std::string& what) {
    size_t n = 0;
    for (const auto& f : scrub["findings"]) {
      n += f["what"] == what && f["path"].get<std::string>().ends_with("/" + name);
    }
    return n;
  }

  std::unique_ptr<Cluster> cluster_;
};

TEST_F(ScrubTest, DamageAtRestIsFoundAndRepaired) {
  std::vector<std::pair<std::string, std::string>> sums;
  for (const char* name : {"data", "table", "header", "deleted", "cut", "swapped-1", "swapped-2", "differs", "good"}) {
    sums.emplace_back(name, NewFile(name));
  }
  Cold();
  Outcome clean = cluster_->Shoal({"scrub"});
  ASSERT_EQ(clean.exit, 0) << clean.Text();
  ASSERT_EQ(Fsck().exit, 0) << Fsck().Text();
  FlipBit(Files("data")[0], (256 << 10) + 1234567);
  FlipBit(Files("table")[1], (12 << 10) + 100);
  FlipBit(Files("header")[2], 33);
  ASSERT_EQ(unlink(Files("deleted")[0].c_str()), 0);
  ASSERT_EQ(truncate(Files("cut")[1].c_str(), 1 << 20), 0);
  std::string first = Files("swapped-1")[0], directory = std::filesystem::path(first).parent_path().parent_path(),
              second;
  for (const std::string& file : Files("swapped-2")) {
    if (file.starts_with(directory)) second = file;
  }
  ASSERT_NE(second, "");
  ASSERT_EQ(renameat2(AT_FDCWD, first.c_str(), AT_FDCWD, second.c_str(), RENAME_EXCHANGE), 0);
  Rewrite(Files("differs")[2], 17);

  nlohmann::json scrub = cluster_->Json({"scrub", cluster_->mount()});
  EXPECT_EQ(CountOf(scrub, "data", "bad"), 1u);
  EXPECT_EQ(CountOf(scrub, "table", "bad"), 1u);
  EXPECT_EQ(CountOf(scrub, "header", "bad"), 1u);
  EXPECT_EQ(CountOf(scrub, "deleted", "missing"), 1u);
  EXPECT_EQ(CountOf(scrub, "cut", "bad"), 1u);
  EXPECT_EQ(CountOf(scrub, "swapped-1", "bad"), 1u);
  EXPECT_EQ(CountOf(scrub, "swapped-2", "bad"), 1u);
  EXPECT_EQ(CountOf(scrub, "differs", "different"), 1u);
  EXPECT_EQ(scrub["problems"], 8) << scrub.dump(2);
  EXPECT_EQ(scrub["repaired"], 8) << scrub.dump(2);
  EXPECT_EQ(scrub["clean"], false);
  EXPECT_EQ(cluster_->Metric("metaserver", "shoal_metaserver_differing_chunks_total"), 1);

  EXPECT_TRUE(Eventually([&] { return Fsck().exit == 0; }, Milliseconds(60000))) << Fsck().Text();
  Cold();
  for (const auto& [name, sum] : sums) EXPECT_EQ(Sha256OfFile(cluster_->Path(name)), sum) << name;
  Outcome again = cluster_->Shoal({"scrub", "shoal:/", "--json", "--progress"});
  EXPECT_EQ(again.exit, 0) << again.Text();
  std::string last = again.out.substr(again.out.rfind('\n', again.out.size() - 2) + 1);
  nlohmann::json done = nlohmann::json::parse(last, nullptr, false);
  ASSERT_TRUE(done.is_object()) << again.Text();
  EXPECT_EQ(done["event"], "done");
  EXPECT_EQ(done["schema"], "shoal.scrub/1");
  EXPECT_EQ(done["clean"], true);
  EXPECT_EQ(done["replicas_good"], 27);
}

TEST_F(ScrubTest, WhatIsLostIsCalledLost) {
  const std::string odd = "odd \xff name";
  NewFile("kept");
  ASSERT_EQ(Shell("mkdir " + cluster_->Path("sub")).exit, 0);
  NewFile("sub/" + odd, (64 << 20) + kSize);  // its first chunk is going to be lost
  Cold();
  // A server that has a deleted file open may still save it: it is copied from there.
  for (const std::string& server : cluster_->Chunkservers()) cluster_->Kill(server);
  cluster_->StartMissing();
  for (const std::string& file : Files("sub/" + odd)) ASSERT_EQ(unlink(file.c_str()), 0);
  nlohmann::json scrub = cluster_->Json({"scrub", cluster_->mount(), "--wait", "0"});
  EXPECT_EQ(scrub["problems"], 3) << scrub.dump(2);
  Outcome outcome;
  ASSERT_TRUE(Eventually([&] {
    outcome = Fsck(cluster_->mount());
    return outcome.exit == 1;
  })) << outcome.Text();
  nlohmann::json fsck = nlohmann::json::parse(outcome.out, nullptr, false);
  ASSERT_TRUE(fsck.is_object()) << outcome.Text();
  EXPECT_EQ(fsck["files_by_state"]["lost"], 1) << fsck.dump(2);
  EXPECT_EQ(fsck["files_by_state"]["safe"], 1);
  ASSERT_EQ(fsck["not_safe"].size(), 1u);
  EXPECT_EQ(fsck["not_safe"][0]["state"], "lost");
  EXPECT_TRUE(fsck["not_safe"][0].contains("path_b64")) << fsck.dump(2);
  ASSERT_EQ(fsck["not_safe"][0]["ranges"].size(), 1u);
  EXPECT_EQ(fsck["not_safe"][0]["ranges"][0]["offset_bytes"], 0);
  EXPECT_EQ(fsck["not_safe"][0]["ranges"][0]["length_bytes"], 64 << 20);
  Outcome text = cluster_->Shoal({"fsck", cluster_->Path("sub")});
  EXPECT_EQ(text.exit, 1);
  EXPECT_NE(text.out.find("/sub/odd \\xff name  bytes 0-67108863"), std::string::npos) << text.Text();
  EXPECT_EQ(cluster_->Shoal({"fsck", cluster_->Path("kept")}).exit, 0);

  nlohmann::json status = cluster_->Json({"status"});
  EXPECT_EQ(status["chunks_lost"], 1) << status.dump(2);
  EXPECT_EQ(status["files_lost"], 1);
  EXPECT_EQ(status["chunks_short"], 0);
  EXPECT_TRUE(Eventually([&] {
    status = cluster_->Json({"status"});
    return status["troubled_files"].size() == 1 && status["troubled_files"][0].contains("path_b64");
  })) << status.dump(2);
  EXPECT_TRUE(Eventually([&] { return cluster_->Http("metaserver", "/healthz").find(" 503 ") != std::string::npos; }));
  nlohmann::json stat = cluster_->Json({"stat", cluster_->Path("sub/" + odd)});
  ASSERT_EQ(stat["chunks"].size(), 2u);
  EXPECT_EQ(stat["chunks"][0]["state"], "lost") << stat.dump(2);
  EXPECT_EQ(stat["chunks"][1]["state"], "safe");
  for (const auto& replica : stat["chunks"][0]["replicas"]) EXPECT_EQ(replica["state"], "bad");
  // Without the file all is well again.
  ASSERT_EQ(unlink(cluster_->Path("sub/" + odd).c_str()), 0);
  EXPECT_TRUE(Eventually([&] { return cluster_->Http("metaserver", "/healthz").find(" 200 ") != std::string::npos; }));
  EXPECT_EQ(Fsck().exit, 0) << Fsck().Text();
}

TEST_F(ScrubTest, WhatIsAwayIsUnavailable) {
  NewFile("file");
  Cold();
  cluster_->Kill("chunkserver-1");
  ASSERT_TRUE(Eventually([&] { return Fsck().exit == 4; })) << Fsck().Text();
  cluster_->Kill("chunkserver-2");
  cluster_->Kill("chunkserver-3");
  nlohmann::json fsck;
  ASSERT_TRUE(Eventually([&] {
    Outcome outcome = Fsck();
    fsck = nlohmann::json::parse(outcome.out, nullptr, false);
    return outcome.exit == 1 && fsck.is_object() && fsck["files_by_state"]["unavailable"] == 1;
  })) << fsck.dump(2);
  EXPECT_EQ(fsck["files_by_state"]["lost"], 0);
  nlohmann::json stat = cluster_->Json({"stat", "shoal:/file"});
  EXPECT_EQ(stat["chunks"][0]["state"], "unavailable") << stat.dump(2);
  EXPECT_EQ(stat["chunks"][0]["replicas"][0]["state"], "away");
  cluster_->StartMissing();
  EXPECT_TRUE(Eventually([&] { return Fsck().exit == 0; }, Milliseconds(60000))) << Fsck().Text();
}

}  // namespace
}  // namespace shoal::test
