#include "metaserver/commit.h"

#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include <algorithm>

#include "common/log.h"
#include "metaserver/meta_env.h"

namespace shoal::meta {
namespace {

constexpr auto kSpin = 50us;              // the write thread yields this long before it sleeps
constexpr size_t kQuickBytes = 7 << 20;   // of a memory table of 16 MiB (database.cc): so far from full
constexpr int kLevel0Files = 6;           // LevelDB slows writes down from 8 on
constexpr int kFlushesPerCheck = 200;
constexpr auto kSlowWrite = 3ms;
constexpr auto kSlowPause = 100ms;

Error ReadOnlyError(const std::string& why) {
  return Error{ErrorCode::kReadOnly, "the metaserver is read-only, its metadata store failed: " + why +
                                         " (repair the disk and restart the metaserver)"};
}

}  // namespace

Commit::Commit(EventLoop& loop, leveldb::DB* db, LogTracker* log, TxnId last, Duration sync_interval,
               uint64_t step)
    : loop_(loop),
      db_(db),
      log_(log),
      sync_interval_(sync_interval),
      recovered_(last),
      first_(last.value + step),
      submitted_(first_),
      logged_(first_),
      durable_(first_),
      queue_(std::make_unique<leveldb::WriteBatch>()),
      queued_(first_),
      taken_(first_),
      written_(first_.value),
      alive_(std::make_shared<bool>(true)) {
  flushing_ = std::make_unique<leveldb::WriteBatch>();
  FlushLoop(this, alive_).handle.resume();
  writer_ = std::thread([this] { WriteLoop(); });
  syncer_ = std::thread([this] { SyncLoop(); });
}

Commit::~Commit() { Stop(); }

void Commit::Stop() {
  if (stopped_) return;
  stopped_ = true;
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_one();
  writer_.join();
  {
    std::lock_guard lock(sync_mutex_);
    sync_stop_ = true;
  }
  sync_work_.notify_one();
  syncer_.join();
  *alive_ = false;
  if (flusher_) std::exchange(flusher_, {}).resume();
  if (health_) {
    TxnId written(written_.load());
    Status synced = log_->Sync();
    if (!synced) LogError("metadata may not be on the disk: {}", synced.error().message);
    StepLogged(written);
    if (synced) StepDurable(written);
  }
  Status cancelled = Fail(ErrorCode::kCancelled, "the metaserver is stopping");
  for (auto* waiters : {&logged_waiters_, &durable_waiters_}) {
    for (Waiter& waiter : std::exchange(*waiters, {})) waiter.done(cancelled);
  }
}

void Commit::Submit(TxnId txn, const leveldb::WriteBatch& batch) {
  CHECK(txn == Next());
  submitted_ = txn;
  submitted_bytes_ += batch.ApproximateSize();
  {
    std::lock_guard lock(mutex_);
    queue_->Append(batch);
    queued_ = txn;
  }
  if (flusher_) loop_.ResumeSoon(std::exchange(flusher_, {}));
}

// ---- writing on the loop ----

task_internal::Detached Commit::FlushLoop(Commit* self, std::shared_ptr<bool> alive) {
  struct NextSubmit {
    Commit& commit;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) noexcept { commit.flusher_ = h; }
    void await_resume() const noexcept {}
  };
  while (*alive) {
    co_await NextSubmit{*self};
    if (*alive) self->Flush();
  }
}

// Whether a write can't be expected to wait for anything.
bool Commit::QuickNow() {
  if (std::chrono::steady_clock::now() < not_quick_until_) return false;
  uint64_t rotations = log_->rotations();
  if (rotations != seen_rotations_) {
    seen_rotations_ = rotations;
    quick_bytes_ = 0;
    until_check_ = 0;
  }
  if (quick_bytes_ > kQuickBytes) return false;
  if (--until_check_ < 0) {
    until_check_ = kFlushesPerCheck;
    std::string files;
    if (db_->GetProperty("leveldb.num-files-at-level0", &files) && std::stoi(files) >= kLevel0Files) {
      not_quick_until_ = std::chrono::steady_clock::now() + kSlowPause;
      return false;
    }
  }
  return true;
}

void Commit::HandOver() {
  bool wake;
  {
    std::lock_guard lock(mutex_);
    handed_over_ = true;
    wake = writer_sleeps_;
    work_waits_.store(true, std::memory_order_release);
  }
  if (wake) work_.notify_one();
}

void Commit::Flush() {
  if (stopped_ || !health_) return;  // Stop writes what is left
  if (!QuickNow()) return HandOver();
  TxnId last;
  {
    std::lock_guard lock(mutex_);
    if (queued_ == taken_) return;
    if (writing_) {
      handed_over_ = true;  // the writer goes on with it
      return;
    }
    flushing_.swap(queue_);
    last = taken_ = queued_;
  }
  auto start = std::chrono::steady_clock::now();
  quick_bytes_ += flushing_->ApproximateSize();
  leveldb::Status status = db_->Write(leveldb::WriteOptions(), flushing_.get());
  flushing_->Clear();
  auto end = std::chrono::steady_clock::now();
  if (end - start > kSlowWrite) not_quick_until_ = end + kSlowPause;
  if (!status.ok()) return Failed(ReadOnlyError(status.ToString()));
  written_.store(last.value);
  StepLogged(last);
}

