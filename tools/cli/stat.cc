// shoal stat PATH: attributes, chunks, and where their copies are.
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <nlohmann/json.hpp>

#include "common/limits.h"
#include "common/proto/check.pb.h"
#include "common/proto/meta.pb.h"
#include "tools/cli/cluster.h"
#include "tools/cli/report.h"

namespace shoal::cli {
namespace {

constexpr uint32_t kChunksAtOnce = 64;

std::string TypeName(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "directory";
    case S_IFLNK: return "symlink";
    case S_IFIFO: return "fifo";
    case S_IFSOCK: return "socket";
    case S_IFCHR: return "character device";
    case S_IFBLK: return "block device";
  }
  return "unknown";
}

// Everything that StatPath tells, over as many calls as it takes.
Result<pb::StatPathResponse> Ask(Cluster& cluster, const Target& target) {
  client::Cred cred = Cluster::Self();
  pb::StatPathResponse all;
  uint64_t first = 0;
  for (;;) {
    auto part = cluster.Run(cluster.engine().StatPath(cred, target.is_inode ? "" : target.path,
                                                      target.is_inode ? target.inode : InodeId{}, first, kChunksAtOnce));
    if (!part) return Fail(part.error());
    *all.mutable_attr() = part->attr();
    all.mutable_extents()->MergeFrom(part->extents());
    all.mutable_health()->MergeFrom(part->health());
    if (!part->more() || part->extents().empty()) return all;
    first = part->extents(part->extents_size() - 1).index() + 1;
  }
}

// "live", "away", "bad" or "stale"; an older metaserver tells only what is live.
std::string StateOf(const pb::Replica& replica, const pb::ChunkHealth& health) {
  for (const auto& r : health.replicas()) {
    if (r.instance() == replica.instance()) return r.state();
  }
  return replica.live() ? "live" : "away";
}

std::string StateOf(const pb::Extent& extent, const pb::ChunkHealth& health) {
  if (!extent.written()) return "allocated";
  return health.replicas().empty() ? "written" : SafetyName(health.safety());
}

nlohmann::ordered_json ChunkJson(const pb::Extent& extent, const pb::ChunkHealth& health) {
  nlohmann::ordered_json replicas = nlohmann::ordered_json::array();
  for (const auto& replica : extent.replicas()) {
    replicas.push_back({{"server", replica.server()},
                        {"name", replica.name()},
                        {"address", replica.address()},
                        {"live", replica.live()},
                        {"state", StateOf(replica, health)},
                        {"instance", replica.instance()}});
  }
  return {{"index", extent.index()},
          {"offset_bytes", extent.index() * kChunkSize},
          {"chunk", extent.chunk()},
          {"chunk_hex", fmt::format("{:016x}", extent.chunk())},
          {"version", extent.version()},
          {"written", extent.written()},
          {"state", StateOf(extent, health)},
          {"replicas", std::move(replicas)}};
}

const pb::ChunkHealth& HealthOf(const pb::StatPathResponse& stat, int i) {
  return i < stat.health_size() ? stat.health(i) : pb::ChunkHealth::default_instance();
}

nlohmann::ordered_json ToJson(const Target& target, const pb::StatPathResponse& stat) {
  const pb::Attr& a = stat.attr();
  nlohmann::ordered_json chunks = nlohmann::ordered_json::array(), object;
  for (int i = 0; i < stat.extents_size(); ++i) chunks.push_back(ChunkJson(stat.extents(i), HealthOf(stat, i)));
  PutName(object, "path", target.shown);
  object.update({{"inode", a.inode()},
                 {"type", TypeName(a.mode())},
                 {"mode", fmt::format("{:04o}", a.mode() & 07777)},
                 {"uid", a.uid()},
                 {"gid", a.gid()},
                 {"links", a.nlink()},
                 {"size_bytes", a.size()},
                 {"allocated_bytes", a.allocated_bytes()},
                 {"accessed", FormatTime(a.atime_ns())},
                 {"modified", FormatTime(a.mtime_ns())},
                 {"changed", FormatTime(a.ctime_ns())},
                 {"born", FormatTime(a.btime_ns())},
                 {"change_counter", a.change()},
                 {"copies", a.copies()},
                 {"chunk_size_bytes", kChunkSize},
                 {"chunks", std::move(chunks)}});
  return object;
}

std::string ToText(const Target& target, const pb::StatPathResponse& stat) {
  const pb::Attr& a = stat.attr();
  std::string text = fmt::format("{}: {}, inode {:#x}\n", target.shown, TypeName(a.mode()), a.inode());
  text += fmt::format("  size {} ({} bytes), {} allocated, {} wanted\n", FormatSize(a.size()), a.size(),
                      FormatSize(a.allocated_bytes()), a.copies() == 1 ? "1 copy" : fmt::format("{} copies", a.copies()));
  text += fmt::format("  mode {:04o}, owner {}:{}, {}\n", a.mode() & 07777, a.uid(), a.gid(), Count(a.nlink(), "link"));
  text += fmt::format("  modified {}\n", FormatTime(a.mtime_ns()));
  if (stat.extents().empty()) return text;
  Table table({">index", "chunk", ">version", "state", "copies (first is the head of the chain)"});
  for (int i = 0; i < stat.extents_size(); ++i) {
    const pb::Extent& extent = stat.extents(i);
    std::string where;
    for (const auto& replica : extent.replicas()) {
      std::string state = StateOf(replica, HealthOf(stat, i));
      where += fmt::format("{}{}{}", where.empty() ? "" : ", ", replica.name().empty() ? fmt::format("server {}", replica.server()) : replica.name(),
                           state == "live" ? "" : " (" + state + ")");
    }
    table.Row({fmt::format("{}", extent.index()), fmt::format("{:016x}", extent.chunk()), fmt::format("{}", extent.version()),
               StateOf(extent, HealthOf(stat, i)), where});
  }
  return text + "\n" + table.Text("  ");
}

}  // namespace

int RunStat(const Arguments& arguments) {
  Command command("stat", "Shows a file's attributes, its chunks, and on which servers their copies are.");
  ClientSettings settings;
  std::string path;
  settings.Declare(command.options());
  command.options().Argument("PATH", &path, "shoal:/a/b, or a local path under a mount", true);
  command.options().Epilogue("What a mount has gathered and not yet written out (up to a second) is not seen here.");
  if (auto exit = command.Parse(arguments)) return *exit;
  auto target = ResolvePath(path, command.options(), settings);
  if (!target) return command.Fail(target.error(), "give a path under a mount, or shoal:/path with --meta HOST:PORT");
  auto cluster = Cluster::Connect(settings, "stat", false);
  if (!cluster) return command.Fail(cluster.error());
  auto stat = Ask(**cluster, *target);
  if (!stat) {
    Error error = stat.error();
    if (error.message.find(path) == std::string::npos) error.message = path + ": " + ToString(error);
    return command.Fail(error);
  }
  return command.Answer(ToJson(*target, *stat), ToText(*target, *stat));
}

}  // namespace shoal::cli
