// A backup of a serving metaserver, and the state that a restore makes of it.
#include "metaserver/backup/restore.h"

#include <fstream>

#include "common/proto/admin.pb.h"
#include "metaserver/check/check.h"
#include "tests/unit/metaserver/names.h"
#include "tests/unit/metaserver/state_fixture.h"

namespace shoal::meta {
namespace {

namespace fs = std::filesystem;

// All records, as a backup reads them.
Result<std::vector<pb::MetaRecord>> ReadSnapshot(Harness& h, uint64_t id) {
  std::vector<pb::MetaRecord> records;
  pb::MetaBackupReadRequest request;
  request.set_id(id);
  for (;;) {
    TRY_ASSIGN(auto piece, h.Call<pb::MetaBackupReadResponse>(pb::META_BACKUP_READ, request));
    records.insert(records.end(), piece.records().begin(), piece.records().end());
    if (piece.end()) return records;
    request.set_after(piece.records().rbegin()->key());
  }
}

Status WriteBackup(const std::vector<pb::MetaRecord>& records, const std::string& path) {
  TRY_ASSIGN(auto writer, BackupWriter::Create(RealFiles(), path));
  HeadRecords head;
  head.get = [&](const Key& key) {
    for (const auto& r : records) {
      if (r.key() == key.view()) return r.value();
    }
    return std::string();
  };
  TRY_ASSIGN(BackupHeader header, HeaderOf(head));
  TRY(writer->Begin(header));
  for (const auto& r : records) {
    TRY(writer->Add(r.key(), r.value()));
  }
  return writer->Finish();
}

// A backup of the state of StateFixture, and a directory to restore to.
class RestoreTest : public StateFixture {
 protected:
  void SetUp() override {
    StateFixture::SetUp();
    backup_ = top_ + "/backup";
    to_ = top_ + "/restored";
    std::vector<pb::MetaRecord> records;
    std::unique_ptr<leveldb::Iterator> it(db()->NewIterator(leveldb::ReadOptions()));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      records.emplace_back();
      records.back().set_key(it->key().ToString());
      records.back().set_value(it->value().ToString());
    }
    Status written = WriteBackup(records, backup_);
    ASSERT_TRUE(written) << ToString(written.error());
  }
  Result<RestoreResult> RunRestore(bool move_aside = false, uint32_t above = 0) {
    RestoreOptions options;
    options.backup = backup_;
    options.dir = to_;
    options.move_aside = move_aside;
    options.incarnation_above = above;
    return Restore(options);
  }
  void OpenRestored() {
    state_.reset();
    auto state = StateDb::Open(to_ + "/db", StateDb::Mode::kExisting);
    ASSERT_TRUE(state) << ToString(state.error());
    state_ = std::move(*state);
  }
  bool IsThere(const Key& key) {
    std::string value;
    return db()->Get(leveldb::ReadOptions(), {key.view().data(), key.view().size()}, &value).ok();
  }

  std::string backup_, to_;
};

TEST_F(RestoreTest, TheStateIsThatOfTheBackupWithANewLife) {
  auto restored = RunRestore();
  ASSERT_TRUE(restored) << ToString(restored.error());
  EXPECT_EQ(restored->incarnation, 2u);
  EXPECT_EQ(restored->sessions, 1u);
  EXPECT_EQ(restored->servers, 1u);
  OpenRestored();
  auto life = Get<pb::LifeRecord>(LifeKey());
  EXPECT_EQ(life.incarnation(), 2u);
  EXPECT_EQ(life.restored_incarnation(), 2u);
  EXPECT_EQ(life.restored_txn(), 1000u);
  EXPECT_NE(life.id(), 0u);
  EXPECT_FALSE(life.reconciled());
  auto ids = Get<pb::IdRanges>(IdRangesKey());
  EXPECT_EQ(ids.inode(), 100u);  // the incarnation makes them new
  EXPECT_EQ(ids.lease(), uint64_t{2} << 48);
  EXPECT_EQ(ids.order(), uint64_t{2} << 48);
  EXPECT_GT(ids.server(), 60000u);
  EXPECT_EQ(Get<pb::CommitRecord>(CommitKey()).txn(), 1001u);
  EXPECT_TRUE(Get<pb::SessionRecord>(SessionKey(SessionId(kSession))).lapsed());
  EXPECT_FALSE(IsThere(SlotKey(SessionId(kSession), 0)));
  EXPECT_EQ(Get<pb::ServerRecord>(ServerKey(ServerId(1))).start_id(), 0u);
  EXPECT_EQ(Get<pb::InodeRecord>(InodeKey(InodeId(kFile))).size(), 10u);
  CheckProgress progress;
  auto checked = CheckState(db(), nullptr, top_, progress);
  ASSERT_TRUE(checked);
  EXPECT_EQ(checked->problems, 0u) << checked->findings[0].what();
}

TEST_F(RestoreTest, AStateIsNeverOverwritten) {
  ASSERT_TRUE(RunRestore());
  auto again = RunRestore();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kNotEmpty);
  EXPECT_NE(again.error().message.find("--move-aside"), std::string::npos) << again.error().message;
  auto aside = RunRestore(true);
  ASSERT_TRUE(aside) << ToString(aside.error());
  EXPECT_EQ(aside->incarnation, 3u) << "above that of the state that was there";
  EXPECT_TRUE(fs::exists(aside->moved_to + "/CURRENT"));
  OpenRestored();
  EXPECT_EQ(Get<pb::LifeRecord>(LifeKey()).incarnation(), 3u);
}

