#include "metaserver/chunks/recovery.h"

#include <algorithm>
#include <tuple>

#include "common/log.h"
#include "common/proto/control.pb.h"
#include "metaserver/sessions.h"

namespace shoal::meta {
namespace {

constexpr Duration kFreezeTimeout = 1s;  // of one call; a server that does not answer dies by its lease
constexpr Duration kRaiseTimeout = 60s;  // levelling may copy a whole chunk
constexpr Duration kAttemptTime = 25s;
constexpr int kAttempts = 5;                // each may find another source unreadable
constexpr Duration kHopelessPause = 200ms;  // before "no replica is alive" is answered: the asker tries again at once
constexpr Duration kLately = 5s;
constexpr size_t kMaxFailed = 10000;
constexpr size_t kMaxLostRanges = 64;  // of one chunk

}  // namespace

bool Recovery::Raising(ChunkId chunk) const {
  auto it = running_.find(chunk);
  return it != running_.end() && it->second->raising;
}

bool Recovery::FailedLately(ChunkId chunk) const {
  auto it = failed_.find(chunk);
  return it != failed_.end() && std::chrono::steady_clock::now() - it->second < kLately;
}

void Recovery::NoteEnd(ChunkId chunk, bool failed) {
  failed_.erase(chunk);
  if (!failed) return;
  auto now = std::chrono::steady_clock::now();
  if (failed_.size() >= kMaxFailed) std::erase_if(failed_, [&](const auto& f) { return now - f.second >= kLately; });
  failed_[chunk] = now;
}

Task<Status> Recovery::WaitFor(ChunkId chunk) {
  auto it = running_.find(chunk);
  if (it == running_.end()) co_return Status();
  std::shared_ptr<Run> run = it->second;
  auto wait = run->done.Wait();
  co_await wait;
  co_return Status();
}

Task<Status> Recovery::Recover(RecoveryRequest request) {
  for (;;) {
    auto it = running_.find(request.chunk);
    if (it == running_.end()) break;
    std::shared_ptr<Run> first = it->second;
    auto wait = first->done.Wait();
    co_await wait;
    if (!first->status && !request.bad && !request.extra) co_return first->status;
  }
  auto run = std::make_shared<Run>(state_.context.loop);
  running_[request.chunk] = run;
  Task<Status> task = RunAll(request, run);
  run->status = co_await task;
  running_.erase(request.chunk);
  NoteEnd(request.chunk, !run->status);
  run->done.WakeAll();
  co_return run->status;
}

Task<Status> Recovery::RunAll(RecoveryRequest request, std::shared_ptr<Run> run) {
  Status status;
  for (int i = 0; i < kAttempts; i++) {
    if (state_.stopping()) co_return Fail(ErrorCode::kCancelled, "the metaserver stops");
    Task<Status> attempt = Attempt(&request, run.get());
    status = co_await attempt;
    run->raising = false;
    if (status || status.error().code != ErrorCode::kNotReady) break;
  }
  if (!status) {
    LogWarning("chunk {:016x} could not be recovered: {}", request.chunk.value, ToString(status.error()));
    if (status.error().code == ErrorCode::kUnavailable) {
      auto pause = state_.context.loop.Sleep(kHopelessPause);
      co_await pause;
    }
  }
  co_return status;
}

Task<Status> Recovery::Attempt(const RecoveryRequest* request, Run* run) {
  Plan plan;
  plan.deadline = std::chrono::steady_clock::now() + kAttemptTime;
  plan.run = run;
  std::function<Status(View&)> intent = [&](View& view) { return Intent(view, *request, &plan); };
  Task<Result<TxnId>> begin = RunOp(state_, std::move(intent), CommitLevel::kDurable);
  Result<TxnId> begun = co_await begin;
  if (!begun) co_return Fail(begun.error());
  if (plan.done) co_return Status();

  Task<Status> carry = Carry(&plan, request);
  Status done = co_await carry;
  if (!done && plan.untouched) {
    std::function<Status(View&)> withdraw = [&](View& view) { return Withdraw(view, request->chunk, plan); };
    Task<Result<TxnId>> undo = RunOp(state_, std::move(withdraw), CommitLevel::kLogged);
    Result<TxnId> undone = co_await undo;
    if (!undone) co_return Fail(undone.error());
  }
  if (!done) co_return done;
  NoteLost(request->chunk, plan);
  state_.recoveries.Add();
  std::string kept, left;
  for (const Member& m : plan.members) {
    std::string& list = m.left_out ? left : kept;
    list += fmt::format("{}{}", list.empty() ? "" : ",", m.replica.server());
  }
  LogInfo("chunk {:016x}: version {} on servers {}{}{}", request->chunk.value, plan.new_version, kept,
          left.empty() ? "" : ", without ", left);
  co_return Status();
}

// From the stored intent to the committed record.
Task<Status> Recovery::Carry(Plan* plan, const RecoveryRequest* request) {
  Task<void> freeze = FreezeAll(plan, request);
  co_await freeze;
  plan->run->raising = true;
  Task<Status> raise = RaiseAll(plan, request);
  Status raised = co_await raise;
  if (!raised) co_return raised;
  LeaveOutFull(*request, plan);
  std::function<Status(View&)> commit = [&](View& view) { return Commit(view, *request, *plan); };
  Task<Result<TxnId>> end = RunOp(state_, std::move(commit), CommitLevel::kDurable);
  Result<TxnId> committed = co_await end;
  if (!committed) co_return Fail(committed.error());
  co_return Status();
}

Status Recovery::Withdraw(View& view, ChunkId chunk, const Plan& plan) {
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
  if (record && record->pending_version() == plan.new_version) view.MutableChunk(chunk)->clear_pending_version();
  return {};
}

Status Recovery::Intent(View& view, const RecoveryRequest& request, Plan* plan) {
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(request.chunk));
  if (!record) return Fail(ErrorCode::kNotFound, fmt::format("chunk {:016x} is gone", request.chunk.value));
  bool has_bad = false;
  for (const pb::ReplicaRecord& r : record->replicas()) {
    has_bad |= request.bad && r.instance() == request.bad.value && record->version() <= request.version;
  }
  bool nothing_bad = request.bad && !has_bad;
  if (!request.extra && !has_bad && (nothing_bad || record->version() > request.version) &&
      (nothing_bad || !record->pending_version())) {
    plan->done = true;
    return {};
  }
  uint32_t min_copies = state_.MinCopies(record->copies());
  if (request.for_write && state_.possible_servers() < min_copies) {
    return Fail(ErrorCode::kNotEnoughServers, fmt::format("{} chunkservers are alive, {} are needed to write",
                                                          state_.possible_servers(), min_copies));
  }
  if (request.no_space) {
    std::vector<ServerId> members;
    for (const auto& r : record->replicas()) members.push_back(ServerId(r.server()));
    if (PlaceReplicas(state_.registry.Candidates(state_.now()), members, 1, state_.rng).empty()) {
      return Fail(ErrorCode::kNoSpace,
                  fmt::format("no other chunkserver has room for chunk {:016x}", request.chunk.value));
    }
  }
  bool hope = std::ranges::any_of(record->replicas(), [&](const pb::ReplicaRecord& r) {
    return (request.damaged || r.instance() != request.bad.value) && !state_.IsDead(r.server());
  });
  if (!hope) {
    return Fail(ErrorCode::kUnavailable, fmt::format("no replica of chunk {:016x} is alive", request.chunk.value));
  }
  TRY_ASSIGN(plan->lease, view.NewLease());
  TRY_ASSIGN(plan->order, view.NewOrder());
  auto* changed = view.MutableChunk(request.chunk);
  plan->untouched = changed->pending_version() == 0;
  plan->new_version = std::max({changed->version(), changed->pending_version(), state_.VersionFloor()}) + 1;
  changed->set_pending_version(plan->new_version);
  changed->set_lease(plan->lease);
  plan->record = *changed;
  plan->members.clear();
  plan->done = false;
  for (const pb::ReplicaRecord& r : changed->replicas()) plan->members.push_back({.replica = r});
  return {};
}

