// shoal meta backup FILE: a consistent copy of the metadata while it is served.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "common/proto/admin.pb.h"
#include "metaserver/backup/format.h"
#include "tools/cli/meta/connection.h"
#include "tools/cli/report.h"

namespace shoal::cli {
namespace {

// What was written. A plain value.
struct Written {
  meta::BackupHeader header;
  meta::BackupTrailer trailer;
};

int64_t WallClock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Result<meta::BackupHeader> HeaderOf(const pb::MetaBackupReadResponse& first) {
  std::map<std::string, std::string> head;  // the records with no number in their keys come first
  for (const pb::MetaRecord& record : first.records()) {
    if (record.key().size() > meta::Key::kHead) break;
    head[record.key()] = record.value();
  }
  meta::HeadRecords records;
  records.get = [&head](const meta::Key& key) { return head[std::string(key.view())]; };
  records.time_ns = WallClock();
  return meta::HeaderOf(records);
}

Status Copy(MetaConnection& metaserver, const pb::MetaBackupOpenResponse& copy, meta::BackupWriter& writer,
            Written* written) {
  ProgressLine line;
  auto begun = std::chrono::steady_clock::now();
  pb::MetaBackupReadRequest request;
  request.set_id(copy.id());
  for (bool first = true;; first = false) {
    TRY_ASSIGN(auto piece, metaserver.Call<pb::MetaBackupReadResponse>(pb::META_BACKUP_READ, request));
    if (first) {
      TRY_ASSIGN(written->header, HeaderOf(piece));
      TRY(writer.Begin(written->header));
    }
    for (const pb::MetaRecord& record : piece.records()) {
      TRY(writer.Add(record.key(), record.value()));
    }
    if (!piece.records().empty()) request.set_after(piece.records().rbegin()->key());
    uint64_t done = writer.so_far().bytes;
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    line.Show(fmt::format("{} of about {}, {}/s", FormatSize(done), FormatSize(std::max(done, copy.estimated_bytes())),
                          FormatSize(static_cast<uint64_t>(static_cast<double>(done) / std::max(seconds, 0.001)))));
    if (piece.end()) break;
    if (piece.records().empty()) return Fail(ErrorCode::kBadMessage, "the metaserver sent a piece without records");
  }
  TRY(writer.Finish());
  written->trailer = writer.so_far();
  return {};
}

Result<Written> Backup(MetaConnection& metaserver, const std::string& file) {
  TRY_ASSIGN(auto writer, meta::BackupWriter::Create(RealFiles(), file));
  TRY_ASSIGN(auto copy, metaserver.Call<pb::MetaBackupOpenResponse>(pb::META_BACKUP_OPEN, pb::MetaBackupOpenRequest()));
  Written written;
  Status copied = Copy(metaserver, copy, *writer, &written);
  pb::MetaBackupCloseRequest close;
  close.set_id(copy.id());
  (void)metaserver.Call<pb::MetaBackupCloseResponse>(pb::META_BACKUP_CLOSE, close, 5s);
  if (!copied) return Fail(copied.error());
  return written;
}

}  // namespace

int RunMetaBackup(const Arguments& arguments) {
  Command command(
      "meta backup",
      "Writes a consistent copy of the running metaserver's state (names, file maps, where chunks are) to FILE.");
  ClientSettings settings;
  std::string file;
  settings.Declare(command.options());
  command.options().Argument("FILE", &file, "The backup; it must not be there yet", true);
  command.options().Epilogue(
      "The bytes of files are not in it: those are on the chunkservers. Keep it on another machine; "
      "`shoal meta check FILE` reads it through.");
  if (auto exit = command.Parse(arguments)) return *exit;
  file = AbsolutePath(file);
  auto metaserver = MetaConnection::Connect(settings, "meta backup");
  if (!metaserver) return command.Fail(metaserver.error());
  auto begun = std::chrono::steady_clock::now();
  auto written = Backup(**metaserver, file);
  if (!written) {
    bool again = IsRetryable(written.error().code) || written.error().code == ErrorCode::kNotFound;
    return command.Fail(written.error(), again ? "run it again; nothing was left behind" : "nothing was left behind");
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  const auto& [header, trailer] = *written;
  auto rate = static_cast<uint64_t>(static_cast<double>(trailer.bytes) / std::max(seconds, 0.001));
  return command.Answer(
      {{"path", file},
       {"cluster", header.cluster_uuid},
       {"incarnation", header.incarnation},
       {"transaction", header.txn},
       {"time", FormatTime(header.time_ns)},
       {"records", trailer.records},
       {"bytes", trailer.bytes},
       {"bytes_per_second", rate},
       {"took_seconds", seconds}},
      fmt::format("{} has the metadata of cluster {} as of transaction {}:\n{} records, {} in {:.1f} s ({}/s). "
                  "It is on the disk.\n",
                  file, header.cluster_uuid, header.txn, trailer.records, FormatSize(trailer.bytes), seconds,
                  FormatSize(rate)));
}

}  // namespace shoal::cli
