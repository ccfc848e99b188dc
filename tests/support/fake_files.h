// FakeFiles: a file system in memory that fails, runs full and forgets as a test wants it to.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "common/files.h"

namespace shoal::test {

// Which calls fail: called as a function, from any thread; assigned by the test, at any time.
class FailureHook {
 public:
  using Function = std::function<int(const std::string& call, const std::string& path)>;
  void operator=(Function function) {
    std::lock_guard guard(mutex_);
    function_ = std::move(function);
  }
  int operator()(const std::string& call, const std::string& path) const {
    Function function;
    {
      std::lock_guard guard(mutex_);
      function = function_;
    }
    return function ? function(call, path) : 0;
  }

 private:
  mutable std::mutex mutex_;
  Function function_;
};

// Files are kept in pages of 4 KiB; a page and a name are durable once they were synced. After a power cut of what was
// not synced any part may be there: each page (or sector) and each size as it was at the last sync or at any time
// since, and each change of names by itself, in whatever order they were made, but for changes of the same name; a
// rename happens as a whole. Owner: the test; any thread.
class FakeFiles : public Files {
 public:
  // Those that share a mutex stand still together while one's `before` runs.
  explicit FakeFiles(std::shared_ptr<std::recursive_mutex> mutex = std::make_shared<std::recursive_mutex>());

  // Every call of which `fails(call, path)` is not zero gives that errno, or with kLeaveOut does nothing and gives
  // success. Calls: "open", "open to write", "read", "write", "sync", "sync directory", "space", "punch", "truncate",
  // "unlink", "rename", "list".
  FailureHook fails;
  static constexpr int kLeaveOut = -1;
  // Called with the same (also "create" and "create directory") before anything changes or becomes durable; under the
  // mutex. Assigned before the first use.
  std::function<void(const std::string& call, const std::string& path)> before;
  std::atomic<uint64_t> capacity = 1ull << 40;  // bytes of all pages
  uint64_t sector = 4096;           // a power cut keeps or loses each of these as a whole; below 4096, pages are torn
  std::atomic<bool> cached = true;  // false: ReadCached never has anything

  void FlipBit(const std::string& path, uint64_t offset, int bit = 0);
  std::string Content(const std::string& path, uint64_t offset, size_t size);
  std::vector<std::string> Paths() const;
  uint64_t syncs() const { return syncs_; }
  // What was not synced is lost: all of it, or with `random` any part of it. Files that are open are others than those
  // that are there afterwards.
  void PowerCut(std::mt19937_64* random = nullptr);
  // What a power cut at this moment leaves; here all goes on.
  std::unique_ptr<FakeFiles> AfterPowerCut(std::mt19937_64* random = nullptr) const;
  // What is here at this moment, and what of it is not synced yet: as another process would find it.
  std::unique_ptr<FakeFiles> Copy() const;
  // From now on pages reach the disk before anybody asks for it, now and then.
  void WriteBackAtRandom(uint64_t seed) { write_back_.emplace(seed); }
  void SyncAll();
  // Nothing happens here until the result is destroyed, but by the thread that has it.
  [[nodiscard]] std::unique_lock<std::recursive_mutex> Hold() const { return std::unique_lock(mutex_); }

  Result<std::unique_ptr<File>> Open(const std::string& path, Mode mode) override;
  Result<std::vector<std::string>> List(const std::string& path) override;
  Status CreateDirectory(const std::string& path) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status Unlink(const std::string& path) override;
  Status Link(const std::string& from, const std::string& to) override;
  Status RemoveDirectory(const std::string& path) override;
  Result<bool> Exists(const std::string& path) override;
  Status SyncDirectory(const std::string& path) override;
  Result<FileSystemSpace> Space(const std::string& path) override;
  Result<std::unique_ptr<File>> Lock(const std::string& path) override;
  uint64_t BootId() override { return boot_; }

 private:
  friend class FakeFile;
  struct Node;
  using NodePtr = std::shared_ptr<Node>;
  using PagePtr = std::shared_ptr<std::string>;
  using Entries = std::map<std::string, NodePtr>;
  // A file or a directory, whether or not it still has a name.
  struct Node {
    bool directory = false, locked = false;
    std::map<uint64_t, PagePtr> pages;
    std::map<uint64_t, PagePtr> on_disk;  // of pages that are not synced; null: none
    uint64_t size = 0, synced_size = 0;
    Entries entries, synced_entries;
  };
  // A place in a directory.
  struct Place {
    NodePtr directory;
    std::string name;
  };
  // One change of names: it goes from one place (unless that is none) to another. Not durable yet.
  struct NameChange {
    Place from, to;
    NodePtr node;
  };
  class Cut;
  // Which changes become durable when these are wanted: those of the same names before them, too.
  static std::vector<bool> WithThoseBefore(const std::vector<NameChange>& changes, std::vector<bool> wanted);
  Status Check(const std::string& call, const std::string& path) const;
  Result<bool> Begin(const std::string& call, const std::string& path);  // false: left out
  NodePtr Find(const std::string& path) const;
  Result<Place> PlaceOf(const std::string& call, const std::string& path) const;
  void Change(Place from, Place to, NodePtr node);
  Status Remove(const std::string& call, const std::string& path, bool directory);
  void SyncNode(Node& node);
  void Recount();

  std::shared_ptr<std::recursive_mutex> shared_mutex_;
  std::recursive_mutex& mutex_;
  NodePtr root_;
  std::vector<NameChange> changes_;
  std::optional<std::mt19937_64> write_back_;
  uint64_t pages_in_use_ = 0;
  std::atomic<uint64_t> syncs_{0};
  std::atomic<uint64_t> boot_{1};
};

}  // namespace shoal::test
