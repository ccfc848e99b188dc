// Making, linking and removing things.
#include <sys/stat.h>

#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

class FilesTest : public ::testing::Test {
 protected:
  void SetUp() override { h.Start(); }
  MetaContext::Totals Totals() {
    MetaContext::Totals totals;
    h.loop().Sync([&] { totals = h.context().totals; });
    return totals;
  }
  Harness h;
  Names fs{h};
};

TEST_F(FilesTest, CreateThenLookUpWarmAndCold) {
  auto made = fs.Create(kRoot, "file", 0640);
  ASSERT_TRUE(made);
  EXPECT_EQ(made->mode(), S_IFREG | 0640u);
  EXPECT_EQ(made->nlink(), 1u);
  EXPECT_EQ(made->inode() >> 48, 1u) << "ids carry the incarnation";
  auto found = fs.Lookup(kRoot, "file");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->SerializeAsString(), made->SerializeAsString());
  h.DropCache();
  found = fs.Lookup(kRoot, "file");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->SerializeAsString(), made->SerializeAsString());
  EXPECT_EQ(CodeOf(fs.Lookup(kRoot, "other")), ErrorCode::kNotFound);
}

TEST_F(FilesTest, DotsWork) {
  auto a = fs.Mkdir(kRoot, "a");
  auto b = fs.Mkdir(a->inode(), "b");
  EXPECT_EQ(fs.Lookup(b->inode(), ".")->inode(), b->inode());
  EXPECT_EQ(fs.Lookup(b->inode(), "..")->inode(), a->inode());
  EXPECT_EQ(fs.Lookup(kRoot, "..")->inode(), kRoot);
}

TEST_F(FilesTest, NamesHaveLimits) {
  EXPECT_TRUE(fs.Create(kRoot, std::string(255, 'x')));
  EXPECT_EQ(CodeOf(fs.Create(kRoot, std::string(256, 'x'))), ErrorCode::kNameTooLong);
  EXPECT_EQ(CodeOf(fs.Lookup(kRoot, std::string(256, 'x'))), ErrorCode::kNameTooLong);
  EXPECT_EQ(CodeOf(fs.Mkdir(kRoot, "a/b")), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(fs.Mkdir(kRoot, "")), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(fs.Mkdir(kRoot, ".")), ErrorCode::kExists);
  EXPECT_TRUE(fs.Create(kRoot, "\xff\xfe not UTF-8"));
}

TEST_F(FilesTest, ExclusiveCreateFailsOnWhatExists) {
  ASSERT_TRUE(fs.Create(kRoot, "file"));
  EXPECT_EQ(CodeOf(fs.CreateFile(kRoot, "file", 0644, false, true)), ErrorCode::kExists);
  auto again = fs.CreateFile(kRoot, "file");
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->created());
  ASSERT_TRUE(fs.Mkdir(kRoot, "dir"));
  EXPECT_EQ(CodeOf(fs.CreateFile(kRoot, "dir")), ErrorCode::kIsDirectory);
  EXPECT_EQ(CodeOf(fs.Create(again->attr().inode(), "x")), ErrorCode::kNotDirectory);
}

