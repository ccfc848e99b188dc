#include "metaserver/ids.h"

#include <algorithm>

#include <leveldb/write_batch.h>

#include "common/proto/record.pb.h"
#include "metaserver/batch.h"
#include "metaserver/commit.h"
#include "metaserver/driver.h"
#include "metaserver/keys.h"

namespace shoal::meta {
namespace {

// How many of each are made durable at a time. Servers are few and people read their numbers: one by one, when it is
// asked for, so that no restart leaves any out.
constexpr uint64_t kRangeSize[] = {1 << 17, 1 << 16, 1 << 17, 1 << 8, 1, 1 << 16, 1 << 16};

// Whose ids carry the incarnation in their top 16 bits.
bool Tagged(IdAllocator::Which which) {
  return which == IdAllocator::kInode || which == IdAllocator::kChunk || which == IdAllocator::kInstance ||
         which == IdAllocator::kSession;
}

}  // namespace

IdAllocator::IdAllocator(MetaContext& context) : context_(context), extended_(context.loop) {}

Task<Status> IdAllocator::Start(const pb::IdRanges& stored) {
  const uint64_t begin[] = {stored.inode(),   stored.chunk(), stored.instance(), stored.session(),
                            stored.server(), stored.order(), stored.lease()};
  for (int i = 0; i < kCount; ++i) {
    uint64_t first = i == kInode ? 2 : 1;  // inode 1 is the root
    ranges_[i].begin = ranges_[i].next = ranges_[i].end = std::max(begin[i], first);
  }
  Task<Status> extend = Extend();
  Status done = co_await extend;
  co_return done;
}

std::optional<uint64_t> IdAllocator::Next(Which which) {
  Range& range = ranges_[which];
  if (range.next == range.end) {
    range.wanted = true;
    return std::nullopt;
  }
  uint64_t id = range.next++;
  if (range.end - range.next < kRangeSize[which] / 2 && !extending_) context_.driver->Spawn(Background());
  if (which == kServer) id |= static_cast<uint64_t>(context_.rpc.incarnation.load() - 1) << 16;
  if (Tagged(which)) id |= static_cast<uint64_t>(context_.rpc.incarnation.load()) << 48;
  return id;
}

std::optional<uint64_t> IdAllocator::Again(Which which, uint64_t bare) const {
  const Range& range = ranges_[which];
  const uint64_t top = range.begin & ~Bare(~0ull);  // orders and leases have the incarnation of a restore in the range
  if (which == kServer || bare == 0 || (top | bare) >= range.begin) return std::nullopt;
  return top | bare | (Tagged(which) ? static_cast<uint64_t>(context_.rpc.incarnation.load()) << 48 : 0);
}

Task<void> IdAllocator::Background() {
  Task<Status> extend = Extend();
  co_await extend;  // an error shows in the store's health
}

Task<Status> IdAllocator::More() {
  if (extending_) {
    co_await extended_.Wait();
    co_return Status();
  }
  Task<Status> extend = Extend();
  Status done = co_await extend;
  co_return done;
}

Task<Status> IdAllocator::Extend() {
  extending_ = true;
  uint64_t bounds[kCount];
  for (int i = 0; i < kCount; ++i) {
    // Half a range or more left: this one stays.
    bool enough = ranges_[i].end - ranges_[i].next >= kRangeSize[i] / 2 && !ranges_[i].wanted;
    bounds[i] = enough ? ranges_[i].end : ranges_[i].end + kRangeSize[i];
  }
  pb::IdRanges record;
  record.set_inode(bounds[kInode]);
  record.set_chunk(bounds[kChunk]);
  record.set_instance(bounds[kInstance]);
  record.set_session(bounds[kSession]);
  record.set_server(bounds[kServer]);
  record.set_order(bounds[kOrder]);
  record.set_lease(bounds[kLease]);
  leveldb::WriteBatch batch;
  PutRecord(&batch, IdRangesKey(), record);
  TxnId txn = SubmitBatch(context_, &batch);
  Task<Status> wait = context_.commit->Wait(txn, CommitLevel::kDurable);
  Status durable = co_await wait;
  if (durable) {
    for (int i = 0; i < kCount; ++i) {
      if (ranges_[i].end != bounds[i]) ranges_[i].wanted = false;
      ranges_[i].end = bounds[i];
    }
  }
  extending_ = false;
  extended_.WakeAll();
  co_return durable;
}

}  // namespace shoal::meta
