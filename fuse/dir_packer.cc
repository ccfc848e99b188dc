#include "fuse/dir_packer.h"

#include <algorithm>

#include "fuse/fuse_api.h"

namespace shoal::fuse {

bool DirPacker::Add(const char* name, uint64_t inode, uint32_t type, uint64_t cookie) {
  struct stat attr {};
  attr.st_ino = inode;
  attr.st_mode = type;
  size_t room = size_ - used_;
  size_t n = fuse_add_direntry(nullptr, buffer_ + used_, room, name, &attr, static_cast<off_t>(cookie));
  if (n > room) return false;
  used_ += n;
  return true;
}

bool DirPacker::AddPlus(const char* name, const fuse_entry_param& entry, uint64_t cookie) {
  size_t room = size_ - used_;
  size_t n = fuse_add_direntry_plus(nullptr, buffer_ + used_, room, name, &entry, static_cast<off_t>(cookie));
  if (n > room) return false;
  used_ += n;
  return true;
}

std::optional<size_t> FetchedPage::Find(uint64_t cookie) const {
  if (!valid || cookie < from) return std::nullopt;
  auto after = std::ranges::upper_bound(page.entries, cookie, {}, &client::DirEntry::cookie);
  if (after == page.entries.end() && !page.end) return std::nullopt;
  return static_cast<size_t>(after - page.entries.begin());
}

}  // namespace shoal::fuse
