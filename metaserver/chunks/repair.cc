#include "metaserver/chunks/repair.h"

#include <algorithm>
#include <span>

#include "common/log.h"
#include "common/proto/control.pb.h"
#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/drops.h"
#include "metaserver/chunks/recovery.h"

namespace shoal::meta {
namespace {

constexpr size_t kAtOnce = 4;
constexpr uint64_t kBytesPerSecond = 64ull << 20;  // of each copy under way
constexpr Duration kCopyTimeout = 120s;
constexpr Duration kFirstPause = 5s, kLongestPause = 60s;
constexpr size_t kMaxWaiting = 10000;

}  // namespace

void Repairer::Start() { state_.tasks.Spawn(LoadWork()); }

void Repairer::ServersChanged() {
  for (const auto& [at, chunk] : parked_) fresh_.insert(chunk);
  parked_.clear();
  pauses_.clear();
}

size_t Repairer::queued() const {
  size_t n = fresh_.size();
  for (const auto& [live, chunks] : waiting_) n += chunks.size();
  return n;
}

std::vector<ChunkId> Repairer::Backlog(size_t max) const {
  std::vector<ChunkId> chunks(fresh_.begin(), fresh_.end());
  for (const auto& [live, waiting] : waiting_) chunks.insert(chunks.end(), waiting.begin(), waiting.end());
  for (const auto& [at, chunk] : parked_) chunks.push_back(chunk);
  for (const auto& [chunk, changed] : running_) chunks.push_back(chunk);
  if (chunks.size() > max) chunks.resize(max);
  return chunks;
}

void Repairer::Park(ChunkId chunk) {
  Duration& pause = pauses_[chunk];
  pause = std::clamp(pause * 2, kFirstPause, kLongestPause);
  parked_.emplace(std::chrono::steady_clock::now() + pause, chunk);
}

void Repairer::Tick() {
  if (state_.stopping()) return;
  auto now = std::chrono::steady_clock::now();
  while (!parked_.empty() && parked_.begin()->first <= now) {
    fresh_.insert(parked_.begin()->second);
    parked_.erase(parked_.begin());
  }
  BootTime at = state_.now();
  for (auto& [id, entry] : state_.registry.all()) {
    if (entry.gone_handled || state_.registry.DeadFor(entry, at) < state_.context.options.rereplication_grace) continue;
    if (state_.registry.State(entry, at) != ServerState::kDead) continue;
    entry.gone_handled = true;
    LogWarning("chunkserver {} ({}) has been away longer than the grace: its chunks are copied elsewhere", id.value,
               entry.name);
    state_.tasks.Spawn(LeaveServer(id));
  }
  StartSome();
}

void Repairer::StartSome() {
  if (state_.StartingUp() || state_.stopping()) return;
  while (running_.size() < kAtOnce && (!fresh_.empty() || !waiting_.empty())) {
    bool fresh = !fresh_.empty();
    auto fewest = waiting_.begin();
    std::set<ChunkId>& from = fresh ? fresh_ : fewest->second;
    ChunkId chunk = *from.begin();
    from.erase(from.begin());
    if (!fresh && from.empty()) waiting_.erase(fewest);
    if (running_.emplace(chunk, false).second) {
      state_.tasks.Spawn(fresh ? Sort(chunk) : Run(chunk));
    } else {
      Park(chunk);
    }
  }
}

Task<void> Repairer::Sort(ChunkId chunk) {
  size_t live = 0;
  std::function<Status(View&)> op = [&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
    live = 0;
    for (int i = 0; record && i < record->replicas_size(); i++) live += state_.IsLive(record->replicas(i).server());
    return {};
  };
  Task<Result<TxnId>> look = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> looked = co_await look;
  if (looked) {
    waiting_[live].insert(chunk);
  } else {
    Park(chunk);
  }
  EndOf(chunk);
}

Task<void> Repairer::Run(ChunkId chunk) {
  Task<Result<End>> repair = Repair(chunk, false);
  Result<End> end = co_await repair;
  if (end && *end != End::kNoTarget) pauses_.erase(chunk);
  if (end && *end == End::kRetry) {
    fresh_.insert(chunk);
  } else if (!end || *end != End::kDone) {
    if (!end) LogDebug("chunk {:016x} could not be given another copy: {}", chunk.value, ToString(end.error()));
    fresh_.erase(chunk);
    Park(chunk);
  }
  EndOf(chunk);
}

void Repairer::EndOf(ChunkId chunk) {
  running_.erase(chunk);
  // The next one, off this stack: repairs that end at once must not pile up on it.
  state_.context.loop.Post([this, alive = state_.alive] {
    if (*alive) StartSome();
  });
}

Task<Status> Repairer::RepairNow(ChunkId chunk) {
  while (running_.contains(chunk)) {
    auto wait = state_.changed.Wait();
    co_await wait;
    if (state_.stopping()) co_return Fail(ErrorCode::kCancelled, "the metaserver stops");
  }
  running_[chunk] = false;
  Task<Result<End>> repair = Repair(chunk, true);
  Result<End> end = co_await repair;
  running_.erase(chunk);
  if (!end) co_return Fail(end.error());
  if (*end == End::kNoTarget) {
    co_return Fail(ErrorCode::kNotEnoughServers,
                   fmt::format("chunk {:016x} has too few copies, and no chunkserver has room for another", chunk.value));
  }
  co_return Status();
}

bool Repairer::Gone(uint32_t server) const {
  const ServerEntry* entry = state_.registry.Find(ServerId(server));
  if (!entry) return true;
  BootTime at = state_.now();
  return state_.registry.State(*entry, at) == ServerState::kDead &&
         state_.registry.DeadFor(*entry, at) >= state_.context.options.rereplication_grace;
}

Status Repairer::Plan(View& view, Job* job, bool urgent) {
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(job->chunk));
  job->gone = !record;
  if (!record) return {};
  job->record = *record;
  job->good = job->counted = 0;
  std::vector<ServerId> have;
  std::vector<const pb::ReplicaRecord*> live;
  for (const pb::ReplicaRecord& r : record->replicas()) {
    have.push_back(ServerId(r.server()));
    if (state_.IsLive(r.server())) live.push_back(&r);
    if (!Gone(r.server())) job->counted++;
  }
  job->good = live.size();
  uint32_t wanted = urgent ? state_.MinCopies(record->copies()) : record->copies();
  size_t counted = urgent ? static_cast<size_t>(record->replicas_size()) : job->counted;
  if (counted >= wanted || live.empty()) {
    if (counted < wanted) return Fail(ErrorCode::kUnavailable, "no live replica to copy from");
    job->gone = true;
    return {};
  }
  job->others.clear();
  for (size_t i = live.size() - 1; i > 0; i--) std::swap(live[i], live[state_.rng() % (i + 1)]);
  std::ranges::stable_partition(live, [&](const auto* r) { return !state_.bad->Contains(InstanceId(r->instance())); });
  const pb::ReplicaRecord* source = live[0];
  for (const auto* other : std::span(live).subspan(1)) job->others.push_back(*other);
  job->source_server = source->server();
  job->source = InstanceId(source->instance());
  auto target = PlaceReplicas(state_.registry.Candidates(state_.now()), have, 1, state_.rng);
  job->target = target.empty() ? 0 : target[0].value;
  if (!job->target) return {};
  TRY_ASSIGN(job->instance, view.NewInstanceId());
  return {};
}

