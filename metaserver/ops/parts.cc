#include "metaserver/ops/parts.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "common/limits.h"
#include "metaserver/attr.h"
#include "metaserver/chunk_hooks.h"
#include "metaserver/context.h"

namespace shoal::meta {

Result<const pb::InodeRecord*> NeedInode(View& view, InodeId id) {
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  if (!inode) return Fail(ErrorCode::kStale, fmt::format("inode {:x} is gone", id.value));
  return inode;
}

Result<const pb::InodeRecord*> NeedDirectory(View& view, InodeId id, uint32_t access) {
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  if (!S_ISDIR(inode->mode())) return Fail(ErrorCode::kNotDirectory);
  if (access) {
    TRY(CheckAccess(view.caller(), *inode, access));
  }
  if ((access & kWrite) && inode->nlink() == 0) return Fail(ErrorCode::kNotFound, "the directory was removed");
  return inode;
}

Result<const pb::InodeRecord*> NeedNamed(View& view, const Dentry& entry, std::string_view name) {
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(entry.inode));
  if (!inode) {
    return Fail(ErrorCode::kCorrupt, fmt::format("the entry \"{}\" names inode {:x}, which does not exist; run "
                                                 "`shoal meta check`", name, entry.inode.value));
  }
  return inode;
}

Result<NewInode> MakeInode(View& view, const pb::InodeRecord& parent, uint32_t mode) {
  const pb::Caller& caller = view.caller();
  TRY_ASSIGN(InodeId id, view.NewInodeId());
  uint32_t gid = caller.gid();
  if (parent.mode() & S_ISGID) {
    gid = parent.gid();
    if (S_ISDIR(mode)) mode |= S_ISGID;
  }
  if (!S_ISDIR(mode) && (mode & S_ISGID) && (mode & S_IXGRP) && !IsSuperuser(caller) && !InGroup(caller, gid)) {
    mode &= ~S_ISGID;
  }
  pb::InodeRecord* inode = view.PutInode(id);
  inode->set_mode(mode);
  inode->set_nlink(S_ISDIR(mode) ? 2 : 1);
  inode->set_uid(caller.uid());
  inode->set_gid(gid);
  inode->set_atime_ns(view.now_ns());
  inode->set_mtime_ns(view.now_ns());
  inode->set_ctime_ns(view.now_ns());
  inode->set_btime_ns(view.now_ns());
  inode->set_change(1);
  if (S_ISREG(mode)) inode->set_copies(view.context().default_copies);
  if (S_ISDIR(mode)) inode->set_size(kBlockSize);
  view.stats().inodes += 1;
  return NewInode{id, inode};
}

pb::InodeRecord* TouchParent(View& view, InodeId parent, int entries) {
  pb::InodeRecord* directory = view.MutableInode(parent);
  directory->set_entries(directory->entries() + entries);
  TouchModified(directory, view.now_ns());
  return directory;
}

Status NameInode(View& view, InodeId parent, std::string_view name, const NewInode& inode) {
  const bool is_directory = S_ISDIR(inode.record->mode());
  if (is_directory) inode.record->set_parent(parent.value);
  TRY(AddDentry(view, parent, name, inode.id, inode.record->mode() & S_IFMT));
  pb::InodeRecord* directory = TouchParent(view, parent, 1);
  if (is_directory) directory->set_nlink(directory->nlink() + 1);
  return {};
}

Result<const pb::InodeRecord*> PrepareNew(View& view, InodeId parent, std::string_view name) {
  TRY(CheckName(name));
  WantDentry(view, parent, name);
  TRY_ASSIGN(const pb::InodeRecord* directory, NeedDirectory(view, parent, kExecute));
  TRY_ASSIGN(Dentry entry, FindDentry(view, parent, name));
  if (entry) return Fail(ErrorCode::kExists);
  TRY(NeedDirectory(view, parent, kWrite | kExecute));
  return directory;
}

Status TruncateForOpen(View& view, InodeId id) {
  TRY(view.WaitWhileBusy(id));
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  if (inode->size() > 0 || inode->extents() > 0) {
    TRY(view.context().chunks->Truncate(view, id, 0));
  }
  TRY(DropCapability(view, id, *inode));
  pb::InodeRecord* changed = view.MutableInode(id);
  if (!IsSuperuser(view.caller())) ClearSetIds(changed);
  TouchModified(changed, view.now_ns());
  return {};
}

Status DropCapability(View& view, InodeId id, const pb::InodeRecord& inode) {
  if (!inode.has_xattrs()) return {};
  TRY_ASSIGN(const pb::XattrsRecord* xattrs, view.GetXattrs(id));
  if (!xattrs) return {};
  for (int i = 0; i < xattrs->xattrs_size(); ++i) {
    if (xattrs->xattrs(i).name() != "security.capability") continue;
    view.Mutable<pb::XattrsRecord>(XattrsKey(id))->mutable_xattrs()->DeleteSubrange(i, 1);
    break;
  }
  return {};
}

}  // namespace shoal::meta
