#include "metaserver/store.h"

#include <gtest/gtest.h>
#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include <filesystem>

#include "common/proto/record.pb.h"
#include "metaserver/batch.h"

namespace shoal::meta {
namespace {

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/shoal-store-XXXXXX";
    ASSERT_TRUE(::mkdtemp(name));
    dir_ = name;
    leveldb::Options options;
    options.create_if_missing = true;
    leveldb::DB* db = nullptr;
    ASSERT_TRUE(leveldb::DB::Open(options, dir_ + "/db", &db).ok());
    db_.reset(db);
    loop_.Start();
    Reopen(64 << 20);
  }
  void TearDown() override {
    if (store_) store_->Stop();
    loop_.Sync([this] { store_.reset(); });
    loop_.Stop();
    db_.reset();
    std::filesystem::remove_all(dir_);
  }
  void Reopen(size_t cache_bytes) {
    if (store_) store_->Stop();
    loop_.Sync([this] { store_.reset(); });
    store_ = std::make_unique<Store>(loop_, db_.get(), Store::Options{.cache_bytes = cache_bytes}, metrics_);
  }

  static std::unique_ptr<Message> Inode(uint64_t size) {
    auto inode = std::make_unique<pb::InodeRecord>();
    inode->set_size(size);
    return inode;
  }
  // As the commit thread would.
  void WriteToDb(const Key& key, uint64_t size) {
    leveldb::WriteBatch batch;
    PutRecord(&batch, key, *Inode(size));
    ASSERT_TRUE(db_->Write(leveldb::WriteOptions(), &batch).ok());
  }
  void Apply(TxnId txn, const Key& key, std::unique_ptr<Message> record) {
    std::vector<RecordChange> changes;
    changes.push_back({key, std::move(record)});
    loop_.Sync([&] { store_->Apply(txn, std::move(changes)); });
  }
  void Logged(TxnId txn) {
    loop_.Sync([&] { store_->Logged(txn); });
  }
  // -2: cold, -1: absent, else the size.
  int64_t Look(const Key& key) {
    int64_t size = -2;
    loop_.Sync([&] {
      const StoreEntry* entry = store_->Find(key);
      if (!entry) return;
      size = entry->record ? static_cast<const pb::InodeRecord&>(*entry->record).size() : -1;
    });
    return size;
  }
  Status Fetch(const Key& key) {
    std::vector<ColdKey> keys = {{key, &pb::InodeRecord::default_instance()}};
    return RunOn(loop_, store_->Fetch(std::move(keys)));
  }
  std::vector<std::pair<uint64_t, uint64_t>> Scan(Store::ScanOptions options, Key* next = nullptr) {
    auto result = RunOn(loop_, store_->Scan(std::move(options)));
    CHECK(result.has_value());
    std::vector<std::pair<uint64_t, uint64_t>> found;
    for (const auto& record : result->records) {
      pb::InodeRecord inode;
      CHECK(inode.ParseFromString(record.value));
      found.emplace_back(record.key.number(0), inode.size());
    }
    if (next) *next = result->next;
    return found;
  }
  static Store::ScanOptions AllInodes() {
    Store::ScanOptions options;
    options.start = Key(KeyKind::kInode);
    options.end = options.start.PrefixEnd();
    return options;
  }

  std::string dir_;
  std::unique_ptr<leveldb::DB> db_;
  EventLoop loop_{"store-test"};
  Metrics metrics_;
  std::unique_ptr<Store> store_;
};

const Key kOne = InodeKey(InodeId(1)), kTwo = InodeKey(InodeId(2)), kThree = InodeKey(InodeId(3));

TEST_F(StoreTest, ColdThenWarm) {
  WriteToDb(kOne, 11);
  EXPECT_EQ(Look(kOne), -2);
  ASSERT_TRUE(Fetch(kOne));
  EXPECT_EQ(Look(kOne), 11);
  ASSERT_TRUE(Fetch(kTwo));
  EXPECT_EQ(Look(kTwo), -1);
}

TEST_F(StoreTest, ChangesAreSeenBeforeTheyAreLogged) {
  WriteToDb(kOne, 11);
  Apply(TxnId(1), kOne, Inode(12));
  EXPECT_EQ(Look(kOne), 12);
  Apply(TxnId(2), kOne, nullptr);
  EXPECT_EQ(Look(kOne), -1);
}

