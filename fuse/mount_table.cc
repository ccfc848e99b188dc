#include "fuse/mount_table.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

extern char** environ;

namespace shoal::fuse {
namespace {

// Blanks, tabs, newlines and backslashes stand in the table as \ooo.
std::string Unescape(std::string_view word) {
  auto octal = [&](size_t i) { return i < word.size() && word[i] >= '0' && word[i] <= '7'; };
  std::string out;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] == '\\' && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      out += static_cast<char>((word[i + 1] - '0') * 64 + (word[i + 2] - '0') * 8 + (word[i + 3] - '0'));
      i += 3;
    } else {
      out += word[i];
    }
  }
  return out;
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Runs fusermount3; its words on standard error become the error.
Status RunFusermount(const std::string& mountpoint, bool lazy) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return Fail(ErrnoError(errno, "pipe"));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 2);
  std::string program = "fusermount3", unmount = "-u", detach = "-z", end = "--", where = mountpoint;
  std::vector<char*> argv{program.data(), unmount.data()};
  if (lazy) argv.push_back(detach.data());
  argv.insert(argv.end(), {end.data(), where.data(), nullptr});
  pid_t child = 0;
  int error = posix_spawnp(&child, "fusermount3", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_fds[1]);
  std::string said;
  char part[512];
  for (ssize_t n; !error && (n = read(pipe_fds[0], part, sizeof part)) > 0;) said.append(part, static_cast<size_t>(n));
  close(pipe_fds[0]);
  if (error) return Fail(ErrnoError(error, "fusermount3 (install the package fuse3)"));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  while (!said.empty() && said.back() == '\n') said.pop_back();
  bool busy = said.find("busy") != said.npos;
  return Fail(busy ? ErrorCode::kBusy : ErrorCode::kNotPermitted, said.empty() ? "fusermount3 failed" : said);
}

}  // namespace

std::vector<MountEntry> ParseMountInfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  for (size_t from = 0; from < text.size();) {
    size_t end = std::min(text.find('\n', from), text.size());
    std::string_view line = text.substr(from, end - from);
    from = end + 1;
    std::vector<std::string_view> words;
    for (size_t at = 0; at < line.size();) {
      size_t blank = std::min(line.find(' ', at), line.size());
      words.push_back(line.substr(at, blank - at));
      at = blank + 1;
    }
    size_t dash = 6;  // after the optional fields
    while (dash < words.size() && words[dash] != "-") ++dash;
    if (dash + 2 >= words.size()) continue;
    mounts.push_back({std::string(words[2]), Unescape(words[4]), std::string(words[dash + 1]), Unescape(words[dash + 2])});
  }
  return mounts;
}

std::vector<MountEntry> ReadMountTable() { return ParseMountInfo(ReadAll("/proc/self/mountinfo")); }

std::optional<MountEntry> FindMount(std::string_view mountpoint) {
  std::vector<MountEntry> mounts = ReadMountTable();
  for (auto it = mounts.rbegin(); it != mounts.rend(); ++it) {
    if (it->mountpoint == mountpoint) return *it;
  }
  return std::nullopt;
}

bool IsDeadMount(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) != 0 && errno == ENOTCONN;
}

Result<std::string> AbsolutePath(const std::string& path) {
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.ends_with('/')) trimmed.pop_back();
  size_t slash = trimmed.rfind('/');
  std::string parent = slash == trimmed.npos ? "." : slash == 0 ? "/" : trimmed.substr(0, slash);
  std::string last = slash == trimmed.npos ? trimmed : trimmed.substr(slash + 1);
  if (last.empty() || last == "." || last == "..") parent = trimmed, last.clear();
  char* real = realpath(parent.c_str(), nullptr);
  if (!real) return Fail(ErrnoError(errno, parent));
  std::string result(real);
  std::free(real);
  if (last.empty()) return result;
  if (!result.ends_with('/')) result += '/';
  result += last;
  char link[PATH_MAX];
  ssize_t n = readlink(result.c_str(), link, sizeof link);
  if (n > 0) {
    real = realpath(result.c_str(), nullptr);
    if (real) result = real;
    std::free(real);
  }
  return result;
}

Status TakeMountAway(const std::string& mountpoint, bool lazy) {
  if (geteuid() != 0) return RunFusermount(mountpoint, lazy);
  if (umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0) return {};
  int error = errno;
  return Fail(error == EBUSY ? ErrorCode::kBusy : ErrorFromErrno(error), mountpoint + ": " + std::strerror(error));
}

namespace {

// The parents of this process, the nearest first.
std::vector<int> Ancestors() {
  std::vector<int> pids;
  for (int pid = getppid(); pid > 1 && pids.size() < 64;) {
    pids.push_back(pid);
    std::string stat = ReadAll("/proc/" + std::to_string(pid) + "/stat");  // "PID (NAME) STATE PPID ..."
    size_t paren = stat.rfind(')');
    if (paren == stat.npos || paren + 4 >= stat.size()) break;
    pid = std::atoi(stat.c_str() + paren + 4);
  }
  return pids;
}

}  // namespace

std::vector<MountUser> UsersOfMount(const MountEntry& mount) {
  namespace fs = std::filesystem;
  std::vector<MountUser> users;
  std::error_code ignore;
  std::string prefix = mount.mountpoint + "/";
  auto inside = [&](const fs::path& link) {
    std::string target = fs::read_symlink(link, ignore).string();
    return target == mount.mountpoint || target.starts_with(prefix);
  };
  for (const auto& process : fs::directory_iterator("/proc", ignore)) {
    std::string pid = process.path().filename();
    if (pid.find_first_not_of("0123456789") != pid.npos || std::atoi(pid.c_str()) == getpid()) continue;
    bool directory = inside(process.path() / "cwd");
    bool more = inside(process.path() / "root") || inside(process.path() / "exe");
    for (const auto& file : fs::directory_iterator(process.path() / "fd", ignore)) more = more || inside(file.path());
    if (!directory && !more) continue;
    std::string name = ReadAll(process.path() / "comm");
    if (name.ends_with('\n')) name.pop_back();
    users.push_back({std::atoi(pid.c_str()), std::move(name), !more});
  }
  return users;
}

std::string Describe(const std::vector<MountUser>& users) {
  std::string text, shell;
  std::vector<int> ancestors = Ancestors();
  for (const MountUser& user : users) {
    std::string one = user.name + " (" + std::to_string(user.pid) + ")";
    text += (text.empty() ? "" : ", ") + one;
    bool ours = std::find(ancestors.begin(), ancestors.end(), user.pid) != ancestors.end();
    if (ours && user.only_directory) shell += (shell.empty() ? "" : " and ") + one;
  }
  if (shell.empty()) return text;
  return text + "; this command was started from " + shell + ", whose working directory is inside: cd out of it";
}

}  // namespace shoal::fuse
