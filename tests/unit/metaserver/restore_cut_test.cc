// Power cuts at every step of a restore.
#include <leveldb/env.h>

#include "common/log.h"
#include "metaserver/backup/restore.h"
#include "metaserver/database.h"
#include "tests/support/fake_files.h"
#include "tests/unit/metaserver/files_env.h"
#include "tests/unit/metaserver/state_fixture.h"

namespace shoal::meta {
namespace {

using test::FakeFiles;

constexpr const char* kStateDir = "/var/meta";
constexpr const char* kBackup = "/backup";
constexpr uint32_t kIncarnation = 5;  // of the state that is restored over

struct Image {
  std::unique_ptr<FakeFiles> files;
  bool restored;  // somebody was told so
};

// Restores the backup of StateFixture's state, in memory.
class RestoreCutTest : public StateFixture {
 protected:
  void SetUp() override {
    SilenceLog();
    StateFixture::SetUp();
    std::unique_ptr<leveldb::Iterator> it(db()->NewIterator(leveldb::ReadOptions()));
    for (it->SeekToFirst(); it->Valid(); it->Next()) records_[it->key().ToString()] = it->value().ToString();
    files_ = std::make_unique<FakeFiles>();
    env_ = test::MakeFilesEnv(*files_);
    ASSERT_TRUE(files_->CreateDirectory("/var"));
    ASSERT_TRUE(WriteBackup());
    files_->SyncAll();
  }

  std::string Record(const Key& key) const { return records_.at(std::string(key.view())); }
  Status WriteBackup() {
    TRY_ASSIGN(auto writer, BackupWriter::Create(*files_, kBackup));
    HeadRecords head;
    head.get = [this](const Key& key) { return Record(key); };
    TRY_ASSIGN(BackupHeader header, HeaderOf(head));
    TRY(writer->Begin(header));
    for (const auto& [key, value] : records_) {
      TRY(writer->Add(key, value));
    }
    return writer->Finish();
  }
  // A state of the same cluster that has come further.
  void MakeOldState() {
    ASSERT_TRUE(files_->CreateDirectory(kStateDir));
    auto old = StateDb::Open(std::string(kStateDir) + "/db", StateDb::Mode::kNew, {files_.get(), env_.get()});
    ASSERT_TRUE(old);
    leveldb::WriteBatch batch;
    for (const auto& [key, value] : records_) batch.Put(key, value);
    pb::LifeRecord life;
    life.set_incarnation(kIncarnation);
    PutRecord(&batch, LifeKey(), life);
    ASSERT_TRUE((*old)->db()->Write({}, &batch).ok());
    old->reset();
    files_->SyncAll();
  }

  static Result<RestoreResult> RunRestore(FakeFiles& files) {
    auto env = test::MakeFilesEnv(files);
    RestoreOptions options;
    options.backup = kBackup;
    options.dir = kStateDir;
    options.move_aside = true;
    options.files = {&files, env.get()};
    return Restore(options);
  }
  // The incarnation of what a metaserver finds there; 0: nothing, it makes a new file system.
  static Result<uint32_t> Open(FakeFiles& files) {
    auto env = test::MakeFilesEnv(files);
    MetaServerOptions options;
    options.data_dir = kStateDir;
    options.files = {&files, env.get()};
    TRY_ASSIGN(auto database, Database::Open(options));
    std::string target;
    const Key link = InodeKey(InodeId(kLink));
    if (!database->db()->Get({}, {link.view().data(), link.view().size()}, &target).ok()) return 0;
    return database->life().incarnation();
  }

