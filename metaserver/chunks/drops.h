// DropSender: carries out the recorded orders to drop replicas.
#pragma once

#include <map>
#include <vector>

#include "metaserver/chunks/state.h"

namespace shoal::meta {

// Sends DROP_REPLICA for every DropRecord of a live server, when the record is durable and older than the drop delay;
// removes the record when the server has confirmed. Records stay until then, so a restart goes on, and a server that is
// away gets its orders when it is back. Namespace thread; owner: ChunkService.
class DropSender {
 public:
  explicit DropSender(ChunkState& state) : state_(state) {}
  // There may be orders for this server: a record was written, or it registered.
  void Noted(ServerId server) { pending_[server].noted = true; }
  // Called often: starts work on the servers that may have some.
  void Tick();

 private:
  struct PerServer {
    bool noted = false;
    bool running = false;
  };
  // All orders of a server, once; those that fail or are not due wait for the next time.
  Task<void> Work(ServerId server);
  // A batch from `next` on, which moves behind it. True: some were left.
  Task<Result<bool>> SendSome(ServerId server, Key* next);
  Task<Status> Forget(const std::vector<Key>* done);

  ChunkState& state_;
  std::map<ServerId, PerServer> pending_;
};

}  // namespace shoal::meta
