// No replica that a record has is ordered to be dropped, or kept aside as unknown.
#include <algorithm>

#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

// The replica named by server, chunk and instance is in its chunk's record.
Result<bool> InRecord(CheckRun& run, const Key& key) {
  TRY_ASSIGN(auto chunk, run.Get<pb::ChunkRecord>(ChunkKey(ChunkId(key.number(1)))));
  return chunk && std::ranges::any_of(chunk->replicas(), [&](const pb::ReplicaRecord& r) {
           return r.server() == key.number(0) && r.instance() == key.number(2);
         });
}

std::string Nothing(const std::string&) { return {}; }

}  // namespace

Status CheckOrders(CheckRun& run) {
  Cursor<pb::DropRecord> drop(run, Key(KeyKind::kDrop));
  for (; drop.valid(); drop.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(bool in_record, InRecord(run, drop.key()));
    if (in_record)
      run.Mendable("drops", drop.key(), "a replica that its chunk counts on is going to be dropped", drop.key(),
                   Nothing);
  }
  TRY(drop.status());
  Cursor<pb::UnknownRecord> unknown(run, Key(KeyKind::kUnknown));
  for (; unknown.valid(); unknown.Next()) {
    TRY(run.Step());
    TRY_ASSIGN(bool in_record, InRecord(run, unknown.key()));
    if (in_record)
      run.Mendable("unknown", unknown.key(), "it is kept as unknown, and its chunk has it", unknown.key(), Nothing);
  }
  return unknown.status();
}

}  // namespace shoal::meta
