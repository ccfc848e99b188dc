// Stopping a cluster on this machine, for `dev stop` and `dev wipe`.
#pragma once

#include <string>
#include <vector>

#include "tools/cli/dev/layout.h"

namespace shoal::cli::dev {

// Unmounts, then ends the chunkservers and the metaserver. Gives the names of what it stopped. kBusy: programs use the
// mount (named in the message), and nothing was stopped.
Result<std::vector<std::string>> StopAll(const Layout& layout, bool force);

}  // namespace shoal::cli::dev
