#include "client/locks.h"

namespace shoal::client {

void LockTable::Unlock(const Key& key, const LockRange& range) {
  auto it = held_.find(key);
  if (it == held_.end()) return;
  std::vector<LockRange> left;
  for (const LockRange& held : it->second) {
    if (held.end < range.start || held.start > range.end) {
      left.push_back(held);
      continue;
    }
    if (held.start < range.start) {
      left.push_back(held);
      left.back().end = range.start - 1;
    }
    if (held.end > range.end) {
      left.push_back(held);
      left.back().start = range.end + 1;
    }
  }
  if (left.empty()) {
    held_.erase(it);
  } else {
    it->second = std::move(left);
  }
}

void LockTable::Lock(const Key& key, const LockRange& range) {
  Unlock(key, range);
  held_[key].push_back(range);
}

}  // namespace shoal::client