Task<Result<Repairer::End>> Repairer::Repair(ChunkId chunk, bool urgent) {
  Job job;
  job.chunk = chunk;
  std::function<Status(View&)> plan = [&](View& view) { return Plan(view, &job, urgent); };
  Task<Result<TxnId>> planning = RunOp(state_, std::move(plan), CommitLevel::kLogged);
  Result<TxnId> planned = co_await planning;
  if (!planned) co_return Fail(planned.error());
  if (job.gone) {  // deleted, or complete again
    if (!urgent) {
      Task<Status> finish = Finish(chunk);
      Status finished = co_await finish;
      if (!finished) co_return Fail(finished.error());
    }
    co_return End::kDone;
  }
  if (!job.target) co_return End::kNoTarget;
  state_.in_flight.insert(job.instance);
  Task<Status> copy = Copy(&job);
  Status done = co_await copy;
  if (done) {
    Task<Status> take_in = TakeIn(&job);
    done = co_await take_in;
  }
  state_.in_flight.erase(job.instance);
  if (!done && !job.record.written()) {  // nobody has anything yet, it seems: a recovery finds out and places it anew
    RecoveryRequest request;
    request.chunk = chunk;
    request.version = job.record.version();
    request.for_write = false;
    Task<Status> recover = state_.recovery->Recover(request);
    Status recovered = co_await recover;
    if (!recovered) co_return Fail(recovered.error());
    co_return urgent ? End::kDone : End::kNoTarget;
  }
  if (!done) {
    // A copy that may be there is in no record: have it dropped.
    std::function<Status(View&)> drop = [&](View& view) -> Status {
      TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
      pb::ReplicaRecord replica;
      replica.set_server(job.target);
      replica.set_instance(job.instance.value);
      for (int i = 0; record && i < record->replicas_size(); i++) {
        if (record->replicas(i).instance() == job.instance.value) return {};
      }
      PutDrop(view, state_, chunk, replica, job.record.version());
      return {};
    };
    Task<Result<TxnId>> dropping = RunOp(state_, std::move(drop), CommitLevel::kLogged);
    Result<TxnId> dropped = co_await dropping;
    if (!dropped) co_return Fail(dropped.error());
    co_return Fail(done.error());
  }
  state_.replicated_chunks.Add();
  co_return End::kRetry;  // looked at again: it may want yet another copy
}

