// How a writer tells the metaserver of what the chains have taken.
#include "client/writer.h"

#include "common/log.h"

namespace shoal::client {

Task<void> Writer::Commit(StatePtr state) {
  // A commit under way may have begun before the last data was applied.
  while (state->committing) co_await state->progress.Wait();
  if (state->pending) co_await CommitOnce(state);
  Rest(state);
}

Task<void> Writer::CommitInBackground(StatePtr state) {
  if (!state->committing && state->pending) co_await CommitOnce(state);
  Rest(state);
}

Task<void> Writer::CommitOnce(StatePtr state) {
  state->committing = true;
  state->pending = false;
  pb::CommitWriteRequest request;
  request.set_inode(state->inode.value);
  request.set_end(std::exchange(state->pending_end, 0));
  int64_t mtime = state->local_mtime_ns;
  request.set_mtime_ns(mtime);
  state->killing = std::exchange(state->kill_suid_sgid, false);
  request.set_kill_suid_sgid(state->killing);
  std::vector<std::pair<uint64_t, ChunkId>> fresh(state->fresh.begin(), state->fresh.end());
  for (auto [index, chunk] : fresh) {
    request.add_written_indices(index);
    request.add_chunk_ids(chunk.value);
  }
  Result<pb::CommitWriteResponse> response = co_await core_.session.Call<pb::CommitWriteResponse>(
      pb::COMMIT_WRITE, request, state->cred, CallKind::kMutate);
  state->committing = state->killing = false;
  for (auto [index, chunk] : fresh) {
    auto it = state->fresh.find(index);
    if (it != state->fresh.end() && it->second == chunk) state->fresh.erase(it);
  }
  if (response) {
    ApplyAttr(*state, FromProto(response->attr()), true);
  } else {
    core_.write_errors.Add();
    LogError("inode {}: its new size could not be committed: {}", state->inode.value, ToString(response.error()));
    SetError(*state, response.error());
  }
  if (state->local_mtime_ns == mtime) state->local_mtime_ns = 0;
  state->progress.WakeAll();
}

// Nothing on its way any more: the metaserver's word counts again.
void Writer::Rest(const StatePtr& state) {
  bool idle = !state->pending && !state->committing;
  for (auto it = state->writers.begin(); it != state->writers.end();) {
    ChunkWriter& writer = *it->second;
    if (!writer.idle() || writer.running) {
      idle = false;
      ++it;
    } else if (writer.all_synced()) {
      it = state->writers.erase(it);
    } else {
      ++it;
    }
  }
  if (!idle || state->exclusive) return;
  state->local_end = 0;
  state->local_mtime_ns = 0;
  if (std::exchange(state->gathered, false)) core_.to_write.erase(state);
  core_.DropIfUnused(state);
}

}  // namespace shoal::client
