// RunOn: the bridge from plain threads to a loop's coroutines. Included by event_loop.h.
#pragma once

#include <future>
#include <type_traits>

namespace shoal {
namespace loop_internal {
template <typename T>
task_internal::Detached Fulfil(Task<T> task, std::promise<T>* promise) {
  if constexpr (std::is_void_v<T>) {
    co_await task;
    promise->set_value();
  } else {
    promise->set_value(co_await task);
  }
}
}  // namespace loop_internal

template <typename T>
T RunOn(EventLoop& loop, Task<T> task) {
  std::promise<T> promise;
  auto future = promise.get_future();
  auto driver = loop_internal::Fulfil(std::move(task), &promise).handle;
  loop.Post([driver] { driver.resume(); });
  return future.get();
}

}  // namespace shoal
