// FuseSession: the connection to the kernel. Reads its requests on the loop that also holds the connections to the
// servers, so that no request changes threads.
#pragma once

#include <functional>
#include <string>

#include "common/result.h"
#include "fuse/mount_fs.h"

struct fuse_session;

namespace shoal::fuse {

// One /dev/fuse descriptor and libfuse's session on it. Owner: the mount's main function; made, used and destroyed on
// the loop; MountFs outlives it. Errors: Mount says what was wrong with the mount point or the options.
class FuseSession {
 public:
  explicit FuseSession(MountFs& fs) : fs_(fs) {}
  ~FuseSession();
  FuseSession(const FuseSession&) = delete;
  FuseSession& operator=(const FuseSession&) = delete;

  // Mounts and begins to serve. `on_ready` is called when the kernel and the mount have agreed (INIT is answered),
  // `on_end` once, when the file system was unmounted or the connection was cut.
  Status Mount(Callback on_ready, Callback on_end);
  bool mounted() const { return fd_ >= 0; }
  bool ended() const { return ended_; }
  // Lets go of the descriptor: the kernel ends the connection if it still stands, every waiting process gets
  // ENOTCONN, and answers go nowhere. The session stays valid for requests that are still being worked on.
  void Cut();

 private:
  bool Poll();
  void End();

  MountFs& fs_;
  fuse_session* session_ = nullptr;
  int fd_ = -1;
  bool ready_told_ = false;
  bool ended_ = false;
  Callback on_ready_;
  Callback on_end_;
};

// The words of -o for the kernel and fusermount3.
std::string KernelOptions(const MountOptions& options, bool root);

}  // namespace shoal::fuse
