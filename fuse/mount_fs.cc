#include "fuse/mount_fs.h"

#include <fcntl.h>
#include <linux/fuse.h>

#include <ctime>

#include "common/log.h"
#include "fuse/call.h"

namespace shoal::fuse {
namespace {

constexpr auto kInterruptCheck = 500ms;  // how often an interrupted request's caller is looked at
constexpr auto kAtimeDelay = 1s;         // access times are told in batches of this age
constexpr int64_t kDayNs = 86'400'000'000'000;

int64_t WallNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

template <typename Body>
const Body* BodyOf(const Wire& wire) {
  if (wire.size < sizeof(fuse_in_header) + sizeof(Body)) return nullptr;
  return reinterpret_cast<const Body*>(wire.buffer.data() + sizeof(fuse_in_header));
}

}  // namespace

const char* OpcodeName(uint32_t opcode) {
  switch (opcode) {
#define SHOAL_NAME_(name) \
  case FUSE_##name: return #name;
    SHOAL_NAME_(LOOKUP) SHOAL_NAME_(FORGET) SHOAL_NAME_(GETATTR) SHOAL_NAME_(SETATTR) SHOAL_NAME_(READLINK)
    SHOAL_NAME_(SYMLINK) SHOAL_NAME_(MKNOD) SHOAL_NAME_(MKDIR) SHOAL_NAME_(UNLINK) SHOAL_NAME_(RMDIR)
    SHOAL_NAME_(RENAME) SHOAL_NAME_(LINK) SHOAL_NAME_(OPEN) SHOAL_NAME_(READ) SHOAL_NAME_(WRITE) SHOAL_NAME_(STATFS)
    SHOAL_NAME_(RELEASE) SHOAL_NAME_(FSYNC) SHOAL_NAME_(SETXATTR) SHOAL_NAME_(GETXATTR) SHOAL_NAME_(LISTXATTR)
    SHOAL_NAME_(REMOVEXATTR) SHOAL_NAME_(FLUSH) SHOAL_NAME_(INIT) SHOAL_NAME_(OPENDIR) SHOAL_NAME_(READDIR)
    SHOAL_NAME_(RELEASEDIR) SHOAL_NAME_(FSYNCDIR) SHOAL_NAME_(GETLK) SHOAL_NAME_(SETLK) SHOAL_NAME_(SETLKW)
    SHOAL_NAME_(ACCESS) SHOAL_NAME_(CREATE) SHOAL_NAME_(INTERRUPT) SHOAL_NAME_(IOCTL) SHOAL_NAME_(FALLOCATE)
    SHOAL_NAME_(READDIRPLUS) SHOAL_NAME_(RENAME2) SHOAL_NAME_(LSEEK) SHOAL_NAME_(COPY_FILE_RANGE)
#undef SHOAL_NAME_
    default: return "OTHER";
  }
}

uint32_t Wire::opcode() const {
  if (size < sizeof(fuse_in_header)) return 0;
  return reinterpret_cast<const fuse_in_header*>(buffer.data())->opcode;
}

bool Wire::KillSuidSgid() const {
  switch (opcode()) {
    case FUSE_WRITE: {
      auto* in = BodyOf<fuse_write_in>(*this);
      return in && (in->write_flags & FUSE_WRITE_KILL_SUIDGID);
    }
    case FUSE_OPEN: {
      auto* in = BodyOf<fuse_open_in>(*this);
      return in && (in->open_flags & FUSE_OPEN_KILL_SUIDGID);
    }
    case FUSE_CREATE: {
      auto* in = BodyOf<fuse_create_in>(*this);
      return in && (in->open_flags & FUSE_OPEN_KILL_SUIDGID);
    }
    case FUSE_SETATTR: {
      auto* in = BodyOf<fuse_setattr_in>(*this);
      return in && (in->valid & FATTR_KILL_SUIDGID);
    }
    default: return false;
  }
}

MountFs::MountFs(EventLoop& loop, client::Engine& engine, const MountOptions& options, Metrics& metrics)
    : loop_(loop),
      engine_(engine),
      options_(options),
      metrics_(metrics),
      scratch_(std::make_unique_for_overwrite<char[]>(kScratch)),
      background_(loop),
      idle_(loop),
      errors_(metrics.counter("shoal_mount_trouble_total", "Requests that failed for the cluster's fault")) {
  metrics.gauge_function("shoal_mount_dirty_bytes", "Bytes written and not yet on the chunkservers",
                         [&engine] { return static_cast<double>(engine.dirty_bytes()); });
}

MountFs::~MountFs() {
  for (FileHandle* file : files_) delete file;
  for (DirHandle* dir : dirs_) delete dir;
}

FileHandle* MountFs::AddFile(client::HandlePtr handle, int flags, const client::Attr& attr) {
  auto* file = new FileHandle;
  file->handle = std::move(handle);
  file->flags = flags;
  bool writable = (flags & O_ACCMODE) != O_RDONLY;
  file->direct = (flags & O_DIRECT) || (writable && (flags & O_APPEND));
  file->atime_checked = options_.noatime || options_.read_only || (flags & O_NOATIME);
  file->atime_ns = attr.atime_ns, file->mtime_ns = attr.mtime_ns, file->ctime_ns = attr.ctime_ns;
  files_.insert(file);
  return file;
}

DirHandle* MountFs::AddDir(InodeId inode) {
  auto* dir = new DirHandle;
  dir->inode = inode;
  dirs_.insert(dir);
  return dir;
}

namespace {
Op ReleaseOp(MountFs& fs, client::HandlePtr handle) {
  InodeId inode = handle->inode();
  Status status = co_await fs.engine().Release(std::move(handle));
  if (!status) {
    LogWarning("inode {}: closed, but its last writes failed: {}", inode.value, ToString(status.error()));
  }
}
}  // namespace

void MountFs::Drop(FileHandle* file) {
  files_.erase(file);
  client::HandlePtr handle = std::move(file->handle);
  delete file;
  ReleaseOp(*this, std::move(handle));
}

void MountFs::RemoveFile(FileHandle* file) {
  file->released = true;
  if (file->users == 0) Drop(file);
}

void MountFs::Unuse(FileHandle* file) {
  if (--file->users == 0 && file->released) Drop(file);
}

void MountFs::RemoveDir(DirHandle* dir) {
  dir->released = true;
  Use(dir);
  Unuse(dir);
}

void MountFs::Unuse(DirHandle* dir) {
  if (--dir->users > 0 || !dir->released) return;
  dirs_.erase(dir);
  delete dir;
}

void MountFs::NoteRead(FileHandle& file) {
  if (file.atime_checked) return;
  file.atime_checked = true;
  int64_t now = WallNanoseconds();
  bool old = file.atime_ns <= file.mtime_ns || file.atime_ns <= file.ctime_ns || now - file.atime_ns > kDayNs;
  if (!old) return;
  atimes_[file.inode()] = now;
  if (!sending_atimes_) {
    sending_atimes_ = true;
    atime_timer_ = loop_.RunAfter(kAtimeDelay, [this] { background_.Spawn(SendAtimes()); });
  }
}

// One at a time, so that a grep over a tree costs its servers little.
Task<void> MountFs::SendAtimes() {
  while (!atimes_.empty()) {
    auto [inode, time] = *atimes_.begin();
    atimes_.erase(atimes_.begin());
    freshness_.Changed(inode);
    co_await engine_.TouchAtime(inode, time);
  }
  sending_atimes_ = false;
}

void MountFs::Finished(uint32_t opcode, Duration latency, int error) {
  if (opcode >= kOpcodes) opcode = 0;
  Histogram*& histogram = latency_[opcode];
  if (!histogram) {
    histogram = &metrics_.histogram("shoal_mount_request_seconds", "Time from the kernel's request to its answer",
                                    std::string("op=\"") + OpcodeName(opcode) + "\"");
  }
  histogram->Record(latency);
  if (error == EIO || error == ETIMEDOUT || error == ENOTCONN) errors_.Add();
}

void MountFs::AddInterrupted(Call* call) {
  interrupted_.insert(call);
  call->CheckKilled();
  if (!interrupted_.empty() && !interrupt_timer_) {
    interrupt_timer_ = loop_.RunAfter(kInterruptCheck, [this] { CheckInterrupted(); });
  }
}

void MountFs::CheckInterrupted() {
  std::vector<Call*> calls(interrupted_.begin(), interrupted_.end());
  for (Call* call : calls) {
    if (interrupted_.contains(call)) call->CheckKilled();
  }
  interrupt_timer_.reset();
  if (!interrupted_.empty()) interrupt_timer_ = loop_.RunAfter(kInterruptCheck, [this] { CheckInterrupted(); });
}

void MountFs::LogTrouble(uint32_t opcode, const Error& error) {
  auto now = std::chrono::steady_clock::now();
  if (now - last_trouble_ < 1s) {
    ++silent_troubles_;
    return;
  }
  last_trouble_ = now;
  if (silent_troubles_) {
    LogWarning("{} failed: {} (and {} more like it)", OpcodeName(opcode), ToString(error), silent_troubles_);
  } else {
    LogWarning("{} failed: {}", OpcodeName(opcode), ToString(error));
  }
  silent_troubles_ = 0;
}

void MountFs::OpEnds() {
  if (--ops_ == 0 && !idle_.empty()) idle_.WakeAll();
}

Task<void> MountFs::ReleaseAll() {
  std::vector<FileHandle*> files(files_.begin(), files_.end());
  for (FileHandle* file : files) {
    if (!file->released) RemoveFile(file);
  }
  std::vector<DirHandle*> dirs(dirs_.begin(), dirs_.end());
  for (DirHandle* dir : dirs) {
    if (!dir->released) RemoveDir(dir);
  }
  co_return;
}

Task<void> MountFs::Drain() {
  interrupt_timer_.reset();
  atime_timer_.reset();
  while (ops_ > 0) co_await idle_.Wait();
  co_await background_.Join();
}

}  // namespace shoal::fuse
