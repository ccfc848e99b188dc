#include "tests/cluster/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
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

}  // namespace

std::unique_ptr<Process> Process::Start(const std::vector<std::string>& command, const std::string& directory, uid_t uid) {
  std::unique_ptr<Process> process(new Process());
  process->out_ = TemporaryFile();
  process->err_ = TemporaryFile();
  std::vector<char*> arguments;
  for (const std::string& a : command) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  process->pid_ = fork();
  if (process->pid_ == 0) {
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(process->out_, 1);
    dup2(process->err_, 2);
    if (!directory.empty() && chdir(directory.c_str()) != 0) _exit(126);
    if (uid != 0 && setresuid(uid, uid, uid) != 0) _exit(126);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
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
  if (!reaped_ && waitpid(pid_, &status_, WNOHANG) == pid_) reaped_ = true;
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
  } else {
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
