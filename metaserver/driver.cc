#include "metaserver/driver.h"

#include <leveldb/write_batch.h>

#include <algorithm>

#include "common/log.h"
#include "metaserver/batch.h"
#include "metaserver/hand_in.h"
#include "metaserver/ids.h"
#include "metaserver/sessions.h"
#include "metaserver/store.h"

namespace shoal::meta {
void BusyTable::Clear(InodeId id) {
  auto it = inodes_.find(id);
  CHECK(it != inodes_.end());
  if (--it->second > 0) return;
  inodes_.erase(it);
  wake_.WakeAll();
}

Task<void> BusyTable::WaitFor(InodeId id) {
  while (Contains(id)) co_await wake_.Wait();
}

Driver::Driver(MetaContext& context)
    : context_(context), batch_(std::make_unique<leveldb::WriteBatch>()), group_(context.loop) {}

Driver::~Driver() = default;

Task<void> Driver::Stop() {
  stopping_ = true;
  Task<void> join = group_.Join();
  co_await join;
}

Driver::MethodStats& Driver::method_stats(pb::Method method) {
  auto it = stats_.find(method);
  if (it != stats_.end()) return it->second;
  std::string label = "method=\"" + pb::Method_Name(method) + "\"";
  Metrics& metrics = context_.metrics;
  MethodStats stats{
      &metrics.counter("shoal_metaserver_calls_total", "Requests by method", label),
      &metrics.counter("shoal_metaserver_call_errors_total", "Requests answered with an error, by method", label),
      &metrics.histogram("shoal_metaserver_call_seconds", "From a request's arrival to its result, by method", label)};
  return stats_.emplace(method, stats).first->second;
}

void Driver::Finish(MethodStats& stats, SteadyTime start, bool ok) {
  stats.calls->Add();
  if (!ok) stats.errors->Add();
  stats.latency->Record(std::chrono::steady_clock::now() - start);
}

void Driver::Register(pb::Method method, OpKind kind, std::function<std::unique_ptr<Call>()> make) {
  auto operation = std::make_unique<Operation>(Operation{kind, std::move(make), method_stats(method)});
  Operation* raw = operation.get();
  operations_[method] = std::move(operation);
  context_.dispatcher.On(method, [this, raw](Request request) { HandleRequest(raw, std::move(request)); });
}

void Driver::RegisterTask(pb::Method method, Dispatcher::Handler handler) {
  context_.dispatcher.On(method, [this, handler = std::move(handler)](Request request) {
    if (stopping_) return request.AnswerError(Error{ErrorCode::kNotReady, "the metaserver is stopping"});
    if (context_.hand_in->Holds(request.method())) {
      return context_.hand_in->Hold([handler, held = std::move(request)]() mutable { handler(std::move(held)); });
    }
    handler(std::move(request));
  });
}

Status Driver::CheckCaller(const pb::Caller& caller) const {
  if (caller.session() == 0) return {};
  Session* session = context_.sessions->Find(SessionId(caller.session()));
  if (!session) return Fail(ErrorCode::kSessionEnded, "the session has ended; mount again");
  session->last_seen = std::chrono::steady_clock::now();
  return {};
}

// ---- slots ----

// The file that a remembered request has opened, if it was one that opens.
static InodeId OpenedBy(const pb::SlotRecord& record) {
  bool opens = record.method() == pb::CREATE || record.method() == pb::OPEN;
  pb::OpenResponse response;
  if (!opens || !response.ParseFromString(record.response())) return {};
  return InodeId(response.attr().inode());
}

Driver::SlotStep Driver::TakeSlot(Execution& x) {
  const pb::Caller& caller = x.call->caller();
  Session* session = context_.sessions->Find(SessionId(caller.session()));
  if (!session) {
    x.status = Fail(ErrorCode::kSessionEnded, "the session has ended; mount again");
    return SlotStep::kDone;
  }
  if (caller.slot() >= context_.options.slots) {
    x.status = Fail(ErrorCode::kInvalidArgument, "no such slot");
    return SlotStep::kDone;
  }
  if (session->slots.size() <= caller.slot()) session->slots.resize(caller.slot() + 1);
  SlotState& slot = session->slots[caller.slot()];
  if (!slot.known) {
    const StoreEntry* entry = context_.store->Find(SlotKey(session->id, caller.slot()));
    if (!entry) return SlotStep::kLoad;
    if (entry->record) {
      const auto& record = static_cast<const pb::SlotRecord&>(*entry->record);
      slot.sequence = record.sequence();
      slot.answered = true;
      slot.response = record.response();
      slot.opened = OpenedBy(record);
    }
    slot.known = true;
  }
  if (caller.sequence() < slot.sequence) {
    x.superseded = true;
    x.status = Fail(ErrorCode::kInvalidArgument, "the request is older than its slot's last one");
    return SlotStep::kDone;
  }
  if (slot.running) return SlotStep::kJoin;
  if (caller.sequence() == slot.sequence && slot.answered) {
    x.serialized = slot.response;
    x.txn = slot.txn;
    x.replayed = true;
    // Opened before a restart, and not told of by the client, which does not know it yet.
    InodeId opened = std::exchange(slot.opened, InodeId{});
    if (opened && !x.recipe) context_.sessions->AddOpen(session->id, opened);
    return SlotStep::kDone;
  }
  slot.sequence = caller.sequence();
  slot.running = true;
  slot.answered = false;
  x.remembered = true;
  return SlotStep::kRun;
}

void Driver::LeaveSlot(Execution& x) {
  const pb::Caller& caller = x.call->caller();
  Session* session = context_.sessions->Find(SessionId(caller.session()));
  if (!session) return;
  SlotState& slot = session->slots[caller.slot()];
  slot.running = false;
  if (x.status) {
    slot.answered = true;
    slot.response = x.serialized;
    slot.txn = x.txn;
  }
  if (slot.joined) slot.joined->WakeAll();
}

// ---- attempts ----

TxnId Driver::Apply(View& view) {
  TxnId txn;
  if (view.changed()) {
    batch_->Clear();
    for (const RecordChange& change : view.changes_) {
      if (change.record) {
        PutRecord(batch_.get(), change.key, *change.record);
      } else {
        batch_->Delete({change.key.view().data(), change.key.view().size()});
      }
    }
    context_.totals.inodes += view.stats_.inodes;
    context_.totals.file_bytes += view.stats_.file_bytes;
    context_.totals.chunks += view.stats_.chunks;
    for (const auto& [kind, id] : view.fresh_) context_.store->MarkFresh(kind, id);
    txn = SubmitBatch(context_, batch_.get());
    context_.store->Apply(txn, std::move(view.changes_));
  }
  for (auto& effect : view.effects_) effect(txn);
  return txn ? txn : view.seen_;
}

void Driver::AddRecipe(const View& view, std::string* response) {
  pb::Recipe* recipe = recipe_.mutable_recipe();
  recipe->set_now_ns(view.now_ns_);
  recipe->mutable_numbers()->Assign(view.numbers_.begin(), view.numbers_.end());
  recipe_.AppendToString(response);
}

bool Driver::TryCall(Execution& x, Needs* needs) {
  const pb::Caller& caller = x.call->caller();
  View view(context_, &caller, x.recipe ? x.recipe->now_ns() : context_.now_ns(), x.recipe);
  x.status = x.call->Run(view);
  if (view.abandoned_) {
    *needs = std::move(view.needs_);
    x.call->response().Clear();
    return false;
  }
  x.txn = view.seen_;
  if (!x.status) return true;
  if (x.remembered || view.changed()) {
    if (view.changed()) {
      const Status& health = context_.commit->health();
      if (!health) {
        x.status = health;
        return true;
      }
    }
    x.call->response().SerializeToString(&x.serialized);
    if (x.remembered && view.changed()) {
      AddRecipe(view, &x.serialized);
      auto* slot = view.Put<pb::SlotRecord>(SlotKey(SessionId(caller.session()), caller.slot()));
      slot->set_sequence(caller.sequence());
      slot->set_method(x.method);
      slot->set_response(x.serialized);
    }
  }
  x.durable = view.durable_;
  x.txn = Apply(view);
  return true;
}

Task<void> Driver::RunPrerequisites(std::optional<InodeId> busy, Prerequisite prerequisite,
                                    std::shared_ptr<OneShot<Status>> ended) {
  if (busy) {
    Task<void> wait = context_.busy->WaitFor(*busy);
    co_await wait;
  }
  Status done;
  if (prerequisite) {
    Task<Status> task = prerequisite();
    done = co_await task;
  }
  ended->Set(std::move(done));
}

Task<Status> Driver::Prepare(Needs needs, SteadyTime deadline) {
  if (needs.ids) {
    Task<Status> more = context_.ids->More();
    Status got = co_await more;
    if (!got) co_return got;
  }
  if (!needs.cold.empty()) {
    Task<Status> fetch = context_.store->Fetch(std::move(needs.cold));
    Status fetched = co_await fetch;
    if (!fetched) co_return fetched;
  }
  if (needs.busy || needs.prerequisite) {
    // What takes too long goes on without this request, which must give its slot back.
    auto ended = std::make_shared<OneShot<Status>>(context_.loop);
    group_.Spawn(RunPrerequisites(std::move(needs.busy), std::move(needs.prerequisite), ended));
    std::unique_ptr<EventLoop::Timer> timer;
    if (deadline != SteadyTime::max()) {
      auto late = [ended] { ended->Set(Fail(ErrorCode::kTimeout, "what the request waits for takes too long")); };
      timer = context_.loop.RunAfter(std::max<Duration>(deadline - std::chrono::steady_clock::now(), 0ms), std::move(late));
    }
    OneShot<Status>& shot = *ended;
    Status done = co_await shot;
    if (!done) co_return done;
  }
  if (needs.retry_after) co_await context_.loop.Sleep(*needs.retry_after);
  if (stopping_) co_return Fail(ErrorCode::kCancelled, "the metaserver is stopping");
  if (std::chrono::steady_clock::now() >= deadline) co_return Fail(ErrorCode::kTimeout, "the request's time is over");
  co_return Status();
}

Task<void> Driver::Drive(Execution* x) {
  const pb::Caller& caller = x->call->caller();
  if (x->operation->kind == OpKind::kMutation && caller.sequence() != 0 && !x->remembered) {
    while (true) {
      SlotStep step = TakeSlot(*x);
      if (step == SlotStep::kRun) break;
      if (step == SlotStep::kDone) co_return;
      if (step == SlotStep::kJoin) {
        Session* session = context_.sessions->Find(SessionId(caller.session()));
        SlotState& slot = session->slots[caller.slot()];
        if (!slot.joined) slot.joined = std::make_unique<WaitList>(context_.loop);
        co_await slot.joined->Wait();
      } else {
        std::vector<ColdKey> keys;
        keys.push_back({SlotKey(SessionId(caller.session()), caller.slot()), &pb::SlotRecord::default_instance()});
        Task<Status> fetch = context_.store->Fetch(std::move(keys));
        Status fetched = co_await fetch;
        if (!fetched) {
          x->status = fetched;
          co_return;
        }
      }
    }
  }
  while (true) {
    Needs needs;
    if (TryCall(*x, &needs)) break;
    Task<Status> prepare = Prepare(std::move(needs), x->deadline);
    Status prepared = co_await prepare;
    if (prepared) prepared = CheckCaller(caller);
    if (!prepared) {
      x->status = prepared;
      break;
    }
  }
  if (x->remembered) LeaveSlot(*x);
}

// ---- requests ----

void Driver::HandleRequest(Operation* operation, Request request) {
  if (context_.hand_in->Holds(request.method())) {
    return context_.hand_in->Hold(
        [this, operation, held = std::move(request)]() mutable { HandleRequest(operation, std::move(held)); });
  }
  auto x = std::make_unique<Execution>();
  x->operation = operation;
  x->method = request.method();
  x->start = std::chrono::steady_clock::now();
  x->deadline = request.deadline();
  x->call = operation->make();
  Status parsed = request.Parse(x->call->request());
  if (parsed && stopping_) parsed = Fail(ErrorCode::kNotReady, "the metaserver is stopping");
  if (parsed) parsed = CheckCaller(x->call->caller());
  x->request.emplace(std::move(request));
  if (!parsed) {
    x->status = parsed;
    return Answer(std::move(x));
  }
  // Most requests are done in one attempt: no coroutine for them.
  if (operation->kind == OpKind::kMutation && x->call->caller().sequence() != 0) {
    SlotStep step = TakeSlot(*x);
    if (step == SlotStep::kDone) return Answer(std::move(x));
    if (step != SlotStep::kRun) return group_.Spawn(ServeSlowly(std::move(x)));
  }
  Needs needs;
  if (!TryCall(*x, &needs)) return group_.Spawn(ServeAgain(std::move(x), std::move(needs)));
  if (x->remembered) LeaveSlot(*x);
  Answer(std::move(x));
}

Task<void> Driver::ServeAgain(std::unique_ptr<Execution> x, Needs needs) {
  Task<Status> prepare = Prepare(std::move(needs), x->deadline);
  Status prepared = co_await prepare;
  if (prepared) prepared = CheckCaller(x->call->caller());
  if (prepared) {
    Task<void> drive = Drive(x.get());
    co_await drive;
  } else {
    x->status = prepared;
    if (x->remembered) LeaveSlot(*x);
  }
  Answer(std::move(x));
}

Task<void> Driver::ServeSlowly(std::unique_ptr<Execution> x) {
  Task<void> drive = Drive(x.get());
  co_await drive;
  Answer(std::move(x));
}

CommitLevel Driver::LevelOf(const Execution& x) const {
  return x.durable || context_.options.sync_always ? CommitLevel::kDurable : CommitLevel::kLogged;
}

void Driver::Answer(std::unique_ptr<Execution> x) {
  Finish(x->operation->stats, x->start, x->status.has_value());
  CommitLevel level = LevelOf(*x);
  if (x->txn <= (level == CommitLevel::kLogged ? context_.commit->logged() : context_.commit->durable())) {
    return Send(*x, Status());
  }
  TxnId txn = x->txn;
  context_.commit->WhenReached(txn, level, [x = std::move(x)](const Status& reached) { Send(*x, reached); });
}

void Driver::Send(Execution& x, const Status& reached) {
  if (!reached) return x.request->AnswerError(reached.error());
  if (!x.status) return x.request->AnswerError(x.status.error(), x.txn);
  if (x.replayed || !x.serialized.empty()) return x.request->AnswerRaw(ErrorCode::kOk, x.serialized, x.txn);
  x.request->Answer(x.call->response(), Payload(), x.txn);
}

// ---- inside ----

Task<Result<TxnId>> Driver::Execute(std::function<Status(View&)> run, CommitLevel level,
                                    std::optional<SteadyTime> deadline) {
  const SteadyTime until = deadline.value_or(SteadyTime::max());
  TxnId txn;
  bool durable = level == CommitLevel::kDurable;
  while (true) {
    Needs needs;
    {
      View view(context_, &root_, context_.now_ns());
      Status status = run(view);
      if (!view.abandoned_) {
        if (status && view.changed()) status = context_.commit->health();
        if (!status) co_return Fail(status.error());
        durable = durable || view.durable_;
        txn = Apply(view);
        break;
      }
      needs = std::move(view.needs_);
    }
    Task<Status> prepare = Prepare(std::move(needs), until);
    Status prepared = co_await prepare;
    if (!prepared) co_return Fail(prepared.error());
  }
  Task<Status> wait = context_.commit->Wait(txn, durable ? CommitLevel::kDurable : CommitLevel::kLogged);
  Status reached = co_await wait;
  if (!reached) co_return Fail(reached.error());
  co_return txn;
}

Task<Result<TxnId>> Driver::Again(SessionId session, const pb::HandedIn* done, SteadyTime deadline) {
  auto found = operations_.find(static_cast<int>(done->method()));
  if (found == operations_.end() || found->second->kind != OpKind::kMutation) co_return Fail(ErrorCode::kUnknownMethod);
  Execution x;
  x.operation = found->second.get();
  x.method = static_cast<pb::Method>(done->method());
  x.start = std::chrono::steady_clock::now();
  x.deadline = deadline;
  x.call = found->second->make();
  pb::AnyResponse earlier;
  bool parsed = x.call->request().ParseFromString(done->request()) && earlier.ParseFromString(done->response());
  const pb::Caller& caller = x.call->caller();
  if (!parsed || caller.session() != session.value || caller.sequence() == 0) co_return Fail(ErrorCode::kBadMessage);
  if (!earlier.has_recipe()) co_return TxnId();  // it has changed nothing
  x.recipe = &earlier.recipe();
  Status known = CheckCaller(caller);
  if (!known) co_return Fail(known.error());
  Task<void> drive = Drive(&x);
  co_await drive;
  Finish(x.operation->stats, x.start, x.status.has_value());
  if (x.replayed || x.superseded) co_return TxnId();
  if (!x.status) co_return Fail(x.status.error());
  if (!x.call->SameAs(done->response())) co_return Fail(ErrorCode::kStale, "it was done, but its answer differs from the first one");
  co_return x.txn;
}

Task<Result<TxnId>> Driver::Run(pb::Method method, std::string request, std::string* response) {
  if (context_.hand_in->Holds(method)) {
    Task<void> wait = context_.hand_in->WaitUntilOver();
    co_await wait;
  }
  auto task = tasks_.find(method);
  if (task != tasks_.end()) {
    Task<Result<TxnId>> running = task->second(std::move(request), response);
    Result<TxnId> done = co_await running;
    co_return done;
  }
  auto found = operations_.find(method);
  if (found == operations_.end()) co_return Fail(ErrorCode::kUnknownMethod, pb::Method_Name(method));
  Execution x;
  x.operation = found->second.get();
  x.method = method;
  x.start = std::chrono::steady_clock::now();
  x.deadline = x.start + 60s;
  x.call = found->second->make();
  if (!x.call->request().ParseFromString(request)) co_return Fail(ErrorCode::kBadMessage);
  Status known = CheckCaller(x.call->caller());
  if (!known) co_return Fail(known.error());
  Task<void> drive = Drive(&x);
  co_await drive;
  Finish(x.operation->stats, x.start, x.status.has_value());
  Task<Status> wait = context_.commit->Wait(x.txn, LevelOf(x));
  Status reached = co_await wait;
  if (!reached) co_return Fail(reached.error());
  if (!x.status) co_return Fail(x.status.error());
  if (!x.replayed && x.serialized.empty()) x.call->response().SerializeToString(&x.serialized);
  *response = std::move(x.serialized);
  co_return x.txn;
}

}  // namespace shoal::meta
