// shoal df: space, as a writer of the file system sees it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/cli/cluster.h"
#include "tools/cli/report.h"

namespace shoal::cli {

int RunDf(const Arguments& arguments) {
  Command command("df", "Shows how much can be stored, at the file system's number of copies.");
  ClientSettings settings;
  std::string path;
  settings.Declare(command.options());
  command.options().Argument("PATH", &path, "A path in the file system, or a local one under a mount (tells the cluster)", false);
  if (auto exit = command.Parse(arguments)) return *exit;
  if (!path.empty()) {
    auto target = ResolvePath(path, command.options(), settings);
    if (!target) return command.Fail(target.error(), "give a path under a mount, or --meta HOST:PORT");
  }
  auto cluster = Cluster::Connect(settings, "df", true);
  if (!cluster) return command.Fail(cluster.error());
  client::Cred cred = Cluster::Self();
  auto fs = (*cluster)->Run((*cluster)->engine().StatFs(cred));
  if (!fs) return command.Fail(fs.error(), "shoal status");
  uint64_t used = fs->capacity_bytes - std::min(fs->capacity_bytes, fs->free_bytes);
  Table table({"file system", ">size", ">used", ">free", ">use", ">files", ">copies"});
  table.Row({"shoal", FormatSize(fs->capacity_bytes), FormatSize(used), FormatSize(fs->free_bytes),
             FormatPercent(used, fs->capacity_bytes), fmt::format("{}", fs->inodes - fs->free_inodes), fmt::format("{}", fs->copies)});
  return command.Answer({{"capacity_bytes", fs->capacity_bytes},
                         {"used_bytes", used},
                         {"free_bytes", fs->free_bytes},
                         {"inodes", fs->inodes - fs->free_inodes},
                         {"copies", fs->copies}},
                        table.Text());
}

}  // namespace shoal::cli
