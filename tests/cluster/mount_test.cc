// The mount itself: POSIX behaviour, how it begins and how it ends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

bool IsMounted(const std::string& path) { return ReadFile("/proc/self/mountinfo").find(" " + path + " ") != std::string::npos; }
bool Lives(pid_t pid) { return kill(pid, 0) == 0; }

class Mount : public testing::Test {
 protected:
  void SetUp() override {
    cluster_ = Cluster::Start();
    ASSERT_NE(cluster_, nullptr);
  }
  // Everything of the mount is gone.
  void ExpectGone(pid_t pid) {
    EXPECT_TRUE(Eventually([&] { return !Lives(pid); })) << cluster_->Log("mount");
    EXPECT_FALSE(IsMounted(cluster_->mount()));
    EXPECT_NE(access((cluster_->dir() + "/run/mount.pid").c_str(), F_OK), 0);
  }
  Outcome Mnt(std::vector<std::string> words) {
    words.insert(words.begin(), {"mount", "--config", cluster_->config()});
    return cluster_->Shoal(words);
  }
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(Mount, BehavesAsPosixSays) {
  // Its tests as another user must be able to get there.
  ASSERT_EQ(chmod((cluster_->dir() + "/..").c_str(), 0755), 0);
  std::string program = std::string(SHOAL_TEST_BIN) + "/tests/mount_posix_test";
  Outcome outcome = Shell("SHOAL_POSIX_DIR=" + cluster_->mount() + " " + program, Milliseconds(400000 * kSlowness));
  EXPECT_EQ(outcome.exit, 0) << outcome.Text();
}

TEST_F(Mount, SigtermWritesOutAndLeavesNothing) {
  std::string sum = WritePattern(cluster_->Path("big"), 10 << 20, 5);
  int fd = open(cluster_->Path("unsynced").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(write(fd, "bytes in flight", 15), 15);
  pid_t pid = cluster_->Pid("mount");
  ASSERT_EQ(kill(pid, SIGTERM), 0);
  ExpectGone(pid);
  close(fd);
  cluster_->StartMissing();
  EXPECT_EQ(ReadFile(cluster_->Path("unsynced")), "bytes in flight");
  EXPECT_EQ(Sha256OfFile(cluster_->Path("big")), sum);
}

TEST_F(Mount, SigtermWritesOutMappedMemory) {
  int fd = open(cluster_->Path("mapped").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(ftruncate(fd, 1 << 20), 0);
  auto* bytes = static_cast<char*>(mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(bytes, MAP_FAILED);
  bytes[0] = 'a';
  bytes[700000] = 'b';
  pid_t pid = cluster_->Pid("mount");
  ASSERT_EQ(kill(pid, SIGTERM), 0);
  ExpectGone(pid);
  munmap(bytes, 1 << 20);
  close(fd);
  cluster_->StartMissing();
  std::string after = ReadFile(cluster_->Path("mapped"));
  ASSERT_EQ(after.size(), 1u << 20);
  EXPECT_EQ(after[0], 'a');
  EXPECT_EQ(after[700000], 'b');
}

// Ctrl-C.
TEST_F(Mount, InterruptedInTheForegroundItWritesOutAndLeavesNothing) {
  TestDirectory place;
  auto foreground = Process::Start({Program("shoal"), "mount", "-f", "--config", cluster_->config(), place.path()});
  ASSERT_TRUE(Eventually([&] { return IsMounted(place.path()); }));
  int fd = open((place.path() + "/f").c_str(), O_RDWR | O_CREAT, 0644);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(write(fd, "bytes in flight", 15), 15);
  foreground->Signal(SIGINT);
  Outcome outcome = foreground->Wait(Milliseconds(60000));
  close(fd);
  EXPECT_EQ(outcome.exit, 0) << outcome.Text();
  EXPECT_FALSE(IsMounted(place.path()));
  EXPECT_EQ(ReadFile(cluster_->Path("f")), "bytes in flight");
}

TEST_F(Mount, FusermountAndUmountEndTheProcess) {
  for (const std::string& command : {"fusermount3 -u " + cluster_->mount(), "umount " + cluster_->mount()}) {
    std::ofstream(cluster_->Path("f")) << command;
    pid_t pid = cluster_->Pid("mount");
    Outcome outcome = Shell(command);
    ASSERT_EQ(outcome.exit, 0) << outcome.Text();
    ExpectGone(pid);
    cluster_->StartMissing();
    EXPECT_EQ(ReadFile(cluster_->Path("f")), command);
  }
}

TEST_F(Mount, UmountOfABusyOneNamesItsUsers) {
  auto user = Process::Start({"sleep", "1000"}, cluster_->mount());
  ASSERT_TRUE(user);
  ASSERT_TRUE(Eventually([&] { return ReadFile("/proc/" + std::to_string(user->pid()) + "/comm") == "sleep\n"; }));
  Outcome outcome = cluster_->Shoal({"umount", cluster_->mount()});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_NE(outcome.err.find("sleep (" + std::to_string(user->pid()) + ")"), std::string::npos) << outcome.Text();
  pid_t pid = cluster_->Pid("mount");
  user->Signal(SIGKILL);
  user->Wait(Milliseconds(10000));
  EXPECT_EQ(cluster_->Shoal({"umount", cluster_->mount()}).exit, 0);
  EXPECT_TRUE(Eventually([&] { return !Lives(pid); }, Milliseconds(3000)));  // `shoal umount` has waited for it
  EXPECT_FALSE(IsMounted(cluster_->mount()));
}

// The command is no obstacle to itself, and the shell that it was started from is called that.
TEST_F(Mount, UmountFromInside) {
  std::string shoal = Program("shoal"), mount = cluster_->mount();
  for (const std::string& command : {shoal + " umount " + mount, shoal + " dev stop --dir " + cluster_->dir()}) {
    Outcome outcome = Shell("cd " + mount + " && { " + command + "; exit $?; }");
    EXPECT_EQ(outcome.exit, 1) << outcome.Text();
    EXPECT_NE(outcome.err.find("started from bash ("), std::string::npos) << outcome.Text();
    EXPECT_NE(outcome.err.find("cd out of it"), std::string::npos) << outcome.Text();
    EXPECT_EQ(outcome.err.find("shoal ("), std::string::npos) << outcome.Text();
  }
  Outcome alone = Shell("cd " + mount + " && exec " + shoal + " umount .");
  EXPECT_EQ(alone.exit, 0) << alone.Text();
  EXPECT_FALSE(IsMounted(mount));
}

TEST_F(Mount, InterruptedInTheForegroundWhileItIsBusyItSaysSo) {
  TestDirectory place, logs;
  auto foreground = Process::Start({Program("shoal"), "mount", "-f", "--config", cluster_->config(), "--log-file", logs.path() + "/log", place.path()});
  ASSERT_TRUE(Eventually([&] { return IsMounted(place.path()); }));
  auto user = Process::Start({"/bin/bash", "-c", "exec 3> f; printf kept >&3; exec sleep 1000"}, place.path());
  ASSERT_TRUE(Eventually([&] { return ReadFile("/proc/" + std::to_string(user->pid()) + "/comm") == "sleep\n"; }));
  foreground->Signal(SIGINT);
  Outcome outcome = foreground->Wait(Milliseconds(60000));
  EXPECT_EQ(outcome.exit, 0) << outcome.Text();
  EXPECT_NE(outcome.err.find("still used by sleep (" + std::to_string(user->pid()) + ")"), std::string::npos) << outcome.Text();
  EXPECT_FALSE(IsMounted(place.path()));
  EXPECT_EQ(ReadFile(cluster_->Path("f")), "kept");
}

TEST_F(Mount, ADeadOneIsReplaced) {
  std::ofstream(cluster_->Path("f")) << "kept";
  cluster_->Kill("mount");
  struct stat st;
  EXPECT_NE(stat(cluster_->Path("f").c_str(), &st), 0);
  EXPECT_EQ(errno, ENOTCONN);
  cluster_->StartMissing();
  EXPECT_EQ(ReadFile(cluster_->Path("f")), "kept");
  Outcome twice = Mnt({cluster_->mount()});
  EXPECT_EQ(twice.exit, 1);
  EXPECT_NE(twice.err.find("already a mount"), std::string::npos) << twice.Text();
}

TEST_F(Mount, WaitsForTheMetaserverAndNotForEver) {
  TestDirectory place;
  cluster_->Kill("metaserver");
  Outcome outcome = Mnt({"-o", "timeout=2", place.path()});
  EXPECT_EQ(outcome.exit, 3) << outcome.Text();
  EXPECT_FALSE(IsMounted(place.path()));
  auto waiting = Process::Start({Program("shoal"), "mount", "--config", cluster_->config(), place.path()});
  ASSERT_TRUE(waiting);
  cluster_->StartMissing();
  outcome = waiting->Wait(Milliseconds(60000));
  EXPECT_EQ(outcome.exit, 0) << outcome.Text();
  std::ofstream(place.path() + "/through") << "the second mount";
  EXPECT_EQ(ReadFile(cluster_->Path("through")), "the second mount");
  EXPECT_EQ(cluster_->Shoal({"umount", place.path()}).exit, 0);
}

TEST_F(Mount, AKilledProcessIsLetGoWhileTheMetaserverIsFrozen) {
  ASSERT_EQ(mkdir(cluster_->Path("d").c_str(), 0755), 0);
  cluster_->Freeze("metaserver");
  auto asking = Process::Start({"stat", cluster_->Path("d/never-looked-up")});
  ASSERT_TRUE(asking);
  usleep(500000);  // nothing tells that a request has reached the mount
  EXPECT_TRUE(asking->running());
  asking->Signal(SIGTERM);
  auto begin = Clock::now();
  asking->Wait(Milliseconds(20000));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5 * kSlowness));
  cluster_->Thaw("metaserver");
  EXPECT_EQ(mkdir(cluster_->Path("d/after").c_str(), 0755), 0);
}

TEST_F(Mount, OfASubdirectory) {
  TestDirectory place;
  ASSERT_EQ(mkdir(cluster_->Path("sub").c_str(), 0755), 0);
  std::ofstream(cluster_->Path("sub/f")) << "inside";
  std::string config = ReadFile(cluster_->config());
  Outcome outcome = Mnt({":/sub", place.path()});
  ASSERT_EQ(outcome.exit, 0) << outcome.Text();
  EXPECT_EQ(ReadFile(place.path() + "/f"), "inside");
  std::ofstream(place.path() + "/g") << "new";
  EXPECT_EQ(ReadFile(cluster_->Path("sub/g")), "new");
  EXPECT_EQ(cluster_->Shoal({"umount", place.path()}).exit, 0);
  outcome = Mnt({":/absent", place.path()});
  EXPECT_EQ(outcome.exit, 1) << outcome.Text();
  EXPECT_NE(outcome.err.find("there is no 'absent'"), std::string::npos) << outcome.Text();
  outcome = Mnt({":/sub/f", place.path()});
  EXPECT_EQ(outcome.exit, 1) << outcome.Text();
  EXPECT_NE(outcome.err.find("no directory"), std::string::npos) << outcome.Text();
}

TEST_F(Mount, ReadOnlyAndTheHelper) {
  TestDirectory place;
  std::ofstream(cluster_->Path("f")) << "content";
  Outcome outcome = RunProgram({Program("mount.fuse.shoal"), "none", place.path(), "-n", "-o",
                                "ro,noatime,_netdev,config=" + cluster_->config()});
  ASSERT_EQ(outcome.exit, 0) << outcome.Text();
  EXPECT_EQ(ReadFile(place.path() + "/f"), "content");
  EXPECT_EQ(open((place.path() + "/f").c_str(), O_WRONLY), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(cluster_->Shoal({"umount", place.path()}).exit, 0);
}

TEST_F(Mount, TwoMountsSeeEachOthersChanges) {
  TestDirectory place;
  ASSERT_EQ(Mnt({place.path()}).exit, 0);
  std::string here = cluster_->Path("f"), there = place.path() + "/f";
  for (int i = 0; i < 5; ++i) {
    std::string text = "version " + std::to_string(i) + std::string(static_cast<size_t>(i) * 5000, 'x');
    std::ofstream(i % 2 ? here : there) << text;
    EXPECT_EQ(ReadFile(i % 2 ? there : here), text) << i;  // opened after it was closed
  }
  // Locks hold between mounts.
  int one = open(here.c_str(), O_RDWR), two = open(there.c_str(), O_RDWR);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  ASSERT_EQ(fcntl(one, F_OFD_SETLK, &lock), 0);
  EXPECT_EQ(fcntl(two, F_OFD_SETLK, &lock), -1);
  close(one);
  EXPECT_TRUE(Eventually([&] { return fcntl(two, F_OFD_SETLK, &lock) == 0; }));
  close(two);
  EXPECT_EQ(cluster_->Shoal({"umount", place.path()}).exit, 0);
}

}  // namespace
}  // namespace shoal::test
