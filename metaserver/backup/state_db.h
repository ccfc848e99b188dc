// StateDb: a metaserver's LevelDB in the hands of a tool, while no metaserver serves it.
#pragma once

#include <memory>
#include <string>

#include "common/files.h"
#include "common/result.h"
#include "metaserver/meta_env.h"

namespace leveldb {
class Cache;
class DB;
class FilterPolicy;
}  // namespace leveldb

namespace shoal::meta {

// A directory of its own, deleted with all that is in it by the destructor. Owner: a tool; any thread.
class ScratchDirectory {
 public:
  // Makes a new one in `parent`.
  static Result<std::unique_ptr<ScratchDirectory>> Make(const std::string& parent, const std::string& name);
  ~ScratchDirectory();
  const std::string& path() const { return path_; }

 private:
  explicit ScratchDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// An open database. One thread. Errors of opening name the directory.
class StateDb {
 public:
  enum class Mode { kExisting, kNew };
  static Result<std::unique_ptr<StateDb>> Open(const std::string& db_dir, Mode mode, StateFiles files = {});
  // A copy in `scratch` of the state of the (stopped) metaserver at `db_dir`, which is not changed: LevelDB rewrites
  // its logs when it opens a database. Tables are linked where that is possible. `logs`: false: only what is in tables.
  static Result<std::unique_ptr<StateDb>> OpenCopy(const std::string& db_dir, const std::string& scratch, StateFiles files = {},
                                                    bool logs = true);
  ~StateDb();

  leveldb::DB* db() { return db_.get(); }
  // Everything written so far is durable when it returns.
  Status Sync();

 private:
  StateDb(const std::string& dir, StateFiles files);
  LogTracker log_;
  std::unique_ptr<const leveldb::FilterPolicy> filter_;
  std::unique_ptr<leveldb::Cache> cache_;
  std::unique_ptr<leveldb::DB> db_;
};

// The lock that a metaserver holds on its directory. kBusy: one runs there.
Result<std::unique_ptr<File>> LockStateDirectory(const std::string& dir, Files& files = RealFiles());
// Whether there is a LevelDB in it.
bool HasState(const std::string& dir, Files& files = RealFiles());

}  // namespace shoal::meta
