// What the tests of POSIX behaviour share. They run on any directory: SHOAL_POSIX_DIR names it (a mount of Shoal), else
// one of the local file system is made, which shows that the tests themselves are right.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#define EXPECT_OK(call) EXPECT_EQ((call), 0) << std::strerror(errno)
#define ASSERT_OK(call) ASSERT_EQ((call), 0) << std::strerror(errno)
#define EXPECT_ERRNO(call, error)                                                              \
  do {                                                                                         \
    errno = 0;                                                                                 \
    auto expect_errno_result = (call);                                                         \
    int expect_errno_got = errno;                                                              \
    EXPECT_EQ(expect_errno_result, -1) << #call;                                               \
    EXPECT_EQ(expect_errno_got, error) << #call << ": " << std::strerror(expect_errno_got);    \
  } while (false)

namespace shoal::posix_test {

// An open file that closes itself. Owner: the test. A failed open is a failed expectation.
class File {
 public:
  File(const std::string& path, int flags, mode_t mode = 0644) : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {
    EXPECT_GE(fd_, 0) << path << ": " << std::strerror(errno);
  }
  ~File() { Close(); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int Close() {
    int result = fd_ >= 0 ? close(fd_) : 0;
    fd_ = -1;
    return result;
  }
  operator int() const { return fd_; }

 private:
  int fd_;
};

// A fresh directory for each test, emptied after it. Owner: GoogleTest. Test thread only.
class PosixTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* base = std::getenv("SHOAL_POSIX_DIR");
    dir_ = std::string(base && *base ? base : "/var/tmp") + "/posix-XXXXXX";
    ASSERT_TRUE(mkdtemp(dir_.data())) << dir_ << ": " << std::strerror(errno);
    chmod(dir_.c_str(), 0755);
    umask(022);
  }
  void TearDown() override {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
    EXPECT_FALSE(error) << error.message();
  }
  static bool OnShoal() { return std::getenv("SHOAL_POSIX_DIR") != nullptr; }

  std::string P(const std::string& name) const { return dir_ + "/" + name; }
  void Put(const std::string& name, const std::string& bytes, mode_t mode = 0644) {
    File file(P(name), O_WRONLY | O_CREAT | O_TRUNC, mode);
    ASSERT_EQ(write(file, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    ASSERT_OK(file.Close());
  }
  std::string Get(const std::string& name) const {
    File file(P(name), O_RDONLY);
    std::string bytes;
    char part[65536];
    ssize_t n;
    while ((n = read(file, part, sizeof part)) > 0) bytes.append(part, static_cast<size_t>(n));
    EXPECT_EQ(n, 0) << std::strerror(errno);
    return bytes;
  }
  struct stat Stat(const std::string& name) const {
    struct stat st {};
    EXPECT_OK(lstat(P(name).c_str(), &st)) << name;
    return st;
  }
  bool Exists(const std::string& name) const {
    struct stat st;
    return lstat(P(name).c_str(), &st) == 0;
  }

  // Runs `body` in a child process as that user (no groups besides); its result, 0 to 200, is the child's exit
  // status.
  static int As(uid_t uid, gid_t gid, const std::vector<gid_t>& groups, const std::function<int()>& body) {
    pid_t child = fork();
    if (child == 0) {
      if (setgroups(groups.size(), groups.data()) != 0 || setgid(gid) != 0 || setuid(uid) != 0) _exit(201);
      _exit(body());
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
  }
  static int Child(const std::function<int()>& body) {
    pid_t child = fork();
    if (child == 0) _exit(body());
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
  }

  std::string dir_;
};

// 0, or the errno of a call that returns -1.
inline int ErrnoOf(int64_t result) { return result < 0 ? errno : 0; }

}  // namespace shoal::posix_test
