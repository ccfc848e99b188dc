// What a process may ask the mount about a file or directory it has open: ioctl(2) numbers and their structures.
// Stable: the command line of one version may ask the mount of another.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

namespace shoal::fuse {

// To which cluster and inode a file belongs, and how to reach that cluster. Plain memory, filled by the mount; strings
// end with NUL.
struct MountInfo {
  static constexpr uint32_t kMagic = 0x53686f6c;  // "Shol"
  uint32_t magic;
  uint32_t version;     // of this structure: 1
  uint64_t inode;       // of the open file
  uint64_t root_inode;  // of the mount's root
  uint32_t pid;         // of the mount's process
  uint32_t protocol_minor;  // of the kernel's FUSE protocol, as negotiated
  char cluster_uuid[64];
  char meta[2048];       // HOST:PORT[,HOST:PORT...]
  char subdir[2048];     // directory of the file system that is mounted ("": its root)
  char key_file[2048];   // of the cluster key
  char config[2048];     // the mount's client configuration, or ""
  char reserved[1024];
};

inline constexpr unsigned long kIoctlMountInfo = _IOR('S', 0xa1, MountInfo);
// Writes out all that this mount has gathered; then everything that the cluster has acknowledged to anyone is made
// durable.
inline constexpr unsigned long kIoctlSyncAll = _IO('S', 0xa2);

}  // namespace shoal::fuse
