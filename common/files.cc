#include "common/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/checksum.h"

namespace shoal {
namespace {

std::unexpected<Error> FailErrno(std::string_view call, const std::string& path) {
  int error = errno;
  return Fail(ErrnoError(error, std::string(call) + " " + path));
}

class PosixFile : public File {
 public:
  PosixFile(int fd, std::string path, bool writable) : fd_(fd), path_(std::move(path)), writable_(writable) {}
  ~PosixFile() override { close(fd_); }

  Result<size_t> Read(uint64_t offset, std::span<uint8_t> into) override {
    size_t done = 0;
    while (done < into.size()) {
      ssize_t n = pread(fd_, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FailErrno("read", path_);
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

  Result<size_t> ReadCached(uint64_t offset, std::span<uint8_t> into) override {
    size_t done = 0;
    while (done < into.size()) {
      iovec piece{into.data() + done, into.size() - done};
      ssize_t n = preadv2(fd_, &piece, 1, static_cast<off_t>(offset + done), RWF_NOWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && (errno == EAGAIN || errno == EOPNOTSUPP)) return Fail(ErrorCode::kWouldBlock);
      if (n < 0) return FailErrno("read", path_);
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

  Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    TRY(CheckWritable());
    size_t done = 0;
    while (done < bytes.size()) {
      ssize_t n = pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FailErrno("write", path_);
      done += static_cast<size_t>(n);
    }
    return {};
  }

  Status SyncData() override { return fdatasync(fd_) == 0 ? Status() : FailErrno("fdatasync", path_); }
  Status SyncFileSystem() override { return syncfs(fd_) == 0 ? Status() : FailErrno("syncfs", path_); }
  Status Truncate(uint64_t size) override {
    TRY(CheckWritable());
    return ftruncate(fd_, static_cast<off_t>(size)) == 0 ? Status() : FailErrno("truncate", path_);
  }
  Status PunchHole(uint64_t offset, uint64_t length) override {
    TRY(CheckWritable());
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (fallocate(fd_, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0) return {};
    return FailErrno("punch a hole in", path_);
  }
  Result<uint64_t> Size() override {
    struct stat st;
    if (fstat(fd_, &st) != 0) return FailErrno("stat", path_);
    return static_cast<uint64_t>(st.st_size);
  }
  Result<uint64_t> AllocatedBytes() override {
    struct stat st;
    if (fstat(fd_, &st) != 0) return FailErrno("stat", path_);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }

  // Only where a file keeps its number for life; elsewhere (FUSE, NFS) it may have another one when it is opened again.
  uint64_t Number() override {
    struct statfs fs;
    struct stat st;
    if (fstatfs(fd_, &fs) != 0 || fstat(fd_, &st) != 0) return 0;
    switch (static_cast<uint64_t>(fs.f_type)) {
      case EXT4_SUPER_MAGIC:
      case XFS_SUPER_MAGIC:
      case BTRFS_SUPER_MAGIC:
      case TMPFS_MAGIC:
        return st.st_ino;
      default:
        return 0;
    }
  }

  void DropCached(uint64_t offset, uint64_t length) override {
    posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(length), POSIX_FADV_DONTNEED);
  }

 private:
  Status CheckWritable() const {
    return writable_ ? Status() : Fail(ErrorCode::kReadOnly, path_ + " was opened to be read only");
  }

  int fd_;
  std::string path_;
  bool writable_;
};

class PosixFiles : public Files {
 public:
  Result<std::unique_ptr<File>> Open(const std::string& path, Mode mode) override {
    int flags = O_CLOEXEC | O_NOFOLLOW;
    flags |= mode == Mode::kRead ? O_RDONLY : O_RDWR;
    if (mode == Mode::kCreate) flags |= O_CREAT | O_EXCL;
    int fd = open(path.c_str(), flags, 0640);
    if (fd < 0) return FailErrno("open", path);
    return std::make_unique<PosixFile>(fd, path, mode != Mode::kRead);
  }

  Result<std::vector<std::string>> List(const std::string& path) override {
    DIR* dir = opendir(path.c_str());
    if (!dir) return FailErrno("list", path);
    std::vector<std::string> names;
    errno = 0;
    while (dirent* entry = readdir(dir)) {
      std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    int error = errno;
    closedir(dir);
    if (error != 0) return Fail(ErrnoError(error, "list " + path));
    return names;
  }

  Status CreateDirectory(const std::string& path) override {
    return mkdir(path.c_str(), 0750) == 0 ? Status() : FailErrno("make directory", path);
  }
  Status Rename(const std::string& from, const std::string& to) override {
    return rename(from.c_str(), to.c_str()) == 0 ? Status() : FailErrno("rename to " + to + " from", from);
  }
  Status Unlink(const std::string& path) override {
    return unlink(path.c_str()) == 0 ? Status() : FailErrno("remove", path);
  }
  Status Link(const std::string& from, const std::string& to) override {
    return link(from.c_str(), to.c_str()) == 0 ? Status() : FailErrno("link to " + to + " from", from);
  }
  Status RemoveDirectory(const std::string& path) override {
    return rmdir(path.c_str()) == 0 ? Status() : FailErrno("remove directory", path);
  }
  Result<bool> Exists(const std::string& path) override {
    struct stat st;
    if (lstat(path.c_str(), &st) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return FailErrno("stat", path);
  }

  Status SyncDirectory(const std::string& path) override {
    int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return FailErrno("open directory", path);
    Status status = fsync(fd) == 0 ? Status() : FailErrno("fsync directory", path);
    close(fd);
    return status;
  }

  Result<FileSystemSpace> Space(const std::string& path) override {
    struct statvfs vfs;
    struct stat st;
    if (statvfs(path.c_str(), &vfs) != 0 || stat(path.c_str(), &st) != 0) return FailErrno("statvfs", path);
    return FileSystemSpace{vfs.f_blocks * vfs.f_frsize, vfs.f_bavail * vfs.f_frsize, static_cast<uint64_t>(st.st_dev)};
  }

  Result<std::unique_ptr<File>> Lock(const std::string& path) override {
    int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) return FailErrno("open", path);
    auto file = std::make_unique<PosixFile>(fd, path, true);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return file;
    if (errno == EWOULDBLOCK) return Fail(ErrorCode::kBusy, path + " is locked by another process");
    return FailErrno("lock", path);
  }

  uint64_t BootId() override {
    static const uint64_t id = [this]() -> uint64_t {
      uint8_t text[64];  // a file of /proc, whose size says nothing
      auto file = Open("/proc/sys/kernel/random/boot_id", Mode::kRead);
      auto size = file ? (*file)->Read(0, text) : Result<size_t>(0);
      return size && *size > 0 ? Checksum(text, *size) : 0;
    }();
    return id;
  }
};

}  // namespace

Files& RealFiles() {
  static PosixFiles files;
  return files;
}

Result<std::string> ReadSmallFile(Files& files, const std::string& path, size_t limit) {
  TRY_ASSIGN(auto file, files.Open(path, Files::Mode::kRead));
  TRY_ASSIGN(uint64_t size, file->Size());
  if (size > limit) return Fail(ErrorCode::kTooLarge, path + " is larger than " + std::to_string(limit) + " bytes");
  std::string content(size, '\0');
  TRY_ASSIGN(size_t n, file->Read(0, {reinterpret_cast<uint8_t*>(content.data()), content.size()}));
  content.resize(n);
  return content;
}

Status ReplaceFile(Files& files, const std::string& directory, const std::string& name, std::string_view content) {
  std::string temporary = directory + "/" + name + ".new";
  if (Status gone = files.Unlink(temporary); !gone && gone.error().code != ErrorCode::kNotFound) return gone;
  TRY_ASSIGN(auto file, files.Open(temporary, Files::Mode::kCreate));
  TRY(file->Write(0, {reinterpret_cast<const uint8_t*>(content.data()), content.size()}));
  TRY(file->SyncData());
  TRY(files.Rename(temporary, directory + "/" + name));
  return files.SyncDirectory(directory);
}

Status MakeDirectories(Files& files, const std::string& path) {
  TRY_ASSIGN(bool there, files.Exists(path));
  if (there || path.empty()) return {};
  size_t slash = path.find_last_not_of('/');
  slash = path.rfind('/', slash);
  std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  TRY(MakeDirectories(files, parent));
  Status made = files.CreateDirectory(path);
  if (!made && made.error().code != ErrorCode::kExists) return made;
  return files.SyncDirectory(parent);
}

Status RemoveTree(Files& files, const std::string& path) {
  TRY_ASSIGN(bool there, files.Exists(path));
  if (!there) return {};
  auto names = files.List(path);
  if (!names) return files.Unlink(path);
  for (const std::string& name : *names) {
    TRY(RemoveTree(files, path + "/" + name));
  }
  return files.RemoveDirectory(path);
}

}  // namespace shoal
