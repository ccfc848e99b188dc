#include "metaserver/log_check.h"

#include <gtest/gtest.h>
#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include <filesystem>
#include <fstream>

#include "common/proto/record.pb.h"
#include "metaserver/batch.h"

namespace shoal::meta {
namespace {

namespace fs = std::filesystem;

class LogCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/shoal-logcheck-XXXXXX";
    ASSERT_TRUE(::mkdtemp(name));
    dir_ = name;
  }
  void TearDown() override { fs::remove_all(dir_); }

  leveldb::Status OpenDb(leveldb::DB** db) {
    leveldb::Options options;
    options.create_if_missing = true;
    options.paranoid_checks = true;
    return leveldb::DB::Open(options, dir_, db);
  }
  // Batches with transactions first..count of 10 KiB each; from number `synced` + 1 on they know that `synced` is durable.
  // `skip` is left out; the next one says that it follows `previous`.
  void Write(uint64_t count, uint64_t synced, uint64_t skip = 0, uint64_t first = 1, uint64_t previous = 0) {
    leveldb::DB* db = nullptr;
    ASSERT_TRUE(OpenDb(&db).ok());
    for (uint64_t txn = first; txn <= count; ++txn) {
      if (txn == skip) continue;
      pb::CommitRecord record;
      record.set_txn(txn);
      if (skip != 0 && txn == skip + 1) record.set_previous(previous);
      record.set_durable(txn > synced ? synced : 0);
      leveldb::WriteBatch batch;
      batch.Put("key" + std::to_string(txn), std::string(10000, 'x'));
      PutRecord(&batch, CommitKey(), record);
      ASSERT_TRUE(db->Write(leveldb::WriteOptions(), &batch).ok());
    }
    delete db;
  }
  std::string LogPath() {
    for (const auto& entry : fs::directory_iterator(dir_)) {
      if (entry.path().extension() == ".log") return entry.path();
    }
    return "";
  }
  void Damage(size_t offset, char with = '?') {
    std::fstream file(LogPath(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(with);
  }
  uint64_t LastTxn() {
    leveldb::DB* db = nullptr;
    auto status = OpenDb(&db);
    EXPECT_TRUE(status.ok()) << status.ToString();
    if (!status.ok()) return 0;
    std::string value;
    EXPECT_TRUE(db->Get(leveldb::ReadOptions(), {CommitKey().view().data(), CommitKey().view().size()}, &value).ok());
    delete db;
    pb::CommitRecord record;
    EXPECT_TRUE(record.ParseFromString(value));
    return record.txn();
  }
  std::string dir_;
};

TEST_F(LogCheckTest, GoodLogsStay) {
  EXPECT_TRUE(CheckLogs(dir_ + "/not-there"));
  Write(20, 5);
  auto size = fs::file_size(LogPath());
  EXPECT_TRUE(CheckLogs(dir_));
  EXPECT_EQ(fs::file_size(LogPath()), size);
  EXPECT_EQ(LastTxn(), 20u);
}

TEST_F(LogCheckTest, ADamagedEndThatWasNeverDurableIsCut) {
  Write(20, 5);
  Damage(fs::file_size(LogPath()) - 50);
  std::string log = LogPath();
  Status checked = CheckLogs(dir_);
  ASSERT_TRUE(checked) << ToString(checked.error());
  EXPECT_TRUE(fs::exists(log + ".cut"));
  EXPECT_EQ(LastTxn(), 19u);
}

TEST_F(LogCheckTest, ZerosAtTheEndAreCut) {
  Write(20, 5);
  auto size = fs::file_size(LogPath());
  fs::resize_file(LogPath(), size - 15000);
  fs::resize_file(LogPath(), size + 40000);
  Status checked = CheckLogs(dir_);
  ASSERT_TRUE(checked) << ToString(checked.error());
  EXPECT_EQ(LastTxn(), 18u);
}

TEST_F(LogCheckTest, ACrashInTheMiddleOfAWriteIsNoDamage) {
  Write(20, 5);
  fs::resize_file(LogPath(), fs::file_size(LogPath()) - 100);
  std::string log = LogPath();
  ASSERT_TRUE(CheckLogs(dir_));
  EXPECT_FALSE(fs::exists(log + ".cut"));
  EXPECT_EQ(LastTxn(), 19u);
}

TEST_F(LogCheckTest, DamageBeforeTheDurablePointIsRefused) {
  Write(40, 30);
  Damage(100000);  // in about the tenth batch
  Status checked = CheckLogs(dir_);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(checked.error().message.find("shoal meta check"), std::string::npos);
}

TEST_F(LogCheckTest, DamageBehindTheDurablePointIsCutThere) {
  Write(40, 5);
  Damage(205000);  // in about the twentieth
  Status checked = CheckLogs(dir_);
  ASSERT_TRUE(checked) << ToString(checked.error());
  uint64_t last = LastTxn();
  EXPECT_GE(last, 18u);
  EXPECT_LE(last, 21u);
}

TEST_F(LogCheckTest, DamageInALogThatWasLeftForAnotherIsRefused) {
  Write(20, 5);
  Damage(fs::file_size(LogPath()) - 50);
  const std::string next = dir_ + "/999999.log";
  std::ofstream(next) << "damaged from its first byte on";
  Status checked = CheckLogs(dir_);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ErrorCode::kCorrupt);
  fs::resize_file(next, 0);  // made, but nothing was written to it: the older one need not have been synced
  EXPECT_TRUE(CheckLogs(dir_));
}

// What was before it is in tables.
TEST_F(LogCheckTest, ALogThatIsDamagedFromItsBeginOnIsCutThere) {
  Write(20, 5);
  Write(30, 20, 0, 21);
  Damage(100);
  std::string log = LogPath();
  Status checked = CheckLogs(dir_);
  ASSERT_TRUE(checked) << ToString(checked.error());
  EXPECT_EQ(fs::file_size(log), 0u);
  EXPECT_FALSE(fs::exists(dir_ + ".check"));
  EXPECT_EQ(LastTxn(), 20u);
}

TEST_F(LogCheckTest, ALogThatLostADurableBeginIsRefused) {
  Write(20, 5);
  Write(30, 21, 0, 21);
  Damage(100);
  Status checked = CheckLogs(dir_);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, ErrorCode::kCorrupt);
}

