// Bits flip in replica files on the disk: readers get the right bytes, and everybody is told.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

constexpr size_t kSize = 3 << 20;

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
  static void FlipBit(const std::string& path, off_t at) {
    int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0) << path;
    unsigned char byte = 0;
    ASSERT_EQ(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
    close(fd);
  }
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
  auto found = [&] { return Sum("shoal_chunkserver_corrupt_blocks_total") >= corrupt + 2; };
  for (int mounts = 0; mounts < 50 && !found(); ++mounts) {
    cluster_->Remount();
    for (size_t good = 0; good < 3; ++good) ReadFile(cluster_->Path(std::string(part) + "-" + std::to_string(good)));
  }
  EXPECT_TRUE(Eventually(found))
      << "counted " << Sum("shoal_chunkserver_corrupt_blocks_total") - corrupt;
  EXPECT_TRUE(Eventually([&] { return Reported() >= reported + 2; })) << Reported() << " after " << reported;
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

}  // namespace
}  // namespace shoal::test
