// The attributes of inodes that have lost their last name here.
#pragma once

#include <unordered_map>

#include "client/attr.h"
#include "common/ids.h"

namespace shoal::fuse {

// The metaserver forgets an inode with its last name unless a session has it open, and the kernel never says so of
// directories, pipes, sockets and devices: it may still hold one (a working directory, a descriptor), and a local file
// system would go on telling its attributes. So they are kept here until the kernel forgets the inode. Owner: MountFs.
// On the mount's loop. No errors.
class Removed {
 public:
  // After a name was taken away; `left` is what remains of its inode.
  void Lost(const client::Attr& left) {
    if (left.inode && left.nlink == 0) left_.insert_or_assign(left.inode, left);
  }
  void Forgotten(InodeId inode) { left_.erase(inode); }
  // Null: not removed here.
  const client::Attr* Find(InodeId inode) const {
    auto at = left_.find(inode);
    return at == left_.end() ? nullptr : &at->second;
  }

 private:
  std::unordered_map<InodeId, client::Attr> left_;
};

}  // namespace shoal::fuse
