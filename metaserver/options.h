// What a metaserver is told at its start.
#pragma once

#include <optional>
#include <string>

#include "common/event_loop.h"
#include "common/limits.h"
#include "common/rpc/rpc.h"
#include "metaserver/state_files.h"

namespace shoal {

// Plain values; the defaults are those of the design.
struct MetaServerOptions {
  std::string data_dir;                     // created when it does not exist
  Address listen{"127.0.0.1", kMetaPort};   // port 0 picks one
  ClusterKey key;
  std::string name = "metaserver";
  std::string cluster_uuid;                 // only for a new file system; empty: made up
  uint32_t replicas = 3;                    // of a new file system's root; later the stored number counts
  std::optional<uint32_t> root_uid, root_gid;  // of a new file system's root; default: this process's
  uint32_t min_copies = 2;                  // capped at the number of registered servers, see the brief's rule
  bool sync_always = false;                 // every answer waits until its batch is durable
  Duration sync_interval = 2s;
  // After a start: until all sessions are back, so that they can hand in what a power cut took; and once that is known to
  // be missing.
  Duration hand_in_wait = 800ms;
  Duration hand_in_wait_missing = 5s;
  Duration session_timeout = kSessionTimeout;
  Duration heartbeat_interval = kHeartbeatInterval;
  Duration server_lease = kServerLease;
  Duration server_lease_margin = kServerLeaseMargin;
  Duration rereplication_grace = 600s;      // a server absent for this long is given up
  Duration drop_delay = 5s;                 // between an unlink's durability and the order to drop replicas
  Duration keep_unknown = std::chrono::hours(30 * 24);  // replicas that no record knows; 0: for ever
  size_t cache_bytes = 512u << 20;
  int reader_threads = 2;
  uint32_t slots = 64;                      // per session
  // For tests.
  meta::StateFiles files;
  size_t write_buffer_bytes = 16 << 20;  // replayed at a start after a crash: bounds the time that takes
  uint32_t dentry_hash_bits = 55;
};

}  // namespace shoal
