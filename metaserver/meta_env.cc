// Compiled without RTTI, as LevelDB itself is: its EnvWrapper has no type information to derive from.
#include "metaserver/meta_env.h"

#include <leveldb/env.h>

namespace shoal::meta {

// LevelDB's own Env, with an ear for new files. Belongs to the LogTracker; LevelDB's threads call it.
class MetaEnv : public leveldb::EnvWrapper {
 public:
  MetaEnv(LogTracker* tracker, leveldb::Env* env) : EnvWrapper(env), tracker_(tracker) {}

  leveldb::Status NewWritableFile(const std::string& name, leveldb::WritableFile** file) override {
    leveldb::Status status = target()->NewWritableFile(name, file);
    if (!status.ok()) return status;
    Status durable;
    if (name.ends_with(".log")) durable = tracker_->Rotated(name);
    if (name.ends_with(".ldb")) durable = tracker_->SyncNames();
    if (durable) return status;
    delete *file;
    *file = nullptr;
    return leveldb::Status::IOError(name, durable.error().message);
  }

  leveldb::Status RenameFile(const std::string& from, const std::string& to) override {
    leveldb::Status status = target()->RenameFile(from, to);
    if (!status.ok() || !to.ends_with("/CURRENT")) return status;
    Status synced = tracker_->SyncNames();
    return synced ? status : leveldb::Status::IOError(to, synced.error().message);
  }

 private:
  LogTracker* tracker_;
};

LogTracker::LogTracker(std::string dir, StateFiles files)
    : dir_(std::move(dir)),
      files_(*files.files),
      env_(std::make_unique<MetaEnv>(this, files.env ? files.env : leveldb::Env::Default())) {}
LogTracker::~LogTracker() = default;

leveldb::Env* LogTracker::env() { return env_.get(); }

Status LogTracker::Rotated(const std::string& path) {
  // The old log first: batches in the new one must not be durable without those before them.
  TRY(Sync());
  TRY(SyncNames());
  TRY_ASSIGN(std::shared_ptr<File> log, files_.Open(path, Files::Mode::kRead));
  std::lock_guard lock(mutex_);
  rotations_.fetch_add(1, std::memory_order_relaxed);
  log_ = std::move(log);
  path_ = path;
  return {};
}

Status LogTracker::Sync() {
  std::shared_ptr<File> log;
  {
    std::lock_guard lock(mutex_);
    if (fail_) return Fail(ErrorCode::kIo, "syncing " + path_ + ": made to fail by a test");
    log = log_;
  }
  return log ? log->SyncData() : Status();
}

void LogTracker::FailSyncsForTest() {
  std::lock_guard lock(mutex_);
  fail_ = true;
}

}  // namespace shoal::meta
