// RaiseTo: an atomic that only grows.
#pragma once

#include <atomic>

namespace shoal {

// `highest` becomes `value` if that is more. Any thread.
template <typename T>
void RaiseTo(std::atomic<T>& highest, T value) {
  T seen = highest.load(std::memory_order_relaxed);
  while (seen < value && !highest.compare_exchange_weak(seen, value)) {
  }
}

}  // namespace shoal
