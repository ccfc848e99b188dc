#include "metaserver/chunks/drops.h"

#include <algorithm>

#include "common/log.h"
#include "common/proto/control.pb.h"
#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/reconcile.h"
#include "metaserver/chunks/repair.h"

namespace shoal::meta {
namespace {

constexpr size_t kBatch = 256;
constexpr Duration kTimeout = 10s;
constexpr Duration kPause = 500ms;
constexpr Duration kShortPause = 100ms;  // where somebody waits for the room
constexpr uint64_t kLittleRoom = 4ull << 30;

}  // namespace

void DropSender::Tick() {
  for (auto& [server, work] : pending_) {
    bool reachable = state_.ConnectionOf(server.value) && !state_.IsDead(server.value);
    if (!work.noted || work.running || state_.stopping() || !reachable) continue;
    work.noted = false;
    work.running = true;
    state_.tasks.Spawn(Work(server));
  }
}

Task<Result<bool>> DropSender::HasOrders(ServerId server) {
  Store::ScanOptions options;
  options.start = Key(KeyKind::kDrop, server.value);
  options.end = options.start.PrefixEnd();
  options.max_records = 1;
  Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
  Result<Store::ScanResult> found = co_await scan;
  if (!found) co_return Fail(found.error());
  co_return !found->records.empty();
}

Task<void> DropSender::Work(ServerId server) {
  const ServerEntry* entry = state_.registry.Find(server);
  Pass pass;
  pass.next = Key(KeyKind::kDrop, server.value);
  pass.held = entry && entry->held;
  pass.connection = state_.ConnectionOf(server.value);
  Status sent;
  if (!pass.connection) sent = Fail(ErrorCode::kUnavailable, "not connected");
  while (sent && !pass.next.empty() && !state_.stopping()) {
    Task<Status> some = SendSome(server, &pass);
    sent = co_await some;
  }
  if (!sent) LogDebug("orders to drop replicas for server {}: {}", server.value, ToString(sent.error()));
  bool release = pass.held && sent && pass.next.empty() && !pass.unanswered && !state_.reconciler->Holding();
  if (release) {
    state_.registry.Release(server, pass.connection.get());
    state_.repairer->ServersChanged();
    state_.bad->ServersChanged();
  }
  if (!sent || pass.left) pending_[server].noted = true;  // tried again while it lives, or when it is back
  if ((!sent || pass.left) && !release) {
    bool hurry = Delay(server) < state_.context.options.drop_delay;
    auto pause = state_.context.loop.Sleep(hurry ? kShortPause : kPause);
    co_await pause;
  }
  pending_[server].running = false;
}

// Those of the chunks that there still are.
Task<Result<std::set<uint64_t>>> DropSender::Existing(const Orders* orders) {
  std::set<uint64_t> existing;
  std::function<Status(View&)> op = [&](View& view) -> Status {
    existing.clear();
    for (const auto& [key, record] : *orders) view.Want<pb::ChunkRecord>(ChunkKey(ChunkId(record.chunk())));
    for (const auto& [key, record] : *orders) {
      TRY_ASSIGN(const pb::ChunkRecord* chunk, view.GetChunk(ChunkId(record.chunk())));
      if (chunk) existing.insert(record.chunk());
    }
    return {};
  };
  Task<Result<TxnId>> run = RunOp(state_, std::move(op), CommitLevel::kLogged);
  Result<TxnId> done = co_await run;
  if (!done) co_return Fail(done.error());
  co_return existing;
}

// Who deletes files on a server that is nearly full is waiting for the room.
Duration DropSender::Delay(ServerId server) const {
  Duration delay = state_.context.options.drop_delay;
  const ServerEntry* entry = state_.registry.Find(server);
  if (!entry) return delay;
  auto nearly_full = [](const DiskState& disk) { return !disk.failed && RoomForNew(disk) < std::min(disk.capacity / 8, kLittleRoom); };
  return std::ranges::any_of(entry->disks, nearly_full) ? delay / 10 : delay;
}

// A held server serves nothing that could be read until it is dropped; replicas of files that are gone can wait.
Task<Status> DropSender::KeepDue(ServerId server, Orders* orders, Pass* pass) {
  std::set<uint64_t> existing;
  if (pass->held) {
    Task<Result<std::set<uint64_t>>> look = Existing(orders);
    Result<std::set<uint64_t>> found = co_await look;
    if (!found) co_return Fail(found.error());
    existing = std::move(*found);
  }
  int64_t due = state_.context.now_ns() - Delay(server).count();
  size_t later = std::erase_if(*orders, [&](const auto& order) {
    return pass->held ? !existing.contains(order.second.chunk()) : order.second.since_ns() > due;
  });
  pass->left |= later > 0;
  co_return Status();
}

Task<Status> DropSender::SendSome(ServerId server, Pass* pass) {
  Store::ScanOptions options;
  options.start = pass->next;
  options.end = Key(KeyKind::kDrop, server.value).PrefixEnd();
  options.max_records = kBatch;
  Task<Result<Store::ScanResult>> scan = state_.context.store->Scan(std::move(options));
  Result<Store::ScanResult> found = co_await scan;
  if (!found) co_return Fail(found.error());
  // What the scan saw was submitted by now; no order leaves before it is durable.
  Task<Status> durable = state_.context.commit->Wait(state_.context.commit->submitted(), CommitLevel::kDurable);
  Status synced = co_await durable;
  if (!synced) co_return Fail(synced.error());
  Orders orders;
  pb::DropRecord record;
  for (const ScannedRecord& scanned : found->records) {
    if (record.ParseFromString(scanned.value)) orders.emplace_back(scanned.key, record);
  }
  Task<Status> keep = KeepDue(server, &orders, pass);
  Status kept = co_await keep;
  if (!kept) co_return Fail(kept.error());

  std::vector<PendingReply> calls;
  for (const auto& [key, order] : orders) {
    pb::DropReplicaRequest request;
    request.set_chunk(order.chunk());
    request.set_instance(order.instance());
    request.set_version(order.version());
    calls.push_back(pass->connection->Call(pb::DROP_REPLICA, request, Payload(), kTimeout));
  }
  std::vector<Key> done;
  for (size_t i = 0; i < calls.size(); i++) {
    Result<Reply> reply = co_await calls[i];
    bool dropped = reply || reply.error().code == ErrorCode::kNoReplica;
    if (dropped) done.push_back(orders[i].first);
    if (dropped) continue;
    LogDebug("server {}: {} stays: {}", server.value, orders[i].first.ToString(), ToString(reply.error()));
    pass->left = true;
    pass->unanswered |= IsRetryable(reply.error().code);  // what can't be dropped can't be read, most likely
  }
  pass->next = found->next;
  Task<Status> forget = Forget(&done);
  Status forgotten = co_await forget;
  co_return forgotten;
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
