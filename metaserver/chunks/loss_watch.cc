#include "metaserver/chunks/loss_watch.h"

#include <algorithm>

#include "common/log.h"
#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/repair.h"

namespace shoal::meta {
namespace {

constexpr size_t kMaxChunks = 100000;  // looked at for one answer
constexpr size_t kAtOnce = 256;        // read in one operation
constexpr size_t kMaxNamed = 16;
constexpr size_t kMaxDepth = 4096;  // of a path
constexpr Duration kLookEvery = 5s, kFindEvery = 60s;

}  // namespace

void LossWatch::Tick() {
  auto now = std::chrono::steady_clock::now();
  size_t bad = state_.bad->size();
  bool changed = bad != bad_before_;
  if (!looking_ && (changed || (bad > 0 && now >= next_look_))) {
    bad_before_ = bad;
    next_look_ = now + kLookEvery;
    looking_ = true;
    state_.tasks.Spawn(LookAtBad());
  }
}

std::set<uint64_t> LossWatch::BadChunks() const {
  std::set<uint64_t> chunks;
  for (const auto& [chunk, instance] : state_.bad->List()) {
    if (chunks.size() < kMaxChunks) chunks.insert(chunk.value);
  }
  return chunks;
}

Task<void> LossWatch::LookAtBad() {
  std::set<uint64_t> chunks = BadChunks();
  Task<Result<Found>> judge = JudgeAll(std::move(chunks));
  Result<Found> found = co_await judge;
  looking_ = false;
  if (found) SetHealth(*found);
}

void LossWatch::SetHealth(const Found& found) {
  bool before = health_.has_value();
  if (found.chunks_lost == 0) {
    if (!before) LogInfo("no chunk is lost any more");
    health_ = {};
    return;
  }
  std::string name = found.files_lost.empty() ? "" : NameOf(*found.files_lost.begin());
  health_ = Fail(ErrorCode::kCorrupt,
                 fmt::format("{} chunks of {} files are lost: no good copy of them is known{}; `shoal fsck` lists them",
                             found.chunks_lost, found.files_lost.size(), name.empty() ? "" : " (/" + name + ")"));
  if (before) LogError("{}", health_.error().message);
}

Task<Result<LossWatch::Found>> LossWatch::Look() {
  std::set<uint64_t> chunks = BadChunks();
  for (ChunkId chunk : state_.repairer->Backlog(kMaxChunks)) chunks.insert(chunk.value);
  Task<Status> away = AddAway(&chunks);
  Status added = co_await away;
  if (!added) co_return Fail(added.error());
  Task<Result<Found>> judge = JudgeAll(std::move(chunks));
  Result<Found> found = co_await judge;
  if (found) SetHealth(*found);
  co_return found;
}

Task<Status> LossWatch::AddAway(std::set<uint64_t>* chunks) {
  std::vector<ServerId> away;
  for (const auto& [id, entry] : state_.registry.all()) {
    if (state_.registry.State(entry, state_.now()) != ServerState::kLive) away.push_back(id);
  }
  for (ServerId server : away) {
    Key next(KeyKind::kByServer, server.value);
    Key end = next.PrefixEnd();
    while (!next.empty() && chunks->size() < kMaxChunks) {
      Store::ScanOptions options;
      options.start = next;
      options.end = end;
      options.filter = [chunks](const Key& key, std::string_view) {
        chunks->insert(key.number(1));
        return false;
      };
      Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
      Result<Store::ScanResult> found = co_await scan;
      if (!found) co_return Fail(found.error());
      next = found->next;
    }
  }
  co_return Status();
}

Status LossWatch::JudgeSome(View& view, const ClusterHealth& health, const std::vector<uint64_t>& chunks, size_t at,
                            std::vector<Judged>* judged) {
  judged->clear();
  size_t end = std::min(chunks.size(), at + kAtOnce);
  for (size_t i = at; i < end; i++) view.Want<pb::ChunkRecord>(ChunkKey(ChunkId(chunks[i])));
  for (size_t i = at; i < end; i++) {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(ChunkId(chunks[i])));
    pb::Safety safety = record ? health.Judge(ChunkId(chunks[i]), *record) : pb::SAFE;
    if (!IsTrouble(safety)) continue;
    uint64_t inode = record->inode();
    if (safety >= pb::UNAVAILABLE) {
      TRY_ASSIGN(const pb::InodeRecord* file, view.GetInode(InodeId(inode)));
      if (!file || file->nlink() == 0) continue;  // deleted
    }
    judged->push_back({inode, safety});
  }
  return {};
}

