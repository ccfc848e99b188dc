// Lost data is called lost; FSCK and SCRUB with scripted chunkservers.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "metaserver/chunk_hooks.h"
#include "tests/unit/metaserver_chunks/fake_cluster.h"

namespace shoal::meta {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// Three servers and a client with a file of one written chunk, 10 MiB long, which nobody has open.
class CheckTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; i++) cluster.AddServer(i == 2 ? "b" : "a");
    client = &cluster.AddClient();
    inode = client->Create("file");
    extent = Write(inode, 0, 10 * kMiB);
  }
  pb::Extent Write(uint64_t file, uint64_t index, uint64_t end) {
    auto granted = client->Grant(file, index);
    EXPECT_TRUE(granted) << ToString(granted.error());
    cluster.Materialize(*granted);
    EXPECT_TRUE(client->Commit(file, *granted, end));
    return *granted;
  }
  // The writer has synced what it wrote: nobody may be writing then.
  void Quiet() {
    EXPECT_TRUE(cluster.Execute([&](View& view) -> Status {
      TRY_ASSIGN(const pb::ChunkRecord* record, view.GetChunk(ChunkId(extent.chunk())));
      if (record) view.MutableChunk(ChunkId(extent.chunk()))->clear_writers();
      return {};
    }));
  }
  FakeReplica& Replica(int i) { return cluster.server(extent.replicas(i).server()).replicas[extent.chunk()]; }
  void Change(int i, std::function<void(FakeReplica&)> change) {
    cluster.loop.Sync([&] { change(Replica(i)); });
  }
  void ReportBad(int i) {
    FakeServer& server = cluster.server(extent.replicas(i).server());
    pb::ReportBadReplicaRequest report;
    report.set_server(server.id);
    report.mutable_replica()->set_chunk(extent.chunk());
    report.mutable_replica()->set_version(1);
    report.mutable_replica()->set_instance(extent.replicas(i).instance());
    report.mutable_replica()->set_bad(true);
    cluster.loop.Sync([&] {
      server.fail[pb::FREEZE_REPLICA] = {ErrorCode::kCorrupt, ErrorCode::kCorrupt, ErrorCode::kCorrupt};
    });
    auto done = RunOn(cluster.loop, CallTyped<pb::ReportBadReplicaResponse>(server.connection, pb::REPORT_BAD_REPLICA,
                                                                            report, Payload(), 5s));
    ASSERT_TRUE(done) << ToString(done.error());
  }
  pb::ClusterStatusResponse Status_() {
    auto status = client->Call<pb::ClusterStatusResponse>(pb::CLUSTER_STATUS, pb::ClusterStatusRequest());
    EXPECT_TRUE(status);
    return status ? *status : pb::ClusterStatusResponse();
  }
  template <typename F>
  bool Until(F&& condition) {
    auto deadline = std::chrono::steady_clock::now() + 20s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
    }
    return true;
  }
  // All parts of an FSCK, with their files together.
  pb::FsckResponse Fsck(const std::string& path) {
    pb::FsckRequest request;
    request.mutable_walk()->set_path(path);
    google::protobuf::RepeatedPtrField<pb::CheckedFile> files;
    for (uint64_t page = 1;; page++) {
      auto answer = client->Call<pb::FsckResponse>(pb::FSCK, request);
      EXPECT_TRUE(answer) << ToString(answer.error());
      if (!answer) return {};
      auto again = client->Call<pb::FsckResponse>(pb::FSCK, WithRun(request, answer->run()));
      EXPECT_TRUE(again && again->SerializeAsString() == answer->SerializeAsString())
          << "the same page, another answer";
      files.MergeFrom(answer->files());
      request.mutable_walk()->set_run(answer->run());
      request.mutable_walk()->set_page(page);
      if (!answer->done()) continue;
      answer->mutable_files()->Swap(&files);
      return *answer;
    }
  }
  static pb::FsckRequest WithRun(pb::FsckRequest request, uint64_t run) {
    request.mutable_walk()->set_run(run);
    return request;
  }
  pb::ScrubResponse Scrub(bool wait_for_repair = true) {
    pb::ScrubRequest request;
    pb::ScrubResponse last;
    uint64_t page = 0;
    do {
      auto answer = client->Call<pb::ScrubResponse>(pb::SCRUB, request);
      EXPECT_TRUE(answer) << ToString(answer.error());
      if (!answer) return last;
      auto findings = last.findings();
      findings.MergeFrom(answer->findings());
      last = *answer;
      last.mutable_findings()->Swap(&findings);
      request.mutable_walk()->set_run(last.run());
      request.mutable_walk()->set_page(++page);
    } while (!last.done());
    request.set_repairs(true);
    EXPECT_TRUE(!wait_for_repair || Until([&] {
      auto answer = client->Call<pb::ScrubResponse>(pb::SCRUB, request);
      if (!answer) return false;
      *last.mutable_findings() = answer->findings();
      return std::ranges::all_of(last.findings(), [](const auto& f) { return f.repaired(); });
    })) << last.DebugString();
    return last;
  }
  bool InRecord(int i) {
    pb::ChunkRecord record = cluster.Chunk(extent.chunk());
    return std::ranges::any_of(record.replicas(),
                               [&](const auto& r) { return r.instance() == extent.replicas(i).instance(); });
  }

  FakeCluster cluster;
  FakeClient* client = nullptr;
  uint64_t inode = 0;
  pb::Extent extent;
};

