#include "tests/cluster/cluster.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

namespace shoal::test {

namespace fs = std::filesystem;
using nlohmann::json;

std::string Program(const std::string& name) {
  const char* folder = getenv("SHOAL_BIN");
  return std::string(folder && *folder ? folder : SHOAL_TEST_BIN) + "/" + name;
}

TestDirectory::TestDirectory() {
  const char* base = getenv("SHOAL_TEST_DIR");
  std::string name = std::string(base && *base ? base : "/tmp") + "/shoal-test-XXXXXX";
  if (!mkdtemp(name.data())) ADD_FAILURE() << "can't make " << name;
  path_ = name;
}

TestDirectory::~TestDirectory() {
  if (testing::Test::HasFailure()) {
    fprintf(stderr, "left for you to look at: %s\n", path_.c_str());
    return;
  }
  std::error_code error;
  fs::remove_all(path_, error);
}

std::string TestDirectory::File(const std::string& name, const std::string& text) const {
  std::string path = path_ + "/" + name;
  std::ofstream(path) << text;
  return path;
}

std::vector<std::string> Cluster::StartCommand() const {
  std::vector<std::string> command{Program("shoal"), "dev", "start", "--dir", dir_};
  if (!options_.mount) command.push_back("--no-mount");
  return command;
}

std::unique_ptr<Cluster> Cluster::Start(const ClusterOptions& options) {
  std::unique_ptr<Cluster> cluster(new Cluster(options));
  cluster->dir_ = cluster->own_.path() + "/c";
  if (options.prepare) options.prepare(cluster->dir_);
  std::vector<std::string> command = cluster->StartCommand();
  command.insert(command.end(), {"--chunkservers", std::to_string(options.chunkservers), "--replicas", std::to_string(options.replicas)});
  if (!options.capacity.empty()) command.insert(command.end(), {"--capacity", options.capacity});
  Outcome outcome = RunProgram(command, Milliseconds(150000));
  if (outcome.exit != 0) {
    ADD_FAILURE() << "the cluster does not start: " << outcome.Text();
    return nullptr;
  }
  return cluster;
}

Cluster::~Cluster() {
  for (const std::string& name : Chunkservers()) Thaw(name);
  Thaw("metaserver");
  Outcome stopped = Shoal({"dev", "stop", "--dir", dir_});
  EXPECT_EQ(stopped.exit, 0) << stopped.Text();
  if (stopped.exit != 0) Shoal({"dev", "stop", "--force", "--dir", dir_});
  static const std::regex crash("CHECK failed|ERROR: AddressSanitizer|WARNING: ThreadSanitizer|runtime error:|LeakSanitizer|"
                                "terminate called|assertion failed|stack smashing");
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir_ + "/log", error)) {
    std::istringstream log(ReadFile(entry.path()));
    for (std::string line; std::getline(log, line);) {
      if (std::regex_search(line, crash)) {
        ADD_FAILURE() << entry.path() << ": " << line;
        break;
      }
    }
  }
}

Outcome Cluster::Shoal(std::vector<std::string> arguments, Milliseconds limit) const {
  arguments.insert(arguments.begin(), Program("shoal"));
  bool has_config = arguments[1] == "dev" || arguments[1] == "key" || arguments[1] == "umount" || arguments[1] == "version";
  if (!has_config) arguments.insert(arguments.end(), {"--config", config()});
  return RunProgram(arguments, limit);
}

json Cluster::Json(std::vector<std::string> arguments) const {
  arguments.push_back("--json");
  Outcome outcome = Shoal(arguments);
  json object = json::parse(outcome.out, nullptr, false);
  EXPECT_FALSE(object.is_discarded()) << outcome.Text();
  return object;
}

pid_t Cluster::Pid(const std::string& name) const {
  std::string path = dir_ + "/run/" + name + ".pid";
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  bool dead = flock(fd, LOCK_SH | LOCK_NB) == 0;
  close(fd);
  return dead ? 0 : atoi(ReadFile(path).c_str());
}

void Cluster::Kill(const std::string& name) {
  pid_t pid = Pid(name);
  ASSERT_GT(pid, 0) << name << " does not run";
  kill(pid, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return Pid(name) != pid; })) << name << " survived kill -9";
}

