#include "metaserver/chunks/truncate.h"

#include <algorithm>

#include "common/log.h"
#include "common/proto/chunk.pb.h"
#include "metaserver/chunks/recovery.h"
#include "metaserver/chunks/repair.h"

namespace shoal::meta {
namespace {

constexpr uint64_t kExtentsInOneBatch = 16;
constexpr uint64_t kIndicesInOneOp = 256;  // looked at without a scan
constexpr Duration kCutTimeout = 10s;
constexpr Duration kRetry = 200ms;

uint64_t ChunksOf(uint64_t size) { return (size + kChunkSize - 1) / kChunkSize; }

}  // namespace

Status Truncator::Truncate(View& view, InodeId id, uint64_t size) {
  TRY(view.WaitWhileBusy(id));
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  if (!inode) return Fail(ErrorCode::kNotFound, fmt::format("inode {} is gone", id.value));
  if (size > kMaxFileSize) return Fail(ErrorCode::kFileTooBig, "larger than a file can be");
  uint64_t old_size = inode->size();
  if (size >= old_size) {
    if (size == old_size) return {};
    TRY(CutTail(view, id));
    SetSize(view, view.MutableInode(id), size);
    return {};
  }
  if (inode->extents() > 0) {
    uint64_t first = ChunksOf(size), last = ChunksOf(old_size);
    bool needs_job = inode->extents() > kExtentsInOneBatch || last - first >= kIndicesInOneOp;
    if (size % kChunkSize) {
      TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, size / kChunkSize));
      if (extent) {
        TRY_ASSIGN(const pb::ChunkRecord* chunk, view.GetChunk(ChunkId(extent->chunk())));
        needs_job |= chunk && chunk->written();
      }
    }
    for (uint64_t index = first; !needs_job && index <= last; index++) {
      view.Want<pb::ExtentRecord>(ExtentKey(id, index));
    }
    for (uint64_t index = first; !needs_job && index <= last; index++) {
      TRY(DropExtentRecords(view, state_, id, index));
    }
    TRY_ASSIGN(inode, view.GetInode(id));
    // Extents that were granted behind the end, far away, are found by a scan.
    needs_job |= size == 0 && inode->extents() > 0;
    if (needs_job) {
      return view.Require([this, id, size]() -> Task<Status> { return RunJob(id, size, false); });
    }
  }
  SetSize(view, view.MutableInode(id), size);
  return {};
}

bool Truncator::HasOldTail(InodeId id, const pb::InodeRecord& inode) const {
  return state_.IsOfBefore(id.value) && inode.cut_incarnation() < state_.context.life.restored_incarnation;
}

Status Truncator::CutTail(View& view, InodeId id) {
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
  if (!inode || !HasOldTail(id, *inode)) return {};
  uint64_t size = inode->size();
  if (size % kChunkSize && inode->extents() > 0) {
    TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, size / kChunkSize));
    if (extent) {
      TRY_ASSIGN(const pb::ChunkRecord* chunk, view.GetChunk(ChunkId(extent->chunk())));
      if (chunk && chunk->written()) {
        return view.Require([this, id, size]() -> Task<Status> { return RunJob(id, size, true); });
      }
    }
  }
  view.MutableInode(id)->set_cut_incarnation(state_.context.life.restored_incarnation);
  return {};
}

// What an operation waits for: the end of the inode's job, which is started here unless there is one.
Task<Status> Truncator::RunJob(InodeId id, uint64_t size, bool tail) {
  BusyTable& busy = *state_.context.busy;
  Job job;
  job.id = id;
  job.intent.set_size(size);
  job.tail = tail;
  std::shared_ptr<Status> result = job.result;
  if (!busy.Contains(id)) {
    busy.Set(id);
    state_.tasks.Spawn(Drive(std::move(job)));
  }
  Task<void> wait = busy.WaitFor(id);
  co_await wait;
  co_return *result;
}

Task<Status> Truncator::Start() {
  Key next(KeyKind::kTruncate);
  Key end = next.PrefixEnd();
  while (!next.empty()) {
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> found = co_await scan;
    if (!found) co_return Fail(found.error());
    for (const ScannedRecord& record : found->records) {
      Job job;
      job.id = InodeId(record.key.number(0));
      if (!job.intent.ParseFromString(record.value)) continue;
      job.begun = true;
      LogInfo("inode {}: its truncation to {} bytes goes on", job.id.value, job.intent.size());
      state_.context.busy->Set(job.id);
      state_.tasks.Spawn(Drive(std::move(job)));
    }
    next = found->next;
  }
  co_return Status();
}

