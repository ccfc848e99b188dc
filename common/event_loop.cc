#include "common/event_loop.h"

#include <pthread.h>
#include <sched.h>

#include <asio/error_code.hpp>
#include <condition_variable>
#include <mutex>

#include "common/result.h"
#include "common/rpc/asio_loop.h"

#include <asio/executor_work_guard.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>

namespace shoal {
namespace {

thread_local EventLoop* current_loop = nullptr;

class TimerImpl : public EventLoop::Timer {
 public:
  TimerImpl(asio::io_context& io, Duration delay, Callback callback)
      : timer_(io), state_(std::make_shared<State>(std::move(callback))) {
    timer_.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(delay));
    timer_.async_wait([state = state_](const asio::error_code& error) {
      if (error || state->cancelled) return;
      state->callback();
    });
  }
  ~TimerImpl() override { state_->cancelled = true; }

 private:
  struct State {
    explicit State(Callback c) : callback(std::move(c)) {}
    Callback callback;
    bool cancelled = false;
  };
  asio::steady_timer timer_;
  std::shared_ptr<State> state_;
};

// Watches a descriptor that somebody else owns. It is armed again in the next round only: while a descriptor stays
// readable (a poller has yet to read it) asio would otherwise call back for ever inside one poll.
struct Watch : std::enable_shared_from_this<Watch> {
  Watch(EventLoop::Impl& l, int fd, Callback c) : loop(l), descriptor(l.io, fd), callback(std::move(c)) {}
  ~Watch() { descriptor.release(); }
  void Arm() {
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = weak_from_this()](const asio::error_code& error) {
                            auto watch = self.lock();
                            if (error || !watch) return;
                            watch->callback();
                            watch->loop.AtEndOfRound([watch] { watch->Arm(); });
                          });
  }
  EventLoop::Impl& loop;
  asio::posix::stream_descriptor descriptor;
  Callback callback;
};

}  // namespace

bool EventLoop::Impl::RunReady() {
  bool worked = false;
  if (!ready.empty()) {
    worked = true;
    std::vector<std::coroutine_handle<>> batch;
    batch.swap(ready);
    for (auto coroutine : batch) coroutine.resume();
    batch.clear();
    if (ready.empty()) ready.swap(batch);  // keep its memory
  }
  if (!end_of_round.empty()) {
    worked = true;
    std::vector<Callback> batch;
    batch.swap(end_of_round);
    for (Callback& callback : batch) callback();
  }
  return worked;
}

EventLoop::EventLoop(std::string name, Duration spin) : name_(std::move(name)), impl_(std::make_unique<Impl>(spin)) {}

EventLoop::~EventLoop() {
  Stop();
  if (impl_->thread.joinable()) impl_->thread.join();
  impl_->watches.clear();
}

void EventLoop::Start() {
  CHECK(!impl_->thread.joinable());
  impl_->thread = std::thread([this] {
    pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
    Run();
  });
}

void EventLoop::Stop() {
  impl_->stop = true;
  asio::post(impl_->io, [] {});  // wakes a sleeping loop
  if (!InThisThread() && impl_->thread.joinable()) impl_->thread.join();
}

void EventLoop::Run() {
  using Clock = std::chrono::steady_clock;
  EventLoop* outer = std::exchange(current_loop, this);
  auto guard = asio::make_work_guard(impl_->io);
  auto last_work = Clock::now();
  while (!impl_->stop.load(std::memory_order_relaxed)) {
    bool worked = impl_->RunReady();
    worked |= impl_->io.poll() > 0;
    for (auto& poller : impl_->pollers) worked |= poller();
    if (worked || !impl_->ready.empty() || !impl_->end_of_round.empty()) {
      last_work = Clock::now();
    } else if (Clock::now() - last_work < impl_->spin) {
      sched_yield();
    } else {
      impl_->io.run_one();
      last_work = Clock::now();
    }
  }
  // What was under way (closing sockets, coroutines woken by it) gets a chance to end.
  for (int round = 0; round < 64 && (impl_->RunReady() || impl_->io.poll() > 0); ++round) {
  }
  current_loop = outer;
}

bool EventLoop::InThisThread() const { return current_loop == this; }

void EventLoop::Post(Callback callback) { asio::post(impl_->io, std::move(callback)); }

void EventLoop::Sync(Callback callback) {
  if (InThisThread()) return callback();
  std::mutex mutex;
  std::condition_variable done_changed;
  bool done = false;
  Post([&] {
    callback();
    std::lock_guard lock(mutex);
    done = true;
    done_changed.notify_one();
  });
  std::unique_lock lock(mutex);
  done_changed.wait(lock, [&] { return done; });
}

void EventLoop::ResumeSoon(std::coroutine_handle<> coroutine) { impl_->ready.push_back(coroutine); }

std::unique_ptr<EventLoop::Timer> EventLoop::RunAfter(Duration delay, Callback callback) {
  return std::make_unique<TimerImpl>(impl_->io, delay, std::move(callback));
}

void EventLoop::AddPoller(std::move_only_function<bool()> poller) { impl_->pollers.push_back(std::move(poller)); }

void EventLoop::WatchReadable(int fd, Callback callback) {
  auto watch = std::make_shared<Watch>(*impl_, fd, std::move(callback));
  watch->Arm();
  impl_->watches.push_back(watch);
}

TaskGroup::~TaskGroup() { CHECK(running_ == 0); }

void TaskGroup::Spawn(Task<void> task) {
  ++running_;
  Drive(std::move(task)).handle.resume();
}

task_internal::Detached TaskGroup::Drive(Task<void> task) {
  {
    Task<void> owned = std::move(task);
    co_await owned;
  }
  if (--running_ == 0) idle_.WakeAll();
}

Task<void> TaskGroup::Join() {
  while (running_ > 0) co_await idle_.Wait();
}

}  // namespace shoal
