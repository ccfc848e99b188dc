// Cluster: a metaserver and chunkservers in this process, for tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "chunkserver/server.h"
#include "metaserver/server.h"

namespace shoal::testing {

// A directory below /tmp that goes with this object.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "shoal-test-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Real servers on loopback, in one process, under one temporary directory. Owner: the test; everything is called on
// its thread. Ports stay the same when a server is started again. Failures abort the test program.
class Cluster {
 public:
  struct Options {
    int chunkservers = 3;
    uint32_t replicas = 3;
    uint32_t min_copies = 2;
    uint64_t capacity = 8ull << 30;  // of each chunkserver
    std::optional<uint32_t> root_uid = 0;
    Duration sync_interval = 2s;  // of the metaserver
  };
  explicit Cluster(Options options) : options_(options) {
    StartMeta();
    chunk_.resize(static_cast<size_t>(options.chunkservers));
    chunk_ports_.resize(chunk_.size());
    for (size_t i = 0; i < chunk_.size(); ++i) StartChunk(i);
    for (size_t i = 0; i < chunk_.size(); ++i) WaitServing(i);
  }
  Cluster() : Cluster(Options()) {}
  ~Cluster() {
    for (size_t i = 0; i < chunk_.size(); ++i) StopChunk(i);
    StopMeta();
  }

  void StartMeta() {
    MetaServerOptions options;
    options.data_dir = MetaDir();
    options.listen = Address{"127.0.0.1", meta_port_};
    options.key = ClusterKey::ForTest();
    options.replicas = options_.replicas;
    options.min_copies = options_.min_copies;
    options.root_uid = options.root_gid = options_.root_uid;
    options.sync_interval = options_.sync_interval;
    meta_ = std::make_unique<MetaServer>(std::move(options));
    Status started = meta_->Start();
    if (!started) std::fprintf(stderr, "metaserver: %s\n", ToString(started.error()).c_str());
    CHECK(started.has_value());
    meta_port_ = meta_->port();
  }
  void StopMeta() { meta_.reset(); }
  // A power cut of the metaserver alone: between these two nothing that it does reaches the disk. (Without a sync: see
  // sync_interval.)
  void BeginLosing() { std::filesystem::copy(MetaDir(), MetaDir() + ".synced", std::filesystem::copy_options::recursive); }
  void CutPowerOfMeta() {
    StopMeta();
    std::filesystem::remove_all(MetaDir());
    std::filesystem::rename(MetaDir() + ".synced", MetaDir());
    StartMeta();
  }

  void StartChunk(size_t i) {
    ChunkServerOptions options;
    std::string path = ChunkDir(i);
    std::filesystem::create_directories(path);
    options.directories.push_back({path, options_.capacity});
    options.listen = Address{"127.0.0.1", chunk_ports_[i]};
    options.metaservers = {meta_address()};
    options.key = ClusterKey::ForTest();
    options.name = "chunkserver-" + std::to_string(i + 1);
    options.host = options.name;
    chunk_[i] = std::make_unique<ChunkServer>(std::move(options));
    Status started = chunk_[i]->Start();
    if (!started) std::fprintf(stderr, "chunkserver: %s\n", ToString(started.error()).c_str());
    CHECK(started.has_value());
    chunk_ports_[i] = chunk_[i]->port();
  }
  void StopChunk(size_t i) { chunk_[i].reset(); }
  bool Serving(size_t i) const { return chunk_[i] && chunk_[i]->serving(); }
  // Until the chunkserver is registered and has its lease.
  void WaitServing(size_t i) const {
    auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!Serving(i)) {
      CHECK(std::chrono::steady_clock::now() < deadline);
      std::this_thread::sleep_for(5ms);  // nobody tells
    }
  }
  size_t chunkservers() const { return chunk_.size(); }

  MetaServer& meta() { return *meta_; }
  ChunkServer& chunk(size_t i) { return *chunk_[i]; }
  Address meta_address() const { return Address{"127.0.0.1", meta_port_}; }
  std::string MetaDir() const { return dir_.path() + "/metaserver"; }
  std::string ChunkDir(size_t i) const { return dir_.path() + "/chunkserver-" + std::to_string(i + 1); }
  const std::string& dir() const { return dir_.path(); }

 private:
  Options options_;
  TempDir dir_;
  uint16_t meta_port_ = 0;
  std::unique_ptr<MetaServer> meta_;
  std::vector<std::unique_ptr<ChunkServer>> chunk_;
  std::vector<uint16_t> chunk_ports_;
};

}  // namespace shoal::testing
