#include <sys/stat.h>

#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

constexpr ErrorCode kOk = ErrorCode::kOk, kAccess = ErrorCode::kAccessDenied, kPerm = ErrorCode::kNotPermitted;

class PermissionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    h.Start();
    home = root.Mkdir(kRoot, "home", 0755)->inode();
    ASSERT_TRUE(root.Chown(home, 1000, 1000));
    file = alice.Create(home, "file", 0640)->inode();
  }
  Result<pb::Attr> Times(Names& who, uint64_t inode, bool now) {
    pb::SetAttrRequest request;
    request.set_inode(inode);
    if (now) {
      request.set_atime_now(true);
      request.set_mtime_now(true);
    } else {
      request.set_atime_ns(1);
      request.set_mtime_ns(2);
    }
    return who.SetAttr(request);
  }
  Harness h;
  Names root{h, 0}, alice{h, 1000}, bob{h, 1001};
  uint64_t home = 0, file = 0;
};

TEST_F(PermissionTest, DirectoriesGuardTheirEntries) {
  EXPECT_EQ(CodeOf(bob.Lookup(home, "file")), kOk);
  EXPECT_EQ(CodeOf(bob.Create(home, "x")), kAccess);
  EXPECT_EQ(CodeOf(bob.Unlink(home, "file")), kAccess);
  EXPECT_EQ(CodeOf(bob.Rename(home, "file", home, "y")), kAccess);
  EXPECT_EQ(CodeOf(bob.Mkdir(home, "file")), ErrorCode::kExists);
  ASSERT_TRUE(alice.Chmod(home, 0700));
  EXPECT_EQ(CodeOf(bob.Lookup(home, "file")), kAccess);
  EXPECT_EQ(CodeOf(bob.ReadDir(home, 0, 10)), kAccess);
  EXPECT_EQ(CodeOf(root.Lookup(home, "file")), kOk);
  ASSERT_TRUE(alice.Chmod(home, 0000));
  EXPECT_EQ(CodeOf(alice.Lookup(home, "file")), kAccess) << "the owner's bits count for the owner";
}

TEST_F(PermissionTest, OwnerGroupAndOther) {
  EXPECT_EQ(CodeOf(alice.Open(file, O_RDWR)), kOk);
  EXPECT_EQ(CodeOf(bob.Open(file, O_RDONLY)), kAccess);
  h.groups = {5, 1000};
  EXPECT_EQ(CodeOf(bob.Open(file, O_RDONLY)), kOk) << "by a supplementary group";
  EXPECT_EQ(CodeOf(bob.Open(file, O_WRONLY)), kAccess);
  ASSERT_TRUE(alice.Chmod(file, 0606));
  EXPECT_EQ(CodeOf(bob.Open(file, O_RDONLY)), kAccess) << "the group's bits count for its members";
  h.groups.clear();
  EXPECT_EQ(CodeOf(bob.Open(file, O_RDWR)), kOk);
}

TEST_F(PermissionTest, ExecutionNeedsAnExecuteBit) {
  constexpr uint32_t kForExec = 0x20;
  EXPECT_EQ(CodeOf(root.Open(file, O_RDONLY | kForExec)), kAccess);
  ASSERT_TRUE(alice.Chmod(file, 0711));
  EXPECT_EQ(CodeOf(bob.Open(file, O_RDONLY | kForExec)), kOk);
  EXPECT_EQ(CodeOf(bob.Open(file, O_RDONLY)), kAccess);
}

TEST_F(PermissionTest, Chmod) {
  EXPECT_EQ(CodeOf(bob.Chmod(file, 0777)), kPerm);
  EXPECT_EQ(alice.Chmod(file, 04711)->mode(), S_IFREG | 04711u);
  ASSERT_TRUE(root.Chown(file, 1000, 7));
  EXPECT_EQ(alice.Chmod(file, 02711)->mode(), S_IFREG | 0711u) << "set-group-id of a group that is not theirs";
  EXPECT_EQ(root.Chmod(file, 02711)->mode(), S_IFREG | 02711u);
}

TEST_F(PermissionTest, Chown) {
  EXPECT_EQ(CodeOf(alice.Chown(file, 1001, 1000)), kPerm);
  EXPECT_EQ(CodeOf(alice.Chown(file, 1000, 1001)), kPerm);
  EXPECT_EQ(CodeOf(bob.Chown(file, 1001, 1001)), kPerm);
  h.groups = {1001};
  EXPECT_EQ(CodeOf(alice.Chown(file, 1000, 1001)), kOk);
  h.groups.clear();
  ASSERT_TRUE(alice.Chmod(file, 04755));
  EXPECT_EQ(root.Chown(file, 1001, 1001)->mode(), S_IFREG | 0755u) << "a new owner clears set-user-id";
}

