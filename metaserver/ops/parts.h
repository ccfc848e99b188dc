// Parts that several operations share.
#pragma once

#include <string_view>

#include "metaserver/dentry.h"
#include "metaserver/permission.h"
#include "metaserver/view.h"

namespace shoal::meta {

// The inode's record; kStale when there is none (any more).
Result<const pb::InodeRecord*> NeedInode(View& view, InodeId id);
// A directory in which the caller has `access` (kExecute to search it, kWrite | kExecute to change it; 0: not
// checked); kNotDirectory for anything else. One that was removed can't be changed: kNotFound.
Result<const pb::InodeRecord*> NeedDirectory(View& view, InodeId id, uint32_t access);
// The inode that an entry names; its absence means damaged metadata.
Result<const pb::InodeRecord*> NeedNamed(View& view, const Dentry& entry, std::string_view name);

// Makes an inode of type and permission `mode` for the caller in `parent`: ids, times, set-group-id inheritance,
// copies; counted. Not yet named.
struct NewInode {
  InodeId id;
  pb::InodeRecord* record = nullptr;
};
Result<NewInode> MakeInode(View& view, const pb::InodeRecord& parent, uint32_t mode);
// Names it: entry, the parent's count, times and (a directory's) nlink. FindDentry found nothing there.
Status NameInode(View& view, InodeId parent, std::string_view name, const NewInode& inode);
// The parent's record after an entry was added (+1), removed (-1) or replaced (0).
pb::InodeRecord* TouchParent(View& view, InodeId parent, int entries);
// An error unless the name can be made in the parent: name, permission, absence.
Result<const pb::InodeRecord*> PrepareNew(View& view, InodeId parent, std::string_view name);

// O_TRUNC: size 0, times, set-id bits.
Status TruncateForOpen(View& view, InodeId id);
// Removes security.capability after a change of owner or content. Reads the xattrs.
Status DropCapability(View& view, InodeId id, const pb::InodeRecord& inode);

}  // namespace shoal::meta
