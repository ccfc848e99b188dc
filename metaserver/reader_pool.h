// Threads that read LevelDB for the namespace thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace shoal::meta {

// Runs jobs in the order given, on a fixed number of threads. Owner: the Store. Run is called on any thread; Stop
// runs what is queued, and joins.
class ReaderPool {
 public:
  explicit ReaderPool(int threads);
  ~ReaderPool();
  void Run(std::move_only_function<void()> job);
  void Stop();

 private:
  void Loop();
  std::mutex mutex_;  // guards jobs_ and stop_
  std::condition_variable work_;
  std::deque<std::move_only_function<void()>> jobs_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace shoal::meta
