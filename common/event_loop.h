// EventLoop: one thread, its sockets, timers and coroutines.
//
// A loop that runs out of work yields the processor for `spin` before it sleeps in the kernel: a
// sleeping virtual CPU is slow to wake, and a round trip pays that at every hop (docs/performance.md).
#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/task.h"

namespace shoal {

using Duration = std::chrono::nanoseconds;
using namespace std::chrono_literals;  // 5s, 200ms, 60us

using Callback = std::move_only_function<void()>;

// One thread that runs everything given to it, in order. Owner: the program's main object; it must
// outlive all that lives on it. Thread rules stand at each function. No errors.
class EventLoop {
 public:
  static constexpr Duration kDefaultSpin = 60us;

  explicit EventLoop(std::string name, Duration spin = kDefaultSpin);
  ~EventLoop();  // stops and joins
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Starts the loop's own thread. Stop may be called from any thread (not waiting when called from
  // the loop itself); callbacks still queued are destroyed, unrun, by the destructor.
  void Start();
  void Stop();
  // Runs the loop on the calling thread until Stop.
  void Run();

  bool InThisThread() const;

  // Any thread: runs `callback` on the loop.
  void Post(Callback callback);
  // Any thread: like Post, and waits until it has run (runs it at once when already on the loop).
  void Sync(Callback callback);
  // On the loop: resumes the coroutine soon, never inside this call.
  void ResumeSoon(std::coroutine_handle<> coroutine);

  // On the loop: a timer. A cancelled or destroyed Timer does not fire. Deadlines here count on
  // CLOCK_MONOTONIC.
  class Timer;
  std::unique_ptr<Timer> RunAfter(Duration delay, Callback callback);

  // On the loop: awaitables. `co_await loop.Sleep(1s)`; SwitchTo moves the coroutine to this loop from any thread.
  auto Sleep(Duration delay);
  auto SwitchTo();

  // On the loop, before Start or from it: `poller` is called in every round of the loop, and returns whether it
  // found work. A poller's descriptor must also be watched with WatchReadable, to wake a sleeping loop.
  void AddPoller(std::move_only_function<bool()> poller);
  // Calls `callback` each time the descriptor becomes readable, until the loop ends. Does not own `fd`.
  void WatchReadable(int fd, Callback callback);

  const std::string& name() const { return name_; }

  struct Impl;  // asio lives behind it: common/rpc/asio_loop.h
  Impl& impl() { return *impl_; }

 private:
  std::string name_;
  std::unique_ptr<Impl> impl_;
};

// A pending callback of RunAfter. Belongs to the loop's thread; destroying it cancels it.
class EventLoop::Timer {
 public:
  virtual ~Timer() = default;
};

namespace loop_internal {
struct SleepAwaiter {
  EventLoop& loop;
  Duration delay;
  std::unique_ptr<EventLoop::Timer> timer;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    timer = loop.RunAfter(delay, [h, this] { loop.ResumeSoon(h); });
  }
  void await_resume() const noexcept {}
};
struct SwitchAwaiter {
  EventLoop& loop;
  bool await_ready() const noexcept { return loop.InThisThread(); }
  void await_suspend(std::coroutine_handle<> h) {
    loop.Post([h] { h.resume(); });
  }
  void await_resume() const noexcept {}
};
}  // namespace loop_internal

inline auto EventLoop::Sleep(Duration delay) { return loop_internal::SleepAwaiter{*this, delay, nullptr}; }
inline auto EventLoop::SwitchTo() { return loop_internal::SwitchAwaiter{*this}; }

// A value that one coroutine waits for and somebody sets once. Lives on one loop (Set from another thread goes
// through loop.Post). Owner: usually the waiting coroutine's frame or a map of pending things.
template <typename T>
class OneShot {
 public:
  explicit OneShot(EventLoop& loop) : loop_(&loop) {}
  OneShot(const OneShot&) = delete;
  OneShot& operator=(const OneShot&) = delete;

  void Set(T value) {
    if (value_) return;  // the first answer counts
    value_.emplace(std::move(value));
    if (waiter_) loop_->ResumeSoon(std::exchange(waiter_, {}));
  }
  bool is_set() const { return value_.has_value(); }

  bool await_ready() const noexcept { return value_.has_value(); }
  void await_suspend(std::coroutine_handle<> h) noexcept { waiter_ = h; }
  T await_resume() { return std::move(*value_); }

 private:
  EventLoop* loop_;
  std::optional<T> value_;
  std::coroutine_handle<> waiter_;
};

// Coroutines that wait until somebody wakes them all; each re-checks its own condition. On one loop.
class WaitList {
 public:
  explicit WaitList(EventLoop& loop) : loop_(&loop) {}
  void WakeAll() {
    for (auto h : std::exchange(waiters_, {})) loop_->ResumeSoon(h);
  }
  bool empty() const { return waiters_.empty(); }
  auto Wait() {
    struct Awaiter {
      WaitList& list;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> h) { list.waiters_.push_back(h); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  EventLoop* loop_;
  std::vector<std::coroutine_handle<>> waiters_;
};

// The owner of coroutines that nobody awaits one by one. Lives on one loop: Spawn and Join are called there.
// Join waits for the end of all of them (telling them to stop is the owner's business); the destructor
// requires that none is left.
class TaskGroup {
 public:
  explicit TaskGroup(EventLoop& loop) : loop_(&loop), idle_(loop) {}
  ~TaskGroup();
  // Starts the task at once, on the caller's stack, up to its first suspension.
  void Spawn(Task<void> task);
  Task<void> Join();
  size_t size() const { return running_; }

 private:
  task_internal::Detached Drive(Task<void> task);
  EventLoop* loop_;
  size_t running_ = 0;
  WaitList idle_;
};

// Starts `task` on the loop and blocks the calling thread (not the loop's own) for its result.
template <typename T>
T RunOn(EventLoop& loop, Task<T> task);

}  // namespace shoal

#include "common/run_on.h"
