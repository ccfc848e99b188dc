#include "metaserver/chunks/drops.h"

#include "common/log.h"
#include "common/proto/control.pb.h"

namespace shoal::meta {
namespace {

constexpr size_t kBatch = 256;
constexpr Duration kTimeout = 10s;
constexpr Duration kPause = 500ms;

}  // namespace

void DropSender::Tick() {
  for (auto& [server, work] : pending_) {
    if (!work.noted || work.running || state_.stopping() || !state_.IsLive(server.value)) continue;
    work.noted = false;
    work.running = true;
    state_.tasks.Spawn(Work(server));
  }
}

Task<void> DropSender::Work(ServerId server) {
  for (;;) {
    Task<Result<bool>> some = SendSome(server);
    Result<bool> more = co_await some;
    if (!more) {
      LogDebug("orders to drop replicas for server {}: {}", server.value, ToString(more.error()));
      pending_[server].noted = true;  // tried again while it lives, or when it is back
      auto pause = state_.context.loop.Sleep(kPause);
      co_await pause;
      break;
    }
    if (!*more || state_.stopping()) break;
  }
  pending_[server].running = false;
}

Task<Result<bool>> DropSender::SendSome(ServerId server) {
  Store::ScanOptions options;
  Key prefix(KeyKind::kDrop, server.value);
  options.start = prefix;
  options.end = prefix.PrefixEnd();
  options.max_records = kBatch;
  Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
  Result<Store::ScanResult> found = co_await scan;
  if (!found) co_return Fail(found.error());
  // What the scan saw was submitted by now; no order leaves before it is durable.
  Task<Status> durable = state_.context.commit->Wait(state_.context.commit->submitted(), CommitLevel::kDurable);
  Status synced = co_await durable;
  if (!synced) co_return Fail(synced.error());
  std::shared_ptr<Connection> connection = state_.ConnectionOf(server.value);
  if (!connection) co_return Fail(ErrorCode::kUnavailable, "not connected");

  int64_t due = state_.context.now_ns() - state_.context.options.drop_delay.count();
  bool later = false;
  std::vector<Key> keys;
  std::vector<PendingReply> calls;
  for (const ScannedRecord& scanned : found->records) {
    pb::DropRecord record;
    if (!record.ParseFromString(scanned.value)) continue;
    if (record.since_ns() > due) {
      later = true;
      continue;
    }
    pb::DropReplicaRequest request;
    request.set_chunk(record.chunk());
    request.set_instance(record.instance());
    request.set_version(record.version());
    calls.push_back(connection->Call(pb::DROP_REPLICA, request, Payload(), kTimeout));
    keys.push_back(scanned.key);
  }
  std::vector<Key> done;
  std::optional<Error> failed;
  for (size_t i = 0; i < calls.size(); i++) {
    Result<Reply> reply = co_await calls[i];
    if (reply || reply.error().code == ErrorCode::kNoReplica) {
      done.push_back(keys[i]);
    } else {
      failed = reply.error();
    }
  }
  if (!done.empty()) {
    std::function<Status(View&)> op = [&](View& view) -> Status {
      for (const Key& key : done) view.Delete(key);
      return {};
    };
    Task<Result<TxnId>> forget = RunOp(state_, std::move(op), CommitLevel::kLogged);
    Result<TxnId> forgotten = co_await forget;
    if (!forgotten) co_return Fail(forgotten.error());
    state_.dropped_replicas.Add(done.size());
  }
  if (failed) co_return Fail(*failed);
  if (later && done.empty()) {
    pending_[server].noted = true;
    auto pause = state_.context.loop.Sleep(kPause);
    co_await pause;
    co_return false;
  }
  co_return found->records.size() >= kBatch || later;
}

}  // namespace shoal::meta
