// What happens to inodes that lose their names.
#pragma once

#include "common/ids.h"
#include "common/proto/record.pb.h"
#include "metaserver/view.h"

namespace shoal::meta {

// One name less (nlink - 1, ctime); after the last one the inode becomes an orphan when some session has it open, else
// it is forgotten. The caller has read the record, and waited while it was busy. Returns what is left of it (which
// may be deleted in the view).
pb::InodeRecord LoseLink(View& view, InodeId id);

// Deletes the inode's record and xattrs, and leaves a ReapRecord where there are extents to drop.
void ForgetInode(View& view, InodeId id, const pb::InodeRecord& inode);

}  // namespace shoal::meta
