#include "chunkserver/replica_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "chunkserver/table_editor.h"
#include "common/checksum.h"

namespace shoal {
namespace {

constexpr uint32_t kAnnouncedAhead = 16;  // regions after one that is written: whoever writes on writes there

std::span<uint8_t> BytesOf(TablePage& page) { return {reinterpret_cast<uint8_t*>(&page), sizeof page}; }

}  // namespace

Status ReplicaFile::ReadExactly(File& file, uint64_t offset, std::span<uint8_t> into, Wait wait, const char* what) {
  TRY_ASSIGN(size_t n, wait == Wait::kYes ? file.Read(offset, into) : file.ReadCached(offset, into));
  if (n == into.size()) return {};
  return Fail(ErrorCode::kCorrupt, fmt::format("the file ends inside the {}", what));
}

Result<std::unique_ptr<ReplicaFile>> ReplicaFile::Format(std::unique_ptr<File> file, const ReplicaHeader& header,
                                                         uint64_t boot) {
  ReplicaState state{.sequence = 1, .version = header.version, .synced_through = 0, .table_pages = 1};
  state.dirty_regions.set();
  state.boot = boot;
  std::array<Page, 4> pages{};
  header.Encode(pages[0]);
  state.Encode(pages[1]);
  TablePage table;
  table.Seal();
  std::memcpy(pages[3].data(), &table, sizeof table);
  static_assert(sizeof pages == kFormatBytes);
  TRY(file->Write(0, {pages[0].data(), sizeof pages}));
  // The full length from the start: later writes don't change the file's size, and their sync has less to do.
  TRY(file->Truncate(kReplicaFileSize));
  return std::make_unique<ReplicaFile>(std::move(file), header, state, boot);
}

Result<std::unique_ptr<ReplicaFile>> ReplicaFile::Load(std::unique_ptr<File> file, ChunkId chunk, InstanceId instance,
                                                       const std::string& cluster_uuid, uint64_t boot) {
  std::array<Page, 3> pages;
  TRY(ReadExactly(*file, 0, {pages[0].data(), sizeof pages}, Wait::kYes, "header"));
  auto first = ReplicaState::Decode(pages[1]);
  auto second = ReplicaState::Decode(pages[2]);
  bool use_second = second && (!first || second->sequence > first->sequence);
  auto decoded = ReplicaHeader::Decode(pages[0]);
  bool damaged = !decoded && decoded.error().code == ErrorCode::kCorrupt && (first || second);
  // One that was never written is blank; it is the second.
  bool state_damaged = (first || second) && (!first || (!second && !(IsBlank(pages[2]) && first->sequence == 1)));
  if (damaged) {
    // All that it says is known from elsewhere.
    ReplicaHeader expected{chunk, instance, (use_second ? *second : *first).version, cluster_uuid};
    if (expected.IsProvenBy(pages[0])) decoded = expected;
  }
  TRY_ASSIGN(ReplicaHeader header, std::move(decoded));
  if (header.chunk != chunk || header.instance != instance) {
    return Fail(ErrorCode::kCorrupt, fmt::format("the header is of chunk {:016x} instance {:x}", header.chunk.value,
                                                 header.instance.value));
  }
  if (!cluster_uuid.empty() && header.cluster_uuid != cluster_uuid) {
    return Fail(ErrorCode::kWrongCluster, fmt::format("the replica is of cluster {}, this server of {}",
                                                      header.cluster_uuid, cluster_uuid));
  }
  if (!first && !second) return Fail(ErrorCode::kCorrupt, "neither state page is valid");
  auto loaded = std::make_unique<ReplicaFile>(std::move(file), header, use_second ? *second : *first, boot);
  loaded->header_damaged_ = damaged || state_damaged;
  return loaded;
}

bool ReplicaFile::InDoubt(uint32_t first_block, uint32_t end_block) const {
  if (!doubted()) return false;
  std::lock_guard lock(state_mutex_);
  bool dirty = false;
  for (uint32_t r = RegionOf(first_block); r <= RegionOf(end_block - 1); ++r) dirty |= state_.dirty_regions[r];
  return dirty;
}

std::unexpected<Error> ReplicaFile::Mismatch(uint32_t first_block, uint32_t end_block, std::string what) const {
  if (!InDoubt(first_block, end_block)) return Fail(ErrorCode::kCorrupt, what + " does not match its checksum");
  return Fail(ErrorCode::kNotReady, what + " was perhaps being written when the power failed: a recovery is needed");
}

Status ReplicaFile::CheckHeader(Wait wait) {
  Page page;
  TRY(ReadExactly(*file_, 0, page, wait, "header"));
  TRY_ASSIGN(ReplicaHeader now, ReplicaHeader::Decode(page));
  if (now.chunk == header_.chunk && now.instance == header_.instance && now.version == header_.version) return {};
  return Fail(ErrorCode::kCorrupt, "the header is that of another replica");
}

Status ReplicaFile::ReadTablePage(uint32_t page, TablePage& into, Wait wait) {
  TRY(ReadExactly(*file_, TablePageOffset(page), BytesOf(into), wait, "checksum table"));
  if (!into.Valid()) {
    return Mismatch(page * kEntriesPerPage, FirstBlockAfter(page), fmt::format("page {} of the checksum table", page));
  }
  if ((known_pages_.load(std::memory_order_relaxed) >> page & 1) && into.Blank()) {
    return Fail(ErrorCode::kCorrupt, fmt::format("page {} of the checksum table is gone", page));
  }
  return {};
}

Result<ReadBlocks> ReplicaFile::Read(uint32_t offset, uint32_t length, Wait wait, bool verify, uint32_t* bad_block) {
  CHECK(offset % kBlockSize == 0 && length % kBlockSize == 0 && uint64_t{offset} + length <= kChunkSize);
  TRY(CheckHeader(wait));
  ReadBlocks result;
  uint32_t first = offset / kBlockSize;
  uint32_t count = length / kBlockSize;
  result.checksums.reserve(count);
  TablePage page;
  for (uint32_t block = first; block < first + count;) {
    TRY(ReadTablePage(TablePageOf(block), page, wait));
    uint32_t take = std::min(first + count - block, kEntriesPerPage - TableSlotOf(block));
    auto begin = page.entries.begin() + TableSlotOf(block);
    result.checksums.insert(result.checksums.end(), begin, begin + take);
    block += take;
  }
  result.data = Buffer::Allocate(length);
  uint8_t* data = result.data.mutable_data();
  for (uint32_t i = 0; i < count;) {
    uint32_t end = i + 1;
    bool written = result.checksums[i] != 0;
    while (end < count && (result.checksums[end] != 0) == written) ++end;
    std::span<uint8_t> run(data + uint64_t{i} * kBlockSize, uint64_t{end - i} * kBlockSize);
    if (written) {
      TRY(ReadExactly(*file_, kDataOffset + offset + uint64_t{i} * kBlockSize, run, wait, "data"));
    } else {
      std::memset(run.data(), 0, run.size());
    }
    i = end;
  }
  for (uint32_t i = 0; verify && i < count; ++i) {
    if (result.checksums[i] == 0) continue;
    if (BlockChecksum(data + uint64_t{i} * kBlockSize, kBlockSize) == result.checksums[i]) continue;
    if (bad_block) *bad_block = first + i;
    return Mismatch(first + i, first + i + 1, fmt::format("block {}", first + i));
  }
  return result;
}

Result<std::vector<uint64_t>> ReplicaFile::ReadTable() {
  TRY(CheckHeader(Wait::kYes));
  std::vector<uint64_t> entries;
  entries.reserve(kTablePages * kEntriesPerPage);
  TablePage page;
  for (uint32_t p = 0; p < kTablePages; ++p) {
    TRY(ReadTablePage(p, page, Wait::kYes));
    entries.insert(entries.end(), page.entries.begin(), page.entries.end());
  }
  entries.resize(kBlocksPerChunk);
  return entries;
}

Status ReplicaFile::ReadBlock(uint32_t block, uint64_t checksum, Page& into) {
  if (checksum == 0) {
    into.fill(0);
    return {};
  }
  TRY(ReadExactly(*file_, kDataOffset + uint64_t{block} * kBlockSize, into, Wait::kYes, "data"));
  if (BlockChecksum(into.data(), into.size()) == checksum) return {};
  return Mismatch(block, block + 1, fmt::format("block {}", block));
}

// What one write is going to do: nothing of it is done before all of it is known to be possible.
struct ReplicaFile::Plan {
  explicit Plan(ReplicaFile& file) : table(file) {}
  // Whole blocks, as they stand in the payload.
  struct Run {
    uint32_t offset;
    std::span<const uint8_t> bytes;
  };
  TableEditor table;
  std::vector<Run> runs;
  std::map<uint32_t, std::unique_ptr<Page>> merged;  // blocks of which a part changes, as they will be
  std::vector<BlockChange> replaced;                 // blocks that have a checksum and get another
  std::vector<ChunkRange> holes;
};

// The block as it is, verified, to be changed in part.
Result<Page*> ReplicaFile::PlanBlock(uint32_t block, Plan& plan) {
  auto& page = plan.merged[block];
  if (!page) {
    page = std::make_unique_for_overwrite<Page>();
    TRY_ASSIGN(uint64_t old, plan.table.Get(block));
    TRY(ReadBlock(block, old, *page));
  }
  return page.get();
}

Status ReplicaFile::Replace(uint32_t block, uint64_t checksum, Plan& plan) {
  TRY_ASSIGN(uint64_t old, plan.table.Get(block));
  if (old != 0 && old != checksum) plan.replaced.push_back({block, checksum});
  return plan.table.Set(block, checksum);
}

Status ReplicaFile::PlanData(const WriteOperation& write, Plan& plan) {
  const uint8_t* data = write.payload.data();
  auto checksum = write.checksums.begin();
  for (const ChunkRange& range : write.ranges) {
    uint32_t at = range.offset;
    uint32_t end = range.offset + range.length;
    while (at < end) {
      uint32_t piece = std::min(end, (at / kBlockSize + 1) * kBlockSize) - at;
      if (piece < kBlockSize) {
        TRY_ASSIGN(Page * page, PlanBlock(at / kBlockSize, plan));
        std::memcpy(page->data() + at % kBlockSize, data, piece);
        ++checksum;
      } else {
        piece = (end - at) / kBlockSize * kBlockSize;  // all whole blocks in one call
        plan.runs.push_back({at, {data, piece}});
        for (uint32_t b = at / kBlockSize; b < (at + piece) / kBlockSize; ++b) {
          TRY(Replace(b, *checksum++, plan));
        }
      }
      at += piece;
      data += piece;
    }
  }
  return {};
}

Status ReplicaFile::PlanZerosInBlock(uint32_t block, uint32_t from, uint32_t to, Plan& plan) {
  TRY_ASSIGN(uint64_t old, plan.table.Get(block));
  if (old == 0) return {};
  TRY_ASSIGN(Page * page, PlanBlock(block, plan));
  std::memset(page->data() + from, 0, to - from);
  return {};
}

// Whole blocks become holes: their entries first, so that they read as zeros whatever happens to the punching.
Status ReplicaFile::PlanZeros(const WriteOperation& write, Plan& plan) {
  for (const ChunkRange& range : write.ranges) {
    uint32_t end = write.kind == WriteOperation::Kind::kTruncate ? kChunkSize : range.offset + range.length;
    uint32_t first = (range.offset + kBlockSize - 1) / kBlockSize;
    uint32_t last = end / kBlockSize;  // whole blocks: [first, last)
    if (first > last) {  // inside one block
      TRY(PlanZerosInBlock(last, range.offset % kBlockSize, end % kBlockSize, plan));
      continue;
    }
    if (range.offset % kBlockSize != 0) {
      TRY(PlanZerosInBlock(first - 1, range.offset % kBlockSize, kBlockSize, plan));
    }
    if (end % kBlockSize != 0) {
      TRY(PlanZerosInBlock(last, 0, end % kBlockSize, plan));
    }
    for (uint32_t b = first; b < last; ++b) {
      TRY(plan.table.Set(b, 0));
    }
    if (first < last) plan.holes.push_back({first * kBlockSize, (last - first) * kBlockSize});
  }
  return {};
}

Status ReplicaFile::Carry(Plan& plan, WriteIntent& intent) {
  for (auto& [block, page] : plan.merged) {
    TRY(Replace(block, BlockChecksum(page->data(), page->size()), plan));
  }
  TRY(Announce(plan.table.regions()));
  if (!plan.replaced.empty()) {
    TRY(intent.Note(header_.chunk, header_.instance, plan.replaced));
  }
  for (const Plan::Run& run : plan.runs) {
    TRY(file_->Write(kDataOffset + run.offset, run.bytes));
  }
  for (auto& [block, page] : plan.merged) {
    TRY(file_->Write(kDataOffset + uint64_t{block} * kBlockSize, *page));
  }
  TRY(plan.table.Flush());
  for (const ChunkRange& hole : plan.holes) {
    Status punched = file_->PunchHole(kDataOffset + hole.offset, hole.length);
    if (!punched && punched.error().code != ErrorCode::kNotSupported) return punched;
  }
  return {};
}

Result<WriteEffect> ReplicaFile::Apply(const WriteOperation& write, WriteIntent& intent) {
  TRY(CheckHeader(Wait::kYes));
  Plan plan(*this);
  TRY(write.kind == WriteOperation::Kind::kData ? PlanData(write, plan) : PlanZeros(write, plan));
  Status carried = Carry(plan, intent);
  unsynced_ = true;
  {
    std::lock_guard lock(state_mutex_);
    written_ |= plan.table.regions();  // also where a sync ran beside it
  }
  if (!carried) {
    // Part of the blocks may be replaced. This intent is the last that is known of them: it is settled now.
    auto settled = Settle(plan.replaced);
    if (settled || !IsScarcity(carried.error().code)) return Fail(std::move(carried).error());
    return Fail(ErrorCode::kCorrupt, fmt::format("{}; then the table could not be corrected: {}", carried.error().message,
                                                 settled.error().message));
  }
  touched_pages_.fetch_or(plan.table.effect().table_pages);
  return plan.table.effect();
}

Result<uint32_t> ReplicaFile::Settle(const std::vector<BlockChange>& changes) {
  TRY(CheckHeader(Wait::kYes));
  TableEditor table(*this);
  uint32_t settled = 0;
  Page page;
  for (const BlockChange& change : changes) {
    if (change.block >= kBlocksPerChunk) continue;
    TRY_ASSIGN(uint64_t old, table.Get(change.block));
    if (old == 0 || old == change.checksum) continue;
    TRY(ReadExactly(*file_, kDataOffset + uint64_t{change.block} * kBlockSize, page, Wait::kYes, "data"));
    if (BlockChecksum(page.data(), page.size()) != change.checksum) continue;
    TRY(table.Set(change.block, change.checksum));
    ++settled;
  }
  TRY(table.Flush());
  touched_pages_.fetch_or(table.effect().table_pages);
  return settled;
}

// Durable before it returns: from now on these regions may differ from their checksums.
Status ReplicaFile::Announce(const RegionSet& regions) {
  std::lock_guard lock(state_mutex_);
  RegionSet clean = regions & ~state_.dirty_regions;
  if (clean.none()) return {};
  RegionSet ahead = clean;
  for (uint32_t i = 1; i < kAnnouncedAhead; ++i) ahead |= clean << i;
  ahead &= ~state_.dirty_regions;
  state_.dirty_regions |= ahead;
  Status announced = WriteState();
  if (announced) announced = file_->SyncData();
  if (!announced) state_.dirty_regions &= ~ahead;
  return announced;
}

RegionSet ReplicaFile::dirty_regions() const {
  std::lock_guard lock(state_mutex_);
  return state_.dirty_regions;
}

RegionSet ReplicaFile::written_regions() const {
  std::lock_guard lock(state_mutex_);
  return written_;
}

Status ReplicaFile::Clean() {
  std::lock_guard lock(state_mutex_);
  if (doubted() || (state_.dirty_regions & ~written_).none()) return {};
  state_.dirty_regions &= written_;
  return WriteState();
}

// Of a page that is torn each entry is an old one or a new one; where nothing was written the two are the same.
Status ReplicaFile::MendPage(uint32_t p, std::vector<uint32_t>& doubtful) {
  const uint32_t first = p * kEntriesPerPage;
  TablePage page;
  TRY(ReadExactly(*file_, TablePageOffset(p), BytesOf(page), Wait::kYes, "checksum table"));
  const RegionSet dirty = dirty_regions();
  for (uint32_t block = first; block < FirstBlockAfter(p); ++block) {
    uint64_t entry = page.entries[block - first];
    if (entry == 0 || !dirty[RegionOf(block)]) continue;
    Page data;
    TRY(ReadExactly(*file_, kDataOffset + uint64_t{block} * kBlockSize, data, Wait::kYes, "data"));
    if (BlockChecksum(data.data(), data.size()) != entry) doubtful.push_back(block);
  }
  if (page.Valid()) return {};
  page.Seal();
  TRY(file_->Write(TablePageOffset(p), BytesOf(page)));
  touched_pages_.fetch_or(1ull << p);
  return {};
}

Result<std::vector<uint32_t>> ReplicaFile::FindDoubtful() {
  TRY(CheckHeader(Wait::kYes));
  std::vector<uint32_t> doubtful;
  for (uint32_t p = 0; p < kTablePages; ++p) {
    if (InDoubt(p * kEntriesPerPage, FirstBlockAfter(p))) {
      TRY(MendPage(p, doubtful));
    }
  }
  return doubtful;
}

Status ReplicaFile::Accept(const std::vector<uint32_t>& blocks) {
  TableEditor table(*this);
  for (uint32_t block : blocks) {
    Page data;
    TRY(ReadExactly(*file_, kDataOffset + uint64_t{block} * kBlockSize, data, Wait::kYes, "data"));
    TRY(table.Set(block, BlockChecksum(data.data(), data.size())));
  }
  TRY(table.Flush());
  touched_pages_.fetch_or(table.effect().table_pages);
  return {};
}

// state_mutex_ is held.
Status ReplicaFile::WriteState() {
  if (!doubted()) state_.boot = boot_;
  state_.table_pages = known_pages_.load();
  ++state_.sequence;
  Page page;
  state_.Encode(page);
  return file_->Write(StatePageOffset(state_.sequence), page);
}

Status ReplicaFile::SetVersion(ChunkVersion version) {
  ReplicaHeader raised = header_;
  raised.version = version;
  Page page;
  raised.Encode(page);
  TRY(file_->Write(0, page));
  header_ = raised;
  {
    std::lock_guard lock(state_mutex_);
    doubted_ = false;
    state_.version = version;
    state_.synced_through = 0;
    TRY(WriteState());
  }
  return Sync(0);
}

Status ReplicaFile::Sync(uint64_t through) {
  unsynced_ = false;
  uint64_t touched = touched_pages_.exchange(0);
  {
    std::lock_guard lock(state_mutex_);
    written_.reset();
  }
  TRY(file_->SyncData());
  uint64_t known = known_pages_.fetch_or(touched);
  // Only when there is news: a sync of overwritten blocks is to write nothing else.
  if ((known | touched) == known) return {};
  std::lock_guard lock(state_mutex_);
  state_.synced_through = through;
  return WriteState();
}

uint64_t CountPieces(std::span<const ChunkRange> ranges) {
  uint64_t pieces = 0;
  for (const ChunkRange& r : ranges) {
    pieces += (uint64_t{r.offset} + r.length + kBlockSize - 1) / kBlockSize - r.offset / kBlockSize;
  }
  return pieces;
}

Status ValidateWrite(const WriteOperation& write) {
  uint64_t end = 0;
  uint64_t total = 0;
  if (write.ranges.empty() || write.ranges.size() > 256) return Fail(ErrorCode::kInvalidArgument, "a write has 1 to 256 segments");
  for (const ChunkRange& r : write.ranges) {
    bool empty = r.length == 0 && write.kind != WriteOperation::Kind::kTruncate;
    if (r.offset < end || uint64_t{r.offset} + r.length > kChunkSize || empty) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("segment {}+{} is out of order or outside the chunk", r.offset, r.length));
    }
    end = uint64_t{r.offset} + r.length;
    total += r.length;
  }
  if (write.kind == WriteOperation::Kind::kTruncate && write.ranges.size() != 1) {
    return Fail(ErrorCode::kInvalidArgument, "a truncation has one segment");
  }
  if (write.kind != WriteOperation::Kind::kData) {
    if (write.payload.empty() && write.checksums.empty()) return {};
    return Fail(ErrorCode::kInvalidArgument, "zeros have no payload");
  }
  if (total != write.payload.size() || CountPieces(write.ranges) != write.checksums.size()) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("{} bytes in segments, {} of payload, {} checksums", total,
                                                         write.payload.size(), write.checksums.size()));
  }
  return {};
}

Status VerifyPayload(const WriteOperation& write) {
  if (write.kind != WriteOperation::Kind::kData) return {};
  const uint8_t* data = write.payload.data();
  auto checksum = write.checksums.begin();
  for (const ChunkRange& range : write.ranges) {
    uint32_t end = range.offset + range.length;
    for (uint32_t at = range.offset; at < end;) {
      uint32_t piece = std::min(end, (at / kBlockSize + 1) * kBlockSize) - at;
      if (BlockChecksum(data, piece) != *checksum++) {
        return Fail(ErrorCode::kChecksumMismatch, fmt::format("the {} bytes for {} do not match their checksum", piece, at));
      }
      at += piece;
      data += piece;
    }
  }
  return {};
}

}  // namespace shoal
