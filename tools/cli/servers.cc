// shoal servers: chunkservers and their disks.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/proto/meta.pb.h"
#include "tools/cli/cluster.h"
#include "tools/cli/report.h"

namespace shoal::cli {

int RunServers(const Arguments& arguments) {
  Command command("servers", "Lists the chunkservers and their disks.");
  ClientSettings settings;
  settings.Declare(command.options());
  if (auto exit = command.Parse(arguments)) return *exit;
  auto cluster = Cluster::Connect(settings, "servers", false);
  if (!cluster) return command.Fail(cluster.error());
  auto answer = (*cluster)->Run((*cluster)->engine().ListServers());
  if (!answer) return command.Fail(Failure::Unreachable(answer.error(), "shoal status"));
  nlohmann::ordered_json servers = nlohmann::ordered_json::array();
  Table table = ServerTable();
  Table disks({"disk", "state", ">capacity", ">used", ">free", ">fill"});
  for (const auto& server : answer->servers()) {
    servers.push_back(ServerJson(server));
    AddServer(table, server);
    for (const auto& disk : server.disks()) {
      disks.Row({server.name() + ":" + disk.path(), disk.reason().empty() ? disk.state() : disk.state() + ": " + disk.reason(),
                 FormatSize(disk.capacity_bytes()), FormatSize(disk.used_bytes()), FormatSize(disk.free_bytes()),
                 FormatPercent(disk.used_bytes(), disk.capacity_bytes())});
    }
  }
  std::string text = table.empty() ? "No chunkserver has ever registered.\n" : table.Text();
  if (!disks.empty()) text += "\n" + disks.Text();
  return command.Answer({{"servers", std::move(servers)}}, text);
}

}  // namespace shoal::cli
