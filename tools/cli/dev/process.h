// Processes of a cluster on this machine: started as daemons, found by their pid files, ended.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/event_loop.h"
#include "common/result.h"
#include "tools/cli/dev/layout.h"

namespace shoal::cli::dev {

// Says on standard error what a command waits for, when that takes long: after three seconds, then every ten. Owner: who
// waits; one thread.
class Patience {
 public:
  explicit Patience(Duration limit) : began_(std::chrono::steady_clock::now()), limit_(limit) {}
  bool over() const { return waited() > limit_; }
  // `what` gives "chunkserver-2 to be ready".
  void Say(const std::function<std::string()>& what);

 private:
  Duration waited() const { return std::chrono::steady_clock::now() - began_; }
  const std::chrono::steady_clock::time_point began_;
  const Duration limit_;
  Duration next_ = 3s;
};

// Runs a program that goes into the background by itself, and waits until it says it is ready. The error is what it
// printed. Settings in the environment are not passed on to it. `name` and `log` are what is said while it takes long.
Status RunToReady(const std::vector<std::string>& command, Duration timeout, const std::string& name, const std::string& log);
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
// The last lines of a server's log, the newest last; "" if there are none.
std::string LastLines(const Layout& layout, const std::string& name, size_t lines);
// Waits until a write with all copies works. Ends at once, and says why, when a server ends meanwhile, or when the servers
// are full (kNoSpace).
Status AwaitWritable(const Layout& layout, Duration timeout);

}  // namespace shoal::cli::dev
