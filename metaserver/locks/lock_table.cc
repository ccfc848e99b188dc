#include "metaserver/locks/lock_table.h"

#include <algorithm>
#include <set>
#include <utility>

namespace shoal {

bool LockTable::Blocks(const Held& held, LockOwner owner, const LockSpan& span) {
  if (held.owner == owner) return false;
  if (!held.span.exclusive && !span.exclusive) return false;
  return held.span.start <= span.end && span.start <= held.span.end;
}

const LockTable::Held* LockTable::FindBlocker(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) const {
  auto file = files_.find(inode);
  if (file == files_.end()) return nullptr;
  const Held* first = nullptr;
  for (const Held& held : flock ? file->second.flocks : file->second.ranges) {
    if (Blocks(held, owner, span) && (!first || held.span.start < first->span.start)) first = &held;
  }
  return first;
}

// Takes [start, end] away from what `owner` holds; a range may be cut in two.
void LockTable::Carve(std::vector<Held>& held, LockOwner owner, uint64_t start, uint64_t end) {
  std::vector<Held> rest;
  rest.reserve(held.size() + 1);
  for (const Held& h : held) {
    if (h.owner != owner || h.span.end < start || end < h.span.start) {
      rest.push_back(h);
      continue;
    }
    if (h.span.start < start) {
      rest.push_back(h);
      rest.back().span.end = start - 1;
    }
    if (h.span.end > end) {
      rest.push_back(h);
      rest.back().span.start = end + 1;
    }
  }
  held = std::move(rest);
}

void LockTable::Take(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) {
  File& file = files_[inode];
  auto& held = flock ? file.flocks : file.ranges;
  LockSpan merged = span;
  if (flock) {
    merged.start = 0;
    merged.end = kLockEnd;
  }
  Carve(held, owner, merged.start, merged.end);
  // Neighbours of the same kind and owner become one range.
  for (auto it = held.begin(); it != held.end();) {
    bool same = it->owner == owner && it->span.exclusive == merged.exclusive;
    bool before = same && merged.start > 0 && it->span.end == merged.start - 1;
    bool after = same && merged.end < kLockEnd && it->span.start == merged.end + 1;
    if (before) merged.start = it->span.start;
    if (after) merged.end = it->span.end;
    it = before || after ? held.erase(it) : it + 1;
  }
  held.push_back({owner, merged});
}

std::optional<LockSpan> LockTable::Test(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) const {
  const Held* blocker = FindBlocker(inode, flock, owner, span);
  if (!blocker) return std::nullopt;
  return blocker->span;
}

Status LockTable::Lock(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) {
  bool gave_up = false;
  if (flock) {  // a change of kind gives the old lock up first
    auto file = files_.find(inode);
    if (file != files_.end()) {
      for (const Held& h : file->second.flocks) {
        gave_up |= h.owner == owner && h.span.exclusive != span.exclusive;
      }
      if (gave_up) Carve(file->second.flocks, owner, 0, kLockEnd);
    }
  }
  bool free = !FindBlocker(inode, flock, owner, span);
  if (free) Take(inode, flock, owner, span);
  Serve(inode);  // what was given up, or an exclusive range that became shared
  if (!free) return Fail(ErrorCode::kWouldBlock, "locked by another");
  return {};
}

void LockTable::LockOrWait(InodeId inode, bool flock, LockOwner owner, const LockSpan& span, uint64_t wait_id,
                           Granted granted) {
  Status now = Lock(inode, flock, owner, span);
  if (now || now.error().code != ErrorCode::kWouldBlock) {
    granted(now);
    return;
  }
  if (!flock && WouldDeadlock(inode, owner, span)) {
    granted(Fail(ErrorCode::kDeadlock, "the lock's holder waits for this owner"));
    return;
  }
  waits_.push_back({wait_id, inode, flock, owner, span, std::move(granted)});
}

void LockTable::Unlock(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) {
  auto file = files_.find(inode);
  if (file == files_.end()) return;
  if (flock) {
    Carve(file->second.flocks, owner, 0, kLockEnd);
  } else {
    Carve(file->second.ranges, owner, span.start, span.end);
  }
  Serve(inode);
}

// Owners that wait for `owner`, in any number of steps, must not hold what it asks for.
bool LockTable::WouldDeadlock(InodeId inode, LockOwner owner, const LockSpan& span) const {
  std::set<LockOwner> seen;
  std::vector<LockOwner> open;
  auto add_blockers = [&](InodeId on, LockOwner who, const LockSpan& what) {
    auto file = files_.find(on);
    if (file == files_.end()) return;
    for (const Held& held : file->second.ranges) {
      if (Blocks(held, who, what) && seen.insert(held.owner).second) open.push_back(held.owner);
    }
  };
  add_blockers(inode, owner, span);
  while (!open.empty()) {
    LockOwner next = open.back();
    open.pop_back();
    if (next == owner) return true;
    for (const Wait& wait : waits_) {
      if (!wait.flock && wait.owner == next) add_blockers(wait.inode, wait.owner, wait.span);
    }
  }
  return false;
}

void LockTable::Serve(InodeId inode) {
  for (auto it = waits_.begin(); it != waits_.end();) {
    if (it->inode != inode || FindBlocker(inode, it->flock, it->owner, it->span)) {
      ++it;
      continue;
    }
    Wait wait = std::move(*it);
    it = waits_.erase(it);
    if (!wait.granted({})) continue;
    Take(wait.inode, wait.flock, wait.owner, wait.span);
    it = waits_.begin();  // taking may have turned an exclusive range into a shared one
  }
  auto file = files_.find(inode);
  if (file != files_.end() && file->second.ranges.empty() && file->second.flocks.empty()) files_.erase(file);
}

bool LockTable::Cancel(SessionId session, uint64_t wait_id) {
  for (auto it = waits_.begin(); it != waits_.end(); ++it) {
    if (it->owner.session != session || it->id != wait_id) continue;
    Wait wait = std::move(*it);
    waits_.erase(it);
    wait.granted(Fail(ErrorCode::kInterrupted, "the wait for the lock was cancelled"));
    return true;
  }
  return false;
}

void LockTable::DropWaits(SessionId session) {
  std::vector<Wait> ended;
  for (auto it = waits_.begin(); it != waits_.end();) {
    if (it->owner.session == session) {
      ended.push_back(std::move(*it));
      it = waits_.erase(it);
    } else {
      ++it;
    }
  }
  for (Wait& wait : ended) wait.granted(Fail(ErrorCode::kCancelled, "the wait for the lock was given up"));
}

void LockTable::CancelAll() {
  std::list<Wait> ended = std::exchange(waits_, {});
  for (Wait& wait : ended) wait.granted(Fail(ErrorCode::kCancelled, "the metaserver stops"));
}

void LockTable::ReleaseSession(SessionId session) {
  DropWaits(session);
  std::vector<InodeId> touched;
  for (auto& [inode, file] : files_) {
    auto of_session = [&](const Held& h) { return h.owner.session == session; };
    if (std::erase_if(file.ranges, of_session) + std::erase_if(file.flocks, of_session)) touched.push_back(inode);
  }
  for (InodeId inode : touched) Serve(inode);
}

Status LockTable::Reclaim(InodeId inode, bool flock, LockOwner owner, const LockSpan& span) {
  if (FindBlocker(inode, flock, owner, span)) {
    return Fail(ErrorCode::kExists, "another session has taken the lock meanwhile");
  }
  Take(inode, flock, owner, span);
  return {};
}

size_t LockTable::held() const {
  size_t n = 0;
  for (const auto& [inode, file] : files_) n += file.ranges.size() + file.flocks.size();
  return n;
}

}  // namespace shoal
