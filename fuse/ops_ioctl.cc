// What `shoal` asks a mount through a file of it: fuse/ioctl.h.
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fuse/ioctl.h"
#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

template <size_t N>
void Put(const std::string& text, char (&field)[N]) {
  std::strncpy(field, text.c_str(), N - 1);
}

std::string Addresses(const std::vector<Address>& addresses) {
  std::string text;
  for (const Address& address : addresses) {
    if (!text.empty()) text += ',';
    text += address.ToString();
  }
  return text;
}

void FillInfo(MountFs& fs, InodeId inode, MountInfo& info) {
  const MountOptions& options = fs.options();
  info.magic = MountInfo::kMagic;
  info.version = 1;
  info.inode = inode.value;
  info.root_inode = fs.engine().root().value;
  info.pid = static_cast<uint32_t>(getpid());
  info.protocol_minor = fs.wire().kernel_minor;
  Put(fs.engine().cluster_uuid(), info.cluster_uuid);
  Put(Addresses(options.meta), info.meta);
  Put(options.subdir, info.subdir);
  Put(options.key_file, info.key_file);
  Put(options.config, info.config);
}

Op SyncAll(MountFs& fs, Call call) {
  call.Arm();
  Status status = co_await fs.engine().SyncAll(call.cred());
  if (status) call.Ioctl(nullptr, 0);
  else call.Fail(status.error());
}

}  // namespace

void IoctlHandler(fuse_req_t req, fuse_ino_t node, unsigned command, void*, fuse_file_info*, unsigned flags,
                  const void*, size_t, size_t out_size) {
  MountFs& fs = FsOf(req);
  Call call(fs, req);
  if (flags & FUSE_IOCTL_COMPAT) return void(call.Error(ENOTTY));
  if (command == static_cast<unsigned>(kIoctlSyncAll)) return void(SyncAll(fs, std::move(call)));
  if (command == static_cast<unsigned>(kIoctlMountInfo) && out_size >= sizeof(MountInfo)) {
    auto info = std::make_unique<MountInfo>();
    FillInfo(fs, fs.InodeOf(node), *info);
    call.Ioctl(info.get(), sizeof *info);
    return;
  }
  call.Error(ENOTTY);
}

}  // namespace shoal::fuse
