// Reconciler: after a restore, what the chunkservers have is brought into the records before anything is served.
#pragma once

#include <string>
#include <vector>

#include "metaserver/chunks/state.h"

namespace shoal::meta {

// A restored state is older than what is on the disks. If one server served by its records while another has not yet
// told that it has a newer version, readers would see both. So no server gets its lease before each that the state
// knows, and each that has registered since, has had its inventory compared to the end (Inventory adopts newer versions
// while it does), or has been away for the grace. Then this is recorded, all are released, and their inventories are
// compared once more, with the records as they are then. Namespace thread; owner: ChunkService.
class Reconciler {
 public:
  explicit Reconciler(ChunkState& state) : state_(state) {}
  // Servers are registered, but serve nothing yet.
  bool Holding() const { return !state_.context.life.reconciled; }
  // A chunk's record was given a newer version that servers have: it is recovered once they serve.
  void Adopted(ChunkId chunk) { adopted_.insert(chunk); }
  // The server's inventory was compared to the end.
  void Told(ServerId server);
  // Called often: ends the hold when it is time.
  void Tick();
  // Names of the servers that are waited for.
  std::vector<std::string> WaitingFor() const;

 private:
  void CheckHold();
  Task<void> End();
  Task<void> Recover(ChunkId chunk);
  ChunkState& state_;
  std::map<ServerId, uint64_t> told_;  // by which of its processes
  bool ending_ = false;
  std::set<ChunkId> adopted_;
  size_t running_ = 0;
};

}  // namespace shoal::meta