TEST_F(CheckTest, WhatHasNoGoodCopyIsLostAndNamed) {
  for (int i = 0; i < 3; i++) ReportBad(i);
  ASSERT_TRUE(Until([&] { return Status_().chunks_lost() == 1; })) << Status_().DebugString();
  EXPECT_TRUE(Until([&] { return Status_().troubled_size() == 1 && Status_().troubled(0).path() == "file"; }));
  pb::ClusterStatusResponse status = Status_();
  EXPECT_EQ(status.chunks_short(), 0u);
  EXPECT_EQ(status.chunks_unavailable(), 0u);
  EXPECT_EQ(status.files_lost(), 1u);
  EXPECT_EQ(status.troubled(0).safety(), pb::LOST);
  cluster.loop.Sync([&] { EXPECT_FALSE(cluster.core->context().chunks->Health()); });
  pb::StatPathRequest path;
  path.set_path("/file");
  auto stat = client->Call<pb::StatPathResponse>(pb::STAT_PATH, path);
  ASSERT_TRUE(stat);
  ASSERT_EQ(stat->health_size(), 1);
  EXPECT_EQ(stat->health(0).safety(), pb::LOST);
  for (const auto& replica : stat->health(0).replicas()) EXPECT_EQ(replica.state(), "bad");
  pb::FsckResponse fsck = Fsck("");
  ASSERT_EQ(fsck.files_size(), 1);
  EXPECT_EQ(fsck.files(0).path(), "file");
  ASSERT_EQ(fsck.files(0).ranges_size(), 1);
  EXPECT_EQ(fsck.files(0).ranges(0).offset(), 0u);
  EXPECT_EQ(fsck.files(0).ranges(0).length(), 10 * kMiB);
  // A deleted file is no loss.
  pb::UnlinkRequest unlink;
  *unlink.mutable_caller() = client->caller(true);
  unlink.set_parent(kRootInode.value);
  unlink.set_name("file");
  ASSERT_TRUE(client->Call<pb::UnlinkResponse>(pb::UNLINK, unlink));
  EXPECT_EQ(Status_().chunks_lost(), 0u);
  EXPECT_EQ(Fsck("").totals().files(), 0u);
}

TEST_F(CheckTest, WhatIsOnlyOnAbsentServersIsUnavailable) {
  ReportBad(0);
  for (int i = 1; i < 3; i++) cluster.server(extent.replicas(i).server()).Die();
  ASSERT_TRUE(Until([&] { return Status_().chunks_unavailable() == 1; })) << Status_().DebugString();
  EXPECT_EQ(Status_().chunks_lost(), 0u);
  cluster.loop.Sync([&] { EXPECT_TRUE(cluster.core->context().chunks->Health()); });
  pb::FsckResponse fsck = Fsck("file");
  ASSERT_EQ(fsck.files_size(), 1);
  EXPECT_EQ(fsck.files(0).path(), "");
  EXPECT_EQ(fsck.files(0).safety(), pb::UNAVAILABLE);
}

