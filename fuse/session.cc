#include "fuse/session.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/limits.h"
#include "common/log.h"
#include "fuse/fuse_api.h"
#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

// libfuse reads up to 256 pages and a page of headers.
constexpr size_t kRequestBuffer = kMaxIo + 4096;
constexpr int kRequestsAtOnce = 16;  // read in one round of the loop
constexpr uint32_t kMinimumMinor = 36;  // Linux 6.1 speaks 7.37; INIT_EXT came with 7.36
// Newer than the headers that Debian 12 compiles with.
constexpr uint64_t kDirectIoAllowMmap = 1ull << 36;

// These two stand between libfuse 3.14 and the descriptor, for what it doesn't know: they set flags in the answer to
// INIT, above all HANDLE_KILLPRIV_V2, without which the kernel asks for security.capability before every write(2).
ssize_t ReadRequest(int fd, void* buffer, size_t size, void* data) {
  Wire& wire = static_cast<MountFs*>(data)->wire();
  ssize_t n = read(fd, buffer, std::min(size, kRequestBuffer));
  wire.size = n > 0 ? static_cast<size_t>(n) : 0;
  if (n > 0 && wire.opcode() == FUSE_INIT) {
    auto* in = static_cast<const fuse_in_header*>(buffer);
    auto* init = reinterpret_cast<const fuse_init_in*>(in + 1);
    wire.init_unique = in->unique;
    wire.kernel_minor = init->minor;
    wire.init_flags = init->flags;
    if (init->flags & FUSE_INIT_EXT) wire.init_flags |= uint64_t{init->flags2} << 32;
  }
  return n;
}

ssize_t WriteAnswer(int fd, iovec* parts, int count, void* data) {
  Wire& wire = static_cast<MountFs*>(data)->wire();
  if (wire.init_unique && count == 2 && static_cast<fuse_out_header*>(parts[0].iov_base)->unique == wire.init_unique) {
    auto* out = static_cast<fuse_init_out*>(parts[1].iov_base);
    uint64_t more = wire.init_flags & (FUSE_HANDLE_KILLPRIV_V2 | kDirectIoAllowMmap);
    out->flags |= static_cast<uint32_t>(more);
    if (wire.init_flags & FUSE_INIT_EXT) {
      out->flags |= FUSE_INIT_EXT;
      out->flags2 |= static_cast<uint32_t>(more >> 32);
    }
    wire.answer_flags = out->flags | uint64_t{out->flags2} << 32;
    wire.init_unique = 0;
    wire.ready = true;
  }
  ssize_t n = writev(fd, parts, count);
  // Every answer goes as a whole or not at all; ENOENT: the request is gone (its caller was killed).
  return n;
}

// Commas and backslashes inside a word of -o.
std::string Escape(std::string_view word) {
  std::string out;
  for (char c : word) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string SourceText(const MountOptions& options) {
  std::string text;
  for (const Address& address : options.meta) {
    if (!text.empty()) text += ',';
    text += address.ToString();
  }
  return options.subdir.empty() ? text : text + ":" + options.subdir;
}

}  // namespace

std::string KernelOptions(const MountOptions& options, bool root) {
  std::string words = "subtype=shoal,default_permissions,fsname=" + Escape(SourceText(options));
  if (options.allow_other.value_or(root)) words += ",allow_other";
  if (options.read_only) words += ",ro";
  if (options.noatime) words += ",noatime";
  if (options.suid) words += ",suid";
  if (options.dev) words += ",dev";
  if (options.noexec) words += ",noexec";
  return words;
}

void InitHandler(void* data, fuse_conn_info* connection) {
  auto* fs = static_cast<MountFs*>(data);
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ |
                                             FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
  connection->want |= connection->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_READ |
                                             FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPORT_SUPPORT |
                                             FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_IOCTL_DIR |
                                             FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_ASYNC_DIO);
  connection->max_write = kMaxIo;
  connection->max_readahead = std::max<uint32_t>(fs->options().read_ahead_kib * 1024, 128 << 10);
  connection->max_background = 128;
  connection->congestion_threshold = 96;
  if (connection->proto_minor < kMinimumMinor) {
    LogWarning("the kernel speaks FUSE 7.{}; Shoal is made for Linux 6.1 (7.37) and newer", connection->proto_minor);
  }
}

