// Looks through LevelDB's logs before LevelDB does.
#pragma once

#include <string>

#include "common/result.h"
#include "metaserver/state_files.h"

namespace shoal::meta {

// After a power cut the end of a log may be damaged, which LevelDB with paranoid checks refuses to open, and without
// them may skip in silence. Every record of every log in `dir` is checked (checksum, and that LevelDB's sequence
// numbers have no gap). The part from the first bad record on is cut off when no batch in it was acknowledged as
// durable and nothing was written to a newer log; the cut bytes are kept beside the log. Else: kCorrupt, naming
// `shoal meta check`. A damaged last record of the manifest is cut off in the same way: LevelDB syncs each before it does
// anything that needs it. Logs that the manifest says are in tables do not count. A missing directory is fine.
Status CheckLogs(const std::string& dir, StateFiles files = {});

}  // namespace shoal::meta
