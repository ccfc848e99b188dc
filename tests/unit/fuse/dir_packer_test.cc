// Listings in the kernel's form, and pages that answer from the middle.
#include "fuse/dir_packer.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>

#include <cstring>
#include <vector>

#include "fuse/freshness.h"
#include "fuse/fuse_api.h"

namespace shoal::fuse {
namespace {

TEST(DirPacker, PacksTheKernelsStructure) {
  alignas(8) char buffer[4096];
  DirPacker packer(buffer, sizeof buffer);
  ASSERT_TRUE(packer.Add("one", 0x1234, S_IFREG, 77));
  ASSERT_TRUE(packer.Add("a-longer-name", 0x99, S_IFDIR, 78));
  auto* first = reinterpret_cast<fuse_dirent*>(buffer);
  EXPECT_EQ(first->ino, 0x1234u);
  EXPECT_EQ(first->off, 77u);
  EXPECT_EQ(first->type, static_cast<uint32_t>(S_IFREG >> 12));
  EXPECT_EQ(std::string(first->name, first->namelen), "one");
  auto* second = reinterpret_cast<fuse_dirent*>(buffer + FUSE_DIRENT_SIZE(first));
  EXPECT_EQ(second->ino, 0x99u);
  EXPECT_EQ(second->type, static_cast<uint32_t>(S_IFDIR >> 12));
  EXPECT_EQ(std::string(second->name, second->namelen), "a-longer-name");
  EXPECT_EQ(packer.used(), FUSE_DIRENT_SIZE(first) + FUSE_DIRENT_SIZE(second));
}

TEST(DirPacker, RefusesWhatDoesNotFitWhole) {
  alignas(8) char buffer[FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + 8) + 8];
  std::memset(buffer, 0x5a, sizeof buffer);
  DirPacker packer(buffer, sizeof buffer - 8);
  EXPECT_TRUE(packer.Add("12345678", 1, S_IFREG, 3));
  EXPECT_FALSE(packer.Add("x", 2, S_IFREG, 4));
  EXPECT_EQ(packer.used(), sizeof buffer - 8);
  EXPECT_EQ(static_cast<unsigned char>(buffer[sizeof buffer - 8]), 0x5a);
}

TEST(DirPacker, NamesOf255BytesAndBigCookies) {
  std::vector<char> buffer(4096);
  DirPacker packer(buffer.data(), buffer.size());
  std::string name(255, 'n');
  uint64_t cookie = (1ull << 63) - 1;
  int packed = 0;
  while (packer.Add(name.c_str(), ~0ull >> 1, S_IFLNK, cookie)) ++packed;
  EXPECT_EQ(packed, 14);  // 280 bytes each
  auto* first = reinterpret_cast<fuse_dirent*>(buffer.data());
  EXPECT_EQ(first->off, cookie);
  EXPECT_EQ(first->namelen, 255u);
}

TEST(DirPacker, PlusWithoutAttributesKeepsNumberAndType) {
  alignas(8) char buffer[1024];
  DirPacker packer(buffer, sizeof buffer);
  fuse_entry_param bare{};
  bare.attr.st_ino = 42;
  bare.attr.st_mode = S_IFREG;
  ASSERT_TRUE(packer.AddPlus("f", bare, 9));
  auto* plus = reinterpret_cast<fuse_direntplus*>(buffer);
  EXPECT_EQ(plus->entry_out.nodeid, 0u);
  EXPECT_EQ(plus->dirent.ino, 42u);
  EXPECT_EQ(plus->dirent.type, static_cast<uint32_t>(S_IFREG >> 12));
  EXPECT_EQ(plus->dirent.off, 9u);
}

client::DirEntry EntryAt(uint64_t cookie) {
  client::DirEntry entry;
  entry.name = "n" + std::to_string(cookie);
  entry.cookie = cookie;
  return entry;
}

TEST(FetchedPage, FindsWhereAReaderGoesOn) {
  FetchedPage page;
  EXPECT_EQ(page.Find(2), std::nullopt);
  page.valid = true;
  page.from = 0;
  for (uint64_t cookie : {10, 20, 30}) page.page.entries.push_back(EntryAt(cookie));
  EXPECT_EQ(page.Find(2), 0u);
  EXPECT_EQ(page.Find(10), 1u);
  EXPECT_EQ(page.Find(15), 1u);   // its entry is gone: the next one
  EXPECT_EQ(page.Find(30), std::nullopt);  // more follow that are not here
  page.page.end = true;
  EXPECT_EQ(page.Find(30), 3u);   // the end
  page.from = 20;
  EXPECT_EQ(page.Find(10), std::nullopt);  // the reader went back
}

TEST(Freshness, MarksAreSeenOnlyByOlderPages) {
  auto freshness = std::make_unique<Freshness>();
  uint64_t before = freshness->Now();
  EXPECT_TRUE(freshness->UnchangedSince(InodeId(5), before));
  freshness->Changed(InodeId(5));
  EXPECT_FALSE(freshness->UnchangedSince(InodeId(5), before));
  EXPECT_TRUE(freshness->UnchangedSince(InodeId(5), freshness->Now()));
  int others = 0;
  for (uint64_t i = 6; i < 1006; ++i) others += freshness->UnchangedSince(InodeId(i), before);
  EXPECT_GT(others, 990);
}

}  // namespace
}  // namespace shoal::fuse
