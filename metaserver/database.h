// Database: opens LevelDB as the metaserver uses it, or makes a new file system in it.
#pragma once

#include <memory>
#include <string>

#include "common/files.h"
#include "common/proto/record.pb.h"
#include "common/result.h"
#include "metaserver/meta_env.h"
#include "metaserver/options.h"

namespace leveldb {
class Cache;
class DB;
class FilterPolicy;
}  // namespace leveldb

namespace shoal::meta {

inline constexpr uint32_t kFormat = 1;

// The open database, and the records that are read at the start. Owner: Core; opened and closed on a plain thread,
// when nothing else uses it. While it is open no other process can open it.
class Database {
 public:
  // Errors name the directory and the next step: in use by another process, of another program, a newer format,
  // damaged.
  static Result<std::unique_ptr<Database>> Open(const MetaServerOptions& options);
  ~Database();

  leveldb::DB* db() { return db_.get(); }
  LogTracker* log() { return &log_; }
  const pb::ClusterRecord& cluster() const { return cluster_; }
  const pb::LifeRecord& life() const { return life_; }
  const pb::IdRanges& ids() const { return ids_; }
  const pb::CommitRecord& last() const { return last_; }

 private:
  explicit Database(const MetaServerOptions& options);
  Status OpenLevelDb(size_t write_buffer_bytes);
  Status ReadHead();
  Status CreateFileSystem(const MetaServerOptions& options);
  bool Empty();

  const std::string dir_;
  std::unique_ptr<File> lock_;
  LogTracker log_;
  std::unique_ptr<const leveldb::FilterPolicy> filter_;
  std::unique_ptr<leveldb::Cache> cache_;
  std::unique_ptr<leveldb::DB> db_;
  pb::ClusterRecord cluster_;
  pb::LifeRecord life_;
  pb::IdRanges ids_;
  pb::CommitRecord last_;
};

}  // namespace shoal::meta
