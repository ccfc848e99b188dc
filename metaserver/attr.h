// An inode's attributes on the wire, and its times.
#pragma once

#include "common/ids.h"
#include "common/proto/meta.pb.h"
#include "common/proto/record.pb.h"

namespace shoal::meta {

void FillAttr(InodeId id, const pb::InodeRecord& inode, pb::Attr* attr);

// Each raises `change`, too.
inline void TouchChanged(pb::InodeRecord* inode, int64_t now_ns) {  // ctime
  inode->set_ctime_ns(now_ns);
  inode->set_change(inode->change() + 1);
}
inline void TouchModified(pb::InodeRecord* inode, int64_t now_ns) {  // mtime and ctime
  inode->set_mtime_ns(now_ns);
  TouchChanged(inode, now_ns);
}

// What a write or truncation by somebody else than the superuser does to the mode: clears set-user-id, and
// set-group-id where the group may execute. Returns whether it changed anything.
bool ClearSetIds(pb::InodeRecord* inode);

}  // namespace shoal::meta
