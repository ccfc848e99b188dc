// Supplementary groups of callers.
#include "fuse/creds.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

namespace shoal::fuse {
namespace {

using Groups = std::vector<uint32_t>;

TEST(ProcStatus, Groups) {
  EXPECT_EQ(ParseGroups("Name:\tx\nGroups:\t4 24 1000 \nUid:\t1\n"), (Groups{4, 24, 1000}));
  EXPECT_EQ(ParseGroups("Groups:\t\n"), Groups());
  EXPECT_EQ(ParseGroups("NGroups: 7\n"), Groups());
  EXPECT_EQ(ParseGroups(""), Groups());
}

TEST(ProcStatus, OwnGroups) {
  Groups want(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  ASSERT_GE(getgroups(static_cast<int>(want.size()), want.data()), 0);
  Groups got = ParseGroups(ReadProcStatus(static_cast<uint32_t>(getpid())));
  std::ranges::sort(want);
  std::ranges::sort(got);
  EXPECT_EQ(got, want);
}

TEST(ProcStatus, PendingKill) {
  EXPECT_TRUE(ParseKillPending("SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
  EXPECT_TRUE(ParseKillPending("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
  EXPECT_FALSE(ParseKillPending("SigPnd:\t0000000000004002\nShdPnd:\t0000000000000000\n"));
  EXPECT_FALSE(ParseKillPending(""));
  EXPECT_FALSE(ParseKillPending(ReadProcStatus(static_cast<uint32_t>(getpid()))));
}

TEST(ProcStatus, OfAProcessThatIsGone) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(ReadProcStatus(static_cast<uint32_t>(child)), "");
}

class CredCacheTest : public testing::Test {
 protected:
  CredCacheTest()
      : cache_([this](uint32_t pid) {
          ++reads_;
          return Groups{pid, 7};
        }) {}
  int reads_ = 0;
  CredCache cache_;
  CredCache::Clock::time_point now_ = CredCache::Clock::now();
};

TEST_F(CredCacheTest, ReadsOncePerProcessAndSecond) {
  EXPECT_EQ(cache_.Get(5, 6, 100, now_)->groups, (Groups{100, 7}));
  EXPECT_EQ(cache_.Get(5, 6, 100, now_ + std::chrono::milliseconds(999))->uid, 5u);
  EXPECT_EQ(reads_, 1);
  cache_.Get(5, 6, 101, now_);
  EXPECT_EQ(reads_, 2);
  cache_.Get(5, 6, 100, now_ + std::chrono::seconds(1));
  EXPECT_EQ(reads_, 3);
}

TEST_F(CredCacheTest, AProcessThatChangedItsUserIsReadAgain) {
  cache_.Get(5, 6, 100, now_);
  auto cred = cache_.Get(8, 6, 100, now_);
  EXPECT_EQ(cred->uid, 8u);
  EXPECT_EQ(reads_, 2);
}

TEST_F(CredCacheTest, RootAndForeignNamespacesAreNotRead) {
  EXPECT_EQ(cache_.Get(0, 0, 100, now_)->groups, Groups());
  EXPECT_EQ(cache_.Get(0, 4, 100, now_)->gid, 4u);
  EXPECT_EQ(cache_.Get(9, 9, 0, now_)->groups, Groups());
  EXPECT_EQ(reads_, 0);
}

TEST_F(CredCacheTest, IsBounded) {
  for (uint32_t pid = 1; pid < 3 * CredCache::kMaxEntries; ++pid) cache_.Get(5, 6, pid, now_);
  EXPECT_LE(cache_.size(), CredCache::kMaxEntries);
}

}  // namespace
}  // namespace shoal::fuse
