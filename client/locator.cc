#include "client/locator.h"

#include <algorithm>

#include "common/limits.h"
#include "common/log.h"

namespace shoal::client {
namespace {
constexpr uint32_t kFetchCount = 16;       // chunks asked for at once
constexpr uint32_t kMaxFetch = 64;         // the metaserver's limit
constexpr size_t kMaxLocations = 16384;    // remembered of one inode (1 TiB of data)
}  // namespace

LocationPtr Locator::Cached(const InodeState& state, uint64_t index) {
  auto it = state.locations.find(index);
  return it == state.locations.end() ? nullptr : it->second;
}

LocationPtr Locator::Put(InodeState& state, const pb::Extent& extent) {
  auto location = std::make_shared<Location>();
  location->chunk = ChunkId(extent.chunk());
  location->version = ChunkVersion(extent.version());
  location->written = extent.written();
  location->lease = extent.lease();
  for (const pb::Replica& replica : extent.replicas()) {
    location->replicas.push_back(
        {ServerId(replica.server()), InstanceId(replica.instance()), replica.address(), replica.live()});
  }
  auto fresh = state.fresh.find(extent.index());
  if (fresh != state.fresh.end() && fresh->second == location->chunk) location->written = true;
  LocationPtr& entry = state.locations[extent.index()];
  if (entry && entry->chunk == location->chunk && entry->version == location->version && location->lease == 0) {
    location->lease = entry->lease;
  }
  entry = location;
  return entry;
}

void Locator::MarkWritten(InodeState& state, uint64_t index, const LocationPtr& location) {
  LocationPtr now = Cached(state, index);
  if (!now || now->chunk != location->chunk || now->written) return;
  auto copy = std::make_shared<Location>(*now);
  copy->written = true;
  state.locations[index] = std::move(copy);
}

Task<Result<LocationPtr>> Locator::Find(StatePtr state, uint64_t index) {
  LocationPtr cached = Cached(*state, index);
  if (cached) co_return cached;
  CO_TRY(co_await Fetch(state, index, kFetchCount));
  cached = Cached(*state, index);
  if (!cached) co_return Fail(ErrorCode::kNotReady, "the locations changed while they were read");
  co_return cached;
}

Task<Result<LocationPtr>> Locator::Refetch(StatePtr state, uint64_t index) {
  CO_TRY(co_await Fetch(state, index, 1));
  LocationPtr cached = Cached(*state, index);
  if (!cached) co_return Fail(ErrorCode::kNotReady, "the locations changed while they were read");
  co_return cached;
}

Task<Status> Locator::Prefetch(StatePtr state, uint64_t first, uint64_t count) {
  while (count > 0 && Cached(*state, first)) {
    ++first;
    --count;
  }
  if (count == 0) co_return Status{};
  Status status = co_await Fetch(state, first, std::max<uint64_t>(count, kFetchCount));
  co_return status;
}

Task<Status> Locator::Fetch(StatePtr state, uint64_t first, uint64_t count) {
  count = std::min<uint64_t>(count, kMaxFetch);
  pb::GetExtentsRequest request;
  request.set_inode(state->inode.value);
  request.set_first_index(first);
  request.set_count(static_cast<uint32_t>(count));
  // Chunks may be given to this very client while the answer is on its way: those stay.
  Result<pb::GetExtentsResponse> response =
      co_await core_.session.Call<pb::GetExtentsResponse>(pb::GET_EXTENTS, request, state->cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  if (state->locations.size() > kMaxLocations) {
    std::erase_if(state->locations, [](const auto& entry) { return entry.second->lease == 0; });
  }
  if (response->has_attr()) ApplyAttr(*state, FromProto(response->attr()));
  static const LocationPtr kHole = std::make_shared<Location>();
  for (uint64_t index = first; index < first + count; ++index) {
    LocationPtr& entry = state->locations[index];
    if (!entry || entry->lease == 0) entry = kHole;
  }
  for (const pb::Extent& extent : response->extents()) {
    LocationPtr known = Cached(*state, extent.index());
    if (known && known->lease && known->version.value > extent.version() && known->chunk.value == extent.chunk()) continue;
    Put(*state, extent);
  }
  co_return Status{};
}

Task<Result<LocationPtr>> Locator::Grant(StatePtr state, uint64_t index) {
  pb::GrantWriteRequest request;
  request.set_inode(state->inode.value);
  request.set_first_index(index);
  request.set_count(1);
  Result<pb::GrantWriteResponse> response =
      co_await core_.session.Call<pb::GrantWriteResponse>(pb::GRANT_WRITE, request, state->cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  for (const pb::Extent& extent : response->extents()) {
    LocationPtr put = Put(*state, extent);
    if (extent.index() == index) {
      if (put->replicas.empty()) co_return Fail(ErrorCode::kNotEnoughServers, "the chunk has no live replica to write to");
      co_return put;
    }
  }
  co_return Fail(ErrorCode::kBadMessage, "the metaserver granted no chunk");
}

Task<Result<LocationPtr>> Locator::Report(StatePtr state, uint64_t index, LocationPtr location, ServerId server,
                                          ErrorCode reason, bool for_write) {
  LogInfo("inode {} chunk {:016x} version {}: reporting {} ({})", state->inode.value, location->chunk.value,
          location->version.value, server ? fmt::format("server {}", server.value) : "the chain", ErrorName(reason));
  pb::ReportReplicaRequest request;
  request.set_inode(state->inode.value);
  request.set_index(index);
  request.set_chunk(location->chunk.value);
  request.set_version(location->version.value);
  request.set_server(server.value);
  request.set_reason(static_cast<uint32_t>(reason));
  request.set_for_write(for_write);
  Result<pb::ReportReplicaResponse> response = co_await core_.session.Call<pb::ReportReplicaResponse>(
      pb::REPORT_REPLICA, request, state->cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  if (!response->has_extent() || response->extent().chunk() == 0) {
    state->locations.erase(index);
    co_return Fail(ErrorCode::kStale, "the chunk is no longer part of the file");
  }
  pb::Extent extent = response->extent();
  extent.set_index(index);
  LocationPtr put = Put(*state, extent);
  co_return put;
}

}  // namespace shoal::client
