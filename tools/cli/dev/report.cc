#include "tools/cli/dev/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/cli/dev/process.h"
#include "tools/cli/table.h"

namespace shoal::cli::dev {
namespace {

std::string MountState(const Layout& layout) {
  auto pid = Running(layout, "mount");
  if (pid && IsMounted(layout.mount)) return ProcessState(pid) == "frozen" ? "frozen" : "mounted";
  return IsMounted(layout.mount) ? "dead" : "not mounted";
}

}  // namespace

nlohmann::ordered_json ReportJson(const Layout& layout) {
  nlohmann::ordered_json servers = nlohmann::ordered_json::array();
  for (const Server& server : layout.Servers()) {
    auto pid = Running(layout, server.name);
    servers.push_back({{"name", server.name},
                       {"state", ProcessState(pid)},
                       {"pid", pid.value_or(0)},
                       {"address", server.address()},
                       {"http", fmt::format("http://127.0.0.1:{}", server.http_port)},
                       {"log", layout.LogPath(server.name)},
                       {"data", server.name == "metaserver" ? std::vector<std::string>{layout.dir + "/metaserver"}
                                                            : layout.DataDirectories(server)}});
  }
  nlohmann::ordered_json mount = nullptr;
  if (!layout.mount.empty()) {
    mount = {{"path", layout.mount}, {"state", MountState(layout)}, {"pid", Running(layout, "mount").value_or(0)}, {"log", layout.LogPath("mount")}};
  }
  return {{"dir", layout.dir},           {"config", layout.ClientConfigPath()}, {"meta", layout.metaserver.address()},
          {"replicas", layout.replicas}, {"servers", std::move(servers)},       {"mount", std::move(mount)}};
}

std::string ReportText(const Layout& layout) {
  Table table({"part", "state", ">pid", "address", "metrics and status"});
  for (const Server& server : layout.Servers()) {
    auto pid = Running(layout, server.name);
    table.Row({server.name, ProcessState(pid), pid ? fmt::format("{}", *pid) : "-", server.address(),
               fmt::format("http://127.0.0.1:{}", server.http_port)});
  }
  if (!layout.mount.empty()) {
    auto pid = Running(layout, "mount");
    table.Row({"mount", MountState(layout), pid ? fmt::format("{}", *pid) : "-", layout.mount});
  }
  return fmt::format("Cluster in {} ({}, {} of each chunk)\n\n{}", layout.dir, Count(layout.chunkservers.size(), "chunkserver"),
                     layout.replicas == 1 ? "1 copy" : fmt::format("{} copies", layout.replicas), table.Text("  "));
}

bool AllRunning(const Layout& layout) {
  for (const Server& server : layout.Servers()) {
    if (ProcessState(Running(layout, server.name)) != "running") return false;
  }
  return layout.mount.empty() || MountState(layout) == "mounted";
}

}  // namespace shoal::cli::dev
