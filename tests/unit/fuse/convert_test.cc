// The engine's values in the kernel's clothes.
#include "fuse/convert.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>

#include "fuse/mount_fs.h"

namespace shoal::fuse {
namespace {

TEST(Convert, TimesBeforeAndAfter1970) {
  for (int64_t ns : {0L, 1L, -1L, 1'700'000'000'123'456'789L, -1'500'000'001L, -1'000'000'000L}) {
    timespec time = ToTimespec(ns);
    EXPECT_GE(time.tv_nsec, 0);
    EXPECT_LT(time.tv_nsec, 1'000'000'000);
    EXPECT_EQ(ToNanoseconds(time), ns);
  }
  EXPECT_EQ(ToTimespec(-1).tv_sec, -1);
  EXPECT_GT(ToNanoseconds({INT64_MAX, 0}), 0);
}

TEST(Convert, Stat) {
  client::Attr attr;
  attr.inode = InodeId(0x0001000000000007);
  attr.mode = S_IFREG | 0640;
  attr.nlink = 3;
  attr.size = 5'000'000'000;
  attr.allocated_bytes = 1000;
  struct stat st = ToStat(attr);
  EXPECT_EQ(st.st_ino, 0x0001000000000007u);
  EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0640));
  EXPECT_EQ(st.st_nlink, 3u);
  EXPECT_EQ(st.st_size, 5'000'000'000);
  EXPECT_EQ(st.st_blocks, 2);
}

TEST(Convert, LockRanges) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_start = 100;
  lock.l_len = 50;
  lock.l_pid = 9;
  client::LockRange range = ToLockRange(lock);
  EXPECT_TRUE(range.exclusive);
  EXPECT_EQ(range.start, 100u);
  EXPECT_EQ(range.end, 149u);
  struct flock back = FromLockRange(range);
  EXPECT_EQ(back.l_type, F_WRLCK);
  EXPECT_EQ(back.l_start, 100);
  EXPECT_EQ(back.l_len, 50);
  EXPECT_EQ(back.l_pid, 9);
  lock.l_len = 0;  // to the end
  EXPECT_EQ(ToLockRange(lock).end, client::LockRange::kEnd);
  EXPECT_EQ(FromLockRange(ToLockRange(lock)).l_len, 0);
}

TEST(Convert, AttrChangeTakesOnlyWhatIsSet) {
  struct stat attr {};
  attr.st_mode = S_IFREG | 06755;
  attr.st_size = 10;
  attr.st_uid = 5;
  client::AttrChange change = ToAttrChange(attr, FUSE_SET_ATTR_MODE, false);
  EXPECT_EQ(change.mode, 06755u);
  EXPECT_FALSE(change.size || change.uid || change.gid || change.atime_ns || change.mtime_ns || change.kill_suid_sgid);
  change = ToAttrChange(attr, FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW, true);
  EXPECT_EQ(change.size, 10u);
  EXPECT_TRUE(change.mtime_now);
  EXPECT_FALSE(change.mtime_ns);
  EXPECT_TRUE(change.kill_suid_sgid);
}

TEST(Wire, ReadsTheKernelsKillFlag) {
  Wire wire;
  wire.buffer = Buffer::Zeros(4096);
  auto* header = reinterpret_cast<fuse_in_header*>(wire.buffer.mutable_data());
  auto* write = reinterpret_cast<fuse_write_in*>(header + 1);
  header->opcode = FUSE_WRITE;
  wire.size = sizeof *header + sizeof *write;
  EXPECT_FALSE(wire.KillSuidSgid());
  write->write_flags = FUSE_WRITE_KILL_SUIDGID;
  EXPECT_TRUE(wire.KillSuidSgid());
  wire.size = sizeof *header + 4;  // too short to hold the flag
  EXPECT_FALSE(wire.KillSuidSgid());
  header->opcode = FUSE_GETATTR;
  wire.size = sizeof *header + sizeof *write;
  EXPECT_FALSE(wire.KillSuidSgid());
}

}  // namespace
}  // namespace shoal::fuse
