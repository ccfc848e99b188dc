// shoal dev status: what of a cluster on this machine runs.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "tools/cli/command.h"
#include "tools/cli/dev/report.h"

namespace shoal::cli {

int RunDevStatus(const Arguments& arguments) {
  Command command("dev status", "Shows which processes of the cluster of a directory run.");
  std::string dir = "./shoal-dev";
  command.options().Text("dir", &dir, "The cluster's directory", "DIR");
  command.options().Epilogue("Exit status: 0 everything runs, 1 something does not. For the cluster's own view: shoal status.");
  if (auto exit = command.Parse(arguments)) return *exit;
  dir = AbsolutePath(dir);
  auto layout = dev::Layout::Load(dir);
  if (!layout) return command.Fail(layout.error(), "shoal dev start --dir " + dir);
  bool all = dev::AllRunning(*layout);
  nlohmann::ordered_json report = dev::ReportJson(*layout);
  report["all_running"] = all;
  std::string text = dev::ReportText(*layout);
  if (!all) text += fmt::format("\nNot everything runs; this starts what does not: shoal dev start --dir {}\n", dir);
  return command.Answer(report, text, all ? kExitDone : kExitNo);
}

}  // namespace shoal::cli
