// Names: lookup, making, linking, removing, renaming.
#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

Op Lookup(MountFs& fs, Call call, InodeId parent, std::string name) {
  call.Arm();
  auto attr = co_await fs.engine().Lookup(call.cred(), parent, name);
  if (attr) call.Entry(*attr);
  else if (attr.error().code == ErrorCode::kNotFound) call.NoEntry();
  else call.Fail(attr.error());
}

void AnswerMade(MountFs& fs, Call& call, InodeId parent, const Result<client::Attr>& attr) {
  fs.freshness().Changed(parent);
  if (!attr) return void(call.Fail(attr.error()));
  fs.freshness().Changed(attr->inode);
  call.Entry(*attr);
}

Op Mkdir(MountFs& fs, Call call, InodeId parent, std::string name, uint32_t mode) {
  call.Arm();
  auto attr = co_await fs.engine().Mkdir(call.cred(), parent, name, mode & 07777);
  AnswerMade(fs, call, parent, attr);
}

Op Mknod(MountFs& fs, Call call, InodeId parent, std::string name, uint32_t mode, uint64_t rdev) {
  call.Arm();
  auto attr = co_await fs.engine().Mknod(call.cred(), parent, name, mode, rdev);
  AnswerMade(fs, call, parent, attr);
}

Op Symlink(MountFs& fs, Call call, InodeId parent, std::string name, std::string target) {
  call.Arm();
  auto attr = co_await fs.engine().Symlink(call.cred(), parent, name, target);
  AnswerMade(fs, call, parent, attr);
}

Op Link(MountFs& fs, Call call, InodeId inode, InodeId new_parent, std::string new_name) {
  call.Arm();
  auto attr = co_await fs.engine().Link(call.cred(), inode, new_parent, new_name);
  AnswerMade(fs, call, new_parent, attr);
}

Op Readlink(MountFs& fs, Call call, InodeId inode) {
  call.Arm();
  auto target = co_await fs.engine().Readlink(call.cred(), inode);
  if (target) call.Text(target->c_str());
  else call.Fail(target.error());
}

void AnswerRemoved(MountFs& fs, Call& call, InodeId parent, const Result<client::Attr>& attr) {
  fs.freshness().Changed(parent);
  if (!attr) return void(call.Fail(attr.error()));
  fs.freshness().Changed(attr->inode);
  fs.removed().Lost(*attr);
  call.Ok();
}

Op Unlink(MountFs& fs, Call call, InodeId parent, std::string name) {
  call.Arm();
  auto attr = co_await fs.engine().Unlink(call.cred(), parent, name);
  AnswerRemoved(fs, call, parent, attr);
}

Op Rmdir(MountFs& fs, Call call, InodeId parent, std::string name) {
  call.Arm();
  auto attr = co_await fs.engine().Rmdir(call.cred(), parent, name);
  AnswerRemoved(fs, call, parent, attr);
}

Op Rename(MountFs& fs, Call call, InodeId parent, std::string name, InodeId new_parent, std::string new_name,
          uint32_t flags) {
  call.Arm();
  auto renamed = co_await fs.engine().Rename(call.cred(), parent, name, new_parent, new_name, flags);
  fs.freshness().Changed(parent);
  fs.freshness().Changed(new_parent);
  if (!renamed) {
    call.Fail(renamed.error());
    co_return;
  }
  fs.freshness().Changed(renamed->inode);
  if (renamed->replaced.inode) fs.freshness().Changed(renamed->replaced.inode);
  fs.removed().Lost(renamed->replaced);
  call.Ok();
}

}  // namespace

void LookupHandler(fuse_req_t req, fuse_ino_t parent, const char* name) {
  MountFs& fs = FsOf(req);
  Lookup(fs, Call(fs, req), fs.InodeOf(parent), name);
}

// The kernel forgets an inode as a whole. What else is kept by inode the engine bounds by itself.
void ForgetHandler(fuse_req_t req, fuse_ino_t node, uint64_t) {
  MountFs& fs = FsOf(req);
  fs.removed().Forgotten(fs.InodeOf(node));
  fuse_reply_none(req);
}

void ForgetMultiHandler(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  MountFs& fs = FsOf(req);
  for (size_t i = 0; i < count; ++i) fs.removed().Forgotten(fs.InodeOf(forgets[i].ino));
  fuse_reply_none(req);
}

void MkdirHandler(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  MountFs& fs = FsOf(req);
  Mkdir(fs, Call(fs, req), fs.InodeOf(parent), name, mode);
}

void MknodHandler(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  MountFs& fs = FsOf(req);
  Mknod(fs, Call(fs, req), fs.InodeOf(parent), name, mode, rdev);
}

void SymlinkHandler(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  MountFs& fs = FsOf(req);
  Symlink(fs, Call(fs, req), fs.InodeOf(parent), name, target);
}

void ReadlinkHandler(fuse_req_t req, fuse_ino_t node) {
  MountFs& fs = FsOf(req);
  Readlink(fs, Call(fs, req), fs.InodeOf(node));
}

void LinkHandler(fuse_req_t req, fuse_ino_t node, fuse_ino_t new_parent, const char* new_name) {
  MountFs& fs = FsOf(req);
  Link(fs, Call(fs, req), fs.InodeOf(node), fs.InodeOf(new_parent), new_name);
}

void UnlinkHandler(fuse_req_t req, fuse_ino_t parent, const char* name) {
  MountFs& fs = FsOf(req);
  Unlink(fs, Call(fs, req), fs.InodeOf(parent), name);
}

void RmdirHandler(fuse_req_t req, fuse_ino_t parent, const char* name) {
  MountFs& fs = FsOf(req);
  Rmdir(fs, Call(fs, req), fs.InodeOf(parent), name);
}

void RenameHandler(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
                   unsigned flags) {
  MountFs& fs = FsOf(req);
  Rename(fs, Call(fs, req), fs.InodeOf(parent), name, fs.InodeOf(new_parent), new_name, flags);
}

}  // namespace shoal::fuse
