// shoal meta restore FILE --to DIR: a metaserver's state from a backup.
#include "metaserver/backup/restore.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "tools/cli/meta/connection.h"
#include "tools/cli/report.h"

namespace shoal::cli {
namespace {

std::string NextStep(const Error& error, const std::string& file, const std::string& dir) {
  switch (error.code) {
    case ErrorCode::kBusy:
      return "stop the metaserver that uses the directory, then run this again";
    case ErrorCode::kNotEmpty:
      return fmt::format("shoal meta restore {} --to {} --move-aside, or another directory", file, dir);
    case ErrorCode::kCorrupt:
      return "another backup; nothing was changed";
    default:
      return "nothing was changed";
  }
}

}  // namespace

int RunMetaRestore(const Arguments& arguments) {
  Command command(
      "meta restore",
      "Makes a metaserver's data directory from a backup. The metaserver of that directory must be stopped.");
  meta::RestoreOptions options;
  command.options().Argument("FILE", &options.backup, "The backup", true);
  command.options().Text("to", &options.dir, "The metaserver's data directory", "DIR");
  command.options().Flag("move-aside", &options.move_aside, "Keep a state that is in DIR under another name there");
  command.options().Number(
      "incarnation-above", &options.incarnation_above,
      "Take a higher incarnation than this: where the cluster has had a later restore than the backup knows", 0, 65534);
  command.options().Epilogue(
      "Files come back as of the backup; what was written since to their chunks stays newer, and what is of "
      "later files is kept aside: `shoal meta unknown`. Every mount must be mounted again.");
  if (auto exit = command.Parse(arguments)) return *exit;
  if (options.dir.empty())
    return command.Fail(
        Failure::Usage("--to DIR is missing: the metaserver's data directory", "shoal meta restore --help"));
  options.backup = AbsolutePath(options.backup);
  options.dir = AbsolutePath(options.dir);
  auto begun = std::chrono::steady_clock::now();
  auto restored = [&] {
    ProgressLine line;
    options.progress = [&line](uint64_t done, uint64_t total) {
      line.Show(fmt::format("{} of {}", FormatSize(done), FormatSize(total)));
    };
    return meta::Restore(options);
  }();
  if (!restored) return command.Fail(restored.error(), NextStep(restored.error(), options.backup, options.dir));
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  const meta::BackupHeader& header = restored->header;
  std::string text = fmt::format(
      "{} has the state of cluster {} as of {} (transaction {}) now: {} records, {}. It is on the disk.\n"
      "Its incarnation is {}: metaservers and mounts of an earlier one are refused. {} ended.\n",
      options.dir, header.cluster_uuid, FormatTime(header.time_ns), header.txn, restored->trailer.records,
      FormatSize(restored->trailer.bytes), restored->incarnation, Count(restored->sessions, "session"));
  if (!restored->moved_to.empty()) text += fmt::format("The state that was there is kept in {}.\n", restored->moved_to);
  text += fmt::format(
      "next: start shoal-metaserver on it; it serves when its {} have told what they have. Then mount again, and look "
      "at\n"
      "  shoal meta unknown; shoal meta check\n",
      Count(restored->servers, "chunkserver"));
  return command.Answer({{"backup", options.backup},
                         {"directory", options.dir},
                         {"cluster", header.cluster_uuid},
                         {"incarnation", restored->incarnation},
                         {"backup_incarnation", header.incarnation},
                         {"backup_transaction", header.txn},
                         {"backup_time", FormatTime(header.time_ns)},
                         {"records", restored->trailer.records},
                         {"bytes", restored->trailer.bytes},
                         {"sessions_ended", restored->sessions},
                         {"servers", restored->servers},
                         {"moved_aside_to", restored->moved_to},
                         {"took_seconds", seconds}},
                        text);
}

}  // namespace shoal::cli
