// Grants, commits, truncation, drops, inventories, repair and status with scripted chunkservers.
#include <gtest/gtest.h>
#include <linux/falloc.h>

#include "metaserver/chunks/registry.h"
#include "metaserver/chunks/server_ops.h"
#include "tests/unit/metaserver_chunks/fake_cluster.h"

namespace shoal::meta {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// Three servers and a client with a file of one written chunk, 10 MiB long.
class ServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; i++) cluster.AddServer();
    client = &cluster.AddClient();
    inode = client->Create("file");
    extent = Write(0, 10 * kMiB);
  }
  pb::Extent Write(uint64_t index, uint64_t end) {
    auto granted = client->Grant(inode, index);
    EXPECT_TRUE(granted) << ToString(granted.error());
    cluster.Materialize(*granted);
    EXPECT_TRUE(client->Commit(inode, *granted, end));
    return *granted;
  }
  size_t CountOrders(const std::string& part) {
    size_t n = 0;
    cluster.loop.Sync([&] {
      for (auto& s : cluster.servers) {
        for (const auto& order : s->orders) n += order.find(part) != std::string::npos;
      }
    });
    return n;
  }
  bool CopiesBecome(int copies) {
    auto deadline = std::chrono::steady_clock::now() + 20s;
    while (cluster.Chunk(extent.chunk()).replicas_size() != copies) {
      if (std::chrono::steady_clock::now() > deadline) return false;
    }
    return true;
  }
  bool VersionBecomes(uint32_t version) {
    auto deadline = std::chrono::steady_clock::now() + 20s;
    while (cluster.Chunk(extent.chunk()).version() < version) {
      if (std::chrono::steady_clock::now() > deadline) return false;
    }
    return true;
  }
  uint64_t Size() {
    uint64_t size = 0;
    EXPECT_TRUE(cluster.Execute([&](View& view) -> Status {
      TRY_ASSIGN(const pb::InodeRecord* record, view.GetInode(InodeId(inode)));
      size = record ? record->size() : 0;
      return {};
    }));
    return size;
  }

  FakeCluster cluster;
  FakeClient* client = nullptr;
  uint64_t inode = 0;
  pb::Extent extent;
};

TEST_F(ServiceTest, NoGrantBehindTheLargestSize) {
  const uint64_t chunks = kMaxFileSize / kChunkSize;
  EXPECT_TRUE(client->Grant(inode, chunks - 1));
  for (uint64_t index : {chunks, UINT64_MAX}) {
    auto refused = client->Grant(inode, index);
    ASSERT_FALSE(refused) << index;
    EXPECT_EQ(refused.error().code, ErrorCode::kFileTooBig);
  }
}

TEST_F(ServiceTest, ANewProcessTakesNoFirstWritesOfOldGrants) {
  auto granted = client->Grant(inode, 5);
  ASSERT_TRUE(granted);
  FakeServer& server = *cluster.servers[1];
  server.Die();
  server.start_id++;
  server.Connect();
  EXPECT_GT(server.create_floor, granted->lease());
  auto later = client->Grant(inode, 5);
  ASSERT_TRUE(later);
  EXPECT_GT(later->lease(), server.create_floor);
  server.Die();
  server.Connect();  // the same process
  EXPECT_EQ(server.create_floor, 0u);
}

TEST_F(ServiceTest, GrantCommitAndTotals) {
  auto extents = client->Extents(inode);
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_TRUE(extents[0].written());
  EXPECT_EQ(extents[0].lease(), 0u);
  EXPECT_EQ(extents[0].replicas(0).address().empty(), false);
  auto again = client->Grant(inode);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->chunk(), extent.chunk());
  EXPECT_GT(again->lease(), extent.lease());
  EXPECT_EQ(Size(), 10 * kMiB);
  cluster.loop.Sync([&] {
    EXPECT_EQ(cluster.core->context().totals.file_bytes, static_cast<int64_t>(10 * kMiB));
    EXPECT_EQ(cluster.core->context().totals.chunks, 1);
  });
  // A commit never shortens, and one for a chunk that is not there is no error.
  pb::Extent stranger = extent;
  stranger.set_chunk(99);
  auto attr = client->Commit(inode, stranger, 5);
  ASSERT_TRUE(attr);
  EXPECT_EQ(attr->size(), 10 * kMiB);
  EXPECT_GT(attr->allocated_bytes(), 0u);
}

