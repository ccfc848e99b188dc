#include "metaserver/chunks/unknown.h"

#include <algorithm>

#include "common/log.h"
#include "metaserver/chunks/reconcile.h"
#include "metaserver/chunks/server_ops.h"

namespace shoal::meta {
namespace {

constexpr Duration kInterval = std::chrono::minutes(10), kShortestInterval = 100ms;
constexpr size_t kPage = 1000, kBatch = 256;

const char* Describe(uint32_t why) {
  switch (static_cast<KeptBecause>(why)) {
    case KeptBecause::kNoRecord:
      return "no file has its chunk";
    case KeptBecause::kNewer:
      return "newer than its record";
    case KeptBecause::kOlder:
      return "older than its record, from before the restore";
    case KeptBecause::kSpare:
      return "was replaced, but no good one is in reach";
    case KeptBecause::kMoved:
      return "its record has it at another server";
  }
  return "unknown";
}

}  // namespace

void UnknownReplicas::Register() {
  state_.context.driver->OnTask<pb::MetaUnknownRequest, pb::MetaUnknownResponse>(
      pb::META_UNKNOWN, [this](CallInfo info, const pb::MetaUnknownRequest& request,
                               pb::MetaUnknownResponse& response) { return List(std::move(info), request, response); });
}

Result<bool> UnknownReplicas::Keep(View& view, ServerId server, const pb::ReplicaReport& replica, KeptBecause why) {
  Key key = UnknownKey(server, ChunkId(replica.chunk()), InstanceId(replica.instance()));
  TRY_ASSIGN(const pb::UnknownRecord* known, view.Get<pb::UnknownRecord>(key));
  bool same = known && known->version() == replica.version() && known->why() == static_cast<uint32_t>(why);
  if (same) return false;
  int64_t since = known ? known->since_ns() : view.now_ns();
  bool fresh = !known;
  auto* record = view.Put<pb::UnknownRecord>(key);
  record->set_version(replica.version());
  record->set_since_ns(since);
  record->set_why(static_cast<uint32_t>(why));
  return fresh;
}

Status UnknownReplicas::Forget(View& view, ServerId server, ChunkId chunk, InstanceId instance) {
  Key key = UnknownKey(server, chunk, instance);
  TRY_ASSIGN(const pb::UnknownRecord* known, view.Get<pb::UnknownRecord>(key));
  if (known) view.Delete(key);
  return {};
}

void UnknownReplicas::Tick() {
  auto now = std::chrono::steady_clock::now();
  if (running_ || now < next_ || state_.stopping()) return;
  next_ = now + std::clamp<Duration>(state_.context.options.keep_unknown / 10, kShortestInterval, kInterval);
  running_ = true;
  state_.tasks.Spawn(Run());
}

Task<void> UnknownReplicas::Run() {
  Task<Status> drop = DropExpired();
  Status dropped = co_await drop;
  if (!dropped && !state_.stopping())
    LogWarning("dropping replicas that were kept aside: {}", ToString(dropped.error()));
  running_ = false;
}

Status UnknownReplicas::Drop(View& view, const Key& key, int64_t before_ns) {
  TRY_ASSIGN(const pb::UnknownRecord* record, view.Get<pb::UnknownRecord>(key));
  TRY_ASSIGN(const pb::ChunkRecord* chunk, view.GetChunk(ChunkId(key.number(1))));
  if (!record || record->since_ns() > before_ns) return {};
  bool in_use = chunk && std::ranges::any_of(chunk->replicas(),
                                             [&](const pb::ReplicaRecord& r) { return r.instance() == key.number(2); });
  uint32_t version = record->version();
  view.Delete(key);
  if (in_use) return {};
  pb::ReplicaRecord replica;
  replica.set_server(static_cast<uint32_t>(key.number(0)));
  replica.set_instance(key.number(2));
  PutDrop(view, state_, ChunkId(key.number(1)), replica, version);
  return {};
}

Task<Status> UnknownReplicas::DropExpired() {
  if (state_.context.options.keep_unknown == Duration{}) co_return Status();
  int64_t before = state_.context.now_ns() - state_.context.options.keep_unknown.count();
  Store::ScanOptions options;
  options.start = Key(KeyKind::kUnknown);
  options.end = options.start.PrefixEnd();
  options.max_records = kBatch;
  options.filter = [before](const Key&, std::string_view value) {
    pb::UnknownRecord record;
    return record.ParseFromArray(value.data(), static_cast<int>(value.size())) && record.since_ns() <= before;
  };
  while (!options.start.empty() && !state_.stopping()) {
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(options);
    Result<Store::ScanResult> found = co_await scan;
    if (!found) co_return Fail(found.error());
    std::function<Status(View&)> op = [&](View& view) -> Status {
      for (const ScannedRecord& record : found->records)
        view.Want<pb::ChunkRecord>(ChunkKey(ChunkId(record.key.number(1))));
      for (const ScannedRecord& record : found->records) {
        TRY(Drop(view, record.key, before));
      }
      return {};
    };
    Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kDurable);
    Result<TxnId> done = co_await run;
    if (!done) co_return Fail(done.error());
    if (!found->records.empty()) {
      LogWarning("{} replicas that no record knows were kept long enough: they are dropped", found->records.size());
    }
    options.start = found->next;
  }
  co_return Status();
}

Task<Result<TxnId>> UnknownReplicas::List(CallInfo, const pb::MetaUnknownRequest& request,
                                          pb::MetaUnknownResponse& response) {
  Store::ScanOptions options;
  options.start = request.after().empty() ? Key(KeyKind::kUnknown) : Key::FromBytes(request.after());
  if (options.start.empty() || options.start.kind() != KeyKind::kUnknown) {
    co_return Fail(ErrorCode::kInvalidArgument, "such a list goes on from its own keys only");
  }
  options.end = Key(KeyKind::kUnknown).PrefixEnd();
  options.max_records = kPage;
  Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
  Result<Store::ScanResult> found = co_await scan;
  if (!found) co_return Fail(found.error());
  for (const ScannedRecord& scanned : found->records) {
    pb::UnknownRecord record;
    if (!record.ParseFromString(scanned.value)) continue;
    pb::UnknownReplica* out = response.add_replicas();
    auto server = static_cast<uint32_t>(scanned.key.number(0));
    out->set_server(server);
    if (const ServerEntry* entry = state_.registry.Find(ServerId(server))) out->set_server_name(entry->name);
    out->set_chunk(scanned.key.number(1));
    out->set_instance(scanned.key.number(2));
    out->set_version(record.version());
    out->set_why(Describe(record.why()));
    out->set_since_ns(record.since_ns());
  }
  response.set_next(std::string(found->next.view()));
  const MetaContext& context = state_.context;
  response.set_keep_seconds(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(context.options.keep_unknown).count()));
  response.set_restored_incarnation(context.life.restored_incarnation);
  response.set_restored_ns(context.life.restored_ns);
  for (const std::string& name : state_.reconciler->WaitingFor()) response.add_waiting_for(name);
  co_return TxnId();
}

}  // namespace shoal::meta
