// Attributes of inodes and of the file system, extended attributes.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/limits.h"
#include "fuse/convert.h"
#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

Op Getattr(MountFs& fs, Call call, InodeId inode) {
  call.Arm();
  auto attr = co_await fs.engine().GetAttr(call.cred(), inode);
  const client::Attr* left = attr || attr.error().code != ErrorCode::kStale ? nullptr : fs.removed().Find(inode);
  if (attr) call.Attr(*attr);
  else if (left) call.Attr(*left);
  else call.Fail(attr.error());
}

Op Setattr(MountFs& fs, Call call, InodeId inode, client::AttrChange change, FileHandle* file) {
  call.Arm();
  std::optional<Using<FileHandle>> use;
  if (file) use.emplace(fs, file);
  client::Handle* handle = file ? file->handle.get() : nullptr;
  auto attr = co_await fs.engine().SetAttr(call.cred(), inode, change, handle);
  fs.freshness().Changed(inode);
  if (attr) call.Attr(*attr);
  else call.Fail(attr.error());
}

bool MayAccess(const client::Attr& attr, const client::Cred& cred, uint32_t mask) {
  if (cred.uid == 0) return !(mask & X_OK) || S_ISDIR(attr.mode) || (attr.mode & 0111);
  uint32_t bits = attr.mode & 7;
  if (cred.uid == attr.uid) bits = (attr.mode >> 6) & 7;
  else if (cred.gid == attr.gid || std::ranges::find(cred.groups, attr.gid) != cred.groups.end()) bits = (attr.mode >> 3) & 7;
  return (bits & mask) == mask;
}

// With default_permissions the kernel decides by itself; this answers a kernel that asks all the same.
Op Access(MountFs& fs, Call call, InodeId inode, int mask) {
  call.Arm();
  auto attr = co_await fs.engine().GetAttr(call.cred(), inode);
  if (!attr) call.Fail(attr.error());
  else call.Error(MayAccess(*attr, call.cred(), static_cast<uint32_t>(mask) & 7) ? 0 : EACCES);
}

Op Statfs(MountFs& fs, Call call) {
  call.Arm();
  auto stat = co_await fs.engine().StatFs(call.cred());
  if (stat) call.StatFs(*stat);
  else call.Fail(stat.error());
}

// A size of 0 asks how much room the answer needs.
void AnswerSized(Call& call, const char* data, size_t length, size_t size) {
  if (size == 0) call.Size(length);
  else if (length > size) call.Error(ERANGE);
  else call.Bytes(data, length);
}

Op Getxattr(MountFs& fs, Call call, InodeId inode, std::string name, size_t size) {
  call.Arm();
  auto value = co_await fs.engine().GetXattr(call.cred(), inode, name);
  if (value) AnswerSized(call, value->data(), value->size(), size);
  else call.Fail(value.error());
}

Op Setxattr(MountFs& fs, Call call, InodeId inode, std::string name, std::string value, uint32_t flags) {
  call.Arm();
  Status status = co_await fs.engine().SetXattr(call.cred(), inode, name, value, flags);
  fs.freshness().Changed(inode);
  call.Answer(status);
}

Op Listxattr(MountFs& fs, Call call, InodeId inode, size_t size) {
  call.Arm();
  auto names = co_await fs.engine().ListXattr(call.cred(), inode);
  if (!names) {
    call.Fail(names.error());
    co_return;
  }
  std::string list;
  for (const std::string& name : *names) list.append(name).push_back('\0');
  AnswerSized(call, list.data(), list.size(), size);
}

Op Removexattr(MountFs& fs, Call call, InodeId inode, std::string name) {
  call.Arm();
  Status status = co_await fs.engine().RemoveXattr(call.cred(), inode, name);
  fs.freshness().Changed(inode);
  call.Answer(status);
}

// ACLs would have to be enforced to be kept: they are refused, so that cp and tar say so and go on.
bool IsAcl(const char* name) { return std::strncmp(name, "system.", 7) == 0; }

}  // namespace

void GetattrHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  MountFs& fs = FsOf(req);
  Getattr(fs, Call(fs, req), fs.InodeOf(node));
}

void SetattrHandler(fuse_req_t req, fuse_ino_t node, struct stat* attr, int to_set, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  client::AttrChange change = ToAttrChange(*attr, to_set, fs.wire().KillSuidSgid());
  Setattr(fs, Call(fs, req), fs.InodeOf(node), change, info ? FileOf(info) : nullptr);
}

void AccessHandler(fuse_req_t req, fuse_ino_t node, int mask) {
  MountFs& fs = FsOf(req);
  Access(fs, Call(fs, req), fs.InodeOf(node), mask);
}

void StatfsHandler(fuse_req_t req, fuse_ino_t) {
  MountFs& fs = FsOf(req);
  Statfs(fs, Call(fs, req));
}

void GetxattrHandler(fuse_req_t req, fuse_ino_t node, const char* name, size_t size) {
  MountFs& fs = FsOf(req);
  if (IsAcl(name)) return void(Call(fs, req).Error(EOPNOTSUPP));
  Getxattr(fs, Call(fs, req), fs.InodeOf(node), name, size);
}

void SetxattrHandler(fuse_req_t req, fuse_ino_t node, const char* name, const char* value, size_t size, int flags) {
  MountFs& fs = FsOf(req);
  if (IsAcl(name)) return void(Call(fs, req).Error(EOPNOTSUPP));
  Setxattr(fs, Call(fs, req), fs.InodeOf(node), name, std::string(value, size), static_cast<uint32_t>(flags));
}

void ListxattrHandler(fuse_req_t req, fuse_ino_t node, size_t size) {
  MountFs& fs = FsOf(req);
  Listxattr(fs, Call(fs, req), fs.InodeOf(node), size);
}

void RemovexattrHandler(fuse_req_t req, fuse_ino_t node, const char* name) {
  MountFs& fs = FsOf(req);
  if (IsAcl(name)) return void(Call(fs, req).Error(EOPNOTSUPP));
  Removexattr(fs, Call(fs, req), fs.InodeOf(node), name);
}

}  // namespace shoal::fuse