TEST_F(ServiceTest, ACommitOfBytesThatWereCutOffMakesTheFileNoLonger) {
  auto second = client->Grant(inode, 1), third = client->Grant(inode, 2);
  ASSERT_TRUE(second && third);
  ASSERT_TRUE(client->SetSize(inode, 0));
  auto attr = client->Commit(inode, *second, kChunkSize + 5000);
  ASSERT_TRUE(attr);
  EXPECT_EQ(attr->size(), 0u);
  // What was written since counts, as far as it reaches.
  auto first = client->Grant(inode, 0);
  ASSERT_TRUE(first);
  pb::CommitWriteRequest request;
  *request.mutable_caller() = client->caller(true);
  request.set_inode(inode);
  request.set_end(2 * kChunkSize + 7);
  for (const auto& e : {*first, *third}) {
    request.add_written_indices(e.index());
    request.add_chunk_ids(e.chunk());
  }
  ASSERT_TRUE(client->Call<pb::CommitWriteResponse>(pb::COMMIT_WRITE, request));
  EXPECT_EQ(Size(), kChunkSize);
}

TEST_F(ServiceTest, FullServersAreENOSPCAndMissingOnesAreNot) {
  for (auto& s : cluster.servers) {
    s->free = 1000;
    EXPECT_EQ(s->Heartbeat(), ErrorCode::kOk);
  }
  auto full = client->Grant(inode, 1);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kNoSpace);
  EXPECT_TRUE(client->Grant(inode, 0));  // what is there can be written
  for (auto& s : cluster.servers) s->free = 50ull << 30;
  for (auto& s : cluster.servers) EXPECT_EQ(s->Heartbeat(), ErrorCode::kOk);
  cluster.servers[0]->Die();
  auto two = client->Grant(inode, 1);
  ASSERT_TRUE(two) << ToString(two.error());
  EXPECT_EQ(two->replicas_size(), 2);
  cluster.servers[1]->Die();
  auto one = client->Grant(inode, 2);
  ASSERT_FALSE(one);
  EXPECT_EQ(one.error().code, ErrorCode::kNotEnoughServers);
}

TEST_F(ServiceTest, TruncationInsideAChunkCutsThroughTheChain) {
  Write(1, kChunkSize + 5000);
  auto attr = client->SetSize(inode, 7000);
  ASSERT_TRUE(attr) << ToString(attr.error());
  EXPECT_EQ(attr->size(), 7000u);
  EXPECT_EQ(CountOrders("kind 2 at 7000 chain 2"), 1u);
  EXPECT_EQ(client->Extents(inode).size(), 1u);
  EXPECT_TRUE(cluster.Eventually([&] {  // the second chunk's replicas go
    for (auto& s : cluster.servers) {
      if (s->replicas.size() != 1) return false;
    }
    return true;
  }));
  // Growing, and to whole chunks, cuts nothing.
  ASSERT_TRUE(client->SetSize(inode, 3 * kChunkSize));
  ASSERT_TRUE(client->SetSize(inode, 0));
  EXPECT_EQ(CountOrders("kind 2"), 1u);
  EXPECT_TRUE(client->Extents(inode).empty());
  cluster.loop.Sync([&] { EXPECT_EQ(cluster.core->context().totals.chunks, 0); });
}

TEST_F(ServiceTest, ACutThatFailsIsRecoveredAndSentAgain) {
  cluster.server(extent.replicas(0).server()).fail[pb::WRITE_CHUNK] = {ErrorCode::kChainFailed};
  auto attr = client->SetSize(inode, 1);
  ASSERT_TRUE(attr) << ToString(attr.error());
  EXPECT_EQ(CountOrders("kind 2 at 1 "), 1u);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 2u);
}