Task<void> Truncator::Drive(Job job) {
  for (int failures = 0;; failures++) {
    Task<Status> steps = Steps(&job);
    Status done = co_await steps;
    *job.result = done;
    if (done || !job.begun || state_.stopping()) break;
    if (failures == 10) {
      LogWarning("inode {}: its truncation to {} bytes waits: {}", job.id.value, job.intent.size(),
                 ToString(done.error()));
    }
    auto pause = state_.context.loop.Sleep(kRetry);
    co_await pause;
    if (state_.stopping()) break;
  }
  state_.context.busy->Clear(job.id);
}

Task<Status> Truncator::Steps(Job* job) {
  if (!job->begun) {
    bool nothing = false;
    std::function<Status(View&)> begin = [&](View& view) { return Begin(view, job, &nothing); };
    Task<Result<TxnId>> beginning = RunOp(state_, std::move(begin), CommitLevel::kDurable);
    Result<TxnId> begun = co_await beginning;
    if (!begun) co_return Fail(begun.error());
    if (nothing) co_return Status();
    job->begun = true;
  }
  if (job->intent.chunk()) {
    Task<Status> cut = Cut(job);
    Status done = co_await cut;
    if (!done) co_return done;
    job->intent.set_chunk(0);
  }
  if (!job->tail) {
    Task<Status> drop = DropBatches(job->id, ChunksOf(job->intent.size()), ~0ull);
    Status dropped = co_await drop;
    if (!dropped) co_return dropped;
  }
  std::function<Status(View&)> commit = [&](View& view) { return Commit(view, *job); };
  // Durable before anybody writes behind it: an intent that a power cut brought back would cut that off again.
  Task<Result<TxnId>> committing = RunOp(state_, std::move(commit), CommitLevel::kDurable);
  Result<TxnId> committed = co_await committing;
  if (!committed) co_return Fail(committed.error());
  co_return Status();
}

// What the cut's recoveries will need.
Status Truncator::CheckCanCut(ChunkId chunk, const pb::ChunkRecord& record) const {
  uint32_t min_copies = state_.MinCopies(record.copies());
  if (state_.possible_servers() < min_copies) {
    return Fail(ErrorCode::kNotEnoughServers, fmt::format("{} chunkservers are alive, {} are needed to write",
                                                          state_.possible_servers(), min_copies));
  }
  bool alive = std::any_of(record.replicas().begin(), record.replicas().end(),
                           [&](const pb::ReplicaRecord& r) { return !state_.IsDead(r.server()); });
  if (!alive) return Fail(ErrorCode::kUnavailable, fmt::format("no replica of chunk {:016x} is alive", chunk.value));
  return {};
}

Status Truncator::Begin(View& view, Job* job, bool* nothing) {
  uint64_t size = job->intent.size();
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(job->id));
  *nothing = !inode || inode->size() < size || (inode->size() == size && !(job->tail && HasOldTail(job->id, *inode)));
  if (*nothing) return {};
  job->intent.Clear();
  job->intent.set_size(size);
  if (size % kChunkSize) {
    TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(job->id, size / kChunkSize));
    if (extent) {
      TRY_ASSIGN(const pb::ChunkRecord* chunk, view.GetChunk(ChunkId(extent->chunk())));
      if (chunk && chunk->written()) {
        TRY(CheckCanCut(ChunkId(extent->chunk()), *chunk));
        job->intent.set_chunk(extent->chunk());
        job->intent.set_index(size / kChunkSize);
        job->intent.set_cut(static_cast<uint32_t>(size % kChunkSize));
      }
    }
  }
  *view.Put<pb::TruncateIntent>(TruncateKey(job->id)) = job->intent;
  return {};
}

// The cut through the chain, with recoveries as they are needed, until every replica has made it or is left out.
Task<Status> Truncator::Cut(const Job* job) {
  uint64_t write_id = 0;
  std::function<Status(View&)> number = [&](View& view) -> Status {
    TRY_ASSIGN(write_id, view.NewLease());  // higher than that of any truncation before
    return {};
  };
  Task<Result<TxnId>> numbering = RunOp(state_, std::move(number), CommitLevel::kLogged);
  Result<TxnId> numbered = co_await numbering;
  if (!numbered) co_return Fail(numbered.error());
  for (int i = 0; i < 5; i++) {
    bool done = false;
    Task<Status> send = SendCut(job, write_id, &done);
    Status sent = co_await send;
    if (!sent || done) co_return sent;
  }
  co_return Fail(ErrorCode::kNotReady, fmt::format("chunk {:016x} can't be cut yet", job->intent.chunk()));
}