Task<Status> Repairer::Copy(Job* job) {
  const ServerEntry* source = state_.registry.Find(ServerId(job->source_server));
  if (!source) co_return Fail(ErrorCode::kUnavailable, "the source is gone");
  pb::ReplicateRequest request;
  request.set_chunk(job->chunk.value);
  request.set_version(job->record.version());
  request.set_instance(job->instance.value);
  request.set_source(source->address);
  request.set_source_instance(job->source.value);
  request.set_max_bytes_per_second(kBytesPerSecond);
  request.set_take_behind(true);
  for (const pb::ReplicaRecord& r : job->others) {
    const ServerEntry* entry = state_.registry.Find(ServerId(r.server()));
    if (!entry) continue;
    pb::Replica* other = request.add_others();
    other->set_server(r.server());
    other->set_instance(r.instance());
    other->set_address(entry->address);
  }
  Task<Result<pb::ReplicateResponse>> call =
      CallServer<pb::ReplicateResponse>(state_, job->target, pb::REPLICATE, request, kCopyTimeout);
  Result<pb::ReplicateResponse> copied = co_await call;
  if (!copied) co_return Fail(copied.error());
  job->behind = copied->behind();
  state_.replicated_bytes.Add(copied->bytes());
  LogInfo("chunk {:016x} version {} copied from server {} to server {} ({} bytes)", job->chunk.value, job->record.version(),
          job->source_server, job->target, copied->bytes());
  co_return Status();
}

