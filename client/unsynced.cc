#include "client/unsynced.h"

#include <algorithm>

namespace shoal::client {
namespace {

constexpr size_t kOverhead = 96;  // of an entry beside its bytes, roughly

size_t Cost(const pb::HandedIn& entry) { return kOverhead + entry.request().size() + entry.response().size(); }

}  // namespace

bool Unsynced::Covers(pb::Method method) {
  switch (method) {
    case pb::SET_ATTR:
    case pb::CREATE:
    case pb::MKDIR:
    case pb::MKNOD:
    case pb::SYMLINK:
    case pb::LINK:
    case pb::UNLINK:
    case pb::RMDIR:
    case pb::RENAME:
    case pb::OPEN:
    case pb::SET_XATTR:
    case pb::REMOVE_XATTR:
    case pb::GRANT_WRITE:
    case pb::COMMIT_WRITE:
      return true;
    default:
      return false;
  }
}

void Unsynced::Keep(TxnId txn, pb::Method method, const google::protobuf::MessageLite& request,
                    std::string_view response) {
  if (txn <= durable_) return;
  pb::HandedIn entry;
  entry.set_txn(txn.value);
  entry.set_method(method);
  request.SerializeToString(entry.mutable_request());
  entry.set_response(response.data(), response.size());
  bytes_ += Cost(entry);
  // Answers come in the order of the transactions, but for those of retries.
  auto place = entries_.end();
  while (place != entries_.begin() && std::prev(place)->txn() > txn.value) --place;
  entries_.insert(place, std::move(entry));
}

void Unsynced::Covered(TxnId durable) {
  durable_ = std::max(durable_, durable);
  for (; !entries_.empty() && entries_.front().txn() <= durable_.value; entries_.pop_front()) {
    bytes_ -= Cost(entries_.front());
  }
}

void Unsynced::Clear() {
  entries_.clear();
  bytes_ = 0;
}

bool Unsynced::Fill(uint64_t* above, uint64_t below, size_t max_bytes, pb::HandInRequest* request) const {
  auto next = std::upper_bound(entries_.begin(), entries_.end(), *above,
                               [](uint64_t txn, const pb::HandedIn& entry) { return txn < entry.txn(); });
  size_t bytes = 0;
  for (; next != entries_.end() && next->txn() < below; ++next) {
    if (bytes >= max_bytes && next->txn() != *above) return true;
    *request->add_done() = *next;
    bytes += Cost(*next);
    *above = next->txn();
  }
  return false;
}

void Unsynced::Renumber(uint64_t above, uint64_t below, TxnId txn) {
  for (pb::HandedIn& entry : entries_) {
    if (entry.txn() > above && entry.txn() < below) entry.set_txn(std::max(entry.txn(), txn.value));
  }
  std::ranges::stable_sort(entries_, {}, [](const pb::HandedIn& entry) { return entry.txn(); });
}

}  // namespace shoal::client