TEST_F(PermissionTest, WritingClearsSetIds) {
  ASSERT_TRUE(alice.Chmod(file, 06777));
  EXPECT_EQ(bob.Truncate(file, 10)->mode(), S_IFREG | 0777u);
  ASSERT_TRUE(alice.Chmod(file, 06767));
  EXPECT_EQ(bob.Truncate(file, 20)->mode(), S_IFREG | 02767u) << "without group execution it is mandatory locking";
  ASSERT_TRUE(alice.Chmod(file, 06777));
  EXPECT_EQ(root.Truncate(file, 30)->mode(), S_IFREG | 06777u);
  EXPECT_EQ(CodeOf(alice.Chmod(file, 0644)), kOk);
  EXPECT_EQ(CodeOf(bob.Truncate(file, 1)), kAccess);
}

TEST_F(PermissionTest, Times) {
  EXPECT_EQ(CodeOf(Times(bob, file, true)), kAccess);
  EXPECT_EQ(CodeOf(Times(bob, file, false)), kPerm);
  ASSERT_TRUE(alice.Chmod(file, 0666));
  EXPECT_EQ(CodeOf(Times(bob, file, true)), kOk) << "who may write may touch";
  EXPECT_EQ(CodeOf(Times(bob, file, false)), kPerm);
  auto set = Times(alice, file, false);
  ASSERT_TRUE(set);
  EXPECT_EQ(set->atime_ns(), 1);
  EXPECT_EQ(set->mtime_ns(), 2);
  EXPECT_GT(set->ctime_ns(), 1000);
}

TEST_F(PermissionTest, LazyAtimeOnlyGoesForward) {
  auto before = root.Stat(file);
  pb::SetAttrRequest request;
  request.set_inode(file);
  request.set_lazy_atime(true);
  request.set_atime_ns(before->atime_ns() + 5);
  auto after = bob.SetAttr(request);
  ASSERT_TRUE(after);
  EXPECT_EQ(after->atime_ns(), before->atime_ns() + 5);
  EXPECT_EQ(after->ctime_ns(), before->ctime_ns());
  EXPECT_EQ(after->change(), before->change());
  request.set_atime_ns(1);
  EXPECT_EQ(bob.SetAttr(request)->atime_ns(), before->atime_ns() + 5);
}

TEST_F(PermissionTest, StickyDirectories) {
  uint64_t tmp = root.Mkdir(kRoot, "tmp", 01777)->inode();
  ASSERT_TRUE(alice.Create(tmp, "hers"));
  ASSERT_TRUE(bob.Create(tmp, "his"));
  EXPECT_EQ(CodeOf(bob.Unlink(tmp, "hers")), kPerm);
  EXPECT_EQ(CodeOf(bob.Rename(tmp, "hers", tmp, "x")), kPerm);
  EXPECT_EQ(CodeOf(bob.Rename(tmp, "his", tmp, "hers")), kPerm);
  EXPECT_EQ(CodeOf(alice.Rename(tmp, "hers", tmp, "x")), kOk);
  EXPECT_EQ(CodeOf(root.Unlink(tmp, "x")), kOk);
}

TEST_F(PermissionTest, SetGroupIdDirectoriesGiveTheirGroup) {
  uint64_t shared = root.Mkdir(kRoot, "shared", 0777)->inode();
  ASSERT_TRUE(root.Chown(shared, 0, 50));
  ASSERT_TRUE(root.Chmod(shared, 02777));
  auto made = alice.Create(shared, "file", 02755);
  EXPECT_EQ(made->gid(), 50u);
  EXPECT_EQ(made->mode(), S_IFREG | 0755u) << "not set-group-id of a group that is not theirs";
  auto dir = alice.Mkdir(shared, "dir", 0755);
  EXPECT_EQ(dir->gid(), 50u);
  EXPECT_EQ(dir->mode(), S_IFDIR | 02755u);
  EXPECT_EQ(alice.Create(home, "plain")->gid(), 1000u);
}

TEST_F(PermissionTest, MovingADirectoryChangesIt) {
  uint64_t from = root.Mkdir(kRoot, "from", 0777)->inode();
  uint64_t to = root.Mkdir(kRoot, "to", 0777)->inode();
  ASSERT_TRUE(root.Mkdir(from, "dir", 0755));
  EXPECT_EQ(CodeOf(bob.Rename(from, "dir", to, "dir")), kAccess) << "its \"..\" is not his to change";
  EXPECT_EQ(CodeOf(bob.Rename(from, "dir", from, "dir2")), kOk);
  ASSERT_TRUE(root.Create(from, "file", 0444));
  EXPECT_EQ(CodeOf(bob.Rename(from, "file", to, "file")), kOk);
}

TEST_F(PermissionTest, DevicesAreTheSuperusers) {
  EXPECT_EQ(CodeOf(alice.Mknod(home, "device", S_IFBLK | 0600, 5)), kPerm);
  EXPECT_EQ(CodeOf(alice.Mknod(home, "fifo", S_IFIFO | 0600)), kOk);
}

TEST_F(PermissionTest, CreateWithOTruncAsksForWriting) {
  auto request = bob.Named<pb::CreateRequest>(home, "file");
  request.set_open(true);
  request.set_truncate(true);
  request.set_open_flags(O_WRONLY);
  EXPECT_EQ(CodeOf(bob.Do<pb::OpenResponse>(pb::CREATE, request)), kAccess);
}

}  // namespace
}  // namespace shoal::meta
