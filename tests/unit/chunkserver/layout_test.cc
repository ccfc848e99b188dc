// The bytes of a replica file are a promise: docs/formats.md.
#include "chunkserver/layout.h"

#include <gtest/gtest.h>

#include <cstring>

#include "common/checksum.h"

namespace shoal {
namespace {

template <typename T>
T At(const Page& page, size_t offset) {
  T value;
  std::memcpy(&value, page.data() + offset, sizeof value);
  return value;
}

ReplicaHeader Example() {
  return {ChunkId{0x0001000000000a07}, InstanceId{0x1122334455667788}, ChunkVersion{9}, "0a1b2c3d-0000-4000-8000-001122334455"};
}

TEST(Layout, HeaderByteByByte) {
  Page page;
  Example().Encode(page);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(page.data()), 8), "SHOALREP");
  EXPECT_EQ(At<uint32_t>(page, 8), 1u);
  EXPECT_EQ(At<uint32_t>(page, 12), 4096u);
  EXPECT_EQ(At<uint64_t>(page, 16), 64ull << 20);
  EXPECT_EQ(At<uint64_t>(page, 24), 0x0001000000000a07u);
  EXPECT_EQ(At<uint64_t>(page, 32), 0x1122334455667788u);
  EXPECT_EQ(At<uint32_t>(page, 40), 9u);
  EXPECT_EQ(At<uint32_t>(page, 44), 0u);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(page.data()) + 48, 36), Example().cluster_uuid);
  for (size_t i = 84; i < 504; ++i) EXPECT_EQ(page[i], 0) << i;
  for (size_t i = 512; i < 4096; ++i) EXPECT_EQ(page[i], 0) << i;
  uint64_t sum = Checksum(page.data() + 512, 4096 - 512, Checksum(page.data(), 504));
  EXPECT_EQ(At<uint64_t>(page, 504), sum);

  auto back = ReplicaHeader::Decode(page);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->chunk, Example().chunk);
  EXPECT_EQ(back->instance, Example().instance);
  EXPECT_EQ(back->version, Example().version);
  EXPECT_EQ(back->cluster_uuid, Example().cluster_uuid);
}

TEST(Layout, EveryFlippedBitOfTheHeaderIsNoticed) {
  Page page;
  Example().Encode(page);
  for (size_t bit = 0; bit < page.size() * 8; ++bit) {
    page[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    EXPECT_FALSE(ReplicaHeader::Decode(page).has_value()) << "bit " << bit;
    page[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
}

TEST(Layout, ANewerFormatIsRefusedByName) {
  Page page;
  Example().Encode(page);
  page[8] = 2;
  uint64_t sum = Checksum(page.data() + 512, 4096 - 512, Checksum(page.data(), 504));
  std::memcpy(page.data() + 504, &sum, 8);
  auto refused = ReplicaHeader::Decode(page);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotSupported);
  EXPECT_NE(refused.error().message.find("format 2"), std::string::npos);
}

TEST(Layout, StateByteByByte) {
  ReplicaState state{.sequence = 7, .version = ChunkVersion{3}, .synced_through = 55, .table_pages = 0x5};
  state.dirty_regions.set();
  Page page;
  state.Encode(page);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(page.data()), 8), "SHOALSTA");
  EXPECT_EQ(At<uint64_t>(page, 8), 7u);
  EXPECT_EQ(At<uint32_t>(page, 16), 3u);
  EXPECT_EQ(At<uint64_t>(page, 24), 55u);
  EXPECT_EQ(At<uint64_t>(page, 32), 5u);
  for (size_t i = 40; i < 72; ++i) EXPECT_EQ(page[i], 0xff);
  auto back = ReplicaState::Decode(page);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->sequence, 7u);
  EXPECT_EQ(back->synced_through, 55u);
  EXPECT_EQ(back->table_pages, 5u);
  page[30] ^= 1;
  EXPECT_FALSE(ReplicaState::Decode(page).has_value());
}

TEST(Layout, TablePages) {
  EXPECT_EQ(kTablePages, 33u);
  EXPECT_EQ(kTableOffset, 12288u);
  EXPECT_EQ(kDataOffset, 262144u);
  TablePage page;
  EXPECT_TRUE(page.Valid());
  EXPECT_TRUE(page.Blank());
  page.entries[510] = 42;
  EXPECT_FALSE(page.Valid());
  page.Seal();
  EXPECT_TRUE(page.Valid());
  EXPECT_EQ(page.checksum, Checksum(page.entries.data(), 4088));
  page.entries[3] = 1;
  EXPECT_FALSE(page.Valid());
}

TEST(Layout, Names) {
  EXPECT_EQ(ReplicaFileName(ChunkId{0xabc}, InstanceId{0x12}), "0000000000000abc.0000000000000012");
  EXPECT_EQ(ReplicaDirectoryName(ChunkId{0xabc}), "bc");
  ChunkId chunk;
  InstanceId instance;
  ASSERT_TRUE(ParseReplicaFileName("0000000000000abc.0000000000000012", chunk, instance));
  EXPECT_EQ(chunk.value, 0xabcu);
  EXPECT_EQ(instance.value, 0x12u);
  for (const char* bad : {"", "x", "0000000000000abc-0000000000000012", "0000000000000ABC.0000000000000012",
                          "0000000000000abc.000000000000001g", "0000000000000abc.00000000000000120"}) {
    EXPECT_FALSE(ParseReplicaFileName(bad, chunk, instance)) << bad;
  }
}

}  // namespace
}  // namespace shoal
