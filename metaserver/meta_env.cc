// Compiled without RTTI, as LevelDB itself is: its EnvWrapper has no type information to derive from.
#include "metaserver/meta_env.h"

#include <fcntl.h>
#include <leveldb/env.h>
#include <unistd.h>

#include <cerrno>

namespace shoal::meta {

namespace {
bool IsLog(const std::string& name) { return name.ends_with(".log"); }
}  // namespace

// LevelDB's own Env, with an ear for new log files. Belongs to the LogTracker; LevelDB's threads call it.
class MetaEnv : public leveldb::EnvWrapper {
 public:
  explicit MetaEnv(LogTracker* tracker) : EnvWrapper(leveldb::Env::Default()), tracker_(tracker) {}

  leveldb::Status NewWritableFile(const std::string& name, leveldb::WritableFile** file) override {
    leveldb::Status status = target()->NewWritableFile(name, file);
    if (!status.ok() || !IsLog(name)) return status;
    Status rotated = tracker_->Rotated(name);
    if (rotated) return status;
    delete *file;
    *file = nullptr;
    return leveldb::Status::IOError(name, rotated.error().message);
  }

 private:
  LogTracker* tracker_;
};

LogTracker::Log::~Log() { ::close(fd); }

LogTracker::LogTracker(std::string dir) : dir_(std::move(dir)), env_(std::make_unique<MetaEnv>(this)) {}
LogTracker::~LogTracker() = default;

leveldb::Env* LogTracker::env() { return env_.get(); }

Status LogTracker::SyncFd(int fd, const std::string& what) {
  if (::fdatasync(fd) == 0) return {};
  return Fail(ErrnoError(errno, "syncing " + what));
}

Status LogTracker::Rotated(const std::string& path) {
  // The old log first: batches in the new one must not be durable without those before them.
  TRY(Sync());
  int dir = ::open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return Fail(ErrnoError(errno, "opening " + dir_));
  int synced = ::fsync(dir);
  int error = errno;
  ::close(dir);
  if (synced != 0) return Fail(ErrnoError(error, "syncing " + dir_));
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Fail(ErrnoError(errno, "opening " + path));
  std::lock_guard lock(mutex_);
  rotations_.fetch_add(1, std::memory_order_relaxed);
  log_ = std::make_shared<Log>(fd);
  path_ = path;
  return {};
}

Status LogTracker::Sync() {
  std::shared_ptr<Log> log;
  std::string path;
  {
    std::lock_guard lock(mutex_);
    if (fail_) return Fail(ErrorCode::kIo, "syncing " + path_ + ": made to fail by a test");
    log = log_;
    path = path_;
  }
  if (!log) return {};
  return SyncFd(log->fd, path);
}

void LogTracker::FailSyncsForTest() {
  std::lock_guard lock(mutex_);
  fail_ = true;
}

}  // namespace shoal::meta
