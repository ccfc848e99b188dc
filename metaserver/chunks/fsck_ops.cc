#include "metaserver/chunks/fsck_ops.h"

#include <algorithm>

#include "metaserver/chunks/health.h"

namespace shoal::meta {
namespace {

constexpr Duration kPageTime = 500ms;
constexpr int kMaxFiles = 200;  // named in one answer
constexpr size_t kMaxBytes = 256 << 10;
constexpr int kMaxRanges = 100;  // of one file

}  // namespace

// Counts, and fills the answer. On the thread that steps.
class FsckOps::Judge final : public WalkVisitor {
 public:
  Judge() {
    for (int i = 0; i <= pb::LOST; i++) {
      totals_.add_files_by_safety(0);
      totals_.add_chunks_by_safety(0);
    }
  }
  void BeginPage(std::shared_ptr<const ClusterHealth> health, pb::FsckResponse* response) {
    health_ = std::move(health);
    response_ = response;
    bytes_ = 0;
  }
  pb::CheckTotals& totals() { return totals_; }

  void BeginFile(const std::string& path, InodeId inode, const pb::InodeRecord& record) override {
    file_.Clear();
    file_.set_path(path);
    file_.set_inode(inode.value);
    file_.set_size(record.size());
    totals_.set_files(totals_.files() + 1);
    totals_.set_bytes(totals_.bytes() + record.size());
  }
  void Chunk(uint64_t index, ChunkId chunk, const pb::ChunkRecord& record) override {
    pb::Safety safety = health_->Judge(chunk, record);
    totals_.set_chunks(totals_.chunks() + 1);
    totals_.set_chunks_by_safety(safety, totals_.chunks_by_safety(safety) + 1);
    file_.set_safety(std::max(file_.safety(), safety));
    if (!IsTrouble(safety)) return;
    auto blocks = health_->LostBlocksOf(chunk);
    if (safety != pb::LOST || blocks.empty()) blocks = {{0, kChunkSize / kBlockSize - 1}};
    for (auto [first, last] : blocks) {
      uint64_t begin = index * kChunkSize + uint64_t{first} * kBlockSize;
      uint64_t end = index * kChunkSize + (uint64_t{last} + 1) * kBlockSize;
      if (begin < file_.size()) AddRange(begin, std::min(end, file_.size()), safety);
    }
  }
  void EndFile() override {
    totals_.set_files_by_safety(file_.safety(), totals_.files_by_safety(file_.safety()) + 1);
    if (!IsTrouble(file_.safety())) return;
    bytes_ += file_.ByteSizeLong();
    response_->add_files()->Swap(&file_);
  }
  bool Full() const override { return response_->files_size() >= kMaxFiles || bytes_ >= kMaxBytes; }

 private:
  void AddRange(uint64_t begin, uint64_t end, pb::Safety safety) {
    int n = file_.ranges_size();
    if (n > 0) {
      pb::CheckedRange* last = file_.mutable_ranges(n - 1);
      if (last->offset() + last->length() == begin && last->safety() == safety) {
        last->set_length(end - last->offset());
        return;
      }
    }
    if (n >= kMaxRanges) {
      file_.set_ranges_left_out(file_.ranges_left_out() + 1);
      return;
    }
    pb::CheckedRange* range = file_.add_ranges();
    range->set_offset(begin);
    range->set_length(end - begin);
    range->set_safety(safety);
  }

  std::shared_ptr<const ClusterHealth> health_;
  pb::FsckResponse* response_ = nullptr;
  size_t bytes_ = 0;
  pb::CheckTotals totals_;
  pb::CheckedFile file_;
};

struct FsckOps::Run : WalkRun {
  using WalkRun::WalkRun;
  Judge judge;
};

FsckOps::FsckOps(ChunkState& state, WalkThread& thread)
    : state_(state), runs_(state, thread, [&state] { return std::make_shared<Run>(state.context.loop); }) {}

void FsckOps::Register() {
  state_.context.driver->OnTask<pb::FsckRequest, pb::FsckResponse>(
      pb::FSCK, [this](CallInfo info, const pb::FsckRequest& request, pb::FsckResponse& response) {
        return Fsck(std::move(info), request, response);
      });
}

Task<Result<TxnId>> FsckOps::Fsck(CallInfo, const pb::FsckRequest& request, pb::FsckResponse& response) {
  Task<Result<std::shared_ptr<WalkRun>>> take = runs_.Take(&request.walk());
  Result<std::shared_ptr<WalkRun>> taken = co_await take;
  if (!taken) co_return Fail(taken.error());
  if (!*taken) co_return TxnId();
  auto run = std::static_pointer_cast<Run>(*taken);
  Status done;
  if (!WalkRuns::Again(*run, request.walk())) {
    pb::FsckResponse page;
    Task<Status> work = Page(run.get(), &page);
    done = co_await work;
    if (done) {
      page.SerializeToString(&run->answer);
      run->page++;
    }
  }
  response.ParseFromString(run->answer);
  runs_.Leave(*run);
  if (!done) co_return Fail(done.error());
  co_return TxnId();
}

Task<Status> FsckOps::Page(Run* run, pb::FsckResponse* response) {
  auto until = std::chrono::steady_clock::now() + kPageTime;
  run->judge.BeginPage(std::make_shared<ClusterHealth>(state_), response);
  do {
    if (state_.stopping()) co_return Fail(ErrorCode::kUnavailable, "the metaserver stops");
    Task<Status> step = runs_.Step(run, &run->judge);
    Status stepped = co_await step;
    if (!stepped) co_return stepped;
  } while (!run->walk->done() && !run->judge.Full() && std::chrono::steady_clock::now() < until);
  run->judge.totals().set_directories(run->walk->directories());
  run->judge.totals().set_others(run->walk->others());
  *response->mutable_totals() = run->judge.totals();
  response->set_run(run->id);
  response->set_done(run->walk->done());
  response->set_inodes(static_cast<uint64_t>(std::max<int64_t>(0, state_.context.totals.inodes)));
  co_return Status();
}

}  // namespace shoal::meta
