// A replica file with arbitrary bytes anywhere in its pages: it gives errors or the bytes that were written, and what
// is written to it afterwards is read back.
//
// An input is a list of edits of a well-made file, then a write. Edits may be sealed (the page's checksum made right):
// then the numbers on the page are looked at, and only the file's own rules can hold.
#include <algorithm>

#include "chunkserver/replica_file.h"
#include "common/checksum.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_files.h"

using namespace shoal;
using fuzz::Input;

namespace {

constexpr char kPath[] = "/r";
constexpr char kCluster[] = "cluster-1";
constexpr ChunkId kChunk{0x1234};
constexpr InstanceId kInstance{0x99};
constexpr uint32_t kLength = 544 * kBlockSize;  // all that is written lies here, under two pages of the table
constexpr uint32_t kPart = 16 * kBlockSize;     // what is read at once ...
constexpr uint32_t kParts[] = {0, 500 * kBlockSize, 520 * kBlockSize};  // ... here: an error of one hides no other
constexpr size_t kSumAt = 504;                                          // of header and state pages

WriteOperation Data(uint32_t offset, std::string_view bytes) {
  WriteOperation op{.kind = WriteOperation::Kind::kData,
                    .ranges = {{offset, static_cast<uint32_t>(bytes.size())}},
                    .payload = Buffer::CopyOf(bytes)};
  for (size_t at = 0; at < bytes.size();) {
    size_t piece = std::min<size_t>(bytes.size() - at, kBlockSize - (offset + at) % kBlockSize);
    op.checksums.push_back(BlockChecksum(bytes.data() + at, piece));
    at += piece;
  }
  return op;
}

// The file before the edits, and what it must give.
struct Fixture {
  test::FakeFiles files;
  std::string content = std::string(kLength, '\0');
  std::unique_ptr<WriteIntent> intent;