TEST_F(RestoreTest, AHigherIncarnationCanBeAskedFor) {
  auto restored = RunRestore(false, 9);
  ASSERT_TRUE(restored);
  EXPECT_EQ(restored->incarnation, 10u);
  to_ += "-2";
  EXPECT_FALSE(RunRestore(false, 0xffff));
}

TEST_F(RestoreTest, ADirectoryWithOtherThingsIsRefused) {
  fs::create_directories(to_);
  std::ofstream(to_ + "/thesis.txt") << "all of it";
  auto restored = RunRestore(true);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, ErrorCode::kNotEmpty);
  EXPECT_NE(restored.error().message.find("thesis.txt"), std::string::npos) << restored.error().message;
}

TEST_F(RestoreTest, ARunningMetaserversDirectoryIsRefused) {
  fs::create_directories(to_);
  auto lock = RealFiles().Lock(to_ + "/lock");
  ASSERT_TRUE(lock);
  auto restored = RunRestore(true);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, ErrorCode::kBusy);
}

TEST_F(RestoreTest, AnotherClustersStateIsNotMovedAside) {
  ASSERT_TRUE(RunRestore());
  OpenRestored();
  Change<pb::ClusterRecord>(ClusterKeyOf(), [](auto& r) { r.set_uuid("another"); });
  state_.reset();
  auto restored = RunRestore(true);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, ErrorCode::kWrongCluster);
}