TEST_F(FilesTest, DirectoriesCountTheirSubdirectories) {
  auto a = fs.Mkdir(kRoot, "a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->nlink(), 2u);
  EXPECT_EQ(fs.Stat(kRoot)->nlink(), 3u);
  ASSERT_TRUE(fs.Mkdir(a->inode(), "b"));
  EXPECT_EQ(fs.Stat(a->inode())->nlink(), 3u);
  EXPECT_EQ(CodeOf(fs.Rmdir(kRoot, "a")), ErrorCode::kNotEmpty);
  EXPECT_EQ(CodeOf(fs.Unlink(kRoot, "a")), ErrorCode::kIsDirectory);
  ASSERT_TRUE(fs.Rmdir(a->inode(), "b"));
  EXPECT_EQ(fs.Stat(a->inode())->nlink(), 2u);
  ASSERT_TRUE(fs.Rmdir(kRoot, "a"));
  EXPECT_EQ(fs.Stat(kRoot)->nlink(), 2u);
  EXPECT_EQ(CodeOf(fs.Stat(a->inode())), ErrorCode::kStale);
  EXPECT_EQ(CodeOf(fs.Rmdir(kRoot, "a")), ErrorCode::kNotFound);
  ASSERT_TRUE(fs.Create(kRoot, "file"));
  EXPECT_EQ(CodeOf(fs.Rmdir(kRoot, "file")), ErrorCode::kNotDirectory);
}

TEST_F(FilesTest, ChangesInADirectorySetItsTimes) {
  auto before = fs.Stat(kRoot);
  auto made = fs.Create(kRoot, "file");
  auto after = fs.Stat(kRoot);
  EXPECT_GT(after->mtime_ns(), before->mtime_ns());
  EXPECT_EQ(after->mtime_ns(), after->ctime_ns());
  EXPECT_GT(after->change(), before->change());
  ASSERT_TRUE(fs.Link(made->inode(), kRoot, "second"));
  auto linked = fs.Stat(made->inode());
  EXPECT_GT(linked->ctime_ns(), made->ctime_ns());
  EXPECT_EQ(linked->mtime_ns(), made->mtime_ns());
  ASSERT_TRUE(fs.Unlink(kRoot, "file"));
  EXPECT_GT(fs.Stat(made->inode())->ctime_ns(), linked->ctime_ns());
}

TEST_F(FilesTest, HardLinks) {
  auto made = fs.Create(kRoot, "one");
  auto linked = fs.Link(made->inode(), kRoot, "two");
  ASSERT_TRUE(linked);
  EXPECT_EQ(linked->nlink(), 2u);
  EXPECT_EQ(fs.Lookup(kRoot, "two")->inode(), made->inode());
  EXPECT_EQ(CodeOf(fs.Link(made->inode(), kRoot, "two")), ErrorCode::kExists);
  ASSERT_TRUE(fs.Unlink(kRoot, "one"));
  EXPECT_EQ(fs.Stat(made->inode())->nlink(), 1u);
  auto gone = fs.Unlink(kRoot, "two");
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->attr().nlink(), 0u);
  EXPECT_EQ(CodeOf(fs.Stat(made->inode())), ErrorCode::kStale);
  auto dir = fs.Mkdir(kRoot, "dir");
  EXPECT_EQ(CodeOf(fs.Link(dir->inode(), kRoot, "dir2")), ErrorCode::kNotPermitted);
}

TEST_F(FilesTest, LinksHaveALimit) {
  auto made = fs.Create(kRoot, "one");
  auto many = h.Execute([&](View& view) -> Status {
    TRY(view.GetInode(InodeId(made->inode())));
    view.MutableInode(InodeId(made->inode()))->set_nlink(kMaxLinks);
    return {};
  });
  ASSERT_TRUE(many);
  EXPECT_EQ(CodeOf(fs.Link(made->inode(), kRoot, "two")), ErrorCode::kTooManyLinks);
}

