// The index by server: what stands there is a replica of its chunk's record.
#include <fmt/format.h>

#include <algorithm>

#include "metaserver/check/invariants.h"

namespace shoal::meta {

Status CheckByServer(CheckRun& run) {
  Cursor<pb::ByServerRecord> entry(run, Key(KeyKind::kByServer));
  for (; entry.valid(); entry.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(auto chunk, run.Get<pb::ChunkRecord>(ChunkKey(ChunkId(entry.key().number(1)))));
    bool found = chunk && std::ranges::any_of(chunk->replicas(), [&](const pb::ReplicaRecord& r) {
                   return r.server() == entry.key().number(0);
                 });
    if (found) continue;  // CheckChunks compares the rest
    run.Mendable("by_server", entry.key(), chunk ? "the chunk has no replica there" : "there is no such chunk",
                 entry.key(), [](const std::string&) { return std::string(); });
  }
  return entry.status();
}

}  // namespace shoal::meta
