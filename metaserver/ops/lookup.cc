// LOOKUP: a name in a directory -> attributes.
#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {

Status Lookup(View& view, const pb::LookupRequest& request, pb::AttrResponse& response) {
  const InodeId parent(request.parent());
  TRY_ASSIGN(const pb::InodeRecord* directory, NeedDirectory(view, parent, kExecute));
  const std::string& name = request.name();
  if (name == ".") {
    FillAttr(parent, *directory, response.mutable_attr());
    return {};
  }
  if (name == "..") {
    const InodeId up(directory->parent());
    TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, up));
    FillAttr(up, *inode, response.mutable_attr());
    return {};
  }
  TRY(CheckName(name));
  TRY_ASSIGN(Dentry entry, FindDentry(view, parent, name));
  if (!entry) return Fail(ErrorCode::kNotFound);
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedNamed(view, entry, name));
  FillAttr(entry.inode, *inode, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
