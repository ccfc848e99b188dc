// Wrong flags, broken files, foreign directories, noise on every port: clear errors, no crash, nothing lost.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

constexpr uid_t kNobody = 65534;

// Whether the outcome is this exit code with all these words in its errors.
testing::AssertionResult Says(const Outcome& outcome, int exit, const std::vector<std::string>& words) {
  if (outcome.exit != exit) return testing::AssertionFailure() << "not exit " << exit << ": " << outcome.Text();
  for (const std::string& word : words) {
    if (outcome.err.find(word) == std::string::npos) {
      return testing::AssertionFailure() << "'" << word << "' is not in: " << outcome.err;
    }
  }
  return testing::AssertionSuccess();
}

int ConnectTo(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  timeval limit{5, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

// One small cluster for all tests of this file, and a key.
class BadInput : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ClusterOptions options;
    options.chunkservers = 2;
    options.replicas = 2;
    cluster_ = Cluster::Start(options).release();
  }
  static void TearDownTestSuite() { delete cluster_; }
  void SetUp() override {
    ASSERT_NE(cluster_, nullptr);
    key_ = cluster_->dir() + "/cluster.key";
    meta_ = cluster_->Json({"dev", "status", "--dir", cluster_->dir()})["meta"].get<std::string>();
  }
  uint16_t PortOf(const std::string& server, const std::string& what) {
    nlohmann::json status = cluster_->Json({"dev", "status", "--dir", cluster_->dir()});
    for (const auto& s : status["servers"]) {
      std::string text = s[what];
      if (s["name"] == server) return static_cast<uint16_t>(std::stoi(text.substr(text.rfind(':') + 1)));
    }
    return 0;
  }
  Outcome Metaserver(std::vector<std::string> arguments, uid_t uid = 0) {
    arguments.insert(arguments.begin(), Program("shoal-metaserver"));
    return RunProgram(arguments, Milliseconds(20000), {}, uid);
  }
  Outcome Chunkserver(std::vector<std::string> arguments, uid_t uid = 0) {
    arguments.insert(arguments.begin(), Program("shoal-chunkserver"));
    return RunProgram(arguments, Milliseconds(20000), {}, uid);
  }

  static Cluster* cluster_;
  TestDirectory own_;
  std::string key_, meta_;
};
Cluster* BadInput::cluster_ = nullptr;

TEST_F(BadInput, UnknownFlagsAndVerbs) {
  EXPECT_TRUE(Says(Metaserver({"--listne", "x"}), 2, {"--listne", "--listen"}));
  EXPECT_TRUE(Says(Chunkserver({"--capactiy=3"}), 2, {"--capactiy", "--capacity"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "status", "--mta", "x"}), 2, {"--mta", "--meta"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "statsu"}), 2, {"statsu", "'stat"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "dev", "strat"}), 2, {"dev start"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal")}), 2, {"Usage"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "mount", "-o", "rwx", "/tmp"}), 2, {"rwx"}));
  Outcome json = RunProgram({Program("shoal"), "status", "--mta", "x", "--json"});
  auto object = nlohmann::json::parse(json.out, nullptr, false);
  EXPECT_EQ(json.exit, 2);
  EXPECT_EQ(object["schema"], "shoal.status/1") << json.Text();
  EXPECT_EQ(object["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_NE(object["error"]["next"], "");
}

TEST_F(BadInput, WrongValues) {
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path(), "--replicas", "0"}), 2, {"--replicas", "0"}));
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path(), "--cache", "lots"}), 2, {"--cache", "lots", "MiB"}));
  EXPECT_TRUE(Says(Metaserver({}), 2, {"--data"}));
  EXPECT_TRUE(Says(Chunkserver({}), 2, {"--data"}));
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path(), "--listen", "127.0.0.1:notaport"}), 2, {"--listen", "notaport"}));
}

