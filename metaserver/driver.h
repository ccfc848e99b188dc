// The driver: runs operations over Views, and answers requests with what they made.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "common/event_loop.h"
#include "common/metrics.h"
#include "common/rpc/rpc.h"
#include "metaserver/call_info.h"
#include "metaserver/commit.h"
#include "metaserver/context.h"
#include "metaserver/view.h"

namespace shoal::meta {

// Inodes whose size is being changed in several steps. In memory: after a restart the intents name them again.
// Namespace thread.
class BusyTable {
 public:
  explicit BusyTable(EventLoop& loop) : wake_(loop) {}
  bool Contains(InodeId id) const { return inodes_.contains(id); }
  void Set(InodeId id) { ++inodes_[id]; }
  void Clear(InodeId id);
  // Ends when the inode is not busy.
  Task<void> WaitFor(InodeId id);

 private:
  std::unordered_map<InodeId, int> inodes_;
  WaitList wake_;
};

enum class OpKind {
  kRead,      // changes nothing
  kMutation,  // remembered by (slot, sequence) when the caller gives a sequence
};

// One request's messages and function. Made per request by the driver.
class Call {
 public:
  virtual ~Call() = default;
  virtual Message& request() = 0;
  virtual Message& response() = 0;
  virtual const pb::Caller& caller() const = 0;
  virtual Status Run(View& view) = 0;
  // Whether the response says the same as an earlier, serialized one.
  virtual bool SameAs(const std::string& earlier) const = 0;
};

// The same but for what is not of the records: whether servers live, and their addresses.
template <typename Response>
bool SameResponse(const Response& now, const std::string& earlier) {
  Response then, ours = now;
  if (!then.ParseFromString(earlier)) return false;
  for (Response* response : {&then, &ours}) {
    if constexpr (requires { response->clear_recipe(); }) response->clear_recipe();
    if constexpr (requires { response->mutable_extents(); }) {
      for (pb::Extent& extent : *response->mutable_extents()) {
        for (pb::Replica& replica : *extent.mutable_replicas()) {
          replica.clear_name();
          replica.clear_address();
          replica.clear_live();
        }
      }
    }
  }
  return then.SerializeAsString() == ours.SerializeAsString();
}

// Runs every operation: session and idempotency, attempts (fetch what is cold, wait, run again), one batch per
// success, answers when logged, metrics by method. Owner: MetaServer. Namespace thread.
class Driver {
 public:
  explicit Driver(MetaContext& context);
  ~Driver();
  // Refuses new requests, ends those that wait, and returns when none is left.
  Task<void> Stop();

  // Registers a method that is one operation: Status Run(View&, const Request&, Response&), a plain function. Its
  // request has a `caller` of a live session.
  template <typename Req, typename Resp>
  void On(pb::Method method, OpKind kind, Status (*run)(View&, const Req&, Resp&)) {
    Register(method, kind, [run]() -> std::unique_ptr<Call> { return std::make_unique<TypedCall<Req, Resp>>(run); });
  }
  // Same, bound to an object (which outlives the driver).
  template <typename Req, typename Resp, typename Object>
  void On(pb::Method method, OpKind kind, Object* object, Status (Object::*run)(View&, const Req&, Resp&)) {
    Register(method, kind, [object, run]() -> std::unique_ptr<Call> {
      return std::make_unique<BoundCall<Req, Resp, Object>>(object, run);
    });
  }
  // Registers a method that takes several steps: a coroutine that runs operations with Execute. Never remembered, so
  // it must be harmless when run twice. Returns the transaction that its answer rests on. Req and Resp outlive it.
  // Where the request has a `caller`, it must be of a live session.
  template <typename Req, typename Resp>
  void OnTask(pb::Method method, std::function<Task<Result<TxnId>>(CallInfo, const Req&, Resp&)> run) {
    RegisterTask(method, [this, run](Request request) {
      group_.Spawn(RunTask<Req, Resp>(method_stats(request.method()), run, std::move(request)));
    });
    tasks_[method] = [this, run](std::string request, std::string* response) {
      return RunTaskOn<Req, Resp>(run, std::move(request), response);
    };
  }

  // Runs an operation of the metaserver itself, as root, in one batch; ends when the batch has come to `level`.
  // House rule of task.h: pass a named std::function, moved. `run` may be run several times.
  Task<Result<TxnId>> Execute(std::function<Status(View&)> run, CommitLevel level = CommitLevel::kLogged,
                              std::optional<SteadyTime> deadline = std::nullopt);

  // For tests and for the few that have a Caller but no request: as a client's request, without a network.
  // `response` gets the serialized answer. Uses the slot when caller.sequence() is not 0.
  Task<Result<TxnId>> Run(pb::Method method, std::string request, std::string* response);

  // What a session's request did, once more after a power cut (hand_in.h): with the same ids and time. Nothing is done
  // when the state has it. Returns its transaction (0: there was nothing to do). Errors: it can't be done, or ended
  // differently (kStale): what could be done was. `done` lives until the end.
  Task<Result<TxnId>> Again(SessionId session, const pb::HandedIn* done, SteadyTime deadline);

  // Spawns background work that Stop waits for.
  void Spawn(Task<void> task) { group_.Spawn(std::move(task)); }
  bool stopping() const { return stopping_; }

  // One method's numbers.
  struct MethodStats {
    Counter* calls;
    Counter* errors;
    Histogram* latency;
  };
  MethodStats& method_stats(pb::Method method);

