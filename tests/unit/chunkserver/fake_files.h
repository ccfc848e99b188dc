// FakeFiles: a file system in memory that fails, runs full and forgets as a test wants it to.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
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

// Files are kept in pages of 4 KiB; a page and a name are durable once they were synced. Owner: the test; any thread.
class FakeFiles : public Files {
 public:
  FakeFiles() { directories_.insert(""); }  // the root

  // Every call of which `fails(call, path)` is not zero gives that errno. Calls: "open", "open to write", "read", "write",
  // "sync", "sync directory", "space", "punch", "truncate", "unlink", "rename", "list".
  FailureHook fails;
  std::atomic<uint64_t> capacity = 1ull << 40;  // bytes of all pages
  uint64_t sector = 4096;  // a power cut keeps or loses each of these as a whole; below 4096, pages are torn
  std::atomic<bool> cached = true;  // false: ReadCached never has anything

  void FlipBit(const std::string& path, uint64_t offset, int bit = 0);
  std::string Content(const std::string& path, uint64_t offset, size_t size);
  std::vector<std::string> Paths() const;
  uint64_t syncs() const { return syncs_; }
  // What was not synced is lost: all of it, or with `random` any part of it, page by page and name by name.
  void PowerCut(std::mt19937_64* random = nullptr);
  void SyncAll();

  Result<std::unique_ptr<File>> Open(const std::string& path, Mode mode) override;
  Result<std::vector<std::string>> List(const std::string& path) override;
  Status CreateDirectory(const std::string& path) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status Unlink(const std::string& path) override;
  Status SyncDirectory(const std::string& path) override;
  Result<FileSystemSpace> Space(const std::string& path) override;
  Result<std::unique_ptr<File>> Lock(const std::string& path) override;
  uint64_t BootId() override { return boot_; }

 private:
  friend class FakeFile;
  using Pages = std::map<uint64_t, std::string>;
  // A file, whether or not it still has a name.
  struct Node {
    Pages pages, synced_pages;
    uint64_t size = 0, synced_size = 0;
    bool locked = false;
  };
  Status Check(const std::string& call, const std::string& path);
  uint64_t UsedLocked() const;

  mutable std::recursive_mutex mutex_;
  std::set<std::string> directories_;
  std::map<std::string, std::shared_ptr<Node>> names_, synced_names_;
  uint64_t pages_in_use_ = 0;
  std::atomic<uint64_t> syncs_{0};
  std::atomic<uint64_t> boot_{1};
};

}  // namespace shoal::test
