// shoal umount DIR: unmounts, and waits until everything has been written out.
#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "fuse/mount.h"
#include "tools/cli/command.h"

namespace shoal::cli {

int RunUmount(const Arguments& arguments) {
  Command command("umount", "Unmounts, and waits until the mount has written out what it has gathered.");
  fuse::UnmountOptions options;
  std::string path;
  command.options().Flag("force", &options.force, "Detach even if programs use it; their open files fail later");
  command.options().Time("timeout", &options.timeout, "How long to wait for the mount's process to end");
  command.options().Argument("DIR", &path, "The mount", true);
  if (auto exit = command.Parse(arguments)) return *exit;
  path = AbsolutePath(path);
  if (Status status = fuse::Unmount(path, options); !status) {
    return command.Fail(status.error(), status.error().code == ErrorCode::kBusy ? "end those programs, or detach it: shoal umount --force " + path
                                                                                : "mount -t fuse.shoal lists the mounts");
  }
  return command.Answer({{"mountpoint", path}}, "");
}

}  // namespace shoal::cli
