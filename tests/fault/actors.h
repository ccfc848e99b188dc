// Actors of the storm: each works in files of its own and knows, from what was acknowledged, what must be there.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "shoal/file_system.h"
#include "tests/cluster/load.h"

namespace shoal::test {

// A thread of work whose calls can be counted and seen while they are under way. Owner: the storm.
class Actor : public Background {
 public:
  Actor(std::string name, uint64_t seed) : name_(std::move(name)), random_(seed) {}
  const std::string& name() const { return name_; }
  // Number of the call under way; 0: none. Any thread.
  uint64_t call() const { return call_; }
  uint64_t calls() const { return calls_; }
  // After Stop: lets go of its files.
  virtual std::string Close() { return {}; }
  // After Close: what is in the cluster against what must be, through a new mount or a new API client. "" if all is
  // well.
  virtual std::string Verify() = 0;

 protected:
  // One call of the file system.
  template <typename F>
  auto Call(F call) {
    call_ = ++calls_;
    auto result = Timed(call);
    call_ = 0;
    ++progress_;
    return result;
  }
  uint64_t Below(uint64_t limit) { return random_() % limit; }
  std::string Bytes(size_t size);
  void Broken(const std::string& what) { Fail(name_ + ": " + what); }

 private:
  std::string name_;
  std::mt19937_64 random_;
  std::atomic<uint64_t> call_{0}, calls_{0};
};

// One file as a program sees it: through the mount, or through the C++ API. Errors are texts, "" is success.
class OpenFile {
 public:
  virtual ~OpenFile() = default;
  virtual std::string Open(bool append) = 0;  // creates it; again after Close
  virtual std::string Write(const std::string& bytes, uint64_t offset) = 0;
  virtual std::string Append(const std::string& bytes) = 0;
  // Not from a cache, as far as that can be had. Short at the end of the file.
  virtual std::string Read(uint64_t offset, size_t size, std::string* bytes) = 0;
  virtual std::string Truncate(uint64_t size) = 0;
  virtual std::string Sync(bool data_only) = 0;
  virtual std::string Close() = 0;
};

// `path` below the root of the file system, like "dir/file".
std::unique_ptr<OpenFile> MountFile(const Cluster& cluster, const std::string& path);
std::unique_ptr<OpenFile> ApiFile(const Cluster& cluster, const std::string& path);
using FileMaker = std::unique_ptr<OpenFile> (*)(const Cluster& cluster, const std::string& path);

// Writes, reads, cuts and syncs one sparse file of three chunks at random, and compares each read with a model.
class FileActor : public Actor {
 public:
  FileActor(const Cluster& cluster, std::string name, uint64_t seed, FileMaker maker);
  ~FileActor() override { Stop(); }
  std::string Close() override { return file_->Close(); }
  std::string Verify() override;

 protected:
  void Round() override;

 private:
  uint64_t RandomOffset();
  void WriteSome();
  void Cut();
  std::string Compare(OpenFile& file, uint64_t offset, size_t size);

  const Cluster& cluster_;
  FileMaker maker_;
  std::unique_ptr<OpenFile> file_;
  std::map<uint64_t, std::array<char, 4096>> blocks_;  // those not all zeros, by number
  uint64_t size_ = 0;
};

// Appends numbered records; all must be there, once and in order.
class AppendActor : public Actor {
 public:
  AppendActor(const Cluster& cluster, std::string name, uint64_t seed, FileMaker maker);
  ~AppendActor() override { Stop(); }
  std::string Close() override { return file_->Close(); }
  std::string Verify() override;

 protected:
  void Round() override;

 private:
  std::string Record(uint64_t number) const;

  const Cluster& cluster_;
  FileMaker maker_;
  std::unique_ptr<OpenFile> file_;
  uint64_t records_ = 0, bytes_ = 0;
  std::vector<uint64_t> starts_;
};

// Creates, renames, links and removes small files and directories in the mount, and lists them.
class NamesActor : public Actor {
 public:
  NamesActor(const Cluster& cluster, std::string name, uint64_t seed);
  ~NamesActor() override { Stop(); }
  std::string Verify() override;

 protected:
  void Round() override;

 private:
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string RandomName();
  void Create(const std::string& name);
  void Rename(const std::string& from, const std::string& to);
  void Link(const std::string& from, const std::string& to);
  void Unlink(const std::string& name);
  void Directory(const std::string& name);
  std::string List();
  std::string Content(const std::string& name);

  std::string directory_;
  std::map<std::string, uint64_t> files_;  // what each holds, as a number
  std::set<std::string> directories_;
  uint64_t contents_ = 0;
};

}  // namespace shoal::test
