// The metadata: backed up while it is served, lost, restored, checked. Real processes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "tests/cluster/load.h"

namespace shoal::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kSize = 3 << 20;

// A cluster and a directory for backups.
class Meta : public testing::Test {
 protected:
  void SetUp() override {
    cluster_ = Cluster::Start();
    ASSERT_NE(cluster_, nullptr);
  }
  Outcome Backup() { return cluster_->Shoal({"meta", "backup", backup_}); }
  // Without --config, which `meta restore` does not have.
  Outcome Restore(const std::string& file, std::vector<std::string> more = {}) {
    std::vector<std::string> command{Program("shoal"), "meta", "restore", file, "--to", state_dir()};
    command.insert(command.end(), more.begin(), more.end());
    return RunProgram(command);
  }
  std::string state_dir() const { return cluster_->dir() + "/metaserver"; }
  std::string old_dir() const { return local_.path() + "/old-state"; }
  void ExpectClean(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"meta", "check"});
    Outcome checked = cluster_->Shoal(arguments, Milliseconds(120000) * kSlowness);
    EXPECT_EQ(checked.exit, 0) << checked.Text();
  }
  size_t LiveServers() const {
    size_t live = 0;
    json known = cluster_->Json({"servers"});
    for (const json& server : known["servers"]) live += server["state"] == "live";
    return live;
  }

  TestDirectory local_;
  std::string backup_ = local_.path() + "/backup";
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(Meta, ALostMetaserverComesBackFromABackup) {
  ASSERT_EQ(mkdir(cluster_->Path("dir").c_str(), 0755), 0);
  std::string kept = WritePattern(cluster_->Path("dir/kept"), kSize, 1);
  std::string other = WritePattern(cluster_->Path("other"), kSize, 2);
  ASSERT_NE(kept, "");
  Writer writer(cluster_->Path("written"));
  writer.Start();
  ASSERT_TRUE(writer.Advance(50)) << writer.Stop();
  Outcome backup = Backup();
  ASSERT_EQ(backup.exit, 0) << backup.Text();
  ASSERT_TRUE(writer.Advance(20)) << writer.Stop();
  ExpectClean({});
  EXPECT_EQ(writer.Stop(), "");
  EXPECT_EQ(Backup().exit, 1) << "a backup is never overwritten";
  ExpectClean({backup_});

  std::string later = WritePattern(cluster_->Path("later"), kSize, 3);
  ASSERT_NE(later, "");
  std::vector<std::string> later_files = cluster_->ReplicaFiles(cluster_->Path("later"));
  ASSERT_EQ(later_files.size(), 3u);
  auto later_chunk = cluster_->Json({"stat", cluster_->Path("later")})["chunks"][0]["chunk"].get<uint64_t>();
  int open_file = open(cluster_->Path("dir/kept").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(open_file, 0);

  EXPECT_EQ(Restore(backup_, {"--move-aside"}).exit, 1) << "the metaserver runs";
  cluster_->Kill("metaserver");
  ExpectClean({"--dir", state_dir()});
  EXPECT_EQ(Restore(backup_).exit, 1) << "there is a state";
  fs::copy(state_dir(), old_dir(), fs::copy_options::recursive);
  fs::remove_all(state_dir());
  // The copy of the state that was lost knows of incarnation 1 only, as does the backup.
  Outcome restored = Restore(backup_);
  ASSERT_EQ(restored.exit, 0) << restored.Text();
  ExpectClean({"--dir", state_dir()});
  cluster_->StartMissing();

  // The mount of before: a clear error, and nothing of it reaches the files.
  std::string garbage(100000, 'x');
  ssize_t put = pwrite(open_file, garbage.data(), garbage.size(), 0);
  bool refused = put < 0 || fsync(open_file) != 0;
  EXPECT_TRUE(refused);
  close(open_file);
  EXPECT_TRUE(Eventually([&] {
    struct stat st;
    return stat(cluster_->Path("some-name").c_str(), &st) != 0 && errno == ESTALE;
  })) << strerror(errno);
  EXPECT_TRUE(
      Eventually([&] { return cluster_->Log("mount").find("was restored from a backup") != std::string::npos; }));

  Outcome unmounted = cluster_->Shoal({"umount", "--force", cluster_->mount()});
  EXPECT_EQ(unmounted.exit, 0) << unmounted.Text();
  cluster_->StartMissing();
  EXPECT_EQ(Sha256OfFile(cluster_->Path("dir/kept")), kept);
  EXPECT_EQ(Sha256OfFile(cluster_->Path("other")), other);
  EXPECT_NE(access(cluster_->Path("later").c_str(), F_OK), 0);
  EXPECT_GE(CountFiles(cluster_->Path("written")), 50u);
  ExpectClean({});
  json unknown = cluster_->Json({"meta", "unknown"});
  EXPECT_EQ(unknown["restored_incarnation"], 2);
  std::set<std::string> holders;
  for (const json& replica : unknown["replicas"]) {
    if (replica["chunk"] == later_chunk) holders.insert(replica["name"]);
  }
  EXPECT_EQ(holders.size(), 3u) << unknown.dump(2);
  for (const std::string& file : later_files) EXPECT_TRUE(fs::exists(file)) << file;
  EXPECT_NE(WritePattern(cluster_->Path("new"), kSize, 4), "");
  EXPECT_EQ(cluster_->Json({"status"})["incarnation"], 2);
  ExpectClean({});
}

TEST_F(Meta, AForgottenMetaserverIsKeptOut) {
  std::string kept = WritePattern(cluster_->Path("kept"), kSize, 1);
  ASSERT_EQ(Backup().exit, 0);
  cluster_->Kill("metaserver");
  fs::copy(state_dir(), old_dir(), fs::copy_options::recursive);
  ASSERT_EQ(Restore(backup_, {"--move-aside"}).exit, 0);
  cluster_->StartMissing();
  ASSERT_TRUE(Eventually([&] { return LiveServers() == 3; }));
  // Started again, so that only what is on their disks tells them.
  for (const std::string& server : cluster_->Chunkservers()) cluster_->Kill(server);
  cluster_->Kill("metaserver");

  auto old =
      Process::Start({Program("shoal-metaserver"), "--config", cluster_->dir() + "/etc/metaserver.conf", "--data",
                      old_dir(), "--pid-file", local_.path() + "/old.pid", "--log-file", local_.path() + "/old.log"});
  ASSERT_NE(old, nullptr);
  std::vector<std::unique_ptr<Process>> servers;
  for (const std::string& server : cluster_->Chunkservers()) {
    servers.push_back(
        Process::Start({Program("shoal-chunkserver"), "--config", cluster_->dir() + "/etc/" + server + ".conf"}));
  }
  for (const std::string& server : cluster_->Chunkservers()) {
    EXPECT_TRUE(Eventually([&] {
      return cluster_->Log(server).find("it is not the current one") != std::string::npos;
    })) << cluster_->Log(server);
  }
  EXPECT_EQ(LiveServers(), 0u);
  EXPECT_NE(ReadFile(local_.path() + "/old.log").find("replaced or restored elsewhere, stop it"), std::string::npos);
  old->Signal(SIGTERM);
  old->Wait(Milliseconds(30000));
  for (auto& server : servers) server->Signal(SIGTERM);
  for (auto& server : servers) server->Wait(Milliseconds(30000));
  cluster_->StartMissing();
  Outcome unmounted = cluster_->Shoal({"umount", "--force", cluster_->mount()});
  EXPECT_EQ(unmounted.exit, 0) << unmounted.Text();
  cluster_->StartMissing();
  EXPECT_EQ(Sha256OfFile(cluster_->Path("kept")), kept);
  EXPECT_EQ(cluster_->Json({"status"})["incarnation"], 2);

  // A second restore of the same backup that does not know of the first is told so.
  cluster_->Kill("metaserver");
  fs::remove_all(state_dir());
  ASSERT_EQ(Restore(backup_).exit, 0);
  auto twin = Process::Start({Program("shoal-metaserver"), "--config", cluster_->dir() + "/etc/metaserver.conf"});
  EXPECT_TRUE(Eventually([&] {
    return cluster_->Log("metaserver").find("--incarnation-above 2") != std::string::npos;
  })) << cluster_->Log("metaserver");
  twin->Signal(SIGTERM);
  twin->Wait(Milliseconds(30000));
  fs::remove_all(state_dir());
  ASSERT_EQ(Restore(backup_, {"--incarnation-above", "2"}).exit, 0);
  cluster_->StartMissing();
  EXPECT_EQ(cluster_->Json({"status"})["incarnation"], 3);
}

TEST_F(Meta, ADamagedBackupIsRefusedByName) {
  ASSERT_NE(WritePattern(cluster_->Path("file"), kSize, 1), "");
  ASSERT_EQ(Backup().exit, 0);
  std::string bytes = ReadFile(backup_);
  std::string cut = local_.File("cut", bytes.substr(0, bytes.size() - 100));
  std::string flipped_bytes = bytes;
  flipped_bytes[bytes.size() / 2] ^= 1;
  std::string flipped = local_.File("flipped", flipped_bytes);
  std::string nonsense = local_.File("nonsense", std::string(1000, '?'));
  cluster_->Kill("metaserver");
  for (const std::string& file : {cut, flipped, nonsense}) {
    Outcome checked = cluster_->Shoal({"meta", "check", file});
    EXPECT_EQ(checked.exit, 1) << checked.Text();
    EXPECT_NE(checked.err.find(file), std::string::npos) << checked.Text();
    Outcome restored = Restore(file, {"--move-aside"});
    EXPECT_EQ(restored.exit, 1) << restored.Text();
    EXPECT_NE(restored.err.find(file), std::string::npos) << restored.Text();
  }
  cluster_->StartMissing();  // what was there is there
  EXPECT_EQ(cluster_->Json({"status"})["incarnation"], 1);
  EXPECT_EQ(cluster_->Shoal({"meta", "check", backup_, "--dir", state_dir()}).exit, 2);
  EXPECT_EQ(cluster_->Shoal({"meta", "check", "--mend"}).exit, 2);
  Outcome running = cluster_->Shoal({"meta", "check", "--dir", state_dir()});
  EXPECT_EQ(running.exit, 1) << running.Text();
}

}  // namespace
}  // namespace shoal::test