  // Images at every step, with that rule's syncs left out.
  std::vector<Image> CutAtEveryStep(uint64_t seed, const std::string& leave_out = "") {
    std::mt19937_64 random(seed);
    std::vector<Image> images;
    auto run = files_->Copy();
    run->sector = seed % 2 ? 512 : 4096;
    run->before = [&, files = run.get()](const std::string&, const std::string&) {
      images.push_back({files->AfterPowerCut(random() % 4 == 0 ? nullptr : &random), false});
    };
    run->fails = [&](const std::string& call, const std::string& path) {
      return call.starts_with("sync") && RuleOf(call, path) == leave_out ? FakeFiles::kLeaveOut : 0;
    };
    auto restored = RunRestore(*run);
    EXPECT_TRUE(restored) << ToString(restored.error());
    for (int i = 0; i < 10; ++i) images.push_back({run->AfterPowerCut(i == 0 ? nullptr : &random), true});
    return images;
  }
  static std::string RuleOf(const std::string& call, const std::string& path) {
    bool names = call == "sync directory";
    if (path.find("/db.restoring") != std::string::npos) return names ? "restored-names" : "restored-state";
    return names && path == kStateDir ? "name-of-restored" : "others";
  }

  // What is wrong with it; "": nothing. `before`: the incarnation of the state that was there, 0 for none.
  static std::string Check(Image& image, uint32_t before) {
    const uint32_t restored = std::max(before, 1u) + 1;
    auto repeated = image.files->Copy();
    auto opened = Open(*image.files);
    if (image.restored && (!opened || *opened != restored)) return "what was restored is not there";
    if (opened && *opened != before && *opened != restored) return "it is of another incarnation";
    if (!opened && opened.error().code != ErrorCode::kInvalidArgument) return "refused: " + opened.error().message;
    auto again = RunRestore(*repeated);
    if (!again) return "can't be repeated: " + again.error().message;
    if (again->incarnation <= (opened ? *opened : before)) return "the incarnation is used twice";
    auto after = Open(*repeated);
    return after && *after == again->incarnation ? "" : "what was restored again is not there";
  }

  std::map<std::string, std::string> records_;
  std::unique_ptr<FakeFiles> files_;
  std::unique_ptr<leveldb::Env> env_;
};

TEST_F(RestoreCutTest, OverAnOldState) {
  MakeOldState();
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    auto images = CutAtEveryStep(seed);
    EXPECT_GT(images.size(), 50u);
    for (size_t i = 0; i < images.size(); ++i) ASSERT_EQ(Check(images[i], kIncarnation), "") << "seed " << seed << " step " << i;
  }
}

TEST_F(RestoreCutTest, IntoANewDirectory) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    auto images = CutAtEveryStep(seed);
    for (size_t i = 0; i < images.size(); ++i) ASSERT_EQ(Check(images[i], 0), "") << "seed " << seed << " step " << i;
  }
}

// The test of the tests.
TEST_F(RestoreCutTest, EverySyncIsNeeded) {
  MakeOldState();
  for (const char* rule : {"restored-state", "restored-names", "name-of-restored"}) {
    std::string wrong;
    for (uint64_t seed = 1; seed <= 20 && wrong.empty(); ++seed) {
      for (Image& image : CutAtEveryStep(seed, rule)) {
        if (wrong.empty()) wrong = Check(image, kIncarnation);
      }
    }
    EXPECT_NE(wrong, "") << rule;
    std::cout << rule << ": " << wrong << std::endl;
  }
}

// A backup has its name when it is whole, and not before.
TEST_F(RestoreCutTest, ABackupIsWholeOrNotThere) {
  std::mt19937_64 random(1);
  std::vector<std::unique_ptr<FakeFiles>> images;
  ASSERT_TRUE(files_->Unlink(kBackup));
  files_->SyncAll();
  files_->before = [&](const std::string&, const std::string&) { images.push_back(files_->AfterPowerCut(&random)); };
  ASSERT_TRUE(WriteBackup());
  files_->before = nullptr;
  images.push_back(files_->AfterPowerCut());
  for (size_t i = 0; i < images.size(); ++i) {
    auto there = images[i]->Exists(kBackup);
    EXPECT_TRUE(*there || i + 1 < images.size()) << "it was finished";
    if (!*there) continue;
    auto reader = BackupReader::Open(*images[i], kBackup);
    ASSERT_TRUE(reader) << ToString(reader.error());
    std::string key, value;
    Result<bool> more = true;
    while (more && *more) more = (*reader)->Next(&key, &value);
    EXPECT_TRUE(more) << ToString(more.error());
  }
}

}  // namespace
}  // namespace shoal::meta