FuseSession::~FuseSession() {
  if (session_) fuse_session_destroy(session_);
}

Status FuseSession::Mount(Callback on_ready, Callback on_end) {
  on_ready_ = std::move(on_ready);
  on_end_ = std::move(on_end);
  const MountOptions& options = fs_.options();
  std::string words = KernelOptions(options, geteuid() == 0);
  std::string program = "shoal", flag = "-o";
  char* argv[] = {program.data(), flag.data(), words.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, argv);
  session_ = fuse_session_new(&args, &MountFs::Operations(), sizeof(fuse_lowlevel_ops), &fs_);
  fuse_opt_free_args(&args);
  if (!session_) return Fail(ErrorCode::kInternal, "libfuse refused the mount options '" + words + "'");
  if (fuse_session_mount(session_, options.mountpoint.c_str()) != 0) {
    std::string why = "cannot mount on " + options.mountpoint;
    if (access("/dev/fuse", R_OK | W_OK) != 0) {
      why += std::string(access("/dev/fuse", F_OK) == 0 ? ": /dev/fuse may not be opened by this user; its mode should be 0666"
                                                        : ": /dev/fuse is missing; load the module (modprobe fuse)");
    } else if (geteuid() != 0 && options.allow_other.value_or(false)) {
      why += ": as an ordinary user leave out allow_other, or have root put user_allow_other into /etc/fuse.conf";
    } else if (geteuid() != 0) {
      why += ": fusermount3 refused it; the directory must be yours";
    } else {
      why += ": the kernel refused it (is this a container without CAP_SYS_ADMIN?)";
    }
    return Fail(ErrorCode::kNotPermitted, why);
  }
  fd_ = fuse_session_fd(session_);
  fuse_custom_io io{};
  io.read = ReadRequest;
  io.writev = WriteAnswer;
  CHECK(fuse_session_custom_io(session_, &io, fd_) == 0);
  fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
  fs_.loop().AddPoller([this] { return Poll(); });
  fs_.loop().WatchReadable(fd_, [] {});
  return {};
}

bool FuseSession::Poll() {
  if (ended_) return false;
  Wire& wire = fs_.wire();
  bool worked = false;
  for (int i = 0; i < kRequestsAtOnce; ++i) {
    // A large write's bytes stay in this buffer until the engine is done with them.
    if (wire.buffer.empty() || !wire.buffer.unique()) wire.buffer = Buffer::Allocate(kRequestBuffer);
    fuse_buf request{};
    request.mem = wire.buffer.mutable_data();
    int n = fuse_session_receive_buf(session_, &request);
    if (n == -EAGAIN || n == -EINTR) return worked;
    if (n <= 0) {
      if (n < 0) LogError("reading /dev/fuse: {}", std::strerror(-n));
      End();
      return true;
    }
    worked = true;
    fuse_session_process_buf(session_, &request);
    if (wire.ready && !ready_told_) {
      ready_told_ = true;
      LogInfo("FUSE protocol 7.{} (libfuse {}), agreed flags {:#x}", wire.kernel_minor, fuse_pkgversion(),
              wire.answer_flags);
      on_ready_();
    }
    if (fuse_session_exited(session_)) {
      End();
      return true;
    }
  }
  return worked;
}

void FuseSession::End() {
  if (ended_) return;
  ended_ = true;
  on_end_();
}

void FuseSession::Cut() {
  ended_ = true;
  if (fd_ < 0) return;
  // The number must stay taken: requests still under way will write their answers to it.
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) {
    dup3(null, fd_, O_CLOEXEC);
    close(null);
  }
}

}  // namespace shoal::fuse
