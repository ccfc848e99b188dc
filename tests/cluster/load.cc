#include "tests/cluster/load.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

namespace shoal::test {
namespace {

constexpr size_t kPiece = 128 << 10;
constexpr size_t kSmallFile = 64 << 10;

// The bytes of piece `number`: the same wherever they are made.
void Fill(std::vector<uint64_t>& words, uint64_t number) {
  std::mt19937_64 random(number * 2654435761u + 1);
  for (uint64_t& word : words) word = random();
}

std::string Errno(const std::string& what) { return what + ": " + strerror(errno); }

}  // namespace

Background::~Background() { Stop(); }

void Background::Start() {
  thread_ = std::thread([this] {
    while (!stopping_ && !failed_) Round();
  });
}

std::string Background::Stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
  return error_;
}

bool Background::Advance(uint64_t more, Milliseconds limit) {
  uint64_t goal = progress_ + more;
  return Eventually([&] { return progress_ >= goal || failed_; }, limit) && !failed_;
}

void Background::Fail(const std::string& error) {
  if (failed_.exchange(true)) return;
  error_ = error;
}

Reader::Reader(std::string path, size_t size) : path_(std::move(path)), size_(size) {
  int fd = open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  std::vector<uint64_t> words(kPiece / 8);
  for (size_t at = 0; at < size_ && !failed(); at += kPiece) {
    Fill(words, at / kPiece);
    if (write(fd, words.data(), kPiece) != static_cast<ssize_t>(kPiece)) Fail(Errno("write " + path_));
  }
  if (fsync(fd) != 0 || close(fd) != 0) Fail(Errno("fsync " + path_));
}

void Reader::Round() {
  int fd = Timed([&] { return open(path_.c_str(), O_RDONLY | O_CLOEXEC); });
  if (fd < 0) return Fail(Errno("open " + path_));
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  std::vector<uint64_t> words(kPiece / 8), right(kPiece / 8);
  for (size_t at = 0; at < size_ && !stopping(); at += kPiece) {
    ssize_t n = Timed([&] { return pread(fd, words.data(), kPiece, static_cast<off_t>(at)); });
    if (n != static_cast<ssize_t>(kPiece)) {
      Fail(n < 0 ? Errno("read " + path_) : "short read of " + path_);
      break;
    }
    ::shoal::test::Fill(right, at / kPiece);
    if (words != right) {
      Fail("wrong bytes at " + std::to_string(at) + " of " + path_);
      break;
    }
    ++progress_;
  }
  close(fd);
}

void Unpacker::Round() {
  std::string round = into_ + "/round-" + std::to_string(progress_);
  Outcome outcome = Shell("mkdir -p " + round + " && tar xf " + archive_ + " -C " + round, Milliseconds(600000));
  if (outcome.exit != 0) return Fail("unpacking " + round + ": " + outcome.Text());
  ++progress_;
}

Writer::Writer(std::string directory) : directory_(std::move(directory)) { mkdir(directory_.c_str(), 0755); }

void Writer::Round() {
  uint64_t number = progress_;
  std::string path = directory_ + "/f" + std::to_string(number);
  std::vector<uint64_t> words(kSmallFile / 8);
  ::shoal::test::Fill(words, number);
  int fd = Timed([&] { return open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644); });
  if (fd < 0) return Fail(Errno("create " + path));
  ssize_t n = Timed([&] { return write(fd, words.data(), kSmallFile); });
  if (n != static_cast<ssize_t>(kSmallFile)) Fail(Errno("write " + path));
  if (number % 4 == 0 && Timed([&] { return fsync(fd); }) != 0) Fail(Errno("fsync " + path));
  if (Timed([&] { return close(fd); }) != 0) Fail(Errno("close " + path));
  if (!failed()) ++progress_;
}

std::string Writer::Verify() const {
  std::vector<uint64_t> words(kSmallFile / 8 + 1), right(kSmallFile / 8);
  for (uint64_t number = 0; number < progress_; ++number) {
    std::string path = directory_ + "/f" + std::to_string(number);
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return Errno("open " + path);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ssize_t n = pread(fd, words.data(), words.size() * 8, 0);
    close(fd);
    ::shoal::test::Fill(right, number);
    if (n != static_cast<ssize_t>(kSmallFile) || memcmp(words.data(), right.data(), kSmallFile) != 0) {
      return "wrong content of " + path + " (read gave " + std::to_string(n) + ")";
    }
  }
  return {};
}

}  // namespace shoal::test
