#include "chunkserver/scrubber.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "chunkserver/work_queue.h"
#include "common/log.h"

namespace shoal {
namespace {

constexpr char kTitle[] = "shoal scrub position";
constexpr char kName[] = "scrub";
constexpr int kFormat = 1;
constexpr Duration kKeepEvery = 60s;
constexpr size_t kReportAtOnce = 64;
constexpr Duration kYield = 10ms;  // while the disk has other work
constexpr int kYields = 100;       // then it goes on all the same
constexpr Duration kIdle = 60s;
constexpr Duration kSecondLook = 2s;  // at names that are no replica: a copy may just have come into its place

int64_t WallNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool IsFinding(ErrorCode code) {
  return code == ErrorCode::kCorrupt || code == ErrorCode::kIo || code == ErrorCode::kNoReplica;
}

// Names in a directory of replicas that are none of the index's. On a disk thread.
Result<std::vector<std::string>> Orphans(ReplicaStore& store, Disk& disk, uint64_t bucket) {
  TRY_ASSIGN(auto names, disk.files().List(disk.ReplicaDirectory(ChunkId{bucket})));
  std::erase_if(names, [&](const std::string& name) {
    ChunkId chunk;
    InstanceId instance;
    return ParseReplicaFileName(name, chunk, instance) && (chunk.value & 0xff) == bucket &&
           store.Has(disk, chunk, instance);
  });
  std::ranges::sort(names);
  return names;
}

}  // namespace

std::string ScrubPosition::Encode() const {
  return fmt::format("{}\nformat {}\nposition {:016x} {:016x}\npass {} {} {}\nlast {} {} {}\n", kTitle, kFormat,
                     chunk.value, instance.value, pass_started_ns, errors, orphans, last_started_ns, last_ended_ns,
                     last_errors);
}

Result<ScrubPosition> ScrubPosition::Decode(const std::string& text) {
  std::istringstream in(text);
  std::string title, words[4];
  std::getline(in, title);
  int format = 0;
  ScrubPosition p;
  in >> words[0] >> format >> words[1] >> std::hex >> p.chunk.value >> p.instance.value >> std::dec;
  in >> words[2] >> p.pass_started_ns >> p.errors >> p.orphans;
  in >> words[3] >> p.last_started_ns >> p.last_ended_ns >> p.last_errors;
  bool good = in && title == kTitle && words[0] == "format" && words[1] == "position" && words[2] == "pass" &&
              words[3] == "last";
  if (!good) return Fail(ErrorCode::kCorrupt, "it is not readable as a scrub position");
  if (format != kFormat)
    return Fail(ErrorCode::kNotSupported, fmt::format("it has format {}, not {}", format, kFormat));
  return p;
}

Scrubber::Scrubber(EventLoop& loop, Node& node, uint64_t rate, Duration every, Report report)
    : loop_(loop), node_(node), rate_(rate), every_(every), report_(std::move(report)), tasks_(loop) {
  for (const auto& disk : node.store->disks()) runs_.push_back(std::make_unique<Run>(*disk));
}

void Scrubber::Start() {
  for (auto& run : runs_) tasks_.Spawn(Scrub(run.get()));
}

Task<void> Scrubber::Stop() {
  stopping_ = true;
  for (auto& run : runs_) {
    if (run->nap) run->nap->Set(true);
  }
  co_await tasks_.Join();
}

std::vector<Scrubber::Progress> Scrubber::progress() const {
  std::vector<Progress> all;
  for (const auto& run : runs_) {
    std::lock_guard lock(run->mutex);
    Progress& one = all.emplace_back();
    one.directory = run->disk.path();
    one.position = run->shown;
    if (run->shown.pass_started_ns != 0) one.part = static_cast<double>(run->shown.chunk.value & 0xff) / 256;
  }
  return all;
}

Task<void> Scrubber::Nap(Run* run, Duration duration) {
  if (stopping_ || duration <= Duration{}) co_return;
  run->nap = std::make_shared<OneShot<bool>>(loop_);
  auto nap = run->nap;
  auto timer = loop_.RunAfter(duration, [nap] { nap->Set(true); });
  OneShot<bool>& shot = *nap;
  co_await shot;
}

Task<void> Scrubber::Scrub(Run* run) {
  OnQueue load(loop_, run->disk.syncs(),
               [run] { return ReadSmallFile(run->disk.files(), run->disk.path() + "/" + kName); });
  Result<std::string> text = co_await load;
  if (text) {
    auto position = ScrubPosition::Decode(*text);
    if (position) run->position = *position;
    if (!position) LogWarning("{}/{}: {}: scrubbing begins anew", run->disk.path(), kName, position.error().message);
  }
  while (!stopping_) {
    {
      std::lock_guard lock(run->mutex);
      run->shown = run->position;
    }
    int64_t due = run->position.last_started_ns + std::chrono::nanoseconds(every_).count();
    bool wait = run->position.pass_started_ns == 0 && run->position.last_started_ns != 0 && WallNs() < due;
    if (rate_ == 0 || run->disk.failed() || wait) {
      co_await Nap(run, std::clamp<Duration>(every_, kYield, kIdle));
      continue;
    }
    co_await Pass(run);
  }
  co_await Keep(run, true);
}

Task<void> Scrubber::Pass(Run* run) {
  ScrubPosition& at = run->position;
  if (at.pass_started_ns == 0) {
    at.pass_started_ns = WallNs();
    at.errors = at.orphans = 0;
  }
  bool fresh = !at.chunk && !at.instance;
  uint64_t checked = fresh ? 0 : (at.chunk.value & 0xff) + 1;  // directories whose names were looked at
  while (!stopping_ && rate_ > 0 && !run->disk.failed()) {
    OnQueue next(loop_, run->disk.syncs(), [&] { return node_.store->After(run->disk, at.chunk, at.instance, fresh); });
    std::optional<std::pair<ChunkId, InstanceId>> replica = co_await next;
    uint64_t until = replica ? (replica->first.value & 0xff) + 1 : 256;
    for (; checked < until && !stopping_; ++checked) co_await CheckNames(run, checked);
    if (stopping_) co_return;
    if (!replica) break;
    co_await ScrubOne(run, replica->first, replica->second);
    if (stopping_) co_return;
    fresh = false;
    at.chunk = replica->first;
    at.instance = replica->second;
    {
      std::lock_guard lock(run->mutex);
      run->shown = at;
    }
    co_await Keep(run, false);
  }
  if (rate_ == 0 || run->disk.failed()) co_return;
  co_await SendGood(run);
  ScrubPosition done;
  done.last_started_ns = at.pass_started_ns;
  done.last_ended_ns = WallNs();
  done.last_errors = at.errors;
  done.orphans = at.orphans;
  LogInfo("{}: all replicas were scrubbed in {} s, {} were bad, {} files are none of them", run->disk.path(),
          (done.last_ended_ns - done.last_started_ns) / 1'000'000'000, at.errors, at.orphans);
  at = done;
  co_await Keep(run, true);
}

Task<void> Scrubber::ScrubOne(Run* run, ChunkId chunk, InstanceId instance) {
  std::shared_ptr<Replica> replica = node_.store->Find(chunk, instance);
  if (!replica) co_return;
  bool skip;
  {
    std::lock_guard lock(replica->mutex);
    skip = replica->bad || replica->dropped || !replica->exists;
  }
  Status done;
  if (!skip) done = co_await ScrubData(run, replica);
  node_.store->LetGo(std::move(replica));
  if (skip || stopping_) co_return;
  if (done) {
    node_.metrics.scrubbed_replicas.Add();
    run->good.push_back(chunk.value);
    if (run->good.size() >= kReportAtOnce) co_await SendGood(run);
  } else if (IsFinding(done.error().code)) {
    node_.metrics.scrub_errors.Add();
    ++run->position.errors;
  }
}

Task<Status> Scrubber::ScrubData(Run* run, std::shared_ptr<Replica> replica) {
  ReplicaStore& store = *node_.store;
  co_await Pace(run, 0);
  OnQueue read(loop_, run->disk.work(), [&] { return ScrubTable(store, replica, ChunkVersion{}); });
  Result<ScrubbedTable> table = co_await read;
  if (!table) co_return Fail(std::move(table).error());
  co_await Pace(run, kDataOffset / 2);
  for (uint32_t at = table->NextPiece(0); at < kChunkSize && !stopping_; at = table->NextPiece(at + kMaxIo)) {
    OnQueue piece(loop_, run->disk.work(), [&] { return ScrubPiece(store, replica, ChunkVersion{}, at); });
    Result<uint32_t> bytes = co_await piece;
    if (!bytes) co_return Fail(std::move(bytes).error());
    node_.metrics.scrubbed_bytes.Add(*bytes);
    co_await Pace(run, *bytes);
  }
  co_return Status();
}

// What has been read is paid for; then others go first.
Task<void> Scrubber::Pace(Run* run, uint64_t bytes) {
  uint64_t rate = rate_;
  if (bytes > 0 && rate > 0) co_await Nap(run, std::chrono::nanoseconds(bytes * 1'000'000'000ull / rate));
  for (int i = 0; i < kYields && run->disk.work().size() > 0 && !stopping_; ++i) co_await Nap(run, kYield);
}

Task<void> Scrubber::CheckNames(Run* run, uint64_t bucket) {
  ReplicaStore& store = *node_.store;
  Disk& disk = run->disk;
  OnQueue first(loop_, disk.syncs(), [&] { return Orphans(store, disk, bucket); });
  Result<std::vector<std::string>> names = co_await first;
  if (!names || names->empty()) co_return;
  co_await Nap(run, kSecondLook);
  OnQueue second(loop_, disk.syncs(), [&] { return Orphans(store, disk, bucket); });
  Result<std::vector<std::string>> still = co_await second;
  if (!still || stopping_) co_return;
  for (const std::string& name : *still) {
    if (!std::ranges::binary_search(*names, name)) continue;
    ++run->position.orphans;
    LogWarning("{}/{} is none of this server's replicas: left alone", disk.ReplicaDirectory(ChunkId{bucket}), name);
  }
}

Task<void> Scrubber::SendGood(Run* run) {
  if (run->good.empty()) co_return;
  std::vector<uint64_t> good = std::exchange(run->good, {});
  Task<void> send = report_(std::move(good));
  co_await send;
}

Task<void> Scrubber::Keep(Run* run, bool now) {
  auto at = std::chrono::steady_clock::now();
  if ((!now && at < run->kept + kKeepEvery) || run->position.last_started_ns + run->position.pass_started_ns == 0)
    co_return;
  run->kept = at;
  OnQueue keep(loop_, run->disk.syncs(),
               [run] { return ReplaceFile(run->disk.files(), run->disk.path(), kName, run->position.Encode()); });
  Status kept = co_await keep;
  if (!kept) LogWarning("the scrub position could not be kept: {}", kept.error().message);
}

}  // namespace shoal
