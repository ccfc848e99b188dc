// How a command finds its cluster and talks to it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "client/engine.h"
#include "common/daemon/config.h"
#include "common/event_loop.h"
#include "common/metrics.h"
#include "tools/cli/command.h"

namespace shoal::cli {

// The client's settings: --meta, --key, and --config with the file's other keys. A plain value.
struct ClientSettings {
  std::vector<std::string> meta{"127.0.0.1:7600"};
  std::string key = "/etc/shoal/cluster.key";
  Duration patience = 5s;  // how long a command waits for an absent metaserver

  void Declare(Options& options);
  // Fills meta and key from a mount's answer or a client configuration, where they were not given on the command line.
  void TakeFromConfig(const Options& options, const std::vector<std::string>& mount_meta, const std::string& mount_key);
  Result<std::vector<Address>> Addresses() const;
};

// Keys of a client configuration that only mounts use; every command accepts them in the file.
const std::vector<std::string>& MountKeys();

// A client of the cluster for the time of one command: a loop with its thread, and an Engine on it.
// Owner: the command. Called on main's thread; every call waits for its answer.
class Cluster {
 public:
  // Connects; a failure says what to do next, and has exit code 3 when nobody answers. With `session` false only
  // status, servers and StatPath can be asked.
  static std::expected<std::unique_ptr<Cluster>, Failure> Connect(const ClientSettings& settings, const std::string& verb,
                                                                  bool session);
  ~Cluster();

  client::Engine& engine() { return *engine_; }
  EventLoop& loop() { return loop_; }
  // Runs a task of the engine and waits for it.
  template <typename T>
  T Run(Task<T> task) {
    return RunOn(loop_, std::move(task));
  }
  // The caller's own credentials.
  static client::Cred Self();

 private:
  Cluster() : loop_("cli") {}
  EventLoop loop_;
  Metrics metrics_;
  std::unique_ptr<client::Engine> engine_;
  bool started_ = false;
};

// What PATH on the command line means. A plain value.
struct Target {
  std::string shown;   // as it was written
  bool is_inode = false;
  std::string path;    // from the root of the file system, without the leading "/" ("": the root)
  InodeId inode;
};

// Understands PATH ("shoal:/a/b" or a local path under a mount; empty: none). A local path tells the cluster too:
// `settings` are filled from its mount. kNotFound, kInvalidArgument with the next step in the message.
Result<Target> ResolvePath(const std::string& path, const Options& options, ClientSettings& settings);

}  // namespace shoal::cli
