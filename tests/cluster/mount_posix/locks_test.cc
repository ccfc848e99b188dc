// Locks of fcntl(2) and flock(2): conflicts, splitting, waiting, interruption, what closing and dying release.
#include <sys/file.h>
#include <sys/mman.h>

#include <csignal>

#include "tests/cluster/mount_posix/posix_fixture.h"

namespace shoal::posix_test {
namespace {

int Lock(int fd, short type, off_t start, off_t length, int command = F_SETLK) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return fcntl(fd, command, &lock);
}

class Locks : public PosixTest {
 protected:
  void SetUp() override {
    PosixTest::SetUp();
    Put("f", "content");
  }
  // Whether another process could take this lock now: 0, or its errno.
  int Other(short type, off_t start, off_t length) {
    return Child([&] {
      int fd = open(P("f").c_str(), O_RDWR);
      return fd < 0 ? 200 : ErrnoOf(Lock(fd, type, start, length));
    });
  }
  int OtherFlock(int operation) {
    return Child([&] {
      int fd = open(P("f").c_str(), O_RDWR);
      return fd < 0 ? 200 : ErrnoOf(flock(fd, operation | LOCK_NB));
    });
  }
};

TEST_F(Locks, RangesConflict) {
  File file(P("f"), O_RDWR);
  ASSERT_OK(Lock(file, F_WRLCK, 10, 10));
  EXPECT_EQ(Other(F_WRLCK, 0, 10), 0);
  EXPECT_EQ(Other(F_WRLCK, 20, 0), 0);
  EXPECT_EQ(Other(F_RDLCK, 15, 1), EAGAIN);
  EXPECT_EQ(Other(F_WRLCK, 0, 11), EAGAIN);
  EXPECT_EQ(Other(F_WRLCK, 19, 0), EAGAIN);
  ASSERT_OK(Lock(file, F_UNLCK, 12, 2));  // a hole in the middle
  EXPECT_EQ(Other(F_WRLCK, 12, 2), 0);
  EXPECT_EQ(Other(F_WRLCK, 11, 2), EAGAIN);
  EXPECT_EQ(Other(F_WRLCK, 13, 2), EAGAIN);
}

TEST_F(Locks, SharedOnes) {
  File file(P("f"), O_RDWR);
  ASSERT_OK(Lock(file, F_RDLCK, 0, 0));
  EXPECT_EQ(Other(F_RDLCK, 0, 100), 0);
  EXPECT_EQ(Other(F_WRLCK, 50, 1), EAGAIN);
  ASSERT_OK(Lock(file, F_WRLCK, 0, 0));  // raised
  EXPECT_EQ(Other(F_RDLCK, 0, 100), EAGAIN);
  ASSERT_OK(Lock(file, F_RDLCK, 0, 50));  // partly lowered
  EXPECT_EQ(Other(F_RDLCK, 0, 50), 0);
  EXPECT_EQ(Other(F_RDLCK, 0, 51), EAGAIN);
}

TEST_F(Locks, GetlkNamesTheHolder) {
  File file(P("f"), O_RDWR);
  ASSERT_OK(Lock(file, F_WRLCK, 5, 10));
  pid_t parent = getpid();
  EXPECT_EQ(Child([&] {
              int fd = open(P("f").c_str(), O_RDWR);
              struct flock lock {};
              lock.l_type = F_WRLCK;
              lock.l_whence = SEEK_SET;
              lock.l_len = 100;
              if (fcntl(fd, F_GETLK, &lock) != 0) return errno;
              if (lock.l_type != F_WRLCK || lock.l_start != 5 || lock.l_len != 10) return 150;
              if (lock.l_pid != parent) return 151;
              lock.l_type = F_WRLCK, lock.l_whence = SEEK_SET, lock.l_start = 20, lock.l_len = 1;
              if (fcntl(fd, F_GETLK, &lock) != 0) return errno;
              return lock.l_type == F_UNLCK ? 0 : 152;
            }), 0);
}

TEST_F(Locks, ClosingAnyDescriptorReleases) {
  File file(P("f"), O_RDWR);
  ASSERT_OK(Lock(file, F_WRLCK, 0, 0));
  EXPECT_EQ(Other(F_WRLCK, 0, 0), EAGAIN);
  { File another(P("f"), O_RDONLY); }
  EXPECT_EQ(Other(F_WRLCK, 0, 0), 0);
}

TEST_F(Locks, WaitingEndsWhenTheHolderIsKilled) {
  int ready[2];
  ASSERT_OK(pipe(ready));
  pid_t holder = fork();
  if (holder == 0) {
    int fd = open(P("f").c_str(), O_RDWR);
    if (Lock(fd, F_WRLCK, 0, 0) != 0) _exit(1);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char c;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  int waiting[2];
  ASSERT_OK(pipe(waiting));
  pid_t waiter = fork();
  if (waiter == 0) {
    int fd = open(P("f").c_str(), O_RDWR);
    if (write(waiting[1], "x", 1) != 1) _exit(1);
    _exit(ErrnoOf(Lock(fd, F_WRLCK, 0, 0, F_SETLKW)));
  }
  ASSERT_EQ(read(waiting[0], &c, 1), 1);
  usleep(200000);
  EXPECT_EQ(waitpid(waiter, nullptr, WNOHANG), 0);  // it waits
  kill(holder, SIGKILL);
  int status = -1;
  ASSERT_EQ(waitpid(holder, &status, 0), holder);
  ASSERT_EQ(waitpid(waiter, &status, 0), waiter);
  EXPECT_EQ(status, 0);
  for (int fd : {ready[0], ready[1], waiting[0], waiting[1]}) close(fd);
}

TEST_F(Locks, WaitingIsInterruptedByASignal) {
  File file(P("f"), O_RDWR);
  ASSERT_OK(Lock(file, F_WRLCK, 0, 0));
  int error = Child([&] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGALRM, &action, nullptr);
    int fd = open(P("f").c_str(), O_RDWR);
    ualarm(300000, 0);
    return ErrnoOf(Lock(fd, F_WRLCK, 0, 0, F_SETLKW));
  });
  EXPECT_EQ(error, EINTR);
  ASSERT_OK(Lock(file, F_UNLCK, 0, 0));
  EXPECT_EQ(Other(F_WRLCK, 0, 0), 0);  // the interrupted wait left nothing
}