Task<void> Recovery::FreezeAll(Plan* plan, const RecoveryRequest* request) {
  TaskGroup group(state_.context.loop);
  for (Member& member : plan->members) {
    if (request->bad && !request->damaged && member.replica.instance() == request->bad.value) {
      member.outcome = Outcome::kBad;
      member.error = Error{ErrorCode::kCorrupt, "reported by its server"};
      continue;
    }
    group.Spawn(FreezeOne(plan, request->chunk, &member));
  }
  Task<void> join = group.Join();
  co_await join;
}

Task<void> Recovery::FreezeOne(const Plan* plan, ChunkId chunk, Member* member) {
  pb::FreezeReplicaRequest request;
  request.set_chunk(chunk.value);
  request.set_version(plan->record.version());
  request.set_instance(member->replica.instance());
  request.set_lease(plan->lease);
  request.set_order(plan->order);
  uint32_t server = member->replica.server();
  for (;;) {
    if (state_.IsDead(server)) {
      member->outcome = Outcome::kDead;
      co_return;
    }
    if (state_.stopping() || std::chrono::steady_clock::now() > plan->deadline) {
      member->outcome = Outcome::kStuck;
      co_return;
    }
    if (state_.IsLive(server)) {
      Task<Result<pb::FreezeReplicaResponse>> call =
          CallServer<pb::FreezeReplicaResponse>(state_, server, pb::FREEZE_REPLICA, request, kFreezeTimeout);
      Result<pb::FreezeReplicaResponse> answer = co_await call;
      if (answer) {
        member->outcome = Outcome::kFrozen;
        member->frozen = std::move(*answer);
        co_return;
      }
      member->error = answer.error();
      if (IsReplicaError(answer.error().code)) {
        member->outcome = Outcome::kBad;
        co_return;
      }
    }
    auto wait = state_.changed.Wait();
    co_await wait;
  }
}

