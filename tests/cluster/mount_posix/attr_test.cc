// Attributes: modes, owners, permissions as another user, times, extended attributes, statfs.
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/xattr.h>

#include <set>

#include "tests/cluster/mount_posix/posix_fixture.h"

namespace shoal::posix_test {
namespace {

constexpr uid_t kAlice = 12001, kBob = 12002;
constexpr gid_t kStaff = 13001, kGuests = 13002;

class Attr : public PosixTest {
 protected:
  static int64_t Ns(const timespec& t) { return t.tv_sec * 1'000'000'000LL + t.tv_nsec; }
};

TEST_F(Attr, ChmodKeepsTypeAndSetsCtime) {
  Put("f", "x");
  timespec before = Stat("f").st_ctim;
  usleep(20000);
  ASSERT_OK(chmod(P("f").c_str(), 04751));
  EXPECT_EQ(Stat("f").st_mode, static_cast<mode_t>(S_IFREG | 04751));
  EXPECT_GT(Ns(Stat("f").st_ctim), Ns(before));
  File file(P("f"), O_RDONLY);
  ASSERT_OK(fchmod(file, 0600));
  EXPECT_EQ(Stat("f").st_mode & 07777, 0600u);
}

TEST_F(Attr, ChownAndSetId) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Put("f", "x");
  ASSERT_OK(chmod(P("f").c_str(), 06755));
  ASSERT_OK(chown(P("f").c_str(), kAlice, kStaff));
  EXPECT_EQ(Stat("f").st_uid, kAlice);
  EXPECT_EQ(Stat("f").st_gid, kStaff);
  EXPECT_EQ(Stat("f").st_mode & 07777, 0755u);  // chown clears set-id
  ASSERT_OK(chown(P("f").c_str(), static_cast<uid_t>(-1), kGuests));
  EXPECT_EQ(Stat("f").st_uid, kAlice);
  EXPECT_EQ(Stat("f").st_gid, kGuests);
}

TEST_F(Attr, WritingByAnotherClearsSetId) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Put("f", "xxxx");
  ASSERT_OK(chmod(P("f").c_str(), 06777));
  EXPECT_EQ(As(kBob, kGuests, {}, [&] {
              int fd = open(P("f").c_str(), O_WRONLY);
              if (fd < 0) return errno;
              int error = ErrnoOf(pwrite(fd, "y", 1, 0));
              return error ? error : ErrnoOf(close(fd));
            }), 0);
  EXPECT_EQ(Stat("f").st_mode & 07777, 0777u);
  ASSERT_OK(chmod(P("f").c_str(), 06777));
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(truncate(P("f").c_str(), 1)); }), 0);
  EXPECT_EQ(Stat("f").st_mode & 07777, 0777u);
}

TEST_F(Attr, PermissionsOfOthers) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Put("f", "x");
  ASSERT_OK(chown(P("f").c_str(), kAlice, kStaff));
  ASSERT_OK(chmod(P("f").c_str(), 0640));
  auto open_for = [&](int flags) {
    return [=, this] {
      int fd = open(P("f").c_str(), flags);
      return fd < 0 ? errno : 0;
    };
  };
  EXPECT_EQ(As(kAlice, kGuests, {}, open_for(O_RDWR)), 0);
  EXPECT_EQ(As(kBob, kGuests, {}, open_for(O_RDONLY)), EACCES);
  EXPECT_EQ(As(kBob, kStaff, {}, open_for(O_RDONLY)), 0);
  EXPECT_EQ(As(kBob, kStaff, {}, open_for(O_WRONLY)), EACCES);
  EXPECT_EQ(As(kBob, kGuests, {kStaff}, open_for(O_RDONLY)), 0);  // a supplementary group
  EXPECT_EQ(As(kBob, kGuests, {kStaff}, open_for(O_WRONLY)), EACCES);
  EXPECT_EQ(As(kBob, kStaff, {}, [&] { return ErrnoOf(chmod(P("f").c_str(), 0777)); }), EPERM);
  EXPECT_EQ(As(kBob, kStaff, {}, [&] { return ErrnoOf(chown(P("f").c_str(), kBob, kStaff)); }), EPERM);
  EXPECT_EQ(As(kAlice, kStaff, {}, [&] { return ErrnoOf(chmod(P("f").c_str(), 0600)); }), 0);
  EXPECT_EQ(As(kAlice, kStaff, {kGuests}, [&] { return ErrnoOf(chown(P("f").c_str(), kAlice, kGuests)); }), 0);
  EXPECT_EQ(As(kAlice, kGuests, {}, [&] { return ErrnoOf(chown(P("f").c_str(), kAlice, 13999)); }), EPERM);
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(open(P("new").c_str(), O_CREAT | O_RDWR, 0644)); }), EACCES);
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(unlink(P("f").c_str())); }), EACCES);
}

