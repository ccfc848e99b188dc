// Bits flip in replica files on the disk: readers get the right bytes, and everybody is told.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "chunkserver/layout.h"
#include "common/checksum.h"
#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

constexpr size_t kSize = 3 << 20;

// "" when header, table and all blocks of a replica file match their checksums; else what does not.
std::string Damage(const std::string& path) {
  std::string bytes = ReadFile(path);
  if (bytes.size() != kReplicaFileSize) return "its size is " + std::to_string(bytes.size());
  Page header;
  memcpy(header.data(), bytes.data(), header.size());
  if (!ReplicaHeader::Decode(header)) return "the header";
  for (uint32_t p = 0; p < kTablePages; ++p) {
    TablePage page;
    memcpy(&page, bytes.data() + TablePageOffset(p), sizeof page);
    if (!page.Valid()) return "page " + std::to_string(p) + " of the table";
    for (uint32_t b = p * kEntriesPerPage; b < FirstBlockAfter(p); ++b) {
      uint64_t entry = page.entries[TableSlotOf(b)];
      if (entry != 0 && entry != BlockChecksum(bytes.data() + kDataOffset + b * kBlockSize, kBlockSize)) {
        return "block " + std::to_string(b);
      }
    }
  }
  return {};
}

// One cluster for all parts of a replica file. Where the parts are stands in docs/formats.md.
class Integrity : public testing::TestWithParam<std::pair<const char*, off_t>> {
 protected:
  static void SetUpTestSuite() { cluster_ = Cluster::Start().release(); }
  static void TearDownTestSuite() { delete cluster_; }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }

  static double Sum(const std::string& metric) {
    double sum = 0;
    for (const std::string& server : cluster_->Chunkservers()) sum += cluster_->Metric(server, metric);
    return sum;
  }
  static uint64_t Reported() { return cluster_->Json({"status"}).value("bad_replicas_reported_total", uint64_t{0}); }
  static Cluster* cluster_;
};
Cluster* Integrity::cluster_ = nullptr;

TEST_P(Integrity, FlippedBitIsNeverRead) {
  auto [part, offset] = GetParam();
  double corrupt = Sum("shoal_chunkserver_corrupt_blocks_total");
  uint64_t reported = Reported();
  // One copy of three stays good. Which copy is read is chance, another one for each mount.
  for (size_t good = 0; good < 3; ++good) {
    std::string path = cluster_->Path(std::string(part) + "-" + std::to_string(good));
    std::string sum = WritePattern(path, kSize, good + 7);
    ASSERT_NE(sum, "");
    std::vector<std::string> files = cluster_->ReplicaFiles(path);
    ASSERT_EQ(files.size(), 3u) << cluster_->Json({"stat", path}).dump(2);
    for (size_t copy = 0; copy < 3; ++copy) {
      if (copy != good) FlipBit(files[copy], offset);
    }
    cluster_->Remount();  // so that nothing is read from memory
    EXPECT_EQ(Sha256OfFile(path), sum) << part << ", good copy " << good;
    EXPECT_EQ(Sha256OfFile(path), sum);
  }
  auto found = [&] {
    return Sum("shoal_chunkserver_corrupt_blocks_total") >= corrupt + 2 && Reported() >= reported + 2;
  };
  for (int mounts = 0; mounts < 50 && !found(); ++mounts) {
    cluster_->Remount();
    for (size_t good = 0; good < 3; ++good) ReadFile(cluster_->Path(std::string(part) + "-" + std::to_string(good)));
  }
  EXPECT_TRUE(Eventually(found))
      << "counted " << Sum("shoal_chunkserver_corrupt_blocks_total") - corrupt << ", " << Reported() << " reported after "
      << reported;
  std::string logs;
  for (const std::string& server : cluster_->Chunkservers()) logs += cluster_->Log(server);
  EXPECT_NE(logs.find("checksum"), std::string::npos) << "nothing about it in the chunkservers' logs";
  // Bad copies that were found are made anew from good ones.
  EXPECT_TRUE(Eventually([&] { return cluster_->Shortage().empty(); }, Milliseconds(60000))) << cluster_->Shortage();
}

INSTANTIATE_TEST_SUITE_P(Parts, Integrity,
                         testing::Values(std::pair{"data", off_t{256 << 10} + 1234567}, std::pair{"table", off_t{12 << 10} + 100},
                                         std::pair{"header", off_t{33}}),
                         [](const auto& info) { return std::string(info.param.first); });

