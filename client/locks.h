// LockTable: which locks this client holds, so that a resumed session can say it.
#pragma once

#include <map>
#include <tuple>
#include <vector>

#include "client/attr.h"

namespace shoal::client {

// Byte ranges by inode, owner and kind (flock or fcntl), as POSIX joins and cuts them. Owner: EngineImpl; lives on its
// loop. No errors.
class LockTable {
 public:
  using Key = std::tuple<InodeId, uint64_t, bool>;  // inode, owner, flock

  void Lock(const Key& key, const LockRange& range);
  void Unlock(const Key& key, const LockRange& range);
  bool Holds(const Key& key) const { return held_.contains(key); }
  const std::map<Key, std::vector<LockRange>>& held() const { return held_; }
  void Clear() { held_.clear(); }

 private:
  std::map<Key, std::vector<LockRange>> held_;  // never an empty vector
};

}  // namespace shoal::client