TEST_F(ServiceTest, ATruncationGoesOnAfterARestart) {
  for (auto& s : cluster.servers) s->ignore.insert(pb::WRITE_CHUNK);
  pb::SetAttrRequest request;
  *request.mutable_caller() = client->caller(true);
  request.set_inode(inode);
  request.set_size(4097);
  request.set_opened_for_write(true);
  auto reply = client->Start(pb::SET_ATTR, request, 60s);
  auto intent_there = [&] {
    bool there = false;
    EXPECT_TRUE(cluster.Execute([&](View& view) -> Status {
      TRY_ASSIGN(const pb::TruncateIntent* intent, view.GetTruncate(InodeId(inode)));
      there = intent != nullptr;
      return {};
    }));
    return there;
  };
  while (!intent_there()) {
  }
  for (auto& s : cluster.servers) s->Die();
  cluster.RestartMeta();
  EXPECT_TRUE(intent_there());
  EXPECT_EQ(Size(), 10 * kMiB);
  for (auto& s : cluster.servers) {
    s->ignore.clear();
    s->Connect();
  }
  client->Connect({inode});
  EXPECT_EQ(client->Extents(inode).size(), 1u);  // waits for the end of the truncation
  EXPECT_EQ(Size(), 4097u);
  EXPECT_FALSE(intent_there());
  EXPECT_EQ(CountOrders("kind 2 at 4097 "), 1u);
}

TEST_F(ServiceTest, ATruncationThatCannotBeCutIsRefusedAndStopsNobody) {
  auto refused = [&](ErrorCode code) {
    auto before = std::chrono::steady_clock::now();
    auto cut = client->SetSize(inode, 7000);
    EXPECT_EQ(cut ? ErrorCode::kOk : cut.error().code, code);
    EXPECT_EQ(client->Extents(inode).size(), 1u);
    EXPECT_LT(std::chrono::steady_clock::now() - before, 3s);
    EXPECT_EQ(Size(), 10 * kMiB);
  };
  for (int i : {1, 2}) cluster.servers[static_cast<size_t>(i)]->Die();
  refused(ErrorCode::kNotEnoughServers);
  cluster.servers[0]->Die();
  cluster.AddServer();
  cluster.AddServer();
  refused(ErrorCode::kUnavailable);
  for (int i : {0, 1}) cluster.servers[static_cast<size_t>(i)]->Connect();
  auto cut = client->SetSize(inode, 7000);
  ASSERT_TRUE(cut) << ToString(cut.error());
  EXPECT_EQ(Size(), 7000u);
}

TEST_F(ServiceTest, DropOrdersComeOnlyWhenTheUnlinkIsDurable) {
  TxnId unlinked;
  bool too_early = false;
  size_t drops = 0;
  for (auto& s : cluster.servers) {
    s->on_order = [&](const std::string& order) {
      if (!order.starts_with("drop")) return;
      drops++;
      too_early |= !unlinked || cluster.core->context().commit->durable() < unlinked;
    };
  }
  pb::UnlinkRequest request;
  *request.mutable_caller() = client->caller(true);
  request.set_parent(kRootInode.value);
  request.set_name("file");
  ASSERT_TRUE(client->Call<pb::UnlinkResponse>(pb::UNLINK, request));
  cluster.loop.Sync([&] { EXPECT_EQ(drops, 0u); });  // it is open
  pb::ReleaseRequest release;
  release.set_session(client->session);
  release.add_inodes(inode);
  cluster.loop.Sync([&] { unlinked = TxnId(cluster.core->context().commit->submitted().value + 1); });
  ASSERT_TRUE(client->Call<pb::ReleaseResponse>(pb::RELEASE, release));
  EXPECT_TRUE(cluster.Eventually([&] { return drops >= 3; }));
  EXPECT_FALSE(too_early);
  for (auto& s : cluster.servers) EXPECT_TRUE(s->replicas.empty());
}

TEST_F(ServiceTest, AServerThatIsAwayGetsItsDropsWhenItIsBackEvenAfterARestart) {
  FakeServer& away = *cluster.servers[0];
  away.Die();
  ASSERT_TRUE(client->SetSize(inode, 0));
  cluster.RestartMeta();
  for (auto& s : cluster.servers) s->Connect();
  EXPECT_TRUE(cluster.Eventually([&] { return away.replicas.empty(); }));
}

TEST_F(ServiceTest, DropsThatFailDoNotHoldUpOthers) {
  FakeServer& s = *cluster.servers[0];
  for (uint64_t chunk = 1; chunk <= 300; chunk++) s.undroppable.insert(chunk);
  ASSERT_TRUE(cluster.Execute([&](View& view) -> Status {
    for (uint64_t chunk = 1; chunk <= 301; chunk++) {
      auto* drop = view.Put<pb::DropRecord>(DropKey(ServerId(s.id), ChunkId(chunk), InstanceId(7)));
      drop->set_server(s.id);
      drop->set_chunk(chunk);
      drop->set_instance(7);
    }
    return {};
  }));
  s.Connect();
  EXPECT_TRUE(cluster.Eventually([&] { return !s.orders.empty() && s.orders.back() == "drop 301 7"; }));
  // Those that failed are tried again.
  cluster.loop.Sync([&] { s.undroppable.clear(); });
  EXPECT_TRUE(cluster.Eventually([&] { return s.orders.size() == 301; }));
}