 private:
  template <typename Req, typename Resp>
  struct TypedCall final : Call {
    explicit TypedCall(Status (*f)(View&, const Req&, Resp&)) : run(f) {}
    Message& request() override { return req; }
    Message& response() override { return resp; }
    const pb::Caller& caller() const override { return req.caller(); }
    Status Run(View& view) override { return run(view, req, resp); }
    bool SameAs(const std::string& earlier) const override { return SameResponse(resp, earlier); }
    Req req;
    Resp resp;
    Status (*run)(View&, const Req&, Resp&);
  };
  template <typename Req, typename Resp, typename Object>
  struct BoundCall final : Call {
    BoundCall(Object* o, Status (Object::*f)(View&, const Req&, Resp&)) : object(o), run(f) {}
    Message& request() override { return req; }
    Message& response() override { return resp; }
    const pb::Caller& caller() const override { return req.caller(); }
    Status Run(View& view) override { return (object->*run)(view, req, resp); }
    bool SameAs(const std::string& earlier) const override { return SameResponse(resp, earlier); }
    Req req;
    Resp resp;
    Object* object;
    Status (Object::*run)(View&, const Req&, Resp&);
  };
  struct Operation {
    OpKind kind;
    std::function<std::unique_ptr<Call>()> make;
    MethodStats stats;
  };
  // One request (or one Run, or one Execute) on its way.
  struct Execution {
    Operation* operation = nullptr;
    pb::Method method = pb::METHOD_NONE;
    std::unique_ptr<Call> call;
    std::optional<Request> request;
    SteadyTime start, deadline;
    bool remembered = false;  // uses its slot
    bool replayed = false;    // `serialized` is the remembered answer
    std::string serialized;   // the answer, where remembered
    Status status;
    TxnId txn;                // what the answer rests on
    bool durable = false;
    const pb::Recipe* recipe = nullptr;  // it is executed again
    bool superseded = false;             // its slot has answered a later request
  };
  enum class SlotStep { kRun, kDone, kJoin, kLoad };

  void Register(pb::Method method, OpKind kind, std::function<std::unique_ptr<Call>()> make);
  void RegisterTask(pb::Method method, Dispatcher::Handler handler);
  Status CheckCaller(const pb::Caller& caller) const;

  template <typename Req, typename Resp>
  Task<void> RunTask(MethodStats& stats, std::function<Task<Result<TxnId>>(CallInfo, const Req&, Resp&)> run,
                     Request request) {
    auto start = std::chrono::steady_clock::now();
    Req req;
    Resp resp;
    Status parsed = request.Parse(req);
    if constexpr (requires { req.caller(); }) {
      if (parsed) parsed = CheckCaller(req.caller());
    }
    if (!parsed) {
      Finish(stats, start, false);
      request.AnswerError(parsed.error());
      co_return;
    }
    CallInfo info{request.connection(), request.deadline()};
    Task<Result<TxnId>> task = run(std::move(info), req, resp);
    Result<TxnId> done = co_await task;
    Finish(stats, start, done.has_value());
    if (done) {
      request.Answer(resp, Payload(), *done);
    } else {
      request.AnswerError(done.error());
    }
  }
  // Without a network.
  template <typename Req, typename Resp>
  Task<Result<TxnId>> RunTaskOn(std::function<Task<Result<TxnId>>(CallInfo, const Req&, Resp&)> run,
                                std::string request, std::string* response) {
    Req req;
    Resp resp;
    if (!req.ParseFromString(request)) co_return Fail(ErrorCode::kBadMessage);
    if constexpr (requires { req.caller(); }) {
      Status known = CheckCaller(req.caller());
      if (!known) co_return Fail(known.error());
    }
    CallInfo info{nullptr, SteadyTime::max()};
    Task<Result<TxnId>> task = run(std::move(info), req, resp);
    Result<TxnId> done = co_await task;
    resp.SerializeToString(response);
    co_return done;
  }
  void Finish(MethodStats& stats, SteadyTime start, bool ok);

  void HandleRequest(Operation* operation, Request request);
  // The next step towards the slot: kRun (it is ours), kDone (the answer is there), or what to wait for.
  SlotStep TakeSlot(Execution& x);
  void LeaveSlot(Execution& x);
  // One attempt; false: abandoned, and `needs` says for what.
  bool TryCall(Execution& x, Needs* needs);
  // Adds what the client needs to have it executed again.
  void AddRecipe(const View& view, std::string* response);
  // Applies a successful attempt; returns what its answer rests on.
  TxnId Apply(View& view);
  Task<Status> Prepare(Needs needs, SteadyTime deadline);
  Task<void> RunPrerequisites(std::optional<InodeId> busy, Prerequisite prerequisite,
                              std::shared_ptr<OneShot<Status>> ended);
  // From the slot to the end.
  Task<void> Drive(Execution* x);
  Task<void> ServeSlowly(std::unique_ptr<Execution> x);
  Task<void> ServeAgain(std::unique_ptr<Execution> x, Needs needs);  // after an abandoned first attempt
  void Answer(std::unique_ptr<Execution> x);
  CommitLevel LevelOf(const Execution& x) const;
  static void Send(Execution& x, const Status& reached);

  MetaContext& context_;
  std::unordered_map<int, std::unique_ptr<Operation>> operations_;
  std::unordered_map<int, std::function<Task<Result<TxnId>>(std::string, std::string*)>> tasks_;
  std::unordered_map<int, MethodStats> stats_;
  pb::Caller root_;
  pb::AnyResponse recipe_;  // reused
  std::unique_ptr<leveldb::WriteBatch> batch_;  // reused
  bool stopping_ = false;
  TaskGroup group_;
};

}  // namespace shoal::meta
