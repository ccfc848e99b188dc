// Locks of fcntl(2) and flock(2). They are kept by the metaserver, so they hold between mounts.
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>

#include "fuse/convert.h"
#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

Op Getlk(MountFs& fs, Call call, FileHandle* file, uint64_t owner, client::LockRange range) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  auto other = co_await fs.engine().GetLock(call.cred(), file->inode(), owner, range);
  if (!other) {
    call.Fail(other.error());
    co_return;
  }
  struct flock answer {};
  answer.l_type = F_UNLCK;
  if (*other) answer = FromLockRange(**other);
  call.Lock(answer);
}

// `wait_id`: 0 when it is not to wait.
Op SetLock(MountFs& fs, Call call, FileHandle* file, uint64_t owner, bool flock, client::LockRange range,
           uint64_t wait_id) {
  Using<FileHandle> use(fs, file);
  call.Arm(wait_id);
  Status status = co_await fs.engine().SetLock(call.cred(), file->inode(), owner, flock, range, wait_id);
  call.Answer(status);
}

Op Unlock(MountFs& fs, Call call, FileHandle* file, uint64_t owner, bool flock, client::LockRange range) {
  Using<FileHandle> use(fs, file);
  call.Arm();
  Status status = co_await fs.engine().Unlock(call.cred(), file->inode(), owner, flock, range);
  call.Answer(status);
}

}  // namespace

void GetlkHandler(fuse_req_t req, fuse_ino_t, fuse_file_info* info, struct flock* lock) {
  MountFs& fs = FsOf(req);
  Getlk(fs, Call(fs, req), FileOf(info), info->lock_owner, ToLockRange(*lock));
}

void SetlkHandler(fuse_req_t req, fuse_ino_t, fuse_file_info* info, struct flock* lock, int sleep) {
  MountFs& fs = FsOf(req);
  Call call(fs, req);
  client::LockRange range = ToLockRange(*lock);
  if (lock->l_type == F_UNLCK) return void(Unlock(fs, std::move(call), FileOf(info), info->lock_owner, false, range));
  std::vector<uint64_t>& owners = FileOf(info)->lock_owners;
  if (std::ranges::find(owners, info->lock_owner) == owners.end()) owners.push_back(info->lock_owner);
  SetLock(fs, std::move(call), FileOf(info), info->lock_owner, false, range, sleep ? fs.NextWaitId() : 0);
}

void FlockHandler(fuse_req_t req, fuse_ino_t, fuse_file_info* info, int operation) {
  MountFs& fs = FsOf(req);
  Call call(fs, req);
  client::LockRange range;
  range.exclusive = (operation & LOCK_EX) != 0;
  if (operation & LOCK_UN) return void(Unlock(fs, std::move(call), FileOf(info), info->lock_owner, true, range));
  uint64_t wait_id = operation & LOCK_NB ? 0 : fs.NextWaitId();
  SetLock(fs, std::move(call), FileOf(info), info->lock_owner, true, range, wait_id);
}

}  // namespace shoal::fuse
