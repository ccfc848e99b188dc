// Each invariant of the metadata: a state that breaks it, and what is said about that.
#include "metaserver/check/check.h"

#include "tests/unit/metaserver/state_fixture.h"

namespace shoal::meta {
namespace {

class CheckTest : public StateFixture {
 protected:
  CheckResult Run() {
    CheckProgress progress;
    auto result = CheckState(db(), nullptr, top_, progress);
    EXPECT_TRUE(result) << ToString(result.error());
    return result ? std::move(*result) : CheckResult();
  }
  static std::string Text(const CheckResult& result) {
    std::string text;
    for (const auto& f : result.findings) text += f.check() + ": " + f.where() + ": " + f.what() + "\n";
    return text;
  }
  // Exactly these invariants are broken.
  void ExpectFound(std::set<std::string> checks) {
    CheckResult result = Run();
    std::set<std::string> found;
    for (const auto& f : result.findings) {
      found.insert(f.check());
      EXPECT_NE(f.next(), "") << "says how to mend it";
    }
    EXPECT_EQ(found, checks) << Text(result);
  }
  // The same, and that mending makes the state whole again.
  void ExpectMended(std::set<std::string> checks) {
    ExpectFound(checks);
    CheckResult result = Run();
    EXPECT_EQ(result.mends.size(), result.problems) << Text(result);
    uint64_t txn = Get<pb::CommitRecord>(CommitKey()).txn();
    Status mended = MendState(db(), result);
    ASSERT_TRUE(mended) << ToString(mended.error());
    result = Run();
    EXPECT_EQ(result.problems, 0u) << Text(result);
    EXPECT_EQ(Get<pb::CommitRecord>(CommitKey()).txn(), txn + 1);
  }
  void ChangeInode(uint64_t id, std::function<void(pb::InodeRecord&)> change) {
    Change<pb::InodeRecord>(InodeKey(InodeId(id)), std::move(change));
  }
  void ChangeChunk(std::function<void(pb::ChunkRecord&)> change) {
    Change<pb::ChunkRecord>(ChunkKey(ChunkId(kChunk)), std::move(change));
  }
  void DeleteNow(const Key& key) {
    Delete(key);
    Write();
  }
};

TEST_F(CheckTest, AGoodStateIsClean) {
  CheckResult result = Run();
  EXPECT_EQ(result.problems, 0u) << Text(result);
  EXPECT_EQ(result.inodes, 6u);
  EXPECT_EQ(result.names, 5u);
  EXPECT_EQ(result.chunks, 2u);
  EXPECT_EQ(result.replicas, 2u);
  EXPECT_EQ(result.txn, 1000u);
}

TEST_F(CheckTest, NoState) {
  DeleteNow(LifeKey());
  CheckProgress progress;
  EXPECT_FALSE(CheckState(db(), nullptr, top_, progress));
}

TEST_F(CheckTest, ItCanBeStopped) {
  CheckProgress progress;
  progress.stop = true;
  auto result = CheckState(db(), nullptr, top_, progress);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
}

TEST_F(CheckTest, ARecordThatCantBeParsed) {
  Key key = WorkKey(ChunkId(kChunk));
  batch_.Put({key.view().data(), key.view().size()}, "\xff\xff\xff");
  Write();
  ExpectFound({"records"});
}
TEST_F(CheckTest, AKeyOfNoKnownKind) {
  batch_.Put("something else", "1");
  Key wrong(KeyKind::kInode, 1, 2);
  batch_.Put({wrong.view().data(), wrong.view().size()}, "");
  Write();
  CheckResult result = Run();
  EXPECT_EQ(std::ranges::count(result.findings, "records", &pb::MetaFinding::check), 2) << Text(result);
}
TEST_F(CheckTest, TransactionsThatAreMissing) {
  Change<pb::CommitRecord>(CommitKey(), [](auto& r) { r.set_durable(1001); });
  ExpectFound({"transactions"});
}
TEST_F(CheckTest, EntryCount) {
  ChangeInode(kDir, [](auto& r) { r.set_entries(7); });
  ExpectMended({"directory_entries"});
}
TEST_F(CheckTest, DirectoryLinks) {
  ChangeInode(1, [](auto& r) { r.set_nlink(9); });
  ExpectMended({"directory_links"});
}
TEST_F(CheckTest, ANameUnderAnotherHash) {
  Change<pb::DentryBucket>(DentryKey(InodeId(1), Bucket("file")),
                           [](auto& r) { r.mutable_entries(0)->set_name("felt"); });
  ExpectFound({"directory_entries"});
}
TEST_F(CheckTest, CollisionNumbersOutOfOrder) {
  Change<pb::DentryBucket>(DentryKey(InodeId(1), Bucket("file")),
                           [](auto& r) { r.mutable_entries(0)->set_collision(300); });
  ExpectFound({"directory_entries"});
}
TEST_F(CheckTest, ANameThatIsThereTwice) {
  Change<pb::DentryBucket>(DentryKey(InodeId(1), Bucket("file")), [](auto& r) {
    auto copy = r.entries(0);
    copy.set_collision(1);
    *r.add_entries() = copy;
  });
  ExpectFound({"directory_entries", "links"});
}
TEST_F(CheckTest, EntriesWithoutADirectory) {
  Delete(InodeKey(InodeId(kDir)));
  Write();
  ExpectFound({"directory_entries", "links", "totals"});
}
TEST_F(CheckTest, ANameOfNoInode) {
  DeleteNow(InodeKey(InodeId(kInner)));
  ExpectFound({"links", "totals"});
}
TEST_F(CheckTest, LinkCount) {
  ChangeInode(kFile, [](auto& r) { r.set_nlink(5); });
  ExpectMended({"links"});
}
TEST_F(CheckTest, AnInodeWithoutAName) {
  DeleteNow(DentryKey(InodeId(1), Bucket("link")));
  ExpectFound({"directory_entries", "links"});
}
TEST_F(CheckTest, ATypeThatIsNotTheInodes) {
  Change<pb::DentryBucket>(DentryKey(InodeId(1), Bucket("link")),
                           [](auto& r) { r.mutable_entries(0)->set_type(S_IFIFO); });
  ExpectFound({"links"});
}
TEST_F(CheckTest, ParentOfADirectory) {
  ChangeInode(kDir, [](auto& r) { r.set_parent(Numbered(77)); });
  ExpectFound({"parents"});
}
TEST_F(CheckTest, ADirectoryBelowItself) {
  ChangeInode(kDir, [](auto& r) { r.set_parent(kDir); });
  ExpectFound({"parents"});
}
TEST_F(CheckTest, NoRoot) {
  DeleteNow(InodeKey(kRootInode));
  CheckResult result = Run();
  EXPECT_NE(Text(result).find("no root"), std::string::npos) << Text(result);
}
TEST_F(CheckTest, SymlinkTarget) {
  ChangeInode(kLink, [](auto& r) { r.set_size(99); });
  ExpectFound({"inodes"});
}
TEST_F(CheckTest, IdsAboveTheirBound) {
  Change<pb::IdRanges>(IdRangesKey(), [](auto& r) {
    r.set_inode(5);
    r.set_chunk(5);
    r.set_instance(5);
    r.set_session(1);
  });
  CheckResult result = Run();
  std::string text = Text(result);
  for (const char* where : {"inode 1000000000005", "chunk 1000000000007", "session 1000000000001"}) {
    EXPECT_NE(text.find(where), std::string::npos) << where << " in\n" << text;
  }
  for (const auto& f : result.findings) EXPECT_EQ(f.check(), "ids");
}
TEST_F(CheckTest, XattrsThatTheInodeDoesNotKnow) {
  ChangeInode(kFile, [](auto& r) { r.set_has_xattrs(false); });
  ExpectMended({"xattrs"});
}
TEST_F(CheckTest, XattrsThatAreNotThere) {
  DeleteNow(XattrsKey(InodeId(kFile)));
  ExpectMended({"xattrs"});
}
TEST_F(CheckTest, XattrsOfNoInode) {
  Put(XattrsKey(InodeId(Numbered(50))), pb::XattrsRecord());
  Write();
  ExpectMended({"xattrs"});
}
TEST_F(CheckTest, ExtentCounts) {
  ChangeInode(kFile, [](auto& r) {
    r.set_extents(3);
    r.set_written_chunks(2);
  });
  ExpectMended({"extents"});
}
TEST_F(CheckTest, AnExtentWithoutAChunk) {
  Delete(ByServerKey(ServerId(1), ChunkId(kChunk)));
  DeleteNow(ChunkKey(ChunkId(kChunk)));
  ExpectFound({"extents", "totals"});
}
TEST_F(CheckTest, AChunkOfTwoFiles) {
  ChangeChunk([](auto& r) { r.set_index(1); });
  ExpectFound({"extents", "chunks"});
}
TEST_F(CheckTest, ExtentsOfAFileThatIsGone) {
  DeleteNow(ReapKey(InodeId(kGone)));
  ExpectFound({"extents"});
}
TEST_F(CheckTest, AChunkWithoutAReplica) {
  Delete(ByServerKey(ServerId(1), ChunkId(kChunk)));
  ChangeChunk([](auto& r) { r.clear_replicas(); });
  ExpectFound({"chunks"});
}
TEST_F(CheckTest, AChunkOnAServerThatNobodyKnows) {
  DeleteNow(ServerKey(ServerId(1)));
  ExpectFound({"chunks"});
}
TEST_F(CheckTest, TwoReplicasOnOneServer) {
  ChangeChunk([](auto& r) { *r.add_replicas() = r.replicas(0); });
  ExpectFound({"chunks"});
}
TEST_F(CheckTest, ARaiseThatGoesBack) {
  ChangeChunk([](auto& r) { r.set_pending_version(1); });
  ExpectFound({"chunks"});
}
TEST_F(CheckTest, AReplicaThatIsNotInTheIndex) {
  DeleteNow(ByServerKey(ServerId(1), ChunkId(kChunk)));
  ExpectMended({"by_server"});
}
TEST_F(CheckTest, AnIndexOfAnotherVersion) {
  Change<pb::ByServerRecord>(ByServerKey(ServerId(1), ChunkId(kChunk)), [](auto& r) { r.set_version(4); });
  ExpectMended({"by_server"});
}
TEST_F(CheckTest, AnIndexOfNoReplica) {
  pb::ByServerRecord entry;
  entry.set_instance(kReplica);
  Put(ByServerKey(ServerId(2), ChunkId(kChunk)), entry);
  Put(ByServerKey(ServerId(1), ChunkId(Numbered(66))), entry);
  Write();
  ExpectMended({"by_server"});
}
TEST_F(CheckTest, AnUnlinkedInodeThatIsNoOrphan) {
  DeleteNow(OrphanKey(InodeId(kOrphan)));
  ExpectMended({"orphans"});
}
TEST_F(CheckTest, OrphansThatAreNone) {
  Put(OrphanKey(InodeId(kFile)), pb::OrphanRecord());
  Put(OrphanKey(InodeId(Numbered(60))), pb::OrphanRecord());
  Write();
  ExpectMended({"orphans"});
}
TEST_F(CheckTest, AReapOfAnInodeThatIsThere) {
  Put(ReapKey(InodeId(kFile)), pb::ReapRecord());
  Write();
  ExpectFound({"reaps"});
}
TEST_F(CheckTest, ATruncationOfNoFile) {
  pb::TruncateIntent cut;
  cut.set_size(1);
  Put(TruncateKey(InodeId(kDir)), cut);
  Write();
  ExpectFound({"truncations"});
}
TEST_F(CheckTest, AnOrderToDropAReplicaThatIsNeeded) {
  pb::DropRecord drop;
  drop.set_server(1);
  Put(DropKey(ServerId(1), ChunkId(kChunk), InstanceId(kReplica)), drop);
  Write();
  ExpectMended({"drops"});
}
TEST_F(CheckTest, AKnownReplicaThatIsKeptAside) {
  pb::UnknownRecord unknown;
  unknown.set_version(1);
  Put(UnknownKey(ServerId(1), ChunkId(kChunk), InstanceId(kReplica)), unknown);
  Put(UnknownKey(ServerId(1), ChunkId(Numbered(70)), InstanceId(Numbered(71))), unknown);
  Write();
  ExpectMended({"unknown"});
}
TEST_F(CheckTest, ASlotWithoutASession) {
  DeleteNow(SessionKey(SessionId(kSession)));
  ExpectMended({"slots"});
}
TEST_F(CheckTest, Totals) {
  Change<pb::CommitRecord>(CommitKey(), [](auto& r) {
    r.set_inodes(1);
    r.set_file_bytes(2);
    r.set_chunks(3);
  });
  ExpectMended({"totals"});
}
TEST_F(CheckTest, SeveralMendsOfOneRecord) {
  ChangeInode(kFile, [](auto& r) {
    r.set_nlink(4);
    r.set_extents(0);
    r.set_has_xattrs(false);
  });
  ExpectMended({"links", "extents", "xattrs"});
}

}  // namespace
}  // namespace shoal::meta
