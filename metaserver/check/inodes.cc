// Inodes: each by itself, and its directory's way up to the root.
#include <fmt/format.h>
#include <sys/stat.h>

#include "common/limits.h"
#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

constexpr const char* kNext = "restore a backup, or ask with this output";
constexpr int kMaxDepth = 100000;

bool IsKnownType(uint32_t mode) {
  return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode) ||
         S_ISBLK(mode);
}

// A directory with a name reaches the root.
Status CheckParents(CheckRun& run, const Key& key, const pb::InodeRecord& inode) {
  uint64_t at = inode.parent();
  if (key.number(0) == kRootInode.value) {
    if (at != kRootInode.value) run.Problem("parents", key, "the root's parent is not itself", kNext);
    return {};
  }
  for (int depth = 0; at != kRootInode.value; ++depth) {
    TRY_ASSIGN(std::optional<pb::InodeRecord> parent, run.Get<pb::InodeRecord>(InodeKey(InodeId(at))));
    if (!parent || !S_ISDIR(parent->mode())) {
      run.Problem("parents", key, fmt::format("the directory above it, inode {:x}, does not exist", at), kNext);
      return {};
    }
    if (parent->nlink() == 0) {
      run.Problem("parents", key, fmt::format("the directory above it, inode {:x}, was removed", at), kNext);
      return {};
    }
    if (at == key.number(0) || depth > kMaxDepth) {
      run.Problem("parents", key, "the directory lies below itself", kNext);
      return {};
    }
    at = parent->parent();
  }
  return {};
}

Status CheckInode(CheckRun& run, const Key& key, const pb::InodeRecord& inode) {
  const uint64_t id = key.number(0);
  if (!IsKnownType(inode.mode()))
    run.Problem("inodes", key, fmt::format("its mode {:o} is of no type", inode.mode()), kNext);
  if (id != kRootInode.value && !IdWasGiven(run, id, run.ids.inode())) {
    run.Problem("ids", key, "its number was never given, and may be given again", kNext);
  }
  if (S_ISLNK(inode.mode()) && (inode.target().empty() || inode.target().size() != inode.size())) {
    run.Problem("inodes", key, "a symbolic link whose target has another length than its size", kNext);
  }
  if (S_ISREG(inode.mode()) && inode.size() > kMaxFileSize)
    run.Problem("sizes", key, "larger than a file can be", kNext);
  TRY_ASSIGN(auto xattrs, run.Get<pb::XattrsRecord>(XattrsKey(InodeId(id))));
  if (inode.has_xattrs() != xattrs.has_value()) {
    bool has = xattrs.has_value();
    run.Mendable("xattrs", key,
                 has ? "it has xattrs and does not know of them" : "it counts on xattrs that are not there", key,
                 CheckRun::Edit<pb::InodeRecord>([has](pb::InodeRecord& r) { r.set_has_xattrs(has); }));
  }
  if (inode.nlink() == 0) {
    TRY_ASSIGN(auto orphan, run.Get<pb::OrphanRecord>(OrphanKey(InodeId(id))));
    if (!orphan) {
      run.Mendable("orphans", key, "it has no name and is not listed as an orphan: its space would never come back",
                   OrphanKey(InodeId(id)), [](const std::string&) {
                     pb::OrphanRecord record;
                     record.set_since_ns(1);
                     return record.SerializeAsString();
                   });
    }
    return {};
  }
  return S_ISDIR(inode.mode()) ? CheckParents(run, key, inode) : Status();
}

}  // namespace

Status CheckInodes(CheckRun& run) {
  bool root = false;
  Cursor<pb::InodeRecord> inode(run, Key(KeyKind::kInode));
  for (; inode.valid(); inode.Next()) {
    TRY(run.Step());
    root |= inode.key().number(0) == kRootInode.value;
    ++run.inodes;
    if (S_ISREG(inode.record().mode())) run.file_bytes += static_cast<int64_t>(inode.record().size());
    TRY(CheckInode(run, inode.key(), inode.record()));
  }
  if (!root) run.Problem("inodes", InodeKey(kRootInode), "there is no root directory", "restore a backup");
  return inode.status();
}

}  // namespace shoal::meta
