#include "metaserver/chunks/scrub_ops.h"

#include <algorithm>

#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/health.h"

namespace shoal::meta {
namespace {

constexpr Duration kPageTime = 1s;
constexpr size_t kChunksAtOnce = 4;
constexpr size_t kChunksAhead = 64;
constexpr int kMaxFindings = 200;   // in one answer
constexpr size_t kMaxKept = 10000;  // whose repair can be asked for
constexpr size_t kMaxQueued = 10000;
constexpr size_t kComparesAtOnce = 2;

}  // namespace

// A chunk to be read, and where it belongs.
struct ScrubOps::Item {
  std::string path;
  uint64_t inode = 0;
  uint64_t index = 0;
  ChunkId chunk;
};

// Queues chunks. On the thread that steps.
class ScrubOps::Collector final : public WalkVisitor {
 public:
  void BeginFile(const std::string& path, InodeId inode, const pb::InodeRecord&) override {
    path_ = path;
    inode_ = inode;
    files++;
  }
  void Chunk(uint64_t index, ChunkId chunk, const pb::ChunkRecord& record) override {
    if (record.written()) items.push_back({path_, inode_.value, index, chunk});
  }
  void EndFile() override {}
  bool Full() const override { return items.size() >= kChunksAhead; }

  std::deque<Item> items;
  uint64_t files = 0;

 private:
  std::string path_;
  InodeId inode_;
};

struct ScrubOps::Run : WalkRun {
  // A finding, and the chunk and copy that it is of.
  struct Kept {
    pb::ScrubFinding finding;
    ChunkId chunk;
    InstanceId instance;
  };
  using WalkRun::WalkRun;
  Collector collector;
  size_t in_work = 0;
  uint64_t chunks = 0, replicas = 0, bytes = 0;
  std::deque<pb::ScrubFinding> fresh;  // not answered yet
  std::vector<Kept> kept;
};

ScrubOps::ScrubOps(ChunkState& state, WalkThread& thread)
    : state_(state),
      runs_(state, thread, [&state] { return std::make_shared<Run>(state.context.loop); }),
      checker_(state) {}

void ScrubOps::Register() {
  Driver& driver = *state_.context.driver;
  driver.OnTask<pb::ScrubRequest, pb::ScrubResponse>(
      pb::SCRUB, [this](CallInfo info, const pb::ScrubRequest& request, pb::ScrubResponse& response) {
        return Scrub(std::move(info), request, response);
      });
  driver.OnTask<pb::ScrubbedRequest, pb::ScrubbedResponse>(
      pb::SCRUBBED, [this](CallInfo info, const pb::ScrubbedRequest& request, pb::ScrubbedResponse& response) {
        return Scrubbed(std::move(info), request, response);
      });
}

void ScrubOps::Tick() {
  runs_.Tick();
  StartSome();
}

Task<Result<TxnId>> ScrubOps::Scrub(CallInfo, const pb::ScrubRequest& request, pb::ScrubResponse& response) {
  Task<Result<std::shared_ptr<WalkRun>>> take = runs_.Take(&request.walk());
  Result<std::shared_ptr<WalkRun>> taken = co_await take;
  if (!taken) co_return Fail(taken.error());
  if (!*taken) co_return TxnId();
  auto run = std::static_pointer_cast<Run>(*taken);
  Status done;
  if (request.repairs()) {
    Task<Status> repairs = Repairs(run.get(), &response);
    done = co_await repairs;
  } else {
    if (!WalkRuns::Again(*run, request.walk())) {
      pb::ScrubResponse page;
      Task<Status> work = Page(run, &page);
      done = co_await work;
      if (done) {
        page.SerializeToString(&run->answer);
        run->page++;
      }
    }
    response.ParseFromString(run->answer);
  }
  runs_.Leave(*run);
  if (!done) co_return Fail(done.error());
  co_return TxnId();
}

Task<Status> ScrubOps::Page(std::shared_ptr<Run> run, pb::ScrubResponse* response) {
  auto until = std::chrono::steady_clock::now() + kPageTime;
  auto& items = run->collector.items;
  for (;;) {
    if (state_.stopping()) co_return Fail(ErrorCode::kUnavailable, "the metaserver stops");
    if (items.empty() && !run->walk->done()) {
      Task<Status> step = runs_.Step(run.get(), &run->collector);
      Status stepped = co_await step;
      if (!stepped) co_return stepped;
    }
    while (run->in_work < kChunksAtOnce && !items.empty()) {
      Item item = std::move(items.front());
      items.pop_front();
      run->in_work++;
      state_.tasks.Spawn(CheckOne(run, std::move(item)));
    }
    bool done = run->walk->done() && items.empty() && run->in_work == 0;
    if (done || std::chrono::steady_clock::now() >= until || run->fresh.size() >= kMaxFindings) break;
    if (run->in_work < kChunksAtOnce && !(run->walk->done() && items.empty())) continue;
    auto wait = state_.changed.Wait();
    co_await wait;
  }
  while (!run->fresh.empty() && response->findings_size() < kMaxFindings) {
    *response->add_findings() = std::move(run->fresh.front());
    run->fresh.pop_front();
  }
  response->set_run(run->id);
  response->set_done(run->walk->done() && items.empty() && run->in_work == 0 && run->fresh.empty());
  response->set_files(run->collector.files);
  response->set_chunks(run->chunks);
  response->set_replicas(run->replicas);
  response->set_bytes(run->bytes);
  co_return Status();
}

Task<void> ScrubOps::CheckOne(std::shared_ptr<Run> run, Item item) {
  Task<CheckOutcome> check = checker_.Check(item.chunk, true);
  CheckOutcome outcome = co_await check;
  run->in_work--;
  run->chunks++;
  run->replicas += outcome.replicas;
  run->bytes += outcome.bytes;
  for (const CheckFinding& found : outcome.findings) {
    pb::ScrubFinding finding;
    finding.set_path(item.path);
    finding.set_inode(item.inode);
    finding.set_index(item.index);
    finding.set_chunk(item.chunk.value);
    finding.set_server(found.server);
    if (const ServerEntry* entry = state_.registry.Find(ServerId(found.server))) finding.set_name(entry->name);
    finding.set_what(found.what);
    finding.set_why(found.why);
    finding.set_repaired(found.repaired);
    if (run->kept.size() < kMaxKept) run->kept.push_back({finding, item.chunk, found.instance});
    run->fresh.push_back(std::move(finding));
  }
  state_.changed.WakeAll();
}

// A copy that was bad is in no record any more, and the chunk has all the copies that it wants.
Task<Status> ScrubOps::Repairs(Run* run, pb::ScrubResponse* response) {
  ClusterHealth health(state_);
  for (Run::Kept& kept : run->kept) {
    if (!kept.finding.repaired() && kept.instance) {
      std::function<Status(View&)> op = [&](View& view) -> Status {
        TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(kept.chunk));
        bool bad = state_.bad->Contains(kept.instance);
        bool there = bad && record && std::ranges::any_of(record->replicas(), [&](const pb::ReplicaRecord& r) {
                       return r.instance() == kept.instance.value;
                     });
        kept.finding.set_repaired(!there && (!record || health.Judge(kept.chunk, *record) < pb::SHORT));
        return {};
      };
      Task<Result<TxnId>> look = RunOp(state_, std::move(op), CommitLevel::kLogged);
      Result<TxnId> looked = co_await look;
      if (!looked) co_return Fail(looked.error());
    }
    if (response->findings_size() < static_cast<int>(kMaxKept)) *response->add_findings() = kept.finding;
  }
  response->set_run(run->id);
  response->set_done(true);
  co_return Status();
}

