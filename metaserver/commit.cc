#include "metaserver/commit.h"

#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include <algorithm>

#include "common/log.h"
#include "metaserver/meta_env.h"

namespace shoal::meta {
namespace {

constexpr auto kSpin = 50us;  // the write thread yields this long before it sleeps

Error ReadOnlyError(const std::string& why) {
  return Error{ErrorCode::kReadOnly, "the metaserver is read-only, its metadata store failed: " + why +
                                         " (repair the disk and restart the metaserver)"};
}

}  // namespace

Commit::Commit(EventLoop& loop, leveldb::DB* db, LogTracker* log, TxnId last, Duration sync_interval)
    : loop_(loop),
      db_(db),
      log_(log),
      sync_interval_(sync_interval),
      first_(last),
      submitted_(last),
      logged_(last),
      durable_(last),
      queue_(std::make_unique<leveldb::WriteBatch>()),
      queued_(last),
      taken_(last),
      written_(last.value),
      alive_(std::make_shared<bool>(true)) {
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
  bool wake;
  {
    std::lock_guard lock(mutex_);
    queue_->Append(batch);
    queued_ = txn;
    wake = writer_sleeps_;
    queue_filled_.store(true, std::memory_order_release);
  }
  if (wake) work_.notify_one();
}

void Commit::WriteLoop() {
  auto batch = std::make_unique<leveldb::WriteBatch>();
  while (true) {
    auto until = std::chrono::steady_clock::now() + kSpin;
    while (!queue_filled_.load(std::memory_order_acquire) && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
    TxnId last;
    {
      std::unique_lock lock(mutex_);
      writer_sleeps_ = true;
      work_.wait(lock, [this] { return stop_ || queued_ > taken_; });
      writer_sleeps_ = false;
      if (queued_ == taken_) return;
      batch.swap(queue_);
      last = taken_ = queued_;
      queue_filled_.store(false, std::memory_order_relaxed);
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
  for (auto* waiters : {&logged_waiters_, &durable_waiters_}) {
    for (Waiter& waiter : std::exchange(*waiters, {})) waiter.done(health_);
  }
}

void Commit::StepLogged(TxnId txn) {
  if (!health_ || txn <= logged_) return;
  logged_ = txn;
  if (on_logged_) on_logged_(txn);
  Release(logged_waiters_, txn);
  if (!durable_waiters_.empty() && durable_waiters_.front().txn <= txn) RequestSync();
}

void Commit::StepDurable(TxnId txn) {
  if (!health_ || txn <= durable_) return;
  durable_ = txn;
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
