// Service: the requests that a chunkserver answers, on one loop. One file for each of them.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "chunkserver/completion.h"
#include "chunkserver/node.h"
#include "common/event_loop.h"
#include "common/proto/check.pb.h"
#include "common/proto/chunk.pb.h"
#include "common/proto/control.pb.h"
#include "common/rpc/rpc.h"

namespace shoal {

// Connections to other chunkservers, one for each address and lane, made when first needed. A lane is the number of chain
// members that come after the receiver: requests of one lane only ever wait for those of the next lower one, so that
// servers that forward to each other can't stop each other, however full the connections are. On one loop.
class Peers {
 public:
  Peers(EventLoop& loop, RpcContext& context) : loop_(loop), context_(context) {}
  // kUnavailable at once while the other end is known to be down.
  Task<Result<std::shared_ptr<Connection>>> Get(std::string address, int lane, Duration timeout);
  // The live connection or null.
  std::shared_ptr<Connection> current(const std::string& address, int lane);
  void Close();

 private:
  EventLoop& loop_;
  RpcContext& context_;
  std::map<std::pair<std::string, int>, std::unique_ptr<Channel>> channels_;
};

// Answers requests of the connections of one loop; everything runs there, disk work excepted. Owner: the server. Every
// request is answered, with an error of the table in result.h where it can't be done.
class Service {
 public:
  Service(EventLoop& loop, Node& node);

  // Makes the dispatcher hand the requests of each service's loop to it. The services outlive the dispatcher's use.
  static void Register(Dispatcher& dispatcher, std::vector<Service*> services);

  // On the loop: refuses new requests, ends the connections to peers, waits for the requests in work.
  Task<void> Stop();
  // On the loop: orders of a new connection have numbers of their own.
  void ForgetOrders() { orders_.clear(); }

  EventLoop& loop() { return loop_; }

 private:
  // The answer to an order, kept for a repetition of it.
  struct OrderState {
    bool done = false;
    Result<std::string> answer;
    std::shared_ptr<WaitList> waiting;
  };
  using OrderKey = std::pair<int, std::array<uint64_t, 3>>;  // method; order, chunk, instance

  void Dispatch(pb::Method method, Request request);
  Task<void> Guard(Task<void> work);

  Task<void> WriteChunk(Request request);
  Task<void> ReadChunk(Request request);
  Task<void> SyncChunk(Request request);
  Task<void> VerifyChunk(Request request);
  Task<void> ReadTable(Request request);
  Task<void> SyncReplicas(Request request);
  Task<void> ScrubReplica(Request request);

  template <typename Message, typename Response>
  Task<void> Order(Request request, Task<Result<Response>> (Service::*work)(const Message&));
  Task<Result<pb::FreezeReplicaResponse>> FreezeReplica(const pb::FreezeReplicaRequest& message);
  Task<Result<pb::SetVersionResponse>> SetVersion(const pb::SetVersionRequest& message);
  Task<Result<pb::DropReplicaResponse>> DropReplica(const pb::DropReplicaRequest& message);
  Task<Result<pb::ReplicateResponse>> Replicate(const pb::ReplicateRequest& message);

  // Parts of the above.
  Result<std::shared_ptr<Replica>> TargetOf(const pb::WriteChunkRequest& message, size_t bytes);
  Status CheckCanWrite(const Disk& disk, const pb::WriteChunkRequest& message, size_t bytes);
  Task<Status> EnsureLoaded(std::shared_ptr<Replica> replica);
  struct LocalWrite;
  Status AdmitWrite(LocalWrite& local, const WriteTicket& ticket, WriteOperation& operation, bool sync);
  Task<Status> FinishLocal(LocalWrite& local, SteadyTime deadline, bool sync);
  Result<std::shared_ptr<ReplicaFile>> FileFor(Replica& replica, ChunkVersion version);
  Task<Result<std::shared_ptr<ReplicaFile>>> OpenFor(std::shared_ptr<Replica> replica, ChunkVersion version);
  Task<Result<ReadBlocks>> ReadBlocksOf(std::shared_ptr<Replica> replica, ChunkVersion version, uint32_t offset,
                                        uint32_t length, bool verify);
  Task<Status> ScrubAll(std::shared_ptr<Replica> replica, const pb::ScrubReplicaRequest& message,
                        pb::ScrubReplicaResponse* response);
  Task<Status> SyncOne(std::shared_ptr<Replica> replica);
  Task<void> WaitIdle(std::shared_ptr<Replica> replica);
  Task<Status> Settle(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                      const pb::SetVersionRequest& message);
  Task<Status> Heal(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                    const pb::SetVersionRequest& message, pb::SetVersionResponse* response);
  Task<Status> Level(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                     const pb::SetVersionRequest& message, bool verify_own, bool* whole);
  Task<Status> Prepare(std::shared_ptr<Replica> replica, std::shared_ptr<ReplicaFile> file,
                       const pb::SetVersionRequest& message, pb::SetVersionResponse* response, bool* whole);
  Task<Status> RaiseVersion(std::shared_ptr<Replica> replica, const pb::SetVersionRequest& message,
                            pb::SetVersionResponse* response);
  Task<Result<pb::ReplicateResponse>> MakeCopy(const pb::ReplicateRequest& message);
  Task<Status> FillCopy(const pb::ReplicateRequest& message, std::shared_ptr<Replica> copy, pb::ReplicateResponse* done);
  Task<void> Discard(std::shared_ptr<Replica> copy);

  EventLoop& loop_;
  Node& node_;
  Peers peers_;
  TaskGroup tasks_;
  bool stopping_ = false;
  std::map<OrderKey, std::shared_ptr<OrderState>> orders_;
  std::set<std::pair<ChunkId, InstanceId>> copying_;
};

// Runs the writes of the replica's order that are ready; on a thread of its disk. `applying` is set by whoever queues it.
void ApplyWrites(ReplicaStore& store, std::shared_ptr<Replica> replica);

}  // namespace shoal
