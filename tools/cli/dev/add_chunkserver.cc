// shoal dev add-chunkserver: one more server in a cluster on this machine.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/daemon/capacity.h"
#include "common/daemon/server_main.h"
#include "tools/cli/command.h"
#include "tools/cli/dev/process.h"
#include "tools/cli/dev/report.h"
#include "tools/cli/table.h"

namespace shoal::cli {
namespace {

Result<dev::Server> NewServer(const dev::Layout& layout) {
  std::vector<uint16_t> taken;
  for (const dev::Server& server : layout.Servers()) taken.insert(taken.end(), {server.port, server.http_port});
  dev::Server server;
  server.name = fmt::format("chunkserver-{}", layout.chunkservers.size() + 1);
  TRY_ASSIGN(server.port, dev::FreePort(taken));
  TRY_ASSIGN(server.http_port, dev::FreePort(taken));
  return server;
}

}  // namespace

int RunDevAddChunkserver(const Arguments& arguments) {
  Command command("dev add-chunkserver", "Adds a chunkserver to the cluster of a directory, and starts it.");
  std::string dir = "./shoal-dev", rack;
  uint64_t capacity = 0;
  uint32_t disks = 1;
  command.options().Text("dir", &dir, "The cluster's directory", "DIR");
  command.options().Size("capacity", &capacity, "Bytes that it may use [as the others]");
  command.options().Text("rack", &rack, "Failure domain: its rack", "RACK");
  command.options().Number("disks", &disks, "How many data directories it has", 1, 64);
  if (auto exit = command.Parse(arguments)) return *exit;
  dir = AbsolutePath(dir);
  auto layout = dev::Layout::Load(dir);
  if (!layout) return command.Fail(layout.error(), "shoal dev start --dir " + dir);
  if (Status enough = CheckCapacity((command.options().Given("capacity") ? capacity : layout->capacity) / disks); !enough) {
    return command.Fail(Failure::Usage(fmt::format("--capacity, for {}: {}", Count(disks, "disk"), enough.error().message)));
  }
  auto lock = dev::DevLock::Take(dir);
  if (!lock) return command.Fail(lock.error());
  layout = dev::Layout::Load(dir);  // another add may have just ended
  if (!layout) return command.Fail(layout.error());
  auto server = NewServer(*layout);
  if (!server) return command.Fail(server.error());
  server->capacity = command.options().Given("capacity") ? capacity : layout->capacity;
  server->rack = rack;
  server->disks = disks;
  layout->chunkservers.push_back(*server);
  if (Status saved = layout->Save(); !saved) return command.Fail(saved.error());
  auto started = dev::StartServers(*layout);
  if (!started) return command.Fail(started.error(), "shoal dev status --dir " + dir);
  Status ready = dev::AwaitWritable(*layout, 120s);
  if (!ready && ready.error().code != ErrorCode::kNoSpace) return command.Fail(ready.error(), "shoal dev status --dir " + dir);
  if (!ready) fmt::print(stderr, "still nothing new can be written at {} copies: {}\n", layout->replicas, ready.error().message);
  nlohmann::ordered_json report = dev::ReportJson(*layout);
  report["added"] = server->name;
  return command.Answer(report, fmt::format("{} is added.\n\n{}", server->name, dev::ReportText(*layout)));
}

}  // namespace shoal::cli