// Decides who stays, and brings them to the new version.
Task<Status> Recovery::RaiseAll(Plan* plan, const RecoveryRequest* request) {
  Member* source = nullptr;
  const bool untouched = plan->untouched;
  bool empty = false;  // a member that every acknowledged write would have reached has nothing
  bool away = false;   // somebody may have more than is in reach
  plan->lost.clear();
  auto rank = [](const Member& m) {
    return std::tuple(m.frozen.version(), !m.frozen.suspect(), !m.frozen.damaged(), m.frozen.known(),
                      m.frozen.applied());
  };
  for (Member& m : plan->members) {
    if (m.outcome == Outcome::kStuck) {
      plan->untouched = false;  // others may be frozen: only a raise ends that
      co_return Fail(ErrorCode::kNotReady, fmt::format("chunkserver {} does not answer for chunk {:016x}: {}",
                                                       m.replica.server(), request->chunk.value, ToString(m.error)));
    }
    m.left_out = m.outcome != Outcome::kFrozen || (plan->record.written() && !m.frozen.exists());
    if (m.outcome == Outcome::kBad || (m.left_out && m.outcome == Outcome::kFrozen)) {
      LogWarning("chunk {:016x}: the replica on server {} is left out: {}", request->chunk.value, m.replica.server(),
                 m.outcome == Outcome::kBad ? ToString(m.error) : "it is missing");
    }
    bool gone = m.error.code == ErrorCode::kNoReplica || m.error.code == ErrorCode::kVersionMismatch;
    away |= m.outcome != Outcome::kFrozen && !(m.outcome == Outcome::kBad && gone);
    empty |= m.outcome == Outcome::kFrozen && !m.frozen.exists();
    if (!m.left_out && m.frozen.exists() && (!source || rank(m) > rank(*source))) source = &m;
  }
  if (!source) {
    if (plan->record.written() || !empty) {
      co_return Fail(ErrorCode::kUnavailable,
                     fmt::format("no replica of chunk {:016x} is alive", request->chunk.value));
    }
    co_return Status();  // nothing was ever acknowledged: placed anew in the commit
  }
  plan->untouched = false;
  if (request->extra) {
    Member extra;
    extra.replica.set_server(request->extra_server);
    extra.replica.set_instance(request->extra.value);
    extra.frozen.set_exists(true);
    size_t at = static_cast<size_t>(source - plan->members.data());
    plan->members.push_back(std::move(extra));
    source = &plan->members[at];
  }
  plan->accept_lost = !away;
  Task<void> first = RaiseOne(plan, request->chunk, source, nullptr);
  co_await first;
  if (!source->raised && source->frozen.damaged() && source->error.code == ErrorCode::kCorrupt) {
    plan->untouched = untouched;  // it refused before it changed anything
    co_return Fail(ErrorCode::kUnavailable,
                   fmt::format("chunk {:016x} is damaged on server {}: {}", request->chunk.value,
                               source->replica.server(), source->error.message));
  }
  if (!source->raised) {
    co_return Fail(ErrorCode::kNotReady, fmt::format("raising chunk {:016x} on server {}: {}", request->chunk.value,
                                                     source->replica.server(), ToString(source->error)));
  }
  TaskGroup group(state_.context.loop);
  for (Member& m : plan->members) {
    if (!m.left_out && &m != source) group.Spawn(RaiseOne(plan, request->chunk, &m, source));
  }
  Task<void> join = group.Join();
  co_await join;
  co_return JudgeUnraised(*request, *source, plan);
}

