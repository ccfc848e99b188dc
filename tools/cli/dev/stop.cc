// shoal dev stop: unmounts and ends the servers; the data stays.
#include "tools/cli/dev/stop.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "fuse/mount.h"
#include "tools/cli/command.h"
#include "tools/cli/dev/process.h"

namespace shoal::cli {
namespace dev {

Result<std::vector<std::string>> StopAll(const Layout& layout, bool force) {
  std::vector<std::string> stopped;
  if (!layout.mount.empty() && (IsMounted(layout.mount) || Running(layout, "mount"))) {
    fuse::UnmountOptions options;
    options.force = force;
    Status status = IsMounted(layout.mount) ? fuse::Unmount(layout.mount, options) : Status{};
    if (!status && status.error().code != ErrorCode::kNotFound) return Fail(status.error());
    // A detached mount ends when its last user goes; a mount process without a mount ends by SIGTERM.
    TRY(EndServer(layout, "mount", 30s));
    stopped.push_back("mount");
  }
  std::vector<Server> servers = layout.Servers();
  for (auto server = servers.rbegin(); server != servers.rend(); ++server) {
    TRY_ASSIGN(bool ran, EndServer(layout, server->name, 30s));
    if (ran) stopped.push_back(server->name);
  }
  return stopped;
}

}  // namespace dev

int RunDevStop(const Arguments& arguments) {
  Command command("dev stop", "Unmounts the cluster of a directory and ends its servers. The data stays.");
  std::string dir = "./shoal-dev";
  bool force = false;
  command.options().Text("dir", &dir, "The cluster's directory", "DIR");
  command.options().Flag("force", &force, "Detach a mount that programs still use");
  if (auto exit = command.Parse(arguments)) return *exit;
  dir = AbsolutePath(dir);
  auto layout = dev::Layout::Load(dir);
  if (!layout) return command.Fail(layout.error(), "name its directory: --dir DIR");
  auto lock = dev::DevLock::Take(dir);
  if (!lock) return command.Fail(lock.error());
  auto stopped = dev::StopAll(*layout, force);
  if (!stopped) {
    return command.Fail(stopped.error(), stopped.error().code == ErrorCode::kBusy
                                             ? "end those programs, or detach the mount: shoal dev stop --force --dir " + dir
                                             : "shoal dev status --dir " + dir);
  }
  std::string text = stopped->empty() ? "nothing was running\n" : fmt::format("stopped {}\n", fmt::join(*stopped, ", "));
  return command.Answer({{"dir", dir}, {"stopped", *stopped}}, text);
}

}  // namespace shoal::cli
