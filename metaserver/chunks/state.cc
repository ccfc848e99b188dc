#include "metaserver/chunks/state.h"

#include <algorithm>

#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/drops.h"
#include "metaserver/chunks/repair.h"
#include "metaserver/sessions.h"

namespace shoal::meta {

const std::set<uint64_t>* UnsyncedIndex::Find(InodeId id) const {
  auto it = inodes_.find(id);
  if (it == inodes_.end() || it->second.loading) return nullptr;
  return &it->second.indices;
}

void UnsyncedIndex::Marked(InodeId id, uint64_t index, bool fresh) {
  auto it = inodes_.find(id);
  if (it == inodes_.end()) {
    if (!fresh) return;
    if (inodes_.size() >= kMaxInodes) std::erase_if(inodes_, [](const auto& e) { return e.second.loading == 0; });
    it = inodes_.emplace(id, Entry{}).first;
  }
  it->second.indices.insert(index);
}

void UnsyncedIndex::Cleared(InodeId id, uint64_t index) {
  auto it = inodes_.find(id);
  if (it != inodes_.end() && !it->second.loading) it->second.indices.erase(index);
}

void UnsyncedIndex::BeginLoad(InodeId id) { inodes_[id].loading++; }

void UnsyncedIndex::EndLoad(InodeId id, bool ok) {
  auto it = inodes_.find(id);
  if (it == inodes_.end()) return;
  if (--it->second.loading == 0 && !ok) inodes_.erase(it);
}

ChunkState::ChunkState(MetaContext& c)
    : context(c),
      registry(c.options.server_lease, c.options.server_lease_margin),
      rng(std::random_device()()),
      changed(c.loop),
      tasks(c.loop),
      bad_replicas(c.metrics.counter("shoal_metaserver_bad_replicas_total", "Replicas that were reported as bad")),
      recoveries(c.metrics.counter("shoal_metaserver_recoveries_total", "Chunk versions raised")),
      replicated_chunks(c.metrics.counter("shoal_metaserver_replicated_chunks_total", "Replicas made again")),
      replicated_bytes(c.metrics.counter("shoal_metaserver_replicated_bytes_total", "Bytes copied for replicas")),
      dropped_replicas(c.metrics.counter("shoal_metaserver_dropped_replicas_total", "Replicas that servers dropped")),
      unknown_replicas(c.metrics.gauge("shoal_metaserver_unknown_replicas",
                                       "Replicas in the last inventories that no record knows")) {}

std::shared_ptr<Connection> ChunkState::ConnectionOf(uint32_t server) const {
  const ServerEntry* entry = registry.Find(ServerId(server));
  if (!entry || !entry->connection || entry->connection->closed()) return nullptr;
  return entry->connection;
}

void ChunkState::EndDeadCalls() {
  for (auto& [server, end] : calls) {
    if (IsDead(server)) end();
  }
}

void ChunkState::AddStale(ChunkId chunk, InstanceId instance, uint32_t version) {
  std::erase_if(stale, [this](InstanceId i) { return !bad->Contains(i); });
  stale.insert(instance);
  bad->Add(chunk, instance, version);
}

size_t ChunkState::possible_servers() const {
  BootTime at = now();
  size_t n = 0;
  for (const auto& [id, entry] : registry.all()) n += registry.State(entry, at) != ServerState::kDead;
  return n;
}

uint32_t ChunkState::MinCopies(uint32_t copies) const {
  auto known = static_cast<uint32_t>(std::max<size_t>(1, registry.all().size()));
  return std::max<uint32_t>(1, std::min({context.options.min_copies, copies, known}));
}

bool ChunkState::StartingUp() const {
  Duration since = std::chrono::steady_clock::now() - context.started;
  if (since > context.options.server_lease + context.options.server_lease_margin) return false;
  for (const auto& [id, entry] : registry.all()) {
    if (!entry.registered_here) return true;
  }
  return false;
}

uint32_t ChunkState::CopiesOf(const pb::InodeRecord& inode) const {
  uint32_t copies = inode.copies() ? inode.copies() : context.default_copies;
  return std::max<uint32_t>(1, copies);
}

void FillExtent(const ChunkState& state, ChunkId chunk, uint64_t index, const pb::ChunkRecord& record, uint64_t lease,
                pb::Extent* out) {
  out->set_index(index);
  out->set_chunk(chunk.value);
  out->set_version(record.version());
  out->set_written(record.written());
  out->set_lease(lease);
  BootTime at = state.now();
  for (const pb::ReplicaRecord& replica : record.replicas()) {
    pb::Replica* r = out->add_replicas();
    r->set_server(replica.server());
    r->set_instance(replica.instance());
    const ServerEntry* entry = state.registry.Find(ServerId(replica.server()));
    if (!entry) continue;
    r->set_name(entry->name);
    if (state.registry.State(*entry, at) == ServerState::kDead) continue;
    r->set_address(entry->address);
    r->set_live(state.registry.State(*entry, at) == ServerState::kLive);
  }
}

void PutDrop(View& view, ChunkState& state, ChunkId chunk, const pb::ReplicaRecord& replica, uint32_t version) {
  ServerId server(replica.server());
  auto* drop = view.Put<pb::DropRecord>(DropKey(server, chunk, InstanceId(replica.instance())));
  drop->set_server(replica.server());
  drop->set_chunk(chunk.value);
  drop->set_instance(replica.instance());
  drop->set_version(version);
  drop->set_since_ns(view.now_ns());
  view.OnApplied([&state, server](TxnId) { state.drops->Noted(server); });
}

void PutWork(View& view, ChunkState& state, ChunkId chunk) {
  auto* work = view.Put<pb::WorkRecord>(WorkKey(chunk));
  work->set_kind(1);
  work->set_since_ns(view.now_ns());
  view.OnApplied([&state, chunk](TxnId) { state.repairer->Add(chunk); });
}

void SetReplicas(View& view, ChunkState& state, ChunkId chunk, pb::ChunkRecord* record,
                 const std::vector<pb::ReplicaRecord>& replicas) {
  for (const pb::ReplicaRecord& before : record->replicas()) {
    bool stays = std::any_of(replicas.begin(), replicas.end(), [&](const pb::ReplicaRecord& r) {
      return r.server() == before.server() && r.instance() == before.instance();
    });
    if (stays) continue;
    view.Delete(ByServerKey(ServerId(before.server()), chunk));
    PutDrop(view, state, chunk, before, record->version());
  }
  record->clear_replicas();
  for (const pb::ReplicaRecord& r : replicas) {
    *record->add_replicas() = r;
    auto* by_server = view.Put<pb::ByServerRecord>(ByServerKey(ServerId(r.server()), chunk));
    by_server->set_instance(r.instance());
    by_server->set_version(record->version());
  }
}

Status DropExtentRecords(View& view, ChunkState& state, InodeId id, uint64_t index) {
  TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, index));
  if (!extent) return {};
  ChunkId chunk(extent->chunk());
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  bool written = record && record->written();
  if (record) {
    for (const pb::ReplicaRecord& replica : record->replicas()) {
      view.Delete(ByServerKey(ServerId(replica.server()), chunk));
      PutDrop(view, state, chunk, replica, record->version());
    }
    view.Delete(ChunkKey(chunk));
    view.stats().chunks--;
    view.OnApplied([&state, chunk](TxnId) { state.lost_blocks.erase(chunk); });
  }
  view.Delete(ExtentKey(id, index));
  if (inode) {
    auto* changed = view.MutableInode(id);
    if (changed->extents()) changed->set_extents(changed->extents() - 1);
    if (written && changed->written_chunks()) changed->set_written_chunks(changed->written_chunks() - 1);
  }
  return {};
}

