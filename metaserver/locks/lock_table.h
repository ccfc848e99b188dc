// File locks: fcntl ranges and flock, in memory. A restarted metaserver gets them back from its clients.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "common/ids.h"
#include "common/result.h"

namespace shoal {

inline constexpr uint64_t kLockEnd = (uint64_t{1} << 63) - 1;  // the end of a range that goes to the end of the file

// Who holds a lock: `owner` is the client's number of a process (fcntl) or an open file (flock). A plain value.
struct LockOwner {
  SessionId session;
  uint64_t owner = 0;
  auto operator<=>(const LockOwner&) const = default;
};

// Bytes [start, end], both in it. A plain value.
struct LockSpan {
  uint64_t start = 0;
  uint64_t end = kLockEnd;
  bool exclusive = false;
  uint32_t pid = 0;
};

// All locks of all files, with the waits for them. fcntl locks of one owner split and merge as POSIX says, and a wait
// that would close a circle of waiting owners is refused (kDeadlock); flock locks cover the whole file, and changing
// one gives the old up first, as Linux does. The two kinds do not see each other. Lives on the namespace thread. Owner:
// ChunkMaster. Callbacks of waits are called from within the function that made the lock free; they must not call back
// into the table.
class LockTable {
 public:
  // Called once: success, kInterrupted (cancelled by its client) or kCancelled (given up). Returns false if nobody is
  // there to take the lock any more (the connection is gone): it is then not given.
  using Granted = std::function<bool(Status)>;

  // A lock that keeps `owner` from getting `span`, if there is one (F_GETLK).
  std::optional<LockSpan> Test(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) const;
  // Takes it or fails with kWouldBlock.
  Status Lock(InodeId inode, bool flock, LockOwner owner, const LockSpan& span);
  // Takes it now (`granted` is called before this returns) or when it becomes free; in the order of asking, but
  // one that can have its lock does not wait behind one that cannot. kDeadlock, through `granted`, as above.
  void LockOrWait(InodeId inode, bool flock, LockOwner owner, const LockSpan& span, uint64_t wait_id, Granted granted);
  void Unlock(InodeId inode, bool flock, LockOwner owner, const LockSpan& span);
  // Ends the wait with kInterrupted. False if there is none (it was given, or never came).
  bool Cancel(SessionId session, uint64_t wait_id);
  // Ends the waits of a session with kCancelled (its connection was lost; it will ask again).
  void DropWaits(SessionId session);
  // Ends all waits with kCancelled.
  void CancelAll();
  // Gives up all that the session holds and waits for.
  void ReleaseSession(SessionId session);
  // A lock that a resumed session says it holds: kExists if another has got it meanwhile.
  Status Reclaim(InodeId inode, bool flock, LockOwner owner, const LockSpan& span);

  size_t held() const;
  size_t waiting() const { return waits_.size(); }

 private:
  struct Held {
    LockOwner owner;
    LockSpan span;
  };
  struct File {
    std::vector<Held> ranges;  // fcntl; those of one owner don't overlap
    std::vector<Held> flocks;
  };
  struct Wait {
    uint64_t id;
    InodeId inode;
    bool flock;
    LockOwner owner;
    LockSpan span;
    Granted granted;
  };

  static bool Blocks(const Held& held, LockOwner owner, const LockSpan& span);
  const Held* FindBlocker(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) const;
  void Take(InodeId inode, bool flock, LockOwner owner, const LockSpan& span);
  static void Carve(std::vector<Held>& held, LockOwner owner, uint64_t start, uint64_t end);
  bool WouldDeadlock(InodeId inode, LockOwner owner, const LockSpan& span) const;
  // Gives what has become free on this file.
  void Serve(InodeId inode);

  std::unordered_map<InodeId, File> files_;
  std::list<Wait> waits_;  // in the order of asking
};

}  // namespace shoal
