// The handlers of the kernel's requests, one libfuse low-level function each. For the folder's own sources only.
#pragma once

#include "fuse/call.h"
#include "fuse/fuse_api.h"
#include "fuse/mount_fs.h"

namespace shoal::fuse {

inline MountFs& FsOf(fuse_req_t req) { return *static_cast<MountFs*>(fuse_req_userdata(req)); }
inline FileHandle* FileOf(const fuse_file_info* info) { return reinterpret_cast<FileHandle*>(info->fh); }
inline DirHandle* DirOf(const fuse_file_info* info) { return reinterpret_cast<DirHandle*>(info->fh); }

// ops_names.cc
void LookupHandler(fuse_req_t req, fuse_ino_t parent, const char* name);
void ForgetHandler(fuse_req_t req, fuse_ino_t node, uint64_t count);
void ForgetMultiHandler(fuse_req_t req, size_t count, fuse_forget_data* forgets);
void MkdirHandler(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode);
void MknodHandler(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev);
void SymlinkHandler(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name);
void ReadlinkHandler(fuse_req_t req, fuse_ino_t node);
void LinkHandler(fuse_req_t req, fuse_ino_t node, fuse_ino_t new_parent, const char* new_name);
void UnlinkHandler(fuse_req_t req, fuse_ino_t parent, const char* name);
void RmdirHandler(fuse_req_t req, fuse_ino_t parent, const char* name);
void RenameHandler(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
                   unsigned flags);

// ops_attr.cc
void GetattrHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void SetattrHandler(fuse_req_t req, fuse_ino_t node, struct stat* attr, int to_set, fuse_file_info* info);
void AccessHandler(fuse_req_t req, fuse_ino_t node, int mask);
void StatfsHandler(fuse_req_t req, fuse_ino_t node);
void GetxattrHandler(fuse_req_t req, fuse_ino_t node, const char* name, size_t size);
void SetxattrHandler(fuse_req_t req, fuse_ino_t node, const char* name, const char* value, size_t size, int flags);
void ListxattrHandler(fuse_req_t req, fuse_ino_t node, size_t size);
void RemovexattrHandler(fuse_req_t req, fuse_ino_t node, const char* name);

// ops_files.cc
void CreateHandler(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info);
void OpenHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void ReadHandler(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info);
void WriteHandler(fuse_req_t req, fuse_ino_t node, const char* data, size_t size, off_t offset, fuse_file_info* info);
void FlushHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void FsyncHandler(fuse_req_t req, fuse_ino_t node, int data_only, fuse_file_info* info);
void ReleaseHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);

// ops_ranges.cc
void FallocateHandler(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t length, fuse_file_info* info);
void LseekHandler(fuse_req_t req, fuse_ino_t node, off_t offset, int whence, fuse_file_info* info);
void CopyFileRangeHandler(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info* from_info, fuse_ino_t to,
                          off_t to_offset, fuse_file_info* to_info, size_t length, int flags);

// ops_dirs.cc
void OpendirHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void ReaddirHandler(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info);
void ReaddirplusHandler(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info* info);
void ReleasedirHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info);
void FsyncdirHandler(fuse_req_t req, fuse_ino_t node, int data_only, fuse_file_info* info);

// ops_locks.cc
void GetlkHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info, struct flock* lock);
void SetlkHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info, struct flock* lock, int sleep);
void FlockHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info, int operation);

// ops_ioctl.cc
void IoctlHandler(fuse_req_t req, fuse_ino_t node, unsigned command, void* argument, fuse_file_info* info,
                  unsigned flags, const void* in, size_t in_size, size_t out_size);

// session.cc
void InitHandler(void* fs, fuse_conn_info* connection);

}  // namespace shoal::fuse