// Deleted, but the directory was not synced: they come back, damaged or with gaps between them.
TEST_F(LogCheckTest, LogsThatAreInTablesDoNotCount) {
  Write(20, 5);
  std::string old = LogPath();
  fs::copy_file(old, dir_ + "/kept");
  Write(40, 25, 0, 21);
  Write(60, 45, 0, 41);
  fs::rename(dir_ + "/kept", old);
  EXPECT_TRUE(CheckLogs(dir_));
  fs::resize_file(old, 100000);
  fs::resize_file(old, 300000);
  EXPECT_TRUE(CheckLogs(dir_));
  EXPECT_EQ(LastTxn(), 60u);
}

// LevelDB had not synced it: the power failed while it wrote it.
TEST_F(LogCheckTest, ADamagedLastRecordOfTheManifestIsCut) {
  Write(20, 5);
  std::string manifest;
  for (const auto& entry : fs::directory_iterator(dir_)) {
    if (entry.path().filename().string().starts_with("MANIFEST")) manifest = entry.path();
  }
  auto size = fs::file_size(manifest);
  std::ofstream(manifest, std::ios::app | std::ios::binary) << std::string("crc!\x20\x00\x01", 7) + std::string(0x20, '?');
  Status checked = CheckLogs(dir_);
  ASSERT_TRUE(checked) << ToString(checked.error());
  EXPECT_EQ(fs::file_size(manifest), size);
  EXPECT_EQ(LastTxn(), 20u);
}

TEST_F(LogCheckTest, FilesThatAreNoLogsAreLeftAlone) {
  Write(20, 5);
  for (const char* name : {".log", "x.log", "1.log2", "99999999999999999999999999.log"}) std::ofstream(dir_ + "/" + name) << name;
  EXPECT_TRUE(CheckLogs(dir_));
}

TEST_F(LogCheckTest, AStepThatIsMeantIsNone) {
  Write(10, 2, 6, 1, 5);
  EXPECT_TRUE(CheckLogs(dir_).has_value());
}

TEST_F(LogCheckTest, AStepFromElsewhereIsAGap) {
  Write(10, 2, 6, 1, 4);
  EXPECT_FALSE(CheckLogs(dir_).has_value());
}

TEST_F(LogCheckTest, AGapIsRefused) {
  Write(20, 5, 12);
  Status checked = CheckLogs(dir_);
  ASSERT_FALSE(checked);
  EXPECT_NE(checked.error().message.find("transaction 13 follows 11"), std::string::npos);
}

}  // namespace
}  // namespace shoal::meta