TEST_F(BadInput, BrokenConfiguration) {
  std::string broken = own_.File("broken.conf", "data = /tmp/x\n\nthis is no setting\n");
  EXPECT_TRUE(Says(Metaserver({"--config", broken}), 2, {broken + ":3"}));
  std::string unknown = own_.File("unknown.conf", "data = /tmp/x\nreplcias = 3\n");
  EXPECT_TRUE(Says(Metaserver({"--config", unknown}), 2, {unknown + ":2", "replcias", "'replicas'"}));
  EXPECT_TRUE(Says(Chunkserver({"--config", own_.path() + "/none.conf"}), 2, {"none.conf"}));
  std::string client = own_.File("client.conf", "mta = x\n");
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "status", "--config", client}), 2, {client + ":1", "mta", "'meta'"}));
}

TEST_F(BadInput, MissingAndOpenKeys) {
  std::string none = own_.path() + "/no.key";
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path() + "/m", "--key", none}), 1, {none, "shoal key create"}));
  EXPECT_TRUE(Says(Chunkserver({"--data", own_.path(), "--key", none}), 1, {none, "shoal key create"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "status", "--key", none}), 1, {none, "shoal key create"}));
  std::string made = own_.path() + "/made.key";
  ASSERT_EQ(RunProgram({Program("shoal"), "key", "create", made}).exit, 0);
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "key", "create", made}), 1, {made}));
  ASSERT_EQ(chmod(made.c_str(), 0644), 0);
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path() + "/m", "--key", made}), 1, {made, "600"}));
  chmod(made.c_str(), 0600);
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "status", "--meta", meta_, "--key", made}), 1, {"key"}));
  own_.File("garbage.key", "this is no key\n");
  chmod((own_.path() + "/garbage.key").c_str(), 0600);
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path() + "/m", "--key", own_.path() + "/garbage.key"}), 1, {"garbage.key"}));
}

TEST_F(BadInput, PortsInUseAndAddressesBeyondLoopback) {
  std::string used = "127.0.0.1:" + std::to_string(PortOf("chunkserver-1", "address"));
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path() + "/m", "--key", key_, "--listen", used}), 1, {used, "--listen"}));
  std::filesystem::create_directory(own_.path() + "/c");
  EXPECT_TRUE(Says(Chunkserver({"--data", own_.path() + "/c", "--key", key_, "--listen", used}), 1, {used, "--listen"}));
  std::string http = "127.0.0.1:" + std::to_string(PortOf("chunkserver-1", "http"));
  EXPECT_TRUE(Says(Chunkserver({"--data", own_.path() + "/c", "--key", key_, "--listen", "127.0.0.1:0", "--http", http}), 1, {http, "--http"}));
  EXPECT_TRUE(Says(Metaserver({"--data", own_.path() + "/m", "--key", key_, "--listen", "0.0.0.0:0"}), 1, {"0.0.0.0", "TLS"}));
  EXPECT_TRUE(Says(Chunkserver({"--data", own_.path() + "/c", "--key", key_, "--listen", "[::]:0"}), 1, {"TLS"}));
}

