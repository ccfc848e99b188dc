#include "fuse/convert.h"

#include <algorithm>

#include "common/limits.h"
#include "fuse/mount_fs.h"

namespace shoal::fuse {

timespec ToTimespec(int64_t ns) {
  constexpr int64_t kSecond = 1'000'000'000;
  int64_t seconds = ns / kSecond;
  int64_t rest = ns % kSecond;
  if (rest < 0) {  // before 1970
    rest += kSecond;
    --seconds;
  }
  return {static_cast<time_t>(seconds), static_cast<long>(rest)};
}

int64_t ToNanoseconds(const timespec& time) {
  constexpr int64_t kMaxSeconds = INT64_MAX / 1'000'000'000 - 1;  // the years 1677 to 2262
  return std::clamp<int64_t>(time.tv_sec, -kMaxSeconds, kMaxSeconds) * 1'000'000'000 + time.tv_nsec;
}

struct stat ToStat(const client::Attr& attr) {
  struct stat st {};
  st.st_ino = attr.inode.value;
  st.st_mode = attr.mode;
  st.st_nlink = attr.nlink;
  st.st_uid = attr.uid;
  st.st_gid = attr.gid;
  st.st_rdev = attr.rdev;
  st.st_size = static_cast<off_t>(attr.size);
  st.st_blksize = kIoBlock;
  st.st_blocks = static_cast<blkcnt_t>((attr.allocated_bytes + 511) / 512);
  st.st_atim = ToTimespec(attr.atime_ns);
  st.st_mtim = ToTimespec(attr.mtime_ns);
  st.st_ctim = ToTimespec(attr.ctime_ns);
  return st;
}

fuse_entry_param ToEntry(const MountFs& fs, const client::Attr& attr) {
  fuse_entry_param entry{};
  entry.ino = fs.NodeOf(attr.inode);
  entry.generation = 1;  // inode numbers are never used twice
  entry.attr = ToStat(attr);
  entry.attr_timeout = fs.options().attr_timeout_seconds;
  entry.entry_timeout = fs.options().entry_timeout_seconds;
  return entry;
}

struct statvfs ToStatVfs(const client::FsStat& stat) {
  struct statvfs st {};
  st.f_bsize = st.f_frsize = kStatFsBlock;
  st.f_blocks = stat.capacity_bytes / kStatFsBlock;
  st.f_bfree = st.f_bavail = stat.free_bytes / kStatFsBlock;
  st.f_files = stat.inodes + stat.free_inodes;
  st.f_ffree = st.f_favail = stat.free_inodes;
  st.f_namemax = kMaxName;
  return st;
}

client::LockRange ToLockRange(const struct flock& lock) {
  client::LockRange range;
  range.start = static_cast<uint64_t>(lock.l_start);
  range.end = lock.l_len ? range.start + static_cast<uint64_t>(lock.l_len) - 1 : client::LockRange::kEnd;
  range.exclusive = lock.l_type == F_WRLCK;
  range.pid = static_cast<uint32_t>(lock.l_pid);
  return range;
}

struct flock FromLockRange(const client::LockRange& range) {
  struct flock lock {};
  lock.l_type = range.exclusive ? F_WRLCK : F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(range.start);
  lock.l_len = range.end >= client::LockRange::kEnd ? 0 : static_cast<off_t>(range.end - range.start + 1);
  lock.l_pid = static_cast<pid_t>(range.pid);
  return lock;
}

client::AttrChange ToAttrChange(const struct stat& attr, int to_set, bool kill_suid_sgid) {
  client::AttrChange change;
  if (to_set & FUSE_SET_ATTR_MODE) change.mode = attr.st_mode & 07777;
  if (to_set & FUSE_SET_ATTR_UID) change.uid = attr.st_uid;
  if (to_set & FUSE_SET_ATTR_GID) change.gid = attr.st_gid;
  if (to_set & FUSE_SET_ATTR_SIZE) change.size = static_cast<uint64_t>(attr.st_size);
  if (to_set & FUSE_SET_ATTR_ATIME_NOW) change.atime_now = true;
  else if (to_set & FUSE_SET_ATTR_ATIME) change.atime_ns = ToNanoseconds(attr.st_atim);
  if (to_set & FUSE_SET_ATTR_MTIME_NOW) change.mtime_now = true;
  else if (to_set & FUSE_SET_ATTR_MTIME) change.mtime_ns = ToNanoseconds(attr.st_mtim);
  change.kill_suid_sgid = kill_suid_sgid;
  return change;
}

}  // namespace shoal::fuse
