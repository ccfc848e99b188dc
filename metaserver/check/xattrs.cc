// Xattrs belong to an inode. (That the inode knows of them is looked at with the inodes.)
#include "metaserver/check/invariants.h"

namespace shoal::meta {

Status CheckXattrs(CheckRun& run) {
  Cursor<pb::XattrsRecord> xattrs(run, Key(KeyKind::kXattrs));
  for (; xattrs.valid(); xattrs.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(auto inode, run.Get<pb::InodeRecord>(InodeKey(InodeId(xattrs.key().number(0)))));
    if (inode) continue;
    run.Mendable("xattrs", xattrs.key(), "there is no such inode", xattrs.key(),
                 [](const std::string&) { return std::string(); });
  }
  return xattrs.status();
}

}  // namespace shoal::meta
