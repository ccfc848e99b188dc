// A cluster of real processes for tests: started with `shoal dev start`, killed and frozen by process number.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cluster/process.h"

namespace shoal::test {

// The programs under test: SHOAL_BIN of the environment, else the build's.
std::string Program(const std::string& name);

// A directory of its own, deleted at the end unless the test failed (then its path is printed). One thread.
class TestDirectory {
 public:
  TestDirectory();
  ~TestDirectory();
  const std::string& path() const { return path_; }
  // A file in it with this text; gives its path.
  std::string File(const std::string& name, const std::string& text) const;

 private:
  std::string path_;
};

// What a test's cluster looks like. A plain value.
struct ClusterOptions {
  int chunkservers = 3;
  int replicas = 3;
  bool mount = true;
  std::string capacity;  // of each chunkserver; "": the disk's size
  std::function<void(const std::string& dir)> prepare;  // called with its directory before it is made
};

// A cluster in a directory of its own. The destructor stops it, and fails the test when a process has crashed (a
// failed CHECK, a sanitizer's report, a core) or something is left behind. Owner: the test; one thread.
class Cluster {
 public:
  // Fails the test (and returns null) when it does not start.
  static std::unique_ptr<Cluster> Start(const ClusterOptions& options = {});
  ~Cluster();

  const std::string& dir() const { return dir_; }
  std::string mount() const { return dir_ + "/mnt"; }
  std::string config() const { return dir_ + "/shoal.conf"; }
  std::string Path(const std::string& name) const { return mount() + "/" + name; }

  // `shoal ARGUMENTS...`.
  Outcome Shoal(std::vector<std::string> arguments, Milliseconds limit = Milliseconds(120000)) const;
  // The same with --json, parsed; a discarded value when that fails.
  nlohmann::json Json(std::vector<std::string> arguments) const;

  // `name`: "metaserver", "chunkserver-2", "mount". 0 if it does not run.
  pid_t Pid(const std::string& name) const;
  void Kill(const std::string& name);    // kill -9; returns when it is dead
  void Freeze(const std::string& name);  // SIGSTOP
  void Thaw(const std::string& name);    // SIGCONT
  // `shoal dev start`: what is not running is started. Fails the test if that fails.
  void StartMissing();
  // The same without waiting: the processes come up while the test goes on.
  std::unique_ptr<Process> BeginStartMissing();
  void Remount();

  std::vector<std::string> Chunkservers() const;
  // GET of a page of a server's HTTP port.
  std::string Http(const std::string& server, const std::string& page) const;
  // Sum over the series of a metric whose labels contain `labels`.
  double Metric(const std::string& server, const std::string& metric, const std::string& labels = {}) const;
  std::string Log(const std::string& name) const;
  // "" when each chunk of the cluster has all the copies wanted; else what is wrong.
  std::string Shortage() const;
  // "" when each chunk of the file has `copies` live ones; else what is wrong.
  std::string Shortage(const std::string& path, size_t copies) const;
  // The replica files of the first chunk of a file: one path a copy, in chain order.
  std::vector<std::string> ReplicaFiles(const std::string& path) const;

 private:
  explicit Cluster(const ClusterOptions& options) : options_(options) {}
  std::vector<std::string> StartCommand() const;
  ClusterOptions options_;
  TestDirectory own_;
  std::string dir_;
};

std::string ReadFile(const std::string& path);
// 64 hex digits; "" if the file can't be read to its end. Drops its pages from the kernel's cache first.
std::string Sha256OfFile(const std::string& path);
// Writes `size` bytes that follow from `seed`; gives their SHA-256, "" on an error. fsync at the end.
std::string WritePattern(const std::string& path, size_t size, uint64_t seed);
// Damages a file: another bit in the byte there. Fails the test when it can't.
void FlipBit(const std::string& path, off_t at);
// A local directory with `count` files of /usr/include and their directories.
void MakeTree(const std::string& directory, int count);
size_t CountFiles(const std::string& directory);

}  // namespace shoal::test
