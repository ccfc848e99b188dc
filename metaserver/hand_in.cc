#include "metaserver/hand_in.h"

#include <leveldb/write_batch.h>

#include <algorithm>

#include "common/log.h"
#include "metaserver/batch.h"
#include "metaserver/commit.h"
#include "metaserver/driver.h"
#include "metaserver/sessions.h"

namespace shoal::meta {
namespace {

// A request may wait for chunkservers: so long in all, then so long each.
constexpr Duration kRedoTime = 5s;
constexpr Duration kShortRedoTime = 100ms;

SteadyTime Now() { return std::chrono::steady_clock::now(); }

}  // namespace

HandIn::HandIn(MetaContext& context, TxnId above)
    : context_(context),
      above_(above),
      over_(context.loop),
      handed_in_(context.metrics.counter("shoal_metaserver_handed_in_total",
                                         "Requests that a power cut had taken and that were executed again")),
      failed_(context.metrics.counter(
          "shoal_metaserver_handed_in_failed_total",
          "Requests that a power cut had taken and that could not be executed again as they were")) {}

HandIn::~HandIn() = default;

void HandIn::Register() {
  context_.driver->OnTask<pb::HandInRequest, pb::HandInResponse>(
      pb::HAND_IN, [this](CallInfo info, const pb::HandInRequest& request, pb::HandInResponse& response) {
        return Take(std::move(info), request, response);
      });
}

void HandIn::Start() {
  started_ = Now();
  for (const auto& [id, session] : context_.sessions->all()) waiting_.insert(id);
  Check();
}

void HandIn::Stop() {
  phase_ = Phase::kStopped;
  timer_.reset();
  held_.clear();
  over_.WakeAll();
}

bool HandIn::Holds(pb::Method method) const {
  if (!holding()) return false;
  switch (method) {
    case pb::OPEN_SESSION:
    case pb::KEEP_ALIVE:
    case pb::HAND_IN:
    case pb::RELEASE:
    case pb::CLUSTER_STATUS:
    case pb::LIST_SERVERS:
    case pb::REGISTER:
    case pb::HEARTBEAT:
    case pb::REPORT_BAD_REPLICA:  // refused, and told again
      return false;
    default:
      return true;
  }
}

Task<void> HandIn::WaitUntilOver() {
  while (holding()) co_await over_.Wait();
}

TxnId HandIn::Durable() const {
  TxnId durable = context_.commit->durable();
  return holding() || durable < last_ ? above_ : durable;
}

bool HandIn::Missing(uint64_t txn) const { return txn > above_.value && txn < context_.commit->first().value; }

Status HandIn::CheckDurable(const std::string& who, uint64_t durable) const {
  const Commit& commit = *context_.commit;
  const bool of_before = durable <= commit.recovered().value;
  const bool of_now = durable >= commit.first().value && durable <= commit.submitted().value;
  if (of_before || of_now) return {};
  return Fail(
      ErrorCode::kOldIncarnation,
      fmt::format("{} was told that transaction {} is durable, the state here ends at {}: it is an older copy; bring "
                  "one in with `shoal meta restore` only",
                  who, durable, (durable < commit.first().value ? commit.recovered() : commit.submitted()).value));
}

// ---- who comes back ----

void HandIn::Seen(uint64_t txn) {
  if (!Missing(txn)) return;
  if (!std::exchange(missing_, true)) {
    LogWarning(
        "the state ends at transaction {}, but {} has been seen: a power cut took what was done between; the sessions "
        "hand it in",
        above_.value, txn);
  }
  Check();
}

void HandIn::SessionResumed(const Session& session, const pb::OpenSessionRequest& request,
                            pb::OpenSessionResponse& response) {
  if (phase_ == Phase::kStopped) return;
  if (Missing(request.kept_txn())) {
    response.set_hand_in_above(above_.value);
    response.set_hand_in_below(context_.commit->first().value);
  } else {
    waiting_.erase(session.id);
  }
  Seen(std::max(request.seen_txn(), request.kept_txn()));
  Check();
}

void HandIn::SessionGone(SessionId session) {
  if (waiting_.erase(session)) Check();
}

Task<Result<TxnId>> HandIn::Take(CallInfo, const pb::HandInRequest& request, pb::HandInResponse&) {
  SessionId session(request.session());
  if (!context_.sessions->Find(session)) co_return Fail(ErrorCode::kSessionEnded, "the session has ended; mount again");
  if (phase_ != Phase::kWaiting) {
    Task<Result<TxnId>> late = TakeLate(&request);
    Result<TxnId> done = co_await late;
    co_return done;
  }
  for (const pb::HandedIn& done : request.done()) entries_.push_back({session, done});
  if (request.end()) {
    waiting_.erase(session);
    Check();
  }
  co_return TxnId();
}

Task<Result<TxnId>> HandIn::TakeLate(const pb::HandInRequest* request) {
  Task<void> wait = WaitUntilOver();
  co_await wait;
  const SteadyTime until = Now() + kRedoTime;
  TxnId last;
  for (const pb::HandedIn& done : request->done()) {
    if (phase_ == Phase::kStopped) co_return Fail(ErrorCode::kCancelled, "the metaserver is stopping");
    Task<TxnId> again = ExecuteOne(SessionId(request->session()), &done, until);
    TxnId txn = co_await again;
    last = std::max(last, txn);
  }
  if (request->end()) {
    waiting_.erase(SessionId(request->session()));
    context_.sessions->CheckOrphans();
  }
  // What the state has already rests on what was logged by now.
  co_return std::max(last, context_.commit->submitted());
}

// ---- executing ----

void HandIn::Check() {
  if (phase_ != Phase::kWaiting || started_ == SteadyTime{}) return;
  const MetaServerOptions& options = context_.options;
  SteadyTime until = started_ + (missing_ ? options.hand_in_wait_missing : options.hand_in_wait);
  if (!waiting_.empty() && Now() < until) {
    timer_ = context_.loop.RunAfter(until - Now(), [this] { Check(); });
    return;
  }
  timer_.reset();
  if (!waiting_.empty() && missing_) {
    LogWarning("{} sessions of before are not back yet: what they may have to hand in is executed when they come",
               waiting_.size());
  }
  if (entries_.empty()) return Over();
  phase_ = Phase::kExecuting;
  context_.driver->Spawn(ExecuteAll());
}

Task<void> HandIn::ExecuteAll() {
  std::vector<Entry> entries = std::exchange(entries_, {});
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.done.txn() < b.done.txn(); });
  const SteadyTime until = Now() + kRedoTime;
  for (const Entry& entry : entries) {
    if (phase_ == Phase::kStopped) co_return;
    Task<TxnId> again = ExecuteOne(entry.session, &entry.done, until);
    TxnId txn = co_await again;
    last_ = std::max(last_, txn);
  }
  LogInfo("{} requests were handed in, {} were missing and executed again, {} of those not as they were",
          entries.size(), handed_in_.value(), failed_.value());
  if (phase_ == Phase::kExecuting) Over();
}

