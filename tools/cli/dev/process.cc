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
#include <iterator>
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

// How a program that goes into the background by itself fared. A plain value.
struct Ending {
  std::optional<int> status;  // of waitpid; nothing: still running when the time was over
  std::string output;
};

// Waits for the program's own process to end (what it left in the background may hold its output open for ever).
Ending AwaitEnd(pid_t pid, int output, Patience patience, const std::string& what) {
  Ending ending;
  fcntl(output, F_SETFL, O_NONBLOCK);
  auto drain = [&] {
    char bytes[1024];
    for (ssize_t n; (n = read(output, bytes, sizeof bytes)) > 0;) ending.output.append(bytes, n);
  };
  for (;;) {
    int status = 0;
    pid_t done = waitpid(pid, &status, WNOHANG);
    drain();
    if (done == pid) ending.status = status;
    if (done == pid || (done < 0 && errno != EINTR) || patience.over()) break;
    patience.Say([&] { return what; });
    pollfd wait{output, POLLIN, 0};
    poll(&wait, 1, 5);
    if (wait.revents & POLLHUP) std::this_thread::sleep_for(1ms);
  }
  while (!ending.output.empty() && ending.output.back() == '\n') ending.output.pop_back();
  return ending;
}

}  // namespace

std::string Program(const std::string& name) {
  std::error_code error;
  auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? name : (self.parent_path() / name).string();
}

void Patience::Say(const std::function<std::string()>& what) {
  if (waited() < next_) return;
  auto seconds = std::chrono::duration_cast<std::chrono::seconds>(waited());
  fmt::print(stderr, "waiting for {} ({})\n", what(), FormatDuration(seconds));
  next_ = waited() + 10s;
}

std::string LastLines(const Layout& layout, const std::string& name, size_t lines) {
  std::ifstream in(layout.LogPath(name), std::ios::binary | std::ios::ate);
  auto size = static_cast<std::streamoff>(in.tellg());
  in.seekg(std::max<std::streamoff>(0, size - 8192));
  std::string text{std::istreambuf_iterator<char>(in), {}};
  while (text.ends_with('\n')) text.pop_back();
  size_t at = text.size();
  for (size_t i = 0; i < lines && at != text.npos && at > 0; ++i) at = text.rfind('\n', at - 1);
  return at == text.npos ? text : text.substr(at == 0 ? 0 : at + 1);
}

Status RunToReady(const std::vector<std::string>& command, Duration timeout, const std::string& name, const std::string& log) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Fail(ErrnoError(errno, "pipe"));
  auto pid = Spawn(command, ends[1]);
  close(ends[1]);
  if (!pid) {
    close(ends[0]);
    return Fail(pid.error());
  }
  Ending ending = AwaitEnd(*pid, ends[0], Patience(timeout), fmt::format("{} to be ready; its log is {}", name, log));
  close(ends[0]);
  if (!ending.status) {
    kill(*pid, SIGTERM);
    return Fail(ErrorCode::kTimeout, fmt::format("{} was not ready in {}", command[0], FormatDuration(timeout)));
  }
  if (WIFEXITED(*ending.status) && WEXITSTATUS(*ending.status) == 0) return {};
  if (ending.output.empty()) ending.output = fmt::format("{} ended with status {}", command[0], *ending.status);
  return Fail(ErrorCode::kInternal, ending.output);
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
    Status status = RunToReady({program, "--daemon", "--config", layout.ConfigPath(server.name)}, 120s, server.name,
                               layout.LogPath(server.name));
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
                             120s, "the mount", layout.LogPath("mount"));
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