// ---- what chunkservers scrub by themselves ----

Task<Result<TxnId>> ScrubOps::Scrubbed(CallInfo info, const pb::ScrubbedRequest& request, pb::ScrubbedResponse&) {
  const ServerEntry* entry = state_.registry.Find(ServerId(request.server()));
  if (!entry || entry->connection != info.connection) {
    co_return Fail(ErrorCode::kNotReady, "not registered on this connection: register");
  }
  for (uint64_t id : request.chunks()) {
    if (queue_.size() < kMaxQueued && queued_.insert(ChunkId(id)).second) queue_.push_back(ChunkId(id));
  }
  StartSome();
  co_return TxnId();
}

void ScrubOps::StartSome() {
  while (comparing_ < kComparesAtOnce && !queue_.empty() && !state_.stopping()) {
    ChunkId chunk = queue_.front();
    queue_.pop_front();
    comparing_++;
    state_.tasks.Spawn(Compare(chunk));
  }
}

Task<void> ScrubOps::Compare(ChunkId chunk) {
  Task<CheckOutcome> check = checker_.Check(chunk, false);
  CheckOutcome outcome = co_await check;
  comparing_--;
  queued_.erase(chunk);
  // The next one, off this stack.
  state_.context.loop.Post([this, alive = state_.alive] {
    if (*alive) StartSome();
  });
}

}  // namespace shoal::meta
