// Unsynced: what this client's requests did that a power cut of the metaserver would still take.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "common/ids.h"
#include "common/proto/meta.pb.h"
#include "common/proto/methods.pb.h"

namespace shoal::client {

// Requests that changed something, with their answers, in the order of their transactions, until the metaserver has
// said that they are durable. When it comes back without them, they are handed in (HAND_IN). A plain container: the
// session asks for a sync when it gets large (Many), and sends nothing that changes anything while it is Full. Owner:
// Session; its loop.
class Unsynced {
 public:
  static constexpr size_t kMaxEntries = 100'000;
  static constexpr size_t kMaxBytes = 64 << 20;

  // Whether the metaserver can execute this method again.
  static bool Covers(pb::Method method);

  void Keep(TxnId txn, pb::Method method, const google::protobuf::MessageLite& request, std::string_view response);
  // What was done up to `durable` need not be kept any more.
  void Covered(TxnId durable);
  void Clear();

  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  size_t bytes() const { return bytes_; }
  bool Many() const { return entries_.size() > kMaxEntries / 2 || bytes_ > kMaxBytes / 2; }
  bool Full() const { return entries_.size() >= kMaxEntries || bytes_ >= kMaxBytes; }
  TxnId last() const { return empty() ? TxnId() : TxnId(entries_.back().txn()); }
  TxnId durable() const { return durable_; }  // the highest that was said

  // Adds those in (*above, below) to a message, up to about `max_bytes`, and moves *above to the last of them. False:
  // these were all.
  bool Fill(uint64_t* above, uint64_t below, size_t max_bytes, pb::HandInRequest* request) const;
  // Those in (above, below) have become part of this later transaction.
  void Renumber(uint64_t above, uint64_t below, TxnId txn);

 private:
  std::deque<pb::HandedIn> entries_;  // ascending by txn
  size_t bytes_ = 0;
  TxnId durable_;
};

}  // namespace shoal::client
