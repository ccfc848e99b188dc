#include "chunkserver/work_queue.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>

namespace shoal {

WorkQueue::WorkQueue(std::string name, size_t limit, int threads, Duration spin) : limit_(limit), spin_(spin) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this, name] { Run(name); });
}

WorkQueue::~WorkQueue() { Finish(); }

void WorkQueue::Finish() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

void WorkQueue::Push(Callback work) {
  bool wake;
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    size_.fetch_add(1);
    wake = sleepers_ > 0 && !spinning_.load();
  }
  if (wake) wake_.notify_one();
}

// Yields for a while; whether work came.
bool WorkQueue::Spin() {
  if (spin_ == Duration::zero() || spinning_.exchange(true)) return false;
  auto end = std::chrono::steady_clock::now() + spin_;
  bool found = false;
  do {
    sched_yield();
    found = size_.load() > 0;
  } while (!found && std::chrono::steady_clock::now() < end);
  spinning_.store(false);
  return found;
}

void WorkQueue::Run(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  std::unique_lock lock(mutex_);
  while (true) {
    if (!queue_.empty()) {
      Callback work = std::move(queue_.front());
      queue_.pop_front();
      size_.fetch_sub(1);
      // More work, and somebody asleep who could do it (Push may have left it to a spinner that is now busy).
      if (!queue_.empty() && sleepers_ > 0) wake_.notify_one();
      lock.unlock();
      work();
      work = nullptr;
      lock.lock();
      continue;
    }
    if (stopping_) return;
    lock.unlock();
    bool found = Spin();
    lock.lock();
    // Looked at again under the lock: Push doesn't wake anybody while spinning_ is set.
    if (found || !queue_.empty() || stopping_) continue;
    ++sleepers_;
    wake_.wait(lock);
    --sleepers_;
  }
}

}  // namespace shoal
