#include "metaserver/locks/lock_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace shoal {
namespace {

const InodeId kFile{7};
const LockOwner kA{SessionId(1), 1}, kB{SessionId(1), 2}, kC{SessionId(2), 1};

LockSpan Shared(uint64_t start, uint64_t end) { return {start, end, false, 0}; }
LockSpan Exclusive(uint64_t start, uint64_t end) { return {start, end, true, 0}; }

// A wait whose end is remembered.
struct Waiter {
  bool done = false;
  bool there = true;
  ErrorCode code = ErrorCode::kOk;
  LockTable::Granted callback() {
    return [this](Status status) {
      done = true;
      code = status ? ErrorCode::kOk : status.error().code;
      return there;
    };
  }
};

TEST(LockTable, RangesSplitMergeAndConvert) {
  LockTable t;
  ASSERT_TRUE(t.Lock(kFile, false, kA, Exclusive(0, 99)));
  t.Unlock(kFile, false, kA, Shared(40, 59));
  EXPECT_EQ(t.held(), 2u);
  EXPECT_TRUE(t.Lock(kFile, false, kB, Exclusive(40, 59)));
  EXPECT_FALSE(t.Lock(kFile, false, kB, Shared(0, 0)));
  auto blocker = t.Test(kFile, false, kB, Shared(0, kLockEnd));
  ASSERT_TRUE(blocker);
  EXPECT_EQ(blocker->start, 0u);
  EXPECT_EQ(blocker->end, 39u);
  t.Unlock(kFile, false, kB, Shared(0, kLockEnd));
  EXPECT_TRUE(t.Lock(kFile, false, kA, Exclusive(40, 59)));
  EXPECT_EQ(t.held(), 1u);  // one range again
  EXPECT_TRUE(t.Lock(kFile, false, kA, Shared(10, 19)));
  EXPECT_EQ(t.held(), 3u);
  EXPECT_TRUE(t.Lock(kFile, false, kC, Shared(10, 19)));
  EXPECT_FALSE(t.Lock(kFile, false, kC, Shared(10, 20)));
}

TEST(LockTable, FlockAndFcntlDoNotMeet) {
  LockTable t;
  EXPECT_TRUE(t.Lock(kFile, true, kA, Exclusive(0, kLockEnd)));
  EXPECT_TRUE(t.Lock(kFile, false, kB, Exclusive(0, kLockEnd)));
  EXPECT_FALSE(t.Lock(kFile, true, kB, Shared(0, kLockEnd)));
}

TEST(LockTable, ChangingAFlockGivesTheOldOneUpFirst) {
  LockTable t;
  EXPECT_TRUE(t.Lock(kFile, true, kA, Shared(0, kLockEnd)));
  EXPECT_TRUE(t.Lock(kFile, true, kB, Shared(0, kLockEnd)));
  EXPECT_FALSE(t.Lock(kFile, true, kA, Exclusive(0, kLockEnd)));
  EXPECT_EQ(t.held(), 1u);  // A has lost its own, as flock(2) says
  EXPECT_TRUE(t.Lock(kFile, true, kB, Exclusive(0, kLockEnd)));
}

TEST(LockTable, WaitsAreServedCancelledAndDropped) {
  LockTable t;
  ASSERT_TRUE(t.Lock(kFile, false, kA, Exclusive(0, 9)));
  Waiter b, c, gone;
  t.LockOrWait(kFile, false, kB, Exclusive(0, 9), 1, b.callback());
  gone.there = false;
  t.LockOrWait(kFile, false, {SessionId(3), 1}, Exclusive(0, 9), 1, gone.callback());
  t.LockOrWait(kFile, false, kC, Exclusive(5, 5), 1, c.callback());
  EXPECT_FALSE(b.done || c.done || gone.done);
  EXPECT_FALSE(t.Cancel(SessionId(1), 9));
  EXPECT_TRUE(t.Cancel(SessionId(1), 1));
  EXPECT_EQ(b.code, ErrorCode::kInterrupted);
  t.Unlock(kFile, false, kA, Shared(0, kLockEnd));
  EXPECT_TRUE(gone.done);  // whose connection had ended: it did not get the lock
  EXPECT_TRUE(c.done);
  EXPECT_EQ(c.code, ErrorCode::kOk);
  EXPECT_EQ(t.held(), 1u);
  Waiter d;
  t.LockOrWait(kFile, false, kA, Shared(0, 9), 2, d.callback());
  t.ReleaseSession(SessionId(2));  // C's session
  EXPECT_EQ(d.code, ErrorCode::kOk);
  EXPECT_TRUE(d.done);
  EXPECT_EQ(t.waiting(), 0u);
}

TEST(LockTable, DeadlockIsRefused) {
  LockTable t;
  const InodeId other{8};
  ASSERT_TRUE(t.Lock(kFile, false, kA, Exclusive(0, 0)));
  ASSERT_TRUE(t.Lock(other, false, kB, Exclusive(0, 0)));
  ASSERT_TRUE(t.Lock(kFile, false, kC, Exclusive(5, 5)));
  Waiter b, c, a;
  t.LockOrWait(kFile, false, kB, Exclusive(0, 0), 1, b.callback());   // B waits for A
  t.LockOrWait(other, false, kC, Exclusive(0, 0), 1, c.callback());   // C waits for B
  EXPECT_FALSE(b.done || c.done);
  t.LockOrWait(kFile, false, kA, Exclusive(5, 5), 1, a.callback());   // A would wait for C
  EXPECT_TRUE(a.done);
  EXPECT_EQ(a.code, ErrorCode::kDeadlock);
  t.Unlock(kFile, false, kA, Shared(0, 0));
  EXPECT_TRUE(b.done);
}

TEST(LockTable, ReclaimTakesBackUnlessAnotherHasIt) {
  LockTable t;
  EXPECT_TRUE(t.Reclaim(kFile, false, kA, Exclusive(0, 9)));
  EXPECT_TRUE(t.Reclaim(kFile, false, kA, Exclusive(0, 9)));
  Status lost = t.Reclaim(kFile, false, kC, Exclusive(9, 9));
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code, ErrorCode::kExists);
}

