// Who may do what: POSIX permission checks on the server.
#pragma once

#include <cstdint>

#include "common/proto/meta.pb.h"
#include "common/proto/record.pb.h"
#include "common/result.h"

namespace shoal::meta {

// As the bits of access(2).
inline constexpr uint32_t kExecute = 1;
inline constexpr uint32_t kWrite = 2;
inline constexpr uint32_t kRead = 4;

inline bool IsSuperuser(const pb::Caller& caller) { return caller.uid() == 0; }
bool InGroup(const pb::Caller& caller, uint32_t gid);
inline bool IsOwner(const pb::Caller& caller, const pb::InodeRecord& inode) {
  return IsSuperuser(caller) || caller.uid() == inode.uid();
}

// kAccessDenied unless the caller has all of `wanted` (kRead | kWrite | kExecute). The superuser may do everything,
// except execute a file without any execute bit.
Status CheckAccess(const pb::Caller& caller, const pb::InodeRecord& inode, uint32_t wanted);

// For removing or renaming `victim` in `parent` (whose write permission is checked apart): kNotPermitted where the
// sticky bit forbids it.
Status CheckSticky(const pb::Caller& caller, const pb::InodeRecord& parent, const pb::InodeRecord& victim);

// open(2)'s flags -> kRead | kWrite.
uint32_t AccessOfOpenFlags(uint32_t flags);

}  // namespace shoal::meta