Task<TxnId> HandIn::ExecuteOne(SessionId session, const pb::HandedIn* done, SteadyTime until) {
  Task<Result<TxnId>> again = context_.driver->Again(session, done, std::max(until, Now() + kShortRedoTime));
  Result<TxnId> result = co_await again;
  if (result) {
    if (*result) handed_in_.Add();
    co_return *result;
  }
  handed_in_.Add();
  failed_.Add();
  const Error& error = result.error();
  LogError(
      "session {:x}: {} (transaction {}), lost in a power cut and handed in, could not be done again as it was: {}",
      session.value, pb::Method_Name(static_cast<pb::Method>(done->method())), done->txn(), ToString(error));
  if (Session* found = context_.sessions->Find(session)) {
    ++found->hand_in_failed;
    found->hand_in_error = pb::Method_Name(static_cast<pb::Method>(done->method())) + ": " + ToString(error);
  }
  co_return context_.commit->submitted();
}

void HandIn::Over() {
  phase_ = Phase::kOver;
  leveldb::WriteBatch nothing;  // only says that the hand-in has ended
  SubmitBatch(context_, &nothing);
  std::vector<std::move_only_function<void()>> held = std::exchange(held_, {});
  for (auto& go : held) go();
  context_.sessions->CheckOrphans();
  over_.WakeAll();
}

}  // namespace shoal::meta
