#include "chunkserver/write_order.h"

#include <gtest/gtest.h>

namespace shoal {
namespace {

constexpr ChunkVersion kVersion{4};

WriteOperation Some() { return {WriteOperation::Kind::kZero, {{0, 4096}}, {}, {}}; }
WriteTicket FromClient(uint64_t write_id, uint64_t session = 1) { return {kVersion, 10, SessionId{session}, write_id, 0, 0}; }
WriteTicket Numbered(uint64_t number, uint64_t numbering = 77) { return {kVersion, 10, SessionId{1}, number, number, numbering}; }

// Applies whatever is ready; the numbers.
std::vector<uint64_t> ApplyAll(WriteOrder& order) {
  std::vector<uint64_t> numbers;
  while (auto job = order.Next()) {
    numbers.push_back(job->number);
    order.Applied(job, {});
  }
  return numbers;
}

class WriteOrderTest : public testing::Test {
 protected:
  WriteOrderTest() { order_.Start(kVersion); }
  WriteOrder order_;
};

TEST_F(WriteOrderTest, AHeadNumbersFromOne) {
  auto first = order_.Admit(FromClient(5), Some());
  auto second = order_.Admit(FromClient(6), Some());
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->number, 1u);
  EXPECT_EQ(second->number, 2u);
  EXPECT_NE(first->numbering, 0u);
  EXPECT_EQ(first->numbering, second->numbering);
  EXPECT_EQ(ApplyAll(order_), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(order_.applied(), 2u);
}

TEST_F(WriteOrderTest, ARetryHasTheNumberItHad) {
  auto first = order_.Admit(FromClient(5), Some());
  auto again = order_.Admit(FromClient(5), Some());
  ASSERT_TRUE(first && again);
  EXPECT_EQ(again->job, first->job) << "joins the one that is waiting";
  EXPECT_EQ(ApplyAll(order_), (std::vector<uint64_t>{1}));
  again = order_.Admit(FromClient(5), Some());
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->number, 1u);
  EXPECT_EQ(again->job, nullptr) << "applied already";
  EXPECT_EQ(order_.Admit(FromClient(5, 2), Some())->number, 2u) << "the same id of another session is another write";
}

TEST_F(WriteOrderTest, MembersApplyInOrderOfNumbers) {
  for (uint64_t number : {3, 2, 5}) ASSERT_TRUE(order_.Admit(Numbered(number), Some()));
  EXPECT_TRUE(ApplyAll(order_).empty());
  ASSERT_TRUE(order_.Admit(Numbered(1), Some()));
  EXPECT_EQ(ApplyAll(order_), (std::vector<uint64_t>{1, 2, 3}));
  ASSERT_TRUE(order_.Admit(Numbered(4), Some()));
  EXPECT_EQ(ApplyAll(order_), (std::vector<uint64_t>{4, 5}));
  auto old = order_.Admit(Numbered(2), Some());
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(old->job, nullptr);
}

TEST_F(WriteOrderTest, AnotherCountIsRefused) {
  ASSERT_TRUE(order_.Admit(Numbered(1, 77), Some()));
  auto other = order_.Admit(Numbered(2, 78), Some());
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code, ErrorCode::kChainFailed);
}

TEST_F(WriteOrderTest, AReplicaFoundOnDiskNeedsARecovery) {
  WriteOrder found;
  auto refused = found.Admit(FromClient(1), Some());
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kChainFailed);
  EXPECT_FALSE(found.known());
}

TEST_F(WriteOrderTest, AFailedWriteStopsAllThatFollow) {
  ASSERT_TRUE(order_.Admit(Numbered(1), Some()));
  ASSERT_TRUE(order_.Admit(Numbered(2), Some()));
  ASSERT_TRUE(order_.Admit(Numbered(9), Some()));
  auto ended = order_.Applied(order_.Next(), Fail(ErrorCode::kNoSpace, "full"));
  EXPECT_EQ(ended.size(), 3u);
  EXPECT_EQ(order_.applied(), 0u);
  EXPECT_TRUE(order_.idle());
  EXPECT_EQ(order_.Admit(Numbered(1), Some()).error().code, ErrorCode::kChainFailed);
  order_.Freeze();
  order_.Start(ChunkVersion{5});
  WriteTicket next = Numbered(1, 99);
  next.version = ChunkVersion{5};
  EXPECT_TRUE(order_.Admit(next, Some()).has_value());
}

