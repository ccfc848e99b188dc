#include "client/unsynced.h"

#include <gtest/gtest.h>

namespace shoal::client {
namespace {

class UnsyncedTest : public ::testing::Test {
 protected:
  void Keep(uint64_t txn, size_t bytes = 10) {
    pb::UnlinkRequest request;
    request.set_name(std::to_string(txn));
    unsynced.Keep(TxnId(txn), pb::UNLINK, request, std::string(bytes, 'r'));
  }
  std::vector<uint64_t> Filled(uint64_t above, uint64_t below, size_t max_bytes = 1 << 20) {
    std::vector<uint64_t> txns;
    for (bool more = true; more;) {
      pb::HandInRequest request;
      more = unsynced.Fill(&above, below, max_bytes, &request);
      for (const pb::HandedIn& done : request.done()) txns.push_back(done.txn());
      ++messages;
    }
    return txns;
  }
  Unsynced unsynced;
  int messages = 0;
};

using Txns = std::vector<uint64_t>;

TEST_F(UnsyncedTest, KeepsUntilCovered) {
  for (uint64_t txn : {3, 5, 4, 9}) Keep(txn);  // 4: the answer to a retry
  EXPECT_EQ(unsynced.last(), TxnId(9));
  EXPECT_EQ(Filled(0, 100), (Txns{3, 4, 5, 9}));
  unsynced.Covered(TxnId(4));
  EXPECT_EQ(Filled(0, 100), (Txns{5, 9}));
  Keep(4);  // durable already
  EXPECT_EQ(unsynced.size(), 2u);
  unsynced.Covered(TxnId(9));
  EXPECT_TRUE(unsynced.empty());
  EXPECT_EQ(unsynced.bytes(), 0u);
  EXPECT_EQ(unsynced.last(), TxnId());
}

TEST_F(UnsyncedTest, FillsOnlyWhatIsMissingInBoundedMessages) {
  for (uint64_t txn = 1; txn <= 10; ++txn) Keep(txn, 1000);
  EXPECT_EQ(Filled(3, 8), (Txns{4, 5, 6, 7}));
  EXPECT_EQ(messages, 1);
  EXPECT_EQ(Filled(0, 100, 3000).size(), 10u);
  EXPECT_EQ(messages, 1 + 4);
  EXPECT_EQ(Filled(10, 100), Txns{});
}

TEST_F(UnsyncedTest, WhatWasExecutedAgainIsKeptUntilThatIsDurable) {
  for (uint64_t txn : {1, 2, 3, 50}) Keep(txn);
  unsynced.Renumber(1, 10, TxnId(40));
  unsynced.Covered(TxnId(39));
  EXPECT_EQ(Filled(0, 100), (Txns{40, 40, 50}));
  unsynced.Covered(TxnId(40));
  EXPECT_EQ(unsynced.size(), 1u);
}

TEST_F(UnsyncedTest, IsBounded) {
  EXPECT_FALSE(unsynced.Many());
  for (uint64_t txn = 1; !unsynced.Full(); ++txn) Keep(txn, 1 << 20);
  EXPECT_LE(unsynced.size(), 65u);
  EXPECT_TRUE(unsynced.Many());
  unsynced.Clear();
  EXPECT_FALSE(unsynced.Full());
}

}  // namespace
}  // namespace shoal::client
