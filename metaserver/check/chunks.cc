// Chunks: each belongs to one place of one file, and its replicas stand in the index by server.
#include <fmt/format.h>

#include <set>

#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

constexpr const char* kNext = "restore a backup, or ask with this output";

Status CheckOwner(CheckRun& run, const Key& key, const pb::ChunkRecord& chunk) {
  TRY_ASSIGN(auto extent, run.Get<pb::ExtentRecord>(ExtentKey(InodeId(chunk.inode()), chunk.index())));
  if (!extent || extent->chunk() != key.number(0)) {
    run.Problem("chunks", key,
                fmt::format("no file has it: inode {:x}, index {} is not it; its space would never come back",
                            chunk.inode(), chunk.index()),
                kNext);
  }
  return {};
}

Status CheckReplica(CheckRun& run, const Key& key, const pb::ChunkRecord& chunk, const pb::ReplicaRecord& replica) {
  ++run.result.replicas;
  const ServerId server(replica.server());
  const ChunkId id(key.number(0));
  if (!IdWasGiven(run, replica.instance(), run.ids.instance())) {
    run.Problem(
        "ids", key,
        fmt::format("the number of its replica {:x} was never given, and may be given again", replica.instance()),
        kNext);
  }
  TRY_ASSIGN(auto known, run.Get<pb::ServerRecord>(ServerKey(server)));
  if (!known)
    run.Problem("chunks", key, fmt::format("a replica is on server {}, which has no record", server.value), kNext);
  TRY_ASSIGN(auto entry, run.Get<pb::ByServerRecord>(ByServerKey(server, id)));
  if (entry && entry->instance() == replica.instance() && entry->version() == chunk.version()) return {};
  pb::ByServerRecord right;
  right.set_instance(replica.instance());
  right.set_version(chunk.version());
  run.Mendable("by_server", key,
               fmt::format("its replica on server {} {} in the index by server", server.value,
                           entry ? "is another" : "is missing"),
               ByServerKey(server, id), [bytes = right.SerializeAsString()](const std::string&) { return bytes; });
  return {};
}

Status CheckChunk(CheckRun& run, const Key& key, const pb::ChunkRecord& chunk) {
  if (!IdWasGiven(run, key.number(0), run.ids.chunk())) {
    run.Problem("ids", key, "its number was never given, and may be given again", kNext);
  }
  if (chunk.version() == 0) run.Problem("chunks", key, "it has no version", kNext);
  if (chunk.pending_version() && chunk.pending_version() < chunk.version() + (chunk.adopted() ? 0 : 1)) {
    run.Problem("chunks", key,
                fmt::format("a raise from version {} to {} is under way", chunk.version(), chunk.pending_version()),
                kNext);
  }
  if (chunk.written() && chunk.replicas().empty()) {
    run.Problem("chunks", key, "it was written and has no replica: these 64 MiB of its file are lost",
                "look for its replicas with `shoal meta unknown`, restore a backup, or remove the file");
  }
  std::set<uint32_t> servers;
  for (const pb::ReplicaRecord& replica : chunk.replicas()) {
    if (!servers.insert(replica.server()).second) {
      run.Problem("chunks", key, fmt::format("two replicas are on server {}", replica.server()), kNext);
    }
    TRY(CheckReplica(run, key, chunk, replica));
  }
  return CheckOwner(run, key, chunk);
}

}  // namespace

Status CheckChunks(CheckRun& run) {
  Cursor<pb::ChunkRecord> chunk(run, Key(KeyKind::kChunk));
  for (; chunk.valid(); chunk.Next()) {
    TRY(run.Step());
    ++run.chunks;
    TRY(CheckChunk(run, chunk.key(), chunk.record()));
  }
  return chunk.status();
}

}  // namespace shoal::meta
