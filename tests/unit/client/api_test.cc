// The public API against real servers in this process.
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <thread>

#include "shoal/file_system.h"
#include "tests/support/cluster.h"

namespace shoal {
namespace {

class ApiTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cluster_ = new testing::Cluster();
    std::string key = cluster_->dir() + "/key";
    std::ofstream(key) << Hex(ClusterKey::ForTest()) << "\n";
    ASSERT_EQ(chmod(key.c_str(), 0600), 0);
    config_ = cluster_->dir() + "/shoal.conf";
    std::ofstream(config_) << "# test\nmeta = " << cluster_->meta_address().ToString() << "\nkey = " << key << "\n";
  }
  static void TearDownTestSuite() {
    delete cluster_;
    cluster_ = nullptr;
  }
  static std::string Hex(const ClusterKey& key) {
    std::string text;
    char two[3];
    for (uint8_t byte : key.bytes) {
      std::snprintf(two, sizeof two, "%02x", byte);
      text += two;
    }
    return text;
  }
  static std::unique_ptr<FileSystem> Connect(ConnectOptions options = {}) {
    options.config_file = config_;
    auto fs = FileSystem::Connect(options);
    EXPECT_TRUE(fs) << fs.error().message;
    return fs ? std::move(*fs) : nullptr;
  }
  static testing::Cluster* cluster_;
  static std::string config_;
};
testing::Cluster* ApiTest::cluster_ = nullptr;
std::string ApiTest::config_;

TEST_F(ApiTest, PathsAndLinks) {
  auto fs = Connect();
  ASSERT_TRUE(fs->Mkdirs("/a/b/c"));
  ASSERT_TRUE(fs->Mkdirs("/a/b/c"));
  auto again = fs->Mkdir("/a");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().number, EEXIST);
  auto file = fs->Open("/a/b/c/f", OpenOptions::Write());
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_TRUE(file->Pwrite("hello", 0));
  EXPECT_EQ(*file->Size(), 5u);
  ASSERT_TRUE(file->Close());
  EXPECT_FALSE(file->is_open());
  EXPECT_EQ(file->Pwrite("x", 0).error().number, EBADF);
  ASSERT_TRUE(fs->Symlink("b/c/f", "/a/link"));
  ASSERT_TRUE(fs->Symlink("/a/b", "/a/absolute"));
  EXPECT_EQ(*fs->Readlink("/a/link"), "b/c/f");
  EXPECT_EQ(fs->Stat("/a/link")->size, 5u);
  EXPECT_EQ(fs->Lstat("/a/link")->type, FileType::kSymlink);
  EXPECT_EQ(fs->Stat("/a/absolute/c/../c/./f")->size, 5u);
  EXPECT_EQ(fs->Stat("/../../a/b/c/f")->size, 5u);
  ASSERT_TRUE(fs->Symlink("loop", "/a/loop"));
  EXPECT_EQ(fs->Stat("/a/loop").error().number, ELOOP);
  EXPECT_EQ(fs->Stat("/a/b/c/f/g").error().number, ENOTDIR);
  EXPECT_FALSE(*fs->Exists("/nothing"));
  ASSERT_TRUE(fs->Link("/a/b/c/f", "/a/hard"));
  EXPECT_EQ(fs->Stat("/a/hard")->links, 2u);
  auto refused = fs->Rename("/a/hard", "/a/b/c/f", false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().number, EEXIST);
  ASSERT_TRUE(fs->Rename("/a/hard", "/a/moved"));
  auto entries = fs->List("/a");
  ASSERT_TRUE(entries);
  EXPECT_EQ(entries->size(), 5u);
  EXPECT_EQ(fs->Remove("/a/b").error().number, ENOTEMPTY);
  ASSERT_TRUE(fs->Remove("/a/moved"));
  auto through_link = fs->Open("/a/link", OpenOptions::Append());
  ASSERT_TRUE(through_link) << through_link.error().message;
  ASSERT_TRUE(through_link->Append(" world"));
  ASSERT_TRUE(through_link->Close());
  EXPECT_EQ(fs->Stat("/a/b/c/f")->size, 11u);
  ConnectOptions below;
  below.root = "/a/b";
  auto sub = Connect(below);
  EXPECT_EQ(sub->Stat("c/f")->size, 11u);
  EXPECT_EQ(sub->Stat("../../c/f")->size, 11u);
}

