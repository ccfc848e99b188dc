// UNLINK: removes a name of anything but a directory.
#include <sys/stat.h>

#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"
#include "metaserver/unlinked.h"

namespace shoal::meta {

Status Unlink(View& view, const pb::UnlinkRequest& request, pb::UnlinkResponse& response) {
  const InodeId parent(request.parent());
  const std::string& name = request.name();
  TRY(CheckName(name, ErrorCode::kIsDirectory));
  WantDentry(view, parent, name);
  TRY_ASSIGN(const pb::InodeRecord* directory, NeedDirectory(view, parent, kExecute));
  TRY_ASSIGN(Dentry entry, FindDentry(view, parent, name));
  if (!entry) return Fail(ErrorCode::kNotFound);
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedNamed(view, entry, name));
  TRY(NeedDirectory(view, parent, kWrite | kExecute));
  TRY(CheckSticky(view.caller(), *directory, *inode));
  if (S_ISDIR(inode->mode())) return Fail(ErrorCode::kIsDirectory);
  if (inode->nlink() <= 1) {
    TRY(view.WaitWhileBusy(entry.inode));
  }
  RemoveDentry(view, parent, name);
  TouchParent(view, parent, -1);
  pb::InodeRecord left = LoseLink(view, entry.inode);
  response.set_inode(entry.inode.value);
  FillAttr(entry.inode, left, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
