#include "metaserver/admin/check_ops.h"

#include <leveldb/db.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "common/log.h"

namespace shoal::meta {
namespace {

constexpr Duration kAbandoned = 60s, kTick = 5s;
constexpr int kNice = 10;

// Left by a process that was killed in a check.
void RemoveOldScratch(const std::string& dir) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (entry.path().filename().string().starts_with("check-")) std::filesystem::remove_all(entry.path(), error);
  }
}

}  // namespace

CheckOps::CheckOps(MetaContext& context, leveldb::DB* db) : context_(context), db_(db) {}

CheckOps::~CheckOps() { pool_.Stop(); }

void CheckOps::Register() {
  using namespace std::placeholders;
  Driver& driver = *context_.driver;
  driver.OnTask<pb::MetaCheckStartRequest, pb::MetaCheckStartResponse>(pb::META_CHECK_START,
                                                                       std::bind(&CheckOps::Start, this, _1, _2, _3));
  driver.OnTask<pb::MetaCheckPollRequest, pb::MetaCheckPollResponse>(pb::META_CHECK_POLL,
                                                                     std::bind(&CheckOps::Poll, this, _1, _2, _3));
  driver.OnTask<pb::MetaCheckStopRequest, pb::MetaCheckStopResponse>(pb::META_CHECK_STOP,
                                                                     std::bind(&CheckOps::End, this, _1, _2, _3));
  RemoveOldScratch(context_.options.data_dir);
  pool_.Run([] { ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice); });
  Arm();
}

void CheckOps::Arm() {
  timer_ = context_.loop.RunAfter(kTick, [this] {
    bool abandoned = check_ && !check_->done && std::chrono::steady_clock::now() - check_->asked > kAbandoned;
    if (abandoned) check_->progress.stop = true;
    Arm();
  });
}

void CheckOps::Stop() {
  timer_.reset();
  if (check_) check_->progress.stop = true;
}

Task<Result<TxnId>> CheckOps::Start(CallInfo, const pb::MetaCheckStartRequest&, pb::MetaCheckStartResponse& response) {
  if (check_ && !check_->done) {
    co_return Fail(ErrorCode::kBusy, "the metadata is being checked already, for another who asked: try again later");
  }
  static thread_local std::mt19937_64 random{std::random_device{}()};
  check_ = std::make_shared<Check>();
  check_->id = random() | 1;
  check_->asked = std::chrono::steady_clock::now();
  response.set_id(check_->id);
  context_.driver->Spawn(Run(check_));
  co_return TxnId();
}

Task<void> CheckOps::Run(std::shared_ptr<Check> check) {
  OneShot<Result<CheckResult>> done(context_.loop);
  const leveldb::Snapshot* snapshot = db_->GetSnapshot();
  pool_.Run([this, snapshot, check, &done] {
    auto result = std::make_shared<Result<CheckResult>>(
        CheckState(db_, snapshot, context_.options.data_dir, check->progress, context_.hash_bits));
    context_.loop.Post([&done, result] { done.Set(std::move(*result)); });
  });
  Result<CheckResult> result = co_await done;
  db_->ReleaseSnapshot(snapshot);
  if (result) LogInfo("the metadata was checked: {} problems", result->problems);
  check->result.emplace(std::move(result));
  check->done = true;
}

Task<Result<TxnId>> CheckOps::Poll(CallInfo, const pb::MetaCheckPollRequest& request,
                                   pb::MetaCheckPollResponse& response) {
  if (!check_ || check_->id != request.id()) {
    co_return Fail(ErrorCode::kNotFound,
                   "this check is gone (the metaserver was started again, or another check was begun): "
                   "begin anew");
  }
  Check& check = *check_;
  check.asked = std::chrono::steady_clock::now();
  response.set_done(check.done);
  response.set_phase(check.progress.phase.load());
  response.set_records(check.progress.records);
  response.set_estimated_records(check.progress.estimated);
  if (!check.done) co_return TxnId();
  if (!*check.result) {
    response.set_error(check.result->error().message);
    co_return TxnId();
  }
  const CheckResult& result = **check.result;
  response.set_problems(result.problems);
  for (const pb::MetaFinding& finding : result.findings) *response.add_findings() = finding;
  response.set_cluster_uuid(result.cluster_uuid);
  response.set_incarnation(result.incarnation);
  response.set_txn(result.txn);
  response.set_inodes(result.inodes);
  response.set_names(result.names);
  response.set_chunks(result.chunks);
  response.set_replicas(result.replicas);
  co_return TxnId();
}

Task<Result<TxnId>> CheckOps::End(CallInfo, const pb::MetaCheckStopRequest& request, pb::MetaCheckStopResponse&) {
  if (check_ && check_->id == request.id()) check_->progress.stop = true;
  co_return TxnId();
}

}  // namespace shoal::meta
