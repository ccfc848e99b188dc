#include "metaserver/driver.h"
#include "metaserver/ops/ops.h"

namespace shoal::meta {

void RegisterNamespaceOps(MetaContext& context) {
  Driver& driver = *context.driver;
  driver.On(pb::LOOKUP, OpKind::kRead, Lookup);
  driver.On(pb::GET_ATTR, OpKind::kRead, GetAttr);
  driver.On(pb::SET_ATTR, OpKind::kMutation, SetAttr);
  driver.On(pb::CREATE, OpKind::kMutation, Create);
  driver.On(pb::OPEN, OpKind::kMutation, Open);
  driver.On(pb::MKDIR, OpKind::kMutation, Mkdir);
  driver.On(pb::MKNOD, OpKind::kMutation, Mknod);
  driver.On(pb::SYMLINK, OpKind::kMutation, Symlink);
  driver.On(pb::READLINK, OpKind::kRead, Readlink);
  driver.On(pb::LINK, OpKind::kMutation, Link);
  driver.On(pb::UNLINK, OpKind::kMutation, Unlink);
  driver.On(pb::RMDIR, OpKind::kMutation, Rmdir);
  driver.On(pb::RENAME, OpKind::kMutation, Rename);
  driver.On(pb::GET_XATTR, OpKind::kRead, GetXattr);
  driver.On(pb::SET_XATTR, OpKind::kMutation, SetXattr);
  driver.On(pb::LIST_XATTR, OpKind::kRead, ListXattr);
  driver.On(pb::REMOVE_XATTR, OpKind::kMutation, RemoveXattr);
  MetaContext* parts = &context;
  driver.OnTask<pb::ReadDirRequest, pb::ReadDirResponse>(
      pb::READ_DIR, [parts](CallInfo, const pb::ReadDirRequest& request, pb::ReadDirResponse& response) {
        return ReadDir(parts, request, response);
      });
}

}  // namespace shoal::meta
