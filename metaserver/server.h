// MetaServer: one metaserver, in a process of its own or in a test.
#pragma once

#include <memory>
#include <string>

#include "common/metrics.h"
#include "common/result.h"
#include "metaserver/options.h"

namespace shoal {

// Opens the metadata in `data_dir` (creating a new file system when there is none), serves it on `listen`. Start and
// Stop are called once each, from a plain thread; Stop (or the destructor) leaves everything on the disk, synced.
class MetaServer {
 public:
  explicit MetaServer(MetaServerOptions options);
  ~MetaServer();
  MetaServer(const MetaServer&) = delete;
  MetaServer& operator=(const MetaServer&) = delete;

  // Errors name the thing and the next step: a directory in use, a newer format, a port in use, damaged metadata.
  Status Start();
  void Stop();

  uint16_t port() const;                    // after Start
  const std::string& cluster_uuid() const;  // after Start
  Metrics& metrics();
  // Any thread, after Start: an error says why the server is read-only, or which files are lost.
  Status Health() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace shoal