// Those that could not be levelled and raised: the recovery is tried again, or goes on without them.
Status Recovery::JudgeUnraised(const RecoveryRequest& request, const Member& source, Plan* plan) const {
  for (const Member& m : plan->members) {
    // The source is to blame, not the one that tried to read it (which may have the last good copy). If it is bad, its
    // own server has seen that, and says so in the next attempt.
    if (m.left_out || m.raised || m.error.code != ErrorCode::kChainFailed) continue;
    if (!m.frozen.exists() && !plan->lost.empty()) continue;  // no copy can be made of it
    return Fail(ErrorCode::kNotReady, fmt::format("chunk {:016x}: server {} is no source: {}", request.chunk.value,
                                                  source.replica.server(), ToString(m.error)));
  }
  for (Member& m : plan->members) {
    if (m.left_out || m.raised) continue;
    bool is_extra = request.extra && m.replica.instance() == request.extra.value;
    // A full disk stays full while the writers wait: the source has everything.
    bool hopeless = IsReplicaError(m.error.code) || m.error.code == ErrorCode::kNoSpace ||
                    (!m.frozen.exists() && m.error.code == ErrorCode::kChainFailed);
    if (!is_extra && !hopeless && !state_.IsDead(m.replica.server())) {
      return Fail(ErrorCode::kNotReady, fmt::format("raising chunk {:016x} on server {}: {}", request.chunk.value,
                                                    m.replica.server(), ToString(m.error)));
    }
    m.left_out = true;
    LogWarning("chunk {:016x}: the replica on server {} is left out: {}", request.chunk.value, m.replica.server(),
               ToString(m.error));
  }
  return {};
}

Task<void> Recovery::CopyTo(const Plan* plan, ChunkId chunk, Member* member, const Member* source) {
  const ServerEntry* from = state_.registry.Find(ServerId(source->replica.server()));
  pb::ReplicateRequest request;
  request.set_chunk(chunk.value);
  request.set_version(plan->new_version);
  request.set_instance(member->replica.instance());
  request.set_source(from ? from->address : "");
  request.set_source_instance(source->replica.instance());
  request.set_order(plan->order);
  Task<Result<pb::ReplicateResponse>> call =
      CallServer<pb::ReplicateResponse>(state_, member->replica.server(), pb::REPLICATE, request, kRaiseTimeout);
  Result<pb::ReplicateResponse> done = co_await call;
  member->raised = done.has_value();
  if (!done) member->error = done.error();
}

void Recovery::FillOthers(const Plan& plan, const Member& member, const Member* source,
                          pb::SetVersionRequest* request) const {
  uint32_t sure = 0;
  for (bool suspects : {false, true}) {
    for (const Member& m : plan.members) {
      const ServerEntry* entry = state_.registry.Find(ServerId(m.replica.server()));
      bool asked = m.outcome == Outcome::kFrozen && m.frozen.exists() && !m.left_out;
      if (&m == &member || &m == source || !asked || !entry || m.frozen.suspect() != suspects) continue;
      pb::Replica* other = request->add_others();
      other->set_server(m.replica.server());
      other->set_instance(m.replica.instance());
      other->set_address(entry->address);
      // Where all are suspects, none has less to say than another.
      sure += !suspects || member.frozen.suspect();
    }
  }
  request->set_sure_others(sure);
}

void Recovery::NoteLost(ChunkId chunk, const Plan& plan) {
  state_.lost_blocks.erase(chunk);
  if (plan.lost.empty() || state_.lost_blocks.size() >= kMaxFailed) return;
  LostBlocks& lost = state_.lost_blocks[chunk];
  lost = {.first = plan.lost.front(), .count = plan.lost.size()};
  for (uint32_t block : plan.lost) {
    if (lost.ranges.empty() || lost.ranges.back().second + 1 != block) lost.ranges.emplace_back(block, block);
    lost.ranges.back().second = block;
  }
  if (lost.ranges.size() > kMaxLostRanges) lost.ranges = {};
}

