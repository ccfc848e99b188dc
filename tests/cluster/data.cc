// Files and trees that tests write and compare.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

namespace fs = std::filesystem;

// SHA-256 over what is added. One thread.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) { EVP_DigestInit_ex(context_, EVP_sha256(), nullptr); }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  void Add(const void* data, size_t size) { EVP_DigestUpdate(context_, data, size); }
  std::string Hex() {
    unsigned char digest[32];
    EVP_DigestFinal_ex(context_, digest, nullptr);
    std::string hex;
    for (unsigned char byte : digest) {
      char two[3];
      snprintf(two, sizeof two, "%02x", byte);
      hex += two;
    }
    return hex;
  }

 private:
  EVP_MD_CTX* context_;
};

}  // namespace

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string Sha256OfFile(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  std::vector<char> bytes(1 << 20);
  Sha256 sum;
  ssize_t n;
  while ((n = read(fd, bytes.data(), bytes.size())) > 0) sum.Add(bytes.data(), n);
  close(fd);
  return n == 0 ? sum.Hex() : "";
}

std::string WritePattern(const std::string& path, size_t size, uint64_t seed) {
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return {};
  std::mt19937_64 random(seed);
  std::vector<uint64_t> block((1 << 20) / 8);
  Sha256 sum;
  bool good = true;
  for (size_t at = 0; at < size && good;) {
    for (uint64_t& word : block) word = random();
    size_t part = std::min<size_t>(size - at, 1 << 20);
    sum.Add(block.data(), part);
    good = write(fd, block.data(), part) == static_cast<ssize_t>(part);
    at += part;
  }
  good = fsync(fd) == 0 && good;
  good = close(fd) == 0 && good;
  return good ? sum.Hex() : "";
}

void MakeTree(const std::string& directory, int count) {
  fs::create_directories(directory);
  Outcome outcome = Shell("cd /usr/include && find . -type f -o -type l | LC_ALL=C sort | sed -n '1," + std::to_string(count) + "p'" +
                          " | tar cf - -T - | tar xf - -C " + directory);
  ASSERT_EQ(outcome.exit, 0) << outcome.Text();
  ASSERT_GE(CountFiles(directory), static_cast<size_t>(count) * 9 / 10) << "/usr/include holds too few files for this test";
}

size_t CountFiles(const std::string& directory) {
  size_t count = 0;
  std::error_code error;
  for (auto it = fs::recursive_directory_iterator(directory, error); it != fs::end(it); it.increment(error)) {
    if (!it->is_directory(error)) ++count;
  }
  return count;
}

void FlipBit(const std::string& path, off_t at) {
  int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0) << path;
  unsigned char byte = 0;
  ASSERT_EQ(pread(fd, &byte, 1, at), 1);
  byte ^= 0x10;
  ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
  close(fd);
}

}  // namespace shoal::test
