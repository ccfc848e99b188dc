// The commit seam: every change of the metaserver passes through it, in order, as one atomic batch each.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "common/event_loop.h"
#include "common/ids.h"
#include "common/result.h"

namespace leveldb {
class DB;
class WriteBatch;
}  // namespace leveldb

namespace shoal::meta {

class LogTracker;  // metaserver/meta_env.h: knows the file that LevelDB's log is

// How far a batch has come. kLogged: in the operating system (survives the death of the process). kDurable: on
// the disk (survives power loss).
enum class CommitLevel { kLogged, kDurable };

// Takes batches with rising transaction numbers and writes all that came in one round of the loop as one (group commit).
// It writes on the loop itself while that means a few microseconds: one system call and some insertions into LevelDB's
// memory table. Whenever LevelDB might wait for something (its memory table is nearly full, its first level grows, the
// last write was slow) a thread of its own writes. Another thread syncs the log: when somebody waits for kDurable, and
// every `sync_interval` at the latest. Owner: MetaServer. All public functions are called on the loop unless noted. A failed write or sync is final: from then on
// every wait fails with kReadOnly and a message that says what to do, until the process is started again.
class Commit {
 public:
  // `last`: where the state ends. The first number given is `step` + 1 above it: none that was given before, and lost in a
  // power cut, is given again.
  Commit(EventLoop& loop, leveldb::DB* db, LogTracker* log, TxnId last, Duration sync_interval, uint64_t step = 0);
  ~Commit();  // Stop
  // Writes what is queued, syncs, and ends the threads. Waiters that are left fail with kCancelled.
  void Stop();

  // Numbers are given by Next() and submitted in that order, at once.
  TxnId Next() const { return TxnId(submitted_.value + 1); }
  void Submit(TxnId txn, const leveldb::WriteBatch& batch);

  // Where the state ended when this began, and the first number that it gives.
  TxnId recovered() const { return recovered_; }
  TxnId first() const { return TxnId(first_.value + 1); }
  TxnId submitted() const { return submitted_; }
  TxnId logged() const { return logged_; }
  TxnId durable() const { return durable_; }
  // What is submitted and not durable yet.
  uint64_t unsynced_operations() const { return submitted_.value - durable_.value; }
  uint64_t unsynced_bytes() const { return submitted_bytes_ - durable_bytes_; }
  // Why nothing can be written any more; ok while all is well.
  const Status& health() const { return health_; }
  // Nothing may be written any more, for this reason: as after a failed write.
  void Refuse(const Error& why) { Failed(why); }

  // Ends when `txn` has come that far. Ready at once when it has.
  Task<Status> Wait(TxnId txn, CommitLevel level);
  // Without a coroutine: `done` is called on the loop, at once when it has come that far.
  void WhenReached(TxnId txn, CommitLevel level, std::move_only_function<void(const Status&)> done);
  // Called on the loop after each step forward, before the waiters.
  void OnLogged(std::function<void(TxnId)> callback) { on_logged_ = std::move(callback); }

 private:
  struct Waiter {
    TxnId txn;
    std::move_only_function<void(const Status&)> done;
  };
  static task_internal::Detached FlushLoop(Commit* self, std::shared_ptr<bool> alive);
  void Flush();
  bool QuickNow();
  void HandOver();
  void WriteLoop();
  void SyncLoop();
  void StepLogged(TxnId txn);
  void StepDurable(TxnId txn);
  void Failed(const Error& error);
  void RequestSync();
  static void Insert(std::deque<Waiter>& waiters, Waiter waiter);
  static void Release(std::deque<Waiter>& waiters, TxnId reached);

  EventLoop& loop_;
  leveldb::DB* db_;
  LogTracker* log_;
  const Duration sync_interval_;
  const TxnId recovered_;
  const TxnId first_;  // all up to it is durable from before

  // On the loop.
  TxnId submitted_, logged_, durable_;
  uint64_t submitted_bytes_ = 0, durable_bytes_ = 0;  // of batches
  std::deque<std::pair<TxnId, uint64_t>> marks_;      // how many bytes there were up to a transaction, for those not durable
  Status health_;
  std::deque<Waiter> logged_waiters_, durable_waiters_;
  std::function<void(TxnId)> on_logged_;
  bool stopped_ = false;
  std::coroutine_handle<> flusher_;  // waits for the next Submit
  std::unique_ptr<leveldb::WriteBatch> flushing_;
  uint64_t seen_rotations_ = 0;
  size_t quick_bytes_ = 0;  // written on the loop since the last rotation
  int until_check_ = 0;     // flushes
  std::chrono::steady_clock::time_point not_quick_until_{};

  // Shared with the write thread, under mutex_.
  std::mutex mutex_;
  std::condition_variable work_;
  std::unique_ptr<leveldb::WriteBatch> queue_;  // all that wait, one after the other
  TxnId queued_, taken_;
  bool writer_sleeps_ = false;
  bool handed_over_ = false;  // the queue is the writer's
  bool writing_ = false;      // the writer is at work
  bool failed_ = false;       // nothing is written any more
  bool stop_ = false;
  std::atomic<bool> work_waits_{false};

  // Shared with the sync thread, under sync_mutex_.
  std::mutex sync_mutex_;
  std::condition_variable sync_work_;
  bool sync_wanted_ = false;
  bool sync_stop_ = false;
  std::atomic<uint64_t> written_{0};  // the highest number in the operating system
  std::thread writer_, syncer_;
  std::shared_ptr<bool> alive_;  // posts that outlive this object see it false; read and written on the loop
};

}  // namespace shoal::meta
