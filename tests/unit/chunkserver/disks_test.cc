// Data directories: whose they are, and what happens when they fill up or fail.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "chunkserver/store.h"
#include "common/checksum.h"
#include "tests/support/fake_files.h"

namespace shoal {
namespace {

class DirectoriesTest : public testing::Test {
 protected:
  DirectoriesTest() {
    char name[] = "/tmp/shoal-disks-XXXXXX";
    root_ = mkdtemp(name);
  }
  ~DirectoriesTest() override { std::filesystem::remove_all(root_); }
  std::string Make(const std::string& name) {
    std::filesystem::create_directory(root_ + "/" + name);
    return root_ + "/" + name;
  }
  Result<OpenedDisks> Open(std::vector<std::string> paths) {
    std::vector<DataDirectory> directories;
    for (auto& path : paths) directories.push_back({path, 0});
    return OpenDisks(RealFiles(), directories, 0);
  }
  void Mark(const std::string& path, const std::string& server, const std::string& cluster) {
    ASSERT_TRUE(WriteIdentity(RealFiles(), path, {server, cluster}).has_value());
  }
  static std::string Why(const Result<OpenedDisks>& result) { return result ? "opened" : result.error().message; }

  std::string root_;
};

TEST_F(DirectoriesTest, NewOnesBecomeOneServer) {
  std::string a = Make("a"), b = Make("b");
  std::string uuid;
  {
    auto opened = Open({a, b});
    ASSERT_TRUE(opened.has_value()) << Why(opened);
    uuid = opened->identity.server_uuid;
    EXPECT_EQ(uuid.size(), 36u);
    EXPECT_TRUE(opened->identity.cluster_uuid.empty());
    EXPECT_TRUE(std::filesystem::is_directory(a + "/chunks/ff"));
  }
  std::string c = Make("c");
  auto again = Open({a, b, c});
  ASSERT_TRUE(again.has_value()) << Why(again);
  EXPECT_EQ(again->identity.server_uuid, uuid);
}

TEST_F(DirectoriesTest, OfAnotherServerOrClusterAreRefusedByName) {
  std::string a = Make("a"), b = Make("b");
  Mark(a, "server-1", "cluster-1");
  Mark(b, "server-2", "cluster-1");
  auto refused = Open({a, b});
  ASSERT_FALSE(refused.has_value());
  for (const char* word : {"server-1", "server-2"}) EXPECT_NE(Why(refused).find(word), std::string::npos) << Why(refused);
  EXPECT_NE(Why(refused).find(b), std::string::npos);
  Mark(b, "server-1", "cluster-2");
  refused = Open({a, b});
  ASSERT_FALSE(refused.has_value());
  for (const char* word : {"cluster-1", "cluster-2"}) EXPECT_NE(Why(refused).find(word), std::string::npos) << Why(refused);
}

TEST_F(DirectoriesTest, ThisRunOfTheSystemHasANumber) {
  EXPECT_NE(RealFiles().BootId(), 0u);
  EXPECT_EQ(RealFiles().BootId(), RealFiles().BootId());
}

TEST_F(DirectoriesTest, MissingUnreadableForeignOrInUse) {
  EXPECT_EQ(Open({root_ + "/none"}).error().code, ErrorCode::kNotFound);
  std::string a = Make("a");
  std::ofstream(a + "/thesis.txt") << "all of it";
  auto refused = Open({a});
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(Why(refused).find("thesis.txt"), std::string::npos) << Why(refused);
  std::ofstream(root_ + "/file") << "x";
  EXPECT_FALSE(Open({root_ + "/file"}).has_value());

  std::string b = Make("b");
  auto first = Open({b});
  ASSERT_TRUE(first.has_value());
  auto second = Open({b});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_NE(Why(second).find("another chunkserver"), std::string::npos);

  std::string c = Make("c");
  std::ofstream(c + "/identity") << "rubbish";
  EXPECT_EQ(Open({c}).error().code, ErrorCode::kCorrupt);
  std::ofstream(c + "/identity") << "shoal data directory\nformat 9\nserver x\ncluster y\n";
  EXPECT_EQ(Open({c}).error().code, ErrorCode::kNotSupported);

  if (geteuid() != 0) {
    std::string d = Make("d");
    chmod(d.c_str(), 0);
    auto unreadable = Open({d});
    ASSERT_FALSE(unreadable.has_value());
    EXPECT_NE(Why(unreadable).find(d), std::string::npos);
    chmod(d.c_str(), 0755);
  }
}

TEST_F(DirectoriesTest, ReplicasWithoutAnIdentityAreNotANewServers) {
  std::string a = Make("a");
  ASSERT_TRUE(Open({a}).has_value());
  std::filesystem::remove(a + "/identity");
  EXPECT_TRUE(Open({a}).has_value()) << "nothing in it yet";
  std::ofstream(a + "/chunks/07/0000000000000107.0000000000000003") << "x";
  std::filesystem::copy(a + "/identity", root_ + "/kept");
  std::filesystem::remove(a + "/identity");
  auto refused = Open({a});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNotEmpty);
  EXPECT_NE(Why(refused).find("0000000000000107"), std::string::npos) << Why(refused);
  std::filesystem::copy(root_ + "/kept", a + "/identity");
  EXPECT_TRUE(Open({a}).has_value());
}

TEST_F(DirectoriesTest, UnfinishedCopiesGoReplicasAreFound) {
  std::string a = Make("a");
  ASSERT_TRUE(Open({a}).has_value());
  std::ofstream(a + "/tmp/0000000000000001.0000000000000002") << "half";
  std::ofstream(a + "/chunks/07/0000000000000107.0000000000000003") << "x";
  std::ofstream(a + "/chunks/07/0000000000000108.0000000000000003") << "in the wrong place";
  std::ofstream(a + "/chunks/07/notes") << "x";
  auto opened = Open({a});
  ASSERT_TRUE(opened.has_value());
  EXPECT_TRUE(std::filesystem::is_empty(a + "/tmp"));
  auto found = opened->disks[0]->Scan();
  ASSERT_TRUE(found.has_value());
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ((*found)[0].first, ChunkId{0x107});
  EXPECT_TRUE(std::filesystem::exists(a + "/chunks/07/notes")) << "nothing is deleted because it is unknown";
}

class StoreTest : public testing::Test {
 protected:
  void SetUp() override { Start({{"/d", 0}}); }
  void Start(std::vector<DataDirectory> directories) {
    for (auto& d : directories) (void)files_.CreateDirectory(d.path);
    auto opened = OpenDisks(files_, directories, 1 << 20);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    store_ = std::make_unique<ReplicaStore>(std::move(opened->disks), 8, metrics_,
                                            [this](const pb::ReplicaReport& r, const Error&) { bad_.push_back(r.chunk()); });
    store_->SetCluster("c");
    store_->Start();
  }
  // A replica with a file.
  std::shared_ptr<Replica> Make(uint64_t chunk) {
    auto replica = store_->FindOrCreate(ChunkId{chunk}, InstanceId{1}, ChunkVersion{1}, *store_->disks()[0]);
    EXPECT_TRUE(replica.has_value());
    std::unique_lock io((*replica)->io);
    EXPECT_TRUE(store_->CreateFile(*replica).has_value());
    return *replica;
  }
  void Dirty(const std::shared_ptr<Replica>& replica) {
    std::lock_guard lock(replica->mutex);
    ++replica->changes;
    replica->disk.AddDirty(replica);
  }

