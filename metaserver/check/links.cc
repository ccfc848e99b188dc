// Links: every name names an inode of its type, and an inode has as many names as it counts.
#include <fmt/format.h>
#include <sys/stat.h>

#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

constexpr const char* kNext = "restore a backup, or ask with this output";

// What the names of one inode say. A plain value.
struct Names {
  uint64_t count = 0;
  InodeId parent;  // of the last one
};

void CheckFile(CheckRun& run, const Key& key, const pb::InodeRecord& inode, const Names& names) {
  if (inode.nlink() == names.count) return;
  if (names.count == 0) {
    run.Problem("links", key, fmt::format("it counts {} links and has no name", inode.nlink()), kNext);
    return;
  }
  auto count = static_cast<uint32_t>(names.count);
  run.Mendable("links", key, fmt::format("it counts {} links and has {} names", inode.nlink(), names.count), key,
               CheckRun::Edit<pb::InodeRecord>([count](pb::InodeRecord& r) { r.set_nlink(count); }));
}

void CheckDirectory(CheckRun& run, const Key& key, const pb::InodeRecord& inode, const Names& names) {
  bool root = key.number(0) == kRootInode.value;
  uint64_t wanted = root || inode.nlink() == 0 ? 0 : 1;
  if (names.count != wanted) {
    run.Problem("links", key, fmt::format("a directory with {} names", names.count), kNext);
  } else if (names.count == 1 && names.parent.value != inode.parent()) {
    uint64_t parent = names.parent.value;
    run.Mendable("parents", key,
                 fmt::format("its name is in directory {:x}, its parent is {:x}", parent, inode.parent()), key,
                 CheckRun::Edit<pb::InodeRecord>([parent](pb::InodeRecord& r) { r.set_parent(parent); }));
  }
}

}  // namespace

Status CheckLinks(CheckRun& run) {
  NameCursor name(run);
  Cursor<pb::InodeRecord> inode(run, Key(KeyKind::kInode));
  while (name.valid() || inode.valid()) {
    TRY(run.Step());
    uint64_t id = !inode.valid() ? name.name().inode.value : inode.key().number(0);
    if (name.valid()) id = std::min(id, name.name().inode.value);
    bool exists = inode.valid() && inode.key().number(0) == id;
    Names names;
    for (; name.valid() && name.name().inode.value == id; name.Next()) {
      ++names.count;
      names.parent = name.name().parent;
      Key where = DentryKey(name.name().parent, name.name().cookie & ~uint64_t{0xff});
      if (!exists) {
        run.Problem("links", where, fmt::format("an entry names inode {:x}, which does not exist", id),
                    "restore a backup, or remove the name when the file is not missed");
      } else if (name.name().type != (inode.record().mode() & S_IFMT)) {
        run.Problem("links", where, fmt::format("an entry has another type than inode {:x}", id), kNext);
      }
    }
    if (!exists) continue;
    if (S_ISDIR(inode.record().mode())) {
      CheckDirectory(run, inode.key(), inode.record(), names);
    } else {
      CheckFile(run, inode.key(), inode.record(), names);
    }
    inode.Next();
  }
  TRY(name.status());
  return inode.status();
}

}  // namespace shoal::meta
