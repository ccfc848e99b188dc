// shoal dev start: a cluster on this machine; or what is not running of it.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/daemon/capacity.h"
#include "common/daemon/server_main.h"
#include "tools/cli/command.h"
#include "tools/cli/dev/process.h"
#include "tools/cli/dev/report.h"

namespace shoal::cli {
namespace dev {
namespace {

// The flags; what was not given says nothing about an existing cluster.
struct Wanted {
  std::string dir = "./shoal-dev";
  uint32_t chunkservers = 3;
  uint32_t replicas = 3;
  uint64_t capacity = 0;
  std::string mount;
  bool no_mount = false;
};

// Where the flags contradict the cluster that is there, or "".
std::string Contradiction(const Options& options, const Wanted& wanted, const Layout& layout) {
  if (options.Given("chunkservers") && wanted.chunkservers != layout.chunkservers.size()) {
    return fmt::format("--chunkservers {}, but the cluster has {} (shoal dev add-chunkserver adds one)", wanted.chunkservers,
                       layout.chunkservers.size());
  }
  if (options.Given("replicas") && wanted.replicas != layout.replicas) {
    return fmt::format("--replicas {}, but the cluster keeps {}", wanted.replicas, layout.replicas);
  }
  if (options.Given("capacity") && wanted.capacity != layout.capacity) {
    return fmt::format("--capacity {}, but the cluster was made with {}", FormatSize(wanted.capacity),
                       layout.capacity ? FormatSize(layout.capacity) : "the file system's size");
  }
  if (options.Given("mount") && !layout.mount.empty() && AbsolutePath(wanted.mount) != layout.mount) {
    return fmt::format("--mount {}, but the cluster is mounted at {}", wanted.mount, layout.mount);
  }
  return {};
}

// Things in the directory that are not a cluster's.
std::string Stranger(const std::string& dir) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (!IsOurs(entry.path().filename())) return entry.path().filename();
  }
  return {};
}

std::expected<Layout, Failure> NewLayout(const Wanted& wanted, const Options& options) {
  Layout layout;
  layout.dir = wanted.dir;
  layout.replicas = options.Given("replicas") ? wanted.replicas : std::min(wanted.replicas, wanted.chunkservers);
  layout.capacity = wanted.capacity;
  if (layout.replicas > wanted.chunkservers) {
    return std::unexpected(Failure::Usage(fmt::format("--replicas {} needs at least as many chunkservers, not {}", layout.replicas, wanted.chunkservers)));
  }
  if (std::string stranger = Stranger(wanted.dir); !stranger.empty()) {
    return std::unexpected(Failure::Usage(fmt::format("{} is not empty and not a cluster ('{}' is in it)", wanted.dir, stranger),
                                          "name a new directory: shoal dev start --dir DIR"));
  }
  if (!wanted.no_mount) layout.mount = wanted.mount.empty() ? wanted.dir + "/mnt" : AbsolutePath(wanted.mount);
  std::vector<uint16_t> taken;
  for (uint32_t i = 0; i <= wanted.chunkservers; ++i) {
    auto port = FreePort(taken), http = FreePort(taken);
    if (!port || !http) return std::unexpected(Failure::Of(port ? http.error() : port.error()));
    Server server{i == 0 ? "metaserver" : fmt::format("chunkserver-{}", i), *port, *http, i == 0 ? 0 : wanted.capacity, "", 1};
    if (i == 0) layout.metaserver = server;
    else layout.chunkservers.push_back(server);
  }
  return layout;
}

std::expected<Layout, Failure> FindOrMake(const Wanted& wanted, const Options& options) {
  auto there = Layout::Load(wanted.dir);
  if (!there && there.error().code != ErrorCode::kNotFound) return std::unexpected(Failure::Of(there.error()));
  if (!there) {
    auto made = NewLayout(wanted, options);
    if (!made) return made;
    if (Status saved = made->Save(); !saved) return std::unexpected(Failure::Of(saved.error()));
    return *made;
  }
  if (std::string difference = Contradiction(options, wanted, *there); !difference.empty()) {
    return std::unexpected(Failure::Usage(fmt::format("{}: {}", wanted.dir, difference),
                                          fmt::format("leave the flag out, or begin anew: shoal dev wipe --dir {}", wanted.dir)));
  }
  if (there->mount.empty() && options.Given("mount")) there->mount = AbsolutePath(wanted.mount);
  if (Status saved = there->Save(); !saved) return std::unexpected(Failure::Of(saved.error()));
  if (wanted.no_mount) there->mount.clear();
  return *there;
}

std::string NextSteps(const Layout& layout) {
  std::string text = fmt::format("\nclient configuration: {}\n", layout.ClientConfigPath());
  if (!layout.mount.empty()) text += fmt::format("mounted at {}\n", layout.mount);
  text += fmt::format("\n  shoal status --config {}\n", layout.ClientConfigPath());
  if (!layout.mount.empty()) text += fmt::format("  shoal stat {}/some-file\n", layout.mount);
  return text + fmt::format("  shoal dev stop --dir {}\n", layout.dir);
}

// The servers run then; said, so that nobody takes the empty directory for the mount.
Failure NotMounted(const Layout& layout, const Error& why) {
  return Failure::Of({why.code, fmt::format("the servers run, but nothing is mounted at {} (what is written there stays on this machine's own disk): {}",
                                            layout.mount, why.message)},
                     fmt::format("put that right and run 'shoal dev start --dir {0}' again; without a mount: shoal dev start --no-mount --dir {0}; "
                                 "to end the servers: shoal dev stop --dir {0}",
                                 layout.dir));
}

// Mounted all the same: how else could files be deleted.
Failure Full(const Layout& layout, const Error& why) {
  std::string mounted = layout.mount.empty() ? "" : fmt::format(" and is mounted at {}", layout.mount);
  return Failure::Of({why.code, fmt::format("the cluster in {} runs{}, but nothing new can be written: {}", layout.dir, mounted, why.message)},
                     fmt::format("shoal df --config {}; then delete files, make room on the disk, or: shoal dev add-chunkserver --dir {}",
                                 layout.ClientConfigPath(), layout.dir));
}

int Start(const Command& command, const Wanted& wanted, const Options& options) {
  std::error_code error;
  std::filesystem::create_directories(wanted.dir + "/run", error);
  if (error) return command.Fail(Failure::Of(ErrnoError(error.value(), "can't make " + wanted.dir)));
  auto lock = DevLock::Take(wanted.dir);
  if (!lock) return command.Fail(lock.error());
  auto layout = FindOrMake(wanted, options);
  if (!layout) return command.Fail(layout.error());
  auto started = StartServers(*layout);
  if (!started) return command.Fail(started.error(), "shoal dev status --dir " + layout->dir);
  Status ready = AwaitWritable(*layout, 120s);
  bool full = !ready && ready.error().code == ErrorCode::kNoSpace;
  if (!ready && !full) return command.Fail(ready.error(), "shoal dev status --dir " + layout->dir);
  auto mounted = StartMount(*layout);
  if (!mounted) return command.Fail(NotMounted(*layout, mounted.error()));
  if (*mounted) started->push_back("mount");
  if (full) return command.Fail(Full(*layout, ready.error()));
  nlohmann::ordered_json report = ReportJson(*layout);
  report["started"] = *started;
  return command.Answer(report, ReportText(*layout) + NextSteps(*layout));
}

}  // namespace
}  // namespace dev

