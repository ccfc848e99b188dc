#include <algorithm>
#include <set>

#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

class ReadDirTest : public ::testing::Test {
 protected:
  void SetUp() override { h.Start(); }
  std::vector<std::string> Fill(uint64_t dir, int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) {
      names.push_back("name" + std::to_string(i));
      CHECK(fs.Create(dir, names.back()).has_value());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  Harness h;
  Names fs{h};
};

std::vector<std::string> Sorted(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  return names;
}

TEST_F(ReadDirTest, ListsEverythingOnce) {
  uint64_t dir = fs.Mkdir(kRoot, "d")->inode();
  EXPECT_TRUE(fs.List(dir).empty());
  auto names = Fill(dir, 300);
  EXPECT_EQ(Sorted(fs.List(dir, 7)), names);
  EXPECT_EQ(Sorted(fs.List(dir, 1000)), names);
  h.DropCache();
  EXPECT_EQ(Sorted(fs.List(dir, 50)), names);
}

TEST_F(ReadDirTest, CookiesStayTheSame) {
  uint64_t dir = fs.Mkdir(kRoot, "d")->inode();
  Fill(dir, 20);
  auto cookies = [&] {
    std::set<std::pair<std::string, uint64_t>> found;
    auto page = fs.ReadDir(dir, 0, 100);
    for (const auto& entry : page->entries()) {
      EXPECT_GT(entry.cookie(), 2u);
      EXPECT_EQ(entry.cookie() >> 63, 0u);
      found.emplace(entry.name(), entry.cookie());
    }
    return found;
  };
  auto before = cookies();
  h.CrashAndRestart();
  EXPECT_EQ(cookies(), before);
}

TEST_F(ReadDirTest, CollidingNamesAreListedOnce) {
  h.Stop();
  h.options.dentry_hash_bits = 2;
  h.Start();
  uint64_t dir = fs.Mkdir(kRoot, "d")->inode();
  auto names = Fill(dir, 100);
  EXPECT_EQ(Sorted(fs.List(dir, 1)), names);
  for (int i = 0; i < 100; i += 2) ASSERT_TRUE(fs.Unlink(dir, "name" + std::to_string(i)));
  std::erase_if(names, [](const std::string& name) { return (name.back() - '0') % 2 == 0; });
  EXPECT_EQ(Sorted(fs.List(dir, 3)), names);
  for (const auto& name : names) EXPECT_TRUE(fs.Lookup(dir, name)) << name;
}

TEST_F(ReadDirTest, TooManyCollisionsAreAnError) {
  h.Stop();
  h.options.dentry_hash_bits = 1;
  h.Start();
  uint64_t dir = fs.Mkdir(kRoot, "d")->inode();
  ErrorCode code = ErrorCode::kOk;
  for (int i = 0; i < 600 && code == ErrorCode::kOk; ++i) code = CodeOf(fs.Create(dir, "name" + std::to_string(i)));
  EXPECT_EQ(code, ErrorCode::kNoSpace);
}

TEST_F(ReadDirTest, ConcurrentChangesLeaveTheOthersAlone) {
  uint64_t dir = fs.Mkdir(kRoot, "d")->inode();
  auto names = Fill(dir, 200);
  std::set<std::string> seen;
  uint64_t cookie = 0;
  int round = 0;
  while (true) {
    auto page = fs.ReadDir(dir, cookie, 10);
    ASSERT_TRUE(page);
    for (const auto& entry : page->entries()) {
      cookie = entry.cookie();
      if (entry.name().starts_with("new")) continue;
      EXPECT_TRUE(seen.insert(entry.name()).second) << entry.name() << " twice";
    }
    if (page->end()) break;
    // What was listed goes, and other names come.
    ASSERT_TRUE(fs.Unlink(dir, page->entries(0).name()).has_value() || page->entries(0).name().starts_with("new"));
    ASSERT_TRUE(fs.Create(dir, "new" + std::to_string(round++)));
  }
  EXPECT_EQ(seen.size(), names.size());
}

TEST_F(ReadDirTest, AttributesComeWithTheEntries) {
  uint64_t dir = fs.Mkdir(kRoot, "d")->inode();
  Fill(dir, 50);
  uint64_t sub = fs.Mkdir(dir, "sub")->inode();
  h.DropCache();
  auto page = fs.ReadDir(dir, 0, 100, true);
  ASSERT_TRUE(page);
  EXPECT_TRUE(page->end());
  EXPECT_EQ(page->parent(), kRoot);
  ASSERT_EQ(page->entries_size(), 51);
  for (const auto& entry : page->entries()) {
    EXPECT_EQ(entry.attr().inode(), entry.inode());
    EXPECT_EQ(entry.attr().mode() & S_IFMT, entry.type());
    if (entry.name() == "sub") {
      EXPECT_EQ(entry.inode(), sub);
    }
  }
}

TEST_F(ReadDirTest, BytesAreBounded) {
  uint64_t dir = fs.Mkdir(kRoot, "d")->inode();
  Fill(dir, 100);
  pb::ReadDirRequest request;
  request.set_inode(dir);
  request.set_max_entries(1000);
  request.set_max_bytes(600);
  auto page = fs.Do<pb::ReadDirResponse>(pb::READ_DIR, request);
  ASSERT_TRUE(page);
  EXPECT_FALSE(page->end());
  EXPECT_GT(page->entries_size(), 0);
  EXPECT_LT(page->entries_size(), 30);
}

TEST_F(ReadDirTest, OnlyDirectories) {
  uint64_t file = fs.Create(kRoot, "file")->inode();
  EXPECT_EQ(CodeOf(fs.ReadDir(file, 0, 10)), ErrorCode::kNotDirectory);
  EXPECT_EQ(CodeOf(fs.ReadDir(123456, 0, 10)), ErrorCode::kStale);
}

}  // namespace
}  // namespace shoal::meta