Task<Status> Truncator::SendCut(const Job* job, uint64_t write_id, bool* done) {
  ChunkId chunk(job->intent.chunk());
  pb::ChunkRecord record;
  uint64_t lease = 0;
  std::function<Status(View&)> look = [&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* found, view.GetChunk(chunk));
    if (found) {
      TRY_ASSIGN(lease, view.NewLease());
      record = *found;
    }
    return {};
  };
  Task<Result<TxnId>> looking = RunOp(state_, std::move(look), CommitLevel::kLogged);
  Result<TxnId> looked = co_await looking;
  if (!looked) co_return Fail(looked.error());
  if (!lease) {
    *done = true;  // the chunk is gone
    co_return Status();
  }
  bool whole = record.replicas_size() > 0 && !record.pending_version() && record.version() > state_.VersionFloor();
  for (const pb::ReplicaRecord& r : record.replicas()) whole &= !state_.IsDead(r.server());
  Error why;
  if (whole) {
    pb::Extent extent;
    FillExtent(state_, chunk, job->intent.index(), record, lease, &extent);
    pb::WriteChunkRequest request;
    request.set_chunk(chunk.value);
    request.set_version(record.version());
    request.set_instance(extent.replicas(0).instance());
    request.set_lease(lease);
    request.set_write_id(write_id);
    request.set_kind(pb::WRITE_TRUNCATE);
    pb::Segment* segment = request.add_segments();
    segment->set_offset(job->intent.cut());
    segment->set_length(static_cast<uint32_t>(kChunkSize - job->intent.cut()));
    for (int i = 1; i < extent.replicas_size(); i++) *request.add_chain() = extent.replicas(i);
    state_.repairer->MayChange(chunk);
    Task<Result<pb::WriteChunkResponse>> call = CallServer<pb::WriteChunkResponse>(
        state_, extent.replicas(0).server(), pb::WRITE_CHUNK, request, kCutTimeout);
    Result<pb::WriteChunkResponse> answer = co_await call;
    if (answer) {
      *done = true;
      co_return Status();
    }
    why = answer.error();
  }
  RecoveryRequest request;
  request.chunk = chunk;
  request.version = record.version();
  Task<Status> recover = state_.recovery->Recover(request);
  Status recovered = co_await recover;
  if (!recovered && recovered.error().code == ErrorCode::kNotFound) *done = true;
  if (!recovered && !*done) co_return recovered;
  co_return Status();
}

Task<Status> Truncator::DropBatches(InodeId id, uint64_t first, uint64_t last) {
  Key next = ExtentKey(id, first);
  Key end = last == ~0ull ? Key(KeyKind::kExtent, id.value).PrefixEnd() : ExtentKey(id, last + 1);
  while (!next.empty()) {
    if (state_.stopping()) co_return Fail(ErrorCode::kCancelled, "the metaserver stops");
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    options.max_records = kExtentsInOneBatch;
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> found = co_await scan;
    if (!found) co_return Fail(found.error());
    if (!found->records.empty()) {
      std::function<Status(View&)> op = [&](View& view) -> Status {
        for (const ScannedRecord& record : found->records) {
          TRY(DropExtentRecords(view, state_, id, record.key.number(1)));
        }
        return {};
      };
      Task<Result<TxnId>> drop = RunOp(state_, std::move(op), CommitLevel::kLogged);
      Result<TxnId> dropped = co_await drop;
      if (!dropped) co_return Fail(dropped.error());
    }
    next = found->next;
  }
  co_return Status();
}

Status Truncator::Commit(View& view, const Job& job) {
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(job.id));
  if (inode && inode->size() > job.intent.size()) {
    auto* changed = view.MutableInode(job.id);
    SetSize(view, changed, job.intent.size());
    changed->set_mtime_ns(view.now_ns());
    changed->set_ctime_ns(view.now_ns());
    changed->set_change(changed->change() + 1);
  }
  if (inode && HasOldTail(job.id, *inode)) {
    view.MutableInode(job.id)->set_cut_incarnation(state_.context.life.restored_incarnation);
  }
  view.Delete(TruncateKey(job.id));
  return {};
}

}  // namespace shoal::meta