TEST_F(ServiceTest, InventoryFindsStaleUnknownAndLostReplicas) {
  FakeServer& s = cluster.server(extent.replicas(0).server());
  bool wanted = false;
  ASSERT_EQ(s.Heartbeat(&wanted), ErrorCode::kOk);
  EXPECT_TRUE(wanted);  // after a registration
  EXPECT_EQ(s.SendInventory(), 0);
  ASSERT_EQ(s.Heartbeat(&wanted), ErrorCode::kOk);
  EXPECT_FALSE(wanted);

  s.replicas[123456] = FakeReplica{77, 1, 0, true, false};  // unknown: kept
  EXPECT_EQ(s.SendInventory(), 1);
  EXPECT_TRUE(s.replicas.contains(123456));

  // Another instance of a chunk that is known: dropped. (The fake holds one per chunk: the recorded one is missing
  // then, but the chunk is young, so that alone is not taken for a loss.)
  uint64_t recorded = s.replicas[extent.chunk()].instance;
  s.replicas[extent.chunk()].instance = recorded + 1000;
  EXPECT_EQ(s.SendInventory(), 2);
  EXPECT_TRUE(cluster.Eventually([&] { return !s.replicas.contains(extent.chunk()); }));

  // Missing, and the chunk is old: lost, so it is recovered without it and copied again.
  ASSERT_TRUE(cluster.Execute([&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(ChunkId(extent.chunk())));
    if (record) view.MutableChunk(ChunkId(extent.chunk()))->set_created_ns(1);
    return {};
  }));
  EXPECT_EQ(s.SendInventory(), 2);
  EXPECT_TRUE(cluster.Eventually([&] {
    auto it = s.replicas.find(extent.chunk());
    return it != s.replicas.end() && it->second.instance != recorded && it->second.version > 1;
  }));
  EXPECT_TRUE(CopiesBecome(3));
  EXPECT_TRUE(s.replicas.contains(123456));
}

TEST_F(ServiceTest, InventoryKeepsWhatMayBeTheLastCopy) {
  // A server that has lost its identity comes back as another one.
  FakeServer& lost = cluster.server(extent.replicas(0).server());
  auto replicas = lost.replicas;
  lost.Die();
  FakeServer& found = cluster.AddServer();
  found.replicas = replicas;
  EXPECT_EQ(found.SendInventory(), 1);
  EXPECT_EQ(found.SendInventory(), 1);
  // One that was replaced stays while the others are away.
  for (int i : {1, 2}) cluster.server(extent.replicas(i).server()).Die();
  found.replicas[extent.chunk()].instance += 1000;
  EXPECT_EQ(found.SendInventory(), 1);
  cluster.server(extent.replicas(1).server()).Connect();
  bool ordered = true;
  ASSERT_TRUE(cluster.Execute([&](View& view) -> Status {
    InstanceId stale(found.replicas[extent.chunk()].instance);
    TRY_ASSIGN(const pb::DropRecord* drop,
               view.Get<pb::DropRecord>(DropKey(ServerId(found.id), ChunkId(extent.chunk()), stale)));
    ordered = drop != nullptr;
    return {};
  }));
  EXPECT_FALSE(ordered);
  // Until a good one is back.
  EXPECT_EQ(found.SendInventory(), 1);
  EXPECT_TRUE(cluster.Eventually([&] { return !found.replicas.contains(extent.chunk()); }));
}

