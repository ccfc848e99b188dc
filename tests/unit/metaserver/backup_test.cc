// The backup's file: what is damaged is recognised, and nothing is left half done.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "metaserver/backup/format.h"

namespace shoal::meta {
namespace {

namespace fs = std::filesystem;

class BackupFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/shoal-backup-XXXXXX";
    ASSERT_TRUE(::mkdtemp(name));
    dir_ = name;
    path_ = dir_ + "/backup";
  }
  void TearDown() override { fs::remove_all(dir_); }

  static BackupHeader Header() { return {"0123abcd-uuid", 3, 1, 77, 1234567890}; }
  void Write(int records = 20) {
    auto writer = BackupWriter::Create(RealFiles(), path_);
    ASSERT_TRUE(writer) << ToString(writer.error());
    ASSERT_TRUE((*writer)->Begin(Header()));
    for (int i = 0; i < records; ++i) {
      ASSERT_TRUE((*writer)->Add(InodeKey(InodeId(i + 1)).view(), std::string(i * 3, 'x')));
    }
    ASSERT_TRUE((*writer)->Finish());
  }
  // Reads it to its end: how many records.
  static Result<uint64_t> ReadAll(const std::string& path) {
    TRY_ASSIGN(auto reader, BackupReader::Open(RealFiles(), path));
    std::string key, value;
    uint64_t count = 0;
    for (;; ++count) {
      TRY_ASSIGN(bool more, reader->Next(&key, &value));
      if (!more) return count;
    }
  }
  std::string Bytes() {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::string Put(const std::string& bytes) {
    std::string path = dir_ + "/changed";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  std::string dir_, path_;
};

TEST_F(BackupFileTest, IsReadAsItWasWritten) {
  Write();
  auto reader = BackupReader::Open(RealFiles(), path_);
  ASSERT_TRUE(reader) << ToString(reader.error());
  EXPECT_EQ((*reader)->header().cluster_uuid, Header().cluster_uuid);
  EXPECT_EQ((*reader)->header().incarnation, 3u);
  EXPECT_EQ((*reader)->header().state_format, 1u);
  EXPECT_EQ((*reader)->header().txn, 77u);
  EXPECT_EQ((*reader)->header().time_ns, 1234567890);
  std::string key, value;
  for (int i = 0; i < 20; ++i) {
    auto more = (*reader)->Next(&key, &value);
    ASSERT_TRUE(more && *more);
    EXPECT_EQ(key, InodeKey(InodeId(i + 1)).view());
    EXPECT_EQ(value, std::string(i * 3, 'x'));
  }
  auto end = (*reader)->Next(&key, &value);
  ASSERT_TRUE(end) << ToString(end.error());
  EXPECT_FALSE(*end);
}

TEST_F(BackupFileTest, EveryTruncationIsRecognised) {
  Write();
  std::string bytes = Bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    auto read = ReadAll(Put(bytes.substr(0, size)));
    ASSERT_FALSE(read) << size;
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(read.error().message.find("/changed"), std::string::npos) << "names the file";
  }
  EXPECT_FALSE(ReadAll(Put(bytes + "x")));
}

TEST_F(BackupFileTest, EveryFlippedByteIsRecognised) {
  Write();
  std::string bytes = Bytes();
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] ^= 0x40;
    EXPECT_FALSE(ReadAll(Put(changed))) << at;
  }
}

TEST_F(BackupFileTest, SwappedDoubledAndMissingRecordsAreRecognised) {
  auto writer = BackupWriter::Create(RealFiles(), path_);
  ASSERT_TRUE((*writer)->Begin(Header()));
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE((*writer)->Add(InodeKey(InodeId(i)).view(), "same size"));
  ASSERT_TRUE((*writer)->Finish());
  std::string bytes = Bytes();
  const size_t head = 128, record = 16 + 14 + 9;
  std::string a = bytes.substr(head, record), b = bytes.substr(head + record, record),
              rest = bytes.substr(head + 2 * record);
  std::string begin = bytes.substr(0, head);
  EXPECT_EQ(*ReadAll(Put(begin + a + b + rest)), 3u);
  EXPECT_FALSE(ReadAll(Put(begin + b + a + rest)));
  EXPECT_FALSE(ReadAll(Put(begin + a + a + b + rest)));
  EXPECT_FALSE(ReadAll(Put(begin + b + rest)));
}

TEST_F(BackupFileTest, ANewerFormatIsRefusedByName) {
  Write();
  std::string bytes = Bytes();
  bytes[8] = 9;
  auto read = ReadAll(Put(bytes));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, ErrorCode::kNotSupported);
  EXPECT_NE(read.error().message.find("format 9"), std::string::npos) << read.error().message;
}

TEST_F(BackupFileTest, NothingIsOverwrittenAndNothingIsLeftBehind) {
  {
    auto writer = BackupWriter::Create(RealFiles(), path_);
    ASSERT_TRUE(writer);
    ASSERT_TRUE((*writer)->Begin(Header()));
  }
  EXPECT_TRUE(fs::is_empty(dir_)) << "an unfinished one goes";
  Write();
  std::string bytes = Bytes();
  auto second = BackupWriter::Create(RealFiles(), path_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kExists);
  EXPECT_EQ(Bytes(), bytes);
}

TEST_F(BackupFileTest, RecordsMustComeInOrder) {
  auto writer = BackupWriter::Create(RealFiles(), path_);
  ASSERT_TRUE((*writer)->Begin(Header()));
  ASSERT_TRUE((*writer)->Add("b", "1"));
  EXPECT_FALSE((*writer)->Add("a", "2"));
  EXPECT_FALSE((*writer)->Add("b", "2"));
}

}  // namespace
}  // namespace shoal::meta