TEST_F(Locks, FlockBelongsToTheOpenFile) {
  File one(P("f"), O_RDWR);
  File two(P("f"), O_RDWR);
  ASSERT_OK(flock(one, LOCK_EX));
  EXPECT_ERRNO(flock(two, LOCK_SH | LOCK_NB), EWOULDBLOCK);
  int copy = dup(one);
  ASSERT_OK(one.Close());
  EXPECT_ERRNO(flock(two, LOCK_SH | LOCK_NB), EWOULDBLOCK);  // the copy holds it
  close(copy);
  // The last close releases; FUSE does that in the background.
  int tries = 0;
  while (flock(two, LOCK_SH | LOCK_NB) != 0 && ++tries < 100) usleep(20000);
  EXPECT_LT(tries, 100);
  EXPECT_EQ(OtherFlock(LOCK_SH), 0);
  EXPECT_EQ(OtherFlock(LOCK_EX), EWOULDBLOCK);
  ASSERT_OK(flock(two, LOCK_UN));
  EXPECT_EQ(OtherFlock(LOCK_EX), 0);
}

TEST_F(Locks, FlockWaits) {
  File file(P("f"), O_RDWR);
  ASSERT_OK(flock(file, LOCK_EX));
  pid_t waiter = fork();
  if (waiter == 0) {
    int fd = open(P("f").c_str(), O_RDWR);
    _exit(ErrnoOf(flock(fd, LOCK_EX)));
  }
  usleep(200000);
  EXPECT_EQ(waitpid(waiter, nullptr, WNOHANG), 0);
  ASSERT_OK(flock(file, LOCK_UN));
  int status = -1;
  ASSERT_EQ(waitpid(waiter, &status, 0), waiter);
  EXPECT_EQ(status, 0);
}

TEST_F(Locks, FlockAndFcntlDoNotMeet) {
  File file(P("f"), O_RDWR);
  ASSERT_OK(flock(file, LOCK_EX));
  EXPECT_EQ(Other(F_WRLCK, 0, 0), 0);
}

TEST_F(Locks, DeadlockIsToldOrInterrupted) {
  if (!OnShoal()) GTEST_SKIP() << "the kernel's own deadlock detection is not what is tested";
  // Two processes that wait for each other must at least be killable.
  File file(P("f"), O_RDWR);
  ASSERT_OK(Lock(file, F_WRLCK, 0, 1));
  pid_t child = fork();
  if (child == 0) {
    int fd = open(P("f").c_str(), O_RDWR);
    if (Lock(fd, F_WRLCK, 1, 1) != 0) _exit(1);
    _exit(ErrnoOf(Lock(fd, F_WRLCK, 0, 1, F_SETLKW)));
  }
  usleep(200000);
  kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  int tries = 0;  // what the dead process held is released
  while (Lock(file, F_WRLCK, 1, 1) != 0 && ++tries < 100) usleep(20000);
  EXPECT_LT(tries, 100);
}

}  // namespace
}  // namespace shoal::posix_test
