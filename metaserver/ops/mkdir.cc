// MKDIR.
#include <sys/stat.h>

#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"

namespace shoal::meta {

Status Mkdir(View& view, const pb::MkdirRequest& request, pb::AttrResponse& response) {
  const InodeId parent(request.parent());
  TRY_ASSIGN(const pb::InodeRecord* directory, PrepareNew(view, parent, request.name()));
  TRY_ASSIGN(NewInode made, MakeInode(view, *directory, S_IFDIR | (request.mode() & 07777)));
  TRY(NameInode(view, parent, request.name(), made));
  FillAttr(made.id, *made.record, response.mutable_attr());
  return {};
}

}  // namespace shoal::meta
