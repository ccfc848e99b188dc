#include "tools/cli/dev/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/daemon/daemon.h"

extern char** environ;

namespace shoal::cli::dev {
namespace {

using Clock = std::chrono::steady_clock;

// The environment without Shoal's settings: a cluster's own files say all.
std::vector<char*> CleanEnvironment() {
  std::vector<char*> kept;
  for (char** variable = environ; *variable; ++variable) {
    if (!std::string_view(*variable).starts_with("SHOAL_")) kept.push_back(*variable);
  }
  kept.push_back(nullptr);
  return kept;
}

Result<pid_t> Spawn(const std::vector<std::string>& command, int output) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  posix_spawn_file_actions_adddup2(&actions, output, 2);
  std::vector<char*> arguments;
  for (const std::string& a : command) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  std::vector<char*> environment = CleanEnvironment();
  pid_t pid = 0;
  int error = posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error) return Fail(ErrnoError(error, "can't run " + command[0]));
  return pid;
}

// What the program prints, until it closes its output or the time is over.
std::string ReadOutput(int fd, Clock::time_point deadline) {
  std::string output;
  char bytes[1024];
  for (;;) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd wait{fd, POLLIN, 0};
    if (left <= 0 || poll(&wait, 1, static_cast<int>(std::min<int64_t>(left, 1000))) < 0) break;
    if (wait.revents == 0) continue;
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n <= 0) break;
    output.append(bytes, n);
  }
  while (!output.empty() && output.back() == '\n') output.pop_back();
  return output;
}

// Waits for a child, at most until `deadline`.
std::optional<int> AwaitExit(pid_t pid, Clock::time_point deadline) {
  int status = 0;
  for (;;) {
    pid_t done = waitpid(pid, &status, WNOHANG);
    if (done == pid) return status;
    if (done < 0 && errno != EINTR) return std::nullopt;
    if (Clock::now() > deadline) return std::nullopt;
    std::this_thread::sleep_for(5ms);
  }
}

}  // namespace

std::string Program(const std::string& name) {
  std::error_code error;
  auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? name : (self.parent_path() / name).string();
}

Status RunToReady(const std::vector<std::string>& command, Duration timeout) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Fail(ErrnoError(errno, "pipe"));
  auto pid = Spawn(command, ends[1]);
  close(ends[1]);
  if (!pid) {
    close(ends[0]);
    return Fail(pid.error());
  }
  auto deadline = Clock::now() + timeout;
  std::string output = ReadOutput(ends[0], deadline);
  close(ends[0]);
  auto status = AwaitExit(*pid, deadline);
  if (!status) {
    kill(*pid, SIGTERM);
    return Fail(ErrorCode::kTimeout, fmt::format("{} was not ready in {}", command[0], FormatDuration(timeout)));
  }
  if (WIFEXITED(*status) && WEXITSTATUS(*status) == 0) return {};
  if (output.empty()) output = fmt::format("{} ended with status {}", command[0], *status);
  return Fail(ErrorCode::kInternal, output);
}

std::optional<pid_t> Running(const Layout& layout, const std::string& name) { return PidFile::Holder(layout.PidPath(name)); }

std::string ProcessState(std::optional<pid_t> pid) {
  if (!pid) return "not running";
  std::ifstream in(fmt::format("/proc/{}/stat", *pid));
  std::string text;
  std::getline(in, text);
  size_t paren = text.rfind(')');
  if (paren == text.npos || paren + 2 >= text.size()) return "not running";
  return text[paren + 2] == 'T' || text[paren + 2] == 't' ? "frozen" : "running";
}

bool IsMounted(const std::string& path) {
  std::ifstream in("/proc/self/mountinfo");
  std::string line;
  while (std::getline(in, line)) {
    std::string place;
    size_t at = 0;
    for (int field = 0; field < 4 && at != line.npos; ++field) at = line.find(' ', at) + 1;
    for (; at < line.size() && line[at] != ' '; ++at) {
      if (line[at] == '\\' && at + 3 < line.size()) {  // \040: a space
        place += static_cast<char>(std::stoi(line.substr(at + 1, 3), nullptr, 8));
        at += 3;
      } else {
        place += line[at];
      }
    }
    if (place == path) return true;
  }
  return false;
}

Result<std::vector<std::string>> StartServers(const Layout& layout) {
  std::vector<std::string> started;
  for (const Server& server : layout.Servers()) {
    if (Running(layout, server.name)) continue;
    std::string program = Program(server.name == "metaserver" ? "shoal-metaserver" : "shoal-chunkserver");
    Status status = RunToReady({program, "--daemon", "--config", layout.ConfigPath(server.name)}, 120s);
    if (!status) {
      return Fail(status.error().code, fmt::format("{} does not start: {} (log: {})", server.name, status.error().message,
                                                   layout.LogPath(server.name)));
    }
    started.push_back(server.name);
  }
  return started;
}

Result<bool> StartMount(const Layout& layout) {
  if (layout.mount.empty() || (Running(layout, "mount") && IsMounted(layout.mount))) return false;
  Status status = RunToReady({Program("shoal"), "mount", "--config", layout.ClientConfigPath(), "--pid-file",
                              layout.PidPath("mount"), "--log-file", layout.LogPath("mount"), layout.mount},
                             120s);
  if (!status) return Fail(status.error().code, fmt::format("{} (log: {})", status.error().message, layout.LogPath("mount")));
  return true;
}

Result<bool> EndServer(const Layout& layout, const std::string& name, Duration patience) {
  auto pid = Running(layout, name);
  if (!pid) return false;
  if (kill(*pid, SIGTERM) != 0) return Fail(ErrnoError(errno, fmt::format("can't end {} (process {})", name, *pid)));
  kill(*pid, SIGCONT);  // a frozen one would never see it
  auto deadline = Clock::now() + patience;
  bool killed = false;
  while (Running(layout, name) == pid) {
    if (Clock::now() > deadline) {
      if (killed) return Fail(ErrorCode::kTimeout, fmt::format("{} (process {}) does not end", name, *pid));
      kill(*pid, SIGKILL);
      killed = true;
      deadline = Clock::now() + 10s;
    }
    std::this_thread::sleep_for(10ms);
  }
  return true;
}

}  // namespace shoal::cli::dev