// Makes the copy a replica.
Task<Status> Repairer::TakeIn(const Job* job) {
  if (!job->behind && IsQuiet(state_, job->record)) {
    std::function<Status(View&)> add = [&](View& view) { return Add(view, *job); };
    Task<Result<TxnId>> adding = RunOp(state_, std::move(add), CommitLevel::kDurable);
    Result<TxnId> added = co_await adding;
    if (added) co_return Status();
    if (added.error().code != ErrorCode::kVersionMismatch) co_return Fail(added.error());
  }
  // Somebody may write: stop the writers for a moment, level the copy and raise the version with it.
  RecoveryRequest request;
  request.chunk = job->chunk;
  request.version = job->record.version();
  request.extra_server = job->target;
  request.extra = job->instance;
  request.for_write = false;
  Task<Status> recover = state_.recovery->Recover(request);
  Status recovered = co_await recover;
  if (!recovered) co_return recovered;
  bool in = false;
  std::function<Status(View&)> look = [&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(job->chunk));
    in = false;
    for (int i = 0; record && i < record->replicas_size(); i++) {
      in |= record->replicas(i).instance() == job->instance.value;
    }
    return {};
  };
  Task<Result<TxnId>> looking = RunOp(state_, std::move(look), CommitLevel::kLogged);
  Result<TxnId> looked = co_await looking;
  if (!looked) co_return Fail(looked.error());
  if (!in) co_return Fail(ErrorCode::kNotReady, "the copy could not be levelled");
  co_return Status();
}

Status Repairer::Add(View& view, const Job& job) {
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(job.chunk));
  if (!record) return Fail(ErrorCode::kNotFound, "the chunk was deleted meanwhile");
  auto running = running_.find(job.chunk);
  bool changed = running == running_.end() || running->second;
  if (changed || record->version() != job.record.version() || !IsQuiet(state_, *record) ||
      state_.recovery->Running(job.chunk)) {
    return Fail(ErrorCode::kVersionMismatch, "the chunk was granted for writing meanwhile");
  }
  std::vector<pb::ReplicaRecord> replicas;
  size_t counted = 0;
  for (const pb::ReplicaRecord& r : record->replicas()) counted += !Gone(r.server());
  size_t wanted = record->copies();
  // What is lost with a server goes only once the wanted number is there without it.
  for (const pb::ReplicaRecord& r : record->replicas()) {
    if (!Gone(r.server()) || counted + 1 < wanted) replicas.push_back(r);
  }
  if (replicas.size() < static_cast<size_t>(record->replicas_size())) {
    return Fail(ErrorCode::kVersionMismatch, "a replica goes: what is left gets a new version");
  }
  pb::ReplicaRecord fresh;
  fresh.set_server(job.target);
  fresh.set_instance(job.instance.value);
  replicas.push_back(fresh);
  SetReplicas(view, state_, job.chunk, view.MutableChunk(job.chunk), replicas);
  return {};
}

// Nothing is left to do for the chunk: its record of work goes.
Task<Status> Repairer::Finish(ChunkId chunk) {
  std::function<Status(View&)> op = [&](View& view) -> Status {
    TRY_ASSIGN(const pb::WorkRecord* work, view.Get<pb::WorkRecord>(WorkKey(chunk)));
    if (work) view.Delete(WorkKey(chunk));
    return {};
  };
  Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> done = co_await run;
  if (!done) co_return Fail(done.error());
  co_return Status();
}

Task<void> Repairer::LoadWork() {
  Key next(KeyKind::kWork);
  Key end = next.PrefixEnd();
  while (!next.empty() && !state_.stopping()) {
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> found = co_await scan;
    if (!found) {
      LogError("reading the recorded work on chunks: {}", ToString(found.error()));
      co_return;
    }
    for (const ScannedRecord& record : found->records) fresh_.insert(ChunkId(record.key.number(0)));
    next = found->next;
  }
}

// Queues all chunks of a server that was away too long, a part at a time, until it comes back.
Task<void> Repairer::LeaveServer(ServerId server) {
  Key next(KeyKind::kByServer, server.value);
  Key end = next.PrefixEnd();
  while (!next.empty() && !state_.stopping()) {
    if (queued() > kMaxWaiting) {
      auto wait = state_.changed.Wait();
      co_await wait;
      continue;
    }
    if (!Gone(server.value)) co_return;
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> found = co_await scan;
    if (!found) {
      LogError("reading the chunks of server {}: {}", server.value, ToString(found.error()));
      co_return;
    }
    for (const ScannedRecord& record : found->records) fresh_.insert(ChunkId(record.key.number(1)));
    next = found->next;
  }
}

}  // namespace shoal::meta
