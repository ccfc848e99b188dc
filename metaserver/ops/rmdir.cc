// RMDIR: removes an empty directory.
#include <sys/stat.h>

#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"
#include "metaserver/unlinked.h"

namespace shoal::meta {

Status Rmdir(View& view, const pb::UnlinkRequest& request, pb::UnlinkResponse& response) {
  const InodeId parent(request.parent());
  const std::string& name = request.name();
  if (name == ".") return Fail(ErrorCode::kInvalidArgument);
  if (name == "..") return Fail(ErrorCode::kNotEmpty);
  TRY(CheckName(name));
  WantDentry(view, parent, name);
  TRY_ASSIGN(const pb::InodeRecord* directory, NeedDirectory(view, parent, kExecute));
  TRY_ASSIGN(Dentry entry, FindDentry(view, parent, name));
  if (!entry) return Fail(ErrorCode::kNotFound);
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedNamed(view, entry, name));
  TRY(NeedDirectory(view, parent, kWrite | kExecute));
  TRY(CheckSticky(view.caller(), *directory, *inode));
  if (!S_ISDIR(inode->mode())) return Fail(ErrorCode::kNotDirectory);
  if (inode->entries() > 0) return Fail(ErrorCode::kNotEmpty);
  RemoveDentry(view, parent, name);
  pb::InodeRecord* changed = TouchParent(view, parent, -1);
  changed->set_nlink(changed->nlink() - 1);
  pb::InodeRecord left = LoseLink(view, entry.inode);
  response.set_inode(entry.inode.value);
  FillAttr(entry.inode, left, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
