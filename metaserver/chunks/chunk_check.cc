#include "metaserver/chunks/chunk_check.h"

#include <algorithm>

#include "common/log.h"
#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/recovery.h"

namespace shoal::meta {
namespace {

constexpr Duration kDataTimeout = 300s, kTableTimeout = 10s;
constexpr int kRounds = 6;
constexpr Duration kRoundPause = 50ms;

bool SameReplicas(const pb::ChunkRecord& a, const pb::ChunkRecord& b) {
  return a.version() == b.version() &&
         std::ranges::equal(a.replicas(), b.replicas(), {}, &pb::ReplicaRecord::instance, &pb::ReplicaRecord::instance);
}

bool Found(const CheckOutcome& outcome, InstanceId instance) {
  return std::ranges::any_of(outcome.findings, [&](const CheckFinding& f) { return f.instance == instance; });
}

}  // namespace

ChunkChecker::ChunkChecker(ChunkState& state)
    : state_(state),
      compared_(
          state.context.metrics.counter("shoal_metaserver_compared_chunks_total", "Chunks whose copies were compared")),
      differing_(state.context.metrics.counter("shoal_metaserver_differing_chunks_total",
                                               "Chunks with copies that were each good by themselves, and differed")) {}

Task<CheckOutcome> ChunkChecker::Check(ChunkId chunk, bool data) {
  CheckOutcome outcome;
  Digests before;
  bool differ = false;
  for (int round = 0; round < kRounds && !state_.stopping(); round++) {
    if (round > 0) {
      auto pause = state_.context.loop.Sleep(kRoundPause);
      co_await pause;
    }
    Task<Status> waiting = state_.recovery->WaitFor(chunk);
    co_await waiting;
    Look first, second;
    Task<Status> look = LookAt(chunk, &first);
    Status looked = co_await look;
    if (!looked || first.gone) co_return outcome;
    if (!first.there) continue;
    std::vector<Copy> copies;
    bool table_only = !data || outcome.bytes > 0 || differ;
    Task<void> ask = AskAll(chunk, &first, table_only, &copies);
    co_await ask;
    Task<Status> again = LookAt(chunk, &second);
    looked = co_await again;
    if (!looked || second.gone) co_return outcome;
    bool same = second.there && SameReplicas(first.record, second.record);
    // After a power cut a replica may have to be recovered first, which its server has asked for.
    bool unready = round + 1 < kRounds && std::ranges::any_of(copies, [](const Copy& c) {
                     return !c.answer && c.answer.error().code == ErrorCode::kNotReady;
                   });
    Judge(chunk, first.record.version(), copies, same && !unready, &outcome);
    if (!same || unready) continue;
    Digests now;
    outcome.replicas = 0;
    for (const Copy& copy : copies) {
      if (!copy.answer) continue;
      outcome.replicas++;
      outcome.bytes += copy.answer->bytes();
      now[copy.replica.instance()] = copy.answer->digest();
    }
    differ = std::ranges::any_of(now, [&](const auto& d) { return d.second != now.begin()->second; });
    if (!differ) {
      if (now.size() > 1) compared_.Add();
      co_return outcome;
    }
    bool settled = Settled(copies, first.quiet && second.quiet);
    if (settled && now == before) {
      Task<void> repair = Repair(chunk, first.record.version(), &copies, &outcome);
      co_await repair;
      co_return outcome;
    }
    before = settled ? now : Digests();
  }
  if (differ) {
    outcome.findings.push_back({.what = "not_compared", .why = "it is being written"});
  }
  co_return outcome;
}

Task<Status> ChunkChecker::LookAt(ChunkId chunk, Look* look) {
  std::function<Status(View&)> op = [&](View& view) -> Status {
    *look = {};
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
    look->gone = !record || !record->written();
    if (look->gone) return {};
    look->record = *record;
    look->there = record->pending_version() == 0 && !state_.recovery->Running(chunk);
    look->quiet = look->there && IsQuiet(state_, *record);
    return {};
  };
  Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> done = co_await run;
  if (!done) co_return Fail(done.error());
  co_return Status();
}

Task<void> ChunkChecker::AskAll(ChunkId chunk, const Look* look, bool table_only, std::vector<Copy>* copies) {
  for (const pb::ReplicaRecord& replica : look->record.replicas()) {
    if (state_.bad->Contains(InstanceId(replica.instance()))) continue;
    copies->push_back({replica, Fail(ErrorCode::kUnavailable, "its server is away")});
  }
  TaskGroup group(state_.context.loop);
  for (Copy& copy : *copies) {
    if (state_.IsLive(copy.replica.server())) group.Spawn(Ask(chunk, look->record.version(), table_only, &copy));
  }
  Task<void> join = group.Join();
  co_await join;
}

Task<void> ChunkChecker::Ask(ChunkId chunk, uint32_t version, bool table_only, Copy* copy) {
  pb::ScrubReplicaRequest request;
  request.set_chunk(chunk.value);
  request.set_version(version);
  request.set_instance(copy->replica.instance());
  request.set_table_only(table_only);
  Task<Result<pb::ScrubReplicaResponse>> call = CallServer<pb::ScrubReplicaResponse>(
      state_, copy->replica.server(), pb::SCRUB_REPLICA, request, table_only ? kTableTimeout : kDataTimeout);
  copy->answer = co_await call;
}

void ChunkChecker::Judge(ChunkId chunk, uint32_t version, const std::vector<Copy>& copies, bool same,
                         CheckOutcome* outcome) {
  for (const Copy& copy : copies) {
    InstanceId instance(copy.replica.instance());
    if (copy.answer || Found(*outcome, instance)) continue;
    const Error& why = copy.answer.error();
    CheckFinding finding{copy.replica.server(), instance, "unreachable", ToString(why)};
    switch (why.code) {
      case ErrorCode::kCorrupt:
      case ErrorCode::kIo:
      case ErrorCode::kNoReplica:
        finding.what = why.code == ErrorCode::kNoReplica ? "missing" : "bad";
        // As in a report: no raise makes it good. Whether more than places are bad, its server says in the recovery.
        state_.bad->Add(chunk, instance, ~0u, why.code == ErrorCode::kCorrupt);
        break;
      case ErrorCode::kVersionMismatch:
        if (!same) continue;
        finding.what = "stale";
        state_.AddStale(chunk, instance, version);
        break;
      default:
        if (!same) continue;
    }
    LogWarning("chunk {:016x}: the replica on server {} is {}: {}", chunk.value, copy.replica.server(), finding.what,
               finding.why);
    outcome->findings.push_back(std::move(finding));
  }
}

bool ChunkChecker::Settled(const std::vector<Copy>& copies, bool quiet) {
  if (quiet) return true;
  const pb::ScrubReplicaResponse* first = nullptr;
  for (const Copy& copy : copies) {
    if (!copy.answer) continue;
    const pb::ScrubReplicaResponse& a = *copy.answer;
    if (!first) first = &a;
    if (!a.known() || a.numbering() != first->numbering() || a.applied() != first->applied()) return false;
  }
  return true;
}

Task<void> ChunkChecker::Repair(ChunkId chunk, uint32_t version, const std::vector<Copy>* copies,
                                CheckOutcome* outcome) {
  std::map<uint64_t, size_t> votes;
  size_t away = 0;
  bool doubted = false;
  for (const Copy& copy : *copies) {
    if (copy.answer) {
      votes[copy.answer->digest()]++;
      doubted |= copy.answer->doubted();
    } else {
      away += !IsReplicaError(copy.answer.error().code);
    }
  }
  auto most = std::ranges::max_element(votes, {}, [](const auto& v) { return v.second; });
  size_t all = copies->size();
  differing_.Add();
  LogError("chunk {:016x} version {}: {} copies of {}, each good by itself, differ", chunk.value, version, votes.size(),
           all);
  if (!doubted && most->second * 2 > outcome->replicas + away) {
    for (const Copy& copy : *copies) {
      if (!copy.answer || copy.answer->digest() == most->first) continue;
      InstanceId instance(copy.replica.instance());
      LogError("chunk {:016x}: the replica on server {} is left out: {} others are equal", chunk.value,
               copy.replica.server(), most->second);
      outcome->findings.push_back({copy.replica.server(), instance, "different",
                                   fmt::format("it differs from {} others, which are equal", most->second)});
      state_.bad->Add(chunk, instance, version);
    }
    co_return;
  }
  CheckFinding finding{.what = "different", .why = "no greater number of its copies are equal"};
  if (away > 0) {
    finding.why += ": the servers of others are away, and are waited for";
  } else {
    RecoveryRequest request;
    request.chunk = chunk;
    request.version = version;
    request.for_write = false;
    Task<Status> recover = state_.recovery->Recover(request);
    Status recovered = co_await recover;
    finding.repaired = recovered.has_value();
    finding.why +=
        recovered ? ": all were made equal to the one that a recovery chose" : ": " + ToString(recovered.error());
  }
  outcome->findings.push_back(std::move(finding));
}

}  // namespace shoal::meta
