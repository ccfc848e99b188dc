// Locator: where the chunks of a file are.
#pragma once

#include "client/core.h"

namespace shoal::client {

// The cache of chunk locations (it stands in each InodeState), and the metaserver's calls that fill it. Owner:
// EngineImpl; lives on its loop. Errors: the metaserver's.
class Locator {
 public:
  explicit Locator(Core& core) : core_(core) {}

  // The cached location, or null when it is not known. A hole is a location without a chunk.
  static LocationPtr Cached(const InodeState& state, uint64_t index);
  // Cached, or asked for.
  Task<Result<LocationPtr>> Find(StatePtr state, uint64_t index);
  // Asks anew.
  Task<Result<LocationPtr>> Refetch(StatePtr state, uint64_t index);
  // Asks for what is not known of `count` chunks from `first` on.
  Task<Status> Prefetch(StatePtr state, uint64_t first, uint64_t count);
  // A location with a write grant; the chunk is allocated if it was a hole.
  Task<Result<LocationPtr>> Grant(StatePtr state, uint64_t index);
  // A server did not do its work: answers when the metaserver has looked into it and the chunk can be used again.
  Task<Result<LocationPtr>> Report(StatePtr state, uint64_t index, LocationPtr location, ServerId server,
                                   ErrorCode reason, bool for_write);
  // Takes what an answer said of a chunk.
  LocationPtr Put(InodeState& state, const pb::Extent& extent);
  // Marks the chunk as one with data, before the metaserver says so.
  static void MarkWritten(InodeState& state, uint64_t index, const LocationPtr& location);

 private:
  Task<Status> Fetch(StatePtr state, uint64_t first, uint64_t count);
  Core& core_;
};

}  // namespace shoal::client
