// /proc/self/mountinfo, paths of mount points, and the socket that tells of a mount's end.
#include "fuse/mount_table.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "fuse/control.h"
#include "fuse/mount.h"

namespace shoal::fuse {
namespace {

TEST(MountTable, ParsesLines) {
  auto mounts = ParseMountInfo(
      "36 35 98:0 /mnt1 /mnt/with\\040blank rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n"
      "99 35 0:52 / /mnt/s rw,nosuid - fuse.shoal h:7600:/a rw,user_id=0\n"
      "garbage\n");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].mountpoint, "/mnt/with blank");
  EXPECT_EQ(mounts[0].type, "ext3");
  EXPECT_FALSE(mounts[0].is_shoal());
  EXPECT_EQ(mounts[1].device, "0:52");
  EXPECT_EQ(mounts[1].source, "h:7600:/a");
  EXPECT_TRUE(mounts[1].is_shoal());
}

TEST(MountTable, FindsTheRoot) {
  EXPECT_TRUE(FindMount("/"));
  EXPECT_FALSE(FindMount("/no/such/mount"));
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/mount_table_XXXXXX";
    ASSERT_TRUE(mkdtemp(name));
    char* real = realpath(name, nullptr);
    path_ = real;
    free(real);
  }
  void TearDown() override {
    unlink((path_ + "/link").c_str());
    rmdir((path_ + "/dir").c_str());
    rmdir(path_.c_str());
  }
  std::string path_;
};

TEST_F(Folder, AbsolutePaths) {
  ASSERT_EQ(mkdir((path_ + "/dir").c_str(), 0755), 0);
  ASSERT_EQ(symlink("dir", (path_ + "/link").c_str()), 0);
  EXPECT_EQ(AbsolutePath(path_ + "//dir/"), path_ + "/dir");
  EXPECT_EQ(AbsolutePath(path_ + "/link"), path_ + "/dir");
  EXPECT_EQ(AbsolutePath(path_ + "/dir/.."), path_);
  EXPECT_EQ(AbsolutePath(path_ + "/dir/."), path_ + "/dir");
  EXPECT_EQ(AbsolutePath(path_ + "/not-there"), path_ + "/not-there");
  EXPECT_EQ(AbsolutePath("/"), "/");
  EXPECT_FALSE(AbsolutePath("/no/such/parent"));
}

TEST_F(Folder, UnmountOfWhatIsNoMount) {
  Status status = Unmount(path_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kNotFound);
  EXPECT_NE(status.error().message.find(path_), std::string::npos);
  status = Unmount("/proc");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("not of Shoal"), std::string::npos) << status.error().message;
}

TEST_F(Folder, MountNeedsAPlaceAndAMetaserver) {
  MountOptions options;
  options.mountpoint = path_;
  Status status = RunMount(options);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("no metaserver"), std::string::npos) << status.error().message;
  options.meta = {{"127.0.0.1", 1}};
  options.key_file = path_ + "/no-key";
  options.mountpoint = path_ + "/absent";
  status = RunMount(options);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("mkdir -p"), std::string::npos) << status.error().message;
  options.mountpoint = path_;
  status = RunMount(options);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("no-key"), std::string::npos) << status.error().message;
}

TEST(MountWatch, SeesTheEndOfTheProcess) {
  std::string device = "test:" + std::to_string(getpid());
  MountWatch nobody(device);
  EXPECT_FALSE(nobody.connected());
  EXPECT_TRUE(nobody.WaitForEnd(0s));
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) {
    EventLoop loop("test");
    ControlSocket control;
    bool listens = control.Listen(loop, device).has_value() && write(ready[1], "x", 1) == 1;
    if (listens) loop.Run();
    _exit(1);
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  MountWatch watch(device);
  ASSERT_TRUE(watch.connected());
  EXPECT_EQ(watch.pid(), child);
  EXPECT_FALSE(watch.WaitForEnd(20ms));
  kill(child, SIGKILL);
  EXPECT_TRUE(watch.WaitForEnd(10s));
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  close(ready[0]);
  close(ready[1]);
}

}  // namespace
}  // namespace shoal::fuse
