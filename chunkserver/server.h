// ChunkServer: a whole chunkserver in one object. main() makes one; tests make several in a process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/limits.h"
#include "common/metrics.h"
#include "common/result.h"
#include "common/rpc/rpc.h"

namespace shoal {

class Files;

// A directory that holds replicas, with how much of it Shoal may use. A plain value.
struct DataDirectory {
  std::string path;
  uint64_t capacity = 0;  // bytes; 0: the size of its file system
};

// How a chunkserver is set up. A plain value.
struct ChunkServerOptions {
  std::vector<DataDirectory> directories;
  Address listen{"127.0.0.1", kChunkPort};  // port 0: any free one
  Address advertise;                        // what others are told; empty host: the listen address, port 0: the bound port
  std::vector<Address> metaservers;         // tried in turn
  ClusterKey key;
  std::string name;  // empty: the host name
  std::string host;  // failure domain; empty: the host name
  std::string rack;  // failure domain; may be empty
  std::string version;  // of the program, for who lists the servers
  int network_loops = 1;
  uint64_t reserved_bytes = 64ull << 20;    // of each file system: left free
  size_t open_files = 4096;                 // descriptors kept open, at most
  Duration heartbeat = kHeartbeatInterval;  // until the metaserver says another
  Duration clean_after = 10s;               // of a sync: what was not written since no longer counts as dirty on the disk
  uint64_t scrub_rate = 0;                  // bytes a second of each disk; 0: no scrubbing
  Duration scrub_every = 6h;                // a pass over a disk begins no sooner after the one before
  Files* files = nullptr;                   // null: the operating system's; tests put a fake here
  // Called once, on a thread of the server, when every metaserver has refused it for good before it was ever registered.
  // The error names the data directory and says what to do; the server is to be stopped.
  std::function<void(const Error&)> on_refused;
};

// Where the scrubbing of a data directory is. A plain value; times in seconds since 1970, 0: never.
struct ScrubStatus {
  std::string directory;
  bool running = false;
  double part = 0;  // read of the pass under way, 0 to 1
  uint64_t errors = 0, orphans = 0, last_errors = 0;
  int64_t last_started = 0, last_ended = 0;
};

// Serves replicas of its data directories, registers with the metaserver and keeps its lease by heartbeats.
// Owner: the program's main object. Start, Stop and the destructor are called on one thread that is not a loop of the
// server. Errors of one disk are reported and counted and never end the server.
class ChunkServer {
 public:
  explicit ChunkServer(ChunkServerOptions options);
  ~ChunkServer();  // stops
  ChunkServer(const ChunkServer&) = delete;
  ChunkServer& operator=(const ChunkServer&) = delete;

  // Opens the data directories, listens, and starts to register. It does not wait for the metaserver. Errors name the
  // directory or port and say what to do: a directory that is missing, unreadable, in use, or of another cluster or
  // server; a port in use.
  Status Start();
  // Stops serving, ends the connections, finishes what the disks are doing, unlocks the directories. Nothing is synced.
  void Stop();

  // Waits until registering was tried once, at most that long. An error: it was refused for good (see on_refused).
  Status AwaitFirstTry(Duration limit);

  uint16_t port() const;
  Metrics& metrics();
  // Any thread. Registered, and the lease has not lapsed.
  bool serving() const;
  std::vector<ScrubStatus> scrubs() const;  // any thread; one a directory
  // One line for people: "registered as server 3" or what is in the way of it.
  std::string state() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace shoal
