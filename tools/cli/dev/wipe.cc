// shoal dev wipe: stops a cluster on this machine and deletes its data.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "tools/cli/command.h"
#include "tools/cli/dev/process.h"
#include "tools/cli/dev/stop.h"

namespace shoal::cli {
namespace {

namespace fs = std::filesystem;

// Deletes what the cluster made; strangers stay, and so does the directory then.
Status DeleteData(const dev::Layout& layout) {
  std::error_code error;
  std::vector<fs::path> doomed;
  for (const auto& entry : fs::directory_iterator(layout.dir, error)) {
    std::string name = entry.path().filename();
    if (name != "mnt" && name != "run" && dev::IsOurs(name)) doomed.push_back(entry.path());
  }
  doomed.push_back(layout.dir + "/run");  // the lock goes last
  for (const fs::path& path : doomed) {
    fs::remove_all(path, error);
    if (error) return Fail(ErrnoError(error.value(), "can't delete " + path.string()));
  }
  fs::remove(layout.dir + "/mnt", error);  // only if it is empty
  fs::remove(layout.dir, error);
  return {};
}

}  // namespace

int RunDevWipe(const Arguments& arguments) {
  Command command("dev wipe", "Stops the cluster of a directory and deletes all its data.");
  std::string dir = "./shoal-dev";
  bool force = false;
  command.options().Text("dir", &dir, "The cluster's directory", "DIR");
  command.options().Flag("force", &force, "Detach a mount that programs still use");
  if (auto exit = command.Parse(arguments)) return *exit;
  dir = AbsolutePath(dir);
  auto layout = dev::Layout::Load(dir);
  if (!layout) {
    if (layout.error().code == ErrorCode::kNotFound) return command.Answer({{"dir", dir}, {"wiped", false}}, layout.error().message + ": nothing to wipe");
    return command.Fail(layout.error());
  }
  auto lock = dev::DevLock::Take(dir);
  if (!lock) return command.Fail(lock.error());
  auto stopped = dev::StopAll(*layout, force);
  if (!stopped) return command.Fail(stopped.error(), "end those programs, or detach the mount: shoal dev wipe --force --dir " + dir);
  if (dev::IsMounted(dir + "/mnt")) {
    return command.Fail(Failure::Of({ErrorCode::kBusy, dir + "/mnt is still mounted"}, "umount " + dir + "/mnt"));
  }
  if (Status status = DeleteData(*layout); !status) return command.Fail(status.error());
  return command.Answer({{"dir", dir}, {"wiped", true}}, fmt::format("{} is wiped", dir));
}

}  // namespace shoal::cli
