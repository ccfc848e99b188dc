// What the dev commands say about their cluster.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tools/cli/dev/layout.h"

namespace shoal::cli::dev {

// The parts of the cluster with their processes, and where things are.
nlohmann::ordered_json ReportJson(const Layout& layout);
std::string ReportText(const Layout& layout);
// Whether every server runs, and the mount if there is to be one.
bool AllRunning(const Layout& layout);

}  // namespace shoal::cli::dev