// Every byte of a small file with who holds it and how.
class Model {
 public:
  static constexpr uint64_t kBytes = 24;
  bool Blocked(LockOwner owner, const LockSpan& s) const {
    for (uint64_t b = s.start; b <= s.end; b++) {
      for (auto [who, exclusive] : bytes_[b]) {
        if (who != owner && (exclusive || s.exclusive)) return true;
      }
    }
    return false;
  }
  void Set(LockOwner owner, const LockSpan& s) {
    for (uint64_t b = s.start; b <= s.end; b++) bytes_[b][owner] = s.exclusive;
  }
  void Clear(LockOwner owner, uint64_t start, uint64_t end) {
    for (uint64_t b = start; b <= end; b++) bytes_[b].erase(owner);
  }
  void ClearSession(SessionId session) {
    for (auto& byte : bytes_) std::erase_if(byte, [&](auto& e) { return e.first.session == session; });
  }
  // The number of ranges that one owner's locks make when merged.
  size_t Ranges() const {
    std::set<LockOwner> owners;
    for (const auto& byte : bytes_) {
      for (auto [who, exclusive] : byte) owners.insert(who);
    }
    size_t n = 0;
    for (LockOwner who : owners) {
      std::optional<bool> before;
      for (const auto& byte : bytes_) {
        auto it = byte.find(who);
        std::optional<bool> here;
        if (it != byte.end()) here = it->second;
        n += here && here != before;
        before = here;
      }
    }
    return n;
  }

 private:
  std::map<LockOwner, bool> bytes_[kBytes];
};

TEST(LockTable, AgreesWithAModelOfEveryByte) {
  for (uint64_t seed = 1; seed <= 40; seed++) {
    std::mt19937_64 rng(seed);
    LockTable t;
    Model model;
    struct Pending {
      LockOwner owner;
      LockSpan span;
      std::unique_ptr<Waiter> waiter;
    };
    std::vector<Pending> pending;
    for (int step = 0; step < 400; step++) {
      LockOwner owner{SessionId(1 + rng() % 3), 1 + rng() % 2};
      uint64_t a = rng() % Model::kBytes, b = rng() % Model::kBytes;
      LockSpan span{std::min(a, b), std::max(a, b), rng() % 2 == 0, 1};
      switch (rng() % 8) {
        case 0:
        case 1:
        case 2: {
          bool expected = !model.Blocked(owner, span);
          if (expected) model.Set(owner, span);
          EXPECT_EQ(t.Lock(kFile, false, owner, span).has_value(), expected) << "seed " << seed << " step " << step;
          break;
        }
        case 3:
        case 4:
          model.Clear(owner, span.start, span.end);
          t.Unlock(kFile, false, owner, span);
          break;
        case 5:
          EXPECT_EQ(t.Test(kFile, false, owner, span).has_value(), model.Blocked(owner, span));
          break;
        case 6: {
          auto waiter = std::make_unique<Waiter>();
          bool blocked = model.Blocked(owner, span);
          if (!blocked) model.Set(owner, span);
          t.LockOrWait(kFile, false, owner, span, 100 + static_cast<uint64_t>(step), waiter->callback());
          if (!blocked) {
            EXPECT_TRUE(waiter->done);
          } else if (!waiter->done) {
            pending.push_back({owner, span, std::move(waiter)});
          } else {
            EXPECT_EQ(waiter->code, ErrorCode::kDeadlock);
          }
          break;
        }
        case 7:
          if (rng() % 8 == 0) {
            model.ClearSession(owner.session);
            t.ReleaseSession(owner.session);
          }
          break;
      }
      // Waits that ended well hold their lock: they are applied in any order that the model allows.
      for (bool again = true; again;) {
        again = false;
        for (auto it = pending.begin(); it != pending.end(); ++it) {
          if (!it->waiter->done) continue;
          if (it->waiter->code == ErrorCode::kOk) {
            if (model.Blocked(it->owner, it->span)) continue;
            model.Set(it->owner, it->span);
          }
          pending.erase(it);
          again = true;
          break;
        }
      }
      for (const Pending& p : pending) ASSERT_FALSE(p.waiter->done) << "seed " << seed << " step " << step;
      // Nobody waits for what is free.
      for (const Pending& p : pending) {
        EXPECT_TRUE(model.Blocked(p.owner, p.span)) << "seed " << seed << " step " << step;
      }
      ASSERT_EQ(t.held(), model.Ranges()) << "seed " << seed << " step " << step;
      if (testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace shoal
