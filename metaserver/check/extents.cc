// File maps: every extent belongs to a file and names a chunk that is the file's, and the inode counts them.
#include <fmt/format.h>
#include <sys/stat.h>

#include "common/limits.h"
#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

constexpr const char* kNext = "restore a backup, or ask with this output";

// What the extents of one inode say. A plain value.
struct Map {
  uint64_t extents = 0, written = 0;
};

Status CheckExtent(CheckRun& run, const Key& key, const pb::ExtentRecord& extent, Map* map) {
  ++map->extents;
  if (key.number(1) >= kMaxFileSize / kChunkSize)
    run.Problem("extents", key, "behind the largest size of a file", kNext);
  TRY_ASSIGN(auto chunk, run.Get<pb::ChunkRecord>(ChunkKey(ChunkId(extent.chunk()))));
  if (!chunk) {
    run.Problem(
        "extents", key,
        fmt::format("it names chunk {:x}, which has no record: these 64 MiB of the file are lost", extent.chunk()),
        "restore a backup, or remove the file");
    return {};
  }
  map->written += chunk->written();
  if (chunk->inode() != key.number(0) || chunk->index() != key.number(1)) {
    run.Problem(
        "extents", key,
        fmt::format("chunk {:x} belongs to inode {:x}, index {}", extent.chunk(), chunk->inode(), chunk->index()),
        kNext);
  }
  return {};
}

void CheckCounts(CheckRun& run, const Key& key, const pb::InodeRecord& inode, const Map& map) {
  if (!S_ISREG(inode.mode())) {
    if (map.extents) run.Problem("extents", key, "something that is no file has chunks", kNext);
    return;
  }
  if (inode.extents() != map.extents) {
    uint64_t count = map.extents;
    run.Mendable("extents", key, fmt::format("the file counts {} chunks and has {}", inode.extents(), count), key,
                 CheckRun::Edit<pb::InodeRecord>([count](pb::InodeRecord& r) { r.set_extents(count); }));
  }
  if (inode.written_chunks() != map.written) {
    uint64_t count = map.written;
    run.Mendable("extents", key,
                 fmt::format("the file counts {} written chunks and has {}", inode.written_chunks(), count), key,
                 CheckRun::Edit<pb::InodeRecord>([count](pb::InodeRecord& r) { r.set_written_chunks(count); }));
  }
}

// Of an inode that is gone: a background worker drops them.
Status CheckReaped(CheckRun& run, const Key& key, uint64_t id) {
  TRY_ASSIGN(auto reap, run.Get<pb::ReapRecord>(ReapKey(InodeId(id))));
  if (!reap)
    run.Problem("extents", key, "chunks of a file that does not exist, and that nobody is going to drop", kNext);
  return {};
}

}  // namespace

Status CheckExtents(CheckRun& run) {
  Cursor<pb::ExtentRecord> extent(run, Key(KeyKind::kExtent));
  Cursor<pb::InodeRecord> inode(run, Key(KeyKind::kInode));
  while (extent.valid() || inode.valid()) {
    uint64_t id = !inode.valid() ? extent.key().number(0) : inode.key().number(0);
    if (extent.valid()) id = std::min(id, extent.key().number(0));
    bool exists = inode.valid() && inode.key().number(0) == id;
    Map map;
    if (!exists) {
      TRY(CheckReaped(run, extent.key(), id));
    }
    for (; extent.valid() && extent.key().number(0) == id; extent.Next()) {
      TRY(run.Step());
      TRY(CheckExtent(run, extent.key(), extent.record(), &map));
    }
    if (!exists) continue;
    CheckCounts(run, inode.key(), inode.record(), map);
    inode.Next();
  }
  TRY(extent.status());
  return inode.status();
}

}  // namespace shoal::meta
