// What the actors share: the two ways to a file, and the one that appends.
#include "tests/fault/actors.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace shoal::test {
namespace {

std::string Errno(const char* what) { return std::string(what) + ": " + strerror(errno); }

class MountedFile : public OpenFile {
 public:
  explicit MountedFile(std::string path) : path_(std::move(path)) {}
  ~MountedFile() override {
    if (fd_ >= 0) close(fd_);
  }
  std::string Open(bool append) override {
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (append ? O_APPEND : 0), 0644);
    return fd_ < 0 ? Errno("open") : "";
  }
  std::string Write(const std::string& bytes, uint64_t offset) override {
    ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    return Whole("pwrite", n, bytes.size());
  }
  std::string Append(const std::string& bytes) override {
    return Whole("write", write(fd_, bytes.data(), bytes.size()), bytes.size());
  }
  std::string Read(uint64_t offset, size_t size, std::string* bytes) override {
    posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
    bytes->resize(size);
    size_t done = 0;
    while (done < size) {
      ssize_t n = pread(fd_, bytes->data() + done, size - done, static_cast<off_t>(offset + done));
      if (n < 0) return Errno("pread");
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    bytes->resize(done);
    return {};
  }
  std::string Truncate(uint64_t size) override {
    return ftruncate(fd_, static_cast<off_t>(size)) != 0 ? Errno("ftruncate") : "";
  }
  std::string Sync(bool data_only) override {
    return (data_only ? fdatasync(fd_) : fsync(fd_)) != 0 ? Errno(data_only ? "fdatasync" : "fsync") : "";
  }
  std::string Close() override { return close(std::exchange(fd_, -1)) != 0 ? Errno("close") : ""; }

 private:
  static std::string Whole(const char* what, ssize_t n, size_t size) {
    if (n < 0) return Errno(what);
    return n == static_cast<ssize_t>(size) ? "" : std::string(what) + ": only a part";
  }
  std::string path_;
  int fd_ = -1;
};

template <typename T>
std::string Text(const char* what, const FsResult<T>& result) {
  return result ? "" : std::string("API ") + what + ": " + result.error().message;
}

class ApiOpenFile : public OpenFile {
 public:
  ApiOpenFile(std::string config, std::string path) : config_(std::move(config)), path_("/" + path) {}
  std::string Open(bool append) override {
    if (!fs_) {
      ConnectOptions options;
      options.config_file = config_;
      auto fs = FileSystem::Connect(options);
      if (!fs) return Text("connect", fs);
      fs_ = std::move(*fs);
    }
    OpenOptions options = OpenOptions::ReadWrite();
    options.append = append;
    auto file = fs_->Open(path_, options);
    if (!file) return Text("open", file);
    file_ = std::move(*file);
    return {};
  }
  std::string Write(const std::string& bytes, uint64_t offset) override {
    return Text("pwrite", file_.Pwrite(bytes, offset));
  }
  std::string Append(const std::string& bytes) override { return Text("append", file_.Append(bytes)); }
  std::string Read(uint64_t offset, size_t size, std::string* bytes) override {
    bytes->resize(size);
    auto n = file_.Pread(bytes->data(), size, offset);
    if (n) bytes->resize(*n);
    return Text("pread", n);
  }
  std::string Truncate(uint64_t size) override { return Text("truncate", file_.Truncate(size)); }
  std::string Sync(bool data_only) override { return Text("fsync", data_only ? file_.DataSync() : file_.Fsync()); }
  std::string Close() override { return Text("close", file_.Close()); }

 private:
  std::string config_, path_;
  std::unique_ptr<FileSystem> fs_;
  File file_;
};

}  // namespace

std::unique_ptr<OpenFile> MountFile(const Cluster& cluster, const std::string& path) {
  return std::make_unique<MountedFile>(cluster.Path(path));
}

std::unique_ptr<OpenFile> ApiFile(const Cluster& cluster, const std::string& path) {
  return std::make_unique<ApiOpenFile>(cluster.config(), path);
}

std::string Actor::Bytes(size_t size) {
  std::string bytes(size, '\0');
  for (size_t at = 0; at < size; at += 8) {
    uint64_t word = random_();
    memcpy(bytes.data() + at, &word, std::min<size_t>(8, size - at));
  }
  return bytes;
}

AppendActor::AppendActor(const Cluster& cluster, std::string name, uint64_t seed, FileMaker maker)
    : Actor(std::move(name), seed), cluster_(cluster), maker_(maker), file_(maker(cluster, this->name())) {
  if (std::string error = file_->Open(true); !error.empty()) Broken(error);
}

// Its length follows from its number, so that a lost, doubled or torn record shifts all behind it.
std::string AppendActor::Record(uint64_t number) const {
  std::string record = name() + " " + std::to_string(number) + " ";
  record.resize(40 + number * 37 % 5000, static_cast<char>('a' + number % 26));
  return record + "\n";
}

void AppendActor::Round() {
  std::string record = Record(records_);
  std::string error = Call([&] { return file_->Append(record); });
  if (!error.empty()) return Broken(error);
  starts_.push_back(bytes_);
  ++records_;
  bytes_ += record.size();
  if (Below(20) == 0) {
    if (error = Call([&] { return file_->Sync(false); }); !error.empty()) return Broken(error);
  }
  if (Below(10) == 0) {
    uint64_t number = Below(records_);
    std::string bytes, wanted = Record(number);
    if (error = Call([&] { return file_->Read(starts_[number], wanted.size(), &bytes); }); !error.empty())
      return Broken(error);
    if (bytes != wanted)
      Broken("record " + std::to_string(number) + " of " + std::to_string(records_) + " is not what was appended");
  }
}

std::string AppendActor::Verify() {
  std::unique_ptr<OpenFile> again = maker_(cluster_, name());
  std::string bytes;
  if (std::string error = again->Open(false); !error.empty()) return error;
  if (std::string error = again->Read(0, bytes_ + 1, &bytes); !error.empty()) return error;
  if (bytes.size() != bytes_)
    return name() + " has " + std::to_string(bytes.size()) + " bytes, not " + std::to_string(bytes_);
  for (uint64_t number = 0; number < records_; ++number) {
    std::string wanted = Record(number);
    if (bytes.compare(starts_[number], wanted.size(), wanted) != 0)
      return name() + ": record " + std::to_string(number) + " is wrong";
  }
  return again->Close();
}

}  // namespace shoal::test