// Every copy of a chunk is damaged, each at another place: nothing is lost, and later all of them are whole.
class DamagedEverywhere : public testing::Test {
 protected:
  static void SetUpTestSuite() { cluster_ = Cluster::Start().release(); }
  static void TearDownTestSuite() { delete cluster_; }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }

  void Make(const std::string& name) {
    path_ = cluster_->Path(name);
    sum_ = WritePattern(path_, kSize, name.size());
    ASSERT_NE(sum_, "");
    files_ = cluster_->ReplicaFiles(path_);
    ASSERT_EQ(files_.size(), 3u) << cluster_->Json({"stat", path_}).dump(2);
  }
  // Until there are three whole ones; reads are right all the time. Which copy is read is chance, another for each mount.
  void ExpectHealed() {
    std::string wrong = "not looked at";
    auto healed = [&] {
      EXPECT_EQ(Sha256OfFile(path_), sum_);
      wrong = cluster_->Shortage(path_, 3);
      std::vector<std::string> files = cluster_->ReplicaFiles(path_);
      if (files.size() != 3) wrong += std::to_string(files.size()) + " files";
      for (const std::string& file : files) {
        std::string damage = Damage(file);
        if (!damage.empty()) wrong += file + ": " + damage + "\n";
      }
      if (wrong.empty()) return true;
      cluster_->Remount();
      return false;
    };
    EXPECT_TRUE(Eventually(healed, Milliseconds(120000))) << wrong;
    EXPECT_EQ(Sha256OfFile(path_), sum_);
    EXPECT_TRUE(cluster_->Shortage().empty()) << cluster_->Shortage();
  }
  void Overwrite(off_t at, const std::string& text) {
    int fd = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(pwrite(fd, text.data(), text.size(), at), static_cast<ssize_t>(text.size())) << strerror(errno);
    EXPECT_EQ(fsync(fd), 0) << strerror(errno);
    EXPECT_EQ(close(fd), 0);
  }

  static Cluster* cluster_;
  std::string path_, sum_;
  std::vector<std::string> files_;
};
Cluster* DamagedEverywhere::cluster_ = nullptr;

TEST_F(DamagedEverywhere, AtDifferentBlocks) {
  Make("blocks");
  for (off_t i = 0; i < 3; ++i) FlipBit(files_[i], kDataOffset + (100 + i) * kBlockSize + 5);
  cluster_->Remount();  // so that nothing is read from memory
  ExpectHealed();
}

TEST_F(DamagedEverywhere, InDataTableAndHeader) {
  Make("parts of it");
  FlipBit(files_[0], kDataOffset + 1234567);
  FlipBit(files_[1], kTableOffset + 100);
  FlipBit(files_[2], 33);
  cluster_->Remount();
  ExpectHealed();
}

TEST_F(DamagedEverywhere, TwoOfThemAndTheThirdIsDeleted) {
  Make("two and none");
  FlipBit(files_[0], kDataOffset + 10 * kBlockSize);
  FlipBit(files_[1], kDataOffset + 700 * kBlockSize);
  std::string content = ReadFile(path_);
  std::string server = files_[2].substr(cluster_->dir().size() + 1);
  server = server.substr(0, server.find('/'));
  cluster_->Kill(server);
  ASSERT_TRUE(std::filesystem::remove(files_[2]));
  cluster_->StartMissing();
  cluster_->Remount();
  EXPECT_EQ(Sha256OfFile(path_), sum_);
  ASSERT_NO_FATAL_FAILURE(Overwrite(10 * kBlockSize + 100, "written over"));
  content.replace(10 * kBlockSize + 100, 12, "written over");
  EXPECT_TRUE(ReadFile(path_) == content);
  sum_ = Sha256OfFile(path_);
  ExpectHealed();
}

// Parts of blocks, each of which is damaged in one of the copies.
TEST_F(DamagedEverywhere, AndIsWritten) {
  Make("written");
  std::string content = ReadFile(path_);
  for (off_t i = 0; i < 3; ++i) FlipBit(files_[i], kDataOffset + (300 + i) * kBlockSize + 5);
  cluster_->Remount();
  for (off_t i = 0; i < 3; ++i) {
    std::string text = "written over " + std::to_string(i);
    ASSERT_NO_FATAL_FAILURE(Overwrite((300 + i) * kBlockSize + 1000, text));
    content.replace((300 + i) * kBlockSize + 1000, text.size(), text);
  }
  EXPECT_TRUE(ReadFile(path_) == content);
  sum_ = Sha256OfFile(path_);
  cluster_->Remount();
  EXPECT_TRUE(ReadFile(path_) == content);
  ExpectHealed();
}

}  // namespace
}  // namespace shoal::test