TEST_F(Attr, StickyDirectories) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_OK(mkdir(P("tmp").c_str(), 0755));
  ASSERT_OK(chmod(P("tmp").c_str(), 01777));
  auto make = [&] { return ErrnoOf(close(open(P("tmp/a").c_str(), O_CREAT | O_RDWR, 0666))); };
  EXPECT_EQ(As(kAlice, kStaff, {}, make), 0);
  EXPECT_EQ(Stat("tmp/a").st_uid, kAlice);
  EXPECT_EQ(Stat("tmp/a").st_gid, kStaff);
  EXPECT_EQ(As(kBob, kStaff, {}, [&] { return ErrnoOf(unlink(P("tmp/a").c_str())); }), EPERM);
  EXPECT_EQ(As(kBob, kStaff, {}, [&] { return ErrnoOf(rename(P("tmp/a").c_str(), P("tmp/b").c_str())); }), EPERM);
  EXPECT_EQ(As(kAlice, kStaff, {}, [&] { return ErrnoOf(unlink(P("tmp/a").c_str())); }), 0);
}

TEST_F(Attr, SetGroupIdDirectories) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  ASSERT_OK(chown(P("d").c_str(), 0, kStaff));
  ASSERT_OK(chmod(P("d").c_str(), 02777));
  EXPECT_EQ(As(kBob, kGuests, {}, [&] {
              int error = ErrnoOf(close(open(P("d/f").c_str(), O_CREAT | O_RDWR, 0644)));
              return error ? error : ErrnoOf(mkdir(P("d/sub").c_str(), 0755));
            }), 0);
  EXPECT_EQ(Stat("d/f").st_gid, kStaff);
  EXPECT_EQ(Stat("d/sub").st_gid, kStaff);
  EXPECT_TRUE(Stat("d/sub").st_mode & S_ISGID);
}

TEST_F(Attr, SearchPermissionOnThePath) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_OK(mkdir(P("closed").c_str(), 0700));
  Put("closed/f", "x");
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(open(P("closed/f").c_str(), O_RDONLY)); }), EACCES);
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(access(P("closed").c_str(), R_OK)); }), EACCES);
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(access(dir_.c_str(), R_OK | X_OK)); }), 0);
}

TEST_F(Attr, CreatedReadOnlyFileCanBeWrittenByItsMaker) {
  auto body = [&] {
    int fd = open(P("f").c_str(), O_CREAT | O_EXCL | O_RDWR, 0444);
    if (fd < 0) return errno;
    if (write(fd, "data", 4) != 4) return errno;
    return ErrnoOf(close(fd));
  };
  if (geteuid() != 0) {
    EXPECT_EQ(Child(body), 0);
  } else {
    ASSERT_OK(chmod(dir_.c_str(), 0777));
    EXPECT_EQ(As(kBob, kGuests, {}, body), 0);
  }
  EXPECT_EQ(Get("f"), "data");
}

TEST_F(Attr, ExecuteOnlyPrograms) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  std::error_code error;
  std::filesystem::copy_file("/bin/true", P("prog"), error);
  ASSERT_FALSE(error) << error.message();
  ASSERT_OK(chmod(P("prog").c_str(), 0111));
  auto run = [&] {
    execl(P("prog").c_str(), "prog", nullptr);
    return errno;
  };
  EXPECT_EQ(As(kBob, kGuests, {}, run), 0);
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(open(P("prog").c_str(), O_RDONLY)); }), EACCES);
  ASSERT_OK(chmod(P("prog").c_str(), 0444));
  EXPECT_EQ(As(kBob, kGuests, {}, run), EACCES);
}

TEST_F(Attr, TimesAreSetAndKept) {
  Put("f", "x");
  timespec times[2] = {{1234567890, 123456789}, {987654321, 987654321}};
  ASSERT_OK(utimensat(AT_FDCWD, P("f").c_str(), times, 0));
  EXPECT_EQ(Ns(Stat("f").st_atim), Ns(times[0]));
  EXPECT_EQ(Ns(Stat("f").st_mtim), Ns(times[1]));
  times[0].tv_nsec = UTIME_OMIT;
  times[1] = {-5, 0};  // before 1970
  ASSERT_OK(utimensat(AT_FDCWD, P("f").c_str(), times, 0));
  EXPECT_EQ(Stat("f").st_atim.tv_sec, 1234567890);
  EXPECT_EQ(Stat("f").st_mtim.tv_sec, -5);
  times[0].tv_nsec = times[1].tv_nsec = UTIME_NOW;
  ASSERT_OK(utimensat(AT_FDCWD, P("f").c_str(), times, 0));
  EXPECT_LT(std::abs(Stat("f").st_mtim.tv_sec - time(nullptr)), 5);
}

TEST_F(Attr, TimesSetOnAFileBeingWrittenStay) {
  File file(P("f"), O_WRONLY | O_CREAT);
  ASSERT_EQ(write(file, "data", 4), 4);
  timespec times[2] = {{1000, 0}, {2000, 5}};
  ASSERT_OK(futimens(file, times));
  ASSERT_OK(file.Close());
  EXPECT_EQ(Stat("f").st_mtim.tv_sec, 2000);  // what tar and cp -p rely on
  EXPECT_EQ(Stat("f").st_mtim.tv_nsec, 5);
  EXPECT_EQ(Stat("f").st_size, 4);
}

