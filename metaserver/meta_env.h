// LogTracker: makes LevelDB's log durable in the right order, and on demand.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "common/result.h"

namespace leveldb {
class Env;
}

namespace shoal::meta {

// Wraps LevelDB's Env. LevelDB itself never syncs a log that it leaves behind when its memory table is full, nor the
// directory that a new log is created in: here both are synced when a log is created. Sync makes everything that was
// written before the call durable. Owner: MetaServer; outlives the database. Sync is called on any thread.
class LogTracker {
 public:
  explicit LogTracker(std::string dir);
  ~LogTracker();

  leveldb::Env* env();
  // fdatasync of the current log. An error is final: pages that failed to reach the disk are marked clean.
  Status Sync();
  // How many logs were begun so far: changes when LevelDB's memory table was full.
  uint64_t rotations() const { return rotations_.load(std::memory_order_relaxed); }
  // Tests: the next syncs fail.
  void FailSyncsForTest();

 private:
  friend class MetaEnv;
  // The log's second descriptor; closed by the last of those who sync it.
  struct Log {
    explicit Log(int f) : fd(f) {}
    ~Log();
    int fd;
  };
  Status Rotated(const std::string& path);
  static Status SyncFd(int fd, const std::string& what);

  const std::string dir_;
  std::unique_ptr<leveldb::Env> env_;
  std::mutex mutex_;  // guards log_, path_ and fail_
  std::shared_ptr<Log> log_;
  std::string path_;
  bool fail_ = false;
  std::atomic<uint64_t> rotations_{0};
};

}  // namespace shoal::meta
