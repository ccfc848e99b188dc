// shoal meta check [FILE | --dir DIR]: is everything in the metadata as it must be?
#include "metaserver/check/check.h"

#include <fmt/format.h>
#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/daemon/server_main.h"
#include "common/proto/admin.pb.h"
#include "common/proto/meta.pb.h"
#include "metaserver/backup/format.h"
#include "metaserver/backup/state_db.h"
#include "tools/cli/meta/connection.h"
#include "tools/cli/table.h"

namespace shoal::cli {
namespace {

constexpr Duration kPoll = 200ms;
constexpr size_t kShown = 50;
constexpr size_t kBatchBytes = 4 << 20;

void ShowProgress(ProgressLine& line, const char* phase, uint64_t records, uint64_t estimated) {
  line.Show(fmt::format("checking {}: {} of about {} records", phase, records, std::max(records, estimated)));
}

// The check in this process, with progress.
Result<meta::CheckResult> CheckHere(leveldb::DB* db, const std::string& scratch) {
  meta::CheckProgress progress;
  ProgressLine line;
  auto work = std::async(std::launch::async, [&] { return meta::CheckState(db, nullptr, scratch, progress); });
  while (work.wait_for(kPoll) != std::future_status::ready) {
    ShowProgress(line, progress.phase.load(), progress.records, progress.estimated);
  }
  return work.get();
}

Result<std::unique_ptr<meta::StateDb>> LoadBackup(const std::string& file, const std::string& scratch) {
  TRY_ASSIGN(auto reader, meta::BackupReader::Open(RealFiles(), file));
  TRY_ASSIGN(auto state, meta::StateDb::Open(scratch + "/db", meta::StateDb::Mode::kNew));
  ProgressLine line;
  leveldb::WriteBatch batch;
  std::string key, value;
  for (bool more = true; more;) {
    TRY_ASSIGN(more, reader->Next(&key, &value));
    if (more) batch.Put(key, value);
    if (more && batch.ApproximateSize() < kBatchBytes) continue;
    leveldb::Status written = state->db()->Write(leveldb::WriteOptions(), &batch);
    if (!written.ok()) return Fail(ErrorCode::kIo, "writing scratch data: " + written.ToString());
    batch.Clear();
    line.Show(fmt::format("reading the backup: {} of {}", FormatSize(reader->so_far().bytes),
                          FormatSize(reader->file_bytes())));
  }
  return state;
}

Result<meta::CheckResult> CheckFile(const std::string& file, const std::string& scratch_parent) {
  TRY_ASSIGN(auto scratch, meta::ScratchDirectory::Make(scratch_parent, "shoal-check"));
  TRY_ASSIGN(auto state, LoadBackup(file, scratch->path()));
  return CheckHere(state->db(), scratch->path());
}

// Of a stopped metaserver. With `mend` the directory itself is opened, else a copy.
Result<meta::CheckResult> CheckDirectory(const std::string& dir, const std::string& scratch_parent, bool mend,
                                         uint64_t* mended) {
  if (!meta::HasState(dir)) return Fail(ErrorCode::kNotFound, dir + " has no metaserver's state");
  TRY_ASSIGN(auto lock, meta::LockStateDirectory(dir));
  {
    TRY_ASSIGN(auto scratch, meta::ScratchDirectory::Make(dir, "check"));
    TRY_ASSIGN(auto copy, meta::StateDb::OpenCopy(dir + "/db", scratch->path()));
    TRY_ASSIGN(meta::CheckResult result, CheckHere(copy->db(), scratch_parent));
    if (!mend || result.mends.empty()) return result;
  }
  TRY_ASSIGN(auto state, meta::StateDb::Open(dir + "/db", meta::StateDb::Mode::kExisting));
  for (int round = 0;; ++round) {
    TRY_ASSIGN(meta::CheckResult result, CheckHere(state->db(), scratch_parent));
    if (result.mends.empty() || round == 100) return result;
    TRY(meta::MendState(state->db(), result));
    *mended += result.mends.size();
  }
}

Result<meta::CheckResult> CheckOnline(MetaConnection& metaserver) {
  TRY_ASSIGN(auto check,
             metaserver.Call<pb::MetaCheckStartResponse>(pb::META_CHECK_START, pb::MetaCheckStartRequest()));
  pb::MetaCheckPollRequest request;
  request.set_id(check.id());
  ProgressLine line;
  for (;;) {
    TRY_ASSIGN(auto answer, metaserver.Call<pb::MetaCheckPollResponse>(pb::META_CHECK_POLL, request));
    if (!answer.done()) {
      ShowProgress(line, answer.phase().c_str(), answer.records(), answer.estimated_records());
      std::this_thread::sleep_for(kPoll);
      continue;
    }
    if (!answer.error().empty()) return Fail(ErrorCode::kCorrupt, answer.error());
    meta::CheckResult result;
    result.problems = answer.problems();
    result.findings.assign(answer.findings().begin(), answer.findings().end());
    result.cluster_uuid = answer.cluster_uuid();
    result.incarnation = answer.incarnation();
    result.txn = answer.txn();
    result.inodes = answer.inodes();
    result.names = answer.names();
    result.chunks = answer.chunks();
    result.replicas = answer.replicas();
    return result;
  }
}

// What of the records and what is on the servers do not agree; of a running metaserver. A plain value.
struct Placement {
  uint64_t kept_aside = 0;
  uint64_t lost = 0, chunks_lost = 0, chunks_short = 0;
  std::vector<std::string> waiting_for;
};

Result<Placement> AskPlacement(MetaConnection& metaserver) {
  Placement placement;
  pb::MetaUnknownRequest request;
  do {
    TRY_ASSIGN(auto page, metaserver.Call<pb::MetaUnknownResponse>(pb::META_UNKNOWN, request));
    placement.kept_aside += static_cast<uint64_t>(page.replicas_size());
    placement.waiting_for.assign(page.waiting_for().begin(), page.waiting_for().end());
    request.set_after(page.next());
  } while (!request.after().empty());
  TRY_ASSIGN(auto status, metaserver.Call<pb::ClusterStatusResponse>(pb::CLUSTER_STATUS, pb::ClusterStatusRequest()));
  placement.chunks_lost = status.chunks_lost();
  placement.chunks_short = status.chunks_short();
  return placement;
}

std::string PlacementText(const Placement& p) {
  std::string text;
  if (!p.waiting_for.empty())
    text += fmt::format("after the restore: waiting for {}\n", fmt::join(p.waiting_for, ", "));
  if (p.kept_aside)
    text += fmt::format("{} kept aside that no record knows: shoal meta unknown\n", Count(p.kept_aside, "replica"));
  if (p.chunks_lost) text += fmt::format("{} without any live copy: shoal status\n", Count(p.chunks_lost, "chunk"));
  if (p.chunks_short)
    text += fmt::format("{} with fewer copies than wanted: shoal status\n", Count(p.chunks_short, "chunk"));
  return text;
}

int Tell(const Command& command, const std::string& source, const meta::CheckResult& result, uint64_t mended,
         const std::optional<Placement>& placement, double seconds) {
  nlohmann::ordered_json findings = nlohmann::ordered_json::array();
  std::string text;
  for (const pb::MetaFinding& finding : result.findings) {
    findings.push_back({{"check", finding.check()},
                        {"where", finding.where()},
                        {"what", finding.what()},
                        {"next", finding.next()},
                        {"mendable", finding.mendable()}});
    if (findings.size() <= kShown)
      text +=
          fmt::format("{}: {} ({})\n  next: {}\n", finding.where(), finding.what(), finding.check(), finding.next());
  }
  if (result.problems > kShown) text += fmt::format("... and {} more\n", result.problems - kShown);
  if (mended) text += fmt::format("{} mended\n", Count(mended, "record"));
  text += fmt::format("{}: cluster {}, incarnation {}, transaction {}: {}, {}, {}, {}\n", source, result.cluster_uuid,
                      result.incarnation, result.txn, Count(result.inodes, "inode"), Count(result.names, "name"),
                      Count(result.chunks, "chunk"), Count(result.replicas, "replica"));
  if (placement) text += PlacementText(*placement);
  text +=
      result.problems ? fmt::format("{} found\n", Count(result.problems, "problem")) : "Everything is as it must be.\n";
  nlohmann::ordered_json object{{"source", source},
                                {"clean", result.problems == 0},
                                {"problems", result.problems},
                                {"mended", mended},
                                {"cluster", result.cluster_uuid},
                                {"incarnation", result.incarnation},
                                {"transaction", result.txn},
                                {"inodes", result.inodes},
                                {"names", result.names},
                                {"chunks", result.chunks},
                                {"replicas", result.replicas},
                                {"took_seconds", seconds},
                                {"findings", std::move(findings)}};
  if (placement) {
    object["placement"] = {{"replicas_kept_aside", placement->kept_aside},
                           {"chunks_lost", placement->chunks_lost},
                           {"chunks_short", placement->chunks_short},
                           {"waiting_for", placement->waiting_for}};
  }
  return command.Answer(std::move(object), text, result.problems ? kExitNo : kExitDone);
}

}  // namespace

int RunMetaCheck(const Arguments& arguments) {
  Command command("meta check",
                  "Checks every invariant of the metadata: of the running metaserver, of a backup, or of a stopped "
                  "metaserver's directory.");
  ClientSettings settings;
  std::string file, dir, scratch;
  bool mend = false;
  settings.Declare(command.options());
  command.options().Argument("FILE", &file, "A backup [ask the running metaserver]", false);
  command.options().Text("dir", &dir, "The data directory of a stopped metaserver", "DIR");
  command.options().Flag("mend", &mend, "With --dir: correct counts and indexes that follow from other records");
  command.options().Text("scratch", &scratch,
                         "Where to put scratch data, about the size of the metadata [the temporary directory]", "DIR");
  command.options().Epilogue(
      "Exit status: 0 all is as it must be, 1 problems were found (each with what to do), 3 no metaserver answers.");
  if (auto exit = command.Parse(arguments)) return *exit;
  if (!file.empty() && !dir.empty())
    return command.Fail(Failure::Usage("give a backup or --dir DIR, not both", "shoal meta check --help"));
  if (mend && dir.empty())
    return command.Fail(
        Failure::Usage("--mend works on a stopped metaserver's directory: --dir DIR", "shoal meta check --help"));
  if (scratch.empty()) {
    const char* temporary = getenv("TMPDIR");
    scratch = temporary && *temporary ? temporary : "/tmp";
  }
  auto begun = std::chrono::steady_clock::now();
  uint64_t mended = 0;
  std::optional<Placement> placement;
  std::string source = file.empty() ? dir.empty() ? "the running metaserver" : AbsolutePath(dir) : AbsolutePath(file);
  Result<meta::CheckResult> result;
  if (!file.empty()) {
    result = CheckFile(source, scratch);
  } else if (!dir.empty()) {
    result = CheckDirectory(source, scratch, mend, &mended);
  } else {
    auto metaserver = MetaConnection::Connect(settings, "meta check");
    if (!metaserver) return command.Fail(metaserver.error());
    result = CheckOnline(**metaserver);
    auto asked = result ? AskPlacement(**metaserver) : Result<Placement>(Fail(ErrorCode::kUnavailable));
    if (asked) placement = *asked;
  }
  if (!result) {
    bool busy = result.error().code == ErrorCode::kBusy && !dir.empty();
    return command.Fail(result.error(), busy
                                            ? "shoal meta check, without --dir, asks the running metaserver"
                                            : "restore a backup if the state can't be read: shoal meta restore --help");
  }
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return Tell(command, source, *result, mended, placement, seconds);
}

}  // namespace shoal::cli
