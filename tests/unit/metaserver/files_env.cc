// Compiled without RTTI, as LevelDB is (metaserver/meta_env.cc).
#include "tests/unit/metaserver/files_env.h"

#include <leveldb/env.h>

#include <cstring>

namespace shoal::test {
namespace {

leveldb::Status Translate(const std::string& path, const Error& error) {
  if (error.code == ErrorCode::kNotFound) return leveldb::Status::NotFound(path, error.message);
  return leveldb::Status::IOError(path, error.message);
}
leveldb::Status Translate(const std::string& path, const Status& status) {
  return status ? leveldb::Status::OK() : Translate(path, status.error());
}
std::span<uint8_t> Into(char* scratch, size_t n) { return {reinterpret_cast<uint8_t*>(scratch), n}; }

// A file from its begin to its end. One thread.
class Sequential : public leveldb::SequentialFile {
 public:
  Sequential(std::unique_ptr<File> file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  leveldb::Status Read(size_t n, leveldb::Slice* result, char* scratch) override {
    auto read = file_->Read(at_, Into(scratch, n));
    if (!read) return Translate(path_, read.error());
    at_ += *read;
    *result = leveldb::Slice(scratch, *read);
    return leveldb::Status::OK();
  }
  leveldb::Status Skip(uint64_t n) override {
    at_ += n;
    return leveldb::Status::OK();
  }

 private:
  std::unique_ptr<File> file_;
  std::string path_;
  uint64_t at_ = 0;
};

// Any place of a file. Any thread.
class Random : public leveldb::RandomAccessFile {
 public:
  Random(std::unique_ptr<File> file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  leveldb::Status Read(uint64_t offset, size_t n, leveldb::Slice* result, char* scratch) const override {
    auto read = file_->Read(offset, Into(scratch, n));
    if (!read) return Translate(path_, read.error());
    *result = leveldb::Slice(scratch, *read);
    return leveldb::Status::OK();
  }

 private:
  std::unique_ptr<File> file_;
  std::string path_;
};

// A file that is written from its begin to its end. One thread.
class Writable : public leveldb::WritableFile {
 public:
  Writable(Files& files, std::unique_ptr<File> file, std::string path)
      : files_(files), file_(std::move(file)), path_(std::move(path)) {}
  ~Writable() override { (void)Flush(); }
  leveldb::Status Append(const leveldb::Slice& data) override {
    buffer_.append(data.data(), data.size());
    return buffer_.size() < 65536 ? leveldb::Status::OK() : Flush();
  }
  leveldb::Status Close() override { return Flush(); }
  leveldb::Status Flush() override {
    if (buffer_.empty()) return leveldb::Status::OK();
    Status written = file_->Write(at_, {reinterpret_cast<const uint8_t*>(buffer_.data()), buffer_.size()});
    at_ += buffer_.size();
    buffer_.clear();
    return Translate(path_, written);
  }
  leveldb::Status Sync() override {
    size_t slash = path_.rfind('/');
    if (path_.compare(slash + 1, 8, "MANIFEST") == 0) {
      Status names = files_.SyncDirectory(path_.substr(0, slash));
      if (!names) return Translate(path_, names);
    }
    leveldb::Status flushed = Flush();
    return flushed.ok() ? Translate(path_, file_->SyncData()) : flushed;
  }

 private:
  Files& files_;
  std::unique_ptr<File> file_;
  std::string path_, buffer_;
  uint64_t at_ = 0;
};

struct HeldLock : leveldb::FileLock {
  std::unique_ptr<File> file;
};
struct NoLogger : leveldb::Logger {
  void Logv(const char*, std::va_list) override {}
};

// See MakeFilesEnv. Any thread.
class FilesEnv : public leveldb::EnvWrapper {
 public:
  explicit FilesEnv(Files& files) : EnvWrapper(leveldb::Env::Default()), files_(files) {}

  leveldb::Status NewSequentialFile(const std::string& path, leveldb::SequentialFile** result) override {
    return OpenAs<Sequential>(path, result);
  }
  leveldb::Status NewRandomAccessFile(const std::string& path, leveldb::RandomAccessFile** result) override {
    return OpenAs<Random>(path, result);
  }
  leveldb::Status NewWritableFile(const std::string& path, leveldb::WritableFile** result) override {
    auto file = files_.Open(path, Files::Mode::kCreate);
    if (!file && file.error().code == ErrorCode::kExists) {
      file = files_.Open(path, Files::Mode::kReadWrite);
      Status emptied = file ? (*file)->Truncate(0) : Fail(file.error());
      if (!emptied) return Translate(path, emptied);
    }
    if (!file) return Translate(path, file.error());
    *result = new Writable(files_, std::move(*file), path);
    return leveldb::Status::OK();
  }
  leveldb::Status NewAppendableFile(const std::string& path, leveldb::WritableFile**) override {
    return leveldb::Status::NotSupported(path);
  }
  bool FileExists(const std::string& path) override {
    auto there = files_.Exists(path);
    return there && *there;
  }
  leveldb::Status GetChildren(const std::string& path, std::vector<std::string>* result) override {
    auto names = files_.List(path);
    if (!names) return Translate(path, names.error());
    *result = std::move(*names);
    return leveldb::Status::OK();
  }
  leveldb::Status RemoveFile(const std::string& path) override { return Translate(path, files_.Unlink(path)); }
  leveldb::Status CreateDir(const std::string& path) override { return Translate(path, files_.CreateDirectory(path)); }
  leveldb::Status RemoveDir(const std::string& path) override { return Translate(path, files_.RemoveDirectory(path)); }
  leveldb::Status GetFileSize(const std::string& path, uint64_t* size) override {
    auto file = files_.Open(path, Files::Mode::kRead);
    auto bytes = file ? (*file)->Size() : Result<uint64_t>(Fail(file.error()));
    if (!bytes) return Translate(path, bytes.error());
    *size = *bytes;
    return leveldb::Status::OK();
  }
  leveldb::Status RenameFile(const std::string& from, const std::string& to) override {
    return Translate(from, files_.Rename(from, to));
  }
  leveldb::Status LockFile(const std::string& path, leveldb::FileLock** result) override {
    auto file = files_.Lock(path);
    if (!file) return Translate(path, file.error());
    auto* lock = new HeldLock;
    lock->file = std::move(*file);
    *result = lock;
    return leveldb::Status::OK();
  }
  leveldb::Status UnlockFile(leveldb::FileLock* lock) override {
    delete static_cast<HeldLock*>(lock);
    return leveldb::Status::OK();
  }
  leveldb::Status NewLogger(const std::string&, leveldb::Logger** result) override {
    *result = new NoLogger;
    return leveldb::Status::OK();
  }

 private:
  template <typename Kind, typename Base>
  leveldb::Status OpenAs(const std::string& path, Base** result) {
    auto file = files_.Open(path, Files::Mode::kRead);
    if (!file) return Translate(path, file.error());
    *result = new Kind(std::move(*file), path);
    return leveldb::Status::OK();
  }
  Files& files_;
};

}  // namespace

std::unique_ptr<leveldb::Env> MakeFilesEnv(Files& files) { return std::make_unique<FilesEnv>(files); }

}  // namespace shoal::test