TEST_F(BadInput, ForeignAndUnusableDirectories) {
  // In use by the server that runs.
  std::string data = cluster_->dir() + "/chunkserver-1";
  EXPECT_TRUE(Says(Chunkserver({"--data", data, "--key", key_, "--listen", "127.0.0.1:0", "--http", "none"}), 1, {data}));
  std::string meta = cluster_->dir() + "/metaserver";
  EXPECT_TRUE(Says(Metaserver({"--data", meta, "--key", key_, "--listen", "127.0.0.1:0", "--http", "none"}), 1, {meta}));
  // Two directories of two servers in one.
  std::string both = own_.path() + "/both";
  std::filesystem::create_directory(both);
  for (const char* name : {"chunkserver-1", "chunkserver-2"}) {
    ASSERT_EQ(Shell("mkdir " + both + "/" + name + " && cd " + cluster_->dir() + "/" + name +
                    " && find . -maxdepth 1 -type f -exec cp {} " + both + "/" + name + "/ \\;").exit, 0);
  }
  EXPECT_TRUE(Says(Chunkserver({"--data", both + "/chunkserver-1," + both + "/chunkserver-2", "--key", key_, "--listen",
                                "127.0.0.1:0", "--http", "none"}), 1, {both + "/chunkserver-"}));
  // A file where a directory should be, one that is not there, and one that may not be read.
  std::string file = own_.File("file", "x");
  EXPECT_TRUE(Says(Chunkserver({"--data", file, "--key", key_, "--listen", "127.0.0.1:0", "--http", "none"}), 1, {file}));
  EXPECT_TRUE(Says(Metaserver({"--data", file, "--key", key_, "--listen", "127.0.0.1:0", "--http", "none"}), 1, {file}));
  std::string gone = own_.path() + "/gone";
  EXPECT_TRUE(Says(Chunkserver({"--data", gone, "--key", key_, "--listen", "127.0.0.1:0", "--http", "none"}), 1, {gone}));
  if (geteuid() != 0) GTEST_SKIP() << "the rest changes to another user, which takes root";
  std::string secret = own_.path() + "/secret", nobodys_key = own_.path() + "/nobody.key";
  ASSERT_EQ(Shell("chmod 755 " + own_.path() + " && mkdir -m 0700 " + secret + " && cp " + key_ + " " + nobodys_key +
                  " && chown 65534 " + nobodys_key + " && chmod 600 " + nobodys_key).exit, 0);
  EXPECT_TRUE(Says(Chunkserver({"--data", secret, "--key", nobodys_key, "--listen", "127.0.0.1:0", "--http", "none"}, kNobody), 1, {secret}));
  EXPECT_TRUE(Says(Metaserver({"--data", secret, "--key", nobodys_key, "--listen", "127.0.0.1:0", "--http", "none"}, kNobody), 1, {secret}));
}

TEST_F(BadInput, DirectoryOfAnotherCluster) {
  ClusterOptions options;
  options.chunkservers = 1;
  options.replicas = 1;
  options.mount = false;
  auto other = Cluster::Start(options);
  ASSERT_NE(other, nullptr);
  other->Kill("chunkserver-1");
  std::string data = other->dir() + "/chunkserver-1", log = own_.path() + "/log";
  // It says so to whoever starts it, in the foreground and in the background.
  for (const char* way : {"--daemon=false", "--daemon"}) {
    EXPECT_TRUE(Says(Chunkserver({"--data", data, "--key", key_, "--listen", "127.0.0.1:0", "--http", "none", "--meta", meta_, "--name",
                                  "foreign", "--log-file", log, way}),
                     1, {data, "another", "--meta", "--data"}))
        << way;
  }
  EXPECT_NE(ReadFile(log).find(data), std::string::npos) << ReadFile(log);
  nlohmann::json known = cluster_->Json({"servers"});
  ASSERT_EQ(known["servers"].size(), 2u);
  for (const auto& server : known["servers"]) EXPECT_NE(server["name"], "foreign");
}

// The same in a dev cluster, which does not wait for what can't come.
TEST_F(BadInput, DirectoryOfAnotherClusterInADevCluster) {
  ClusterOptions options;
  options.chunkservers = 1;
  options.replicas = 1;
  options.mount = false;
  auto other = Cluster::Start(options);
  ASSERT_NE(other, nullptr);
  std::string dir = other->dir(), data = dir + "/chunkserver-1", saved = dir + "/chunkserver-1.saved";
  other->Kill("chunkserver-1");
  ASSERT_EQ(Shell("mv " + data + " " + saved + " && mkdir " + data + " && cp " + cluster_->dir() + "/chunkserver-1/* " + data + " ; exit 0").exit, 0);
  ASSERT_TRUE(std::filesystem::exists(data + "/identity"));
  Outcome outcome = RunProgram({Program("shoal"), "dev", "start", "--dir", dir, "--no-mount"}, Milliseconds(60000));
  EXPECT_TRUE(Says(outcome, 1, {"chunkserver-1 does not start", data, "belongs to cluster", "next:"}));
  ASSERT_EQ(Shell("rm -r " + data + " && mv " + saved + " " + data).exit, 0);
  other->StartMissing();
}