TEST_F(ApiTest, AttributesAndSpace) {
  auto fs = Connect();
  auto file = fs->Open("/attr", OpenOptions::ReadWrite());
  ASSERT_TRUE(file);
  ASSERT_TRUE(fs->Chmod("/attr", 0600));
  EXPECT_EQ(fs->Stat("/attr")->mode, 0600u);
  FileTime when{std::chrono::nanoseconds(1234567890123456789)};
  ASSERT_TRUE(file->Pwrite("data", 0));
  ASSERT_TRUE(fs->Utimens("/attr", std::nullopt, when));
  ASSERT_TRUE(file->Close());
  EXPECT_EQ(fs->Stat("/attr")->modified, when);  // not changed by what was written before
  ASSERT_TRUE(fs->SetXattr("/attr", "user.k", "v"));
  EXPECT_EQ(*fs->GetXattr("/attr", "user.k"), "v");
  EXPECT_EQ(fs->ListXattr("/attr")->size(), 1u);
  ASSERT_TRUE(fs->RemoveXattr("/attr", "user.k"));
  EXPECT_EQ(fs->GetXattr("/attr", "user.k").error().number, ENODATA);
  ASSERT_TRUE(fs->Truncate("/attr", 2));
  EXPECT_EQ(fs->Stat("/attr")->size, 2u);
  EXPECT_GT(fs->Statfs()->free_bytes, 0u);
  ASSERT_TRUE(fs->SyncAll());
  EXPECT_FALSE(fs->cluster_uuid().empty());
}

TEST_F(ApiTest, ReadAheadAndAsync) {
  auto fs = Connect();
  std::string data(20 << 20, 0);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 1000);
  auto file = fs->Open("/big", OpenOptions::ReadWrite());
  ASSERT_TRUE(file);
  std::vector<std::future<FsResult<size_t>>> writes;
  for (size_t at = 0; at < data.size(); at += 1 << 20) writes.push_back(file->PwriteAsync(data.data() + at, 1 << 20, at));
  for (auto& write : writes) ASSERT_TRUE(write.get());
  ASSERT_TRUE(file->FsyncAsync().get());
  std::string got(data.size() + 100, 1);
  size_t at = 0;
  for (;;) {  // a sequential reader with odd sizes
    auto n = file->Pread(got.data() + at, 77'777, at);
    ASSERT_TRUE(n) << n.error().message;
    if (*n == 0) break;
    at += *n;
    if (at > (10 << 20) && at < (10 << 20) + 77'777) {
      ASSERT_TRUE(file->Pwrite("changed", at));  // what was fetched ahead is old now
      data.replace(at, 7, "changed");
    }
  }
  EXPECT_EQ(at, data.size());
  got.resize(at);
  EXPECT_TRUE(got == data);
  std::promise<FsResult<size_t>> called;
  std::string part(10, 0);
  file->PreadAsync(part.data(), part.size(), 5, [&](FsResult<size_t> n) { called.set_value(n); });
  EXPECT_EQ(*called.get_future().get(), 10u);
  EXPECT_EQ(part, data.substr(5, 10));
}

TEST_F(ApiTest, ThreadsAppend) {
  auto fs = Connect();
  auto file = fs->Open("/log", OpenOptions::Append());
  ASSERT_TRUE(file);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) ASSERT_TRUE(file->Append(std::string(9, static_cast<char>('a' + t)) + "\n"));
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(file->Close());
  auto reader = fs->Open("/log");
  std::string all(5000, 0);
  ASSERT_EQ(*reader->Pread(all.data(), all.size(), 0), 4000u);
  for (size_t i = 0; i < 4000; i += 10) {
    EXPECT_EQ(all[i + 9], '\n');
    EXPECT_EQ(all.substr(i, 9), std::string(9, all[i]));
  }
}

TEST_F(ApiTest, PermissionsOfAUser) {
  auto fs = Connect();
  ASSERT_TRUE(fs->Mkdir("/private", 0700));
  ConnectOptions as_user;
  as_user.uid = 12345;
  as_user.gid = 12345;
  as_user.groups.emplace();
  auto user = Connect(as_user);
  EXPECT_EQ(user->List("/private").error().number, EACCES);
  EXPECT_EQ(user->Open("/private/f", OpenOptions::Write()).error().number, EACCES);
}

TEST_F(ApiTest, DisconnectEndsOpenFiles) {
  auto fs = Connect();
  auto file = fs->Open("/last", OpenOptions::Write());
  ASSERT_TRUE(file->Append("kept"));
  ASSERT_TRUE(fs->Disconnect());
  EXPECT_FALSE(file->Append("lost"));
  (void)file->Close();
  fs.reset();
  EXPECT_EQ(Connect()->Stat("/last")->size, 4u);
}

TEST_F(ApiTest, ClearErrors) {
  ConnectOptions nowhere;
  nowhere.meta = {"127.0.0.1:1"};
  nowhere.config_file = config_;
  nowhere.timeout = std::chrono::milliseconds(100);
  auto fs = FileSystem::Connect(nowhere);
  ASSERT_FALSE(fs);
  EXPECT_EQ(fs.error().number, ETIMEDOUT);
  EXPECT_NE(fs.error().message.find("127.0.0.1:1"), std::string::npos);
  ConnectOptions no_file;
  no_file.config_file = "/nonexistent/shoal.conf";
  EXPECT_EQ(FileSystem::Connect(no_file).error().number, ENOENT);
}

}  // namespace
}  // namespace shoal
