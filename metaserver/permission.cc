#include "metaserver/permission.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

namespace shoal::meta {

bool InGroup(const pb::Caller& caller, uint32_t gid) {
  return caller.gid() == gid || std::find(caller.groups().begin(), caller.groups().end(), gid) != caller.groups().end();
}

Status CheckAccess(const pb::Caller& caller, const pb::InodeRecord& inode, uint32_t wanted) {
  uint32_t mode = inode.mode();
  if (IsSuperuser(caller)) {
    if ((wanted & kExecute) && !S_ISDIR(mode) && !(mode & 0111)) return Fail(ErrorCode::kAccessDenied);
    return {};
  }
  uint32_t granted;
  if (caller.uid() == inode.uid()) {
    granted = mode >> 6;
  } else if (InGroup(caller, inode.gid())) {
    granted = mode >> 3;
  } else {
    granted = mode;
  }
  if ((granted & wanted) != wanted) return Fail(ErrorCode::kAccessDenied);
  return {};
}

Status CheckSticky(const pb::Caller& caller, const pb::InodeRecord& parent, const pb::InodeRecord& victim) {
  if (!(parent.mode() & S_ISVTX)) return {};
  if (IsOwner(caller, parent) || IsOwner(caller, victim)) return {};
  return Fail(ErrorCode::kNotPermitted);
}

uint32_t AccessOfOpenFlags(uint32_t flags) {
  uint32_t access = 0;
  switch (flags & O_ACCMODE) {
    case O_RDONLY: access = kRead; break;
    case O_WRONLY: access = kWrite; break;
    default: access = kRead | kWrite; break;
  }
  if (flags & O_TRUNC) access |= kWrite;
  return access;
}

}  // namespace shoal::meta
