// What goes in the background: orphans (no name, open in a session), reaped inodes, truncations. Which session has an
// orphan open is known to the sessions alone; without any it goes at the metaserver's next start.
#include <sys/stat.h>

#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

constexpr const char* kNext = "restore a backup, or ask with this output";

Status CheckOrphans(CheckRun& run) {
  Cursor<pb::OrphanRecord> orphan(run, Key(KeyKind::kOrphan));
  for (; orphan.valid(); orphan.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(auto inode, run.Get<pb::InodeRecord>(InodeKey(InodeId(orphan.key().number(0)))));
    if (!inode) {
      run.Mendable("orphans", orphan.key(), "there is no such inode", orphan.key(),
                   [](const std::string&) { return std::string(); });
    } else if (inode->nlink() > 0) {
      run.Mendable("orphans", orphan.key(), "it has a name", orphan.key(),
                   [](const std::string&) { return std::string(); });
    }
  }
  return orphan.status();
}

Status CheckReaps(CheckRun& run) {
  Cursor<pb::ReapRecord> reap(run, Key(KeyKind::kReap));
  for (; reap.valid(); reap.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(auto inode, run.Get<pb::InodeRecord>(InodeKey(InodeId(reap.key().number(0)))));
    if (inode) run.Problem("reaps", reap.key(), "the inode is there, and its chunks are going to be dropped", kNext);
  }
  return reap.status();
}

Status CheckTruncations(CheckRun& run) {
  Cursor<pb::TruncateIntent> cut(run, Key(KeyKind::kTruncate));
  for (; cut.valid(); cut.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(auto inode, run.Get<pb::InodeRecord>(InodeKey(InodeId(cut.key().number(0)))));
    if (!inode || !S_ISREG(inode->mode())) run.Problem("truncations", cut.key(), "there is no such file", kNext);
  }
  return cut.status();
}

}  // namespace

Status CheckUnlinked(CheckRun& run) {
  TRY(CheckOrphans(run));
  TRY(CheckReaps(run));
  return CheckTruncations(run);
}

}  // namespace shoal::meta
