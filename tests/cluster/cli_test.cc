// The contract for scripts: dev clusters, JSON, exit codes, paths.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

namespace fs = std::filesystem;

// One cluster for all tests of this file.
class Cli : public testing::Test {
 protected:
  static void SetUpTestSuite() { cluster_ = Cluster::Start().release(); }
  static void TearDownTestSuite() { delete cluster_; }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }
  static Cluster* cluster_;
};
Cluster* Cli::cluster_ = nullptr;

TEST_F(Cli, LayoutIsAsPromised) {
  const std::string& dir = cluster_->dir();
  for (const char* name : {"metaserver", "chunkserver-1", "chunkserver-2", "chunkserver-3", "mount"}) {
    EXPECT_GT(cluster_->Pid(name), 0) << name;
    EXPECT_TRUE(fs::exists(dir + "/log/" + name + ".log")) << name;
    EXPECT_NE(getsid(cluster_->Pid(name)), getsid(0)) << name;
  }
  for (const char* folder : {"metaserver", "chunkserver-1", "chunkserver-2", "chunkserver-3", "mnt"}) {
    EXPECT_TRUE(fs::is_directory(dir + "/" + folder)) << folder;
  }
  struct stat st;
  ASSERT_EQ(stat((dir + "/cluster.key").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(Cli, EveryAnswerHasItsSchema) {
  ASSERT_NE(WritePattern(cluster_->Path("f"), 10000, 1), "");
  struct Case {
    std::vector<std::string> arguments;
    const char* schema;
    const char* member;
  };
  for (const Case& c : {Case{{"status"}, "shoal.status/1", "healthy"}, Case{{"servers"}, "shoal.servers/1", "servers"},
                        Case{{"df"}, "shoal.df/1", "free_bytes"}, Case{{"df", cluster_->mount()}, "shoal.df/1", "capacity_bytes"},
                        Case{{"stat", cluster_->Path("f")}, "shoal.stat/1", "chunks"},
                        Case{{"sync", cluster_->mount()}, "shoal.sync/1", "took_seconds"}, Case{{"sync"}, "shoal.sync/1", "took_seconds"},
                        Case{{"version"}, "shoal.version/1", "version"},
                        Case{{"version", cluster_->mount()}, "shoal.version/1", "fuse_protocol"},
                        Case{{"dev", "status", "--dir", cluster_->dir()}, "shoal.dev_status/1", "all_running"}}) {
    std::vector<std::string> arguments = c.arguments;
    arguments.push_back("--json");
    Outcome outcome = cluster_->Shoal(arguments);
    auto object = nlohmann::json::parse(outcome.out, nullptr, false);
    EXPECT_EQ(outcome.exit, 0) << c.schema << outcome.Text();
    ASSERT_FALSE(object.is_discarded()) << c.schema << outcome.Text();
    EXPECT_EQ(object["schema"], c.schema);
    EXPECT_TRUE(object.contains(c.member)) << object.dump();
    Outcome text = cluster_->Shoal(c.arguments);
    EXPECT_EQ(text.exit, 0) << text.Text();
    EXPECT_NE(text.out, "");
  }
}

TEST_F(Cli, PathsBothWays) {
  fs::create_directories(cluster_->Path("a/b"));
  std::string sum = WritePattern(cluster_->Path("a/b/file"), 70 << 20, 3);
  ASSERT_NE(sum, "");
  for (const std::string& path : {std::string("shoal:/a/b/file"), std::string("shoal:/a//b/./file"), cluster_->Path("a/b/file")}) {
    auto stat = cluster_->Json({"stat", path});
    EXPECT_EQ(stat["size_bytes"], 70 << 20) << path;
    ASSERT_EQ(stat["chunks"].size(), 2u) << path;
    EXPECT_EQ(stat["chunks"][0]["replicas"].size(), 3u) << path;
    EXPECT_EQ(stat["path"], path);
  }
  EXPECT_EQ(cluster_->Json({"stat", "shoal:/"})["type"], "directory");
  EXPECT_EQ(cluster_->Json({"stat", cluster_->Path("a")})["type"], "directory");
  ASSERT_EQ(symlink("nowhere", cluster_->Path("link").c_str()), 0);
  EXPECT_EQ(cluster_->Json({"stat", cluster_->Path("link")})["type"], "symlink");
  // A local path tells the cluster by itself.
  Outcome alone = RunProgram({Program("shoal"), "stat", cluster_->Path("a/b/file")});
  EXPECT_EQ(alone.exit, 0) << alone.Text();
  EXPECT_EQ(cluster_->Shoal({"stat", "/etc/passwd"}).exit, 1);
  EXPECT_EQ(cluster_->Shoal({"stat", "shoal:/not/there"}).exit, 1);
  EXPECT_EQ(cluster_->Shoal({"stat", cluster_->Path("nothere")}).exit, 1);
  Outcome error = cluster_->Shoal({"stat", "shoal:/not/there", "--json"});
  EXPECT_EQ(nlohmann::json::parse(error.out, nullptr, false)["error"]["code"], "NOT_FOUND") << error.Text();
}

TEST_F(Cli, NamesThatAreNotUtf8) {
  std::string path = cluster_->Path("caf\xe9");
  ASSERT_NE(WritePattern(path, 100, 1), "");
  auto stat = cluster_->Json({"stat", path});
  EXPECT_FALSE(stat.contains("path"));
  EXPECT_TRUE(stat.contains("path_b64")) << stat.dump();
  EXPECT_EQ(stat["size_bytes"], 100);
}

TEST_F(Cli, StartIsIdempotentAndNamesContradictions) {
  pid_t meta = cluster_->Pid("metaserver");
  cluster_->StartMissing();
  EXPECT_EQ(cluster_->Pid("metaserver"), meta);
  std::string dir = cluster_->dir();
  for (const std::vector<std::string>& flags :
       {std::vector<std::string>{"--chunkservers", "5"}, {"--replicas", "2"}, {"--capacity", "1GiB"}, {"--mount", "/elsewhere"}}) {
    std::vector<std::string> command{Program("shoal"), "dev", "start", "--dir", dir};
    command.insert(command.end(), flags.begin(), flags.end());
    Outcome outcome = RunProgram(command);
    EXPECT_EQ(outcome.exit, 2) << outcome.Text();
    EXPECT_NE(outcome.err.find(flags[0] + " " ), std::string::npos) << outcome.Text();
  }
  cluster_->Kill("chunkserver-3");
  EXPECT_EQ(cluster_->Shoal({"dev", "status", "--dir", dir}).exit, 1);
  Outcome restart = RunProgram({Program("shoal"), "dev", "start", "--dir", dir});
  EXPECT_EQ(restart.exit, 0) << restart.Text();
  EXPECT_EQ(restart.err.find("Z "), std::string::npos) << "lines of a log: " << restart.err;
  EXPECT_GT(cluster_->Pid("chunkserver-3"), 0);
  EXPECT_EQ(cluster_->Shoal({"dev", "status", "--dir", dir}).exit, 0);
  TestDirectory strange;
  strange.File("thesis.txt", "years of work");
  Outcome outcome = RunProgram({Program("shoal"), "dev", "start", "--dir", strange.path()});
  EXPECT_EQ(outcome.exit, 2) << outcome.Text();
  EXPECT_NE(outcome.err.find("thesis.txt"), std::string::npos);
}

TEST_F(Cli, StopWithABusyMountNamesTheProcess) {
  auto user = Process::Start({"sleep", "1000"}, cluster_->mount());
  ASSERT_TRUE(Eventually([&] {
    std::error_code error;
    return fs::read_symlink("/proc/" + std::to_string(user->pid()) + "/cwd", error) == cluster_->mount();
  }));
  Outcome outcome = cluster_->Shoal({"dev", "stop", "--dir", cluster_->dir()});
  EXPECT_EQ(outcome.exit, 1) << outcome.Text();
  EXPECT_NE(outcome.err.find(std::to_string(user->pid())), std::string::npos) << outcome.Text();
  EXPECT_EQ(cluster_->Shoal({"dev", "status", "--dir", cluster_->dir()}).exit, 0);
  Outcome forced = cluster_->Shoal({"dev", "stop", "--force", "--dir", cluster_->dir()});
  EXPECT_EQ(forced.exit, 0) << forced.Text();
  EXPECT_EQ(cluster_->Pid("metaserver"), 0);
  user.reset();
  cluster_->StartMissing();
}

TEST_F(Cli, StartSaysWhatItWaitsForAndSeesAServerEnd) {
  TestDirectory own;
  std::string says = own.path() + "/says", dir = cluster_->dir();
  cluster_->Freeze("chunkserver-2");
  auto start = Process::Start({"/bin/bash", "-c", "exec " + Program("shoal") + " dev start --dir " + dir + " 2> " + says});
  ASSERT_TRUE(Eventually([&] { return ReadFile(says).find("waiting for chunkserver-2, which is stopped") != std::string::npos; })) << ReadFile(says);
  cluster_->Kill("chunkserver-2");
  Outcome outcome = start->Wait(Milliseconds(60000 * kSlowness));
  EXPECT_EQ(outcome.exit, 1) << ReadFile(says);
  EXPECT_NE(ReadFile(says).find("chunkserver-2 has ended"), std::string::npos) << ReadFile(says);
  cluster_->StartMissing();
}

TEST_F(Cli, AddedServerTakesData) {
  for (int i = 0; i < 2; ++i) {  // which leaves no numbers of servers out
    cluster_->Kill("metaserver");
    cluster_->StartMissing();
  }
  Outcome outcome = cluster_->Shoal({"dev", "add-chunkserver", "--dir", cluster_->dir(), "--disks", "2", "--rack", "r2"});
  ASSERT_EQ(outcome.exit, 0) << outcome.Text();
  auto servers = cluster_->Json({"servers"})["servers"];
  ASSERT_EQ(servers.size(), 4u);
  EXPECT_EQ(servers[3]["rack"], "r2");
  for (unsigned i = 0; i < 4; ++i) {
    EXPECT_EQ(servers[i]["id"], i + 1);
    EXPECT_EQ(servers[i]["version"], cluster_->Json({"version"})["version"]);
  }
  // All of them lie on one file system, which has its space once.
  auto status = cluster_->Json({"status"});
  EXPECT_EQ(status["capacity_bytes"], servers[0]["capacity_bytes"]);
  EXPECT_EQ(servers[3]["capacity_bytes"], servers[0]["capacity_bytes"]);
  EXPECT_EQ(servers[3]["disks"].size(), 2u);
  EXPECT_TRUE(fs::is_directory(cluster_->dir() + "/chunkserver-4/disk-2"));
  bool used = false;
  for (int i = 0; i < 40 && !used; ++i) {
    ASSERT_NE(WritePattern(cluster_->Path("n" + std::to_string(i)), 4096, i), "");
    auto stat = cluster_->Json({"stat", cluster_->Path("n" + std::to_string(i))});
    for (const auto& replica : stat["chunks"][0]["replicas"]) {
      used = used || replica["name"] == "chunkserver-4";
    }
  }
  EXPECT_TRUE(used) << "40 new files, and none has a copy on the new server";
}

// What df shows is what can be written, deleting makes room at once, and a full cluster starts all the same.
TEST(CliAlone, AFullCluster) {
  ClusterOptions options;
  options.chunkservers = 2;
  options.replicas = 2;
  options.capacity = "96MiB";
  auto cluster = Cluster::Start(options);
  ASSERT_NE(cluster, nullptr);
  EXPECT_GT(cluster->Json({"df"})["free_bytes"], 64 << 20);
  int files = 0;
  while (files < 100 && WritePattern(cluster->Path("f" + std::to_string(files)), 4 << 20, files) != "") ++files;
  EXPECT_GT(files, 10);
  EXPECT_LT(files, 24);
  EXPECT_TRUE(Eventually([&] { return cluster->Json({"df"})["free_bytes"] == 0; })) << cluster->Json({"df"}).dump();
  Outcome start = RunProgram({Program("shoal"), "dev", "start", "--dir", cluster->dir()});
  EXPECT_EQ(start.exit, 1) << start.Text();
  EXPECT_NE(start.err.find("nothing new can be written"), std::string::npos) << start.Text();
  EXPECT_NE(start.err.find("add-chunkserver"), std::string::npos) << start.Text();
  for (int i = 0; i < files; ++i) EXPECT_EQ(unlink(cluster->Path("f" + std::to_string(i)).c_str()), 0);
  EXPECT_NE(WritePattern(cluster->Path("again"), 4 << 20, 7), "") << cluster->Log("mount");
}

TEST(CliAlone, AMountThatFailsIsSaid) {
  TestDirectory own;
  std::string dir = own.path() + "/c", file = own.File("file", "x");
  Outcome outcome = RunProgram({Program("shoal"), "dev", "start", "--dir", dir, "--chunkservers", "1", "--mount", file});
  EXPECT_EQ(outcome.exit, 1) << outcome.Text();
  for (const char* words : {"the servers run", "nothing is mounted at", "shoal dev stop"}) {
    EXPECT_NE(outcome.err.find(words), std::string::npos) << words << outcome.Text();
  }
  Outcome wiped = RunProgram({Program("shoal"), "dev", "wipe", "--dir", dir});
  EXPECT_EQ(wiped.exit, 0) << wiped.Text();
}

TEST(CliAlone, WipeLeavesNothing) {
  ClusterOptions options;
  options.chunkservers = 1;
  options.replicas = 1;
  auto cluster = Cluster::Start(options);
  ASSERT_NE(cluster, nullptr);
  std::string dir = cluster->dir();
  ASSERT_NE(WritePattern(cluster->Path("f"), 1000, 1), "");
  Outcome wiped = cluster->Shoal({"dev", "wipe", "--dir", dir});
  EXPECT_EQ(wiped.exit, 0) << wiped.Text();
  EXPECT_FALSE(fs::exists(dir));
  // Its directory is free for a new one.
  Outcome again = RunProgram({Program("shoal"), "dev", "start", "--dir", dir, "--chunkservers", "1", "--no-mount"});
  EXPECT_EQ(again.exit, 0) << again.Text();
  EXPECT_FALSE(fs::exists(dir + "/mnt/f"));
}

TEST(CliAlone, QuickstartShowsAFileAndItsChunks) {
  TestDirectory own;
  std::string dir = own.path() + "/quick";
  Outcome outcome = RunProgram({"env", "SHOAL_BIN=" + Program(""), std::string(SHOAL_SOURCE) + "/tools/quickstart", dir}, Milliseconds(300000));
  EXPECT_EQ(outcome.exit, 0) << outcome.Text();
  EXPECT_NE(outcome.out.find("Hello from a shoal of 3 servers."), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("chunkserver-2"), std::string::npos) << outcome.out;
  Outcome wiped = RunProgram({Program("shoal"), "dev", "wipe", "--dir", dir});
  EXPECT_EQ(wiped.exit, 0) << wiped.Text();
}

}  // namespace
}  // namespace shoal::test
