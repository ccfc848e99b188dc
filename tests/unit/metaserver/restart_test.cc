// What a metaserver finds again after it was stopped or killed.
#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include <fstream>

#include "metaserver/batch.h"
#include "metaserver/dentry.h"
#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

class RestartTest : public ::testing::Test {
 protected:
  Harness h;
  Names fs{h};
};

TEST_F(RestartTest, EverythingIsThere) {
  h.Start();
  uint64_t dir = fs.Mkdir(kRoot, "dir")->inode();
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(fs.Create(dir, "f" + std::to_string(i)));
  auto before = fs.Lookup(dir, "f42");
  std::string uuid = h.context().rpc.cluster_uuid;
  TxnId txn;
  h.loop().Sync([&] { txn = h.context().commit->submitted(); });
  h.CrashAndRestart();
  EXPECT_EQ(h.context().rpc.cluster_uuid, uuid);
  EXPECT_GE(h.context().rpc.txn.load(), txn.value);
  EXPECT_EQ(fs.Lookup(dir, "f42")->SerializeAsString(), before->SerializeAsString());
  EXPECT_EQ(fs.List(dir).size(), 100u);
  h.loop().Sync([&] { EXPECT_EQ(h.context().totals.inodes, 102); });
  h.Restart();
  EXPECT_EQ(fs.List(dir).size(), 100u);
}

TEST_F(RestartTest, IdsAreNeverGivenTwice) {
  h.Start();
  uint64_t highest = 0;
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 10; ++i) {
      uint64_t id = fs.Create(kRoot, std::to_string(round) + "-" + std::to_string(i))->inode();
      EXPECT_GT(id, highest);
      highest = id;
    }
    h.CrashAndRestart();
  }
}

TEST_F(RestartTest, PendingReapsGoOn) {
  h.Start();
  uint64_t inode = fs.Create(kRoot, "big")->inode();
  auto made = h.Execute([&](View& view) -> Status {
    TRY(view.GetInode(InodeId(inode)));
    for (uint64_t i = 0; i < 60; ++i) {
      TRY(h.fake->AddExtent(view, InodeId(inode), i));
    }
    return {};
  });
  ASSERT_TRUE(made);
  // As if the server had died right after the unlink: the record is there, and nothing was dropped.
  auto forgotten = h.Execute([&](View& view) -> Status {
    TRY_ASSIGN(Dentry entry, FindDentry(view, kRootInode, "big"));
    RemoveDentry(view, kRootInode, "big");
    view.Put<pb::ReapRecord>(ReapKey(InodeId(inode)))->set_extents(60);
    view.Delete(InodeKey(entry.inode));
    return {};
  });
  ASSERT_TRUE(forgotten);
  h.CrashAndRestart();
  h.WaitReaped();
  h.loop().Sync([&] { EXPECT_EQ(h.context().totals.chunks, 0); });
}

TEST_F(RestartTest, OneProcessAtATime) {
  h.Start();
  Metrics metrics;
  RpcContext rpc;
  Dispatcher dispatcher;
  EventLoop loop("second");
  loop.Start();
  Core second(loop, h.options, metrics, rpc, dispatcher);
  Status started = second.Start([](MetaContext& context) { return std::make_unique<FakeChunks>(context); });
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::kBusy);
  EXPECT_NE(started.error().message.find(h.options.data_dir), std::string::npos);
  loop.Stop();
}

TEST_F(RestartTest, ANewerFormatIsRefusedByName) {
  h.Start();
  h.Stop();
  {
    leveldb::DB* db = nullptr;
    ASSERT_TRUE(leveldb::DB::Open(leveldb::Options(), h.options.data_dir + "/db", &db).ok());
    pb::ClusterRecord cluster;
    cluster.set_format(kFormat + 1);
    leveldb::WriteBatch batch;
    PutRecord(&batch, ClusterKeyOf(), cluster);
    ASSERT_TRUE(db->Write(leveldb::WriteOptions(), &batch).ok());
    delete db;
  }
  Status started = h.TryStart();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::kNotSupported);
  EXPECT_NE(started.error().message.find("format 2"), std::string::npos) << started.error().message;
}

TEST_F(RestartTest, AnotherProgramsDirectoryIsRefused) {
  std::filesystem::create_directories(h.options.data_dir);
  std::ofstream(h.options.data_dir + "/precious.txt") << "data";
  Status started = h.TryStart();
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().message.find("precious.txt"), std::string::npos);
}

TEST_F(RestartTest, AnotherClustersDirectoryIsRefused) {
  h.Start();
  h.Stop();
  h.options.cluster_uuid = "11111111-2222-3333-4444-555555555555";
  Status started = h.TryStart();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::kWrongCluster);
}

}  // namespace
}  // namespace shoal::meta