  Fixture() {
    auto file =
        ReplicaFile::Format(*files.Open(kPath, Files::Mode::kCreate), {kChunk, kInstance, ChunkVersion{1}, kCluster},
                                    files.BootId());
    intent = *WriteIntent::Open(files, "/intent");
    CHECK(file && intent);
    Put(**file, 0, std::string(3 * kBlockSize, 'a'));
    Put(**file, 510 * kBlockSize + 7, std::string(kBlockSize, 'b'));  // both sides of a page of the table
    CHECK((*file)->Sync(2));
    Put(**file, 5000, "not synced");
  }
  void Put(ReplicaFile& file, uint32_t offset, std::string_view bytes) {
    CHECK(file.Apply(Data(offset, bytes), *intent));
    content.replace(offset, bytes.size(), bytes);
  }
};

uint64_t SealOf(const Page& page, size_t at) {
  if (at != kSumAt) return Checksum(page.data(), at);
  return Checksum(page.data() + at + 8, page.size() - at - 8, Checksum(page.data(), at));
}

// Replaces bytes of one page: 0 is the header, 1 and 2 the states, then the table, behind it data. Returns whether the
// file's content may still be held to what was written.
bool Edit(File& file, Input& input) {
  uint32_t page = input.Byte();
  bool sealed = input.Byte() % 2;
  uint32_t at = input.Number<uint16_t>() % kBlockSize;
  std::string_view bytes = input.TakeSized().substr(0, kBlockSize - at);
  constexpr uint32_t kMetaPages = 3 + kTablePages;
  uint64_t offset = page < kMetaPages ? page * 4096ull : kDataOffset + (page - kMetaPages) * 4096ull;
  Page whole{};
  CHECK(file.Read(offset, whole));
  std::copy(bytes.begin(), bytes.end(), whole.begin() + at);
  if (sealed && page < kMetaPages) {
    size_t sum_at = page < 3 ? kSumAt : 4088;
    uint64_t sum = SealOf(whole, sum_at);
    std::memcpy(whole.data() + sum_at, &sum, 8);
  }
  CHECK(file.Write(offset, whole));
  bool state = page == 1 || page == 2;  // the newest state lost, the one before it counts: it knows less
  return !state && !(sealed && page < kMetaPages);
}

// What was read matches its checksums.
void CheckRead(const ReadBlocks& read) {
  static const std::string zeros(kBlockSize, '\0');
  std::string_view data = read.data.view();
  for (size_t i = 0; i < read.checksums.size(); ++i) {
    std::string_view block = data.substr(i * kBlockSize, kBlockSize);
    if (read.checksums[i] == 0) {
      CHECK(block == zeros);
    } else {
      CHECK(BlockChecksum(block.data(), block.size()) == read.checksums[i]);
    }
  }
}

void CheckWrite(ReplicaFile& file, WriteIntent& intent, Input& input) {
  WriteOperation op;
  uint8_t kind = input.Byte();
  uint32_t offset = input.Number<uint32_t>() % kLength, length = input.Number<uint16_t>();
  std::string bytes;
  if (kind % 3 == 0) {
    bytes.assign(length, 'c');
    op = Data(offset, bytes);
  } else {
    op.kind = kind % 3 == 1 ? WriteOperation::Kind::kZero : WriteOperation::Kind::kTruncate;
    op.ranges = {{offset, length}};
    bytes.assign(length, '\0');
  }
  if (!ValidateWrite(op) || !VerifyPayload(op) || !file.Apply(op, intent)) return;
  CHECK(file.Sync(9));
  uint32_t first = offset / kBlockSize * kBlockSize;
  uint32_t end = (offset + length + kBlockSize - 1) / kBlockSize * kBlockSize;
  auto read = file.Read(first, end - first, ReplicaFile::Wait::kYes, true);
  CHECK(read && read->data.view().substr(offset - first, length) == bytes);
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  std::string write = Raw(uint8_t{0}) + Raw(uint32_t{100}) + Raw(uint16_t{9000});
  auto edit = [](uint8_t page, uint8_t sealed, uint16_t at, std::string_view bytes) {
    return "\1" + Raw(page) + Raw(sealed) + Raw(at) + Sized(bytes);
  };
  std::vector<std::string> seeds{Raw(uint8_t{0}) + write};
  for (uint8_t page : {0, 1, 2, 3, 4, 36, 37, 39}) {
    for (uint8_t sealed : {0, 1}) {
      for (uint16_t at : {8, 40, 504, 4088})
        seeds.push_back(edit(page, sealed, at, "\1\2\3\4\5\6\7") + Raw(uint8_t{0}) + write);
    }
  }
  seeds.push_back(edit(3, 0, 0, std::string(4096, '\0')) + Raw(uint8_t{0}) + write);
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  Fixture fixture;
  auto raw = fixture.files.Open(kPath, Files::Mode::kReadWrite);
  CHECK(raw);
  bool faithful = true;
  while (uint8_t what = input.Byte() % 4) {
    if (what == 3) {  // the file is shorter than it was
      CHECK((*raw)->Truncate(input.Number<uint32_t>() % kReplicaFileSize));
    } else if (!Edit(**raw, input)) {
      faithful = false;
    }
  }
  std::vector<BlockChange> changes;
  for (uint8_t left = input.Byte() % 4; left > 0; --left) {
    changes.push_back({input.Number<uint32_t>(), input.Number<uint64_t>()});
  }

  auto file = ReplicaFile::Load(*fixture.files.Open(kPath, Files::Mode::kReadWrite), kChunk, kInstance, kCluster,
                                fixture.files.BootId());
  if (!file) return 0;
  CHECK((*file)->header().chunk == kChunk && (*file)->header().instance == kInstance);
  for (auto wait : {ReplicaFile::Wait::kNo, ReplicaFile::Wait::kYes}) {
    for (uint32_t offset : kParts) {
      auto read = (*file)->Read(offset, kPart, wait, true);
      if (!read) continue;
      CheckRead(*read);
      if (faithful) CHECK(read->data.view() == std::string_view(fixture.content).substr(offset, kPart));
    }
  }
  if (auto table = (*file)->ReadTable()) CHECK(table->size() == kBlocksPerChunk);
  (void)(*file)->Settle(changes);
  CheckWrite(**file, *fixture.intent, input);
  return 0;
}
