// Directory listings in the form the kernel takes them.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "client/attr.h"
#include "common/ids.h"

struct fuse_entry_param;

namespace shoal::fuse {

// Fills the answer to one READDIR or READDIRPLUS request; entries that don't fit are refused whole. Owner: the
// handler of the request, which keeps the buffer for its life. No errors.
class DirPacker {
 public:
  DirPacker(char* buffer, size_t size) : buffer_(buffer), size_(size) {}

  // `cookie`: where the listing goes on after this entry. False: no room.
  bool Add(const char* name, uint64_t inode, uint32_t type, uint64_t cookie);
  // With attributes; `entry.ino` of 0 says that none are given (the kernel then makes no dentry of it), and only
  // inode and type of `entry.attr` count.
  bool AddPlus(const char* name, const fuse_entry_param& entry, uint64_t cookie);
  size_t used() const { return used_; }

 private:
  char* buffer_;
  size_t size_;
  size_t used_ = 0;
};

// A stretch of a directory that was fetched, and where a reader's cookie stands in it. Plain data.
struct FetchedPage {
  client::DirPage page;
  uint64_t from = 0;        // the cookie it was asked for
  uint64_t freshness = 0;   // Freshness::Now() when it was asked for
  int64_t fetched_ns = 0;   // on the steady clock
  bool with_attr = false;
  bool valid = false;

  // The first entry after `cookie`, or nothing if the page doesn't say what that is: it must be fetched.
  std::optional<size_t> Find(uint64_t cookie) const;
};

}  // namespace shoal::fuse
