#include "common/daemon/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace shoal {
namespace {

constexpr char kReady = 'R';
constexpr char kFailed = 'F';

pid_t ReadPid(int fd) {
  char text[32] = {};
  if (pread(fd, text, sizeof text - 1, 0) <= 0) return 0;
  return static_cast<pid_t>(strtol(text, nullptr, 10));
}

// In the process that was started: waits for the daemon's word and ends.
[[noreturn]] void AwaitDaemon(const std::string& program, int pipe) {
  std::string said;
  char bytes[512];
  for (;;) {
    ssize_t n = read(pipe, bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    said.append(bytes, n);
    if (said[0] == kReady) _exit(0);
  }
  if (said.empty()) fmt::print(stderr, "{}: it died while it started; see its log\n", program);
  if (said.size() > 1) fmt::print(stderr, "{}: {}\n", program, said.substr(1));
  fflush(stderr);
  _exit(1);
}

}  // namespace

Result<PidFile> PidFile::Take(const std::string& path) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    PidFile file;
    file.fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file.fd_ < 0) return Fail(ErrnoError(errno, "can't write the pid file " + path));
    if (flock(file.fd_, LOCK_EX | LOCK_NB) != 0) {
      return Fail(ErrorCode::kBusy, fmt::format("{} is held by process {}, which runs already", path, ReadPid(file.fd_)));
    }
    // Its last holder may have removed the file between our open and our lock.
    struct stat opened, there;
    if (fstat(file.fd_, &opened) != 0 || stat(path.c_str(), &there) != 0 || opened.st_ino != there.st_ino) continue;
    std::string text = fmt::format("{}\n", getpid());
    if (ftruncate(file.fd_, 0) != 0 || pwrite(file.fd_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
      return Fail(ErrnoError(errno, "can't write the pid file " + path));
    }
    file.path_ = path;
    return file;
  }
  return Fail(ErrorCode::kBusy, path + " is made and removed all the time by others");
}

std::optional<pid_t> PidFile::Holder(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  bool free = flock(fd, LOCK_SH | LOCK_NB) == 0;
  pid_t pid = free ? 0 : ReadPid(fd);
  close(fd);
  if (pid <= 0) return std::nullopt;
  return pid;
}

PidFile::PidFile(PidFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {
  other.path_.clear();
}
PidFile& PidFile::operator=(PidFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}
PidFile::~PidFile() {
  if (!path_.empty()) unlink(path_.c_str());
  if (fd_ >= 0) close(fd_);
}

Result<std::unique_ptr<Daemon>> Daemon::Start(const std::string& program, bool foreground) {
  if (foreground) return std::unique_ptr<Daemon>(new Daemon(program, -1));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Fail(ErrnoError(errno, "pipe"));
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) return Fail(ErrnoError(errno, "fork"));
  if (child > 0) {
    close(ends[1]);
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
    AwaitDaemon(program, ends[0]);
  }
  close(ends[0]);
  setsid();
  if (fork() != 0) _exit(0);  // the daemon is not the session's leader, and never gets a terminal
  umask(022);
  if (chdir("/") != 0) return Fail(ErrnoError(errno, "chdir /"));
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) {
    dup2(null, 0);
    dup2(null, 1);
    close(null);
  }
  return std::unique_ptr<Daemon>(new Daemon(program, ends[1]));
}

Daemon::~Daemon() {
  if (pipe_ >= 0) close(pipe_);
}

void Daemon::RedirectStderr(const std::string& path) {
  int fd = path.empty() ? open("/dev/null", O_RDWR | O_CLOEXEC)
                        : open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return;
  dup2(fd, 2);
  close(fd);
}

void Daemon::Ready(const std::string& stderr_file) {
  if (pipe_ < 0) return;
  RedirectStderr(stderr_file);
  [[maybe_unused]] ssize_t n = write(pipe_, &kReady, 1);
  close(std::exchange(pipe_, -1));
}

int Daemon::Failed(const Error& error) {
  if (pipe_ < 0) {
    fmt::print(stderr, "{}: {}\n", program_, error.message);
    return 1;
  }
  std::string text = kFailed + error.message;
  [[maybe_unused]] ssize_t n = write(pipe_, text.data(), text.size());
  close(std::exchange(pipe_, -1));
  return 1;
}

Signals::Signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, s);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  CHECK(fd_ >= 0);
}

Signals::~Signals() { close(fd_); }

void Signals::Attach(EventLoop& loop, std::function<void(int)> stop, std::function<void()> reload) {
  loop.WatchReadable(fd_, [fd = fd_, stop = std::move(stop), reload = std::move(reload)] {
    signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGHUP) {
        reload();
      } else {
        stop(static_cast<int>(info.ssi_signo));
      }
    }
  });
}

}  // namespace shoal
