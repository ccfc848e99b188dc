#include "metaserver/chunks/walk_runs.h"

#include "metaserver/chunks/status_ops.h"

namespace shoal::meta {
namespace {

constexpr size_t kMaxRuns = 8;
constexpr Duration kForgetAfter = 60s;
constexpr size_t kStepRecords = 2000;  // others wait for the thread meanwhile

}  // namespace

Task<void> WalkThread::Run(std::function<void(leveldb::DB*)> job) {
  auto done = std::make_shared<OneShot<bool>>(loop_);
  pool_.Run([this, done, job = std::move(job)] {
    job(db_);
    loop_.Post([done] { done->Set(true); });
  });
  OneShot<bool>& shot = *done;
  co_await shot;
}

Task<Result<std::shared_ptr<WalkRun>>> WalkRuns::Take(const pb::WalkRequest* request) {
  if (request->run() == 0) {
    Task<Result<std::shared_ptr<WalkRun>>> begin = Begin(request);
    Result<std::shared_ptr<WalkRun>> begun = co_await begin;
    co_return begun;
  }
  for (;;) {
    auto found = runs_.find(request->run());
    if (found == runs_.end()) {
      if (request->end()) co_return nullptr;
      co_return Fail(ErrorCode::kNotFound, "the metaserver does not know this run any more: begin again");
    }
    std::shared_ptr<WalkRun> run = found->second;
    if (run->busy) {
      auto wait = run->idle.Wait();
      co_await wait;
      continue;
    }
    if (request->end()) {
      runs_.erase(found);
      co_return nullptr;
    }
    if (request->page() != run->page && !Again(*run, *request)) {
      co_return Fail(ErrorCode::kInvalidArgument, fmt::format("page {} is next, not {}", run->page, request->page()));
    }
    run->busy = true;
    co_return run;
  }
}

Task<Result<std::shared_ptr<WalkRun>>> WalkRuns::Begin(const pb::WalkRequest* request) {
  if (runs_.size() >= kMaxRuns)
    co_return Fail(ErrorCode::kBusy, "too many checks run at the same time: try again later");
  std::shared_ptr<WalkRun> run = make_();
  do run->id = state_.rng();
  while (run->id == 0 || runs_.contains(run->id));
  run->busy = true;
  run->used = std::chrono::steady_clock::now();
  runs_.emplace(run->id, run);
  InodeId start(request->inode());
  std::function<Status(View&)> op = [&](View& view) -> Status {
    if (!request->inode()) {
      TRY_ASSIGN(start, ResolvePath(view, request->path()));
    }
    TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(start));
    if (!inode) return Fail(ErrorCode::kNotFound, fmt::format("no inode {}", start.value));
    return {};
  };
  Task<Result<TxnId>> resolve = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> resolved = co_await resolve;
  Status ready = resolved ? Status() : Fail(resolved.error());
  if (ready) {  // what was changed before the snapshot is in it
    Task<Status> wait = state_.context.commit->Wait(state_.context.commit->submitted(), CommitLevel::kLogged);
    ready = co_await wait;
  }
  if (!ready) {
    runs_.erase(run->id);
    co_return Fail(ready.error());
  }
  std::function<void(leveldb::DB*)> open = [run, start](leveldb::DB* db) {
    run->walk = std::make_unique<FileWalk>(db, start);
  };
  Task<void> opening = thread_.Run(std::move(open));
  co_await opening;
  co_return run;
}

void WalkRuns::Leave(WalkRun& run) {
  run.busy = false;
  run.used = std::chrono::steady_clock::now();
  run.idle.WakeAll();
}

Task<Status> WalkRuns::Step(WalkRun* run, WalkVisitor* visitor) {
  Status stepped;
  std::function<void(leveldb::DB*)> step = [&](leveldb::DB*) { stepped = run->walk->Step(*visitor, kStepRecords); };
  Task<void> stepping = thread_.Run(std::move(step));
  co_await stepping;
  co_return stepped;
}

void WalkRuns::Tick() {
  auto now = std::chrono::steady_clock::now();
  std::erase_if(runs_, [now](const auto& r) { return !r.second->busy && now - r.second->used > kForgetAfter; });
}

}  // namespace shoal::meta
