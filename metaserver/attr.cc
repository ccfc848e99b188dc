#include "metaserver/attr.h"

#include <sys/stat.h>

#include <algorithm>

#include "common/limits.h"

namespace shoal::meta {

void FillAttr(InodeId id, const pb::InodeRecord& inode, pb::Attr* attr) {
  attr->set_inode(id.value);
  attr->set_mode(inode.mode());
  attr->set_nlink(inode.nlink());
  attr->set_uid(inode.uid());
  attr->set_gid(inode.gid());
  attr->set_rdev(inode.rdev());
  attr->set_size(inode.size());
  if (S_ISREG(inode.mode())) {
    uint64_t blocks = (inode.size() + kBlockSize - 1) / kBlockSize * kBlockSize;
    attr->set_allocated_bytes(std::min(blocks, inode.written_chunks() * kChunkSize));
  } else if (S_ISDIR(inode.mode())) {
    attr->set_allocated_bytes(kBlockSize);
  }
  attr->set_atime_ns(inode.atime_ns());
  attr->set_mtime_ns(inode.mtime_ns());
  attr->set_ctime_ns(inode.ctime_ns());
  attr->set_btime_ns(inode.btime_ns());
  attr->set_change(inode.change());
  attr->set_copies(inode.copies());
}

bool ClearSetIds(pb::InodeRecord* inode) {
  if (S_ISDIR(inode->mode())) return false;
  uint32_t clear = inode->mode() & S_ISUID;
  if (inode->mode() & S_IXGRP) clear |= inode->mode() & S_ISGID;
  if (!clear) return false;
  inode->set_mode(inode->mode() & ~clear);
  return true;
}

}  // namespace shoal::meta
