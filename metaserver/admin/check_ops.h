// META_CHECK_START, META_CHECK_POLL, META_CHECK_STOP: the invariants of the state that is being served.
#pragma once

#include <memory>
#include <string>

#include "common/proto/admin.pb.h"
#include "metaserver/check/check.h"
#include "metaserver/driver.h"
#include "metaserver/reader_pool.h"

namespace shoal::meta {

// One check at a time, of a snapshot, on a thread of its own with low priority. It ends when nobody has asked for a
// minute. Namespace thread; owner: Core.
class CheckOps {
 public:
  CheckOps(MetaContext& context, leveldb::DB* db);
  ~CheckOps();
  void Register();
  // Tells the check under way to end. Its task is the driver's.
  void Stop();

 private:
  // One check: shared by its thread and who asks for it.
  struct Check {
    uint64_t id = 0;
    CheckProgress progress;
    bool done = false;
    std::optional<Result<CheckResult>> result;
    SteadyTime asked;
  };
  Task<Result<TxnId>> Start(CallInfo info, const pb::MetaCheckStartRequest& request,
                            pb::MetaCheckStartResponse& response);
  Task<Result<TxnId>> Poll(CallInfo info, const pb::MetaCheckPollRequest& request, pb::MetaCheckPollResponse& response);
  Task<Result<TxnId>> End(CallInfo info, const pb::MetaCheckStopRequest& request, pb::MetaCheckStopResponse& response);
  Task<void> Run(std::shared_ptr<Check> check);
  void Arm();

  MetaContext& context_;
  leveldb::DB* db_;
  ReaderPool pool_{1};
  std::shared_ptr<Check> check_;  // the last one
  std::unique_ptr<EventLoop::Timer> timer_;
};

}  // namespace shoal::meta
