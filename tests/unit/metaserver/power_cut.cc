#include "tests/unit/metaserver/power_cut.h"

#include <fmt/format.h>
#include <leveldb/db.h>
#include <leveldb/env.h>

#include "common/checksum.h"
#include "metaserver/check/check.h"
#include "metaserver/database.h"
#include "metaserver/log_reader.h"
#include "tests/unit/metaserver/files_env.h"

namespace shoal::meta {
namespace {

constexpr size_t kBatchHeader = 12;
constexpr uint64_t kNumberMask = (uint64_t{1} << 48) - 1;

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }
bool IsLog(const std::string& path) { return path.ends_with(".log"); }
bool IsManifest(const std::string& path) { return NameOf(path).starts_with("MANIFEST-"); }

std::string WholeFile(test::FakeFiles& files, const std::string& path) { return files.Content(path, 0, 64 << 20); }

uint64_t SumOf(const std::string& key, const std::string& value) { return Checksum(value, Checksum(key)); }

std::string TakeSlice(std::string_view* batch) {
  size_t length = 0;
  for (int shift = 0;; shift += 7) {
    auto byte = static_cast<uint8_t>(batch->front());
    batch->remove_prefix(1);
    length |= static_cast<size_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) break;
  }
  std::string slice(batch->substr(0, length));
  batch->remove_prefix(length);
  return slice;
}

State AllRecords(leveldb::DB* db) {
  State state;
  leveldb::ReadOptions options;
  options.verify_checksums = true;
  std::unique_ptr<leveldb::Iterator> it(db->NewIterator(options));
  for (it->SeekToFirst(); it->Valid(); it->Next()) state.emplace(it->key().ToString(), it->value().ToString());
  if (!it->status().ok()) state.emplace("error", it->status().ToString());
  return state;
}

}  // namespace

void SyncRules::Changes(const std::string& call, const std::string& path) {
  if (call == "create" && IsLog(path)) {
    newest_log_ = path;
    names_changed_by_[std::this_thread::get_id()] = "directory-of-new-log";
  }
  if (call == "create" && path.ends_with(".ldb")) names_changed_by_[std::this_thread::get_id()] = "name-of-table";
  if (call == "rename" && path.ends_with(".dbtmp")) names_changed_by_[std::this_thread::get_id()] = "name-of-manifest";
  if (call == "truncate") cut_.insert(path);
}

std::string SyncRules::RuleOf(const std::string& call, const std::string& path, bool starting) {
  if (call == "sync directory") {
    if (!path.ends_with("/db")) return "data-directory";
    std::string what = std::exchange(names_changed_by_[std::this_thread::get_id()], "");
    return what.empty() ? "names-before-manifest" : what;
  }
  if (call != "sync") return "";
  if (path.ends_with(".cut")) return "copy-of-what-is-cut";
  if (cut_.contains(path)) return "log-cut";
  if (IsLog(path) && path != newest_log_) return "log-before-rotation";
  if (IsLog(path)) return starting ? "id-range" : "log";
  if (IsManifest(path)) return "manifest";
  if (path.ends_with(".ldb")) return "table";
  return path.ends_with(".dbtmp") ? "current-manifest" : "unknown: " + path;
}

void Recorder::Listen(test::FakeFiles& files) {
  current_ = &files;
  names_ = {};
  files.fails = [this, &files](const std::string& call, const std::string& path) {
    if (current_ != &files || !call.starts_with("sync")) return 0;
    std::string rule = names_.RuleOf(call, path, starting);
    seen_.insert(rule);
    return rule == leave_out_ ? test::FakeFiles::kLeaveOut : 0;
  };
  files.before = [this, &files](const std::string& call, const std::string& path) {
    if (current_ == &files) Step(files, call, path);
  };
}

