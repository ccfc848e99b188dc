// The body of `shoal umount`.
#include <unistd.h>

#include <cerrno>

#include "fuse/control.h"
#include "fuse/mount.h"
#include "fuse/mount_table.h"

namespace shoal::fuse {

Status Unmount(const std::string& path, const UnmountOptions& options) {
  TRY_ASSIGN(std::string mountpoint, AbsolutePath(path));
  std::optional<MountEntry> mount = FindMount(mountpoint);
  if (!mount) return Fail(ErrorCode::kNotFound, mountpoint + " is no mount point; see `mount -t fuse.shoal`");
  if (!mount->is_shoal()) {
    return Fail(ErrorCode::kNotFound, mountpoint + " is a mount of " + mount->type + ", not of Shoal");
  }
  // A working directory in the mount would keep it busy. What was relative to it is absolute by now.
  if (chdir("/") != 0) return Fail(ErrnoError(errno, "/"));
  MountWatch process(mount->device);
  Status taken = TakeMountAway(mountpoint, false);
  if (!taken && taken.error().code == ErrorCode::kBusy) {
    std::string users = Describe(UsersOfMount(*mount));
    if (!options.force) return Fail(ErrorCode::kBusy, mountpoint + " is in use" + (users.empty() ? "" : " by " + users));
    TRY(TakeMountAway(mountpoint, true));
    return {};  // its process lives until the last user is gone
  }
  if (!taken) return taken;
  if (!process.WaitForEnd(options.timeout)) {
    return Fail(ErrorCode::kTimeout, mountpoint + " is unmounted, but its process " + std::to_string(process.pid()) +
                                         " is still writing out; see its log");
  }
  return {};
}

}  // namespace shoal::fuse