TEST_F(CheckTest, FsckSaysHowManyFailuresAFileSurvives) {
  EXPECT_EQ(Fsck("").totals().files_by_safety(pb::SAFE), 1u);
  for (auto& s : cluster.servers) {
    if (s->rack == "b") s->Die();
  }
  ASSERT_TRUE(Until([&] { return Status_().chunks_short() == 1; }));
  EXPECT_EQ(Fsck("").files(0).safety(), pb::SHORT);  // of the racks that are there one is left
  cluster.servers[0]->Die();
  ASSERT_TRUE(Until([&] { return Fsck("").files(0).safety() == pb::SHORT_SERVER; }));
}

TEST_F(CheckTest, FsckWalksInPartsAndCountsEachFileOnce) {
  auto mkdir = [&](uint64_t parent, const std::string& name) {
    pb::MkdirRequest request;
    *request.mutable_caller() = client->caller(true);
    request.set_parent(parent);
    request.set_name(name);
    request.set_mode(0755);
    auto made = client->Call<pb::AttrResponse>(pb::MKDIR, request);
    EXPECT_TRUE(made);
    return made ? made->attr().inode() : 0;
  };
  auto link = [&](uint64_t file, uint64_t parent, const std::string& name) {
    pb::LinkRequest request;
    *request.mutable_caller() = client->caller(true);
    request.set_inode(file);
    request.set_new_parent(parent);
    request.set_new_name(name);
    EXPECT_TRUE(client->Call<pb::AttrResponse>(pb::LINK, request));
  };
  uint64_t a = mkdir(kRootInode.value, "a"), b = mkdir(a, std::string("\xff\n", 2));
  link(inode, b, "again");
  for (int i = 0; i < 300; i++) {
    uint64_t file = client->Create("f" + std::to_string(i));
    if (i % 100 == 0) link(file, b, "l" + std::to_string(i));
  }
  Write(inode, 3, 3 * kChunkSize + 5);
  for (int i = 0; i < 3; i++) ReportBad(i);
  ASSERT_TRUE(Until([&] { return Status_().chunks_lost() == 1; }));
  pb::FsckResponse fsck = Fsck("");
  EXPECT_EQ(fsck.totals().files(), 301u);
  EXPECT_EQ(fsck.totals().directories(), 3u);
  EXPECT_EQ(fsck.totals().chunks(), 2u);
  EXPECT_EQ(fsck.totals().files_by_safety(pb::LOST), 1u);
  fsck = Fsck("a");
  EXPECT_EQ(fsck.totals().files(), 4u);
  ASSERT_EQ(fsck.files_size(), 1);
  EXPECT_EQ(fsck.files(0).path(), "\xff\n/again");
  ASSERT_EQ(fsck.files(0).ranges_size(), 1);
  EXPECT_EQ(fsck.files(0).ranges(0).length(), kChunkSize);
  pb::FsckRequest none;
  none.mutable_walk()->set_path("nothing");
  EXPECT_EQ(client->Call<pb::FsckResponse>(pb::FSCK, none).error().code, ErrorCode::kNotFound);
  none.mutable_walk()->set_run(12345);
  EXPECT_EQ(client->Call<pb::FsckResponse>(pb::FSCK, none).error().code, ErrorCode::kNotFound);
}

TEST_F(CheckTest, ACleanScrub) {
  pb::ScrubResponse scrub = Scrub();
  EXPECT_EQ(scrub.findings_size(), 0) << scrub.DebugString();
  EXPECT_EQ(scrub.chunks(), 1u);
  EXPECT_EQ(scrub.replicas(), 3u);
  EXPECT_EQ(scrub.bytes(), 3 * 4096u);
}

TEST_F(CheckTest, WhatAScrubFindsBadOrMissingIsMadeAnew) {
  Change(0, [](FakeReplica& r) { r.bad = true; });
  cluster.loop.Sync([&] {
    cluster.server(extent.replicas(0).server()).fail[pb::FREEZE_REPLICA] = {ErrorCode::kCorrupt};
    cluster.server(extent.replicas(1).server()).replicas.erase(extent.chunk());
  });
  cluster.AddServer("c");
  cluster.AddServer("d");
  pb::ScrubResponse scrub = Scrub();
  ASSERT_EQ(scrub.findings_size(), 2) << scrub.DebugString();
  EXPECT_EQ(scrub.findings(0).what(), "bad");
  EXPECT_EQ(scrub.findings(1).what(), "missing");
  EXPECT_EQ(scrub.findings(1).path(), "file");
  EXPECT_FALSE(InRecord(0) || InRecord(1));
  EXPECT_EQ(cluster.Chunk(extent.chunk()).replicas_size(), 3);
}

