#include "metaserver/chunks/reconcile.h"

#include <fmt/ranges.h>

#include "common/log.h"
#include "metaserver/chunks/drops.h"
#include "metaserver/chunks/recovery.h"

namespace shoal::meta {
namespace {

constexpr size_t kAtOnce = 4;

}  // namespace

void Reconciler::Told(ServerId server) {
  const ServerEntry* entry = state_.registry.Find(server);
  if (!Holding() || !entry) return;
  told_[server] = entry->start_id;
  LogInfo("after the restore: chunkserver {} ({}) has told what it has", server.value, entry->name);
}

std::vector<std::string> Reconciler::WaitingFor() const {
  std::vector<std::string> names;
  if (!Holding()) return names;
  for (const auto& [id, entry] : state_.registry.all()) {
    if (!told_.contains(id)) names.push_back(entry.name);
  }
  return names;
}

void Reconciler::Tick() {
  if (state_.stopping()) return;
  CheckHold();
  while (!Holding() && running_ < kAtOnce && !adopted_.empty()) {
    ChunkId chunk = *adopted_.begin();
    adopted_.erase(adopted_.begin());
    ++running_;
    state_.tasks.Spawn(Recover(chunk));
  }
}

// What can't be done now is done when the chunk is read or written.
Task<void> Reconciler::Recover(ChunkId chunk) {
  RecoveryRequest request;
  request.chunk = chunk;
  request.for_write = false;
  bool pending = false;
  std::function<Status(View&)> op = [&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(chunk));
    pending = record && record->pending_version() != 0;
    if (pending) request.version = record->version();
    return {};
  };
  Task<Result<TxnId>> look = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> looked = co_await look;
  if (looked && pending) {
    Task<Status> recover = state_.recovery->Recover(request);
    Status recovered = co_await recover;
    if (!recovered)
      LogWarning("chunk {:016x}: its newer version is taken in later: {}", chunk.value, ToString(recovered.error()));
  }
  --running_;
}

void Reconciler::CheckHold() {
  if (!Holding() || ending_) return;
  bool any = false;
  for (const auto& [id, entry] : state_.registry.all()) any |= told_.contains(id);
  std::vector<std::string> waiting = WaitingFor();
  bool over = std::chrono::steady_clock::now() - state_.context.started >= state_.context.options.rereplication_grace;
  bool all = waiting.empty() && (any || state_.registry.all().empty());
  if (!all && !over) return;
  if (!waiting.empty()) {
    LogWarning("after the restore: no longer waiting for {}; newer data that they may have is taken in when they come",
               fmt::join(waiting, ", "));
  }
  ending_ = true;
  state_.tasks.Spawn(End());
}

Task<void> Reconciler::End() {
  std::function<Status(View&)> op = [](View& view) -> Status {
    TRY_ASSIGN(const pb::LifeRecord* life, view.Get<pb::LifeRecord>(LifeKey()));
    if (life) view.Mutable<pb::LifeRecord>(LifeKey())->set_reconciled(true);
    return {};
  };
  Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kDurable);
  Result<TxnId> done = co_await run;
  ending_ = false;
  if (!done) {
    LogError("after the restore: {}", ToString(done.error()));
    co_return;
  }
  state_.context.life.reconciled = true;
  LogInfo("after the restore: the records agree with what the chunkservers have; they serve from now on");
  for (auto& [id, entry] : state_.registry.all()) {
    entry.want_inventory = true;
    state_.drops->Noted(id);  // releases it, when it has dropped what it must
  }
}

}  // namespace shoal::meta
