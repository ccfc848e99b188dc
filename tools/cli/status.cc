// shoal status: is all well? Exit status 1 when it is not.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/proto/check.pb.h"
#include "common/proto/meta.pb.h"
#include "tools/cli/cluster.h"
#include "tools/cli/report.h"

namespace shoal::cli {
namespace {

// ": /a, /b, ..." of the files concerned.
std::string SomeNames(const pb::ClusterStatusResponse& status, pb::Safety safety) {
  constexpr int kShown = 3;
  std::string names;
  int shown = 0;
  for (const auto& file : status.troubled()) {
    if (file.safety() != safety || shown == kShown) continue;
    ++shown;
    names += (names.empty() ? ": " : ", ") + (file.path().empty() ? fmt::format("inode {:#x}", file.inode()) : "/" + file.path());
  }
  return names.empty() ? "" : names + " (shoal fsck lists all)";
}

nlohmann::ordered_json TroubledJson(const pb::ClusterStatusResponse& status) {
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (const auto& file : status.troubled()) {
    nlohmann::ordered_json one{{"inode", file.inode()}, {"state", SafetyName(file.safety())}};
    if (!file.path().empty()) PutName(one, "path", "/" + file.path());
    files.push_back(std::move(one));
  }
  return files;
}

// What keeps the cluster from being well, a line each.
std::vector<std::string> Troubles(const pb::ClusterStatusResponse& status) {
  std::vector<std::string> troubles;
  uint32_t live = 0;
  for (const auto& server : status.servers()) {
    if (server.state() == "live") {
      ++live;
    } else {
      troubles.push_back(fmt::format("chunkserver {} ({}) is {}", server.name(), server.address(), server.state()));
    }
    for (const auto& disk : server.disks()) {
      if (disk.state() != "ok" && !disk.state().empty()) {
        troubles.push_back(fmt::format("disk {}:{} is {}{}", server.name(), disk.path(), disk.state(),
                                       disk.reason().empty() ? "" : ": " + disk.reason()));
      }
    }
  }
  if (live == 0) troubles.push_back("no chunkserver is live: nothing can be written");
  else if (live < status.min_copies()) troubles.push_back(fmt::format("{} live, fewer than min-copies {}: writes wait", Count(live, "chunkserver"), status.min_copies()));
  else if (live < status.default_copies()) troubles.push_back(fmt::format("{} live, fewer than the {} copies wanted", Count(live, "chunkserver"), status.default_copies()));
  if (status.chunks_lost()) {
    troubles.push_back(fmt::format("{} of {} lost, no good copy is known{}", Count(status.chunks_lost(), "chunk"),
                                   Count(status.files_lost(), "file"), SomeNames(status, pb::LOST)));
  }
  if (status.chunks_unavailable()) {
    troubles.push_back(fmt::format("{} of {} unavailable, with good copies only on servers that are away{}",
                                   Count(status.chunks_unavailable(), "chunk"), Count(status.files_unavailable(), "file"),
                                   SomeNames(status, pb::UNAVAILABLE)));
  }
  if (status.chunks_short()) troubles.push_back(fmt::format("{} with fewer copies than wanted", Count(status.chunks_short(), "chunk")));
  return troubles;
}

nlohmann::ordered_json ToJson(const pb::ClusterStatusResponse& status, const std::vector<std::string>& troubles) {
  nlohmann::ordered_json servers = nlohmann::ordered_json::array(), clients = nlohmann::ordered_json::array();
  for (const auto& server : status.servers()) servers.push_back(ServerJson(server));
  for (const auto& session : status.session_list()) {
    clients.push_back({{"session", session.id()},
                       {"name", session.name()},
                       {"address", session.address()},
                       {"open_files", session.open_files()},
                       {"last_seen_age_seconds", static_cast<double>(session.last_seen_ms()) / 1000}});
  }
  return {{"healthy", troubles.empty()},
          {"troubles", troubles},
          {"cluster", status.cluster_uuid()},
          {"version", status.version()},
          {"incarnation", status.incarnation()},
          {"uptime_seconds", status.uptime_ms() / 1000},
          {"transaction", status.txn()},
          {"durable_transaction", status.durable_txn()},
          {"unsynced_operations", status.unsynced_operations()},
          {"unsynced_operation_bytes", status.unsynced_operation_bytes()},
          {"unsynced_bytes", status.unsynced_file_bytes()},
          {"inodes", status.inodes()},
          {"file_bytes", status.file_bytes()},
          {"chunks", status.chunks()},
          {"chunks_short", status.chunks_short()},
          {"chunks_unavailable", status.chunks_unavailable()},
          {"chunks_lost", status.chunks_lost()},
          {"files_unavailable", status.files_unavailable()},
          {"files_lost", status.files_lost()},
          {"troubled_files", TroubledJson(status)},
          {"bad_replicas_reported_total", status.replicas_bad_total()},
          {"default_copies", status.default_copies()},
          {"min_copies", status.min_copies()},
          {"capacity_bytes", status.capacity_bytes()},
          {"used_bytes", status.used_bytes()},
          {"free_bytes", status.free_bytes()},
          {"servers", std::move(servers)},
          {"clients", std::move(clients)}};
}

std::string ToText(const pb::ClusterStatusResponse& status, const std::vector<std::string>& troubles) {
  uint64_t capacity = status.capacity_bytes(), used = status.used_bytes();
  int live = 0;
  Table servers = ServerTable();
  for (const auto& server : status.servers()) {
    if (server.state() == "live") ++live;
    AddServer(servers, server);
  }
  std::string text = troubles.empty() ? "All is well.\n" : "Not all is well:\n";
  for (const std::string& trouble : troubles) text += "  - " + trouble + "\n";
  text += fmt::format("\ncluster     {} (incarnation {}, version {})\n", status.cluster_uuid(), status.incarnation(), status.version());
  text += fmt::format("metaserver  up {}, transaction {}, durable up to {}\n",
                      FormatDuration(std::chrono::milliseconds(status.uptime_ms())), status.txn(), status.durable_txn());
  text += fmt::format("not synced  {} of the metadata ({}), {} of file data (of all copies)\n", Count(status.unsynced_operations(), "change"),
                      FormatSize(status.unsynced_operation_bytes()), FormatSize(status.unsynced_file_bytes()));
  text += fmt::format("files       {}, {} of data in {}, {} wanted\n", Count(status.inodes(), "inode"),
                      FormatSize(status.file_bytes()), Count(status.chunks(), "chunk"),
                      status.default_copies() == 1 ? "1 copy of each" : fmt::format("{} copies of each", status.default_copies()));
  text += fmt::format("servers     {} of {} live, {} of {} used ({})\n\n", live, status.servers_size(), FormatSize(used),
                      FormatSize(capacity), FormatPercent(used, capacity));
  if (!servers.empty()) text += servers.Text() + "\n";
  Table clients({">session", "client", "address", ">open", ">seen"});
  for (const auto& session : status.session_list()) {
    clients.Row({fmt::format("{}", session.id() & 0xffffffffffff), session.name(), session.address(), fmt::format("{}", session.open_files()),
                 FormatDuration(std::chrono::milliseconds(session.last_seen_ms())) + " ago"});
  }
  if (!clients.empty()) text += clients.Text();
  return text;
}

}  // namespace

int RunStatus(const Arguments& arguments) {
  Command command("status", "Says whether the cluster is well, and lists its servers and clients.");
  ClientSettings settings;
  settings.Declare(command.options());
  command.options().Epilogue("Exit status: 0 all is well, 1 something is not (it says what), 3 no metaserver answers.");
  if (auto exit = command.Parse(arguments)) return *exit;
  auto cluster = Cluster::Connect(settings, "status", false);
  if (!cluster) return command.Fail(cluster.error());
  auto status = (*cluster)->Run((*cluster)->engine().ClusterStatus());
  if (!status) return command.Fail(Failure::Unreachable(status.error(), "shoal dev status, or the metaserver's log"));
  std::vector<std::string> troubles = Troubles(*status);
  return command.Answer(ToJson(*status, troubles), ToText(*status, troubles), troubles.empty() ? kExitDone : kExitNo);
}

}  // namespace shoal::cli
