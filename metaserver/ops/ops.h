// The namespace's operations: one file each. Each is one function over a View (see view.h).
#pragma once

#include "metaserver/view.h"

namespace shoal::meta {

class Driver;

// Registers all of them.
void RegisterNamespaceOps(MetaContext& context);

Status Lookup(View& view, const pb::LookupRequest& request, pb::AttrResponse& response);
Status GetAttr(View& view, const pb::GetAttrRequest& request, pb::AttrResponse& response);
Status SetAttr(View& view, const pb::SetAttrRequest& request, pb::AttrResponse& response);
Status Create(View& view, const pb::CreateRequest& request, pb::OpenResponse& response);
Status Open(View& view, const pb::OpenRequest& request, pb::OpenResponse& response);
Status Mkdir(View& view, const pb::MkdirRequest& request, pb::AttrResponse& response);
Status Mknod(View& view, const pb::MknodRequest& request, pb::AttrResponse& response);
Status Symlink(View& view, const pb::SymlinkRequest& request, pb::AttrResponse& response);
Status Readlink(View& view, const pb::ReadlinkRequest& request, pb::ReadlinkResponse& response);
Status Link(View& view, const pb::LinkRequest& request, pb::AttrResponse& response);
Status Unlink(View& view, const pb::UnlinkRequest& request, pb::UnlinkResponse& response);
Status Rmdir(View& view, const pb::UnlinkRequest& request, pb::UnlinkResponse& response);
Status Rename(View& view, const pb::RenameRequest& request, pb::RenameResponse& response);
Status GetXattr(View& view, const pb::GetXattrRequest& request, pb::GetXattrResponse& response);
Status SetXattr(View& view, const pb::SetXattrRequest& request, pb::AttrResponse& response);
Status ListXattr(View& view, const pb::ListXattrRequest& request, pb::ListXattrResponse& response);
Status RemoveXattr(View& view, const pb::RemoveXattrRequest& request, pb::AttrResponse& response);
// Several steps, therefore a coroutine.
Task<Result<TxnId>> ReadDir(MetaContext* context, const pb::ReadDirRequest& request, pb::ReadDirResponse& response);

}  // namespace shoal::meta