Task<Result<LossWatch::Found>> LossWatch::JudgeAll(std::set<uint64_t> chunks) {
  ClusterHealth health(state_);
  std::vector<uint64_t> all(chunks.begin(), chunks.end());
  Found found;
  for (size_t at = 0; at < all.size(); at += kAtOnce) {
    std::vector<Judged> judged;
    std::function<Status(View&)> op = [&](View& view) { return JudgeSome(view, health, all, at, &judged); };
    Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kLogged);
    Result<TxnId> done = co_await run;
    if (!done) co_return Fail(done.error());
    for (const Judged& j : judged) {
      found.chunks_short += IsShort(j.safety);
      found.chunks_unavailable += j.safety == pb::UNAVAILABLE;
      found.chunks_lost += j.safety == pb::LOST;
      if (j.safety == pb::UNAVAILABLE) found.files_unavailable.insert(j.inode);
      if (j.safety == pb::LOST) found.files_lost.insert(j.inode);
    }
  }
  co_return found;
}

void LossWatch::FillTroubled(const Found& found, pb::ClusterStatusResponse* out) {
  auto add = [&](const std::set<uint64_t>& inodes, pb::Safety safety) {
    for (uint64_t inode : inodes) {
      if (out->troubled_size() >= static_cast<int>(kMaxNamed)) return;
      pb::TroubledFile* file = out->add_troubled();
      file->set_inode(inode);
      file->set_safety(safety);
      file->set_path(NameOf(inode));
    }
  };
  add(found.files_lost, pb::LOST);
  add(found.files_unavailable, pb::UNAVAILABLE);
}

// ---- names: an inode does not know its own, so all directories are looked through, once ----

std::string LossWatch::NameOf(uint64_t inode) {
  auto known = names_.find(inode);
  if (known != names_.end() && !known->second.empty()) return known->second;
  if (known == names_.end()) {
    if (names_.size() >= 4 * kMaxNamed) names_.clear();
    names_.emplace(inode, "");
    new_names_ = true;
  }
  auto now = std::chrono::steady_clock::now();
  if (!finding_ && !state_.stopping() && (new_names_ || now >= next_find_)) {
    finding_ = true;
    new_names_ = false;
    next_find_ = now + kFindEvery;
    state_.tasks.Spawn(FindNames());
  }
  return {};
}

// Parent and name of those inodes that have an entry in the range.
Task<Result<std::map<uint64_t, std::pair<uint64_t, std::string>>>> LossWatch::FindEntries(Key start, Key end,
                                                                                          std::set<uint64_t> inodes) {
  std::map<uint64_t, std::pair<uint64_t, std::string>> found;
  Key next = start;
  while (!next.empty() && found.size() < inodes.size()) {
    if (state_.stopping()) co_return Fail(ErrorCode::kCancelled, "the metaserver stops");
    Store::ScanOptions options;
    options.start = next;
    options.end = end;
    options.filter = [&found, &inodes](const Key& key, std::string_view value) {
      pb::DentryBucket bucket;
      if (!bucket.ParseFromArray(value.data(), static_cast<int>(value.size()))) return false;
      for (const pb::DentryRecord& entry : bucket.entries()) {
        if (inodes.contains(entry.inode())) found.try_emplace(entry.inode(), key.number(0), entry.name());
      }
      return false;
    };
    Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
    Result<Store::ScanResult> scanned = co_await scan;
    if (!scanned) co_return Fail(scanned.error());
    next = scanned->next;
  }
  co_return found;
}

Task<Result<std::string>> LossWatch::PathOf(uint64_t parent, std::string name) {
  std::string path = std::move(name);
  for (size_t depth = 0; parent != kRootInode.value; depth++) {
    uint64_t above = 0;
    std::function<Status(View&)> op = [&](View& view) -> Status {
      TRY_ASSIGN(const pb::InodeRecord* directory, view.GetInode(InodeId(parent)));
      above = directory ? directory->parent() : 0;
      return {};
    };
    Task<Result<TxnId>> look = RunOp(state_, std::move(op), CommitLevel::kLogged);
    Result<TxnId> looked = co_await look;
    if (!looked) co_return Fail(looked.error());
    if (above == 0 || depth > kMaxDepth) co_return Fail(ErrorCode::kNotFound, "it was removed meanwhile");
    Key start(KeyKind::kDentry, above);
    auto entries = FindEntries(start, start.PrefixEnd(), {parent});
    auto found = co_await entries;
    if (!found) co_return Fail(found.error());
    if (found->empty()) co_return Fail(ErrorCode::kNotFound, "it was renamed meanwhile");
    path = found->begin()->second.second + "/" + path;
    parent = above;
  }
  co_return path;
}

Task<void> LossWatch::FindNames() {
  std::set<uint64_t> inodes;
  for (const auto& [inode, name] : names_) {
    if (name.empty()) inodes.insert(inode);
  }
  Key start(KeyKind::kDentry);
  auto entries = FindEntries(start, start.PrefixEnd(), std::move(inodes));
  auto found = co_await entries;
  if (found) {
    for (const auto& [inode, place] : *found) {
      Task<Result<std::string>> climb = PathOf(place.first, place.second);
      Result<std::string> path = co_await climb;
      if (path) names_[inode] = *path;
    }
  }
  finding_ = false;
  next_look_ = {};  // so that health() names it
}

}  // namespace shoal::meta