TEST_F(StoreTest, UnloggedChangesAreNotEvicted) {
  Reopen(1);  // as small as can be
  for (uint64_t i = 0; i < 5000; ++i) Apply(TxnId(i + 1), InodeKey(InodeId(i + 1)), Inode(i));
  for (uint64_t i = 0; i < 5000; ++i) ASSERT_EQ(Look(InodeKey(InodeId(i + 1))), static_cast<int64_t>(i));
  Logged(TxnId(5000));
  EXPECT_LT(store_->cached_records(), 2000u);
}

TEST_F(StoreTest, AReadThatCrossesAChangeDoesNotBringBackTheOldRecord) {
  WriteToDb(kOne, 11);
  std::vector<ColdKey> keys = {{kOne, &pb::InodeRecord::default_instance()}};
  Task<Status> fetch = store_->Fetch(std::move(keys));
  std::promise<void> fetched;
  auto run = [](Task<Status> task, std::promise<void>* done) -> Task<void> {
    Status status = co_await task;
    CHECK(status.has_value());
    done->set_value();
  };
  TaskGroup group(loop_);
  loop_.Sync([&] {
    group.Spawn(run(std::move(fetch), &fetched));
    // The answer of the pool can only come after this.
    std::vector<RecordChange> changes;
    changes.push_back({kOne, Inode(12)});
    store_->Apply(TxnId(1), std::move(changes));
    store_->Logged(TxnId(1));
    store_->DropCacheForTest();
  });
  fetched.get_future().wait();
  EXPECT_EQ(Look(kOne), -2);  // not the old one
  Task<void> join = group.Join();
  RunOn(loop_, std::move(join));
}

TEST_F(StoreTest, WhatHangsOnANewInodeIsKnownToBeAbsent) {
  loop_.Sync([&] { store_->MarkFresh(KeyKind::kInode, 7); });
  const Key extent = ExtentKey(InodeId(7), 3);
  EXPECT_EQ(Look(extent), -1);
  EXPECT_EQ(Look(ExtentKey(InodeId(8), 3)), -2);
  EXPECT_EQ(Look(DentryKey(InodeId(7), 0x100)), -1);
  Apply(TxnId(1), extent, Inode(5));
  EXPECT_EQ(Look(extent), 5);
  WriteToDb(extent, 5);
  Logged(TxnId(1));
  loop_.Sync([&] { store_->DropCacheForTest(); });
  EXPECT_EQ(Look(extent), -2) << "an evicted record must be read again";
}

TEST_F(StoreTest, ScansSeeChangesThatAreNotLogged) {
  WriteToDb(kOne, 1);
  WriteToDb(kTwo, 2);
  Apply(TxnId(1), kOne, nullptr);
  Apply(TxnId(2), kTwo, Inode(22));
  Apply(TxnId(3), kThree, Inode(33));
  using Found = std::vector<std::pair<uint64_t, uint64_t>>;
  EXPECT_EQ(Scan(AllInodes()), (Found{{2, 22}, {3, 33}}));
}

TEST_F(StoreTest, ScansGoOnWhereTheyStopped) {
  for (uint64_t i = 1; i <= 10; ++i) WriteToDb(InodeKey(InodeId(i)), i);
  Apply(TxnId(1), InodeKey(InodeId(11)), Inode(11));
  Store::ScanOptions options = AllInodes();
  options.max_records = 3;
  uint64_t expected = 1;
  while (true) {
    Key next;
    for (const auto& [id, size] : Scan(options, &next)) {
      EXPECT_EQ(id, expected++);
    }
    if (next.empty()) break;
    options.start = next;
  }
  EXPECT_EQ(expected, 12u);
}

TEST_F(StoreTest, ScansLookAtABoundedNumberOfRecords) {
  for (uint64_t i = 1; i <= 100; ++i) WriteToDb(InodeKey(InodeId(i)), i);
  Store::ScanOptions options = AllInodes();
  options.max_steps = 40;
  options.filter = [](const Key& key, std::string_view) { return key.number(0) == 95; };
  Key next;
  EXPECT_TRUE(Scan(options, &next).empty());
  ASSERT_FALSE(next.empty());
  options.start = next;
  EXPECT_TRUE(Scan(options, &next).empty());
  options.start = next;
  EXPECT_EQ(Scan(options, &next).size(), 1u);
  EXPECT_TRUE(next.empty());
}

}  // namespace
}  // namespace shoal::meta
