#include "metaserver/log_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <vector>

#include "common/log.h"
#include "metaserver/log_reader.h"

namespace shoal::meta {
namespace {

namespace fs = std::filesystem;

Result<std::string> ReadAll(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Fail(ErrnoError(errno, "opening " + path));
  struct stat st {};
  std::string bytes;
  bool ok = ::fstat(fd, &st) == 0;
  if (ok) bytes.resize(st.st_size);
  size_t done = 0;
  while (ok && done < bytes.size()) {
    ssize_t n = ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (n <= 0) ok = false;
    if (n > 0) done += n;
  }
  int error = errno;
  ::close(fd);
  if (!ok) return Fail(ErrnoError(error, "reading " + path));
  return bytes;
}

// Keeps what is cut off beside the log, and cuts.
Status CutLog(const std::string& path, const std::string& bytes, size_t keep) {
  const std::string kept = path + ".cut";
  int fd = ::open(kept.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return Fail(ErrnoError(errno, "creating " + kept));
  bool ok = ::write(fd, bytes.data() + keep, bytes.size() - keep) == static_cast<ssize_t>(bytes.size() - keep) &&
            ::fdatasync(fd) == 0;
  int error = errno;
  ::close(fd);
  if (!ok) return Fail(ErrnoError(error, "writing " + kept));
  fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return Fail(ErrnoError(errno, "opening " + path));
  ok = ::ftruncate(fd, static_cast<off_t>(keep)) == 0 && ::fsync(fd) == 0;
  error = errno;
  ::close(fd);
  if (!ok) return Fail(ErrnoError(error, "cutting " + path));
  return {};
}

struct LogFile {
  uint64_t number = 0;
  std::string path;
};

Result<std::vector<LogFile>> FindLogs(const std::string& dir) {
  std::vector<LogFile> logs;
  std::error_code error;
  if (!fs::exists(dir, error)) return logs;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename();
    uint64_t number = 0;
    auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (bad != std::errc() || std::string_view(end) != ".log") continue;  // none of LevelDB's
    logs.push_back({number, entry.path()});
  }
  if (error) return Fail(ErrnoError(error.value(), "reading " + dir));
  std::sort(logs.begin(), logs.end(), [](const LogFile& a, const LogFile& b) { return a.number < b.number; });
  return logs;
}

Error Damaged(const std::string& path, const std::string& what) {
  return Error{ErrorCode::kCorrupt, fmt::format("the metadata log {} is damaged ({}), in a part that was acknowledged as "
                                                "durable; run `shoal meta check` or restore a backup", path, what)};
}

}  // namespace

Status CheckLogs(const std::string& dir) {
  TRY_ASSIGN(std::vector<LogFile> logs, FindLogs(dir));
  uint64_t last = 0;         // transaction of the last good record
  const LogFile* bad = nullptr;
  std::string bad_bytes;
  size_t keep = 0;
  for (const LogFile& log : logs) {
    TRY_ASSIGN(std::string bytes, ReadAll(log.path));
    // An older log was synced before anything was written to this one.
    if (bad && !bytes.empty()) return Fail(Damaged(bad->path, fmt::format("at byte {}", keep)));
    LogReader reader(bytes);
    LogRecord record;
    while (reader.Next(&record)) {
      if (reader.damaged()) {
        // Behind damage only one thing counts: was what is missing known to be durable?
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
  return CutLog(bad->path, bad_bytes, keep);
}

}  // namespace shoal::meta
