// The engine's values in the kernel's clothes, and back. For the folder's own sources only.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "client/attr.h"
#include "fuse/fuse_api.h"

namespace shoal::fuse {

class MountFs;

inline constexpr uint32_t kIoBlock = 64 << 10;   // st_blksize: what stdio and cp take at once
inline constexpr uint32_t kStatFsBlock = 4096;   // the unit of statfs(2)'s counts

timespec ToTimespec(int64_t ns);
int64_t ToNanoseconds(const timespec& time);
struct stat ToStat(const client::Attr& attr);
fuse_entry_param ToEntry(const MountFs& fs, const client::Attr& attr);
struct statvfs ToStatVfs(const client::FsStat& stat);
// A range of fcntl(2) with l_whence SEEK_SET, as FUSE gives it.
client::LockRange ToLockRange(const struct flock& lock);
struct flock FromLockRange(const client::LockRange& range);
// What SETATTR asks for; `to_set` as libfuse's FUSE_SET_ATTR_*.
client::AttrChange ToAttrChange(const struct stat& attr, int to_set, bool kill_suid_sgid);

}  // namespace shoal::fuse
