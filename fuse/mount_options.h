// What a mount may be told, and how it is written: `shoal mount SOURCE DIR -o OPTIONS`, the same in fstab.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/event_loop.h"
#include "common/limits.h"
#include "common/result.h"
#include "common/rpc/rpc.h"

namespace shoal::fuse {

// Everything that one mount needs to know. A plain value; the command line fills it, RunMount uses it.
struct MountOptions {
  std::vector<Address> meta;  // metaservers, tried in turn
  std::string subdir;         // directory of the file system that is mounted ("": its root)
  std::string mountpoint;     // an existing directory
  std::string key_file;       // of the cluster key
  std::string config;         // the client configuration that was read, for who asks the mount (may be empty)

  // -o options.
  bool read_only = false;
  std::optional<bool> allow_other;  // unset: only when root mounts
  bool noatime = false;             // no access times at all; else as the kernel's relatime
  bool suid = false;
  bool dev = false;
  bool noexec = false;
  bool sync = false;                         // every write(2) is on the disks of all replicas when it returns
  Duration timeout = kMountTimeout;          // how long an operation waits for an absent metaserver
  double attr_timeout_seconds = 1;           // how long the kernel may believe attributes ...
  double entry_timeout_seconds = 1;          // ... names ...
  double negative_timeout_seconds = 1;       // ... and absent names
  uint32_t read_ahead_kib = 4096;            // of the kernel, for sequential readers (root only; else its 128 KiB)
  std::optional<std::string> config_option;  // config=FILE

  bool foreground = false;
  std::string pid_file;  // "": none
  std::string log_file;  // "": standard error in the foreground, else see DefaultMountLog
  std::string log_level = "info";
};

// SOURCE of a mount: HOST[:PORT][,HOST[:PORT]...][:/subdir], or only [:]/subdir (the hosts are configured elsewhere),
// or "" or "none". A plain value.
struct MountSource {
  std::vector<Address> meta;
  std::string subdir;
};
Result<MountSource> ParseMountSource(std::string_view text);

// Applies what stands after -o ("ro,timeout=30s,..."). Words of mount(8) that mean nothing here (defaults, auto, user,
// _netdev, x-*...) are passed over; an unknown one is kInvalidArgument, naming the nearest known option.
Status ParseMountOptions(std::string_view text, MountOptions& options);

// "30", "30s", "5m", "2h", "1d".
Result<Duration> ParseMountDuration(std::string_view text);

// Where a daemon logs when it was told nothing: /var/log/shoal for root, else the user's state directory; named after
// the mount point.
std::string DefaultMountLog(const std::string& mountpoint, bool root);

}  // namespace shoal::fuse
