// shoal sync [PATH]: everything acknowledged survives a power cut when this returns.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>

#include "fuse/ioctl.h"
#include "tools/cli/cluster.h"

namespace shoal::cli {
namespace {

// The mount that `path` lies on writes out what it has gathered, and has the cluster sync.
Status SyncThroughMount(const std::string& path) {
  std::string at = path;
  struct stat st;
  if (stat(at.c_str(), &st) != 0) return Fail(ErrnoError(errno, path));
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)) at += "/..";
  int fd = open(at.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return Fail(ErrnoError(errno, path));
  int answer = ioctl(fd, fuse::kIoctlSyncAll, 0);
  int error = errno;
  close(fd);
  if (answer == 0) return {};
  if (error == ENOTTY) return Fail(ErrorCode::kNotFound, path + " does not lie under a Shoal mount");
  return Fail(ErrnoError(error, "sync of " + path));
}

}  // namespace

int RunSync(const Arguments& arguments) {
  Command command("sync", "Makes all that was acknowledged, to anyone, survive a power cut of every machine, and waits for it.");
  ClientSettings settings;
  std::string path;
  settings.patience = 30s;
  settings.Declare(command.options());
  command.options().Argument("PATH", &path, "Under a mount: what that mount has gathered is written out first", false);
  if (auto exit = command.Parse(arguments)) return *exit;
  auto started = std::chrono::steady_clock::now();
  if (!path.empty() && !path.starts_with("shoal:")) {
    if (Status status = SyncThroughMount(path); !status) return command.Fail(status.error(), "shoal status");
  } else {
    auto cluster = Cluster::Connect(settings, "sync", true);
    if (!cluster) return command.Fail(cluster.error());
    client::Cred cred = Cluster::Self();
    Status status = (*cluster)->Run((*cluster)->engine().SyncAll(cred));
    if (!status) return command.Fail(status.error(), "shoal status");
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return command.Answer({{"path", path}, {"took_seconds", seconds}}, fmt::format("synced in {:.3f} s", seconds));
}

}  // namespace shoal::cli
