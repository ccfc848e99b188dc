// The kernel's table of mounts, and how one is taken away. Nothing here touches the mounted file system itself, which
// may not answer.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace shoal::fuse {

// One line of /proc/self/mountinfo. A plain value.
struct MountEntry {
  std::string device;  // "MAJOR:MINOR", its st_dev
  std::string mountpoint;
  std::string type;
  std::string source;

  bool is_shoal() const { return type == "fuse.shoal"; }
};

std::vector<MountEntry> ParseMountInfo(std::string_view text);
std::vector<MountEntry> ReadMountTable();
// The topmost mount on exactly this directory.
std::optional<MountEntry> FindMount(std::string_view mountpoint);

// Whether the mount's server has died (ENOTCONN).
bool IsDeadMount(const std::string& path);
// The path without symlinks, relative parts and doubled slashes; its last component need not answer.
Result<std::string> AbsolutePath(const std::string& path);

// Takes the mount away, as root by umount2(2), else by fusermount3. `lazy`: detaches a busy one. kBusy when it is.
Status TakeMountAway(const std::string& mountpoint, bool lazy);
// A process that keeps a mount busy. A plain value.
struct MountUser {
  int pid = 0;
  std::string name;
  bool only_directory = false;  // by nothing but its working directory
};
// The processes with open files, a working directory or their program in the mount, as far as they can be seen; not this
// one.
std::vector<MountUser> UsersOfMount(const MountEntry& mount);
// "vim (90), bash (812)", and what to do where one of them is a shell that this process was started from.
std::string Describe(const std::vector<MountUser>& users);

}  // namespace shoal::fuse
