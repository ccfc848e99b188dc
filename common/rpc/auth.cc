#include "common/rpc/auth.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace shoal {
namespace rpc_internal {
namespace {

std::string Hmac(const ClusterKey& key, const std::string& text) {
  std::string out(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  const auto* in = reinterpret_cast<const unsigned char*>(text.data());
  HMAC(EVP_sha256(), key.bytes.data(), static_cast<int>(key.bytes.size()), in, text.size(),
       reinterpret_cast<unsigned char*>(out.data()), &size);
  out.resize(size);
  return out;
}

}  // namespace

std::string MakeNonce() {
  std::string nonce(kNonceSize, '\0');
  CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(nonce.data()), static_cast<int>(nonce.size())) == 1);
  return nonce;
}

std::string ServerProof(const ClusterKey& key, const std::string& client_nonce, const std::string& server_nonce, pb::Role client_role) {
  return Hmac(key, "shoal server" + client_nonce + server_nonce + static_cast<char>(client_role));
}

std::string ClientProof(const ClusterKey& key, const std::string& client_nonce, const std::string& server_nonce, pb::Role client_role) {
  return Hmac(key, "shoal client" + server_nonce + client_nonce + static_cast<char>(client_role));
}

bool SameProof(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace rpc_internal

namespace {

constexpr size_t kKeyDigits = 64;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// Closes a descriptor at the end of a scope.
struct FdCloser {
  int fd;
  ~FdCloser() { close(fd); }
};

}  // namespace

Result<ClusterKey> ClusterKey::Load(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    Error error = ErrnoError(errno, "cannot read the cluster key " + path);
    if (error.code == ErrorCode::kNotFound) error.message += " (make one with: shoal key create " + path + ")";
    return Fail(error);
  }
  FdCloser closer{fd};
  struct stat st {};
  if (fstat(fd, &st) != 0) return Fail(ErrnoError(errno, "cannot read the cluster key " + path));
  if (st.st_mode & 077) {
    return Fail(ErrorCode::kInvalidArgument, "the cluster key " + path + " may be read by others: chmod 600 " + path);
  }
  char text[kKeyDigits + 2] = {};
  ssize_t n = read(fd, text, sizeof text);
  bool right_size = n == kKeyDigits || (n == kKeyDigits + 1 && text[kKeyDigits] == '\n');
  ClusterKey key;
  for (size_t i = 0; right_size && i < key.bytes.size(); ++i) {
    int high = HexValue(text[2 * i]), low = HexValue(text[2 * i + 1]);
    if (high < 0 || low < 0) right_size = false;
    key.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  if (!right_size) {
    return Fail(ErrorCode::kInvalidArgument, path + " is not a cluster key (64 hexadecimal digits): copy it again from another server of the cluster");
  }
  return key;
}

Result<ClusterKey> ClusterKey::Create(const std::string& path) {
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return Fail(ErrnoError(errno, "cannot create the cluster key " + path));
  FdCloser closer{fd};
  ClusterKey key;
  CHECK(RAND_bytes(key.bytes.data(), static_cast<int>(key.bytes.size())) == 1);
  std::string text;
  for (uint8_t byte : key.bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  text += '\n';
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()) || fsync(fd) != 0) {
    int error = errno;
    unlink(path.c_str());
    return Fail(ErrnoError(error, "cannot write the cluster key " + path));
  }
  return key;
}

ClusterKey ClusterKey::ForTest() {
  ClusterKey key;
  key.bytes.fill(0x5a);
  return key;
}

}  // namespace shoal
