// PATH on the command line: shoal:/a/b, or a local path under a mount, which tells the cluster too.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "common/daemon/server_main.h"
#include "fuse/ioctl.h"
#include "tools/cli/cluster.h"

namespace shoal::cli {
namespace {

// Asks the mount that `path` lies on. Devices, sockets and files one may not read can't be opened: then the nearest
// directory above is asked.
Result<std::unique_ptr<fuse::MountInfo>> AskMount(const std::string& path) {
  auto info = std::make_unique<fuse::MountInfo>();
  std::string at = path;
  for (;;) {
    struct stat st;
    if (lstat(at.c_str(), &st) == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))) {
      int fd = open(at.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
      if (fd >= 0) {
        int answer = ioctl(fd, fuse::kIoctlMountInfo, info.get());
        close(fd);
        if (answer == 0 && info->magic == fuse::MountInfo::kMagic) return info;
        return Fail(ErrorCode::kNotFound, path + " does not lie under a Shoal mount");
      }
    }
    size_t slash = at.rfind('/');
    if (slash == at.npos || at == "/") return Fail(ErrorCode::kNotFound, path + " does not lie under a Shoal mount");
    at = slash == 0 ? "/" : at.substr(0, slash);
  }
}

std::vector<std::string> SplitCommas(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find(',', at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// "/a//b/./c/" -> "a/b/c"; ".." is refused: only the file system knows where it leads.
Result<std::string> CleanPath(const std::string& path) {
  std::string clean;
  for (size_t at = 0; at < path.size();) {
    size_t end = std::min(path.find('/', at), path.size());
    std::string part = path.substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return Fail(ErrorCode::kInvalidArgument, "shoal:" + path + ": write the path without '..'");
    clean += (clean.empty() ? "" : "/") + part;
  }
  return clean;
}

}  // namespace

Result<Target> ResolvePath(const std::string& path, const Options& options, ClientSettings& settings) {
  Target target;
  target.shown = path;
  if (path.starts_with("shoal:")) {
    if (path.size() < 7 || path[6] != '/') {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("'{}': write shoal:/path/in/the/file/system", path));
    }
    TRY_ASSIGN(target.path, CleanPath(path.substr(6)));
    return target;
  }
  std::string absolute = AbsolutePath(path);
  struct stat st;
  if (lstat(absolute.c_str(), &st) != 0) return Fail(ErrnoError(errno, path));
  TRY_ASSIGN(auto info, AskMount(absolute));
  target.is_inode = true;
  target.inode = InodeId{st.st_ino};
  settings.TakeFromConfig(options, SplitCommas(info->meta), info->key_file);
  return target;
}

}  // namespace shoal::cli