void Recorder::Step(test::FakeFiles& files, const std::string& call, const std::string& path) {
  names_.Changes(call, path);
  if (call == "unlink" && IsLog(path)) deleted_logs_[NameOf(path)] = WholeFile(files, path);
  ++steps_;
  if (static_cast<int>(random_() % 1000) >= share_) return;
  const bool nothing_more = random_() % 4 == 0;
  images_.push_back({files.AfterPowerCut(nothing_more ? nullptr : &random_), steps_, durable, inode, cluster});
}

std::vector<Image> Recorder::TakeImages() {
  std::vector<Image> images = std::move(images_);
  images_.clear();
  return images;
}

std::map<std::string, std::string> Recorder::Logs() {
  std::map<std::string, std::string> logs = deleted_logs_;
  for (const std::string& path : current_.load()->Paths()) {
    if (IsLog(path)) logs[NameOf(path)] = WholeFile(*current_, path);
  }
  return logs;
}

void History::Start(uint64_t txn) {
  for (const auto& [key, value] : state_) sum_ += SumOf(key, value);
  sums_[txn] = sum_;
}

void History::Add(const std::map<std::string, std::string>& logs) {
  for (const auto& [name, bytes] : logs) {
    LogReader reader(bytes), raw(bytes);
    LogRecord record;
    std::string_view batch;
    while (reader.Next(&record) && raw.NextRaw(&batch)) {
      if (record.first_txn <= last()) continue;
      batch.remove_prefix(kBatchHeader);
      while (!batch.empty()) {
        const bool put = batch.front() == 1;
        batch.remove_prefix(1);
        std::string key = TakeSlice(&batch);
        if (auto old = state_.find(key); old != state_.end()) sum_ -= SumOf(key, old->second);
        if (!put) state_.erase(key);
        if (!put) continue;
        std::string& value = state_[key] = TakeSlice(&batch);
        sum_ += SumOf(key, value);
      }
      sums_[record.last_txn] = sum_;
    }
  }
}

std::optional<uint64_t> History::SumAt(uint64_t txn) const {
  auto it = sums_.find(txn);
  return it == sums_.end() ? std::nullopt : std::optional(it->second);
}

MetaServerOptions OptionsIn(test::FakeFiles& files, leveldb::Env* env) {
  MetaServerOptions options;
  options.data_dir = "/var/meta";
  options.files = {&files, env};
  options.write_buffer_bytes = 64 << 10;
  return options;
}

std::string CheckImage(const Image& image, const History& history, const std::string& scratch, bool whole, State* state,
                       uint64_t* txn) {
  auto env = test::MakeFilesEnv(*image.files);
  auto database = Database::Open(OptionsIn(*image.files, env.get()));
  if (!database) return "does not open: " + database.error().message;
  if (!image.cluster.empty() && (*database)->cluster().uuid() != image.cluster) return "it is another, new file system";
  const uint64_t last = (*database)->last().txn();
  if (last < image.durable) return fmt::format("ends with transaction {}, but {} was durable", last, image.durable);
  const uint64_t bound = (*database)->ids().inode();
  if (bound <= (image.inode & kNumberMask)) return fmt::format("inode {:x} would be given again", image.inode);
  State found = AllRecords((*database)->db());
  uint64_t sum = 0;
  for (const auto& [key, value] : found) sum += SumOf(key, value);
  std::optional<uint64_t> expected = history.SumAt(last);
  const bool fresh = image.cluster.empty() && last == 1;  // made just now
  if (!fresh && !expected) return fmt::format("transaction {} was not the last of any batch", last);
  if (!fresh && *expected != sum) return fmt::format("not the state of transaction {}", last);
  if (txn) *txn = last;
  if (state) *state = std::move(found);
  if (!whole) return "";
  CheckProgress progress;
  auto checked = CheckState((*database)->db(), nullptr, scratch, progress);
  if (!checked) return "can't be checked: " + checked.error().message;
  return checked->problems == 0 ? "" : "meta check finds: " + checked->findings[0].ShortDebugString();
}

}  // namespace shoal::meta
