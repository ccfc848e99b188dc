// The machine of the metaserver loses power, and nothing else does: what the mounts did since its last sync is there
// again.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

namespace fs = std::filesystem;

// Every name below a directory: inode, mode, size, links, time.
std::map<std::string, std::string> Look(const std::string& directory) {
  std::map<std::string, std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    struct stat st {};
    EXPECT_EQ(lstat(entry.path().c_str(), &st), 0) << entry.path();
    found[entry.path().lexically_relative(directory)] =
        std::to_string(st.st_ino) + " " + std::to_string(st.st_mode) + " " + std::to_string(st.st_size) + " " +
        std::to_string(st.st_nlink) + " " + std::to_string(st.st_mtim.tv_sec) + "." +
        std::to_string(st.st_mtim.tv_nsec);
  }
  return found;
}

void Put(const std::string& path, const std::string& text) {
  int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  ASSERT_GE(file, 0) << path;
  EXPECT_EQ(write(file, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(close(file), 0);
}

TEST(HandIn, AMetaserverWithoutItsLastSecondsHasThemFromTheMount) {
  setenv("SHOAL_METASERVER_SYNC_INTERVAL", "1h", 1);  // nothing is synced but when it is asked for
  auto cluster = Cluster::Start();
  ASSERT_NE(cluster, nullptr);
  const std::string db = cluster->dir() + "/metaserver/db";
  TestDirectory local;
  Put(cluster->Path("appended"), "before ");
  ASSERT_EQ(cluster->Shoal({"sync", cluster->mount()}).exit, 0);
  fs::copy(db, local.path() + "/db", fs::copy_options::recursive);

  for (int i = 0; i < 10; ++i) {
    const std::string dir = cluster->Path("d" + std::to_string(i));
    ASSERT_EQ(mkdir(dir.c_str(), 0755), 0);
    for (int n = 0; n < 20; ++n) Put(dir + "/f" + std::to_string(n), dir + std::to_string(n));
    ASSERT_EQ(rename((dir + "/f0").c_str(), (dir + "/f1").c_str()), 0);
    ASSERT_EQ(unlink((dir + "/f2").c_str()), 0);
    ASSERT_EQ(symlink("f3", (dir + "/link").c_str()), 0);
    ASSERT_EQ(link((dir + "/f4").c_str(), (dir + "/hard").c_str()), 0);
    ASSERT_EQ(chmod((dir + "/f5").c_str(), 0400), 0);
    ASSERT_EQ(setxattr((dir + "/f6").c_str(), "user.x", "value", 5, 0), 0);  // what syncs by itself (truncate) must not be here
  }
  int open_file = open(cluster->Path("appended").c_str(), O_RDWR | O_APPEND | O_CLOEXEC);
  ASSERT_GE(open_file, 0);
  ASSERT_EQ(write(open_file, "middle ", 7), 7);
  // What mounts and servers gather is written out; the metadata of it is in no sync.
  for (int i = 0; i < 10; ++i) {
    Put(cluster->Path("d" + std::to_string(i) + "/last"), "");
  }
  const auto before = Look(cluster->mount());
  // Not by a command: its session would be synced, and everything before with it.
  EXPECT_GT(cluster->Metric("metaserver", "shoal_metaserver_unsynced_operations"), 200);

  cluster->Kill("metaserver");
  fs::remove_all(db);
  fs::copy(local.path() + "/db", db, fs::copy_options::recursive);
  cluster->StartMissing();

  EXPECT_EQ(Look(cluster->mount()), before);
  EXPECT_EQ(ReadFile(cluster->Path("d3/f7")), cluster->Path("d3") + "7");
  EXPECT_EQ(write(open_file, "after", 5), 5);
  EXPECT_EQ(fsync(open_file), 0);
  EXPECT_EQ(close(open_file), 0);
  EXPECT_EQ(ReadFile(cluster->Path("appended")), "before middle after");
  EXPECT_GT(cluster->Metric("metaserver", "shoal_metaserver_handed_in_total"), 200);
  EXPECT_EQ(cluster->Metric("metaserver", "shoal_metaserver_handed_in_failed_total"), 0);
  Outcome synced = cluster->Shoal({"sync", cluster->mount()});
  EXPECT_EQ(synced.exit, 0) << synced.Text();
  EXPECT_TRUE(Eventually([&] { return cluster->Json({"status"})["unsynced_bytes"] == 0; }));
  Outcome checked = cluster->Shoal({"meta", "check"});
  EXPECT_EQ(checked.exit, 0) << checked.Text();
  Outcome safe = cluster->Shoal({"fsck"});
  EXPECT_EQ(safe.exit, 0) << safe.Text();
}

}  // namespace
}  // namespace shoal::test
