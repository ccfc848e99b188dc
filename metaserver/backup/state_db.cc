#include "metaserver/backup/state_db.h"

#include <fmt/format.h>
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <unistd.h>

#include <filesystem>

#include "metaserver/log_check.h"

namespace shoal::meta {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWriteBuffer = 16 << 20, kBlockCache = 32 << 20;
constexpr int kBloomBits = 10;

// Tables are never changed once they are complete.
Status LinkOrCopy(const fs::path& from, const fs::path& to) {
  std::string name = from.filename();
  bool table = name.ends_with(".ldb") || name.ends_with(".sst");
  if (table && ::link(from.c_str(), to.c_str()) == 0) return {};
  std::error_code error;
  fs::copy_file(from, to, error);
  if (error) return Fail(ErrnoError(error.value(), fmt::format("copying {} to {}", from.string(), to.string())));
  return {};
}

}  // namespace

Result<std::unique_ptr<ScratchDirectory>> ScratchDirectory::Make(const std::string& parent, const std::string& name) {
  std::string path = fmt::format("{}/{}-XXXXXX", parent, name);
  if (!::mkdtemp(path.data())) return Fail(ErrnoError(errno, "making a directory for scratch data in " + parent));
  return std::unique_ptr<ScratchDirectory>(new ScratchDirectory(std::move(path)));
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

StateDb::StateDb(const std::string& dir) : log_(dir) {}
StateDb::~StateDb() = default;

Result<std::unique_ptr<StateDb>> StateDb::Open(const std::string& dir, Mode mode) {
  std::unique_ptr<StateDb> state(new StateDb(dir));
  state->filter_.reset(leveldb::NewBloomFilterPolicy(kBloomBits));
  state->cache_.reset(leveldb::NewLRUCache(kBlockCache));
  leveldb::Options options;
  options.create_if_missing = options.error_if_exists = mode == Mode::kNew;
  options.paranoid_checks = true;
  options.env = state->log_.env();
  options.write_buffer_size = kWriteBuffer;
  options.max_file_size = 8 << 20;
  options.block_cache = state->cache_.get();
  options.filter_policy = state->filter_.get();
  options.compression = leveldb::kNoCompression;
  leveldb::DB* db = nullptr;
  leveldb::Status opened = leveldb::DB::Open(options, dir, &db);
  state->db_.reset(db);
  if (opened.ok()) return state;
  auto code = opened.IsCorruption() ? ErrorCode::kCorrupt : ErrorCode::kIo;
  return Fail(code, fmt::format("the metadata in {} can't be opened: {}", dir, opened.ToString()));
}

Result<std::unique_ptr<StateDb>> StateDb::OpenCopy(const std::string& dir, const std::string& scratch) {
  std::error_code error;
  const std::string copy = scratch + "/db";
  fs::create_directory(copy, error);
  if (error) return Fail(ErrnoError(error.value(), "making " + copy));
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    std::string name = entry.path().filename();
    if (!entry.is_regular_file() || name == "LOCK" || name.starts_with("LOG")) continue;
    TRY(LinkOrCopy(entry.path(), copy + "/" + name));
  }
  if (error) return Fail(ErrnoError(error.value(), "reading " + dir));
  TRY(CheckLogs(copy));
  return Open(copy, Mode::kExisting);
}

Status StateDb::Sync() { return log_.Sync(); }

Result<std::unique_ptr<File>> LockStateDirectory(const std::string& dir) {
  Result<std::unique_ptr<File>> lock = RealFiles().Lock(dir + "/lock");
  if (lock || lock.error().code != ErrorCode::kBusy) return lock;
  return Fail(ErrorCode::kBusy, dir + " is in use by a running metaserver; stop that one first");
}

bool HasState(const std::string& dir) {
  std::error_code ignored;
  return fs::exists(dir + "/db/CURRENT", ignored);
}

}  // namespace shoal::meta
