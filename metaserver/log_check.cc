#include "metaserver/log_check.h"

#include <fmt/format.h>
#include <leveldb/db.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "common/files.h"
#include "common/log.h"
#include "common/proto/record.pb.h"
#include "metaserver/backup/state_db.h"
#include "metaserver/keys.h"
#include "metaserver/log_reader.h"

namespace shoal::meta {
namespace {

Result<std::string> ReadAll(Files& files, const std::string& path) {
  TRY_ASSIGN(auto file, files.Open(path, Files::Mode::kRead));
  TRY_ASSIGN(uint64_t size, file->Size());
  std::string bytes(size, '\0');
  TRY_ASSIGN(size_t n, file->Read(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  bytes.resize(n);
  return bytes;
}

// Keeps what is cut off beside the file, and cuts.
Status CutFile(Files& files, const std::string& path, std::string_view bytes, size_t keep) {
  const std::string kept = path + ".cut";
  if (Status gone = files.Unlink(kept); !gone && gone.error().code != ErrorCode::kNotFound) return gone;
  TRY_ASSIGN(auto copy, files.Open(kept, Files::Mode::kCreate));
  bytes.remove_prefix(keep);
  TRY(copy->Write(0, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
  TRY(copy->SyncData());
  TRY_ASSIGN(auto file, files.Open(path, Files::Mode::kReadWrite));
  TRY(file->Truncate(keep));
  return file->SyncData();
}

struct LogFile {
  uint64_t number = 0;
  std::string path;
};

Result<std::vector<LogFile>> FindLogs(Files& files, const std::string& dir) {
  std::vector<LogFile> logs;
  TRY_ASSIGN(std::vector<std::string> names, files.List(dir));
  for (const std::string& name : names) {
    uint64_t number = 0;
    auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (bad != std::errc() || std::string_view(end) != ".log") continue;  // none of LevelDB's
    logs.push_back({number, dir + "/" + name});
  }
  std::sort(logs.begin(), logs.end(), [](const LogFile& a, const LogFile& b) { return a.number < b.number; });
  return logs;
}

Error Damaged(const std::string& path, const std::string& what) {
  return Error{ErrorCode::kCorrupt, fmt::format("the metadata log {} is damaged ({}), in a part that was acknowledged as "
                                                "durable; run `shoal meta check` or restore a backup", path, what)};
}

bool TakeNumber(std::string_view* from, uint64_t* number) {
  *number = 0;
  for (int shift = 0; shift < 64 && !from->empty(); shift += 7) {
    auto byte = static_cast<uint8_t>(from->front());
    from->remove_prefix(1);
    *number |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return true;
  }
  return false;
}

bool SkipBytes(std::string_view* from) {
  uint64_t length;
  if (!TakeNumber(from, &length) || from->size() < length) return false;
  from->remove_prefix(length);
  return true;
}

// What a record of the manifest (LevelDB's VersionEdit) says about the first log that counts, if it does.
void ReadEdit(std::string_view edit, uint64_t* first_log) {
  enum { kComparator = 1, kLog, kNextFile, kLastSequence, kCompactPointer, kDeletedFile, kNewFile, kPreviousLog = 9 };
  uint64_t tag, number, log = *first_log;
  bool good = true;
  while (good && TakeNumber(&edit, &tag)) {
    if (tag == kComparator) {
      good = SkipBytes(&edit);
    } else if (tag == kLog) {
      good = TakeNumber(&edit, &log);
    } else if (tag == kNextFile || tag == kLastSequence || tag == kPreviousLog) {
      good = TakeNumber(&edit, &number);
    } else if (tag == kCompactPointer) {
      good = TakeNumber(&edit, &number) && SkipBytes(&edit);
    } else if (tag == kDeletedFile) {
      good = TakeNumber(&edit, &number) && TakeNumber(&edit, &number);
    } else if (tag == kNewFile) {
      for (int i = 0; i < 3; ++i) good = good && TakeNumber(&edit, &number);  // level, number, size
      good = good && SkipBytes(&edit) && SkipBytes(&edit);                    // the first key, the last
    } else {
      good = false;
    }
  }
  if (good) *first_log = log;
}

// Cuts off a damaged last record. The number of the first log that counts: older ones are in tables, even if they come
// back. Damage in front of a good record is left to LevelDB, which refuses it.
Result<uint64_t> CheckManifest(Files& files, const std::string& dir) {
  Result<std::string> current = ReadSmallFile(files, dir + "/CURRENT");
  if (!current && current.error().code == ErrorCode::kNotFound) return 0;
  if (!current) return Fail(current.error());
  const std::string name = current->substr(0, current->find('\n')), path = dir + "/" + name;
  TRY_ASSIGN(bool there, files.Exists(path));
  if (!there || !name.starts_with("MANIFEST-") || name.find('/') != std::string::npos) return 0;  // LevelDB says so
  TRY_ASSIGN(std::string bytes, ReadAll(files, path));
  LogReader reader(bytes);
  std::string_view record;
  uint64_t first_log = 0;
  while (reader.NextRaw(&record)) {
    if (reader.damaged()) return 0;
    ReadEdit(record, &first_log);
  }
  if (!reader.damaged()) return first_log;
  LogWarning("the end of {} is damaged from byte {} on, as after a power cut: cut off (kept in {}.cut)", path,
             reader.damaged_at(), path);
  TRY(CutFile(files, path, bytes, reader.damaged_at()));
  return first_log;
}

// The last transaction that the tables have.
Result<uint64_t> TxnOfTables(const std::string& dir, StateFiles files) {
  TRY_ASSIGN(bool there, files.files->Exists(dir + "/CURRENT"));
  if (!there) return 0;
  const std::string scratch = dir + ".check";
  TRY(RemoveTree(*files.files, scratch));
  TRY(files.files->CreateDirectory(scratch));
  pb::CommitRecord commit;
  {
    TRY_ASSIGN(auto tables, StateDb::OpenCopy(dir, scratch, files, false));
    std::string value;
    const Key key = CommitKey();
    leveldb::Status read = tables->db()->Get(leveldb::ReadOptions(), {key.view().data(), key.view().size()}, &value);
    bool good = read.IsNotFound() || (read.ok() && commit.ParseFromString(value));
    if (!good) return Fail(ErrorCode::kCorrupt, dir + " has no readable commit record; run `shoal meta check`");
  }
  TRY(RemoveTree(*files.files, scratch));
  return commit.txn();
}

}  // namespace

Status CheckLogs(const std::string& dir, StateFiles state) {
  Files& files = *state.files;
  TRY_ASSIGN(bool there, files.Exists(dir));
  if (!there) return {};
  TRY_ASSIGN(uint64_t first_log, CheckManifest(files, dir));
  TRY_ASSIGN(std::vector<LogFile> logs, FindLogs(files, dir));
  std::erase_if(logs, [&](const LogFile& log) { return log.number < first_log; });
  uint64_t last = 0;  // transaction of the last good record
  const LogFile* bad = nullptr;
  std::string bad_bytes;
  size_t keep = 0;
  for (const LogFile& log : logs) {
    TRY_ASSIGN(std::string bytes, ReadAll(files, log.path));
    // An older log was synced before anything was written to this one.
    if (bad && !bytes.empty()) return Fail(Damaged(bad->path, fmt::format("at byte {}", keep)));
    LogReader reader(bytes);
    LogRecord record;
    while (reader.Next(&record)) {
      if (reader.damaged()) {
        // Behind damage only one thing counts: was what is missing known to be durable? A log that is damaged from its
        // begin on does not say what was before it.
        if (record.durable > last && last == 0) {
          TRY_ASSIGN(last, TxnOfTables(dir, state));
        }
        if (record.durable > last) return Fail(Damaged(log.path, fmt::format("at byte {}", reader.damaged_at())));
        continue;
      }
      // A start of the metaserver steps over numbers, and says what went before.
      const bool follows = record.first_txn == last + 1 || (record.previous != 0 && record.previous == last);
      if (last != 0 && record.first_txn != 0 && !follows) {
        return Fail(Damaged(log.path, fmt::format("transaction {} follows {}", record.first_txn, last)));
      }
      if (record.last_txn != 0) last = record.last_txn;
    }
    if (reader.damaged() && !bad) {
      bad = &log;
      keep = reader.damaged_at();
      bad_bytes = std::move(bytes);
    }
  }
  if (!bad) return {};
  LogWarning("the end of the metadata log {} is damaged from byte {} on, as after a power cut; nothing in it was "
             "acknowledged as durable: cut off (kept in {}.cut); last transaction {}",
             bad->path, keep, bad->path, last);
  return CutFile(files, bad->path, bad_bytes, keep);
}

}  // namespace shoal::meta
