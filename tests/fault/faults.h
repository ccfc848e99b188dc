// Faults of the storm: what is done to servers, and undone.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/cluster/cluster.h"

namespace shoal::test {

// Strikes one cluster, one thing at a time. Each fault leaves a good copy of every block: at most one chunkserver
// suffers at once, and no block is flipped twice. Owner: the storm's thread.
class Faults {
 public:
  Faults(Cluster& cluster, uint64_t seed) : cluster_(cluster), random_(seed) {}
  ~Faults() { Heal(); }

  // Their names, as --faults takes them.
  static const std::vector<std::string>& Kinds();
  // "" when it has struck; else why it could not.
  std::string Strike(const std::string& kind);
  // For how long it is to be left.
  Milliseconds Duration(const std::string& kind);
  // Undoes it: what was killed or stopped is started, frozen is thawed, the disk has room again.
  void Heal();
  const std::string& victim() const { return victim_; }

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }
  std::string AnyChunkserver();
  std::string Cut(const std::string& server);
  std::string Fill();
  std::string Flip(const std::string& part);
  bool FlipIn(const std::string& path, const std::string& part);

  enum class State { kUp, kFrozen, kDown };
  Cluster& cluster_;
  std::mt19937_64 random_;
  std::string victim_;
  State state_ = State::kUp;       // of the victim
  std::string ballast_;            // fills the disk
  std::set<std::string> flipped_;  // chunk and block
};

// Gives the chunkserver's data directory a small file system of its own; to be made before the cluster is. Needs root.
class SmallDisk {
 public:
  SmallDisk(std::string directory, const std::string& size);
  ~SmallDisk();
  bool mounted() const { return mounted_; }

 private:
  std::string directory_;
  bool mounted_ = false;
};

}  // namespace shoal::test
