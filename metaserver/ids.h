// IdAllocator: numbers that are never given twice.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "common/event_loop.h"
#include "common/result.h"
#include "metaserver/context.h"

namespace shoal::pb {
class IdRanges;
}

namespace shoal::meta {

// Hands out numbers from ranges whose upper bound is durable before any number below it is given. The next range is
// made durable in the background when half of one is used. Inode, chunk, instance and session ids carry the
// incarnation in their top 16 bits (ids of servers too, less one, and of 32). Owner: MetaServer; namespace thread.
class IdAllocator {
 public:
  enum Which { kInode, kChunk, kInstance, kSession, kServer, kOrder, kLease, kCount };

  explicit IdAllocator(MetaContext& context);
  // `stored`: what was durable at the start; numbers begin there. Makes the first ranges durable.
  Task<Status> Start(const pb::IdRanges& stored);
  // Nullopt: none is left until More() has ended.
  std::optional<uint64_t> Next(Which which);
  Task<Status> More();
  // For what is executed again (Recipe): the number without its incarnation, and back. Nullopt: none that was given
  // before this start.
  static uint64_t Bare(uint64_t id) { return id & ((1ull << 48) - 1); }
  std::optional<uint64_t> Again(Which which, uint64_t bare) const;

 private:
  struct Range {
    uint64_t begin = 0;   // those below may have been given before this start
    uint64_t next = 0;
    uint64_t end = 0;  // durable
    bool wanted = false;  // somebody was told that there is none
  };
  Task<Status> Extend();
  Task<void> Background();
  std::array<Range, kCount> ranges_;
  MetaContext& context_;
  bool extending_ = false;
  WaitList extended_;
};

}  // namespace shoal::meta
