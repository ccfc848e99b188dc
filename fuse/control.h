// How an unmounting process knows when the mount's own process has finished: an abstract Unix socket named after the
// mount's device number.
#pragma once

#include <string>
#include <vector>

#include "common/event_loop.h"
#include "common/result.h"

namespace shoal::fuse {

// The mount's end. Every connection is kept open until the process ends. Owner: the mount's main function. On its
// loop, which it must not outlive.
class ControlSocket {
 public:
  ControlSocket() = default;
  ~ControlSocket();
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  Status Listen(EventLoop& loop, const std::string& device);

 private:
  void Accept();
  int fd_ = -1;
  std::vector<int> connections_;
};

// The other end: connects to the process that serves the mount on `device`. Any thread. A plain owner of a descriptor.
class MountWatch {
 public:
  explicit MountWatch(const std::string& device);
  ~MountWatch();
  MountWatch(const MountWatch&) = delete;
  MountWatch& operator=(const MountWatch&) = delete;

  bool connected() const { return fd_ >= 0; }
  int pid() const { return pid_; }  // 0: unknown
  // Waits for the end of that process. False: it still lives.
  bool WaitForEnd(Duration timeout);

 private:
  int fd_ = -1;
  int pid_ = 0;
  int process_ = -1;  // a pidfd; -1: the kernel gave none
};

}  // namespace shoal::fuse
