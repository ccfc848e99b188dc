#include "tools/cli/dev/layout.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "common/rpc/rpc.h"
#include "tools/cli/dev/process.h"

namespace shoal::cli::dev {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "shoal.dev/1";

Json ToJson(const Server& s) {
  return {{"name", s.name}, {"port", s.port}, {"http_port", s.http_port}, {"capacity_bytes", s.capacity}, {"rack", s.rack}, {"disks", s.disks}};
}

Server ServerFrom(const Json& j) {
  return {j.at("name"), j.at("port"), j.at("http_port"), j.at("capacity_bytes"), j.at("rack"), j.at("disks")};
}

Status WriteFile(const std::string& path, const std::string& text) {
  std::string temporary = path + ".new";
  std::ofstream out(temporary, std::ios::trunc);
  out << text;
  out.close();
  if (!out) return Fail(ErrnoError(errno, "can't write " + temporary));
  if (rename(temporary.c_str(), path.c_str()) != 0) return Fail(ErrnoError(errno, "can't write " + path));
  return {};
}

// A configuration that is there stays: it may have been edited.
Status WriteNew(const std::string& path, const std::string& text) {
  return access(path.c_str(), F_OK) == 0 ? Status{} : WriteFile(path, text);
}

Status MakeDirectory(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return Fail(ErrnoError(error.value(), "can't make the directory " + path));
  return {};
}

std::string MetaserverConfig(const Layout& l) {
  return fmt::format(
      "# The metaserver of the cluster in {0}; written by 'shoal dev start'.\n"
      "data = {0}/metaserver\nlisten = {1}\nhttp = 127.0.0.1:{2}\nkey = {3}\nlog-file = {4}\npid-file = {5}\n"
      "replicas = {6}\n# a developer does not want to wait ten minutes\ngrace = 10s\n",
      l.dir, l.metaserver.address(), l.metaserver.http_port, l.KeyPath(), l.LogPath("metaserver"), l.PidPath("metaserver"),
      l.replicas);
}

std::string ChunkserverConfig(const Layout& l, const Server& s) {
  std::string text = fmt::format(
      "# A chunkserver of the cluster in {0}; written by 'shoal dev start'.\n"
      "name = {1}\nmeta = {2}\nlisten = {3}\nhttp = 127.0.0.1:{4}\nkey = {5}\nlog-file = {6}\npid-file = {7}\n"
      "# each server stands for a machine\nhost = {1}\n",
      l.dir, s.name, l.metaserver.address(), s.address(), s.http_port, l.KeyPath(), l.LogPath(s.name), l.PidPath(s.name));
  for (const std::string& directory : l.DataDirectories(s)) text += "data = " + directory + "\n";
  if (!s.rack.empty()) text += "rack = " + s.rack + "\n";
  if (s.capacity) text += fmt::format("capacity = {}\n", s.capacity / s.disks);
  return text;
}

bool PortIsFree(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bool free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return free;
}

}  // namespace

Result<Layout> Layout::Load(const std::string& dir) {
  std::string path = dir + "/dev.json";
  std::ifstream in(path);
  if (!in) {
    if (errno != ENOENT) return Fail(ErrnoError(errno, "can't read " + path));
    return Fail(ErrorCode::kNotFound, fmt::format("there is no cluster in {}", dir));
  }
  std::stringstream text;
  text << in.rdbuf();
  try {
    Json json = Json::parse(text.str());
    if (json.at("schema") != kSchema) return Fail(ErrorCode::kNotSupported, path + " was written by another version of Shoal");
    Layout layout{dir, json.at("replicas"), json.at("capacity_bytes"), json.at("mount"), ServerFrom(json.at("metaserver")), {}};
    for (const Json& server : json.at("chunkservers")) layout.chunkservers.push_back(ServerFrom(server));
    return layout;
  } catch (const Json::exception& e) {
    return Fail(ErrorCode::kCorrupt, fmt::format("{} is damaged: {}", path, e.what()));
  }
}

Status Layout::Save() const {
  for (const char* part : {"/run", "/log", "/etc", "/metaserver"}) {
    TRY(MakeDirectory(dir + part));
  }
  // What is mounted must not be looked at: it may be dead, or wait for the metaserver that is to be started here.
  std::error_code error;
  if (!mount.empty() && !IsMounted(mount) && fs::symlink_status(mount, error).type() == fs::file_type::not_found) {
    TRY(MakeDirectory(mount));
  }
  if (!fs::exists(KeyPath())) {
    auto key = ClusterKey::Create(KeyPath());
    if (!key) return Fail(key.error());
  }
  TRY(WriteNew(ConfigPath("metaserver"), MetaserverConfig(*this)));
  Json list = Json::array();
  for (const Server& server : chunkservers) {
    for (const std::string& directory : DataDirectories(server)) {
      TRY(MakeDirectory(directory));
    }
    TRY(WriteNew(ConfigPath(server.name), ChunkserverConfig(*this, server)));
    list.push_back(ToJson(server));
  }
  TRY(WriteNew(ClientConfigPath(), fmt::format("# A client configuration: shoal status --config {}\nmeta = {}\nkey = {}\n",
                                                ClientConfigPath(), metaserver.address(), KeyPath())));
  Json json{{"schema", kSchema},     {"replicas", replicas},           {"capacity_bytes", capacity},
            {"mount", mount},        {"metaserver", ToJson(metaserver)}, {"chunkservers", std::move(list)}};
  return WriteFile(dir + "/dev.json", json.dump(2) + "\n");
}

ClientSettings Layout::Client() const {
  ClientSettings settings;
  settings.meta = {metaserver.address()};
  settings.key = KeyPath();
  return settings;
}

std::vector<std::string> Layout::DataDirectories(const Server& server) const {
  std::string base = dir + "/" + server.name;
  if (server.disks == 1) return {base};
  std::vector<std::string> directories;
  for (uint32_t i = 1; i <= server.disks; ++i) directories.push_back(fmt::format("{}/disk-{}", base, i));
  return directories;
}

std::vector<Server> Layout::Servers() const {
  std::vector<Server> all{metaserver};
  all.insert(all.end(), chunkservers.begin(), chunkservers.end());
  return all;
}

bool IsOurs(const std::string& entry) {
  for (const char* known : {"run", "log", "etc", "metaserver", "mnt", "shoal.conf", "shoal.conf.new", "cluster.key", "dev.json", "dev.json.new"}) {
    if (entry == known) return true;
  }
  return entry.starts_with("chunkserver-");
}

Result<uint16_t> FreePort(std::vector<uint16_t>& taken) {
  std::random_device device;
  std::uniform_int_distribution<int> any(10000, 31999);  // outgoing connections take 32768 and up
  for (int attempt = 0; attempt < 1000; ++attempt) {
    auto port = static_cast<uint16_t>(any(device));
    if (std::ranges::find(taken, port) != taken.end() || !PortIsFree(port)) continue;
    taken.push_back(port);
    return port;
  }
  return Fail(ErrorCode::kBusy, "found no free port on 127.0.0.1 between 10000 and 32000");
}

Result<DevLock> DevLock::Take(const std::string& dir) {
  std::string path = dir + "/run/dev.lock";
  int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Fail(ErrnoError(errno, "can't make " + path));
  auto deadline = std::chrono::steady_clock::now() + 60s;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      close(fd);
      return Fail(ErrorCode::kBusy, "another 'shoal dev' command works on " + dir);
    }
    std::this_thread::sleep_for(50ms);
  }
  return DevLock(fd);
}

DevLock::~DevLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace shoal::cli::dev