// ---- writing on the thread ----

void Commit::WriteLoop() {
  auto batch = std::make_unique<leveldb::WriteBatch>();
  bool worked = false;
  while (true) {
    auto until = std::chrono::steady_clock::now() + kSpin;
    while (worked && !work_waits_.load(std::memory_order_acquire) && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
    TxnId last;
    {
      std::unique_lock lock(mutex_);
      writing_ = false;
      writer_sleeps_ = true;
      work_.wait(lock, [this] { return stop_ || (handed_over_ && queued_ > taken_); });
      writer_sleeps_ = false;
      if (failed_ || queued_ == taken_) return;
      batch.swap(queue_);
      last = taken_ = queued_;
      writing_ = worked = true;
      handed_over_ = false;
      work_waits_.store(false, std::memory_order_relaxed);
    }
    leveldb::Status status = db_->Write(leveldb::WriteOptions(), batch.get());
    batch->Clear();
    auto alive = alive_;
    if (!status.ok()) {
      loop_.Post([this, alive, why = status.ToString()] {
        if (*alive) Failed(ReadOnlyError(why));
      });
      std::unique_lock lock(mutex_);  // nothing is written any more
      work_.wait(lock, [this] { return stop_; });
      return;
    }
    written_.store(last.value);
    loop_.Post([this, alive, last] {
      if (*alive) StepLogged(last);
    });
  }
}

void Commit::RequestSync() {
  {
    std::lock_guard lock(sync_mutex_);
    if (sync_wanted_) return;
    sync_wanted_ = true;
  }
  sync_work_.notify_one();
}

void Commit::SyncLoop() {
  uint64_t synced = first_.value;
  std::unique_lock lock(sync_mutex_);
  while (true) {
    sync_work_.wait_for(lock, sync_interval_, [this] { return sync_stop_ || sync_wanted_; });
    if (sync_stop_) return;
    sync_wanted_ = false;
    uint64_t target = written_.load();
    if (target == synced) continue;
    lock.unlock();
    Status status = log_->Sync();
    auto alive = alive_;
    if (!status) {
      loop_.Post([this, alive, why = status.error().message] {
        if (*alive) Failed(ReadOnlyError(why));
      });
      return;
    }
    synced = target;
    loop_.Post([this, alive, target] {
      if (*alive) StepDurable(TxnId(target));
    });
    lock.lock();
  }
}

void Commit::Failed(const Error& error) {
  if (!health_) return;
  LogError("{}", error.message);
  health_ = Fail(error);
  {
    std::lock_guard lock(mutex_);
    failed_ = true;
  }
  for (auto* waiters : {&logged_waiters_, &durable_waiters_}) {
    for (Waiter& waiter : std::exchange(*waiters, {})) waiter.done(health_);
  }
}

void Commit::StepLogged(TxnId txn) {
  if (!health_ || txn <= logged_) return;
  logged_ = txn;
  if (txn == submitted_) marks_.emplace_back(txn, submitted_bytes_);
  if (on_logged_) on_logged_(txn);
  Release(logged_waiters_, txn);
  if (!durable_waiters_.empty() && durable_waiters_.front().txn <= txn) RequestSync();
}

void Commit::StepDurable(TxnId txn) {
  if (!health_ || txn <= durable_) return;
  durable_ = txn;
  for (; !marks_.empty() && marks_.front().first <= txn; marks_.pop_front()) durable_bytes_ = marks_.front().second;
  Release(durable_waiters_, txn);
  if (!durable_waiters_.empty() && durable_waiters_.front().txn <= logged_) RequestSync();
}

void Commit::Insert(std::deque<Waiter>& waiters, Waiter waiter) {
  // Nearly always at the end.
  auto place = waiters.end();
  while (place != waiters.begin() && std::prev(place)->txn > waiter.txn) --place;
  waiters.insert(place, std::move(waiter));
}

void Commit::Release(std::deque<Waiter>& waiters, TxnId reached) {
  while (!waiters.empty() && waiters.front().txn <= reached) {
    auto done = std::move(waiters.front().done);
    waiters.pop_front();
    done(Status());
  }
}

void Commit::WhenReached(TxnId txn, CommitLevel level, std::move_only_function<void(const Status&)> done) {
  if (txn <= (level == CommitLevel::kLogged ? logged_ : durable_)) return done(Status());
  if (!health_) return done(health_);
  if (stopped_) return done(Fail(ErrorCode::kCancelled, "the metaserver is stopping"));
  Insert(level == CommitLevel::kLogged ? logged_waiters_ : durable_waiters_, Waiter{txn, std::move(done)});
  if (level == CommitLevel::kDurable && txn <= logged_) RequestSync();
}

Task<Status> Commit::Wait(TxnId txn, CommitLevel level) {
  OneShot<Status> reached(loop_);
  WhenReached(txn, level, [&reached](const Status& status) { reached.Set(status); });
  Status status = co_await reached;
  co_return status;
}

}  // namespace shoal::meta
