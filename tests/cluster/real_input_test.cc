// Real programs do real work in a mount with three copies of everything.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

constexpr int kTreeFiles = 2500;

// One cluster for all tests of this file: starting one is not what they are about.
class RealInput : public testing::Test {
 protected:
  static void SetUpTestSuite() { cluster_ = Cluster::Start().release(); }
  static void TearDownTestSuite() {
    if (cluster_) {
      EXPECT_EQ(cluster_->Shortage(), "");
    }
    delete cluster_;
  }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }
  static Cluster* cluster_;
};
Cluster* RealInput::cluster_ = nullptr;

#define ASSERT_SHELL(command)                           \
  do {                                                  \
    Outcome outcome_ = Shell(command, Milliseconds(300000)); \
    ASSERT_EQ(outcome_.exit, 0) << command << "\n" << outcome_.Text(); \
  } while (false)

TEST_F(RealInput, TreeOfThousandsOfFiles) {
  TestDirectory local;
  MakeTree(local.path() + "/tree", kTreeFiles);
  ASSERT_SHELL("tar cf " + local.path() + "/tree.tar -C " + local.path() + " tree");
  ASSERT_SHELL("tar xf " + local.path() + "/tree.tar -C " + cluster_->mount());
  ASSERT_SHELL("diff -r --no-dereference " + local.path() + "/tree " + cluster_->Path("tree"));
  ASSERT_SHELL("cp -a " + cluster_->Path("tree") + " " + cluster_->Path("copy"));
  ASSERT_EQ(CountFiles(cluster_->Path("copy")), CountFiles(local.path() + "/tree"));
  ASSERT_EQ(cluster_->Shoal({"sync", cluster_->mount()}).exit, 0);
  EXPECT_EQ(cluster_->Shortage(), "");
  // Nothing of it depends on what the mount or the kernel remembers.
  cluster_->Remount();
  ASSERT_SHELL("diff -r --no-dereference " + local.path() + "/tree " + cluster_->Path("copy"));
  int looked_at = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cluster_->Path("copy"))) {
    if (!entry.is_regular_file() || entry.file_size() == 0) continue;
    EXPECT_EQ(cluster_->Shortage(entry.path(), 3), "") << entry.path();
    if (++looked_at == 20) break;
  }
  EXPECT_EQ(looked_at, 20);
  ASSERT_SHELL("rm -rf " + cluster_->Path("tree") + " " + cluster_->Path("copy"));
}

TEST_F(RealInput, GitCloneFsckAndBuild) {
  TestDirectory local;
  std::string origin = local.path() + "/origin", clone = cluster_->Path("clone");
  std::string git = "git -c safe.directory='*' -c user.name=t -c user.email=t@example.org ";
  ASSERT_SHELL("mkdir " + origin + " && cd " + SHOAL_SOURCE + " && tar cf - --exclude=.git --exclude='build*' --exclude='shoal-dev*' . | tar xf - -C " + origin + " && find " + origin + " -type d -empty -delete");
  ASSERT_SHELL("cd " + origin + " && " + git + "init -q . && " + git + "add -A && " + git + "commit -q -m 'all of it'");
  for (int i = 0; i < 5; ++i) {
    ASSERT_SHELL("cd " + origin + " && echo " + std::to_string(i) + " >> README.md && " + git + "commit -q -a -m change");
  }
  ASSERT_SHELL(git + "clone -q file://" + origin + " " + clone);
  ASSERT_SHELL("cd " + clone + " && " + git + "fsck --full --strict 2>&1");
  ASSERT_SHELL("cd " + clone + " && test -z \"$(" + git + "status --porcelain)\" && test $(" + git + "rev-list --count HEAD) = 6");
  ASSERT_SHELL("cd " + clone + " && " + git + "repack -q -a -d && " + git + "gc -q && " + git + "fsck --full");
  ASSERT_SHELL("cd " + clone + "/tests/cluster/program && cmake -B build -G Ninja -DCMAKE_BUILD_TYPE=Debug >/dev/null && ninja -C build");
  Outcome words = RunProgram({clone + "/tests/cluster/program/build/words", clone + "/LICENSE"});
  EXPECT_EQ(words.exit, 0) << words.Text();
  EXPECT_NE(words.out.find(" words, "), std::string::npos) << words.out;
  ASSERT_SHELL("diff -r --exclude=.git --exclude=build " + origin + " " + clone);
}

