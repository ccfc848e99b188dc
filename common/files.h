// The file seam: what Shoal asks of a file system, as an interface, so that tests can make calls fail, disks run full,
// bits flip, and power cuts forget what was not synced (tests/support/fake_files.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace shoal {

// An open file. Any thread, also several at once; closed by its destructor. Errors carry the path and the errno's
// code: kNoSpace for a full disk, kIo for a failing one.
class File {
 public:
  virtual ~File() = default;

  // Reads until `into` is full or the end of the file; the number of bytes read.
  virtual Result<size_t> Read(uint64_t offset, std::span<uint8_t> into) = 0;
  // The same without ever waiting for a disk: kWouldBlock when not all of it is in memory.
  virtual Result<size_t> ReadCached(uint64_t offset, std::span<uint8_t> into) = 0;
  // Writes all of it. After an error any part of it may have been written. Not durable.
  virtual Status Write(uint64_t offset, std::span<const uint8_t> bytes) = 0;
  // Durable when it returns. After an error what was written since the last success is lost or not, nobody knows:
  // calling it again proves nothing.
  virtual Status SyncData() = 0;
  // Every file of the file system this one is in.
  virtual Status SyncFileSystem() = 0;
  virtual Status Truncate(uint64_t size) = 0;
  // Gives the space back; the range reads as zeros. Where the file system can't: kNotSupported, and nothing is done.
  virtual Status PunchHole(uint64_t offset, uint64_t length) = 0;
  virtual Result<uint64_t> Size() = 0;
  virtual Result<uint64_t> AllocatedBytes() = 0;
  // Tells it from every other file of its file system, whatever their names; 0: not known.
  virtual uint64_t Number() { return 0; }
  // The next read of the range comes from the disk, as far as nothing there waits to be written.
  virtual void DropCached(uint64_t offset, uint64_t length) { (void)offset, (void)length; }
};

// Space of the file system that a path is on. A plain value.
struct FileSystemSpace {
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;  // for ordinary users
  uint64_t id = 0;          // the same for two paths on one file system
};

// Files and directories by path. Any thread. Outlives the files opened with it. Errors as in File; a missing path is
// kNotFound. Changes of names are durable after SyncDirectory of the directory.
class Files {
 public:
  virtual ~Files() = default;

  // kCreate: kExists if it is there. Writes to a file opened with kRead are kReadOnly.
  enum class Mode { kRead, kReadWrite, kCreate };
  virtual Result<std::unique_ptr<File>> Open(const std::string& path, Mode mode) = 0;
  // Names in a directory, without "." and "..", in no order.
  virtual Result<std::vector<std::string>> List(const std::string& path) = 0;
  virtual Status CreateDirectory(const std::string& path) = 0;
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Status Unlink(const std::string& path) = 0;
  // A second name for a file, on the same file system.
  virtual Status Link(const std::string& from, const std::string& to) = 0;
  // An empty one.
  virtual Status RemoveDirectory(const std::string& path) = 0;
  // Whether there is a file or a directory of that name.
  virtual Result<bool> Exists(const std::string& path) = 0;
  virtual Status SyncDirectory(const std::string& path) = 0;
  virtual Result<FileSystemSpace> Space(const std::string& path) = 0;
  // Creates the file and locks it until the result is destroyed; kBusy when another process (or another lock of
  // this one) has it.
  virtual Result<std::unique_ptr<File>> Lock(const std::string& path) = 0;
  // Of the operating system's run: what was written in another one and not synced may be lost. 0: not known.
  virtual uint64_t BootId() { return 0; }
};

// The operating system's.
Files& RealFiles();

// A small file as a whole.
Result<std::string> ReadSmallFile(Files& files, const std::string& path, size_t limit = 1 << 20);
// Replaces (or creates) directory/name at one instant; durable when it returns.
Status ReplaceFile(Files& files, const std::string& directory, const std::string& name, std::string_view content);
// The directory and those above it, as far as they are missing; durable when it returns.
Status MakeDirectories(Files& files, const std::string& path);
// A directory with all that is in it, if it is there. Not durable.
Status RemoveTree(Files& files, const std::string& path);

}  // namespace shoal