TEST_F(FilesTest, SymbolicLinks) {
  auto made = fs.Symlink(kRoot, "link", "../target");
  ASSERT_TRUE(made);
  EXPECT_EQ(made->mode(), S_IFLNK | 0777u);
  EXPECT_EQ(made->size(), 9u);
  EXPECT_EQ(*fs.Readlink(made->inode()), "../target");
  EXPECT_EQ(CodeOf(fs.Readlink(kRoot)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(fs.Symlink(kRoot, "l2", "")), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(fs.Symlink(kRoot, "l2", std::string(4096, 'x'))), ErrorCode::kNameTooLong);
  EXPECT_EQ(CodeOf(fs.Open(made->inode(), O_RDONLY)), ErrorCode::kTooManySymlinks);
}

TEST_F(FilesTest, SpecialFiles) {
  auto fifo = fs.Mknod(kRoot, "fifo", S_IFIFO | 0600);
  ASSERT_TRUE(fifo);
  EXPECT_EQ(fifo->mode(), S_IFIFO | 0600u);
  auto device = fs.Mknod(kRoot, "device", S_IFCHR | 0600, 0x103);
  ASSERT_TRUE(device);
  EXPECT_EQ(device->rdev(), 0x103u);
  EXPECT_EQ(CodeOf(fs.Mknod(kRoot, "dir", S_IFDIR | 0700)), ErrorCode::kNotPermitted);
}

TEST_F(FilesTest, OpenFilesOutliveTheirNames) {
  auto made = fs.CreateFile(kRoot, "file", 0644, true);
  ASSERT_TRUE(made);
  uint64_t inode = made->attr().inode();
  ASSERT_TRUE(fs.Unlink(kRoot, "file"));
  auto orphan = fs.Stat(inode);
  ASSERT_TRUE(orphan);
  EXPECT_EQ(orphan->nlink(), 0u);
  EXPECT_EQ(CodeOf(fs.Link(inode, kRoot, "again")), ErrorCode::kNotFound);
  EXPECT_EQ(Totals().inodes, 2);
  fs.Release(inode);
  h.WaitReaped();
  EXPECT_EQ(CodeOf(fs.Stat(inode)), ErrorCode::kStale);
  EXPECT_EQ(Totals().inodes, 1);
}

TEST_F(FilesTest, EveryOpenCounts) {
  auto made = fs.CreateFile(kRoot, "file", 0644, true);
  uint64_t inode = made->attr().inode();
  ASSERT_TRUE(fs.Open(inode, O_RDONLY));
  ASSERT_TRUE(fs.Unlink(kRoot, "file"));
  fs.Release(inode);
  EXPECT_TRUE(fs.Stat(inode));
  fs.Release(inode);
  EXPECT_EQ(CodeOf(fs.Stat(inode)), ErrorCode::kStale);
}

TEST_F(FilesTest, RemovedDirectoriesTakeNoEntries) {
  auto dir = fs.Mkdir(kRoot, "dir");
  ASSERT_TRUE(fs.Open(dir->inode(), O_RDONLY));
  ASSERT_TRUE(fs.Rmdir(kRoot, "dir"));
  EXPECT_EQ(CodeOf(fs.Create(dir->inode(), "x")), ErrorCode::kNotFound);
  EXPECT_TRUE(fs.List(dir->inode()).empty());
}

TEST_F(FilesTest, FilesOfManyChunksAreReapedInSteps) {
  auto made = fs.Create(kRoot, "big");
  constexpr uint64_t kChunks = 300;
  for (uint64_t first = 0; first < kChunks; first += 50) {
    auto grown = h.Execute([&](View& view) -> Status {
      TRY(view.GetInode(InodeId(made->inode())));
      for (uint64_t i = first; i < first + 50; ++i) {
        TRY(h.fake->AddExtent(view, InodeId(made->inode()), i));
      }
      return {};
    });
    ASSERT_TRUE(grown);
  }
  EXPECT_EQ(Totals().chunks, static_cast<int64_t>(kChunks));
  ASSERT_TRUE(fs.Unlink(kRoot, "big"));
  h.WaitReaped();
  EXPECT_EQ(Totals().chunks, 0);
}

TEST_F(FilesTest, SmallFilesAreReapedTogether) {
  for (int i = 0; i < 100; ++i) {
    auto request = fs.Named<pb::CreateRequest>(kRoot, "f" + std::to_string(i));
    request.set_first_chunk(true);
    auto made = fs.Do<pb::OpenResponse>(pb::CREATE, request);
    ASSERT_TRUE(made);
    EXPECT_TRUE(made->granted());
  }
  EXPECT_EQ(Totals().chunks, 100);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(fs.Unlink(kRoot, "f" + std::to_string(i)));
  h.WaitReaped();
  EXPECT_EQ(Totals().chunks, 0);
  EXPECT_EQ(Totals().inodes, 1);
}

TEST_F(FilesTest, TruncationCountsBytesAndTimes) {
  auto made = fs.Create(kRoot, "file");
  auto grown = fs.Truncate(made->inode(), 5000);
  ASSERT_TRUE(grown);
  EXPECT_EQ(grown->size(), 5000u);
  EXPECT_GT(grown->mtime_ns(), made->mtime_ns());
  EXPECT_EQ(Totals().file_bytes, 5000);
  EXPECT_EQ(CodeOf(fs.Truncate(made->inode(), kMaxFileSize + 1)), ErrorCode::kFileTooBig);
  EXPECT_EQ(CodeOf(fs.Truncate(kRoot, 0)), ErrorCode::kIsDirectory);
  auto opened = fs.Open(made->inode(), O_WRONLY | O_TRUNC);
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->attr().size(), 0u);
  EXPECT_EQ(Totals().file_bytes, 0);
  fs.Release(made->inode());
}

TEST_F(FilesTest, BusyInodesAreWaitedFor) {
  auto made = fs.Create(kRoot, "file");
  InodeId id(made->inode());
  h.loop().Sync([&] { h.context().busy->Set(id); });
  std::thread other([&] {
    std::this_thread::sleep_for(50ms);  // nothing to wait for: the request must be stuck in the meantime
    h.loop().Sync([&] { h.context().busy->Clear(id); });
  });
  auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(fs.Truncate(made->inode(), 100));
  EXPECT_GE(std::chrono::steady_clock::now() - start, 40ms);
  other.join();
}

}  // namespace
}  // namespace shoal::meta
