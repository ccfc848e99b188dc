// Names: rename in all its cases, link counts, removing, symlinks, long names.
#include <linux/fs.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "tests/cluster/mount_posix/posix_fixture.h"

namespace shoal::posix_test {
namespace {

class Names : public PosixTest {};

TEST_F(Names, RenameReplacesAFile) {
  Put("a", "new");
  Put("b", "old");
  ino_t inode = Stat("a").st_ino;
  ASSERT_OK(rename(P("a").c_str(), P("b").c_str()));
  EXPECT_FALSE(Exists("a"));
  EXPECT_EQ(Get("b"), "new");
  EXPECT_EQ(Stat("b").st_ino, inode);
}

TEST_F(Names, RenameOverAnOpenFileKeepsItReadable) {
  Put("a", "new");
  Put("b", "old");
  File old(P("b"), O_RDONLY);
  ASSERT_OK(rename(P("a").c_str(), P("b").c_str()));
  char bytes[4] = {};
  EXPECT_EQ(read(old, bytes, 4), 3);
  EXPECT_STREQ(bytes, "old");
  struct stat st;
  ASSERT_OK(fstat(old, &st));
  EXPECT_EQ(st.st_nlink, 0u);
}

TEST_F(Names, RenameErrors) {
  Put("file", "");
  ASSERT_OK(mkdir(P("dir").c_str(), 0755));
  ASSERT_OK(mkdir(P("dir/sub").c_str(), 0755));
  ASSERT_OK(mkdir(P("full").c_str(), 0755));
  Put("full/x", "");
  EXPECT_ERRNO(rename(P("absent").c_str(), P("x").c_str()), ENOENT);
  EXPECT_ERRNO(rename(P("file").c_str(), P("dir").c_str()), EISDIR);
  EXPECT_ERRNO(rename(P("dir").c_str(), P("file").c_str()), ENOTDIR);
  EXPECT_ERRNO(rename(P("dir").c_str(), P("dir/sub/x").c_str()), EINVAL);
  EXPECT_ERRNO(rename(P("file").c_str(), P("absent/x").c_str()), ENOENT);
  EXPECT_ERRNO(rename(P("file").c_str(), P("file/x").c_str()), ENOTDIR);
  errno = 0;
  EXPECT_EQ(rename(P("dir").c_str(), P("full").c_str()), -1);
  EXPECT_TRUE(errno == ENOTEMPTY || errno == EEXIST);
  errno = 0;
  EXPECT_EQ(rename(P("dir/sub").c_str(), P("dir").c_str()), -1);  // an ancestor
  EXPECT_TRUE(errno == ENOTEMPTY || errno == EEXIST) << errno;
}

TEST_F(Names, RenameOfDirectories) {
  ASSERT_OK(mkdir(P("a").c_str(), 0755));
  Put("a/f", "x");
  ASSERT_OK(mkdir(P("b").c_str(), 0755));
  ASSERT_OK(rename(P("a").c_str(), P("b").c_str()));  // over an empty one
  EXPECT_EQ(Get("b/f"), "x");
  ASSERT_OK(mkdir(P("c").c_str(), 0755));
  EXPECT_EQ(Stat("c").st_nlink, 2u);
  ASSERT_OK(rename(P("b").c_str(), P("c/b").c_str()));  // to another parent
  EXPECT_EQ(Stat("c").st_nlink, 3u);
  struct stat up;
  ASSERT_OK(stat(P("c/b/..").c_str(), &up));
  EXPECT_EQ(up.st_ino, Stat("c").st_ino);
}

TEST_F(Names, RenameOntoItselfOrALinkOfItDoesNothing) {
  Put("a", "x");
  ASSERT_OK(link(P("a").c_str(), P("b").c_str()));
  ASSERT_OK(rename(P("a").c_str(), P("a").c_str()));
  ASSERT_OK(rename(P("a").c_str(), P("b").c_str()));
  EXPECT_TRUE(Exists("a"));
  EXPECT_TRUE(Exists("b"));
  EXPECT_EQ(Stat("a").st_nlink, 2u);
}

TEST_F(Names, RenameNoReplaceAndExchange) {
  Put("a", "a");
  Put("b", "b");
  EXPECT_ERRNO(renameat2(AT_FDCWD, P("a").c_str(), AT_FDCWD, P("b").c_str(), RENAME_NOREPLACE), EEXIST);
  EXPECT_OK(renameat2(AT_FDCWD, P("a").c_str(), AT_FDCWD, P("c").c_str(), RENAME_NOREPLACE));
  EXPECT_OK(renameat2(AT_FDCWD, P("b").c_str(), AT_FDCWD, P("c").c_str(), RENAME_EXCHANGE));
  EXPECT_EQ(Get("b"), "a");
  EXPECT_EQ(Get("c"), "b");
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  Put("d/in", "x");
  EXPECT_OK(renameat2(AT_FDCWD, P("b").c_str(), AT_FDCWD, P("d").c_str(), RENAME_EXCHANGE));
  EXPECT_EQ(Get("d"), "a");
  EXPECT_EQ(Get("b/in"), "x");
  EXPECT_ERRNO(renameat2(AT_FDCWD, P("b").c_str(), AT_FDCWD, P("absent").c_str(), RENAME_EXCHANGE), ENOENT);
  EXPECT_ERRNO(renameat2(AT_FDCWD, P("b").c_str(), AT_FDCWD, P("c").c_str(), RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
}

TEST_F(Names, LinkCounts) {
  Put("a", "x");
  EXPECT_EQ(Stat("a").st_nlink, 1u);
  ASSERT_OK(link(P("a").c_str(), P("b").c_str()));
  EXPECT_EQ(Stat("a").st_nlink, 2u);
  EXPECT_EQ(Stat("b").st_ino, Stat("a").st_ino);
  ASSERT_OK(unlink(P("a").c_str()));
  EXPECT_EQ(Stat("b").st_nlink, 1u);
  EXPECT_EQ(Get("b"), "x");
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  EXPECT_EQ(Stat("d").st_nlink, 2u);
  ASSERT_OK(mkdir(P("d/e").c_str(), 0755));
  EXPECT_EQ(Stat("d").st_nlink, 3u);
  ASSERT_OK(rmdir(P("d/e").c_str()));
  EXPECT_EQ(Stat("d").st_nlink, 2u);
  EXPECT_ERRNO(link(P("d").c_str(), P("e").c_str()), EPERM);
  EXPECT_ERRNO(link(P("b").c_str(), P("b").c_str()), EEXIST);
}

TEST_F(Names, UnlinkedOpenFileLives) {
  File file(P("f"), O_RDWR | O_CREAT);
  ASSERT_EQ(write(file, "before", 6), 6);
  ASSERT_OK(unlink(P("f").c_str()));
  EXPECT_FALSE(Exists("f"));
  ASSERT_EQ(pwrite(file, "AFTER", 5, 6), 5);
  ASSERT_OK(fsync(file));
  char bytes[12] = {};
  EXPECT_EQ(pread(file, bytes, 11, 0), 11);
  EXPECT_STREQ(bytes, "beforeAFTER");
  struct stat st;
  ASSERT_OK(fstat(file, &st));
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_EQ(st.st_size, 11);
  EXPECT_OK(ftruncate(file, 3));
  EXPECT_OK(fchmod(file, 0600));
  ASSERT_OK(fstat(file, &st));
  EXPECT_EQ(st.st_size, 3);
  File again(P("f"), O_RDWR | O_CREAT | O_EXCL);  // the name is free
}

TEST_F(Names, RemoveErrors) {
  Put("f", "");
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  Put("d/x", "");
  EXPECT_ERRNO(rmdir(P("d").c_str()), ENOTEMPTY);
  EXPECT_ERRNO(rmdir(P("f").c_str()), ENOTDIR);
  EXPECT_ERRNO(unlink(P("d").c_str()), EISDIR);
  EXPECT_ERRNO(unlink(P("absent").c_str()), ENOENT);
  EXPECT_ERRNO(rmdir(P("absent").c_str()), ENOENT);
  EXPECT_ERRNO(unlink(P("f/x").c_str()), ENOTDIR);
}

TEST_F(Names, ExclusiveCreateAndTrunc) {
  Put("f", "content");
  EXPECT_ERRNO(open(P("f").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644), EEXIST);
  EXPECT_ERRNO(open(P("absent").c_str(), O_RDWR), ENOENT);
  ino_t inode = Stat("f").st_ino;
  { File file(P("f"), O_CREAT | O_TRUNC | O_WRONLY); }
  EXPECT_EQ(Stat("f").st_size, 0);
  EXPECT_EQ(Stat("f").st_ino, inode);
  EXPECT_ERRNO(open(dir_.c_str(), O_WRONLY), EISDIR);
  EXPECT_ERRNO(open(P("f").c_str(), O_RDONLY | O_DIRECTORY), ENOTDIR);
  EXPECT_ERRNO(mkdir(P("f").c_str(), 0755), EEXIST);
}

TEST_F(Names, Symlinks) {
  Put("target", "x");
  ASSERT_OK(symlink("target", P("link").c_str()));
  EXPECT_EQ(Get("link"), "x");
  EXPECT_TRUE(S_ISLNK(Stat("link").st_mode));
  EXPECT_EQ(Stat("link").st_size, 6);
  char text[64] = {};
  EXPECT_EQ(readlink(P("link").c_str(), text, sizeof text), 6);
  EXPECT_STREQ(text, "target");
  EXPECT_EQ(readlink(P("link").c_str(), text, 3), 3);
  EXPECT_ERRNO(readlink(P("target").c_str(), text, 3), EINVAL);
  ASSERT_OK(symlink("loop", P("loop").c_str()));
  EXPECT_ERRNO(open(P("loop").c_str(), O_RDONLY), ELOOP);
  EXPECT_ERRNO(open(P("link").c_str(), O_RDONLY | O_NOFOLLOW), ELOOP);
  std::string deep(4000, 'a');
  ASSERT_OK(symlink(deep.c_str(), P("deep").c_str()));
  std::string got(5000, 0);
  EXPECT_EQ(readlink(P("deep").c_str(), got.data(), got.size()), 4000);
  EXPECT_EQ(got.substr(0, 4000), deep);
  EXPECT_EQ(link(P("link").c_str(), P("link2").c_str()), 0);  // the link itself, not its target
  EXPECT_EQ(Stat("link").st_nlink, 2u);
  EXPECT_EQ(Stat("target").st_nlink, 1u);
}

TEST_F(Names, LongAndStrangeNames) {
  std::string longest(255, 'n');
  Put(longest, "x");
  EXPECT_EQ(Get(longest), "x");
  EXPECT_ERRNO(open(P(longest + "n").c_str(), O_CREAT | O_RDWR, 0644), ENAMETOOLONG);
  EXPECT_ERRNO(mkdir(P(longest + "n").c_str(), 0755), ENAMETOOLONG);
  for (std::string name : {" ", "a b", "\xff\xfe", "new\nline", "-rf", "*", "..x", "\xc3\xa4"}) {
    Put(name, name);
    EXPECT_EQ(Get(name), name);
    EXPECT_OK(unlink(P(name).c_str()));
  }
}

TEST_F(Names, SpecialFiles) {
  ASSERT_OK(mkfifo(P("fifo").c_str(), 0640));
  EXPECT_TRUE(S_ISFIFO(Stat("fifo").st_mode));
  EXPECT_EQ(Stat("fifo").st_mode & 0777, 0640u);
  ASSERT_OK(mknod(P("sock").c_str(), S_IFSOCK | 0600, 0));
  EXPECT_TRUE(S_ISSOCK(Stat("sock").st_mode));
  ASSERT_OK(mknod(P("plain").c_str(), S_IFREG | 0600, 0));
  EXPECT_TRUE(S_ISREG(Stat("plain").st_mode));
  if (geteuid() == 0) {
    ASSERT_OK(mknod(P("dev").c_str(), S_IFCHR | 0600, makedev(1, 3)));
    EXPECT_TRUE(S_ISCHR(Stat("dev").st_mode));
    EXPECT_EQ(Stat("dev").st_rdev, makedev(1, 3));
  }
}

TEST_F(Names, UmaskAndModeOfNewFiles) {
  umask(027);
  Put("f", "", 0666);
  ASSERT_OK(mkdir(P("d").c_str(), 0777));
  EXPECT_EQ(Stat("f").st_mode & 07777, 0640u);
  EXPECT_EQ(Stat("d").st_mode & 07777, 0750u);
}

}  // namespace
}  // namespace shoal::posix_test