int RunDevStart(const Arguments& arguments) {
  Command command("dev start",
                  "Starts a cluster on this machine: a metaserver, chunkservers and a mount, under one directory. Of a cluster\n"
                  "that is there it starts what is not running.");
  dev::Wanted wanted;
  Options& options = command.options();
  options.Text("dir", &wanted.dir, "Where everything is kept", "DIR");
  options.Number("chunkservers", &wanted.chunkservers, "How many chunkservers a new cluster has", 1, 64);
  options.Number("replicas", &wanted.replicas, "Copies of each chunk in a new cluster", 1, 16);
  options.Size("capacity", &wanted.capacity, "Bytes that each chunkserver may use [its file system's size]");
  options.Text("mount", &wanted.mount, "Where to mount it [DIR/mnt]", "DIR");
  options.Flag("no-mount", &wanted.no_mount, "Do not mount it");
  options.Epilogue("Returns when a write with all its copies works. A server that was killed comes back by running this again.");
  if (auto exit = command.Parse(arguments)) return *exit;
  if (wanted.no_mount && !wanted.mount.empty()) return command.Fail(Failure::Usage("--mount and --no-mount exclude each other"));
  if (Status enough = CheckCapacity(wanted.capacity); !enough) {
    return command.Fail(Failure::Usage("--capacity: " + enough.error().message, "shoal dev start --help"));
  }
  wanted.dir = AbsolutePath(wanted.dir);
  return dev::Start(command, wanted, options);
}

}  // namespace shoal::cli