TEST_F(BadInput, ASecondServerWithTheSameName) {
  std::filesystem::create_directory(own_.path() + "/c");
  std::vector<std::string> command{"--data", own_.path() + "/c", "--key", key_, "--listen", "127.0.0.1:0", "--http", "none", "--meta", meta_};
  std::vector<std::string> same = command;
  same.insert(same.end(), {"--name", "chunkserver-1"});
  EXPECT_TRUE(Says(Chunkserver(same), 1, {"'chunkserver-1'", "--name"}));
  EXPECT_EQ(cluster_->Json({"servers"})["servers"].size(), 2u);
}

TEST_F(BadInput, TooLittleCapacity) {
  std::string dir = own_.path() + "/cluster";
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "dev", "start", "--dir", dir, "--capacity", "200"}), 2, {"--capacity", "200 B", "96"}));
  EXPECT_FALSE(std::filesystem::exists(dir));
  EXPECT_TRUE(Says(cluster_->Shoal({"dev", "add-chunkserver", "--dir", cluster_->dir(), "--capacity", "200MiB", "--disks", "4"}), 2,
                   {"--capacity", "50.0 MiB", "96"}));
  EXPECT_TRUE(Says(Chunkserver({"--data", own_.path() + ":capacity=1MiB", "--key", key_}), 2, {"1.0 MiB", "96"}));
}

TEST_F(BadInput, WordsOfTheCommandLine) {
  Outcome help = RunProgram({Program("shoal"), "help", "status"}), same = RunProgram({Program("shoal"), "status", "--help"});
  EXPECT_EQ(help.exit, 0);
  EXPECT_EQ(help.out, same.out);
  EXPECT_EQ(RunProgram({Program("shoal"), "help", "dev", "start"}).out, RunProgram({Program("shoal"), "dev", "start", "--help"}).out);
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "servers", "--meta", "999"}), 2, {"'999'", "HOST[:PORT]"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "mount", "-o", "tiemout=3", own_.path()}), 2, {"'timeout'"}));
  Outcome bogus = RunProgram({Program("shoal"), "mount", "-o", "bogus", own_.path()});
  EXPECT_TRUE(Says(bogus, 2, {"'bogus'", "unknown"}));
  EXPECT_EQ(bogus.err.find("did you mean"), std::string::npos) << bogus.err;
  EXPECT_NE(RunProgram({Program("shoal"), "mount", "--help"}).out.find("key=FILE"), std::string::npos);
  Outcome wipe = RunProgram({Program("shoal"), "dev", "wipe", "--dir", own_.path() + "/none"});
  EXPECT_EQ(wipe.exit, 0);
  EXPECT_NE(wipe.out.find("nothing to wipe"), std::string::npos) << wipe.Text();
  Outcome json = RunProgram({Program("shoal"), "key", "create", "/proc/none/key", "--json"});
  EXPECT_NE(nlohmann::json::parse(json.out, nullptr, false)["error"]["next"], "") << json.Text();
  // A file that can't be a configuration.
  std::string binary = own_.File("binary", std::string("\x7f""ELF\0\0", 6));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "status", "--config", binary}), 2, {binary, "--config"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "status", "--config", own_.path()}), 2, {own_.path(), "--config", "directory"}));
  EXPECT_TRUE(Says(RunProgram({Program("shoal"), "status", "--config", own_.path() + "/none"}), 2, {"/none", "--config"}));
}

