// Ranges of open files: fallocate, SEEK_HOLE and SEEK_DATA, copy_file_range.
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

// What one copy_file_range request does at most: the caller goes on after it, and can be interrupted in between.
constexpr uint64_t kCopyAtOnce = 64 << 20;

Op Fallocate(MountFs& fs, Call call, FileHandle* file, int mode, uint64_t offset, uint64_t length) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  Status status = co_await fs.engine().Fallocate(*file->handle, mode, offset, length);
  fs.freshness().Changed(file->inode());
  call.Answer(status);
}

Op Seek(MountFs& fs, Call call, FileHandle* file, uint64_t offset, bool data) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  Result<uint64_t> found = uint64_t{0};
  if (data) found = co_await fs.engine().SeekData(*file->handle, offset);
  else found = co_await fs.engine().SeekHole(*file->handle, offset);
  if (found) call.Position(*found);
  else call.Fail(found.error());
}

Op Copy(MountFs& fs, Call call, FileHandle* from, uint64_t from_offset, FileHandle* to, uint64_t to_offset,
        uint64_t length) {
  Using<FileHandle> use_from(fs, from);
  Using<FileHandle> use_to(fs, to);
  call.Arm();
  auto copied = co_await fs.engine().CopyRange(*from->handle, from_offset, *to->handle, to_offset, length);
  fs.freshness().Changed(to->inode());
  if (copied) call.Written(*copied);
  else call.Fail(copied.error());
}

}  // namespace

void FallocateHandler(fuse_req_t req, fuse_ino_t, int mode, off_t offset, off_t length, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Fallocate(fs, Call(fs, req), FileOf(info), mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length));
}

void LseekHandler(fuse_req_t req, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Call call(fs, req);
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return void(call.Error(EINVAL));
  if (offset < 0) return void(call.Error(ENXIO));
  Seek(fs, std::move(call), FileOf(info), static_cast<uint64_t>(offset), whence == SEEK_DATA);
}

void CopyFileRangeHandler(fuse_req_t req, fuse_ino_t, off_t from_offset, fuse_file_info* from_info, fuse_ino_t,
                          off_t to_offset, fuse_file_info* to_info, size_t length, int flags) {
  MountFs& fs = FsOf(req);
  Call call(fs, req);
  if (flags) return void(call.Error(EINVAL));
  Copy(fs, std::move(call), FileOf(from_info), static_cast<uint64_t>(from_offset), FileOf(to_info),
       static_cast<uint64_t>(to_offset), std::min<uint64_t>(length, kCopyAtOnce));
}

}  // namespace shoal::fuse
