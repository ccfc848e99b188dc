#include "metaserver/keys.h"

#include <gtest/gtest.h>

#include <vector>

namespace shoal::meta {
namespace {

TEST(Keys, AreStableOnDisk) {
  const char expected[] = "\x01\x00\x00\x00\x01\x13\x00\x01\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x07";
  EXPECT_EQ(ExtentKey(InodeId((1ull << 48) | 2), 7).view(), std::string_view(expected, sizeof expected - 1));
}

TEST(Keys, SortAsTheirNumbers) {
  std::vector<Key> keys = {CommitKey(),
                           InodeKey(InodeId(1)),
                           InodeKey(InodeId(255)),
                           InodeKey(InodeId(256)),
                           InodeKey(InodeId(1ull << 48)),
                           DentryKey(InodeId(1), 0x100),
                           DentryKey(InodeId(1), 0xff00),
                           DentryKey(InodeId(2), 0x100),
                           ExtentKey(InodeId(1), 0),
                           SlotKey(SessionId(9), 1)};
  for (size_t i = 0; i + 1 < keys.size(); ++i) EXPECT_LT(keys[i], keys[i + 1]) << i;
}

TEST(Keys, GiveBackTheirNumbers) {
  Key key = DropKey(ServerId(3), ChunkId(1ull << 60), InstanceId(5));
  Key copy = Key::FromBytes(key.view());
  EXPECT_EQ(copy, key);
  EXPECT_EQ(copy.kind(), KeyKind::kDrop);
  ASSERT_EQ(copy.numbers(), 3u);
  EXPECT_EQ(copy.number(0), 3u);
  EXPECT_EQ(copy.number(1), 1ull << 60);
  EXPECT_EQ(copy.number(2), 5u);
}

TEST(Keys, RefuseForeignBytes) {
  EXPECT_TRUE(Key::FromBytes("").empty());
  EXPECT_TRUE(Key::FromBytes("abcdefg").empty());
  EXPECT_TRUE(Key::FromBytes(std::string(100, 'x')).empty());
}

TEST(Keys, PrefixEndIsBehindAllWithThePrefix) {
  Key prefix(KeyKind::kExtent, 0xff);
  EXPECT_LT(ExtentKey(InodeId(0xff), UINT64_MAX), prefix.PrefixEnd());
  EXPECT_FALSE(ExtentKey(InodeId(0x100), 0) < prefix.PrefixEnd());
}

}  // namespace
}  // namespace shoal::meta