// A connection that fails the test on errors. One thread.
class Database {
 public:
  Database(const std::string& path, const std::string& journal) {
    EXPECT_EQ(sqlite3_open(path.c_str(), &db_), SQLITE_OK);
    sqlite3_busy_timeout(db_, 60000);
    EXPECT_EQ(Value("PRAGMA journal_mode=" + journal), journal);
  }
  ~Database() { sqlite3_close(db_); }
  void Do(const std::string& sql) {
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << sql << ": " << (error ? error : "");
    sqlite3_free(error);
  }
  std::string Value(const std::string& sql) {
    std::string value;
    auto take = [](void* into, int columns, char** values, char**) {
      if (columns && values[0]) *static_cast<std::string*>(into) = values[0];
      return 0;
    };
    EXPECT_EQ(sqlite3_exec(db_, sql.c_str(), take, &value, nullptr), SQLITE_OK) << sql;
    return value;
  }

 private:
  sqlite3* db_ = nullptr;
};

TEST_F(RealInput, SqliteWithRollbackJournalAndWal) {
  for (const std::string journal : {"delete", "wal"}) {
    std::string path = cluster_->Path(journal + ".db"), rows;
    {
      Database first(path, journal), second(path, journal);
      first.Do("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB); CREATE INDEX by_name ON t(name)");
      for (int i = 0; i < 20; ++i) {
        Database& writer = i % 2 ? first : second;
        Database& reader = i % 2 ? second : first;
        writer.Do("BEGIN IMMEDIATE");
        for (int j = 0; j < 50; ++j) {
          writer.Do("INSERT INTO t(name, data) VALUES('name " + std::to_string(i * 1000 + j) + "', randomblob(" + std::to_string(50 + j * 37) + "))");
        }
        writer.Do("DELETE FROM t WHERE id % 17 = " + std::to_string(i % 17));
        EXPECT_NE(reader.Value("SELECT count(*) FROM t"), writer.Value("SELECT count(*) FROM t"));
        writer.Do(i % 5 == 4 ? "ROLLBACK" : "COMMIT");
        EXPECT_EQ(reader.Value("SELECT count(*) FROM t"), writer.Value("SELECT count(*) FROM t"));
      }
      first.Do("UPDATE t SET data = randomblob(3000) WHERE id % 3 = 0");
      EXPECT_EQ(second.Value("PRAGMA integrity_check"), "ok");
      rows = second.Value("SELECT count(*) FROM t");
      EXPECT_GT(std::stoi(rows), 100);
    }
    Outcome check = RunProgram({"sqlite3", path, "PRAGMA integrity_check; SELECT count(*) FROM t;"});
    EXPECT_EQ(check.out, "ok\n" + rows + "\n") << check.Text();
  }
  cluster_->Remount();
  for (const std::string journal : {"delete", "wal"}) {
    Outcome check = RunProgram({"sqlite3", cluster_->Path(journal + ".db"), "PRAGMA integrity_check;"});
    EXPECT_EQ(check.out, "ok\n") << check.Text();
  }
}

TEST_F(RealInput, FileOfFiveChunks) {
  std::string path = cluster_->Path("large");
  constexpr size_t kSize = (4ull * 64 + 44) << 20;
  std::string sum = WritePattern(path, kSize + 12345, 42);
  ASSERT_NE(sum, "");
  EXPECT_EQ(Sha256OfFile(path), sum);
  nlohmann::json stat = cluster_->Json({"stat", path});
  ASSERT_EQ(stat["size_bytes"], kSize + 12345);
  ASSERT_EQ(stat["chunks"].size(), 5u);
  EXPECT_EQ(cluster_->Shortage(path, 3), "");
  cluster_->Remount();
  EXPECT_EQ(Sha256OfFile(path), sum);
  ASSERT_SHELL("cp " + path + " " + path + ".copy && cmp " + path + " " + path + ".copy");
  EXPECT_EQ(cluster_->Shoal({"sync", cluster_->mount()}).exit, 0);
  EXPECT_EQ(cluster_->Shortage(path + ".copy", 3), "");
}

}  // namespace
}  // namespace shoal::test