  test::FakeFiles files_;
  Metrics registry_;
  ChunkMetrics metrics_{registry_};
  std::vector<uint64_t> bad_;
  std::unique_ptr<ReplicaStore> store_;
};

TEST_F(StoreTest, OpenFilesAreBounded) {
  std::vector<std::shared_ptr<Replica>> replicas;
  for (uint64_t c = 1; c <= 40; ++c) replicas.push_back(Make(c));
  int open = 0;
  for (auto& r : replicas) open += r->file != nullptr;
  EXPECT_LE(open, 9);
  for (auto& r : replicas) EXPECT_TRUE(store_->Load(r).has_value());
}

TEST_F(StoreTest, AFileStaysOpenUntilItsWritesAreSynced) {
  std::vector<std::shared_ptr<Replica>> replicas;
  for (uint64_t c = 1; c <= 40; ++c) {
    auto created = store_->FindOrCreate(ChunkId{c}, InstanceId{1}, ChunkVersion{1}, *store_->disks()[0]);
    ASSERT_TRUE(created.has_value());
    replicas.push_back(*created);
    Replica& made = **created;
    made.applying = true;
    ASSERT_TRUE(store_->CreateFile(*created).has_value());
    WriteOperation write;
    write.ranges = {{0, 3}};
    write.payload = Buffer::CopyOf("abc");
    write.checksums = {BlockChecksum("abc", 3)};
    ASSERT_TRUE(made.file->Apply(write, made.disk.intent()).has_value());
    Dirty(replicas.back());
    made.applying = false;
    for (auto& r : replicas) {
      std::lock_guard lock(r->mutex);
      EXPECT_TRUE(r->file || r->changes == r->synced_changes);
    }
  }
  auto open = [&] { return std::count_if(replicas.begin(), replicas.end(), [](auto& r) { return r->file != nullptr; }); };
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  uint64_t next = 100;
  while (open() > 8 && std::chrono::steady_clock::now() < end) Make(next++);
  EXPECT_LE(open(), 8) << "they are synced when there are too many";
}

TEST_F(StoreTest, WhatIsSyncedAndIdleIsCleaned) {
  auto replica = Make(1), reopened = Make(2);
  for (auto& r : {replica, reopened}) {
    Dirty(r);
    ASSERT_TRUE(store_->Sync(r).has_value());
  }
  reopened->file = nullptr;
  Disk& disk = replica->disk;
  store_->CleanIdle(disk, std::chrono::hours(1));
  EXPECT_TRUE(replica->file->dirty_regions().all()) << "not idle for long enough";
  uint64_t before = files_.syncs();
  store_->CleanIdle(disk, {});
  EXPECT_TRUE(replica->file->dirty_regions().none());
  EXPECT_TRUE(reopened->file->dirty_regions().none());
  EXPECT_EQ(files_.syncs() - before, 1u) << "only for the one that was opened again";
  Dirty(replica);
  store_->CleanIdle(disk, {});
  ASSERT_TRUE(store_->Sync(replica).has_value()) << "and so it is the next time";
  EXPECT_TRUE(replica->cleaning);
}

TEST_F(StoreTest, AFailedSyncMakesABadReplicaForEver) {
  auto good = Make(1), broken = Make(2);
  ASSERT_TRUE(store_->SyncAll(good->disk).has_value());
  Dirty(good);
  Dirty(broken);
  files_.fails = [&](const std::string& call, const std::string& path) {
    return call == "sync" && path.find("0000000000000002.") != std::string::npos ? EIO : 0;
  };
  EXPECT_TRUE(store_->Sync(good).has_value());
  EXPECT_FALSE(store_->Sync(broken).has_value());
  EXPECT_EQ(bad_, (std::vector<uint64_t>{2}));
  EXPECT_TRUE(broken->disk.failed());
  EXPECT_TRUE(broken->disk.Report().failed());
  EXPECT_EQ(broken->disk.Available(), 0u) << "nothing new is placed there";
  files_.fails = nullptr;
  EXPECT_FALSE(store_->Sync(broken).has_value()) << "never called again and hoped";
  EXPECT_TRUE(store_->SyncAll(broken->disk).has_value()) << "reported, and nobody else's concern";
  EXPECT_TRUE(store_->Load(good).has_value()) << "what can be read is read";
}

TEST_F(StoreTest, TooManyOpenFilesSaysNothingOfAReplica) {
  auto replica = Make(1);
  Dirty(replica);
  files_.fails = [](const std::string& call, const std::string&) { return call == "sync directory" ? EMFILE : 0; };
  auto refused = store_->Sync(replica);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
  EXPECT_TRUE(bad_.empty());
  EXPECT_FALSE(replica->disk.failed());
  files_.fails = nullptr;
  EXPECT_TRUE(store_->Sync(replica).has_value());
}

TEST_F(StoreTest, SyncAllSyncsAllAndTheirNames) {
  std::vector<std::shared_ptr<Replica>> replicas;
  for (uint64_t c = 1; c <= 100; ++c) {
    replicas.push_back(Make(c));
    Dirty(replicas.back());
  }
  uint64_t before = files_.syncs();
  Disk& disk = replicas[0]->disk;
  ASSERT_TRUE(store_->SyncAll(disk).has_value());
  EXPECT_LT(files_.syncs() - before, 10u) << "many are synced by one call";
  EXPECT_TRUE(disk.DirtyReplicas().empty());
  Dirty(replicas[3]);
  before = files_.syncs();
  ASSERT_TRUE(store_->SyncAll(disk).has_value());
  EXPECT_EQ(files_.syncs() - before, 1u);
  ASSERT_TRUE(store_->Sync(replicas[3]).has_value());
  EXPECT_EQ(files_.syncs() - before, 1u) << "clean";
}

TEST_F(StoreTest, AFirstSyncOfAllThatFailsDoubtsWhatAnEarlierProcessWrote) {
  for (uint64_t c = 1; c <= 3; ++c) Dirty(Make(c));
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(Start({{"/d", 0}}));
  ASSERT_TRUE(store_->Sync(store_->Find(ChunkId{2}, InstanceId{1})).has_value());
  files_.fails = [](const std::string& call, const std::string&) { return call == "sync" ? EIO : 0; };
  Disk& disk = *store_->disks()[0];
  EXPECT_FALSE(store_->SyncAll(disk).has_value());
  EXPECT_TRUE(disk.failed());
  EXPECT_EQ(bad_, (std::vector<uint64_t>{1, 3})) << "not the one that was synced since";
}

TEST_F(StoreTest, DropRemovesExactlyThatInstance) {
  auto replica = Make(5);
  EXPECT_EQ(store_->Find(ChunkId{5}, InstanceId{2}), nullptr);
  EXPECT_EQ(store_->Find(ChunkId{5}, InstanceId{}), replica);
  ASSERT_TRUE(store_->Drop(replica).has_value());
  EXPECT_EQ(store_->Find(ChunkId{5}, InstanceId{1}), nullptr);
  EXPECT_FALSE(store_->Load(replica).has_value());
  for (auto& path : files_.Paths()) EXPECT_EQ(path.find("/d/chunks/05/"), std::string::npos) << path;
}

TEST_F(StoreTest, ADropIsDurable) {
  auto replica = Make(5);
  Dirty(replica);
  ASSERT_TRUE(store_->Sync(replica).has_value());
  ASSERT_TRUE(store_->Drop(replica).has_value());
  files_.PowerCut();
  for (auto& path : files_.Paths()) EXPECT_EQ(path.find("/d/chunks/05/"), std::string::npos) << path;
}

TEST_F(StoreTest, ADropThatIsRepeatedCountsOnce) {
  auto replica = Make(5);
  ASSERT_TRUE(store_->Drop(replica).has_value());
  ASSERT_TRUE(store_->Drop(replica).has_value());
  Make(6);
  EXPECT_EQ(store_->disks()[0]->Report().replicas(), 1u);
}

TEST_F(StoreTest, ADiskThatIsFullTakesNothingNew) {
  files_.capacity = 0;
  store_->disks()[0]->RefreshSpace();
  auto refused = store_->ChooseDisk(0, false);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(store_->disks()[0]->Report().free_bytes(), 0u);
}

TEST_F(StoreTest, FoundAgainAfterARestart) {
  for (uint64_t c = 1; c <= 10; ++c) {
    auto replica = Make(c);
    Dirty(replica);
    ASSERT_TRUE(store_->Sync(replica).has_value());
  }
  auto digests = store_->Digests();
  for (uint64_t offset : {30, 504}) files_.FlipBit("/d/chunks/03/0000000000000003.0000000000000001", offset);
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(Start({{"/d", 0}}));
  while (!store_->inventory_ready()) std::this_thread::yield();
  auto now = store_->Digests();
  for (size_t i = 0; i < 256; ++i) EXPECT_EQ(now[i] == digests[i], i != 3) << i;
  EXPECT_EQ(bad_, (std::vector<uint64_t>{3})) << "its header is bad";
  auto bucket = store_->Bucket(4);
  ASSERT_EQ(bucket.size(), 1u);
  EXPECT_EQ(bucket[0].chunk(), 4u);
  EXPECT_EQ(bucket[0].version(), 1u);
  auto replica = store_->Find(ChunkId{4}, InstanceId{1});
  ASSERT_TRUE(store_->Load(replica).has_value());
  EXPECT_FALSE(replica->order.known());
}

}  // namespace
}  // namespace shoal
