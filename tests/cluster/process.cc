#include "tests/cluster/process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace shoal::test {
namespace {

int TemporaryFile() {
  char name[] = "/tmp/shoal-test-out-XXXXXX";
  int fd = mkostemp(name, O_CLOEXEC);
  unlink(name);
  return fd;
}

std::string Contents(int fd) {
  std::string text;
  char bytes[4096];
  off_t at = 0;
  for (ssize_t n; (n = pread(fd, bytes, sizeof bytes, at)) > 0; at += n) text.append(bytes, n);
  return text;
}

// What is to be run, as it goes to the launcher: each word with its NUL.
struct Order {
  uid_t uid;
  uint32_t words;  // the directory ("": the test's) and the command
  char text[64 << 10];
};

// Runs programs for the test from a process that was made before the test had opened anything. A child of the test
// itself would have the test's open files until it executes its program, and closing one that lies in a mount waits for
// the cluster: a program that is to start the cluster again would wait for itself. One, made before main().
class Launcher {
 public:
  Launcher() {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_) != 0) throw std::runtime_error("socketpair");
    pid_t test = getpid();
    if (fork() != 0) {
      close(ends_[1]);
      return;
    }
    close(ends_[0]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != test) _exit(0);
    for (;;) Serve();
  }
  ~Launcher() { close(ends_[0]); }

  // The number of the new process, a child of the test; -1: it could not be made.
  pid_t Run(const std::vector<std::string>& command, const std::string& directory, uid_t uid, int out, int err) {
    std::lock_guard lock(mutex_);
    order_.uid = uid;
    order_.words = static_cast<uint32_t>(command.size() + 1);
    size_t size = 0;
    auto add = [&](const std::string& word) {
      if (size + word.size() >= sizeof order_.text) throw std::length_error("a command longer than 64 KiB");
      memcpy(order_.text + size, word.c_str(), word.size() + 1);
      size += word.size() + 1;
    };
    add(directory);
    for (const std::string& word : command) add(word);
    iovec bytes{&order_, offsetof(Order, text) + size};
    Message message(bytes);
    message.Attach(out, err);
    pid_t pid = -1;
    if (sendmsg(ends_[0], &message.header, MSG_NOSIGNAL) < 0 || recv(ends_[0], &pid, sizeof pid, 0) != sizeof pid) return -1;
    return pid;
  }

 private:
  // A message with two descriptors beside its bytes.
  struct Message {
    explicit Message(iovec& bytes) {
      header.msg_iov = &bytes;
      header.msg_iovlen = 1;
      header.msg_control = control;
      header.msg_controllen = sizeof control;
    }
    void Attach(int out, int err) {
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(2 * sizeof(int));
      int fds[] = {out, err};
      memcpy(CMSG_DATA(rights), fds, sizeof fds);
    }
    msghdr header{};
    alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  };

  void Serve() {
    iovec bytes{&order_, sizeof order_};
    Message message(bytes);
    if (recvmsg(ends_[1], &message.header, MSG_CMSG_CLOEXEC) <= 0) _exit(0);
    int fds[2];
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message.header)), sizeof fds);
    // The test's own child, so that it can wait for it.
    pid_t pid = static_cast<pid_t>(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
    if (pid == 0) Execute(fds[0], fds[1]);
    close(fds[0]);
    close(fds[1]);
    if (send(ends_[1], &pid, sizeof pid, MSG_NOSIGNAL) < 0) _exit(0);
  }

  [[noreturn]] void Execute(int out, int err) {
    prctl(PR_SET_PDEATHSIG, 0);
    dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
    dup2(out, 1);
    dup2(err, 2);
    std::vector<char*> words;
    for (char* at = order_.text; words.size() < order_.words; at += strlen(at) + 1) words.push_back(at);
    words.push_back(nullptr);
    if (*words[0] && chdir(words[0]) != 0) _exit(126);
    uid_t uid = order_.uid;
    if (uid != 0 && setresuid(uid, uid, uid) != 0) _exit(126);
    execvp(words[1], words.data() + 1);
    _exit(127);
  }

  int ends_[2];
  std::mutex mutex_;
  Order order_;
};
Launcher launcher;

}  // namespace

std::unique_ptr<Process> Process::Start(const std::vector<std::string>& command, const std::string& directory, uid_t uid) {
  std::unique_ptr<Process> process(new Process());
  process->out_ = TemporaryFile();
  process->err_ = TemporaryFile();
  process->pid_ = launcher.Run(command, directory, uid, process->out_, process->err_);
  return process;
}

Process::~Process() {
  if (!reaped_ && pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
  }
  close(out_);
  close(err_);
}

bool Process::running() {
  if (!reaped_ && (pid_ < 0 || waitpid(pid_, &status_, WNOHANG) == pid_)) reaped_ = true;
  return !reaped_;
}

void Process::Signal(int signal) const {
  if (!reaped_) kill(pid_, signal);
}

Outcome Process::Wait(Milliseconds limit) {
  auto deadline = Clock::now() + limit;
  bool late = false;
  while (running()) {
    if (Clock::now() > deadline) {
      late = true;
      kill(pid_, SIGKILL);
      waitpid(pid_, &status_, 0);
      reaped_ = true;
      break;
    }
    std::this_thread::sleep_for(Milliseconds(2));
  }
  Outcome outcome{-1, Contents(out_), Contents(err_)};
  if (late) {
    outcome.err += "\n(killed by the test: not done in " + std::to_string(limit.count()) + " ms)";
  } else if (pid_ > 0) {
    outcome.exit = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  return outcome;
}

Outcome RunProgram(const std::vector<std::string>& command, Milliseconds limit, const std::string& directory, uid_t uid) {
  return Process::Start(command, directory, uid)->Wait(limit * kSlowness);
}

Outcome Shell(const std::string& command, Milliseconds limit, const std::string& directory) {
  return RunProgram({"/bin/bash", "-o", "pipefail", "-c", command}, limit, directory);
}

bool Eventually(const std::function<bool()>& condition, Milliseconds limit) {
  auto deadline = Clock::now() + limit * kSlowness;
  do {
    if (condition()) return true;
    std::this_thread::sleep_for(Milliseconds(20));
  } while (Clock::now() < deadline);
  return condition();
}

}  // namespace shoal::test