TEST_F(WriteOrderTest, FreezeRefusesAndFencesBelowTheNewLease) {
  ASSERT_TRUE(order_.Admit(Numbered(1), Some()));
  ASSERT_TRUE(order_.Admit(Numbered(3), Some()));
  order_.RaiseFence(20);
  EXPECT_EQ(order_.Freeze().size(), 1u) << "the one that waits for number 2";
  EXPECT_EQ(order_.Admit(Numbered(2), Some()).error().code, ErrorCode::kNotReady);
  EXPECT_EQ(ApplyAll(order_), (std::vector<uint64_t>{1})) << "what was ready is applied";
  order_.Start(kVersion);
  EXPECT_EQ(order_.Admit(Numbered(1), Some()).error().code, ErrorCode::kLeaseLapsed);
  WriteTicket newer = Numbered(1);
  newer.lease = 20;
  EXPECT_TRUE(order_.Admit(newer, Some()).has_value());
  WriteTicket metaserver{kVersion, 0, SessionId{}, 1, 0, 0};
  EXPECT_TRUE(order_.Admit(metaserver, Some()).has_value()) << "the metaserver is not fenced";
}

TEST_F(WriteOrderTest, GivingUpAWriteThatWaits) {
  auto waiting = order_.Admit(Numbered(2), Some());
  ASSERT_TRUE(waiting.has_value());
  EXPECT_TRUE(order_.GiveUp(waiting->job));
  EXPECT_FALSE(order_.GiveUp(waiting->job));
  ASSERT_TRUE(order_.Admit(Numbered(1), Some()));
  EXPECT_EQ(ApplyAll(order_), (std::vector<uint64_t>{1}));
  ASSERT_TRUE(order_.Admit(Numbered(2), Some())) << "sent again";
  EXPECT_EQ(ApplyAll(order_), (std::vector<uint64_t>{2}));
}

TEST_F(WriteOrderTest, WhatItRemembersIsBounded) {
  for (uint64_t i = 1; i <= 3 * WriteOrder::kMaxRemembered; ++i) {
    ASSERT_TRUE(order_.Admit(FromClient(i), Some()));
    ApplyAll(order_);
  }
  uint64_t last = 3 * WriteOrder::kMaxRemembered;
  EXPECT_EQ(order_.Admit(FromClient(last), Some())->number, last);
  for (uint64_t s = 100; s < 100 + 2 * WriteOrder::kMaxSessions; ++s) ASSERT_TRUE(order_.Admit(FromClient(1, s), Some()));
  ApplyAll(order_);
  EXPECT_EQ(order_.Admit(FromClient(1, 99 + 2 * WriteOrder::kMaxSessions), Some())->job, nullptr);
}

TEST_F(WriteOrderTest, TooManyOutOfOrder) {
  for (uint64_t i = 0; i < WriteOrder::kMaxWaiting; ++i) ASSERT_TRUE(order_.Admit(Numbered(10 + i), Some()));
  EXPECT_FALSE(order_.Admit(Numbered(5), Some()).has_value());
}

TEST_F(WriteOrderTest, ACopyGoesOnWhereItsSourceIs) {
  WriteOrder copy;
  copy.StartAt(kVersion, 77, 41);
  ASSERT_TRUE(copy.Admit(Numbered(42), Some()));
  EXPECT_EQ(ApplyAll(copy), (std::vector<uint64_t>{42}));
  EXPECT_EQ(copy.Admit(Numbered(43, 78), Some()).error().code, ErrorCode::kChainFailed);
}

}  // namespace
}  // namespace shoal
