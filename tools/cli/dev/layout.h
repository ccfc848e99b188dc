// A cluster on this machine: what stands where under its directory, and its settings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "tools/cli/cluster.h"

namespace shoal::cli::dev {

// One server of the cluster; its options stand in DIR/etc/NAME.conf. A plain value.
struct Server {
  std::string name;  // "metaserver", "chunkserver-1"
  uint16_t port = 0;
  uint16_t http_port = 0;
  uint64_t capacity = 0;  // of a chunkserver; 0: its file system's size
  std::string rack;
  uint32_t disks = 1;

  std::string address() const { return "127.0.0.1:" + std::to_string(port); }
  bool operator==(const Server&) const = default;
};

// The cluster of one directory, as DIR/dev.json holds it. Owner: a command; one thread.
struct Layout {
  std::string dir;  // absolute
  uint32_t replicas = 3;
  uint64_t capacity = 0;
  std::string mount;  // "": none
  Server metaserver;
  std::vector<Server> chunkservers;

  // Reads DIR/dev.json; kNotFound if there is no cluster.
  static Result<Layout> Load(const std::string& dir);
  // Writes it, and what is missing of the servers' configurations, DIR/shoal.conf, the key and the directories.
  Status Save() const;
  // The settings of a client of it.
  ClientSettings Client() const;

  std::string PidPath(const std::string& name) const { return dir + "/run/" + name + ".pid"; }
  std::string LogPath(const std::string& name) const { return dir + "/log/" + name + ".log"; }
  std::string ConfigPath(const std::string& name) const { return dir + "/etc/" + name + ".conf"; }
  std::string KeyPath() const { return dir + "/cluster.key"; }
  std::string ClientConfigPath() const { return dir + "/shoal.conf"; }
  std::vector<std::string> DataDirectories(const Server& server) const;
  // All servers, the metaserver first.
  std::vector<Server> Servers() const;
};

// What may stand in a cluster's directory; `wipe` deletes these and nothing else.
bool IsOurs(const std::string& entry);

// A free port on loopback below those that outgoing connections take, not among `taken`; it is added to them.
Result<uint16_t> FreePort(std::vector<uint16_t>& taken);

// A lock on DIR/run/dev.lock: one command at a time changes a cluster. Owner: the command.
class DevLock {
 public:
  // Waits for another command to end, at most 60 s.
  static Result<DevLock> Take(const std::string& dir);
  DevLock(DevLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  DevLock& operator=(DevLock&&) = delete;
  ~DevLock();

 private:
  explicit DevLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace shoal::cli::dev
