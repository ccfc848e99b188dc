#include "metaserver/unlinked.h"

#include <sys/stat.h>

#include "metaserver/attr.h"
#include "metaserver/context.h"
#include "metaserver/reaper.h"
#include "metaserver/sessions.h"

namespace shoal::meta {

pb::InodeRecord LoseLink(View& view, InodeId id) {
  pb::InodeRecord* inode = view.MutableInode(id);
  // A directory's own "." counts, too.
  inode->set_nlink(S_ISDIR(inode->mode()) ? 0 : inode->nlink() - 1);
  TouchChanged(inode, view.now_ns());
  pb::InodeRecord left = *inode;
  if (left.nlink() > 0) return left;
  Sessions& sessions = *view.context().sessions;
  // Executed again, it may have been open, and written to, until it was closed: it is looked at when all is handed in.
  if (view.again() || sessions.MayBeOpen(id)) {
    view.Put<pb::OrphanRecord>(OrphanKey(id))->set_since_ns(view.now_ns());
    view.OnApplied([&sessions, id](TxnId) { sessions.AddOrphan(id); });
  } else {
    ForgetInode(view, id, left);
  }
  return left;
}

void ForgetInode(View& view, InodeId id, const pb::InodeRecord& inode) {
  view.stats().inodes -= 1;
  if (S_ISREG(inode.mode())) view.stats().file_bytes -= static_cast<int64_t>(inode.size());
  if (inode.has_xattrs()) view.Delete(XattrsKey(id));
  if (inode.extents() > 0) {
    auto* reap = view.Put<pb::ReapRecord>(ReapKey(id));
    reap->set_since_ns(view.now_ns());
    reap->set_extents(inode.extents());
    Reaper* reaper = view.context().reaper;
    view.OnApplied([reaper, id](TxnId) { reaper->Add(id); });
  }
  view.Delete(InodeKey(id));
}

}  // namespace shoal::meta
