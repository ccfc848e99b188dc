// fsync: the data on the disks of all replicas, then size and metadata.
#include <algorithm>

#include "client/engine_impl.h"

namespace shoal::client {
namespace {

constexpr Duration kSyncTry = 10s;
constexpr int kSyncRounds = 8;

// Whether the metaserver knows all that an fdatasync is about: nothing is to be committed but times.
bool OnlyTimesLeft(const InodeState& state) {
  return state.fresh.empty() && state.pending_end <= state.attr.size && !state.kill_suid_sgid && !state.committing;
}

// Whether what is on its way goes into blocks that the metaserver knows to be written, under grants that are here.
bool OnlyOverwrites(const InodeState& state) {
  if (!OnlyTimesLeft(state) || state.local_end > state.attr.size) return false;
  return std::ranges::all_of(state.writers, [&](const auto& entry) {
    LocationPtr location = Locator::Cached(state, entry.first);
    return entry.second->idle() || (location && location->chunk && location->written && location->lease != 0);
  });
}

bool AllSynced(const InodeState& state) {
  return std::ranges::all_of(state.writers, [](const auto& entry) { return entry.second->all_synced(); });
}

}  // namespace

Task<Result<pb::FsyncResponse>> EngineImpl::AskFsync(StatePtr state, bool data_only, std::vector<ChunkId> synced) {
  pb::FsyncRequest request;
  request.set_inode(state->inode.value);
  request.set_data_only(data_only);
  for (ChunkId chunk : synced) request.add_synced_chunks(chunk.value);
  co_return co_await core.session.Call<pb::FsyncResponse>(pb::FSYNC, request, state->cred, CallKind::kMutate);
}

Task<void> EngineImpl::FsyncBeside(StatePtr state, std::shared_ptr<OneShot<Result<pb::FsyncResponse>>> answer) {
  answer->Set(co_await AskFsync(state, true, {}));
}

Task<Status> EngineImpl::SyncFile(StatePtr state, bool data_only) {
  uint64_t errors = state->errors;
  // Overwritten blocks change nothing that the metaserver knows: it is asked while the chains are at work.
  std::shared_ptr<OneShot<Result<pb::FsyncResponse>>> beside;
  if (data_only && OnlyOverwrites(*state)) {
    beside = std::make_shared<OneShot<Result<pb::FsyncResponse>>>(core.loop);
    core.tasks.Spawn(FsyncBeside(state, beside));
  }
  co_await writer.Settle(state, true);
  if (beside) {
    OneShot<Result<pb::FsyncResponse>>& answer = *beside;
    Result<pb::FsyncResponse> asked = co_await answer;
    bool same = state->errors == errors && OnlyTimesLeft(*state) && AllSynced(*state);
    if (same && !asked) co_return Fail(std::move(asked).error());
    if (same && asked->remaining_size() == 0) co_return Status{};
  }
  CO_TRY(co_await SyncLate(state));
  if (!data_only || !OnlyTimesLeft(*state)) co_await writer.Commit(state);
  if (state->errors != errors) co_return Fail(state->last_error);
  for (int round = 0; round < kSyncRounds; ++round) {
    std::vector<ChunkId> told(state->synced.begin(), state->synced.end());
    state->synced.clear();
    Result<pb::FsyncResponse> response = co_await AskFsync(state, data_only, told);
    if (!response) co_return Fail(std::move(response).error());
    if (response->remaining_size() == 0) co_return Status{};
    state->synced.insert(told.begin(), told.end());
    for (const pb::Extent& extent : response->remaining()) {
      LocationPtr location = locator.Put(*state, extent);
      CO_TRY(co_await SyncReplicas(state, extent.index(), location));
      state->synced.insert(location->chunk);
    }
  }
  co_return Fail(ErrorCode::kBusy, "the file is being written faster than it can be synced");
}

// Chunks whose last write went out without the flag.
Task<Status> EngineImpl::SyncLate(StatePtr state) {
  std::vector<std::pair<std::shared_ptr<ChunkWriter>, uint64_t>> unsynced;
  for (auto& [index, chunk] : state->writers) {
    if (!chunk->all_synced()) unsynced.emplace_back(chunk, chunk->acked);
  }
  for (auto& [chunk, acked] : unsynced) {
    Result<LocationPtr> found = co_await locator.Find(state, chunk->index);
    if (!found) co_return Fail(std::move(found).error());
    LocationPtr location = *found;
    if (!location->chunk) {
      chunk->synced = std::max(chunk->synced, acked);
      continue;
    }
    CO_TRY(co_await SyncReplicas(state, chunk->index, location));
    chunk->synced = std::max(chunk->synced, acked);
    if (chunk->all_synced()) state->synced.insert(location->chunk);
  }
  co_return Status{};
}

// Every replica has what it was given on its disk, or is no replica any more.
Task<Status> EngineImpl::SyncReplicas(StatePtr state, uint64_t index, LocationPtr location) {
  SteadyTime deadline = Core::Now() + core.options.timeout;
  for (;;) {
    std::vector<Status> results(location->replicas.size());
    size_t left = results.size();
    WaitList done(core.loop);
    for (size_t i = 0; i < results.size(); ++i) core.tasks.Spawn(SyncOneReplica(location, i, &results, &left, &done));
    while (left > 0) co_await done.Wait();
    size_t bad = 0;
    while (bad < results.size() && results[bad]) ++bad;
    if (bad == results.size() && bad > 0) co_return Status{};
    Error error{ErrorCode::kUnavailable, "the chunk has no replica"};
    if (bad < results.size()) error = results[bad].error();
    if (core.stopping || Core::Now() >= deadline) co_return Fail(error);
    ServerId suspect = bad < results.size() ? location->replicas[bad].server : ServerId{};
    Result<LocationPtr> again = Fail(error);
    bool old = error.code == ErrorCode::kVersionMismatch;
    if (old) again = co_await locator.Refetch(state, index);
    // Not our place that is old: the replica.
    bool report = !old || (again && (*again)->chunk == location->chunk && (*again)->version == location->version);
    if (report) {
      again = co_await locator.Report(state, index, location, suspect, error.code, true);
    }
    if (!again) co_return Fail(std::move(again).error());
    if (!(*again)->chunk) co_return Status{};  // cut off meanwhile
    if ((*again)->version == location->version) co_await core.loop.Sleep(50ms);
    location = *again;
  }
}

Task<void> EngineImpl::SyncOneReplica(LocationPtr location, size_t which, std::vector<Status>* results, size_t* left,
                                      WaitList* done) {
  const ReplicaPlace& place = location->replicas[which];
  Result<std::shared_ptr<Connection>> connection = co_await core.servers.Connect(place.address, 2s);
  if (!connection) {
    (*results)[which] = Fail(std::move(connection).error());
  } else {
    pb::SyncChunkRequest request;
    auto* one = request.add_chunks();
    one->set_chunk(location->chunk.value);
    one->set_version(location->version.value);
    one->set_instance(place.instance.value);
    PendingReply pending = (*connection)->Call(pb::SYNC_CHUNK, request, Payload(), kSyncTry);
    Result<Reply> reply = co_await pending;
    if (!reply) (*results)[which] = Fail(std::move(reply).error());
  }
  if (--*left == 0) done->WakeAll();
}

}  // namespace shoal::client
