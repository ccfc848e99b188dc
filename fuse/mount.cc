// The body of `shoal mount`: checks, the daemon, and what the command waits for.
#include "fuse/mount.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "common/daemon/daemon.h"
#include "common/log.h"
#include "fuse/mount_process.h"
#include "fuse/mount_table.h"

namespace shoal::fuse {
namespace {

constexpr int kHintAfterMs = 3000;

std::string Absolute(const std::string& path) {
  if (path.empty() || path.starts_with('/')) return path;
  std::error_code ignore;
  return std::filesystem::absolute(path, ignore).lexically_normal().string();
}

Status CheckMountpoint(MountOptions& options) {
  TRY_ASSIGN(options.mountpoint, AbsolutePath(options.mountpoint));
  const std::string& where = options.mountpoint;
  if (IsDeadMount(where)) {
    auto mount = FindMount(where);
    if (mount && mount->is_shoal()) {
      std::fprintf(stderr, "removing a dead mount from %s\n", where.c_str());
      TRY(TakeMountAway(where, true));
    }
  }
  struct stat st;
  if (stat(where.c_str(), &st) != 0) {
    int error = errno;
    std::string next = error == ENOENT ? "; create it with mkdir -p" : "";
    return Fail(ErrorFromErrno(error), "mount point " + where + ": " + std::strerror(error) + next);
  }
  if (!S_ISDIR(st.st_mode)) return Fail(ErrorCode::kNotDirectory, "mount point " + where + " is no directory");
  auto mount = FindMount(where);
  if (mount && mount->is_shoal()) {
    return Fail(ErrorCode::kBusy, where + " is already a mount of Shoal (" + mount->source +
                                      "); unmount it first with `shoal umount " + where + "`");
  }
  return {};
}

Result<MountOptions> Prepare(const MountOptions& given) {
  MountOptions options = given;
  if (options.meta.empty()) {
    return Fail(ErrorCode::kInvalidArgument,
                "no metaserver is named: write HOST[:PORT] before the mount point, or meta= in /etc/shoal/client.conf");
  }
  if (options.key_file.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "no key file is named: set key= in the client configuration");
  }
  TRY(CheckMountpoint(options));
  options.key_file = Absolute(options.key_file);
  options.config = Absolute(options.config);
  options.log_file = Absolute(options.log_file);
  options.pid_file = Absolute(options.pid_file);
  TRY(ClusterKey::Load(options.key_file));
  return options;
}

Result<PidFile> TakePidFile(const std::string& path) {
  if (path.empty()) return PidFile();
  return PidFile::Take(path);
}

// A daemon's log; without any it runs all the same.
Status StartDaemonLog(const MountOptions& options) {
  if (!options.log_file.empty()) return StartLog({options.log_file, options.log_level});
  std::string path = DefaultMountLog(options.mountpoint, geteuid() == 0);
  std::error_code ignore;
  if (!path.empty()) std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignore);
  if (!path.empty() && StartLog({path, options.log_level})) return {};
  return StartLog({"/dev/null", options.log_level});
}

void LeaveTerminal() {
  int null = open("/dev/null", O_RDWR);
  for (int fd : {0, 1, 2}) dup2(null, fd);
  if (null > 2) close(null);
}

// What the daemon tells the command: the number of the error code (0: usable), a blank, its message.
void Tell(int socket, const Status& status) {
  std::string text = status ? "0 " : std::to_string(static_cast<uint32_t>(status.error().code)) + " " + status.error().message;
  ssize_t ignored = send(socket, text.data(), text.size(), MSG_NOSIGNAL);
  static_cast<void>(ignored);
}

[[noreturn]] void RunDaemon(const MountOptions& options, int socket) {
  setsid();
  if (chdir("/") != 0) _exit(1);
  Status log = StartDaemonLog(options);
  if (!log) {
    Tell(socket, log);
    _exit(1);
  }
  bool usable = false;
  Status result;
  if (auto pid_file = TakePidFile(options.pid_file); !pid_file) {
    result = Fail(std::move(pid_file).error());
  } else {
    auto on_usable = [&] {
      usable = true;
      LeaveTerminal();
      Tell(socket, {});
      shutdown(socket, SHUT_RDWR);
    };
    result = MountProcess(options, on_usable, socket).Run();
  }
  if (!usable) Tell(socket, result ? Fail(ErrorCode::kInternal, "the mount ended before it was usable") : result);
  std::fflush(nullptr);
  _exit(result ? 0 : 1);
}

std::string AddressList(const MountOptions& options) {
  std::string text;
  for (const Address& address : options.meta) text += (text.empty() ? "" : ", ") + address.ToString();
  return text;
}

// Waits for what the daemon tells.
Status WaitForDaemon(const MountOptions& options, int socket, pid_t child) {
  std::string text;
  bool hinted = false;
  for (;;) {
    pollfd wanted{socket, POLLIN, 0};
    int n = poll(&wanted, 1, hinted ? -1 : kHintAfterMs);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) {
      hinted = true;
      auto seconds = std::chrono::duration_cast<std::chrono::seconds>(options.timeout).count();
      std::fprintf(stderr, "waiting for the metaserver at %s (up to %lld s; Ctrl-C gives up)\n",
                   AddressList(options).c_str(), static_cast<long long>(seconds));
      continue;
    }
    char part[1024];
    ssize_t got = recv(socket, part, sizeof part, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(part, static_cast<size_t>(got));
    if (text.starts_with("0 ")) return {};
  }
  int status = 0;
  waitpid(child, &status, 0);
  size_t blank = text.find(' ');
  if (blank == text.npos) {
    return Fail(ErrorCode::kInternal, "the mount's process ended unexpectedly (status " + std::to_string(status) +
                                          "); run it with -f to see why");
  }
  auto code = ErrorFromWire(static_cast<uint32_t>(std::strtoul(text.c_str(), nullptr, 10)));
  return Fail(code, text.substr(blank + 1));
}

Status RunInForeground(const MountOptions& options) {
  TRY(StartLog({options.log_file, options.log_level}));
  TRY_ASSIGN(PidFile pid_file, TakePidFile(options.pid_file));
  return MountProcess(options, [] {}, -1).Run();
}

}  // namespace

Status RunMount(const MountOptions& given) {
  TRY_ASSIGN(MountOptions options, Prepare(given));
  if (options.foreground) return RunInForeground(options);
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) return Fail(ErrnoError(errno, "socketpair"));
  std::fflush(nullptr);
  pid_t child = fork();
  if (child < 0) return Fail(ErrnoError(errno, "fork"));
  if (child == 0) {
    close(sockets[0]);
    RunDaemon(options, sockets[1]);
  }
  close(sockets[1]);
  Status status = WaitForDaemon(options, sockets[0], child);
  close(sockets[0]);
  return status;
}

}  // namespace shoal::fuse
