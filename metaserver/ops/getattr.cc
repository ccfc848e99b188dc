// GET_ATTR: the attributes of an inode. Whoever has its number may see them, as with fstat(2).
#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {

Status GetAttr(View& view, const pb::GetAttrRequest& request, pb::AttrResponse& response) {
  const InodeId id(request.inode());
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  FillAttr(id, *inode, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
