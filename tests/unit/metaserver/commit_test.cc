#include "metaserver/commit.h"

#include <gtest/gtest.h>
#include <leveldb/db.h>
#include <leveldb/env.h>
#include <leveldb/write_batch.h>

#include <filesystem>
#include <thread>

#include "metaserver/meta_env.h"

namespace shoal::meta {
namespace {

class CommitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/shoal-commit-XXXXXX";
    ASSERT_TRUE(::mkdtemp(name));
    dir_ = name;
    log_ = std::make_unique<LogTracker>(dir_);
    leveldb::Options options;
    options.create_if_missing = true;
    options.env = log_->env();
    options.write_buffer_size = 64 << 10;  // logs rotate often
    leveldb::DB* db = nullptr;
    auto status = leveldb::DB::Open(options, dir_, &db);
    ASSERT_TRUE(status.ok()) << status.ToString();
    db_.reset(db);
    loop_.Start();
    commit_ = std::make_unique<Commit>(loop_, db_.get(), log_.get(), TxnId(100), 1h);
  }
  void TearDown() override {
    loop_.Sync([this] { commit_.reset(); });
    loop_.Stop();
    db_.reset();
    std::filesystem::remove_all(dir_);
  }
  TxnId Submit(const std::string& key, const std::string& value) {
    TxnId txn;
    loop_.Sync([&] {
      txn = commit_->Next();
      leveldb::WriteBatch batch;
      batch.Put(key, value);
      commit_->Submit(txn, batch);
    });
    return txn;
  }
  Status Wait(TxnId txn, CommitLevel level) { return RunOn(loop_, commit_->Wait(txn, level)); }
  std::string Value(const std::string& key) {
    std::string value;
    return db_->Get(leveldb::ReadOptions(), key, &value).ok() ? value : "none";
  }

  std::string dir_;
  std::unique_ptr<LogTracker> log_;
  std::unique_ptr<leveldb::DB> db_;
  EventLoop loop_{"commit-test"};
  std::unique_ptr<Commit> commit_;
};

TEST_F(CommitTest, LoggedBatchesAreInTheDatabase) {
  TxnId txn = Submit("a", "1");
  EXPECT_EQ(txn, TxnId(101));
  ASSERT_TRUE(Wait(txn, CommitLevel::kLogged));
  EXPECT_EQ(Value("a"), "1");
  loop_.Sync([&] { EXPECT_EQ(commit_->durable(), TxnId(100)); });
}

TEST_F(CommitTest, DurableComesOnDemand) {
  TxnId txn = Submit("a", "1");
  ASSERT_TRUE(Wait(txn, CommitLevel::kDurable));
  loop_.Sync([&] { EXPECT_GE(commit_->durable(), txn); });
}

TEST_F(CommitTest, ManyBatchesKeepTheirOrderAcrossLogRotations) {
  TxnId last;
  for (int i = 0; i < 2000; ++i) last = Submit("key", std::string(200, 'x') + std::to_string(i));
  ASSERT_TRUE(Wait(last, CommitLevel::kDurable));
  EXPECT_EQ(Value("key"), std::string(200, 'x') + "1999");
}

TEST_F(CommitTest, WaitersAreCalledInOrder) {
  std::vector<uint64_t> order;
  loop_.Sync([&] {
    for (int i = 0; i < 10; ++i) {
      TxnId txn = commit_->Next();
      leveldb::WriteBatch batch;
      batch.Put("k", "v");
      commit_->Submit(txn, batch);
    }
    for (uint64_t txn : {105, 103, 110, 101, 107}) {
      commit_->WhenReached(TxnId(txn), CommitLevel::kLogged, [&order, txn](const Status&) { order.push_back(txn); });
    }
  });
  ASSERT_TRUE(Wait(TxnId(110), CommitLevel::kLogged));
  loop_.Sync([&] { EXPECT_EQ(order, (std::vector<uint64_t>{101, 103, 105, 107, 110})); });
}

TEST_F(CommitTest, AFailedSyncMakesEverythingReadOnly) {
  log_->FailSyncsForTest();
  TxnId txn = Submit("a", "1");
  Status waited = Wait(txn, CommitLevel::kDurable);
  ASSERT_FALSE(waited);
  EXPECT_EQ(waited.error().code, ErrorCode::kReadOnly);
  EXPECT_NE(waited.error().message.find("restart the metaserver"), std::string::npos);
  loop_.Sync([&] { EXPECT_FALSE(commit_->health()); });
  TxnId later = Submit("b", "2");
  EXPECT_FALSE(Wait(later, CommitLevel::kLogged));
}

TEST_F(CommitTest, StopWritesWhatIsQueued) {
  TxnId last;
  for (int i = 0; i < 100; ++i) last = Submit("key", std::to_string(i));
  loop_.Sync([&] {
    commit_->Stop();
    EXPECT_EQ(commit_->durable(), last);
  });
  EXPECT_EQ(Value("key"), "99");
}

}  // namespace
}  // namespace shoal::meta
