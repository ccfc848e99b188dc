#include "fuse/ops.h"

namespace shoal::fuse {

const fuse_lowlevel_ops& MountFs::Operations() {
  static const fuse_lowlevel_ops operations = [] {
    fuse_lowlevel_ops ops{};
    ops.init = InitHandler;
    ops.lookup = LookupHandler;
    ops.forget = ForgetHandler;
    ops.forget_multi = ForgetMultiHandler;
    ops.mkdir = MkdirHandler;
    ops.mknod = MknodHandler;
    ops.symlink = SymlinkHandler;
    ops.readlink = ReadlinkHandler;
    ops.link = LinkHandler;
    ops.unlink = UnlinkHandler;
    ops.rmdir = RmdirHandler;
    ops.rename = RenameHandler;
    ops.getattr = GetattrHandler;
    ops.setattr = SetattrHandler;
    ops.access = AccessHandler;
    ops.statfs = StatfsHandler;
    ops.getxattr = GetxattrHandler;
    ops.setxattr = SetxattrHandler;
    ops.listxattr = ListxattrHandler;
    ops.removexattr = RemovexattrHandler;
    ops.create = CreateHandler;
    ops.open = OpenHandler;
    ops.read = ReadHandler;
    ops.write = WriteHandler;
    ops.flush = FlushHandler;
    ops.fsync = FsyncHandler;
    ops.release = ReleaseHandler;
    ops.fallocate = FallocateHandler;
    ops.lseek = LseekHandler;
    ops.copy_file_range = CopyFileRangeHandler;
    ops.opendir = OpendirHandler;
    ops.readdir = ReaddirHandler;
    ops.readdirplus = ReaddirplusHandler;
    ops.releasedir = ReleasedirHandler;
    ops.fsyncdir = FsyncdirHandler;
    ops.getlk = GetlkHandler;
    ops.setlk = SetlkHandler;
    ops.flock = FlockHandler;
    ops.ioctl = IoctlHandler;
    return ops;
  }();
  return operations;
}

}  // namespace shoal::fuse
