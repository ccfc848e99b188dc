// Work that goes on in a mount while a test kills what serves it.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "tests/cluster/cluster.h"

namespace shoal::test {

// A thread that repeats its work until it is told to stop, and keeps the first error. Owner: the test.
class Background {
 public:
  virtual ~Background();
  void Start();
  // Ends after the piece of work at hand; gives the first error, or "".
  std::string Stop();
  // How much has been done (in the work's own unit); grows while all is well.
  uint64_t progress() const { return progress_; }
  bool failed() const { return failed_; }
  // Waits until `more` has been done from now on, or an error. False when that takes too long.
  bool Advance(uint64_t more, Milliseconds limit = Milliseconds(120000));
  // Longest single call since the last ResetWorst.
  Milliseconds worst() const { return Milliseconds(worst_ms_); }
  void ResetWorst() { worst_ms_ = 0; }

 protected:
  virtual void Round() = 0;
  bool stopping() const { return stopping_; }
  void Fail(const std::string& error);
  // Runs one call and remembers how long it took.
  template <typename F>
  auto Timed(F call) {
    auto begin = Clock::now();
    auto result = call();
    auto took = std::chrono::duration_cast<Milliseconds>(Clock::now() - begin).count();
    if (took > worst_ms_) worst_ms_ = took;
    return result;
  }
  std::atomic<uint64_t> progress_{0};

 private:
  std::thread thread_;
  std::atomic<bool> stopping_{false}, failed_{false};
  std::atomic<int64_t> worst_ms_{0};
  std::string error_;
};

// Reads a large file from beginning to end again and again, in pieces of 128 KiB, and compares each with what was
// written. Progress: pieces.
class Reader : public Background {
 public:
  // Writes the file first.
  Reader(std::string path, size_t size);
  ~Reader() override { Stop(); }

 protected:
  void Round() override;

 private:
  std::string path_;
  size_t size_;
};

// Unpacks an archive into new directories again and again with tar(1). Progress: archives unpacked.
class Unpacker : public Background {
 public:
  Unpacker(std::string archive, std::string into) : archive_(std::move(archive)), into_(std::move(into)) {}
  ~Unpacker() override { Stop(); }
  uint64_t rounds() const { return progress_; }
  // Files there are by now, of the round at hand too.
  size_t FilesSoFar() const { return CountFiles(into_); }

 protected:
  void Round() override;

 private:
  std::string archive_, into_;
};

// Writes files of 64 KiB: open, write, close, and now and then fsync, each timed. Progress: files.
class Writer : public Background {
 public:
  explicit Writer(std::string directory);
  ~Writer() override { Stop(); }
  // Reads back every file that was closed without an error.
  std::string Verify() const;

 protected:
  void Round() override;

 private:
  std::string directory_;
};

}  // namespace shoal::test
