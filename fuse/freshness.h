// Which inodes this mount has changed since a listing was fetched.
#pragma once

#include <array>
#include <cstdint>

#include "common/ids.h"

namespace shoal::fuse {

// A directory listing with attributes is fetched in pages that answer many requests of the kernel; what the mount
// itself changes in between makes parts of a page old. This table tells which: every change marks its inode with the
// next number, and a page remembers the number at which it was asked for. Inodes share slots, which may only make
// something look older than it is. Owner: MountFs. On the mount's loop. No errors.
class Freshness {
 public:
  uint64_t Now() const { return now_; }
  void Changed(InodeId inode) { slots_[Slot(inode)] = ++now_; }
  // Whether nothing marked `inode` after `since`.
  bool UnchangedSince(InodeId inode, uint64_t since) const { return slots_[Slot(inode)] <= since; }

 private:
  static constexpr size_t kSlots = 8192;
  static size_t Slot(InodeId inode) { return (inode.value * 0x9e3779b97f4a7c15ull) >> 51; }
  static_assert(1ull << (64 - 51) == kSlots);

  uint64_t now_ = 0;
  std::array<uint64_t, kSlots> slots_{};
};

}  // namespace shoal::fuse
