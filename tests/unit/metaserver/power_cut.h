// Power cuts under a metaserver: what is there after each of them, against what was promised before.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "metaserver/options.h"
#include "tests/support/fake_files.h"

namespace leveldb {
class Env;
}

namespace shoal::meta {

using State = std::map<std::string, std::string>;  // all records

// Says which rule of durability (docs/hacking.md) a call that syncs something carries out. Called with all calls, as
// FakeFiles calls `fails` and `before`.
class SyncRules {
 public:
  // Of a call that changes something.
  void Changes(const std::string& call, const std::string& path);
  // Of "sync" and "sync directory"; "" for other calls. `starting`: the server does not serve yet.
  std::string RuleOf(const std::string& call, const std::string& path, bool starting);

 private:
  std::string newest_log_;
  std::set<std::string> cut_;                               // files that were cut off
  std::map<std::thread::id, std::string> names_changed_by_;  // what a directory's next sync on that thread is for
};

// What a power cut left, and what had been promised until then.
struct Image {
  std::unique_ptr<test::FakeFiles> files;
  uint64_t step = 0;
  uint64_t durable = 0;  // the highest transaction of which somebody was told that it is durable
  uint64_t inode = 0;    // the highest number of an inode that somebody was told
  std::string cluster;   // if somebody was told
};

// Listens at the files of a running metaserver and takes images of them. Owner: a test; its thread, and those of the
// server call it.
class Recorder {
 public:
  // `share`: of all steps, so many in 1000 are images. `leave_out`: a rule whose calls do nothing.
  Recorder(uint64_t seed, int share, std::string leave_out = "")
      : random_(seed), share_(share), leave_out_(std::move(leave_out)) {}
  // From now on only these.
  void Listen(test::FakeFiles& files);
  void Deafen() { current_ = nullptr; }

  std::atomic<uint64_t> durable{0}, inode{0};
  std::atomic<bool> starting{true};
  std::string cluster;  // this and the following: with the files held

  std::vector<Image> TakeImages();
  uint64_t steps() const { return steps_; }
  const std::set<std::string>& rules() const { return seen_; }
  // The contents of all logs that ever were there, by number.
  std::map<std::string, std::string> Logs();

 private:
  void Step(test::FakeFiles& files, const std::string& call, const std::string& path);
  std::mt19937_64 random_;
  const int share_;
  const std::string leave_out_;
  std::atomic<test::FakeFiles*> current_{nullptr};
  // Under the mutex of the files.
  std::atomic<uint64_t> steps_{0};
  SyncRules names_;
  std::set<std::string> seen_;
  std::vector<Image> images_;
  std::map<std::string, std::string> deleted_logs_;
};

// What the state was after each batch: its sum of checksums.
class History {
 public:
  History(State state, uint64_t txn) : state_(std::move(state)) { Start(txn); }
  // Takes in what is new in these logs.
  void Add(const std::map<std::string, std::string>& logs);
  // Nothing: there was no batch that ended with this transaction.
  std::optional<uint64_t> SumAt(uint64_t txn) const;
  uint64_t last() const { return sums_.rbegin()->first; }

 private:
  void Start(uint64_t txn);
  State state_;
  uint64_t sum_ = 0;
  std::map<uint64_t, uint64_t> sums_;
};

// Options for a metaserver in these files.
MetaServerOptions OptionsIn(test::FakeFiles& files, leveldb::Env* env);

// Opens an image and compares. The answer is what is wrong with it: "" when nothing is. `state`: what was found.
// `whole`: with the metaserver's own check, which needs a directory for scratch data.
std::string CheckImage(const Image& image, const History& history, const std::string& scratch, bool whole,
                       State* state = nullptr, uint64_t* txn = nullptr);

}  // namespace shoal::meta
