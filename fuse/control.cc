#include "fuse/control.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace shoal::fuse {
namespace {

socklen_t FillName(sockaddr_un& address, const std::string& device) {
  std::string name = "shoal/mount/" + device;
  address = {};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof address.sun_path - 2);  // begins with NUL: no file
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

}  // namespace

ControlSocket::~ControlSocket() {
  for (int connection : connections_) close(connection);
  if (fd_ >= 0) close(fd_);
}

Status ControlSocket::Listen(EventLoop& loop, const std::string& device) {
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address;
  socklen_t size = FillName(address, device);
  if (fd_ < 0 || bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd_, 16) != 0) {
    return Fail(ErrnoError(errno, "the mount's control socket"));
  }
  loop.WatchReadable(fd_, [this] { Accept(); });
  return {};
}

void ControlSocket::Accept() {
  constexpr size_t kMaxConnections = 64;
  for (int connection; (connection = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
    if (connections_.size() >= kMaxConnections) {
      close(connections_.front());
      connections_.erase(connections_.begin());
    }
    connections_.push_back(connection);
  }
}

MountWatch::MountWatch(const std::string& device) {
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address;
  socklen_t size = FillName(address, device);
  if (fd_ < 0 || connect(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0) {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
    return;
  }
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd_, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.pid <= 0) return;
  pid_ = peer.pid;
  process_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
}

MountWatch::~MountWatch() {
  if (fd_ >= 0) close(fd_);
  if (process_ >= 0) close(process_);
}

bool MountWatch::WaitForEnd(Duration timeout) {
  if (fd_ < 0) return true;
  int end = process_ >= 0 ? process_ : fd_;  // the socket closes a little before its process is gone
  auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd wanted{end, POLLIN, 0};
    int n = poll(&wanted, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (n > 0) return true;
    if (n == 0) return false;
    if (errno != EINTR) return true;
  }
}

}  // namespace shoal::fuse
