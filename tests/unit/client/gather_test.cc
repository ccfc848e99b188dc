#include "client/gather.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>

#include "client/locks.h"

namespace shoal::client {
namespace {

Buffer Bytes(size_t size, uint8_t value) {
  Buffer b = Buffer::Allocate(size);
  std::memset(b.mutable_data(), value, size);
  return b;
}

TEST(Gather, TakesWhatWasPut) {
  Gather g;
  g.Insert(100, Bytes(10, 1));
  g.Insert(110, Bytes(10, 2));
  g.Insert(4096, Bytes(5, 3));
  EXPECT_EQ(g.bytes(), 25u);
  EXPECT_EQ(g.end(), 4101u);
  EXPECT_TRUE(g.Overlaps(119, 120));
  EXPECT_FALSE(g.Overlaps(120, 4096));
  WriteBatch batch = g.Take();
  EXPECT_EQ(batch.bytes, 25u);
  EXPECT_TRUE(g.empty());
  EXPECT_EQ(batch.pieces.front().offset, 100u);
}

TEST(Gather, LastWriterWins) {
  Gather g;
  g.Insert(0, Bytes(100, 1));
  g.Insert(50, Bytes(10, 2));
  g.Insert(0, Bytes(128 << 10, 3));  // shared, covers all
  g.Insert(10, Bytes(1, 4));
  uint8_t got[20];
  ASSERT_TRUE(g.ReadIfCovered(0, 20, got));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(got[i], i == 10 ? 4 : 3);
  EXPECT_FALSE(g.ReadIfCovered((128 << 10) - 1, (128 << 10) + 1, got));
}

TEST(Gather, CutsLongRunsAtBlocks) {
  Gather g;
  g.Insert(1000, Bytes(3 << 20, 7));
  WriteBatch first = g.Take();
  EXPECT_LE(first.bytes, Gather::kMaxBatch);
  EXPECT_EQ((1000 + first.bytes) % 4096, 0u);
  WriteBatch second = g.Take();
  EXPECT_EQ(second.pieces.front().offset, 1000 + first.bytes);
  EXPECT_EQ(second.bytes, Gather::kMaxBatch);
}

TEST(Gather, BoundsSegments) {
  Gather g;
  for (uint32_t i = 0; i < 1000; ++i) g.Insert(i * 8192, Bytes(100, 1));
  size_t total = 0;
  while (!g.empty()) {
    WriteBatch batch = g.Take();
    ASSERT_FALSE(batch.empty());
    EXPECT_LE(batch.pieces.size(), Gather::kMaxSegments);
    total += batch.bytes;
  }
  EXPECT_EQ(total, 100'000u);
}

// Random writes, truncations and batches against an array of bytes.
TEST(Gather, AgainstAByteModel) {
  constexpr uint32_t kSize = 400'000;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    std::mt19937 random(seed);
    Gather g;
    std::vector<std::optional<uint8_t>> model(kSize);
    std::vector<std::optional<uint8_t>> sent(kSize);
    std::vector<std::optional<uint8_t>> truth(kSize);
    uint32_t cursor = 0;
    for (int step = 0; step < 1500; ++step) {
      uint32_t kind = random() % 100;
      if (kind < 92) {
        uint32_t length = kind < 5 ? 65536 + random() % 70000 : 1 + random() % (kind < 50 ? 5000 : 300);
        uint32_t offset = kind % 2 ? cursor : random() % kSize;
        if (offset + length > kSize) offset = kSize - length;
        cursor = (offset + length) % (kSize - 1000);
        auto value = static_cast<uint8_t>(random());
        g.Insert(offset, Bytes(length, value));
        for (uint32_t i = offset; i < offset + length; ++i) model[i] = truth[i] = value;
      } else if (!g.empty()) {
        WriteBatch batch = g.Take();
        uint32_t last = 0;
        for (const auto& piece : batch.pieces) {
          ASSERT_GE(piece.offset, last);
          last = piece.offset + static_cast<uint32_t>(piece.bytes.size());
          for (uint32_t i = 0; i < piece.bytes.size(); ++i) {
            ASSERT_EQ(model[piece.offset + i], piece.bytes.data()[i]);
            sent[piece.offset + i] = piece.bytes.data()[i];
            model[piece.offset + i].reset();
          }
        }
      }
      size_t bytes = 0;
      for (const auto& b : model) bytes += b.has_value();
      if (step % 50 == 0) {
        ASSERT_EQ(g.bytes(), bytes) << "seed " << seed << " step " << step;
      }
    }
    std::vector<uint8_t> got(1);
    for (uint32_t i = 0; i < kSize; ++i) {
      ASSERT_EQ(g.ReadIfCovered(i, i + 1, got.data()), model[i].has_value());
      if (model[i]) {
        ASSERT_EQ(got[0], *model[i]);
      }
    }
    while (!g.empty()) {
      WriteBatch batch = g.Take();
      for (const auto& piece : batch.pieces) {
        for (uint32_t i = 0; i < piece.bytes.size(); ++i) sent[piece.offset + i] = piece.bytes.data()[i];
      }
    }
    EXPECT_TRUE(sent == truth);
  }
}

TEST(LockTable, JoinsAndCuts) {
  LockTable table;
  LockTable::Key key{InodeId(1), 7, false};
  table.Lock(key, {0, 99, false, 1});
  table.Lock(key, {40, 59, true, 1});
  EXPECT_EQ(table.held().at(key).size(), 3u);
  table.Unlock(key, {0, 49, false, 1});
  ASSERT_EQ(table.held().at(key).size(), 2u);
  for (const LockRange& range : table.held().at(key)) {
    EXPECT_GE(range.start, 50u);
    EXPECT_EQ(range.exclusive, range.start == 50);
  }
  EXPECT_FALSE(table.Holds({InodeId(1), 7, true}));
  table.Unlock(key, {});
  EXPECT_FALSE(table.Holds(key));
}

}  // namespace
}  // namespace shoal::client