TEST_F(ServiceTest, AListThatIsOlderThanARaiseCostsNoReplica) {
  FakeServer& s = cluster.server(extent.replicas(0).server());
  ASSERT_TRUE(client->Report(inode, extent, s.id));
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 2u);
  auto send = [&](uint32_t version) {
    pb::InventoryBucketRequest request;
    request.set_server(s.id);
    request.set_bucket(static_cast<uint32_t>(InventoryBucket(extent.chunk())));
    auto* report = request.add_replicas();
    report->set_chunk(extent.chunk());
    report->set_version(version);
    report->set_instance(extent.replicas(0).instance());
    EXPECT_TRUE(RunOn(cluster.loop, CallTyped<pb::InventoryBucketResponse>(s.connection, pb::INVENTORY_BUCKET, request,
                                                                           Payload(), 20s)));
    return cluster.Chunk(extent.chunk());
  };
  send(1);
  ASSERT_TRUE(client->Grant(inode));  // would wait for a recovery
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 2u);
  EXPECT_EQ(cluster.Chunk(extent.chunk()).replicas_size(), 3);
  // One that can't be read when it is looked at goes, and one that its server knows to be bad.
  cluster.loop.Sync([&] { s.replicas[extent.chunk()].bad = true; });
  send(1);
  EXPECT_TRUE(VersionBecomes(3));
}

TEST_F(ServiceTest, AnInventoryNamesBadReplicas) {
  FakeServer& s = cluster.server(extent.replicas(0).server());
  pb::InventoryBucketRequest request;
  request.set_server(s.id);
  request.set_bucket(static_cast<uint32_t>(InventoryBucket(extent.chunk())));
  auto* report = request.add_replicas();
  report->set_chunk(extent.chunk());
  report->set_version(1);
  report->set_instance(extent.replicas(0).instance());
  report->set_bad(true);
  EXPECT_TRUE(RunOn(cluster.loop, CallTyped<pb::InventoryBucketResponse>(s.connection, pb::INVENTORY_BUCKET, request,
                                                                         Payload(), 20s)));
  EXPECT_TRUE(VersionBecomes(2));
}

TEST_F(ServiceTest, AnInventoryThatWasInterruptedIsAskedForAgain) {
  FakeServer& s = *cluster.servers[0];
  EXPECT_EQ(s.SendInventory(), 0);
  s.replicas[123456] = FakeReplica{77, 1, 0, true, false};
  pb::InventoryDigestRequest digest;
  digest.set_server(s.id);
  for (size_t i = 0; i < kInventoryBuckets; i++) digest.add_digests(1);
  ASSERT_TRUE(RunOn(cluster.loop, CallTyped<pb::InventoryDigestResponse>(s.connection, pb::INVENTORY_DIGEST, digest,
                                                                         Payload(), 20s)));
  bool wanted = false;
  ASSERT_EQ(s.Heartbeat(&wanted), ErrorCode::kOk);
  EXPECT_TRUE(wanted);  // no bucket came
  EXPECT_EQ(s.SendInventory(), 1);
  ASSERT_EQ(s.Heartbeat(&wanted), ErrorCode::kOk);
  EXPECT_FALSE(wanted);
}

TEST_F(ServiceTest, FsyncNamesWhatOthersHaveWritten) {
  FakeClient& other = cluster.AddClient();
  pb::OpenRequest open;
  *open.mutable_caller() = other.caller();
  open.set_inode(inode);
  open.set_flags(2);
  ASSERT_TRUE(other.Call<pb::OpenResponse>(pb::OPEN, open));
  auto fsync = [&](FakeClient& c, std::vector<uint64_t> synced) {
    pb::FsyncRequest request;
    *request.mutable_caller() = c.caller();
    request.set_inode(inode);
    for (uint64_t chunk : synced) request.add_synced_chunks(chunk);
    auto response = c.Call<pb::FsyncResponse>(pb::FSYNC, request);
    EXPECT_TRUE(response) << ToString(response.error());
    return response ? response->remaining_size() : -1;
  };
  EXPECT_EQ(fsync(*client, {extent.chunk()}), 0);
  EXPECT_EQ(fsync(other, {}), 1);  // the first client may still be writing
  EXPECT_EQ(fsync(other, {extent.chunk()}), 0);
  EXPECT_TRUE(cluster.Chunk(extent.chunk()).unsynced());
  // After a restart the mark is still there; when the writer has closed the file, a sync clears it.
  for (auto& s : cluster.servers) s->Die();
  cluster.RestartMeta();
  for (auto& s : cluster.servers) s->Connect();
  client->Connect({});
  other.Connect({inode});
  EXPECT_EQ(fsync(other, {}), 1);
  EXPECT_EQ(fsync(other, {extent.chunk()}), 0);
  EXPECT_FALSE(cluster.Chunk(extent.chunk()).unsynced());
  EXPECT_EQ(fsync(other, {}), 0);
}

