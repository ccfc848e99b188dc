#include <sys/stat.h>

#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

constexpr uint32_t kCreate = 1, kReplace = 2;

class XattrTest : public ::testing::Test {
 protected:
  void SetUp() override {
    h.Start();
    file = root.Create(kRoot, "file", 0644)->inode();
    ASSERT_TRUE(root.Chown(file, 1000, 1000));
  }
  std::vector<std::string> List(Names& who) {
    pb::ListXattrRequest request;
    request.set_inode(file);
    auto response = who.Do<pb::ListXattrResponse>(pb::LIST_XATTR, request);
    CHECK(response.has_value());
    return {response->names().begin(), response->names().end()};
  }
  ErrorCode Remove(Names& who, const std::string& name) {
    pb::RemoveXattrRequest request;
    request.set_inode(file);
    request.set_name(name);
    return CodeOf(who.Do<pb::AttrResponse>(pb::REMOVE_XATTR, request));
  }
  Harness h;
  Names root{h, 0}, alice{h, 1000}, bob{h, 1001};
  uint64_t file = 0;
};

TEST_F(XattrTest, SetGetListRemove) {
  auto before = root.Stat(file);
  auto set = alice.SetXattr(file, "user.a", std::string("one\0two", 7));
  ASSERT_TRUE(set);
  EXPECT_GT(set->ctime_ns(), before->ctime_ns());
  ASSERT_TRUE(alice.SetXattr(file, "user.b", ""));
  h.DropCache();
  EXPECT_EQ(*alice.GetXattr(file, "user.a"), std::string("one\0two", 7));
  EXPECT_EQ(*alice.GetXattr(file, "user.b"), "");
  EXPECT_EQ(List(alice), (std::vector<std::string>{"user.a", "user.b"}));
  EXPECT_EQ(Remove(alice, "user.a"), ErrorCode::kOk);
  EXPECT_EQ(Remove(alice, "user.a"), ErrorCode::kNoData);
  EXPECT_EQ(Remove(alice, "user.b"), ErrorCode::kOk);
  EXPECT_TRUE(List(alice).empty());
  EXPECT_EQ(CodeOf(alice.GetXattr(file, "user.b")), ErrorCode::kNoData);
}

TEST_F(XattrTest, Flags) {
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.a", "1", kReplace)), ErrorCode::kNoData);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.a", "1", kCreate)), ErrorCode::kOk);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.a", "2", kCreate)), ErrorCode::kExists);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.a", "2", kReplace)), ErrorCode::kOk);
  EXPECT_EQ(*alice.GetXattr(file, "user.a"), "2");
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.a", "2", 8)), ErrorCode::kInvalidArgument);
}

TEST_F(XattrTest, WhoMay) {
  EXPECT_EQ(CodeOf(bob.SetXattr(file, "user.a", "1")), ErrorCode::kAccessDenied);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "trusted.a", "1")), ErrorCode::kNotPermitted);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "security.a", "1")), ErrorCode::kNotPermitted);
  ASSERT_TRUE(root.SetXattr(file, "trusted.a", "1"));
  ASSERT_TRUE(root.SetXattr(file, "security.a", "1"));
  EXPECT_EQ(CodeOf(alice.GetXattr(file, "trusted.a")), ErrorCode::kNoData);
  EXPECT_EQ(*bob.GetXattr(file, "security.a"), "1");
  EXPECT_EQ(List(alice), std::vector<std::string>{"security.a"});
  EXPECT_EQ(List(root).size(), 2u);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "system.posix_acl_access", "1")), ErrorCode::kNotSupported);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "other.x", "1")), ErrorCode::kNotSupported);
}

TEST_F(XattrTest, OnlyFilesAndDirectoriesHaveUserXattrs) {
  uint64_t fifo = root.Mknod(kRoot, "fifo", S_IFIFO | 0666)->inode();
  EXPECT_EQ(CodeOf(root.SetXattr(fifo, "user.a", "1")), ErrorCode::kNotPermitted);
  EXPECT_EQ(CodeOf(root.SetXattr(fifo, "trusted.a", "1")), ErrorCode::kOk);
  uint64_t tmp = root.Mkdir(kRoot, "tmp", 01777)->inode();
  EXPECT_EQ(CodeOf(alice.SetXattr(tmp, "user.a", "1")), ErrorCode::kNotPermitted);
}

TEST_F(XattrTest, Limits) {
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.", "1")), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user." + std::string(251, 'x'), "1")), ErrorCode::kRange);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user." + std::string(250, 'x'), "1")), ErrorCode::kOk);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.big", std::string(64 << 10, 'x'))), ErrorCode::kOk);
  EXPECT_EQ(CodeOf(alice.SetXattr(file, "user.bigger", std::string((64 << 10) + 1, 'x'))), ErrorCode::kListTooBig);
  ErrorCode code = ErrorCode::kOk;
  for (int i = 0; i < 10 && code == ErrorCode::kOk; ++i) {
    code = CodeOf(alice.SetXattr(file, "user.b" + std::to_string(i), std::string(60 << 10, 'x')));
  }
  EXPECT_EQ(code, ErrorCode::kNoSpace);
}

TEST_F(XattrTest, ANewOwnerDropsCapabilities) {
  ASSERT_TRUE(root.SetXattr(file, "security.capability", "all"));
  ASSERT_TRUE(root.SetXattr(file, "user.kept", "x"));
  ASSERT_TRUE(root.Chown(file, 1001, 1001));
  EXPECT_EQ(List(root), std::vector<std::string>{"user.kept"});
}

TEST_F(XattrTest, GoWithTheFile) {
  ASSERT_TRUE(root.SetXattr(file, "user.a", "1"));
  ASSERT_TRUE(root.Unlink(kRoot, "file"));
  auto gone = h.Execute([&](View& view) -> Status {
    TRY_ASSIGN(const pb::XattrsRecord* xattrs, view.GetXattrs(InodeId(file)));
    return xattrs ? Status(Fail(ErrorCode::kExists)) : Status();
  });
  EXPECT_TRUE(gone);
}

}  // namespace
}  // namespace shoal::meta
