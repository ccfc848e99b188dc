#include "common/checksum.h"
#include "common/log.h"
#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/reconcile.h"
#include "metaserver/chunks/server_ops.h"

namespace shoal::meta {
namespace {

constexpr int64_t kYoung = 10'000'000'000;  // ns: a chunk this new may be missing in a list that is a little older
constexpr Duration kVerifyTimeout = 5s;

}  // namespace

uint64_t ReplicaDigest(uint64_t chunk, uint32_t version, uint64_t instance) {
  uint8_t bytes[20];
  for (int i = 0; i < 8; i++) bytes[i] = static_cast<uint8_t>(chunk >> (8 * i));
  for (int i = 0; i < 4; i++) bytes[8 + i] = static_cast<uint8_t>(version >> (8 * i));
  for (int i = 0; i < 8; i++) bytes[12 + i] = static_cast<uint8_t>(instance >> (8 * i));
  return Checksum(bytes, sizeof bytes);
}

void Inventory::Register() {
  Driver& driver = *state_.context.driver;
  driver.OnTask<pb::InventoryDigestRequest, pb::InventoryDigestResponse>(
      pb::INVENTORY_DIGEST,
      [this](CallInfo info, const pb::InventoryDigestRequest& request, pb::InventoryDigestResponse& response) {
        return Digest(std::move(info), request, response);
      });
  driver.OnTask<pb::InventoryBucketRequest, pb::InventoryBucketResponse>(
      pb::INVENTORY_BUCKET,
      [this](CallInfo info, const pb::InventoryBucketRequest& request, pb::InventoryBucketResponse& response) {
        return Bucket(std::move(info), request, response);
      });
}

// Reads what the records say of a server: digests of all buckets, or the lists of the wanted ones.
Task<Status> Inventory::Collect(ServerId server, const std::set<uint32_t>* wanted, std::array<uint64_t, 256>* digests,
                                Buckets* buckets) {
  Key next(KeyKind::kByServer, server.value);
  Key end = next.PrefixEnd();
  while (!next.empty()) {
    if (state_.stopping()) co_return Fail(ErrorCode::kCancelled, "the metaserver stops");
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    options.filter = [wanted, digests, buckets](const Key& key, std::string_view value) {
      uint64_t chunk = key.number(1);
      auto bucket = static_cast<uint32_t>(InventoryBucket(chunk));
      if (wanted && !wanted->contains(bucket)) return false;
      pb::ByServerRecord record;
      if (!record.ParseFromArray(value.data(), static_cast<int>(value.size()))) return false;
      if (digests) (*digests)[bucket] += ReplicaDigest(chunk, record.version(), record.instance());
      if (buckets) (*buckets)[bucket].push_back({chunk, record.instance()});
      return false;
    };
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> found = co_await scan;
    if (!found) co_return Fail(found.error());
    next = found->next;
  }
  co_return Status();
}

Task<Result<TxnId>> Inventory::Digest(CallInfo info, const pb::InventoryDigestRequest& request,
                                      pb::InventoryDigestResponse& response) {
  ServerId server(request.server());
  ServerEntry* entry = state_.registry.Find(server);
  if (!entry || entry->connection != info.connection) {
    co_return Fail(ErrorCode::kNotReady, "not registered on this connection: register");
  }
  if (request.digests_size() != static_cast<int>(kInventoryBuckets)) {
    co_return Fail(ErrorCode::kInvalidArgument, "an inventory has 256 digests");
  }
  entry->want_inventory = false;
  entry->inventory_open = true;
  std::array<uint64_t, 256> ours{};
  Task<Status> collect = Collect(server, nullptr, &ours, nullptr);
  Status collected = co_await collect;
  if (!collected) co_return Fail(collected.error());
  std::set<uint32_t> differing;
  for (uint32_t b = 0; b < kInventoryBuckets; b++) {
    if (ours[b] != request.digests(static_cast<int>(b))) differing.insert(b);
  }
  Buckets buckets;
  if (!differing.empty()) {
    Task<Status> lists = Collect(server, &differing, nullptr, &buckets);
    Status listed = co_await lists;
    if (!listed) co_return Fail(listed.error());
    for (uint32_t b : differing) response.add_differing(b);
  }
  LogInfo("inventory of chunkserver {}: {} of 256 buckets differ", server.value, differing.size());
  open_[server] = Open{std::move(differing), std::move(buckets)};
  EndBucket(server, kInventoryBuckets);
  co_return TxnId();
}

bool Inventory::Kept(Verdict verdict) {
  return verdict == Verdict::kUnknown || verdict == Verdict::kNewer || verdict == Verdict::kSpare || verdict == Verdict::kOlder;
}

// After a restore the record is older than what the server has: the newer version is the record's from now on, whoever
// has it is a replica, and a recovery makes them equal before anybody reads or writes. Only while nothing was written
// under the record since the restore (which would have raised it): two histories are never mixed.
Status Inventory::Adopt(View& view, ServerId server, const pb::ReplicaReport& replica) {
  ChunkId chunk(replica.chunk());
  auto* record = view.MutableChunk(chunk);
  std::vector<pb::ReplicaRecord> replicas;
  for (const pb::ReplicaRecord& r : record->replicas()) {
    if (r.server() != server.value) replicas.push_back(r);
    if (r.server() != server.value || r.instance() == replica.instance()) continue;
    pb::ReplicaReport before;  // another one on the same server
    before.set_chunk(replica.chunk());
    before.set_instance(r.instance());
    before.set_version(record->version());
    TRY_ASSIGN(bool fresh, state_.unknown->Keep(view, server, before, KeptBecause::kOlder));
    (void)fresh;
  }
  replicas.emplace_back();
  replicas.back().set_server(server.value);
  replicas.back().set_instance(replica.instance());
  record->clear_replicas();  // none of them is dropped by this
  record->set_version(replica.version());
  record->set_pending_version(replica.version());
  record->set_adopted(true);
  SetReplicas(view, state_, chunk, record, replicas);
  return state_.unknown->Forget(view, server, chunk, InstanceId(replica.instance()));
}

// What one reported replica is, compared with the record; a stale one is ordered to be dropped in the same batch.
Status Inventory::Judge(View& view, ServerId server, const pb::ReplicaReport& replica, Verdict* verdict) {
  ChunkId chunk(replica.chunk());
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
  TRY_ASSIGN(const pb::DropRecord* drop,
             view.Get<pb::DropRecord>(DropKey(server, chunk, InstanceId(replica.instance()))));
  *verdict = Verdict::kFine;
  if (drop || state_.in_flight.contains(InstanceId(replica.instance()))) return {};
  if (!record) return Keep(view, server, replica, KeptBecause::kNoRecord, Verdict::kUnknown, verdict);
  const bool before = state_.IsOfBefore(replica.instance());
  const uint32_t highest = std::max(record->version(), record->pending_version());
  const bool newer = replica.version() > highest && !replica.bad();
  const bool untouched = record->version() <= state_.VersionFloor();  // since the restore
  bool good = false;  // there is one of the record's version in reach
  bool member = false;
  for (const pb::ReplicaRecord& r : record->replicas()) {
    bool bad = state_.bad->Contains(InstanceId(r.instance()));
    good |= !record->pending_version() && state_.IsLive(r.server()) && !bad;
    if (r.instance() != replica.instance()) continue;
    if (r.server() != server.value) {  // its directory has become another server: it may be all there is
      return Keep(view, server, replica, KeptBecause::kMoved, Verdict::kUnknown, verdict);
    }
    member = true;
  }
  bool joins = !member && record->adopted() && replica.version() == record->version() && !replica.bad();
  if (before && untouched && (newer || joins)) {
    *verdict = Verdict::kAdopted;
    return Adopt(view, server, replica);
  }
  if (member) {
    TRY(state_.unknown->Forget(view, server, chunk, InstanceId(replica.instance())));
    if (replica.bad() || replica.version() < record->version()) *verdict = Verdict::kLost;
    if (newer) *verdict = Verdict::kNewer;
    return {};
  }
  if (newer) return Keep(view, server, replica, KeptBecause::kNewer, Verdict::kNewer, verdict);
  if (before) return Keep(view, server, replica, KeptBecause::kOlder, Verdict::kOlder, verdict);
  if (!good) return Keep(view, server, replica, KeptBecause::kSpare, Verdict::kSpare, verdict);
  *verdict = Verdict::kStale;
  pb::ReplicaRecord stale;
  stale.set_server(server.value);
  stale.set_instance(replica.instance());
  TRY(state_.unknown->Forget(view, server, chunk, InstanceId(replica.instance())));
  PutDrop(view, state_, chunk, stale, replica.version());
  return {};
}

Status Inventory::Keep(View& view, ServerId server, const pb::ReplicaReport& replica, KeptBecause why, Verdict kept,
                       Verdict* verdict) {
  *verdict = kept;
  TRY_ASSIGN(bool fresh, state_.unknown->Keep(view, server, replica, why));
  if (!fresh) return {};
  pb::ReplicaReport copy = replica;
  view.OnApplied([server, copy](TxnId) {
    LogWarning("chunkserver {} has a replica that is kept aside (`shoal meta unknown`): chunk {:016x} version {} instance {:x}",
               server.value, copy.chunk(), copy.version(), copy.instance());
  });
  return {};
}

Task<Result<TxnId>> Inventory::Bucket(CallInfo info, const pb::InventoryBucketRequest& request,
                                      pb::InventoryBucketResponse&) {
  ServerId server(request.server());
  ServerEntry* entry = state_.registry.Find(server);
  if (!entry || entry->connection != info.connection) {
    co_return Fail(ErrorCode::kNotReady, "not registered on this connection: register");
  }
  std::set<uint64_t> have;
  uint64_t unknown = 0;
  for (const pb::ReplicaReport& replica : request.replicas()) {
    have.insert(replica.instance());
    Verdict verdict = Verdict::kFine;
    std::function<Status(View&)> op = [&](View& view) { return Judge(view, server, replica, &verdict); };
    Task<Result<TxnId>> judging = RunOp(state_, std::move(op), CommitLevel::kLogged);
    Result<TxnId> judged = co_await judging;
    if (!judged) co_return Fail(judged.error());
    if (Kept(verdict)) {
      (verdict == Verdict::kNewer ? found_.newer : found_.unknown)++;
      unknown++;
    } else if (verdict == Verdict::kAdopted) {
      found_.adopted++;
      state_.reconciler->Adopted(ChunkId(replica.chunk()));
    } else if (verdict == Verdict::kStale) {
      found_.stale++;
    } else if (verdict == Verdict::kLost) {
      Task<void> check = CheckLost(server, ChunkId(replica.chunk()), InstanceId(replica.instance()),
                                   replica.bad() ? Doubt::kBad : Doubt::kOld);
      co_await check;
    }
  }
  if (unknown) state_.unknown_replicas.Set(static_cast<int64_t>(found_.unknown + found_.newer));
  Task<void> missing = CheckMissing(server, request.bucket(), std::move(have));
  co_await missing;
  EndBucket(server, request.bucket());
  co_return TxnId();
}

void Inventory::EndBucket(ServerId server, uint32_t bucket) {
  auto open = open_.find(server);
  if (open == open_.end()) return;
  open->second.differing.erase(bucket);
  open->second.expected.erase(bucket);
  if (!open->second.differing.empty()) return;
  open_.erase(open);
  if (ServerEntry* entry = state_.registry.Find(server)) entry->inventory_open = false;
  state_.reconciler->Told(server);
}

// What the records have in the bucket and the server does not.
Task<void> Inventory::CheckMissing(ServerId server, uint32_t bucket, std::set<uint64_t> have) {
  auto open = open_.find(server);
  if (open == open_.end()) co_return;
  std::vector<Expected> expected = open->second.expected[bucket];
  for (const Expected& e : expected) {
    if (have.contains(e.instance)) continue;
    Task<void> check = CheckLost(server, ChunkId(e.chunk), InstanceId(e.instance), Doubt::kMissing);
    co_await check;
  }
}

Task<Status> Inventory::Verify(ServerId server, ChunkId chunk, InstanceId instance, uint32_t version) {
  pb::VerifyChunkRequest request;
  request.set_chunk(chunk.value);
  request.set_version(version);
  request.set_instance(instance.value);
  request.set_length(kBlockSize);
  Task<Result<pb::VerifyChunkResponse>> call =
      CallServer<pb::VerifyChunkResponse>(state_, server.value, pb::VERIFY_CHUNK, request, kVerifyTimeout);
  Result<pb::VerifyChunkResponse> answer = co_await call;
  if (!answer) co_return Fail(answer.error());
  if (!answer->good()) co_return Fail(ErrorCode::kCorrupt, "it can't be read");
  co_return Status();
}

Task<void> Inventory::CheckLost(ServerId server, ChunkId chunk, InstanceId instance, Doubt doubt) {
  bool suspicious = false;
  uint32_t version = 0;
  std::function<Status(View&)> op = [&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
    suspicious = false;
    if (!record || record->pending_version()) return {};  // a recovery asks all replicas itself
    bool young = !record->written() || view.now_ns() - record->created_ns() < kYoung;
    if (doubt == Doubt::kMissing && young) return {};
    version = record->version();
    for (const pb::ReplicaRecord& r : record->replicas()) suspicious |= r.instance() == instance.value;
    return {};
  };
  Task<Result<TxnId>> look = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> looked = co_await look;
  if (!looked || !suspicious) co_return;
  Status fine = Fail(ErrorCode::kCorrupt, "its server has found it bad");
  if (doubt != Doubt::kBad) {
    Task<Status> verify = Verify(server, chunk, instance, version);
    fine = co_await verify;
  }
  if (fine || !IsReplicaError(fine.error().code)) co_return;
  found_.lost++;
  LogWarning("chunk {:016x}: the replica on server {} is lost: {}", chunk.value, server.value, ToString(fine.error()));
  // Should it have been raised meanwhile, it was there.
  if (fine.error().code == ErrorCode::kVersionMismatch) {
    state_.AddStale(chunk, instance, version);
  } else {
    state_.bad->Add(chunk, instance, version);
  }
}

}  // namespace shoal::meta
