// LogTracker: makes LevelDB's log durable in the right order, and on demand.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "common/files.h"
#include "common/result.h"
#include "metaserver/state_files.h"

namespace leveldb {
class Env;
}

namespace shoal::meta {

// Wraps LevelDB's Env. LevelDB itself never syncs a log that it leaves behind when its memory table is full, nor in time
// the directory: when a log is made, before a manifest names a table, before it deletes what only the manifest of before
// needed. Here all that is done when a log or a table is made, and when a manifest has become the current one. Sync makes
// everything that was written before the call durable. Owner: MetaServer; outlives the database. Sync is called on any
// thread.
class LogTracker {
 public:
  explicit LogTracker(std::string dir, StateFiles files = {});
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
  Status Rotated(const std::string& path);
  Status SyncNames() { return files_.SyncDirectory(dir_); }

  const std::string dir_;
  Files& files_;
  std::unique_ptr<leveldb::Env> env_;
  std::mutex mutex_;  // guards log_, path_ and fail_
  std::shared_ptr<File> log_;  // opened a second time; closed by the last of those who sync it
  std::string path_;
  bool fail_ = false;
  std::atomic<uint64_t> rotations_{0};
};

}  // namespace shoal::meta
