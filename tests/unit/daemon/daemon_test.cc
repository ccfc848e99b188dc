#include "common/daemon/daemon.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

namespace shoal {
namespace {

// A directory of its own for each test. One thread.
class DaemonTest : public testing::Test {
 protected:
  DaemonTest() {
    char name[] = "/tmp/shoal-daemon-XXXXXX";
    dir_ = mkdtemp(name);
  }
  ~DaemonTest() override {
    unlink((dir_ + "/pid").c_str());
    unlink((dir_ + "/out").c_str());
    rmdir(dir_.c_str());
  }
  // Runs `body` in a child and gives its exit code.
  template <typename F>
  int InChild(F body) {
    pid_t pid = fork();
    if (pid == 0) _exit(body());
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  std::string dir_;
};

TEST_F(DaemonTest, PidFileNamesItsLivingHolderOnly) {
  std::string path = dir_ + "/pid";
  EXPECT_EQ(PidFile::Holder(path), std::nullopt);
  {
    auto file = PidFile::Take(path);
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ(PidFile::Holder(path), getpid());
    auto second = PidFile::Take(path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kBusy);
    EXPECT_NE(second.error().message.find(std::to_string(getpid())), std::string::npos);
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  // One that was left behind by a killed process counts for nothing.
  std::ofstream(path) << getppid() << "\n";
  EXPECT_EQ(PidFile::Holder(path), std::nullopt);
  EXPECT_TRUE(PidFile::Take(path));
}

TEST_F(DaemonTest, StartReturnsWhenTheDaemonIsReady) {
  std::string path = dir_ + "/pid";
  int code = InChild([&] {
    auto daemon = Daemon::Start("test", false);  // the starting process ends in here
    if (!daemon) return 77;
    auto file = PidFile::Take(path);
    if (getsid(0) == getpid()) return 78;
    (*daemon)->Ready();
    for (;;) pause();
  });
  EXPECT_EQ(code, 0);
  auto pid = PidFile::Holder(path);
  ASSERT_TRUE(pid);
  EXPECT_NE(getsid(*pid), getsid(0));
  kill(*pid, SIGKILL);
  EXPECT_TRUE(Eventually([&] { return !PidFile::Holder(path); }));
}

TEST_F(DaemonTest, FailureAndDeathAreReported) {
  for (bool dies : {false, true}) {
    std::string out = dir_ + "/out";
    int code = InChild([&] {
      if (!freopen(out.c_str(), "w", stderr)) return 76;
      auto daemon = Daemon::Start("test", false);
      if (!daemon) return 77;
      if (dies) _exit(3);
      return (*daemon)->Failed(Error{ErrorCode::kIo, "the disk said no"});
    });
    EXPECT_EQ(code, 1);
    std::ifstream in(out);
    std::string text((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(text, dies ? "test: it died while it started; see its log\n" : "test: the disk said no\n");
  }
}

TEST_F(DaemonTest, SignalsArriveOnTheLoop) {
  int code = InChild([] {
    Signals signals;
    EventLoop loop("test", Duration::zero());
    int reloads = 0, stopped_by = 0;
    signals.Attach(
        loop,
        [&](int signal) {
          stopped_by = signal;
          loop.Stop();
        },
        [&] {
          ++reloads;
          kill(getpid(), SIGTERM);
        });
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGPIPE);
    loop.Run();
    return reloads == 1 && stopped_by == SIGTERM ? 0 : 1;
  });
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace shoal