void Cluster::Freeze(const std::string& name) {
  pid_t pid = Pid(name);
  ASSERT_GT(pid, 0) << name << " does not run";
  kill(pid, SIGSTOP);
}

void Cluster::Thaw(const std::string& name) {
  if (pid_t pid = Pid(name); pid > 0) kill(pid, SIGCONT);
}

void Cluster::StartMissing() {
  Outcome outcome = RunProgram(StartCommand(), Milliseconds(150000));
  ASSERT_EQ(outcome.exit, 0) << outcome.Text();
}

std::unique_ptr<Process> Cluster::BeginStartMissing() { return Process::Start(StartCommand()); }

void Cluster::Remount() {
  Outcome outcome = Shoal({"umount", mount()});
  ASSERT_EQ(outcome.exit, 0) << outcome.Text();
  StartMissing();
}

std::vector<std::string> Cluster::Chunkservers() const {
  std::vector<std::string> names;
  for (int i = 1; fs::exists(dir_ + "/etc/chunkserver-" + std::to_string(i) + ".conf"); ++i) {
    names.push_back("chunkserver-" + std::to_string(i));
  }
  return names;
}

std::string Cluster::Http(const std::string& server, const std::string& page) const {
  std::smatch found;
  std::string text = ReadFile(dir_ + "/etc/" + server + ".conf");
  if (!std::regex_search(text, found, std::regex("http = 127.0.0.1:([0-9]+)"))) return {};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::stoi(found[1])));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  timeval limit{20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::string answer, request = "GET " + page + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  char bytes[16384];
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, 0)) > 0;) answer.append(bytes, n);
  }
  close(fd);
  return answer;
}

double Cluster::Metric(const std::string& server, const std::string& metric, const std::string& labels) const {
  std::istringstream page(Http(server, "/metrics"));
  double sum = 0;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with(metric) || line.size() <= metric.size()) continue;
    char after = line[metric.size()];
    if ((after != ' ' && after != '{') || line.find(labels) == line.npos) continue;
    sum += atof(line.c_str() + line.rfind(' '));
  }
  return sum;
}

std::string Cluster::Log(const std::string& name) const { return ReadFile(dir_ + "/log/" + name + ".log"); }

std::string Cluster::Shortage() const {
  json status = Json({"status"});
  if (!status.contains("chunks")) return "no status: " + status.dump();
  if (status["chunks_short"] == 0 && status["chunks_unavailable"] == 0 && status["chunks_lost"] == 0) return {};
  return status.dump();
}

std::string Cluster::Shortage(const std::string& path, size_t copies) const {
  json stat = Json({"stat", path});
  if (!stat.contains("chunks")) return "no answer: " + stat.dump();
  for (const json& chunk : stat["chunks"]) {
    size_t live = 0;
    for (const json& replica : chunk["replicas"]) live += replica["live"].get<bool>() ? 1 : 0;
    if (live < copies) return chunk.dump();
  }
  return {};
}

std::vector<std::string> Cluster::ReplicaFiles(const std::string& path) const {
  std::vector<std::string> files;
  json stat = Json({"stat", path});
  if (!stat.contains("chunks") || stat["chunks"].empty()) return files;
  const json& chunk = stat["chunks"][0];
  for (const json& replica : chunk["replicas"]) {
    std::error_code error;
    std::string folder = dir_ + "/" + replica["name"].get<std::string>();
    std::string instance;
    {
      char hex[32];
      snprintf(hex, sizeof hex, "%llx", static_cast<unsigned long long>(replica["instance"].get<uint64_t>()));
      instance = hex;
    }
    char chunk_hex[32];
    snprintf(chunk_hex, sizeof chunk_hex, "%llx", static_cast<unsigned long long>(chunk["chunk"].get<uint64_t>()));
    for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
      std::string name = entry.path().filename();
      size_t dot = name.find('.');
      if (dot == name.npos || !entry.is_regular_file()) continue;
      auto strip = [](std::string text) { return text.erase(0, std::min(text.find_first_not_of('0'), text.size())); };
      if (strip(name.substr(0, dot)) == chunk_hex && strip(name.substr(dot + 1)) == instance) files.push_back(entry.path());
    }
  }
  return files;
}

}  // namespace shoal::test
