// Open files: open, create, read, write, flush, fsync, release.
#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "common/log.h"
#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

// What the kernel shall do with an open file's pages.
void SetCaching(const FileHandle& file, bool keep_cache, fuse_file_info& info) {
  info.direct_io = file.direct;
  info.keep_cache = keep_cache && !file.direct;
}

Op Create(MountFs& fs, Call call, InodeId parent, std::string name, uint32_t mode, fuse_file_info info) {
  call.Arm();
  auto opened = co_await fs.engine().Create(call.cred(), parent, name, mode & 07777, info.flags);
  fs.freshness().Changed(parent);
  if (!opened) {
    call.Fail(opened.error());
    co_return;
  }
  fs.freshness().Changed(opened->attr.inode);
  FileHandle* file = fs.AddFile(std::move(opened->handle), info.flags, opened->attr);
  info.fh = reinterpret_cast<uint64_t>(file);
  SetCaching(*file, opened->keep_cache, info);
  if (!call.Create(opened->attr, &info)) fs.RemoveFile(file);
}

Op Open(MountFs& fs, Call call, InodeId inode, fuse_file_info info, bool kill_suid_sgid) {
  call.Arm();
  auto opened = co_await fs.engine().Open(call.cred(), inode, info.flags);
  if (info.flags & O_TRUNC) fs.freshness().Changed(inode);
  if (!opened) {
    call.Fail(opened.error());
    co_return;
  }
  FileHandle* file = fs.AddFile(std::move(opened->handle), info.flags, opened->attr);
  if (kill_suid_sgid && (info.flags & O_TRUNC) && (opened->attr.mode & 06000)) {
    client::AttrChange change;
    change.kill_suid_sgid = true;
    auto attr = co_await fs.engine().SetAttr(call.cred(), inode, change, file->handle.get());
    if (!attr) LogWarning("inode {}: set-id bits stay after O_TRUNC: {}", inode.value, ToString(attr.error()));
  }
  info.fh = reinterpret_cast<uint64_t>(file);
  SetCaching(*file, opened->keep_cache, info);
  if (!call.Open(&info)) fs.RemoveFile(file);
}

Op Read(MountFs& fs, Call call, FileHandle* file, uint64_t offset, size_t size) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  auto data = co_await fs.engine().Read(*file->handle, offset, size);
  if (data) call.Data(*data);
  else call.Fail(data.error());
}

// Whether a write must be on the disks when it is answered. The kernel sends an FSYNC of its own after the O_SYNC
// writes that go through its page cache.
bool IsSync(const MountFs& fs, const FileHandle& file, int flags) {
  return fs.options().sync || (file.direct && (flags & (O_SYNC | O_DSYNC)));
}

Op Write(MountFs& fs, Call call, FileHandle* file, uint64_t offset, Buffer data, client::WriteHow how,
         bool sync) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  size_t size = data.size();
  auto written = co_await fs.engine().Write(*file->handle, offset, std::move(data), how);
  fs.freshness().Changed(file->inode());
  if (!written) {
    call.Fail(written.error());
    co_return;
  }
  if (sync) {
    Status status = co_await fs.engine().Fsync(*file->handle, true);
    if (!status) {
      call.Fail(status.error());
      co_return;
    }
  }
  call.Written(size);
}

Task<void> UnlockAll(MountFs& fs, CredPtr cred, FileHandle* file, uint64_t owner, bool flock) {
  client::LockRange all;
  Status unlocked = co_await fs.engine().Unlock(*cred, file->inode(), owner, flock, all);
  if (!unlocked) LogWarning("inode {}: unlock at close: {}", file->inode().value, ToString(unlocked.error()));
}

Op Flush(MountFs& fs, Call call, FileHandle* file, uint64_t owner) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  CredPtr cred = call.cred_ptr();
  Status status = co_await fs.engine().Flush(*file->handle);
  if (fs.engine().HoldsLocks(file->inode(), owner, false)) {
    co_await UnlockAll(fs, cred, file, owner, false);
  }
  call.Answer(status);
}

Op Fsync(MountFs& fs, Call call, FileHandle* file, bool data_only) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  Status status = co_await fs.engine().Fsync(*file->handle, data_only);
  call.Answer(status);
}

// Gives up the locks of an open file when its last descriptor is closed, then the file: that of flock(2), whose owner
// the kernel tells (else 0), and those of F_OFD_SETLK.
Op UnlockAndRemove(MountFs& fs, CredPtr cred, FileHandle* file, uint64_t flock_owner) {
  Using<FileHandle> use(fs, file);
  fs.RemoveFile(file);  // when `use` ends
  if (flock_owner) co_await UnlockAll(fs, cred, file, flock_owner, true);
  for (uint64_t owner : std::exchange(file->lock_owners, {})) {
    if (fs.engine().HoldsLocks(file->inode(), owner, false)) co_await UnlockAll(fs, cred, file, owner, false);
  }
}

}  // namespace

void CreateHandler(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Create(fs, Call(fs, req), fs.InodeOf(parent), name, mode, *info);
}

void OpenHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Open(fs, Call(fs, req), fs.InodeOf(node), *info, fs.wire().KillSuidSgid());
}

void ReadHandler(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  FileHandle* file = FileOf(info);
  fs.NoteRead(*file);
  Read(fs, Call(fs, req), file, static_cast<uint64_t>(offset), size);
}

void WriteHandler(fuse_req_t req, fuse_ino_t, const char* data, size_t size, off_t offset, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  FileHandle* file = FileOf(info);
  const Wire& wire = fs.wire();
  // fcntl(2) may have changed O_APPEND since the open. What the kernel writes out of a mapping comes through any handle
  // that is open for writing, and has its place.
  client::WriteHow how{.kill_suid_sgid = wire.KillSuidSgid(), .append = (info->flags & O_APPEND) && !info->writepage};
  bool sync = IsSync(fs, *file, info->flags);
  size_t at = static_cast<size_t>(reinterpret_cast<const uint8_t*>(data) - wire.buffer.data());
  Buffer piece = wire.buffer.Slice(at, size);
  Call call(fs, req);
  if (!sync) {
    if (auto written = fs.engine().TryWrite(*file->handle, static_cast<uint64_t>(offset), piece, how)) {
      fs.freshness().Changed(file->inode());
      if (*written) call.Written(size);
      else call.Fail(written->error());
      return;
    }
  }
  Write(fs, std::move(call), file, static_cast<uint64_t>(offset), std::move(piece), how, sync);
}

void FlushHandler(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  FileHandle* file = FileOf(info);
  Call call(fs, req);
  std::erase(file->lock_owners, info->lock_owner);
  if (fs.engine().FlushIsNothing(*file->handle) &&
      !fs.engine().HoldsLocks(file->inode(), info->lock_owner, false)) {
    call.Ok();
    return;
  }
  Flush(fs, std::move(call), file, info->lock_owner);
}

void FsyncHandler(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Fsync(fs, Call(fs, req), FileOf(info), data_only != 0);
}

void ReleaseHandler(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  FileHandle* file = FileOf(info);
  Call call(fs, req);
  uint64_t owner = 0;
  if (info->flock_release && fs.engine().HoldsLocks(file->inode(), info->lock_owner, true)) owner = info->lock_owner;
  bool locked = owner != 0 || !file->lock_owners.empty();
  CredPtr cred = locked ? call.cred_ptr() : nullptr;
  call.Ok();
  if (locked) UnlockAndRemove(fs, cred, file, owner);
  else fs.RemoveFile(file);
}

}  // namespace shoal::fuse
