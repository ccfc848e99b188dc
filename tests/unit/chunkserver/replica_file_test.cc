#include "chunkserver/replica_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "common/checksum.h"
#include "tests/support/fake_files.h"

namespace shoal {
namespace {

using test::FakeFiles;

std::string Pattern(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

WriteOperation Data(uint32_t offset, const std::string& bytes) {
  WriteOperation op;
  op.ranges = {{offset, static_cast<uint32_t>(bytes.size())}};
  op.payload = Buffer::CopyOf(bytes);
  for (size_t at = 0; at < bytes.size();) {
    size_t piece = std::min(bytes.size() - at, kBlockSize - (offset + at) % kBlockSize);
    op.checksums.push_back(BlockChecksum(bytes.data() + at, piece));
    at += piece;
  }
  return op;
}

WriteOperation Zero(uint32_t offset, uint32_t length) { return {WriteOperation::Kind::kZero, {{offset, length}}, {}, {}}; }
WriteOperation Cut(uint32_t offset) { return {WriteOperation::Kind::kTruncate, {{offset, 0}}, {}, {}}; }

class ReplicaFileTest : public testing::Test {
 protected:
  ReplicaFileTest() {
    auto created = files_.Open("/r", Files::Mode::kCreate);
    auto formatted = ReplicaFile::Format(std::move(*created), header_, files_.BootId());
    EXPECT_TRUE(formatted.has_value());
    file_ = std::move(*formatted);
    intent_ = std::move(*WriteIntent::Open(files_, "/intent"));
  }
  Result<std::unique_ptr<ReplicaFile>> Load() {
    auto opened = files_.Open("/r", Files::Mode::kReadWrite);
    if (!opened) return Fail(opened.error());
    return ReplicaFile::Load(std::move(*opened), header_.chunk, header_.instance, header_.cluster_uuid,
                             files_.BootId());
  }
  std::string Read(uint32_t offset, uint32_t length) {
    auto blocks = file_->Read(offset, length, ReplicaFile::Wait::kYes, true);
    EXPECT_TRUE(blocks.has_value()) << (blocks ? "" : blocks.error().message);
    return blocks ? std::string(blocks->data.view()) : "";
  }
  void Apply(const WriteOperation& op) {
    ASSERT_TRUE(ValidateWrite(op).has_value());
    ASSERT_TRUE(VerifyPayload(op).has_value());
    auto effect = file_->Apply(op, *intent_);
    ASSERT_TRUE(effect.has_value()) << effect.error().message;
  }

  FakeFiles files_;
  ReplicaHeader header_{ChunkId{0x1234}, InstanceId{0x99}, ChunkVersion{1}, "cluster-1"};
  std::unique_ptr<ReplicaFile> file_;
  std::unique_ptr<WriteIntent> intent_;
};

TEST_F(ReplicaFileTest, WhereTheBytesAre) {
  std::string bytes = Pattern(2 * kBlockSize, 1);
  Apply(Data(511 * kBlockSize - kBlockSize, bytes));  // the last entry of table page 0 and the first of page 1
  EXPECT_EQ(files_.Content("/r", kDataOffset + 510 * kBlockSize, bytes.size()), bytes);
  uint64_t sums[2] = {BlockChecksum(bytes.data(), kBlockSize), BlockChecksum(bytes.data() + kBlockSize, kBlockSize)};
  EXPECT_EQ(files_.Content("/r", 12288 + 510 * 8, 8), std::string(reinterpret_cast<char*>(&sums[0]), 8));
  EXPECT_EQ(files_.Content("/r", 12288 + 4096, 8), std::string(reinterpret_cast<char*>(&sums[1]), 8));
  std::string entries = files_.Content("/r", 12288, 4088);
  uint64_t page_sum = Checksum(entries);
  EXPECT_EQ(files_.Content("/r", 12288 + 4088, 8), std::string(reinterpret_cast<char*>(&page_sum), 8));
}

TEST_F(ReplicaFileTest, PartsOfBlocksAreMerged) {
  Apply(Data(100, "hello"));
  std::string expected(2 * kBlockSize, '\0');
  expected.replace(100, 5, "hello");
  EXPECT_EQ(Read(0, 2 * kBlockSize), expected);
  std::string across = Pattern(3000, 2);
  Apply(Data(kBlockSize - 1500, across));
  expected.replace(kBlockSize - 1500, 3000, across);
  EXPECT_EQ(Read(0, 2 * kBlockSize), expected);
  auto blocks = file_->Read(0, 3 * kBlockSize, ReplicaFile::Wait::kYes, true);
  ASSERT_TRUE(blocks.has_value());
  EXPECT_NE(blocks->checksums[0], 0u);
  EXPECT_EQ(blocks->checksums[2], 0u) << "never written";
}

TEST_F(ReplicaFileTest, GarbageBehindANeverWrittenEntryIsZeros) {
  files_.FlipBit("/r", kDataOffset + 5000);  // as a write that was interrupted before its table page leaves it
  EXPECT_EQ(Read(kBlockSize, kBlockSize), std::string(kBlockSize, '\0'));
  Apply(Data(kBlockSize + 10, "x"));
  std::string expected(kBlockSize, '\0');
  expected[10] = 'x';
  EXPECT_EQ(Read(kBlockSize, kBlockSize), expected);
}

// A page of header or table is again as it was where that can be proven.
TEST_F(ReplicaFileTest, DamagedPagesAreMended) {
  std::string bytes = Pattern(10 * kBlockSize, 3);
  Apply(Data(0, bytes));
  const uint64_t entry = kTableOffset + 8 * 4, never_written = kTableOffset + 8 * 400, sum = kTableOffset + 4090;
  for (std::vector<uint64_t> flips : {std::vector<uint64_t>{30}, {505}, {30, 41, 100}, {entry}, {entry, entry + 3}, {never_written},
                                      {sum}, {30, entry}, {entry, entry + 8, entry + 16}, {entry, kDataOffset + 5}}) {
    SCOPED_TRACE(flips.back());
    std::string before = files_.Content("/r", 0, kDataOffset);
    for (uint64_t offset : flips) files_.FlipBit("/r", offset, 5);
    for (bool reopen : {false, true}) {
      if (reopen) file_ = std::move(*Load());
      auto mended = file_->Mend(false);
      ASSERT_TRUE(mended.has_value()) << mended.error().message;
      EXPECT_GT(*mended + reopen, 0u);
      EXPECT_TRUE(files_.Content("/r", 0, kDataOffset) == before);
      if (!reopen) {
        for (uint64_t offset : flips) files_.FlipBit("/r", offset, 5);
      }
    }
    EXPECT_TRUE(Read(0, 10 * kBlockSize) == bytes);  // a bit of the data has been flipped twice
  }
  EXPECT_EQ(*file_->Mend(true), 0u) << "nothing is damaged";
}

// Both state pages must be right, though one of them is enough to go on with.
TEST_F(ReplicaFileTest, DamagedStateIsFoundAndMended) {
  Apply(Data(0, Pattern(kBlockSize, 3)));
  ASSERT_TRUE(file_->Sync(1).has_value());
  ASSERT_TRUE(file_->SetVersion(ChunkVersion{2}).has_value());  // both pages are in use now
  ASSERT_TRUE(file_->CheckPages().has_value());
  for (uint64_t page : {kStateOffset, kStateOffset + 4096}) {
    files_.FlipBit("/r", page + 20);
    EXPECT_EQ(file_->CheckPages().error().code, ErrorCode::kCorrupt);
    file_ = std::move(*Load());
    EXPECT_TRUE(file_->header_damaged());
    EXPECT_EQ(*file_->Mend(false), 1u);
    EXPECT_TRUE(file_->CheckPages().has_value());
    EXPECT_FALSE(file_->header_damaged());
    file_ = std::move(*Load());
    EXPECT_FALSE(file_->header_damaged());
  }
}

TEST_F(ReplicaFileTest, WhatWasAppendedGoesAway) {
  auto raw = files_.Open("/r", Files::Mode::kReadWrite);
  ASSERT_TRUE((*raw)->Write(kReplicaFileSize, std::array<uint8_t, 3>{1, 2, 3}).has_value());
  EXPECT_EQ(file_->CheckPages().error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(*file_->Mend(false), 1u);
  EXPECT_TRUE(file_->CheckPages().has_value());
}

// What was cut off is unreadable, not zeros; the rest is as it was.
TEST_F(ReplicaFileTest, AFileThatWasCutOffIsMended) {
  std::string bytes = Pattern(4 * kBlockSize, 3);
  const uint32_t far = 600 * kBlockSize;  // on the second page of the table
  for (uint64_t size : {kDataOffset + 3 * kBlockSize, uint64_t{kDataOffset} - 100, TablePageOffset(kTablePages)}) {
    SCOPED_TRACE(size);
    Apply(Data(0, bytes));
    Apply(Data(far, bytes));
    auto raw = files_.Open("/r", Files::Mode::kReadWrite);
    ASSERT_TRUE((*raw)->Truncate(size).has_value());
    EXPECT_EQ(file_->CheckPages().error().code, ErrorCode::kCorrupt);
    ASSERT_GT(*file_->Mend(true), 0u);
    ASSERT_TRUE(file_->CheckPages().has_value());
    if (size > kDataOffset) {
      EXPECT_EQ(Read(0, 3 * kBlockSize), bytes.substr(0, 3 * kBlockSize));
    }
    for (uint32_t at : {3 * kBlockSize, far}) {
      auto read = file_->Read(at, kBlockSize, ReplicaFile::Wait::kYes, true);
      ASSERT_FALSE(read.has_value()) << at;
      EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
    }
    Apply(Data(0, bytes));
    EXPECT_TRUE(Read(0, 4 * kBlockSize) == bytes);
  }
  auto raw = files_.Open("/r", Files::Mode::kReadWrite);
  ASSERT_TRUE((*raw)->Truncate(TablePageOffset(kTablePages) - 1).has_value());
  EXPECT_EQ(file_->Mend(true).error().code, ErrorCode::kCorrupt) << "of its table a part is missing";
}

TEST_F(ReplicaFileTest, AnotherReplicasBytesCantBeMended) {
  Page page;
  ReplicaHeader{ChunkId{0x77}, InstanceId{0x88}, ChunkVersion{1}, "cluster-1"}.Encode(page);
  auto raw = files_.Open("/r", Files::Mode::kReadWrite);
  ASSERT_TRUE((*raw)->Write(0, page).has_value());
  EXPECT_EQ(file_->CheckPages().error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(file_->Mend(true).error().code, ErrorCode::kCorrupt);
}

// Of a page that is lost nothing is made up: its blocks are read where their entries prove them, else never again.
TEST_F(ReplicaFileTest, APageThatCantBeProvenMakesNothingRight) {
  std::string bytes = Pattern(10 * kBlockSize, 3);
  Apply(Data(0, bytes));
  for (uint64_t offset : {kTableOffset + 8 * 4, kTableOffset + 4090, kTableOffset + 4091}) files_.FlipBit("/r", offset);
  EXPECT_EQ(*file_->Mend(false), 0u);
  EXPECT_EQ(*file_->Mend(true), 1u);
  EXPECT_EQ(Read(0, 4 * kBlockSize), bytes.substr(0, 4 * kBlockSize));
  EXPECT_EQ(Read(5 * kBlockSize, 5 * kBlockSize), bytes.substr(5 * kBlockSize));
  for (uint32_t block : {4u, 10u, 510u}) {  // the last two were never written, but who knows?
    auto read = file_->Read(block * kBlockSize, kBlockSize, ReplicaFile::Wait::kYes, true);
    ASSERT_FALSE(read.has_value()) << block;
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_EQ(Read(511 * kBlockSize, kBlockSize), std::string(kBlockSize, '\0'));
}

TEST_F(ReplicaFileTest, FlippedBitsAreNoticed) {
  Apply(Data(0, Pattern(kBlockSize, 3)));
  struct {
    const char* where;
    uint64_t offset;
  } cases[] = {{"header", 30}, {"header", 3000}, {"table entry", kTableOffset + 3}, {"table sum", kTableOffset + 4090},
               {"data", kDataOffset + 77}};
  for (const auto& c : cases) {
    files_.FlipBit("/r", c.offset, 5);
    auto read = file_->Read(0, kBlockSize, ReplicaFile::Wait::kYes, true);
    ASSERT_FALSE(read.has_value()) << c.where;
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt) << c.where;
    EXPECT_EQ(file_->Apply(Data(10, "part of it"), *intent_).error().code, ErrorCode::kCorrupt) << c.where;
    files_.FlipBit("/r", c.offset, 5);
    EXPECT_TRUE(file_->Read(0, kBlockSize, ReplicaFile::Wait::kYes, true).has_value());
  }
  // A client verifies the data itself.
  files_.FlipBit("/r", kDataOffset + 77);
  EXPECT_TRUE(file_->Read(0, kBlockSize, ReplicaFile::Wait::kYes, false).has_value());
  // A write of the whole block makes it good again.
  Apply(Data(0, Pattern(kBlockSize, 4)));
  EXPECT_EQ(Read(0, kBlockSize), Pattern(kBlockSize, 4));
}

TEST_F(ReplicaFileTest, AHeaderOfAnotherReplicaIsRefused) {
  auto opened = files_.Open("/r", Files::Mode::kReadWrite);
  EXPECT_EQ(ReplicaFile::Load(std::move(*opened), ChunkId{5}, header_.instance, "", 1).error().code, ErrorCode::kCorrupt);
  opened = files_.Open("/r", Files::Mode::kReadWrite);
  auto other = ReplicaFile::Load(std::move(*opened), header_.chunk, header_.instance, "cluster-2", 1);
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code, ErrorCode::kWrongCluster);
  EXPECT_NE(other.error().message.find("cluster-1"), std::string::npos);
  EXPECT_NE(other.error().message.find("cluster-2"), std::string::npos);
}

TEST_F(ReplicaFileTest, TruncationGivesBackAndKeepsNothing) {
  std::string bytes = Pattern(10 * kBlockSize, 5);
  Apply(Data(0, bytes));
  Apply(Data(40 << 20, Pattern(kBlockSize, 6)));
  uint64_t before = *file_->file().AllocatedBytes();
  Apply(Cut(3 * kBlockSize + 100));
  EXPECT_EQ(Read(0, 4 * kBlockSize), bytes.substr(0, 3 * kBlockSize + 100) + std::string(kBlockSize - 100, '\0'));
  EXPECT_EQ(Read(4 * kBlockSize, 6 * kBlockSize), std::string(6 * kBlockSize, '\0'));
  EXPECT_EQ(Read(40 << 20, kBlockSize), std::string(kBlockSize, '\0'));
  EXPECT_LE(*file_->file().AllocatedBytes(), before - 7 * kBlockSize);
}

TEST_F(ReplicaFileTest, TheVersionIsRaisedDurably) {
  Apply(Data(0, "abc"));
  ASSERT_TRUE(file_->SetVersion(ChunkVersion{2}));
  ASSERT_TRUE(files_.SyncDirectory("").has_value());
  files_.PowerCut();
  auto loaded = Load();
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ((*loaded)->header().version, ChunkVersion{2});
  EXPECT_TRUE((*loaded)->Read(0, kBlockSize, ReplicaFile::Wait::kYes, true).has_value());
}

TEST_F(ReplicaFileTest, ALostTablePageIsNoHole) {
  Apply(Data(8 << 20, Pattern(kBlockSize, 7)));  // table page 4
  ASSERT_TRUE(file_->Sync(1).has_value());
  auto raw = files_.Open("/r", Files::Mode::kReadWrite);
  ASSERT_TRUE((*raw)->PunchHole(TablePageOffset(4), 4096).has_value());
  auto read = file_->Read(8 << 20, kBlockSize, ReplicaFile::Wait::kYes, false);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  auto loaded = Load();
  ASSERT_TRUE(loaded.has_value());
  EXPECT_FALSE((*loaded)->Read(8 << 20, kBlockSize, ReplicaFile::Wait::kYes, false).has_value());
  EXPECT_TRUE((*loaded)->Read(40 << 20, kBlockSize, ReplicaFile::Wait::kYes, false).has_value());
}

TEST_F(ReplicaFileTest, ARegionIsAnnouncedBeforeItIsWritten) {
  ASSERT_TRUE(files_.SyncDirectory("").has_value());
  EXPECT_TRUE(file_->dirty_regions().all()) << "born so";
  Apply(Data(0, Pattern(3 << 20, 7)));
  EXPECT_TRUE(file_->Clean().has_value());
  EXPECT_TRUE(file_->dirty_regions()[0]) << "not synced";
  ASSERT_TRUE(file_->Sync(1).has_value());
  ASSERT_TRUE(file_->Clean().has_value());
  EXPECT_TRUE(file_->dirty_regions().none());
  Apply(Data((20 << 20) + 5, "abc"));
  uint64_t syncs = files_.syncs();
  Apply(Data((20 << 20) + 100'000, "once is enough, and whoever writes on"));
  Apply(Data((20 << 20) + 400'000, "need not wait again"));
  EXPECT_EQ(files_.syncs(), syncs);
  files_.PowerCut();
  auto loaded = Load();
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_TRUE((*loaded)->doubted());
  EXPECT_TRUE((*loaded)->dirty_regions()[80]);
  EXPECT_FALSE((*loaded)->dirty_regions()[0]);
}

// A page of the table that was torn by the power cut takes nothing along.
TEST_F(ReplicaFileTest, ATornTablePageIsMended) {
  std::string bytes = Pattern(100 * kBlockSize, 7);
  Apply(Data(0, bytes));
  ASSERT_TRUE(file_->Sync(1).has_value());
  std::string lost = Pattern(kBlockSize, 8);
  files_.FlipBit("/r", TablePageOffset(0) + 4090);
  auto raw = files_.Open("/r", Files::Mode::kReadWrite);
  ASSERT_TRUE((*raw)->Write(kDataOffset + 3 * kBlockSize, {reinterpret_cast<const uint8_t*>(lost.data()), lost.size()}));
  file_ = std::move(*Load());
  EXPECT_EQ(file_->ReadTable().error().code, ErrorCode::kCorrupt) << "another process, not another run of the system";
  ASSERT_TRUE(files_.SyncDirectory("").has_value());
  ASSERT_TRUE(file_->file().SyncData().has_value());
  files_.PowerCut();
  file_ = std::move(*Load());
  EXPECT_EQ(file_->ReadTable().error().code, ErrorCode::kNotReady);
  auto doubtful = file_->FindDoubtful();
  ASSERT_TRUE(doubtful.has_value()) << doubtful.error().message;
  EXPECT_EQ(*doubtful, (std::vector<uint32_t>{3}));
  ASSERT_TRUE(file_->Accept(*doubtful).has_value());
  ASSERT_TRUE(file_->SetVersion(ChunkVersion{2}).has_value());
  EXPECT_FALSE(file_->doubted());
  EXPECT_FALSE((*Load())->doubted());
  bytes.replace(3 * kBlockSize, kBlockSize, lost);
  EXPECT_EQ(Read(0, 100 * kBlockSize), bytes);
}

TEST_F(ReplicaFileTest, AFullDiskLeavesWhatWasThere) {
  Apply(Data(0, Pattern(kBlockSize, 8)));
  files_.capacity = 0;
  auto failed = file_->Apply(Data(kBlockSize, Pattern(4 * kBlockSize, 9)), *intent_);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(Read(0, kBlockSize), Pattern(kBlockSize, 8));
  EXPECT_EQ(Read(kBlockSize, 4 * kBlockSize), std::string(4 * kBlockSize, '\0'));
  Apply(Data(0, Pattern(kBlockSize, 10)));  // an overwrite needs no space
}

// Part of a write replaces blocks, for the rest there is no room: the blocks before it are readable.
TEST_F(ReplicaFileTest, AFullDiskInTheMiddleOfAWrite) {
  std::string old = Pattern(2 * kBlockSize, 8);
  std::string now = Pattern(6 * kBlockSize, 9);
  Apply(Data(0, old));
  files_.capacity = 0;
  auto failed = file_->Apply(Data(0, now), *intent_);
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(Read(0, 2 * kBlockSize), now.substr(0, 2 * kBlockSize));
  EXPECT_EQ(Read(2 * kBlockSize, 4 * kBlockSize), std::string(4 * kBlockSize, '\0'));
  files_.capacity = 1ull << 40;
  Apply(Data(kBlockSize + 10, "goes on"));
  now.replace(kBlockSize + 10, 7, "goes on");
  EXPECT_EQ(Read(0, 2 * kBlockSize), now.substr(0, 2 * kBlockSize));
}

// Killed after any of the calls that a write makes: every block is its old self or its new one, and readable.
TEST_F(ReplicaFileTest, KilledInTheMiddleOfAWrite) {
  std::string old = Pattern(6 * kBlockSize, 30);
  std::string now = Pattern(4 * kBlockSize, 31);
  for (int calls = 0; calls < 6; ++calls) {
    for (bool cut : {false, true}) {
      Apply(Data(0, old));
      int left = calls;
      files_.fails = [&left](const std::string& call, const std::string&) {
        return (call == "write" || call == "punch") && left-- <= 0 ? EIO : 0;
      };
      (void)file_->Apply(cut ? Cut(kBlockSize + 50) : Data(kBlockSize + 100, now), *intent_);
      files_.fails = nullptr;
      auto intent = WriteIntent::Open(files_, "/intent");
      ASSERT_TRUE(intent.has_value());
      file_ = std::move(*Load());
      if ((*intent)->left_behind().chunk) {
        ASSERT_TRUE(file_->Settle((*intent)->left_behind().changes).has_value());
      }
      intent_ = std::move(*intent);
      std::string expected = old;
      if (cut) {
        expected.replace(kBlockSize + 50, 5 * kBlockSize - 50, 5 * kBlockSize - 50, '\0');
      } else {
        expected.replace(kBlockSize + 100, now.size(), now);
      }
      for (uint32_t b = 0; b < 6; ++b) {
        std::string block = Read(b * kBlockSize, kBlockSize);
        bool right = block == old.substr(b * kBlockSize, kBlockSize) || block == expected.substr(b * kBlockSize, kBlockSize);
        EXPECT_TRUE(right) << "block " << b << " after " << calls << " calls, cut " << cut;
      }
    }
  }
}

TEST_F(ReplicaFileTest, RandomBytesNeverCrash) {
  std::mt19937_64 random(11);
  Apply(Data(0, Pattern(20 * kBlockSize, 12)));
  for (int round = 0; round < 300; ++round) {
    auto raw = files_.Open("/r", Files::Mode::kReadWrite);
    std::string garbage = Pattern(1 + random() % 5000, random());
    uint64_t offset = random() % (kTableOffset + 2 * 4096);
    ASSERT_TRUE((*raw)->Write(offset, {reinterpret_cast<const uint8_t*>(garbage.data()), garbage.size()}).has_value());
    if (auto loaded = Load()) {
      (void)(*loaded)->Read(0, 16 * kBlockSize, ReplicaFile::Wait::kYes, true);
      (void)(*loaded)->ReadTable();
      (void)(*loaded)->Apply(Data(5, "abc"), *intent_);
      (void)(*loaded)->Apply(Cut(100), *intent_);
    }
    if (round % 50 == 49) {
      ASSERT_TRUE((*raw)->Truncate(random() % 20000).has_value());
    }
  }
}

TEST_F(ReplicaFileTest, BadRequestsAreRefused) {
  auto code = [](const WriteOperation& op) {
    Status s = ValidateWrite(op);
    return s ? ErrorCode::kOk : s.error().code;
  };
  EXPECT_EQ(code(Data(0, "abc")), ErrorCode::kOk);
  EXPECT_EQ(code(Data(kChunkSize - 2, "abc")), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({}), ErrorCode::kInvalidArgument);
  WriteOperation op = Data(0, "abc");
  op.checksums.push_back(1);
  EXPECT_EQ(code(op), ErrorCode::kInvalidArgument);
  op = Data(0, "abc");
  op.ranges.push_back({1, 1});
  EXPECT_EQ(code(op), ErrorCode::kInvalidArgument) << "overlap";
  op = Data(0, "abc");
  op.ranges[0].length = 4;
  EXPECT_EQ(code(op), ErrorCode::kInvalidArgument);
  op.ranges = {{0xffffffff, 0xffffffff}};
  EXPECT_EQ(code(op), ErrorCode::kInvalidArgument);
  op = Data(0, "abc");
  op.checksums[0] ^= 1;
  EXPECT_EQ(VerifyPayload(op).error().code, ErrorCode::kChecksumMismatch);
}

// Any sequence of writes, zeros and truncations, compared with an array of bytes.
TEST_F(ReplicaFileTest, LikeAnArrayOfBytes) {
  constexpr uint32_t kSpan = 3 << 20;  // crosses a table page
  std::string model(kSpan, '\0');
  std::mt19937_64 random(20);
  for (int step = 0; step < 1500; ++step) {
    uint32_t offset = static_cast<uint32_t>(random() % kSpan);
    uint32_t limit = random() % 4 == 0 ? 200000 : 9000;
    uint32_t length = 1 + static_cast<uint32_t>(random() % std::min(limit, kSpan - offset));
    switch (random() % 10) {
      case 0:
        Apply(Zero(offset, length));
        model.replace(offset, length, length, '\0');
        break;
      case 1:
        if (random() % 4 != 0) break;
        Apply(Cut(offset));
        model.replace(offset, kSpan - offset, kSpan - offset, '\0');
        break;
      case 2: {  // several segments in one write
        WriteOperation op = Data(offset, Pattern(length, random()));
        model.replace(offset, length, std::string(op.payload.view()));
        uint32_t next = offset + length + static_cast<uint32_t>(random() % 5000);
        if (next + 50 < kSpan) {
          WriteOperation more = Data(next, Pattern(50, random()));
          std::string both = std::string(op.payload.view()) + std::string(more.payload.view());
          model.replace(next, 50, std::string(more.payload.view()));
          op.payload = Buffer::CopyOf(both);
          op.ranges.push_back(more.ranges[0]);
          op.checksums.insert(op.checksums.end(), more.checksums.begin(), more.checksums.end());
        }
        Apply(op);
        break;
      }
      default: {
        std::string bytes = Pattern(length, random());
        Apply(Data(offset, bytes));
        model.replace(offset, length, bytes);
      }
    }
    if (HasFatalFailure()) return;
    uint32_t from = offset / kBlockSize * kBlockSize;
    uint32_t count = std::min<uint32_t>(kSpan - from, 64 * kBlockSize);
    ASSERT_EQ(Read(from, count), model.substr(from, count)) << "after step " << step;
    if (step % 200 == 199) {
      auto loaded = Load();
      ASSERT_TRUE(loaded.has_value());
      file_ = std::move(*loaded);
      ASSERT_EQ(Read(0, kSpan), model);
    }
  }
}

}  // namespace
}  // namespace shoal