TEST_F(ServiceTest, PunchingDropsWholeChunksOnly) {
  Write(1, 2 * kChunkSize);
  Write(2, 3 * kChunkSize);
  auto fallocate = [&](uint32_t mode, uint64_t offset, uint64_t length) {
    pb::FallocateRequest request;
    *request.mutable_caller() = client->caller();
    request.set_inode(inode);
    request.set_mode(mode);
    request.set_offset(offset);
    request.set_length(length);
    auto done = client->Call<pb::AttrResponse>(pb::FALLOCATE, request);
    return done ? ErrorCode::kOk : done.error().code;
  };
  EXPECT_EQ(fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 2 * kChunkSize), ErrorCode::kOk);
  auto extents = client->Extents(inode);
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[1].index(), 2u);
  EXPECT_EQ(Size(), 3 * kChunkSize);
  EXPECT_EQ(fallocate(0, 0, 4 * kChunkSize), ErrorCode::kOk);
  EXPECT_EQ(Size(), 4 * kChunkSize);
  EXPECT_EQ(fallocate(FALLOC_FL_KEEP_SIZE, 0, 5 * kChunkSize), ErrorCode::kOk);
  EXPECT_EQ(Size(), 4 * kChunkSize);
  EXPECT_EQ(fallocate(FALLOC_FL_ZERO_RANGE, 0, 5 * kChunkSize), ErrorCode::kOk);
  EXPECT_EQ(Size(), 5 * kChunkSize);
  EXPECT_TRUE(client->Extents(inode).empty());
  EXPECT_EQ(fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, kChunkSize), ErrorCode::kNotSupported);
}

TEST_F(ServiceTest, ChunksOfAServerThatIsGoneAreCopiedElsewhere) {
  FakeServer& gone = cluster.server(extent.replicas(1).server());
  FakeServer& fourth = cluster.AddServer();
  cluster.options.rereplication_grace = 1s;  // read again at each look
  gone.Die();
  EXPECT_TRUE(cluster.Eventually([&] { return fourth.replicas.contains(extent.chunk()); }));
  EXPECT_TRUE(cluster.Eventually([&] { return fourth.replicas[extent.chunk()].version > 1; }));
  EXPECT_TRUE(CopiesBecome(3));
  pb::ChunkRecord record = cluster.Chunk(extent.chunk());
  for (const auto& r : record.replicas()) EXPECT_NE(r.server(), gone.id);
}

TEST_F(ServiceTest, AReplicaThatGoesLeavesAHigherVersion) {
  pb::CloseSessionRequest close;  // nobody may be writing
  close.set_session(client->session);
  ASSERT_TRUE(client->Call<pb::CloseSessionResponse>(pb::CLOSE_SESSION, close));
  FakeServer& gone = cluster.server(extent.replicas(1).server());
  cluster.AddServer();
  cluster.options.rereplication_grace = 1s;
  gone.Die();
  EXPECT_TRUE(VersionBecomes(2));
  auto record = cluster.Chunk(extent.chunk());
  EXPECT_EQ(record.replicas_size(), 3);
  for (const auto& r : record.replicas()) EXPECT_NE(r.server(), gone.id);
}

TEST_F(ServiceTest, ChunksWithTheFewestCopiesAreRepairedFirst) {
  std::vector<pb::Extent> extents;
  for (uint64_t index = 1; index <= 12; index++) extents.push_back(Write(index, (index + 1) * kChunkSize));
  ChunkId last(extents.back().chunk());
  FakeServer& gone = *cluster.servers[0];
  ASSERT_TRUE(cluster.Execute([&](View& view) -> Status {
    TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(last));
    if (!record) return Fail(ErrorCode::kNotFound);
    auto* replicas = view.MutableChunk(last)->mutable_replicas();
    for (int i = 0; i < replicas->size(); i++) {  // one on the server that goes, one on another
      if (replicas->Get(i).server() == gone.id) continue;
      replicas->DeleteSubrange(i, 1);
      break;
    }
    return {};
  }));
  std::vector<std::string> copies;
  cluster.AddServer();
  for (auto& s : cluster.servers) {
    s->on_order = [&](const std::string& order) {
      if (order.starts_with("replicate")) copies.push_back(order);
    };
  }
  cluster.options.rereplication_grace = 1s;
  gone.Die();
  EXPECT_TRUE(cluster.Eventually([&] { return copies.size() >= 13; }));
  cluster.loop.Sync([&] {
    std::string first = "replicate " + std::to_string(last.value) + " ";
    auto at = std::find_if(copies.begin(), copies.end(), [&](const auto& copy) { return copy.starts_with(first); });
    EXPECT_LT(at - copies.begin(), 4);  // that many are under way at once
    for (auto& s : cluster.servers) s->on_order = nullptr;
  });
}

