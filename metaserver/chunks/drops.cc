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
  Key next(KeyKind::kDrop, server.value);
  bool left = false;
  while (!next.empty() && !state_.stopping()) {
    Task<Result<bool>> some = SendSome(server, &next);
    Result<bool> sent = co_await some;
    left |= !sent || *sent;
    if (sent) continue;
    LogDebug("orders to drop replicas for server {}: {}", server.value, ToString(sent.error()));
    break;
  }
  if (left) {
    pending_[server].noted = true;  // tried again while it lives, or when it is back
    auto pause = state_.context.loop.Sleep(kPause);
    co_await pause;
  }
  pending_[server].running = false;
}

Task<Result<bool>> DropSender::SendSome(ServerId server, Key* next) {
  Store::ScanOptions options;
  options.start = *next;
  options.end = Key(KeyKind::kDrop, server.value).PrefixEnd();
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
  bool left = false;
  std::vector<Key> keys;
  std::vector<PendingReply> calls;
  for (const ScannedRecord& scanned : found->records) {
    pb::DropRecord record;
    if (!record.ParseFromString(scanned.value)) continue;
    if (record.since_ns() > due) {
      left = true;
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
  for (size_t i = 0; i < calls.size(); i++) {
    Result<Reply> reply = co_await calls[i];
    bool dropped = reply || reply.error().code == ErrorCode::kNoReplica;
    if (dropped) done.push_back(keys[i]);
    if (!dropped) LogDebug("server {}: {} stays: {}", server.value, keys[i].ToString(), ToString(reply.error()));
    left |= !dropped;
  }
  *next = found->next;
  Task<Status> forget = Forget(&done);
  Status forgotten = co_await forget;
  if (!forgotten) co_return Fail(forgotten.error());
  co_return left;
}

Task<Status> DropSender::Forget(const std::vector<Key>* done) {
  if (done->empty()) co_return Status();
  std::function<Status(View&)> op = [&](View& view) -> Status {
    for (const Key& key : *done) view.Delete(key);
    return {};
  };
  Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> forgotten = co_await run;
  if (!forgotten) co_return Fail(forgotten.error());
  state_.dropped_replicas.Add(done->size());
  co_return Status();
}

}  // namespace shoal::meta