Task<void> Recovery::RaiseOne(Plan* plan, ChunkId chunk, Member* member, const Member* source) {
  if (source && !member->frozen.exists()) {  // never written there: a whole copy
    Task<void> copy = CopyTo(plan, chunk, member, source);
    co_await copy;
    co_return;
  }
  const ServerEntry* from = source ? state_.registry.Find(ServerId(source->replica.server())) : nullptr;
  uint32_t server = member->replica.server();
  pb::SetVersionRequest request;
  request.set_chunk(chunk.value);
  request.set_old_version(member->frozen.version() ? member->frozen.version() : plan->record.version());
  request.set_new_version(plan->new_version);
  request.set_instance(member->replica.instance());
  if (source) {
    request.set_source(from ? from->address : "");
    request.set_source_instance(source->replica.instance());
    request.mutable_lost_blocks()->Add(plan->lost.begin(), plan->lost.end());
  }
  request.set_accept_lost(plan->accept_lost);
  FillOthers(*plan, *member, source, &request);
  request.set_order(plan->order);
  request.set_lease(plan->lease);
  Task<Result<pb::SetVersionResponse>> call =
      CallServer<pb::SetVersionResponse>(state_, server, pb::SET_VERSION, request, kRaiseTimeout);
  Result<pb::SetVersionResponse> done = co_await call;
  member->raised = done.has_value();
  if (!done) member->error = done.error();
  if (done && !source) plan->lost.assign(done->lost_blocks().begin(), done->lost_blocks().end());
}

// Replicas for a chunk that nobody has anything of: on the servers that are there, and on others where those are too
// few. All get new instances: what a refused write may have left behind is not one of them.
Status Recovery::PlaceAnew(View& view, uint32_t copies, std::vector<pb::ReplicaRecord>* replicas) {
  std::vector<ServerId> servers;
  for (const auto& r : *replicas) servers.push_back(ServerId(r.server()));
  size_t missing = copies > servers.size() ? copies - servers.size() : 0;
  auto more = PlaceReplicas(state_.registry.Candidates(state_.now()), servers, missing, state_.rng);
  servers.insert(servers.end(), more.begin(), more.end());
  if (servers.empty()) return Fail(ErrorCode::kNotEnoughServers, "no chunkserver has room");
  replicas->clear();
  for (ServerId server : servers) {
    TRY_ASSIGN(InstanceId instance, view.NewInstanceId());
    replicas->emplace_back();
    replicas->back().set_server(server.value);
    replicas->back().set_instance(instance.value);
  }
  return {};
}

// What lapsed sessions wrote is on all disks now, and nothing more of theirs is taken.
void Recovery::ForgetLapsed(pb::ChunkRecord* record) {
  std::vector<uint64_t> left;
  for (uint64_t writer : record->writers()) {
    if (!state_.context.sessions->Lapsed(SessionId(writer))) left.push_back(writer);
  }
  record->mutable_writers()->Assign(left.begin(), left.end());
  if (left.empty()) record->set_unsynced(false);
}

// A member without room makes place for another server, as long as enough others have everything.
void Recovery::LeaveOutFull(const RecoveryRequest& request, Plan* plan) const {
  auto stays = [](const Member& m) { return !m.left_out && !m.frozen.full(); };
  size_t with_room = static_cast<size_t>(std::ranges::count_if(plan->members, stays));
  if (!request.no_space || with_room < state_.MinCopies(plan->record.copies())) return;
  for (Member& m : plan->members) m.left_out |= m.frozen.full();
}

Status Recovery::Commit(View& view, const RecoveryRequest& request, const Plan& plan) {
  TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(request.chunk));
  if (!record)
    return Fail(ErrorCode::kNotFound, fmt::format("chunk {:016x} was deleted meanwhile", request.chunk.value));
  if (record->pending_version() != plan.new_version) {
    return Fail(ErrorCode::kInternal, fmt::format("chunk {:016x}: two recoveries at once", request.chunk.value));
  }
  std::vector<pb::ReplicaRecord> replicas;
  for (const Member& m : plan.members) {
    if (!m.left_out) replicas.push_back(m.replica);
  }
  uint32_t copies = record->copies();
  if (std::ranges::none_of(plan.members, &Member::raised)) {
    TRY(PlaceAnew(view, copies, &replicas));
  }
  auto* changed = view.MutableChunk(request.chunk);
  changed->set_version(plan.new_version);
  changed->clear_pending_version();
  changed->clear_adopted();
  ForgetLapsed(changed);
  SetReplicas(view, state_, request.chunk, changed, replicas);
  if (replicas.size() < copies) PutWork(view, state_, request.chunk);
  return {};
}

}  // namespace shoal::meta