void SetSize(View& view, pb::InodeRecord* inode, uint64_t size) {
  view.stats().file_bytes += static_cast<int64_t>(size) - static_cast<int64_t>(inode->size());
  inode->set_size(size);
}

bool HasWriter(const pb::ChunkRecord& record, SessionId session) {
  return std::find(record.writers().begin(), record.writers().end(), session.value) != record.writers().end();
}

bool MayWrite(const ChunkState& state, SessionId session, InodeId id) {
  Session* found = state.context.sessions->Find(session);
  return found && (!found->resumed || state.context.sessions->IsOpen(session, id));
}

bool NeedsFence(const ChunkState& state, const pb::ChunkRecord& record) {
  return std::any_of(record.writers().begin(), record.writers().end(),
                     [&](uint64_t writer) { return state.context.sessions->Lapsed(SessionId(writer)); });
}

bool IsQuiet(const ChunkState& state, const pb::ChunkRecord& record) {
  InodeId inode(record.inode());
  if (record.pending_version() || NeedsFence(state, record) || state.context.busy->Contains(inode)) return false;
  return std::none_of(record.writers().begin(), record.writers().end(),
                      [&](uint64_t writer) { return MayWrite(state, SessionId(writer), inode); });
}

Task<Result<TxnId>> RunOp(ChunkState& state, std::function<Status(View&)> op, CommitLevel level) {
  Task<Result<TxnId>> task = state.context.driver->Execute(std::move(op), level);
  Result<TxnId> done = co_await task;
  co_return done;
}

bool IsReplicaError(ErrorCode code) {
  switch (code) {
    case ErrorCode::kVersionMismatch:
    case ErrorCode::kNoReplica:
    case ErrorCode::kCorrupt:
    case ErrorCode::kChecksumMismatch:
    case ErrorCode::kIo:
    case ErrorCode::kReadOnly:      // its file system was remounted after an error
    case ErrorCode::kNotSupported:
      return true;
    default:
      return false;
  }
}

}  // namespace shoal::meta
