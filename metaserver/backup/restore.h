// Making a metaserver's state from a backup.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "common/result.h"
#include "metaserver/backup/format.h"
#include "metaserver/state_files.h"

namespace shoal::meta {

// Plain values.
struct RestoreOptions {
  std::string backup;              // the file
  std::string dir;                 // the metaserver's data directory; created when it does not exist
  bool move_aside = false;         // a state that is there is kept under another name
  uint32_t incarnation_above = 0;  // the new incarnation is higher than this
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes; may be empty
  StateFiles files;                // for tests
};

// What was done. A plain value.
struct RestoreResult {
  BackupHeader header;
  BackupTrailer trailer;
  uint32_t incarnation = 0;  // of the new state
  uint64_t sessions = 0;     // that were ended
  uint64_t servers = 0;      // that the state knows
  std::string moved_to;      // where the state that was there is now
};

// Writes a new state into the directory: that of the backup, with a higher incarnation (than the backup's and than that
// of a state that is moved aside), with its sessions ended, and with numbers (leases, orders, servers) that were never
// given. Everything is durable when it returns; before that the directory has either what it had, or (for an instant)
// nothing that a metaserver would start on, or the new state. It may be repeated after it was interrupted. Blocks; any thread. Errors name what is wrong: kBusy (a metaserver runs
// there), kNotEmpty (something is there), kWrongCluster, kCorrupt and kNotSupported of the backup.
Result<RestoreResult> Restore(const RestoreOptions& options);

}  // namespace shoal::meta