TEST_F(CheckTest, OfDifferingCopiesTheGreaterNumberCounts) {
  cluster.AddServer("c");
  Change(0, [](FakeReplica& r) { r.digest = 7; });
  pb::ScrubResponse scrub = Scrub();
  ASSERT_EQ(scrub.findings_size(), 1) << scrub.DebugString();
  EXPECT_EQ(scrub.findings(0).what(), "different");
  EXPECT_EQ(scrub.findings(0).server(), extent.replicas(0).server());
  EXPECT_FALSE(InRecord(0));
  EXPECT_TRUE(InRecord(1) && InRecord(2));
}

TEST_F(CheckTest, WithoutAGreaterNumberARecoveryDecides) {
  for (int i = 0; i < 3; i++) Change(i, [i](FakeReplica& r) { r.digest = static_cast<uint64_t>(i); });
  pb::ScrubResponse scrub = Scrub();
  ASSERT_EQ(scrub.findings_size(), 1) << scrub.DebugString();
  EXPECT_EQ(scrub.findings(0).what(), "different");
  EXPECT_TRUE(scrub.findings(0).repaired());
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 2u);
  EXPECT_TRUE(InRecord(0) && InRecord(1) && InRecord(2));
}

TEST_F(CheckTest, OfTwoCopiesThatDifferNoneGoesWhileTheThirdIsAway) {
  Quiet();
  cluster.server(extent.replicas(2).server()).Die();
  Change(0, [](FakeReplica& r) { r.digest = 7; });
  pb::ScrubResponse scrub = Scrub(false);
  ASSERT_EQ(scrub.findings_size(), 2) << scrub.DebugString();
  EXPECT_EQ(scrub.findings(0).what(), "unreachable");
  EXPECT_EQ(scrub.findings(1).what(), "different");
  EXPECT_FALSE(scrub.findings(1).repaired());
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 1u);
}

TEST_F(CheckTest, NothingIsDroppedForADifferenceSeenDuringWrites) {
  // The client may write: one copy has applied another write than the others when it is asked.
  Change(0, [](FakeReplica& r) { r.digest = 7, r.applied = 9; });
  pb::ScrubResponse scrub = Scrub(false);
  ASSERT_EQ(scrub.findings_size(), 1) << scrub.DebugString();
  EXPECT_EQ(scrub.findings(0).what(), "not_compared");
  EXPECT_EQ(cluster.Chunk(extent.chunk()).version(), 1u);
  EXPECT_TRUE(InRecord(0));
  // Nor for one that changes from look to look, even where nobody is known to write.
  Quiet();
  cluster.loop.Sync([&] {
    FakeServer& server = cluster.server(extent.replicas(0).server());
    server.on_order = [&server, this](const std::string& order) {
      if (order.starts_with("scrub")) server.replicas[extent.chunk()].digest++;
    };
  });
  scrub = Scrub(false);
  ASSERT_EQ(scrub.findings_size(), 1) << scrub.DebugString();
  EXPECT_EQ(scrub.findings(0).what(), "not_compared");
  EXPECT_TRUE(InRecord(0));
  // Settled at last: it is different, and goes.
  cluster.loop.Sync([&] { cluster.server(extent.replicas(0).server()).on_order = nullptr; });
  cluster.AddServer("c");
  Scrub();
  EXPECT_FALSE(InRecord(0));
}

TEST_F(CheckTest, WhatAServerHasScrubbedIsCompared) {
  cluster.AddServer("c");
  Change(1, [](FakeReplica& r) { r.digest = 7; });
  FakeServer& server = cluster.server(extent.replicas(0).server());
  pb::ScrubbedRequest request;
  request.set_server(server.id);
  request.add_chunks(extent.chunk());
  request.add_chunks(4711);
  auto told =
      RunOn(cluster.loop, CallTyped<pb::ScrubbedResponse>(server.connection, pb::SCRUBBED, request, Payload(), 5s));
  ASSERT_TRUE(told) << ToString(told.error());
  EXPECT_TRUE(Until([&] { return !InRecord(1) && cluster.Chunk(extent.chunk()).replicas_size() == 3; }));
}

}  // namespace
}  // namespace shoal::meta
