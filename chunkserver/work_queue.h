// WorkQueue: threads that do what may wait for a disk, and the way there and back for coroutines.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "common/event_loop.h"

namespace shoal {

// Runs callbacks in order on its threads (several at once when there are several threads). Like the loops, one idle
// thread yields the processor for a moment before it sleeps. Any thread may push. The destructor finishes.
class WorkQueue {
 public:
  WorkQueue(std::string name, size_t limit, int threads, Duration spin = EventLoop::kDefaultSpin);
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void Push(Callback work);
  // Runs what is queued (and what that queues here) and ends the threads. Later work is destroyed, unrun.
  void Finish();
  // More is waiting than the limit: whoever can should refuse new requests (kOverloaded). Work that others already
  // depend on (a forwarded write) is pushed all the same; heads bound how much of it there is.
  bool overloaded() const { return size_.load(std::memory_order_relaxed) >= limit_; }
  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  void Run(const std::string& name);
  bool Spin();

  const size_t limit_;
  const Duration spin_;
  std::atomic<size_t> size_{0};
  std::atomic<bool> spinning_{false};
  std::mutex mutex_;  // guards queue_, stopping_
  std::condition_variable wake_;
  std::deque<Callback> queue_;
  size_t sleepers_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// `OnQueue work(loop, queue, [&] { return file.Read(...); }); auto result = co_await work;`: runs the function on a
// thread of the queue and resumes the coroutine on its loop. Must be a named local (task.h). The function's result is
// not void. The coroutine must live until then.
template <typename F>
class OnQueue {
 public:
  using Value = std::invoke_result_t<F>;
  OnQueue(EventLoop& loop, WorkQueue& queue, F work) : loop_(loop), queue_(queue), work_(std::move(work)) {}
  OnQueue(const OnQueue&) = delete;
  OnQueue& operator=(const OnQueue&) = delete;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    queue_.Push([this, h] {
      value_.emplace(work_());
      loop_.Post([h] { h.resume(); });
    });
  }
  Value await_resume() { return std::move(*value_); }

 private:
  EventLoop& loop_;
  WorkQueue& queue_;
  F work_;
  std::optional<Value> value_;
};

}  // namespace shoal
