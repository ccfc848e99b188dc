// META_BACKUP_OPEN, META_BACKUP_READ, META_BACKUP_CLOSE: a consistent copy of the state while it is served.
#pragma once

#include <map>
#include <memory>

#include "common/proto/admin.pb.h"
#include "metaserver/driver.h"
#include "metaserver/reader_pool.h"

namespace leveldb {
class DB;
class Snapshot;
}  // namespace leveldb

namespace shoal::meta {

// Holds LevelDB snapshots for those who read them, a few at a time; one that nobody has read from for a minute is given
// up. Reading is done on the pool's thread, in pieces of about a megabyte, each by its first key: a piece can be asked
// for again. Nothing waits for it. Namespace thread; owner: Core.
class BackupOps {
 public:
  BackupOps(MetaContext& context, leveldb::DB* db, ReaderPool& pool);
  ~BackupOps();  // nothing is being read
  void Register();
  // Gives up all that is not being read.
  void Stop();

 private:
  struct Held {
    const leveldb::Snapshot* snapshot = nullptr;
    SteadyTime used;
    int reading = 0;
  };
  Task<Result<TxnId>> Open(CallInfo info, const pb::MetaBackupOpenRequest& request,
                           pb::MetaBackupOpenResponse& response);
  Task<Result<TxnId>> Read(CallInfo info, const pb::MetaBackupReadRequest& request,
                           pb::MetaBackupReadResponse& response);
  Task<Result<TxnId>> Close(CallInfo info, const pb::MetaBackupCloseRequest& request,
                            pb::MetaBackupCloseResponse& response);
  void GiveUpIdle(Duration idle);
  void Arm();

  MetaContext& context_;
  leveldb::DB* db_;
  ReaderPool& pool_;
  std::map<uint64_t, Held> held_;
  std::unique_ptr<EventLoop::Timer> timer_;
};

}  // namespace shoal::meta
