#include "metaserver/backup/state_db.h"

#include <fmt/format.h>
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <unistd.h>

#include <filesystem>

#include "common/files.h"
#include "metaserver/log_check.h"

namespace shoal::meta {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWriteBuffer = 16 << 20, kBlockCache = 32 << 20;
constexpr int kBloomBits = 10;
constexpr size_t kCopyPiece = 1 << 20;

// Tables are never changed once they are complete.
Status LinkOrCopy(Files& files, const std::string& from, const std::string& to) {
  bool table = from.ends_with(".ldb") || from.ends_with(".sst");
  if (table && files.Link(from, to)) return {};
  TRY_ASSIGN(auto source, files.Open(from, Files::Mode::kRead));
  TRY_ASSIGN(auto target, files.Open(to, Files::Mode::kCreate));
  std::vector<uint8_t> piece(kCopyPiece);
  for (uint64_t at = 0;;) {
    TRY_ASSIGN(size_t n, source->Read(at, piece));
    if (n == 0) return {};
    TRY(target->Write(at, {piece.data(), n}));
    at += n;
  }
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

StateDb::StateDb(const std::string& dir, StateFiles files) : log_(dir, files) {}
StateDb::~StateDb() = default;

Result<std::unique_ptr<StateDb>> StateDb::Open(const std::string& dir, Mode mode, StateFiles files) {
  std::unique_ptr<StateDb> state(new StateDb(dir, files));
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

Result<std::unique_ptr<StateDb>> StateDb::OpenCopy(const std::string& dir, const std::string& scratch, StateFiles files,
                                                   bool logs) {
  const std::string copy = scratch + "/db";
  TRY(files.files->CreateDirectory(copy));
  TRY_ASSIGN(std::vector<std::string> names, files.files->List(dir));
  for (const std::string& name : names) {
    if (name == "LOCK" || name.starts_with("LOG") || name == "lost+found") continue;
    if (!logs && name.ends_with(".log")) continue;
    TRY(LinkOrCopy(*files.files, dir + "/" + name, copy + "/" + name));
  }
  TRY(CheckLogs(copy, files));
  return Open(copy, Mode::kExisting, files);
}

Status StateDb::Sync() { return log_.Sync(); }

Result<std::unique_ptr<File>> LockStateDirectory(const std::string& dir, Files& files) {
  Result<std::unique_ptr<File>> lock = files.Lock(dir + "/lock");
  if (lock || lock.error().code != ErrorCode::kBusy) return lock;
  return Fail(ErrorCode::kBusy, dir + " is in use by a running metaserver; stop that one first");
}

bool HasState(const std::string& dir, Files& files) {
  Result<bool> there = files.Exists(dir + "/db/CURRENT");
  return there && *there;
}

}  // namespace shoal::meta
