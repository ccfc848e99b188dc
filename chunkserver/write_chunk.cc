// WRITE_CHUNK: one write on its way down the chain.
#include <fmt/format.h>

#include "chunkserver/service.h"
#include "common/log.h"

namespace shoal {
namespace {

constexpr Duration kPredecessorTimeout = 5s;  // a write that has not come by then was lost with its head
constexpr int kWritesInARow = 16;  // of one replica, before others on the disk get their turn

Duration Remaining(SteadyTime deadline) {
  return std::chrono::duration_cast<Duration>(deadline - std::chrono::steady_clock::now());
}

WriteOperation OperationOf(const pb::WriteChunkRequest& message, const Buffer& payload) {
  WriteOperation op;
  op.kind = message.kind() == pb::WRITE_ZERO       ? WriteOperation::Kind::kZero
            : message.kind() == pb::WRITE_TRUNCATE ? WriteOperation::Kind::kTruncate
                                                   : WriteOperation::Kind::kData;
  op.ranges.reserve(static_cast<size_t>(message.segments_size()));
  for (const pb::Segment& s : message.segments()) op.ranges.push_back({s.offset(), s.length()});
  op.checksums.assign(message.checksums().begin(), message.checksums().end());
  op.payload = payload;
  return op;
}

Status CheckKind(const pb::WriteChunkRequest& message) {
  if (pb::WriteKind_IsValid(message.kind())) return {};
  return Fail(ErrorCode::kNotSupported, fmt::format("write kind {} is not known", static_cast<int>(message.kind())));
}

// One write applied to the file. Replica::io is held.
Status ApplyOne(ReplicaStore& store, const std::shared_ptr<Replica>& replica, const WriteOperation& write) {
  std::shared_ptr<ReplicaFile> file;
  bool create, dropped;
  {
    std::lock_guard lock(replica->mutex);
    create = !replica->exists;
    dropped = replica->dropped;
    file = replica->file;
  }
  if (dropped) return Fail(ErrorCode::kNoReplica, "the replica was dropped");
  if (create) {
    TRY(store.CreateFile(replica));
    std::lock_guard lock(replica->mutex);
    file = replica->file;
  }
  CHECK(file != nullptr);
  Result<WriteEffect> applied = file->Apply(write, replica->disk.intent());
  if (!applied && applied.error().code == ErrorCode::kCorrupt) {
    store.MarkDamaged(replica, applied.error());
    auto mended = file->Mend(false);
    if (mended && *mended > 0) applied = file->Apply(write, replica->disk.intent());
  }
  TRY_ASSIGN(WriteEffect effect, std::move(applied));
  replica->disk.AddUsed(effect.allocated_bytes);
  store.metrics().writes.Add();
  store.metrics().write_bytes.Add(write.payload.size());
  return {};
}

// What a failed write means for the replica and its disk.
void JudgeFailure(ReplicaStore& store, const std::shared_ptr<Replica>& replica, const Error& error) {
  bool exists;
  {
    std::lock_guard lock(replica->mutex);
    exists = replica->exists;
  }
  replica->disk.Note(error);
  if (!exists) {
    // Nothing was made: the next attempt may choose another disk.
    if (Status gone = store.Drop(replica); !gone) LogWarning("{}", gone.error().message);
  } else if (!IsScarcity(error.code) && error.code != ErrorCode::kNoReplica) {
    store.Judge(replica, error);
  }
}

void Tell(const WriteJobs& ended, const Status& first, const Status& others) {
  for (const auto& job : ended) {
    for (auto& waiter : job->waiters) waiter(job == ended.front() ? first : others);
  }
}

// Tells all that wait for the write, of a retry too.
void GiveUp(Replica& replica, const std::shared_ptr<WriteJob>& job) {
  {
    std::lock_guard lock(replica.mutex);
    if (!replica.order.GiveUp(job)) return;
  }
  Tell({job}, Fail(ErrorCode::kChainFailed, "the writes before it did not arrive in time"), {});
}

}  // namespace

void ApplyWrites(ReplicaStore& store, std::shared_ptr<Replica> replica) {
  for (int i = 0; i < kWritesInARow; ++i) {
    std::shared_ptr<WriteJob> job;
    std::vector<Callback> idle;
    {
      std::lock_guard lock(replica->mutex);
      job = replica->order.Next();
      if (!job) {
        replica->applying = false;
        idle.swap(replica->idle_waiters);
      }
    }
    if (!job) {
      for (auto& callback : idle) callback();
      return;
    }
    Status status;
    WriteJobs ended;
    {
      std::unique_lock io(replica->io);
      const uint64_t bytes = job->write.payload.size();
      status = ApplyOne(store, replica, job->write);
      std::lock_guard lock(replica->mutex);
      ended = replica->order.Applied(job, status);
      if (status) {
        ++replica->changes;
        replica->changed_bytes += bytes;
        replica->disk.AddDirty(replica);
      }
    }
    if (!status) JudgeFailure(store, replica, status.error());
    Tell(ended, status, Fail(ErrorCode::kChainFailed, "an earlier write failed here"));
  }
  WorkQueue& queue = replica->disk.work();
  queue.Push([&store, replica = std::move(replica)]() mutable { ApplyWrites(store, std::move(replica)); });
}

// The part of a write that is done on this server. Lives in the request's coroutine.
struct Service::LocalWrite {
  explicit LocalWrite(EventLoop& loop) : done(loop) {}
  std::shared_ptr<Replica> replica;
  WriteOrder::Admission admission;
  Completion done;
};

// Asked before the write has a place in the order: a refusal leaves nothing behind.
Status Service::CheckCanWrite(const Disk& disk, const pb::WriteChunkRequest& message, size_t bytes) {
  const bool head = message.number() == 0;
  if (head && (disk.work().overloaded() || node_.head_bytes.load() > kMaxHeadBytes)) {
    node_.metrics.overloaded.Add();
    return Fail(ErrorCode::kOverloaded, "too many writes are waiting");
  }
  // Zeros and truncations give space back.
  return message.kind() == pb::WRITE_DATA ? disk.CheckSpace(bytes, !head) : Status();
}

Result<std::shared_ptr<Replica>> Service::TargetOf(const pb::WriteChunkRequest& message, size_t bytes) {
  ChunkId chunk{message.chunk()};
  InstanceId instance{message.instance()};
  std::shared_ptr<Replica> replica = node_.store->Find(chunk, instance);
  if (!replica && !message.create()) return Fail(ErrorCode::kNoReplica, fmt::format("no replica of chunk {:016x} here", chunk.value));
  Disk* disk = replica ? &replica->disk : nullptr;
  if (!disk) {
    TRY_ASSIGN(disk, node_.store->ChooseDisk(bytes, message.number() != 0));
  }
  TRY(CheckCanWrite(*disk, message, bytes));
  if (replica) return replica;
  return node_.store->FindOrCreate(chunk, instance, ChunkVersion{message.version()}, *disk);
}

// Takes the write in, and sets the disk to work if it is not.
Status Service::AdmitWrite(LocalWrite& local, const WriteTicket& ticket, WriteOperation& operation, bool sync) {
  Replica& replica = *local.replica;
  std::lock_guard lock(replica.mutex);
  if (replica.dropped) return Fail(ErrorCode::kNoReplica, "the replica was dropped");
  if (replica.bad) return Fail(replica.bad->code, "the replica is bad: " + replica.bad->message);
  if (!replica.file && replica.exists) return Fail(ErrorCode::kWouldBlock);  // closed meanwhile: load it again
  if (replica.version != ticket.version) {
    return Fail(ErrorCode::kVersionMismatch,
                fmt::format("the replica has version {}, not {}", replica.version.value, ticket.version.value));
  }
  // Leases carry the incarnation in their top 16 bits from the first restore on. Session 0 is the metaserver.
  uint32_t incarnation = node_.control.incarnation.load();
  if (ticket.session && incarnation > 1 && (ticket.lease >> 48) < incarnation) {
    return Fail(ErrorCode::kLeaseLapsed, "the write was granted before the metadata was restored from a backup");
  }
  // Looked at when the replica can be found: a recovery raises the floor first, then looks for it.
  if (!replica.exists && !node_.create_floor.Allows(ticket.lease)) {
    return Fail(ErrorCode::kLeaseLapsed, fmt::format("write lease {} is too old to make a replica", ticket.lease));
  }
  TRY_ASSIGN(local.admission, replica.order.Admit(ticket, std::move(operation)));
  if (!local.admission.job) return {};
  local.admission.job->waiters.push_back(
      [done = local.done, sync, &store = *node_.store, shared = local.replica](const Status& status) {
        if (!status || !sync) return done.Set(status);
        // Straight from one disk thread to the next, not by way of the loop.
        shared->disk.syncs().Push([done, &store, shared] { done.Set(store.Sync(shared)); });
      });
  if (!replica.applying && !replica.order.idle()) {
    replica.applying = true;
    replica.disk.work().Push([&store = *node_.store, shared = local.replica] { ApplyWrites(store, shared); });
  }
  return {};
}

// Waits until the write is applied here (and synced). A write whose predecessors don't come is given up after a while.
Task<Status> Service::FinishLocal(LocalWrite& local, SteadyTime deadline, bool sync) {
  if (local.admission.job) {
    std::shared_ptr<Replica> replica = local.replica;
    std::shared_ptr<WriteJob> job = local.admission.job;
    std::unique_ptr<EventLoop::Timer> timer;
    bool waits;
    {
      std::lock_guard lock(replica->mutex);
      waits = replica->order.IsWaiting(job);
    }
    if (waits) {
      timer = loop_.RunAfter(std::min(Remaining(deadline), kPredecessorTimeout), [replica, job] { GiveUp(*replica, job); });
    }
    OneShot<Status>& shot = local.done.shot();
    co_return co_await shot;
  }
  if (!sync) co_return Status();
  co_return co_await SyncOne(local.replica);
}

Task<Status> Service::SyncOne(std::shared_ptr<Replica> replica) {
  ReplicaStore& store = *node_.store;
  OnQueue sync(loop_, replica->disk.syncs(), [&store, &replica] { return store.Sync(replica); });
  co_return co_await sync;
}

// What goes to the next member: the same write, numbered.
static pb::WriteChunkRequest ForwardOf(const pb::WriteChunkRequest& message, const WriteOrder::Admission& admission) {
  pb::WriteChunkRequest next = message;
  next.set_number(admission.number);
  next.set_numbering(admission.numbering);
  next.set_instance(message.chain(0).instance());
  next.mutable_chain()->DeleteSubrange(0, 1);
  return next;
}

// Runs from its first step beside the local write; the answer of the rest of the chain.
static Task<Status> Forward(Peers& peers, Node& node, pb::WriteChunkRequest next, std::string address, Buffer payload,
                            SteadyTime deadline) {
  int lane = next.chain_size();
  std::shared_ptr<Connection> connection = peers.current(address, lane);
  if (!connection) {
    auto got = co_await peers.Get(address, lane, std::min<Duration>(Remaining(deadline), 2s));
    if (!got) co_return Fail(ErrorCode::kChainFailed, address + ": " + got.error().message);
    connection = *got;
  }
  Payload parts;
  if (!payload.empty()) parts.push_back(payload);
  node.metrics.forwards.Add();
  PendingReply pending = connection->Call(pb::WRITE_CHUNK, next, std::move(parts), Remaining(deadline));
  Result<Reply> reply = co_await pending;
  if (reply) co_return Status();
  // A full or busy member is an answer: the same write may be sent again, without a recovery.
  ErrorCode code = reply.error().code;
  bool answer = code == ErrorCode::kNoSpace || code == ErrorCode::kOverloaded;
  co_return Fail(answer ? code : ErrorCode::kChainFailed,
                 fmt::format("{}: {} ({})", address, reply.error().message, ErrorName(reply.error().code)));
}

static Task<void> RunInto(Task<Status> work, std::shared_ptr<OneShot<Status>> result) {
  Status status = co_await work;
  result->Set(std::move(status));
}

Task<void> Service::WriteChunk(Request request) {
  auto start = std::chrono::steady_clock::now();
  pb::WriteChunkRequest message;
  Status ok = request.Parse(message);
  if (ok) ok = node_.lease.Check(node_.metrics);
  if (ok) ok = CheckKind(message);
  WriteOperation operation = OperationOf(message, request.payload());
  if (ok) ok = ValidateWrite(operation);
  if (ok && !(ok = VerifyPayload(operation))) node_.metrics.payload_mismatches.Add();
  if (!ok) {
    request.AnswerError(ok.error());
    co_return;
  }
  const bool head = message.number() == 0;
  LocalWrite local(loop_);
  auto target = TargetOf(message, operation.payload.size());
  if (target) local.replica = std::move(*target);
  if (!target) ok = Fail(std::move(target).error());
  const int64_t counted = ok && head ? static_cast<int64_t>(operation.payload.size()) : 0;
  node_.head_bytes.fetch_add(counted);
  WriteTicket ticket{ChunkVersion{message.version()}, message.lease(),  SessionId{message.session()},
                     message.write_id(),              message.number(), message.numbering()};
  for (int attempt = 0; ok && attempt < 8; ++attempt) {
    ok = co_await EnsureLoaded(local.replica);
    if (!ok) break;
    ok = AdmitWrite(local, ticket, operation, message.sync());
    if (ok || ok.error().code != ErrorCode::kWouldBlock) break;
    ok = attempt == 7 ? Fail(ErrorCode::kOverloaded, "too few files can be open") : Status();
  }
  if (ok) {
    std::shared_ptr<OneShot<Status>> rest;
    if (message.chain_size() > 0) {
      rest = std::make_shared<OneShot<Status>>(loop_);
      pb::WriteChunkRequest next = ForwardOf(message, local.admission);
      std::string address = message.chain(0).address();
      Buffer payload = request.payload();
      Task<Status> forward =
          Forward(peers_, node_, std::move(next), std::move(address), std::move(payload), request.deadline());
      Task<void> run = RunInto(std::move(forward), rest);
      tasks_.Spawn(std::move(run));
    }
    ok = co_await FinishLocal(local, request.deadline(), message.sync());
    if (ok && rest) {
      OneShot<Status>& answer = *rest;
      ok = co_await answer;
    }
  }
  node_.head_bytes.fetch_sub(counted);
  if (ok) ok = node_.lease.Check(node_.metrics);
  node_.metrics.write_latency.Record(std::chrono::steady_clock::now() - start);
  if (!ok) {
    request.AnswerError(ok.error());
    co_return;
  }
  pb::WriteChunkResponse response;
  response.set_number(local.admission.number);
  request.Answer(response);
}

}  // namespace shoal