TEST_F(BadInput, NoMetaserver) {
  Outcome text = RunProgram({Program("shoal"), "status", "--meta", "127.0.0.1:1", "--key", key_});
  EXPECT_TRUE(Says(text, 3, {"127.0.0.1:1", "next:"}));
  Outcome json = RunProgram({Program("shoal"), "servers", "--meta", "127.0.0.1:1", "--key", key_, "--json"});
  EXPECT_EQ(json.exit, 3);
  auto object = nlohmann::json::parse(json.out, nullptr, false);
  EXPECT_EQ(object["schema"], "shoal.servers/1") << json.Text();
  EXPECT_TRUE(object["error"].contains("message"));
  std::filesystem::create_directory(own_.path() + "/mnt");
  Outcome mount = RunProgram({Program("shoal"), "mount", "127.0.0.1:1", own_.path() + "/mnt", "-o", "timeout=1s,key=" + key_});
  EXPECT_TRUE(Says(mount, 3, {"127.0.0.1:1"}));
  // A chunkserver waits for it, and says so.
  std::filesystem::create_directory(own_.path() + "/c");
  std::string log = own_.path() + "/log";
  auto waiting = Process::Start({Program("shoal-chunkserver"), "--data", own_.path() + "/c", "--key", key_, "--listen", "127.0.0.1:0",
                                 "--http", "none", "--meta", "127.0.0.1:1", "--log-file", log});
  EXPECT_TRUE(Eventually([&] { return ReadFile(log).find("127.0.0.1:1") != std::string::npos; })) << ReadFile(log);
  EXPECT_TRUE(waiting->running());
}

// Noise, cut-off frames and lengths that no one could mean, on every port; the data is there afterwards.
TEST_F(BadInput, NoiseOnEveryPort) {
  std::string path = cluster_->Path("precious"), sum = WritePattern(path, 2 << 20, 99);
  ASSERT_NE(sum, "");
  std::vector<std::pair<std::string, pid_t>> before;
  for (const char* name : {"metaserver", "chunkserver-1", "chunkserver-2", "mount"}) before.emplace_back(name, cluster_->Pid(name));
  std::mt19937 random(1);
  std::vector<std::string> messages{"", std::string(64, '\0'), std::string(64, '\xff'), "GET / HTTP/1.1\r\n\r\n"};
  for (int i = 0; i < 40; ++i) {
    std::string noise(1 + random() % 3000, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    messages.push_back(noise);
  }
  // Frames that begin rightly (see common/rpc/frame.h), with every length there can be in the rest.
  for (uint32_t word : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xffffffffu, 4u << 20, (4u << 20) + 1}) {
    std::string frame("SHL1\x01\0\x01\0", 8);
    for (int i = 0; i < 15; ++i) frame.append(reinterpret_cast<char*>(&word), 4);
    messages.push_back(frame);
    messages.push_back(frame.substr(0, 17));
    messages.push_back(frame + std::string(100000, 'x'));
  }
  for (const char* server : {"metaserver", "chunkserver-1", "chunkserver-2"}) {
    for (const char* port : {"address", "http"}) {
      uint16_t number = PortOf(server, port);
      std::vector<int> open;
      for (const std::string& message : messages) {
        int fd = ConnectTo(number);
        ASSERT_GE(fd, 0) << server << " " << port;
        [[maybe_unused]] ssize_t n = send(fd, message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        open.push_back(fd);
        if (open.size() > 20) {
          close(open.front());
          open.erase(open.begin());
        }
      }
      for (int fd : open) close(fd);
    }
  }
  for (const auto& [name, pid] : before) EXPECT_EQ(cluster_->Pid(name), pid) << name << " has died";
  for (const char* server : {"metaserver", "chunkserver-1", "chunkserver-2"}) {
    EXPECT_NE(cluster_->Http(server, "/healthz").find(" 200 "), std::string::npos) << server;
  }
  EXPECT_EQ(Sha256OfFile(path), sum);
  EXPECT_NE(WritePattern(cluster_->Path("after"), 1 << 20, 100), "");
}

}  // namespace
}  // namespace shoal::test
