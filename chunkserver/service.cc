#include "chunkserver/service.h"

#include <fmt/format.h>

#include "chunkserver/order.h"
#include "common/log.h"

namespace shoal {

Task<Result<std::shared_ptr<Connection>>> Peers::Get(std::string address, int lane, Duration timeout) {
  auto found = channels_.find({address, lane});
  if (found == channels_.end()) {
    auto parsed = Address::Parse(address, kChunkPort);
    if (!parsed) co_return Fail(std::move(parsed).error());
    found = channels_.emplace(std::pair(address, lane), std::make_unique<Channel>(loop_, context_, *parsed)).first;
  }
  Channel& channel = *found->second;
  co_return co_await channel.Get(timeout);
}

std::shared_ptr<Connection> Peers::current(const std::string& address, int lane) {
  auto it = channels_.find({address, lane});
  return it == channels_.end() ? nullptr : it->second->current();
}

void Peers::Close() {
  for (auto& [key, channel] : channels_) channel->Close();
}

Service::Service(EventLoop& loop, Node& node) : loop_(loop), node_(node), peers_(loop, node.network), tasks_(loop) {}

Task<void> Service::Stop() {
  stopping_ = true;
  peers_.Close();
  co_await tasks_.Join();
}

void Service::Register(Dispatcher& dispatcher, std::vector<Service*> services) {
  static constexpr pb::Method kMethods[] = {
      pb::WRITE_CHUNK, pb::READ_CHUNK,    pb::SYNC_CHUNK,  pb::VERIFY_CHUNK,   pb::READ_TABLE,
      pb::SET_VERSION, pb::FREEZE_REPLICA, pb::DROP_REPLICA, pb::REPLICATE, pb::SYNC_REPLICAS,
      pb::SCRUB_REPLICA};
  for (pb::Method method : kMethods) {
    dispatcher.On(method, [services, method](Request request) {
      EventLoop& loop = request.connection()->loop();
      for (Service* service : services) {
        if (&service->loop_ == &loop) return service->Dispatch(method, std::move(request));
      }
      request.AnswerError({ErrorCode::kInternal, "no service on this loop"});
    });
  }
}

// What only the metaserver may ask for.
static bool IsOrder(pb::Method method) {
  return method == pb::FREEZE_REPLICA || method == pb::SET_VERSION || method == pb::DROP_REPLICA ||
         method == pb::REPLICATE || method == pb::SYNC_REPLICAS || method == pb::SCRUB_REPLICA;
}

void Service::Dispatch(pb::Method method, Request request) {
  if (stopping_) return request.AnswerError({ErrorCode::kUnavailable, "the chunkserver is stopping"});
  if (IsOrder(method) && request.connection()->peer_role() != pb::ROLE_METASERVER) {
    return request.AnswerError({ErrorCode::kNotPermitted, "only the metaserver gives orders"});
  }
  Task<void> work;
  switch (method) {
    case pb::WRITE_CHUNK: work = WriteChunk(std::move(request)); break;
    case pb::READ_CHUNK: work = ReadChunk(std::move(request)); break;
    case pb::SYNC_CHUNK: work = SyncChunk(std::move(request)); break;
    case pb::VERIFY_CHUNK: work = VerifyChunk(std::move(request)); break;
    case pb::READ_TABLE: work = ReadTable(std::move(request)); break;
    case pb::SYNC_REPLICAS: work = SyncReplicas(std::move(request)); break;
    case pb::SCRUB_REPLICA: work = ScrubReplica(std::move(request)); break;
    case pb::FREEZE_REPLICA: work = Order(std::move(request), &Service::FreezeReplica); break;
    case pb::SET_VERSION: work = Order(std::move(request), &Service::SetVersion); break;
    case pb::DROP_REPLICA: work = Order(std::move(request), &Service::DropReplica); break;
    case pb::REPLICATE: work = Order(std::move(request), &Service::Replicate); break;
    default: return request.AnswerError({ErrorCode::kUnknownMethod, "not a chunkserver's method"});
  }
  tasks_.Spawn(Guard(std::move(work)));
}

Task<void> Service::Guard(Task<void> work) {
  node_.requests.fetch_add(1);
  co_await work;
  node_.requests.fetch_sub(1);
}

Task<Status> Service::EnsureLoaded(std::shared_ptr<Replica> replica) {
  replica->touched.store(true, std::memory_order_relaxed);
  {
    std::lock_guard lock(replica->mutex);
    if (replica->dropped) co_return Fail(ErrorCode::kNoReplica, "the replica was dropped");
    if (replica->file || !replica->exists) co_return Status();
  }
  ReplicaStore& store = *node_.store;
  OnQueue load(loop_, replica->disk.work(), [&store, &replica] { return store.Load(replica); });
  co_return co_await load;
}

Task<void> Service::WaitIdle(std::shared_ptr<Replica> replica) {
  Completion idle(loop_);
  {
    std::lock_guard lock(replica->mutex);
    if (!replica->applying) co_return;
    replica->idle_waiters.push_back([idle] { idle.Set({}); });
  }
  OneShot<Status>& shot = idle.shot();
  co_await shot;
}

}  // namespace shoal
