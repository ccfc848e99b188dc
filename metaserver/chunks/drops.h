// DropSender: carries out the recorded orders to drop replicas.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "metaserver/chunks/state.h"

namespace shoal::meta {

// Sends DROP_REPLICA for every DropRecord of a live server, when the record is durable and older than the drop delay (a
// tenth of it where there is little room);
// removes the record when the server has confirmed. Records stay until then, so a restart goes on, and a server that is
// away gets its orders when it is back. One that is held gets those for replicas that were left out of their chunks at
// once, and is released when it has answered them all. Namespace thread; owner: ChunkService.
class DropSender {
 public:
  explicit DropSender(ChunkState& state) : state_(state) {}
  // There may be orders for this server: a record was written, or it registered.
  void Noted(ServerId server) { pending_[server].noted = true; }
  // Whether there are any.
  Task<Result<bool>> HasOrders(ServerId server);
  // Called often: starts work on the servers that may have some.
  void Tick();

 private:
  struct PerServer {
    bool noted = false;
    bool running = false;
  };
  using Orders = std::vector<std::pair<Key, pb::DropRecord>>;
  // One pass over the orders of a server.
  struct Pass {
    Key next;  // empty: at the end
    std::shared_ptr<Connection> connection;
    bool held = false;        // it was, at the begin
    bool left = false;        // some failed or were not due
    bool unanswered = false;  // of some that were sent nothing is known
  };
  Task<void> Work(ServerId server);
  Task<Status> SendSome(ServerId server, Pass* pass);  // a batch
  Task<Status> KeepDue(ServerId server, Orders* orders, Pass* pass);
  Duration Delay(ServerId server) const;
  Task<Result<std::set<uint64_t>>> Existing(const Orders* orders);
  Task<Status> Forget(const std::vector<Key>* done);

  ChunkState& state_;
  std::map<ServerId, PerServer> pending_;
};

}  // namespace shoal::meta
