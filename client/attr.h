// Plain values that the client's engine takes and gives: credentials, attributes, directory entries, locks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/ids.h"

namespace shoal::client {

// On whose behalf an operation is done; uid 0 passes every permission check. A plain value.
struct Cred {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;  // supplementary
};

// What stat(2) tells. Times are nanoseconds since 1970, sizes bytes. A plain value.
struct Attr {
  InodeId inode;
  uint32_t mode = 0;  // type and permission bits, as st_mode
  uint32_t nlink = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t copies = 0;  // wanted copies of its chunks
  uint64_t rdev = 0;
  uint64_t size = 0;
  uint64_t allocated_bytes = 0;  // st_blocks * 512
  int64_t atime_ns = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  int64_t btime_ns = 0;
  uint64_t change = 0;  // raised by every change of the inode or its data
};

// How a write is meant. A plain value.
struct WriteHow {
  bool kill_suid_sgid = false;  // the writer lacks CAP_FSETID
  std::optional<bool> append;   // at the end, whatever the offset; not given: if the handle was opened with O_APPEND
};

// What SetAttr shall change; what is not set stays. A plain value.
struct AttrChange {
  std::optional<uint32_t> mode;  // permission bits
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
  std::optional<uint64_t> size;
  std::optional<int64_t> atime_ns;
  std::optional<int64_t> mtime_ns;
  bool atime_now = false;
  bool mtime_now = false;
  bool kill_suid_sgid = false;  // truncation by one without CAP_FSETID
};

// One name of a directory. A plain value.
struct DirEntry {
  std::string name;
  uint64_t cookie = 0;  // where to go on after this entry; for ever the same for it
  InodeId inode;
  uint32_t type = 0;  // S_IFMT bits
  Attr attr;          // only when asked for (else its inode is none)
};

// Part of a directory. "." (cookie 1) and ".." (cookie 2) are not among the entries. A plain value.
struct DirPage {
  std::vector<DirEntry> entries;
  bool end = false;  // nothing follows
  InodeId parent;    // what ".." is
};

// What statfs(2) tells, at the root's number of copies. A plain value.
struct FsStat {
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t inodes = 0;
  uint64_t free_inodes = 0;
  uint32_t copies = 0;
};

// A lock of fcntl(2) or flock(2): for flock the whole range. A plain value.
struct LockRange {
  static constexpr uint64_t kEnd = (1ull << 63) - 1;  // to the end of the file, however long it gets
  uint64_t start = 0;
  uint64_t end = kEnd;  // inclusive
  bool exclusive = false;
  uint32_t pid = 0;
};

}  // namespace shoal::client
