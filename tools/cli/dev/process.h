// Processes of a cluster on this machine: started as daemons, found by their pid files, ended.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "common/event_loop.h"
#include "common/result.h"
#include "tools/cli/dev/layout.h"

namespace shoal::cli::dev {

// Runs a program that goes into the background by itself, and waits until it says it is ready. The error is what it
// printed. Settings in the environment are not passed on to it.
Status RunToReady(const std::vector<std::string>& command, Duration timeout);
// The programs beside this one.
std::string Program(const std::string& name);

// The process of a server or of the mount, if it runs.
std::optional<pid_t> Running(const Layout& layout, const std::string& name);
// "running", "frozen" (stopped by a signal), or "not running".
std::string ProcessState(std::optional<pid_t> pid);
// Whether the mount point is one (of whatever process, living or dead).
bool IsMounted(const std::string& path);

// Starts what does not run of the servers; gives the names of those. With an error, some may have been started.
Result<std::vector<std::string>> StartServers(const Layout& layout);
// Mounts if it is not; true if it did.
Result<bool> StartMount(const Layout& layout);
// SIGTERM (and SIGCONT), waits, at last SIGKILL. True if it ran.
Result<bool> EndServer(const Layout& layout, const std::string& name, Duration patience);
// Waits until a write with all copies works.
Status AwaitWritable(const Layout& layout, Duration timeout);

}  // namespace shoal::cli::dev
