// Mending header, state and table of a replica file. A page that was damaged is written again as it was where that can be
// proven; else its blocks are made unreadable one by one, so that each can be taken from another replica.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "chunkserver/replica_file.h"
#include "common/checksum.h"

namespace shoal {
namespace {

constexpr size_t kMaxGuesses = 5;               // entries of a page that are not known: 3^5 pages are tried
constexpr uint64_t kUnreadable = ~uint64_t{0};  // an entry that no block matches

// An entry that its block does not match: the entry was damaged, the block was, or the block was never written.
struct Guess {
  uint32_t slot;
  uint64_t stored, of_block;
};

// The page as it was sealed: its checksum says which guess is right.
bool FindSealed(TablePage& page, const std::vector<Guess>& guesses) {
  if (guesses.size() > kMaxGuesses) return false;
  uint32_t combinations = 1;
  for (size_t i = 0; i < guesses.size(); ++i) combinations *= 3;
  TablePage attempt = page;
  for (uint32_t n = 0; n < combinations; ++n) {
    uint32_t choices = n;
    for (const Guess& guess : guesses) {
      attempt.entries[guess.slot] = choices % 3 == 0 ? guess.stored : choices % 3 == 1 ? guess.of_block : 0;
      choices /= 3;
    }
    attempt.Seal();
    // All entries are right already, and a bit of the checksum has flipped: any other page would differ in half of them.
    bool only_sum = n == 0 && std::popcount(attempt.checksum ^ page.checksum) == 1;
    if (attempt.checksum != page.checksum && !only_sum) continue;
    page = attempt;
    return true;
  }
  return false;
}

}  // namespace

// Of a file that ends inside its table nothing can be said block by block; of one that is in doubt too, what is missing
// could be taken for what was being written. Else the data behind the end is missing, and the table knows of what.
Result<uint32_t> ReplicaFile::Mend(bool all) {
  uint32_t mended = 0;
  TRY_ASSIGN(const uint64_t size, file_->Size());
  if (size < TablePageOffset(kTablePages) || (size < kReplicaFileSize && doubted())) {
    return Fail(ErrorCode::kCorrupt, fmt::format("the file is cut off: it has {} bytes", size));
  }
  TRY_ASSIGN(bool header, MendHeader());
  TRY_ASSIGN(bool state, MendState());
  mended += header + state;
  for (uint32_t p = 0; p < kTablePages; ++p) {
    TRY_ASSIGN(bool page, MendTablePage(p, all, size < kReplicaFileSize));
    mended += page;
  }
  if (size == kReplicaFileSize) return mended;
  TRY(file_->Truncate(kReplicaFileSize));
  unsynced_ = true;
  return mended + 1;
}

// Behind the end of a file that was cut off there are zeros. The bytes that are there.
Result<size_t> ReplicaFile::ReadWithZeros(uint64_t offset, std::span<uint8_t> into) {
  TRY_ASSIGN(size_t n, file_->Read(offset, into));
  std::fill(into.begin() + static_cast<ptrdiff_t>(n), into.end(), 0);
  return n;
}

// What it must say is known since the file was opened.
Result<bool> ReplicaFile::MendHeader() {
  Page page;
  TRY(ReadExactly(*file_, 0, page, Wait::kYes, "header"));
  auto now = ReplicaHeader::Decode(page);
  if (now && (now->chunk != header_.chunk || now->instance != header_.instance)) {
    return Fail(ErrorCode::kCorrupt, "the header is that of another replica");
  }
  if (now || now.error().code != ErrorCode::kCorrupt) return false;
  header_.Encode(page);
  TRY(file_->Write(0, page));
  unsynced_ = true;
  header_damaged_ = false;
  return true;
}

// The newest is in memory; of the other nothing is ever used again.
Result<bool> ReplicaFile::MendState() {
  std::lock_guard lock(state_mutex_);
  bool mended = false;
  for (uint64_t older : {0, 1}) {
    Page page;
    const uint64_t at = StatePageOffset(state_.sequence + older);
    TRY(ReadExactly(*file_, at, page, Wait::kYes, "state"));
    if (ReplicaState::Decode(page) || (older && state_.sequence == 1 && IsBlank(page))) continue;
    if (older) {
      TRY(WriteState());
    } else {
      state_.Encode(page);
      TRY(file_->Write(at, page));
    }
    mended = true;
  }
  unsynced_ = unsynced_ || mended;
  if (mended) header_damaged_ = false;
  return mended;
}

Status ReplicaFile::CheckPages() {
  TRY_ASSIGN(uint64_t size, file_->Size());
  if (size != kReplicaFileSize) {
    return Fail(ErrorCode::kCorrupt, fmt::format("the file has {} bytes, not {}", size, kReplicaFileSize));
  }
  TRY(CheckHeader(Wait::kYes));
  std::lock_guard lock(state_mutex_);
  for (uint64_t older : {0, 1}) {
    Page page;
    TRY(ReadExactly(*file_, StatePageOffset(state_.sequence + older), page, Wait::kYes, "state"));
    auto state = ReplicaState::Decode(page);
    if (!state && older && state_.sequence == 1 && IsBlank(page)) continue;
    if (!state) return Fail(ErrorCode::kCorrupt, "a state page does not match its checksum");
    if (older || state->sequence == state_.sequence) continue;
    return Fail(ErrorCode::kCorrupt, "the state page is of an earlier time");
  }
  return {};
}

// `cut_off`: blocks are missing behind the file's end, and prove nothing.
Result<bool> ReplicaFile::MendTablePage(uint32_t p, bool all, bool cut_off) {
  TablePage page;
  std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(&page), sizeof page);
  TRY(ReadExactly(*file_, TablePageOffset(p), bytes, Wait::kYes, "checksum table"));
  const uint32_t first = p * kEntriesPerPage;
  const bool gone = (known_pages_.load() >> p & 1) && page.Blank();
  // One that a power cut may have torn is mended by FindDoubtful.
  if ((page.Valid() && !gone) || InDoubt(first, FirstBlockAfter(p))) return false;
  std::vector<Guess> guesses;
  for (uint32_t block = first; block < FirstBlockAfter(p); ++block) {
    uint64_t entry = page.entries[block - first];
    Page data;
    if (entry == 0) continue;
    TRY(ReadWithZeros(kDataOffset + uint64_t{block} * kBlockSize, data));
    uint64_t sum = BlockChecksum(data.data(), data.size());
    if (sum != entry) guesses.push_back({block - first, entry, sum});
  }
  const bool proven = !gone && !cut_off && FindSealed(page, guesses);
  if (!proven) {
    if (!all) return false;
    // Entries that their blocks match are right. The others are not known; zero would say that a block was never written.
    for (uint64_t& entry : page.entries) entry = entry == 0 ? kUnreadable : entry;
    page.Seal();
  }
  TRY(file_->Write(TablePageOffset(p), bytes));
  unsynced_ = true;
  touched_pages_.fetch_or(1ull << p);
  return true;
}

}  // namespace shoal
