#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <google/protobuf/stubs/logging.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rpc/auth.h"

// Every line of the log is made, and goes nowhere; what protobuf says of bad messages, too.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  (void)shoal::rpc_internal::MakeNonce();  // OpenSSL starts here, so that it ends after the threads of the targets'
                                           // servers
  CHECK(shoal::StartLog({.file = "/dev/null", .level = "debug"}));
  return 0;
}

namespace shoal::fuzz {

std::string Sized(std::string_view bytes) {
  CHECK(bytes.size() <= UINT16_MAX);
  return Raw(static_cast<uint16_t>(bytes.size())) + std::string(bytes);
}

std::string MakeScratchDirectory() {
  std::string name = access("/dev/shm", W_OK) == 0 ? "/dev/shm/shoal-fuzz-XXXXXX" : "/tmp/shoal-fuzz-XXXXXX";
  CHECK(mkdtemp(name.data()));
  return name;
}

ScratchFile::ScratchFile() : fd_(memfd_create("fuzz", MFD_CLOEXEC)) { CHECK(fd_ >= 0 && fchmod(fd_, 0600) == 0); }
ScratchFile::~ScratchFile() { close(fd_); }
std::string ScratchFile::path() const { return "/proc/self/fd/" + std::to_string(fd_); }

void ScratchFile::Write(std::string_view content) {
  CHECK(ftruncate(fd_, 0) == 0);
  CHECK(pwrite(fd_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
}

}  // namespace shoal::fuzz
