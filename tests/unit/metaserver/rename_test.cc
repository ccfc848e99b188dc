#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

constexpr uint32_t kNoReplace = 1, kExchange = 2;

class RenameTest : public ::testing::Test {
 protected:
  void SetUp() override {
    h.Start();
    a = fs.Mkdir(kRoot, "a")->inode();
    b = fs.Mkdir(kRoot, "b")->inode();
  }
  uint64_t At(uint64_t parent, const std::string& name) {
    auto found = fs.Lookup(parent, name);
    return found ? found->inode() : 0;
  }
  Harness h;
  Names fs{h};
  uint64_t a = 0, b = 0;
};

TEST_F(RenameTest, MovesFilesBetweenDirectories) {
  uint64_t file = fs.Create(a, "x")->inode();
  auto before = fs.Stat(file);
  ASSERT_TRUE(fs.Rename(a, "x", b, "y"));
  EXPECT_EQ(At(a, "x"), 0u);
  EXPECT_EQ(At(b, "y"), file);
  EXPECT_GT(fs.Stat(file)->ctime_ns(), before->ctime_ns());
  EXPECT_TRUE(fs.List(a).empty());
  EXPECT_EQ(fs.List(b), std::vector<std::string>{"y"});
  EXPECT_EQ(CodeOf(fs.Rename(a, "x", b, "z")), ErrorCode::kNotFound);
}

TEST_F(RenameTest, ReplacesAFile) {
  uint64_t x = fs.Create(a, "x")->inode();
  uint64_t y = fs.Create(a, "y")->inode();
  auto done = fs.Rename(a, "x", a, "y");
  ASSERT_TRUE(done);
  EXPECT_EQ(done->replaced_inode(), y);
  EXPECT_EQ(At(a, "y"), x);
  EXPECT_EQ(CodeOf(fs.Stat(y)), ErrorCode::kStale);
  EXPECT_EQ(fs.List(a).size(), 1u);
}

TEST_F(RenameTest, AReplacedOpenFileBecomesAnOrphan) {
  fs.Create(a, "x");
  uint64_t y = fs.CreateFile(a, "y", 0644, true)->attr().inode();
  ASSERT_TRUE(fs.Rename(a, "x", a, "y"));
  EXPECT_EQ(fs.Stat(y)->nlink(), 0u);
  fs.Release(y);
  EXPECT_EQ(CodeOf(fs.Stat(y)), ErrorCode::kStale);
}

TEST_F(RenameTest, TwoNamesOfOneFileStay) {
  uint64_t x = fs.Create(a, "x")->inode();
  fs.Link(x, b, "y");
  ASSERT_TRUE(fs.Rename(a, "x", b, "y"));
  EXPECT_EQ(At(a, "x"), x);
  EXPECT_EQ(At(b, "y"), x);
  EXPECT_EQ(fs.Stat(x)->nlink(), 2u);
  ASSERT_TRUE(fs.Rename(a, "x", a, "x"));
  EXPECT_EQ(At(a, "x"), x);
}

TEST_F(RenameTest, MovingADirectoryMovesItsLink) {
  uint64_t d = fs.Mkdir(a, "d")->inode();
  ASSERT_TRUE(fs.Rename(a, "d", b, "d2"));
  EXPECT_EQ(fs.Stat(a)->nlink(), 2u);
  EXPECT_EQ(fs.Stat(b)->nlink(), 3u);
  EXPECT_EQ(fs.Lookup(d, "..")->inode(), b);
  ASSERT_TRUE(fs.Rename(b, "d2", b, "d3"));
  EXPECT_EQ(fs.Stat(b)->nlink(), 3u);
}

TEST_F(RenameTest, ReplacesAnEmptyDirectoryOnly) {
  uint64_t d = fs.Mkdir(a, "d")->inode();
  uint64_t e = fs.Mkdir(b, "e")->inode();
  fs.Create(e, "file");
  EXPECT_EQ(CodeOf(fs.Rename(a, "d", b, "e")), ErrorCode::kNotEmpty);
  fs.Unlink(e, "file");
  ASSERT_TRUE(fs.Rename(a, "d", b, "e"));
  EXPECT_EQ(At(b, "e"), d);
  EXPECT_EQ(fs.Stat(b)->nlink(), 3u);
  EXPECT_EQ(fs.Stat(a)->nlink(), 2u);
  EXPECT_EQ(CodeOf(fs.Stat(e)), ErrorCode::kStale);
}

