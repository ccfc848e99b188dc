// shoal version: of this program, the wire, and the kernel's FUSE.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "fuse/ioctl.h"
#include "tools/cli/command.h"

namespace shoal::cli {

int RunVersion(const Arguments& arguments) {
  Command command("version", "Shows the version of this program and of the kernel; with a mount, of its FUSE protocol.");
  std::string path;
  command.options().Argument("DIR", &path, "A mount: shows what its process negotiated with the kernel", false);
  if (auto exit = command.Parse(arguments)) return *exit;
  utsname kernel{};
  uname(&kernel);
  nlohmann::ordered_json object{{"version", kVersion}, {"kernel", kernel.release}, {"compiler", __VERSION__}};
  std::string text = fmt::format("shoal {}\nkernel {}\ncompiled by g++ {}\n", kVersion, kernel.release, __VERSION__);
  if (!path.empty()) {
    fuse::MountInfo info{};
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool answered = fd >= 0 && ioctl(fd, fuse::kIoctlMountInfo, &info) == 0 && info.magic == fuse::MountInfo::kMagic;
    if (fd >= 0) close(fd);
    if (!answered) return command.Fail(Failure::Of({ErrorCode::kNotFound, path + " does not lie under a Shoal mount"}, "shoal mount --help"));
    object["fuse_protocol"] = fmt::format("7.{}", info.protocol_minor);
    object["mount_pid"] = info.pid;
    object["cluster"] = info.cluster_uuid;
    text += fmt::format("FUSE protocol 7.{} (mount process {})\ncluster {}\n", info.protocol_minor, info.pid, info.cluster_uuid);
  }
  return command.Answer(object, text);
}

}  // namespace shoal::cli