TEST_F(RestoreTest, ADamagedBackupChangesNothing) {
  ASSERT_TRUE(RunRestore());
  OpenRestored();
  state_.reset();
  for (uint64_t size : {fs::file_size(backup_) - 1, fs::file_size(backup_) / 2, uint64_t{50}}) {
    fs::resize_file(backup_, size);
    auto restored = RunRestore(true);
    ASSERT_FALSE(restored);
    EXPECT_EQ(restored.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(restored.error().message.find(backup_), std::string::npos) << restored.error().message;
  }
  for (const auto& entry : fs::directory_iterator(to_)) {
    std::string name = entry.path().filename();
    EXPECT_TRUE(name == "db" || name == "lock") << name;
  }
  OpenRestored();
  EXPECT_EQ(Get<pb::LifeRecord>(LifeKey()).incarnation(), 2u);
}

// ---- a metaserver's life before and after ----

class LivesTest : public ::testing::Test {
 protected:
  LivesTest() {
    char name[] = "/tmp/shoal-lives-XXXXXX";
    CHECK(::mkdtemp(name));
    dir_ = name;
  }
  ~LivesTest() override {
    h.Stop();
    fs::remove_all(dir_);
  }
  uint64_t OpenSnapshot() {
    auto opened = h.Call<pb::MetaBackupOpenResponse>(pb::META_BACKUP_OPEN, pb::MetaBackupOpenRequest());
    EXPECT_TRUE(opened);
    return opened ? opened->id() : 0;
  }
  Harness h;
  Names fs{h};
  std::string dir_;
};

TEST_F(LivesTest, ABackupIsOfOneInstantAndALaterLifeGoesOnFromIt) {
  h.Start();
  uint64_t dir = fs.Mkdir(kRoot, "dir")->inode();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(fs.Create(dir, "f" + std::to_string(i)));
  uint64_t snapshot = OpenSnapshot();
  uint64_t later = fs.Create(dir, "later")->inode();
  ASSERT_TRUE(fs.Unlink(dir, "f7"));
  auto records = ReadSnapshot(h, snapshot);
  ASSERT_TRUE(records);
  ASSERT_TRUE(WriteBackup(*records, dir_ + "/backup"));
  uint64_t session = h.session();
  std::string uuid = h.context().rpc.cluster_uuid;
  h.Stop();

  RestoreOptions options;
  options.backup = dir_ + "/backup";
  options.dir = dir_ + "/data";
  auto restored = Restore(options);
  ASSERT_TRUE(restored) << ToString(restored.error());
  h.options.data_dir = options.dir;
  ASSERT_TRUE(h.TryStart());
  EXPECT_EQ(h.context().rpc.cluster_uuid, uuid);
  EXPECT_EQ(h.context().rpc.incarnation.load(), 2u);

  // A client of before is told, whatever it asks for.
  pb::OpenSessionRequest resume;
  resume.set_session(session);
  resume.set_client_uuid("client-1");
  EXPECT_EQ(CodeOf(h.Call<pb::OpenSessionResponse>(pb::OPEN_SESSION, resume)), ErrorCode::kRestored);
  EXPECT_EQ(CodeOf(fs.Lookup(kRoot, "dir")), ErrorCode::kSessionEnded);

  // A new one finds what there was at that instant, and new numbers are of the new life.
  h.UseSession(h.OpenSession("client-2"));
  EXPECT_EQ(h.session() >> 48, 2u);
  EXPECT_EQ(fs.List(dir).size(), 50u);
  EXPECT_TRUE(fs.Lookup(dir, "f7"));
  EXPECT_EQ(CodeOf(fs.Lookup(dir, "later")), ErrorCode::kNotFound);
  EXPECT_EQ(CodeOf(fs.Stat(later)), ErrorCode::kStale);
  uint64_t made = fs.Create(dir, "made")->inode();
  EXPECT_EQ(made >> 48, 2u);
}

TEST_F(LivesTest, ASnapshotThatWasGivenUpIsNamed) {
  h.Start();
  uint64_t snapshot = OpenSnapshot();
  pb::MetaBackupCloseRequest close;
  close.set_id(snapshot);
  ASSERT_TRUE(h.Call<pb::MetaBackupCloseResponse>(pb::META_BACKUP_CLOSE, close));
  EXPECT_EQ(CodeOf(ReadSnapshot(h, snapshot)), ErrorCode::kNotFound);
  for (int i = 0; i < 8; ++i) OpenSnapshot();
  EXPECT_EQ(CodeOf(h.Call<pb::MetaBackupOpenResponse>(pb::META_BACKUP_OPEN, pb::MetaBackupOpenRequest())),
            ErrorCode::kBusy);
}

TEST_F(LivesTest, AServingStateIsChecked) {
  h.Start();
  uint64_t dir = fs.Mkdir(kRoot, "dir")->inode();
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(fs.Create(dir, "f" + std::to_string(i)));
  ASSERT_TRUE(fs.Link(fs.Lookup(dir, "f1")->inode(), kRoot, "hard"));
  ASSERT_TRUE(fs.Symlink(kRoot, "link", "dir/f1"));
  ASSERT_TRUE(fs.SetXattr(dir, "user.a", "b"));
  ASSERT_TRUE(fs.Rename(dir, "f2", kRoot, "moved"));
  ASSERT_TRUE(fs.Mkdir(dir, "sub"));
  ASSERT_TRUE(fs.Rename(dir, "sub", kRoot, "sub"));
  ASSERT_TRUE(fs.CreateFile(dir, "open", 0644, true));
  ASSERT_TRUE(fs.Unlink(dir, "open"));
  auto started = h.Call<pb::MetaCheckStartResponse>(pb::META_CHECK_START, pb::MetaCheckStartRequest());
  ASSERT_TRUE(started);
  pb::MetaCheckPollRequest poll;
  poll.set_id(started->id());
  pb::MetaCheckPollResponse answer;
  do {
    auto asked = h.Call<pb::MetaCheckPollResponse>(pb::META_CHECK_POLL, poll);
    ASSERT_TRUE(asked);
    answer = *asked;
  } while (!answer.done());
  EXPECT_EQ(answer.error(), "");
  EXPECT_EQ(answer.problems(), 0u) << answer.DebugString();
  EXPECT_EQ(answer.inodes(), 35u);
  poll.set_id(1);
  EXPECT_EQ(CodeOf(h.Call<pb::MetaCheckPollResponse>(pb::META_CHECK_POLL, poll)), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace shoal::meta