TEST_F(Attr, WritingAndNamingChangeTimes) {
  Put("f", "x");
  struct stat before = Stat("f");
  struct stat dir_before {};
  ASSERT_OK(stat(dir_.c_str(), &dir_before));
  usleep(20000);
  { File file(P("f"), O_WRONLY); ASSERT_EQ(write(file, "y", 1), 1); }
  EXPECT_GT(Ns(Stat("f").st_mtim), Ns(before.st_mtim));
  EXPECT_GT(Ns(Stat("f").st_ctim), Ns(before.st_ctim));
  Put("g", "");
  struct stat dir_after {};
  ASSERT_OK(stat(dir_.c_str(), &dir_after));
  EXPECT_GT(Ns(dir_after.st_mtim), Ns(dir_before.st_mtim));
  before = Stat("f");
  usleep(20000);
  ASSERT_OK(link(P("f").c_str(), P("h").c_str()));
  EXPECT_GT(Ns(Stat("f").st_ctim), Ns(before.st_ctim));
  EXPECT_EQ(Ns(Stat("f").st_mtim), Ns(before.st_mtim));
}

TEST_F(Attr, SettingTimesNeedsTheRight) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Put("f", "x", 0666);
  ASSERT_OK(chmod(P("f").c_str(), 0666));
  timespec times[2] = {{1, 0}, {1, 0}};
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(utimensat(AT_FDCWD, P("f").c_str(), times, 0)); }), EPERM);
  EXPECT_EQ(As(kBob, kGuests, {}, [&] { return ErrnoOf(utimensat(AT_FDCWD, P("f").c_str(), nullptr, 0)); }), 0);
}

TEST_F(Attr, ExtendedAttributes) {
  Put("f", "x");
  std::string f = P("f");
  char value[70000];
  EXPECT_ERRNO(getxattr(f.c_str(), "user.none", value, sizeof value), ENODATA);
  ASSERT_OK(setxattr(f.c_str(), "user.a", "first", 5, 0));
  EXPECT_EQ(getxattr(f.c_str(), "user.a", value, sizeof value), 5);
  EXPECT_EQ(std::string(value, 5), "first");
  EXPECT_EQ(getxattr(f.c_str(), "user.a", nullptr, 0), 5);
  EXPECT_ERRNO(getxattr(f.c_str(), "user.a", value, 4), ERANGE);
  EXPECT_ERRNO(setxattr(f.c_str(), "user.a", "x", 1, XATTR_CREATE), EEXIST);
  EXPECT_ERRNO(setxattr(f.c_str(), "user.b", "x", 1, XATTR_REPLACE), ENODATA);
  ASSERT_OK(setxattr(f.c_str(), "user.empty", "", 0, XATTR_CREATE));
  EXPECT_EQ(getxattr(f.c_str(), "user.empty", value, sizeof value), 0);
  ssize_t n = listxattr(f.c_str(), value, sizeof value);
  ASSERT_GT(n, 0);
  std::set<std::string> names;
  for (ssize_t at = 0; at < n; at += static_cast<ssize_t>(std::strlen(value + at)) + 1) names.insert(value + at);
  names.erase("security.selinux");
  EXPECT_EQ(names, (std::set<std::string>{"user.a", "user.empty"}));
  ASSERT_OK(removexattr(f.c_str(), "user.a"));
  EXPECT_ERRNO(removexattr(f.c_str(), "user.a"), ENODATA);
  ASSERT_OK(mkdir(P("d").c_str(), 0755));
  EXPECT_OK(setxattr(P("d").c_str(), "user.dir", "v", 1, 0));
  std::string binary("\0\1\xff\0", 4);
  EXPECT_OK(setxattr(f.c_str(), "user.bin", binary.data(), binary.size(), 0));
  EXPECT_EQ(getxattr(f.c_str(), "user.bin", value, sizeof value), 4);
  EXPECT_EQ(std::string(value, 4), binary);
  if (OnShoal()) {
    std::string big(60000, 'b');
    EXPECT_OK(setxattr(f.c_str(), "user.big", big.data(), big.size(), 0));
    EXPECT_EQ(getxattr(f.c_str(), "user.big", value, sizeof value), 60000);
  }
}

TEST_F(Attr, StatFs) {
  struct statvfs st {};
  ASSERT_OK(statvfs(dir_.c_str(), &st));
  EXPECT_GT(st.f_blocks, 0u);
  EXPECT_LE(st.f_bfree, st.f_blocks);
  EXPECT_EQ(st.f_namemax, 255u);
}

TEST_F(Attr, BlocksOfWrittenData) {
  Put("f", std::string(100000, 'x'));
  File file(P("f"), O_RDONLY);
  ASSERT_OK(fsync(file));
  struct stat st = Stat("f");
  EXPECT_GE(st.st_blocks * 512, 100000 / 4096 * 4096);
}

}  // namespace
}  // namespace shoal::posix_test