TEST_F(ServiceTest, StatusAndSpace) {
  pb::StatFsRequest statfs;
  *statfs.mutable_caller() = client->caller();
  auto space = client->Call<pb::StatFsResponse>(pb::STAT_FS, statfs);
  ASSERT_TRUE(space);
  EXPECT_EQ(space->capacity_bytes(), (100ull << 30) - kPlacementReserve);
  EXPECT_EQ(space->copies(), 3u);
  cluster.servers[2]->Die();
  auto status = client->Call<pb::ClusterStatusResponse>(pb::CLUSTER_STATUS, pb::ClusterStatusRequest());
  ASSERT_TRUE(status);
  EXPECT_EQ(status->servers_size(), 3);
  EXPECT_EQ(status->chunks(), 1u);
  EXPECT_EQ(status->chunks_short(), 1u);
  EXPECT_EQ(status->chunks_lost(), 0u);
  EXPECT_EQ(status->min_copies(), 2u);
  pb::StatPathRequest path;
  *path.mutable_caller() = client->caller();
  path.set_path("/file");
  auto stat = client->Call<pb::StatPathResponse>(pb::STAT_PATH, path);
  ASSERT_TRUE(stat) << ToString(stat.error());
  EXPECT_EQ(stat->extents_size(), 1);
  path.set_path("/nothing");
  auto none = client->Call<pb::StatPathResponse>(pb::STAT_PATH, path);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  pb::SyncAllRequest sync;
  *sync.mutable_caller() = client->caller();
  EXPECT_TRUE(client->Call<pb::SyncAllResponse>(pb::SYNC_ALL, sync));
  EXPECT_EQ(CountOrders("sync"), 2u);
}

TEST_F(ServiceTest, SyncAllWaitsForAHungServerOnlyWhileItMayLive) {
  cluster.servers[1]->Freeze();
  pb::SyncAllRequest sync;
  *sync.mutable_caller() = client->caller();
  auto before = std::chrono::steady_clock::now();
  EXPECT_TRUE(client->Call<pb::SyncAllResponse>(pb::SYNC_ALL, sync));
  EXPECT_LT(std::chrono::steady_clock::now() - before, 5s);
  EXPECT_EQ(CountOrders("sync"), 2u);
}

TEST_F(ServiceTest, LocksAreReclaimedAfterARestartBeforeNewOnesAreGiven) {
  FakeClient& other = cluster.AddClient();
  auto lock = [&](FakeClient& c, bool wait) {
    pb::SetLockRequest request;
    *request.mutable_caller() = c.caller();
    request.set_inode(inode);
    request.set_owner(5);
    request.mutable_range()->set_end((uint64_t{1} << 63) - 1);
    request.mutable_range()->set_exclusive(true);
    request.set_wait(wait);
    request.set_wait_id(1);
    return request;
  };
  ASSERT_TRUE(client->Call<pb::SetLockResponse>(pb::SET_LOCK, lock(*client, false)));
  for (auto& s : cluster.servers) s->Die();
  cluster.RestartMeta();
  other.Connect();
  auto waiting = other.Start(pb::SET_LOCK, lock(other, false));
  pb::LockOwnerState held;
  held.set_inode(inode);
  held.set_owner(5);
  *held.mutable_range() = lock(*client, false).range();
  client->Connect({inode}, {held});
  ASSERT_TRUE(cluster.Eventually([&] { return waiting->is_set(); }));
  auto denied = other.Call<pb::SetLockResponse>(pb::SET_LOCK, lock(other, false));
  ASSERT_FALSE(denied);
  EXPECT_EQ(denied.error().code, ErrorCode::kWouldBlock);
  // A wait ends when the holder's session does.
  auto blocked = other.Start(pb::SET_LOCK, lock(other, true));
  pb::CloseSessionRequest close;
  close.set_session(client->session);
  ASSERT_TRUE(client->Call<pb::CloseSessionResponse>(pb::CLOSE_SESSION, close));
  EXPECT_TRUE(cluster.Eventually([&] { return blocked->is_set(); }));
}

}  // namespace
}  // namespace shoal::meta
