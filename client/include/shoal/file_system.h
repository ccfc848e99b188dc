// libshoal: the C++ API of the Shoal distributed file system.
//
//   auto fs = shoal::FileSystem::Connect({.config_file = "shoal-dev/shoal.conf"});
//   auto file = (*fs)->Open("/logs/today", shoal::OpenOptions::Append());
//   file->Append("hello\n");
//   file->Fsync();
//
// Link with the CMake package: find_package(shoal), target shoal::shoal.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "shoal/error.h"
#include "shoal/types.h"

#define SHOAL_API __attribute__((visibility("default")))

namespace shoal {

namespace api_internal {
struct Shared;
struct FileState;
}  // namespace api_internal

// An open file. Owner: whoever got it from FileSystem::Open; movable. Any thread may call any function, also several
// at once; writes to overlapping ranges that run at the same time end in one order or the other. It keeps its
// FileSystem's connections alive.
//
// Offsets and lengths are bytes; a file has at most 2^52 of them. Errors: FsError, with EBADF after Close.
//
// Durability: bytes written are gathered in this process for at most a second (see ConnectOptions::write_memory) and
// are lost with it until Flush, Fsync, DataSync or Close has returned. After Fsync or DataSync they survive a power cut
// of the whole cluster. An error of writing out that happened in the background is returned once by the next of these
// four.
class SHOAL_API File {
 public:
  using Done = std::function<void(FsResult<size_t>)>;

  File() = default;  // not open
  ~File();           // closes; an error of that is lost (call Close to see it)
  File(File&&) noexcept;
  File& operator=(File&&) noexcept;

  bool is_open() const { return state_ != nullptr; }
  uint64_t inode() const;

  // Up to `length` bytes from `offset` into `to`; fewer only at the end of the file (0: at or behind it).
  FsResult<size_t> Pread(void* to, size_t length, uint64_t offset) const;
  // Writes all of it, or fails. A hole before it reads as zeros.
  FsResult<size_t> Pwrite(const void* from, size_t length, uint64_t offset);
  FsResult<size_t> Pwrite(std::string_view bytes, uint64_t offset) { return Pwrite(bytes.data(), bytes.size(), offset); }
  // Writes at the end, in one piece; returns the offset at which the bytes begin. Appends of one process never mix;
  // those of several processes to one file may overwrite each other.
  FsResult<uint64_t> Append(const void* from, size_t length);
  FsResult<uint64_t> Append(std::string_view bytes) { return Append(bytes.data(), bytes.size()); }

  // The same without waiting. The memory must stay until the future is ready or `done` was called. `done` runs on the
  // library's own thread: it must not wait for anything, least of all for this library.
  std::future<FsResult<size_t>> PreadAsync(void* to, size_t length, uint64_t offset) const;
  std::future<FsResult<size_t>> PwriteAsync(const void* from, size_t length, uint64_t offset);
  std::future<FsStatus> FsyncAsync();
  void PreadAsync(void* to, size_t length, uint64_t offset, Done done) const;
  void PwriteAsync(const void* from, size_t length, uint64_t offset, Done done);

  FsStatus Truncate(uint64_t size);  // cuts, or grows with zeros
  FsResult<uint64_t> Size() const;   // with what was written here and is still on its way
  FsResult<FileInfo> Stat() const;
  FsStatus Flush();                  // everything written is at the chunkservers, and others see it
  FsStatus Fsync();                  // ... and on the disks, with all metadata
  FsStatus DataSync();               // ... without times
  FsStatus Close();                  // Flush, and the end of this File, also when it fails

 private:
  friend class FileSystem;
  std::shared_ptr<api_internal::FileState> state_;
};

// One client of one cluster: a session, its connections and a thread. Owner: the program; it lives on while Files are
// open. Any thread may call any function, also several at once.
//
// Paths are bytes, separated by '/', taken from ConnectOptions::root (a leading '/' changes nothing); symbolic links
// are followed as in open(2), the last one too, except by Lstat, Remove, Rename, Readlink and Link.
//
// Errors: FsError with the errno that the system call of that name has. While no server answers, calls wait and repeat
// themselves (each change is done exactly once) until ConnectOptions::timeout, then ETIMEDOUT.
//
// Durability: changes of names and attributes, when a call returns, survive the death of any process, and a power cut
// two seconds later, or at once after Fsync of the file or SyncAll.
class SHOAL_API FileSystem {
 public:
  // Waits for a metaserver up to options.timeout.
  static FsResult<std::unique_ptr<FileSystem>> Connect(const ConnectOptions& options);
  ~FileSystem();  // Disconnect, if no File is open
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;

  // Writes out everything and ends the session; Files still open fail with EBADF or ECANCELED from now on.
  FsStatus Disconnect();

  FsResult<File> Open(std::string_view path, const OpenOptions& options = {});
  FsResult<FileInfo> Stat(std::string_view path);
  FsResult<FileInfo> Lstat(std::string_view path);
  FsResult<bool> Exists(std::string_view path);
  // All entries but "." and "..", in no order; entries made or removed meanwhile may be there or not.
  FsResult<std::vector<ListEntry>> List(std::string_view path);

  FsStatus Mkdir(std::string_view path, uint32_t mode = 0755);
  FsStatus Mkdirs(std::string_view path, uint32_t mode = 0755);  // with parents; fine if it exists
  FsStatus Remove(std::string_view path);                        // a file, a link, or an empty directory
  FsStatus Rename(std::string_view from, std::string_view to, bool replace = true);
  FsStatus Link(std::string_view existing, std::string_view path);
  FsStatus Symlink(std::string_view target, std::string_view path);
  FsResult<std::string> Readlink(std::string_view path);

  FsStatus Truncate(std::string_view path, uint64_t size);
  FsStatus Chmod(std::string_view path, uint32_t mode);
  FsStatus Chown(std::string_view path, std::optional<uint32_t> uid, std::optional<uint32_t> gid);
  // What is not given stays.
  FsStatus Utimens(std::string_view path, std::optional<FileTime> accessed, std::optional<FileTime> modified);
  FsResult<std::string> GetXattr(std::string_view path, std::string_view name);
  FsStatus SetXattr(std::string_view path, std::string_view name, std::string_view value);
  FsResult<std::vector<std::string>> ListXattr(std::string_view path);
  FsStatus RemoveXattr(std::string_view path, std::string_view name);

  FsResult<SpaceInfo> Statfs();
  // Everything written here, and everything the cluster has acknowledged to anyone, survives a power cut.
  FsStatus SyncAll();
  std::string cluster_uuid() const;

 private:
  explicit FileSystem(std::shared_ptr<api_internal::Shared> shared);
  std::shared_ptr<api_internal::Shared> shared_;
};

}  // namespace shoal