TEST_F(RenameTest, KindsMustFit) {
  fs.Create(a, "file");
  fs.Mkdir(a, "dir");
  EXPECT_EQ(CodeOf(fs.Rename(a, "file", a, "dir")), ErrorCode::kIsDirectory);
  EXPECT_EQ(CodeOf(fs.Rename(a, "dir", a, "file")), ErrorCode::kNotDirectory);
}

TEST_F(RenameTest, NotIntoItself) {
  uint64_t d = fs.Mkdir(a, "d")->inode();
  uint64_t e = fs.Mkdir(d, "e")->inode();
  EXPECT_EQ(CodeOf(fs.Rename(kRoot, "a", e, "x")), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(fs.Rename(a, "d", d, "x")), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(fs.Rename(d, "e", kRoot, "a")), ErrorCode::kNotEmpty);
  EXPECT_EQ(CodeOf(fs.Rename(kRoot, "a", e, "x", kExchange)), ErrorCode::kNotFound);
  fs.Create(e, "x");
  EXPECT_EQ(CodeOf(fs.Rename(kRoot, "a", e, "x", kExchange)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(fs.Rename(e, "x", kRoot, "a", kExchange)), ErrorCode::kInvalidArgument);
}

TEST_F(RenameTest, DotsAreBusy) {
  EXPECT_EQ(CodeOf(fs.Rename(a, ".", b, "x")), ErrorCode::kBusy);
  EXPECT_EQ(CodeOf(fs.Rename(kRoot, "a", b, "..")), ErrorCode::kBusy);
}

TEST_F(RenameTest, NoReplace) {
  uint64_t x = fs.Create(a, "x")->inode();
  fs.Create(b, "y");
  EXPECT_EQ(CodeOf(fs.Rename(a, "x", b, "y", kNoReplace)), ErrorCode::kExists);
  ASSERT_TRUE(fs.Rename(a, "x", b, "z", kNoReplace));
  EXPECT_EQ(At(b, "z"), x);
  EXPECT_EQ(CodeOf(fs.Rename(b, "z", b, "w", kNoReplace | kExchange)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(fs.Rename(b, "z", b, "w", 4)), ErrorCode::kInvalidArgument);
}

TEST_F(RenameTest, ExchangeOfAFileAndADirectory) {
  uint64_t x = fs.Create(a, "x")->inode();
  uint64_t d = fs.Mkdir(b, "d")->inode();
  fs.Create(d, "inside");
  ASSERT_TRUE(fs.Rename(a, "x", b, "d", kExchange));
  EXPECT_EQ(At(a, "x"), d);
  EXPECT_EQ(At(b, "d"), x);
  EXPECT_EQ(fs.Stat(a)->nlink(), 3u);
  EXPECT_EQ(fs.Stat(b)->nlink(), 2u);
  EXPECT_EQ(fs.Lookup(d, "..")->inode(), a);
  auto page = fs.ReadDir(a, 0, 10);
  ASSERT_EQ(page->entries_size(), 1);
  EXPECT_EQ(page->entries(0).type(), static_cast<uint32_t>(S_IFDIR));
}

TEST_F(RenameTest, WorksWithACold) {
  uint64_t d = fs.Mkdir(a, "d")->inode();
  h.DropCache();
  ASSERT_TRUE(fs.Rename(a, "d", b, "d"));
  h.DropCache();
  EXPECT_EQ(At(b, "d"), d);
}

TEST_F(RenameTest, WithinOneHashBucket) {
  h.Stop();
  h.options.dentry_hash_bits = 1;  // all names collide
  h.Start();
  uint64_t dir = fs.Mkdir(kRoot, "c")->inode();
  uint64_t x = fs.Create(dir, "x")->inode(), y = fs.Create(dir, "y")->inode();
  ASSERT_TRUE(fs.Rename(dir, "x", dir, "y", kExchange));
  EXPECT_EQ(At(dir, "x"), y);
  ASSERT_TRUE(fs.Rename(dir, "y", dir, "z"));
  EXPECT_EQ(At(dir, "z"), x);
  ASSERT_TRUE(fs.Rename(dir, "z", dir, "x"));
  EXPECT_EQ(fs.List(dir), std::vector<std::string>{"x"});
}

}  // namespace
}  // namespace shoal::meta
