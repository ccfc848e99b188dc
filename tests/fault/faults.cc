#include "tests/fault/faults.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <regex>

#include "chunkserver/layout.h"

namespace fs = std::filesystem;

namespace shoal::test {
namespace {

std::string Port(const Cluster& cluster, const std::string& server) {
  std::smatch found;
  std::string text = ReadFile(cluster.dir() + "/etc/" + server + ".conf");
  return std::regex_search(text, found, std::regex("listen = 127.0.0.1:([0-9]+)")) ? found[1].str() : "";
}

// Replica files of all chunkservers: those whose name is two hexadecimal numbers.
std::vector<fs::path> AllReplicaFiles(const Cluster& cluster) {
  static const std::regex replica("[0-9a-f]+\\.[0-9a-f]+");
  std::vector<fs::path> files;
  std::error_code error;
  for (const std::string& server : cluster.Chunkservers()) {
    fs::recursive_directory_iterator it(cluster.dir() + "/" + server, error), end;
    for (; it != end; it.increment(error)) {
      std::error_code gone;
      if (error) break;
      if (it->is_regular_file(gone) && std::regex_match(it->path().filename().string(), replica))
        files.push_back(it->path());
    }
  }
  return files;
}

}  // namespace

const std::vector<std::string>& Faults::Kinds() {
  static const std::vector<std::string> kinds{"kill-chunkserver", "stop-chunkserver",  "freeze-chunkserver",
                                              "cut-chunkserver",  "fill-chunkserver",  "flip-data",
                                              "flip-table",       "flip-header",       "kill-metaserver",
                                              "stop-metaserver",  "freeze-metaserver", "cut-metaserver"};
  return kinds;
}

std::string Faults::AnyChunkserver() {
  std::vector<std::string> servers = cluster_.Chunkservers();
  return servers[Below(servers.size())];
}

Milliseconds Faults::Duration(const std::string& kind) {
  if (kind.starts_with("flip")) return Milliseconds(500);
  if (kind.starts_with("cut")) return Milliseconds(200);
  if (kind == "kill-chunkserver" && Below(3) == 0) return Milliseconds(14000);  // its chunks are copied meanwhile
  return Milliseconds(1000 + Below(6000));
}

std::string Faults::Strike(const std::string& kind) {
  std::string verb = kind.substr(0, kind.find('-'));
  if (verb == "flip") return Flip(kind.substr(5));
  if (verb == "fill") return Fill();
  victim_ = kind.ends_with("metaserver") ? "metaserver" : AnyChunkserver();
  pid_t pid = cluster_.Pid(victim_);
  if (pid <= 0) return victim_ + " does not run";
  if (verb == "cut") return Cut(victim_);
  state_ = verb == "freeze" ? State::kFrozen : State::kDown;
  kill(pid, verb == "kill" ? SIGKILL : verb == "stop" ? SIGTERM : SIGSTOP);
  return {};
}

void Faults::Heal() {
  if (!ballast_.empty()) unlink(std::exchange(ballast_, "").c_str());
  switch (std::exchange(state_, State::kUp)) {
    case State::kUp:
      return;
    case State::kFrozen:
      return cluster_.Thaw(victim_);
    case State::kDown:
      EXPECT_TRUE(Eventually([&] { return cluster_.Pid(victim_) <= 0; }, Milliseconds(60000)))
          << victim_ << " does not end";
      return cluster_.StartMissing();
  }
}

std::string Faults::Cut(const std::string& server) {
  std::string port = Port(cluster_, server);
  Outcome cut =
      Shell("ss -K -t state established '( sport = :" + port + " or dport = :" + port + " )' | tail -n +2 | wc -l");
  if (cut.exit != 0) return "ss -K: " + cut.Text();
  return atoi(cut.out.c_str()) > 0 ? "" : "no connection was cut (CONFIG_INET_DIAG_DESTROY?)";
}

std::string Faults::Fill() {
  victim_ = "chunkserver-1";
  ballast_ = cluster_.dir() + "/" + victim_ + "/ballast";
  int fd = open(ballast_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return "ballast: " + std::string(strerror(errno));
  std::vector<char> piece(1 << 20, 'x');
  for (size_t size = piece.size(); size >= kBlockSize;) {
    if (write(fd, piece.data(), size) <= 0) size /= 2;
  }
  close(fd);
  return {};
}

std::string Faults::Flip(const std::string& part) {
  std::vector<fs::path> files = AllReplicaFiles(cluster_);
  for (int tries = 0; tries < 50 && !files.empty(); ++tries) {
    if (FlipIn(files[Below(files.size())], part)) return {};
  }
  return "no replica file that was not flipped there yet";
}

bool Faults::FlipIn(const std::string& path, const std::string& part) {
  int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  std::string name = fs::path(path).filename();
  std::string chunk = name.substr(0, name.find('.'));
  // A header or a page of the table is about many blocks: once a chunk.
  std::string what = "head";
  off_t at = 33;
  if (part != "header") {
    off_t size = lseek(fd, 0, SEEK_END), data = -1;
    if (size > static_cast<off_t>(kDataOffset)) data = lseek(fd, static_cast<off_t>(kDataOffset), SEEK_DATA);
    if (data < 0) return close(fd), false;
    // Somewhere behind the first data, or in the first block of it.
    off_t later = lseek(fd, data + static_cast<off_t>(Below(static_cast<uint64_t>(size - data))), SEEK_DATA);
    auto block = static_cast<uint32_t>((std::max(data, later) - static_cast<off_t>(kDataOffset)) / kBlockSize);
    if (part == "data") {
      what = std::to_string(block);
      at = static_cast<off_t>(kDataOffset + uint64_t{block} * kBlockSize + Below(kBlockSize));
    } else {
      at = static_cast<off_t>(TablePageOffset(block / kEntriesPerPage) + Below(4096));
    }
  }
  char byte;
  bool done = flipped_.insert(chunk + " " + what).second && pread(fd, &byte, 1, at) == 1;
  if (done) {
    byte = static_cast<char>(byte ^ (1 << Below(8)));
    done = pwrite(fd, &byte, 1, at) == 1;
  }
  close(fd);
  victim_ = path.substr(cluster_.dir().size() + 1) + " at " + std::to_string(at);
  return done;
}

SmallDisk::SmallDisk(std::string directory, const std::string& size) : directory_(std::move(directory)) {
  fs::create_directories(directory_);
  mounted_ = mount("tmpfs", directory_.c_str(), "tmpfs", 0, ("size=" + size + ",mode=0700").c_str()) == 0;
}

SmallDisk::~SmallDisk() {
  if (mounted_) umount2(directory_.c_str(), MNT_DETACH);
  // The cluster's directory could not be deleted while this was mounted in it.
  std::error_code error;
  for (fs::path path = directory_; fs::remove(path, error); path = path.parent_path()) {
  }
}

}  // namespace shoal::test
