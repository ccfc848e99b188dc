#include "chunkserver/replica_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "chunkserver/table_editor.h"
#include "common/checksum.h"

namespace shoal {
namespace {

std::span<uint8_t> BytesOf(TablePage& page) { return {reinterpret_cast<uint8_t*>(&page), sizeof page}; }

Status ReadExactly(File& file, uint64_t offset, std::span<uint8_t> into, ReplicaFile::Wait wait, const char* what) {
  TRY_ASSIGN(size_t n, wait == ReplicaFile::Wait::kYes ? file.Read(offset, into) : file.ReadCached(offset, into));
  if (n == into.size()) return {};
  return Fail(ErrorCode::kCorrupt, fmt::format("the file ends inside the {}", what));
}

bool AllZero(std::span<const uint8_t> bytes) {
  return bytes.empty() || (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

Result<std::unique_ptr<ReplicaFile>> ReplicaFile::Format(std::unique_ptr<File> file, const ReplicaHeader& header) {
  ReplicaState state{.sequence = 1, .version = header.version, .synced_through = 0, .table_pages = 1};
  state.dirty_regions.fill(0xff);
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
  return std::make_unique<ReplicaFile>(std::move(file), header, state);
}

Result<std::unique_ptr<ReplicaFile>> ReplicaFile::Load(std::unique_ptr<File> file, ChunkId chunk, InstanceId instance,
                                                       const std::string& cluster_uuid) {
  std::array<Page, 3> pages;
  TRY(ReadExactly(*file, 0, {pages[0].data(), sizeof pages}, Wait::kYes, "header"));
  TRY_ASSIGN(ReplicaHeader header, ReplicaHeader::Decode(pages[0]));
  if (header.chunk != chunk || header.instance != instance) {
    return Fail(ErrorCode::kCorrupt, fmt::format("the header is of chunk {:x} instance {:x}", header.chunk.value,
                                                 header.instance.value));
  }
  if (!cluster_uuid.empty() && header.cluster_uuid != cluster_uuid) {
    return Fail(ErrorCode::kWrongCluster, fmt::format("the replica is of cluster {}, this server of {}",
                                                      header.cluster_uuid, cluster_uuid));
  }
  auto first = ReplicaState::Decode(pages[1]);
  auto second = ReplicaState::Decode(pages[2]);
  if (!first && !second) return Fail(ErrorCode::kCorrupt, "neither state page is valid");
  bool use_second = second && (!first || second->sequence > first->sequence);
  return std::make_unique<ReplicaFile>(std::move(file), header, use_second ? *second : *first);
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
  if (!into.Valid()) return Fail(ErrorCode::kCorrupt, fmt::format("page {} of the checksum table does not match", page));
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
    return Fail(ErrorCode::kCorrupt, fmt::format("block {} does not match its checksum", first + i));
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
  return Fail(ErrorCode::kCorrupt, fmt::format("block {} does not match its checksum", block));
}

// Part of a block: the rest of it is verified, and goes under the new checksum with it.
Status ReplicaFile::MergeBlock(uint32_t offset, std::span<const uint8_t> bytes, TableEditor& table) {
  uint32_t block = offset / kBlockSize;
  TRY_ASSIGN(uint64_t old, table.Get(block));
  Page page;
  TRY(ReadBlock(block, old, page));
  std::memcpy(page.data() + offset % kBlockSize, bytes.data(), bytes.size());
  TRY(file_->Write(kDataOffset + uint64_t{block} * kBlockSize, page));
  return table.Set(block, BlockChecksum(page.data(), page.size()));
}

Status ReplicaFile::WriteData(const WriteOperation& write, TableEditor& table) {
  const uint8_t* data = write.payload.data();
  auto checksum = write.checksums.begin();
  for (const ChunkRange& range : write.ranges) {
    uint32_t at = range.offset;
    uint32_t end = range.offset + range.length;
    while (at < end) {
      uint32_t piece = std::min(end, (at / kBlockSize + 1) * kBlockSize) - at;
      if (piece < kBlockSize) {
        TRY(MergeBlock(at, {data, piece}, table));
        ++checksum;
      } else {
        piece = (end - at) / kBlockSize * kBlockSize;  // all whole blocks in one call
        TRY(file_->Write(kDataOffset + at, {data, piece}));
        for (uint32_t b = at / kBlockSize; b < (at + piece) / kBlockSize; ++b) {
          TRY(table.Set(b, *checksum++));
        }
      }
      at += piece;
      data += piece;
    }
  }
  return {};
}

Status ReplicaFile::ZeroPartOfBlock(uint32_t block, uint32_t from, uint32_t to, TableEditor& table) {
  TRY_ASSIGN(uint64_t old, table.Get(block));
  if (old == 0) return {};
  Page page;
  TRY(ReadBlock(block, old, page));
  if (AllZero({page.data() + from, to - from})) return {};
  std::memset(page.data() + from, 0, to - from);
  TRY(file_->Write(kDataOffset + uint64_t{block} * kBlockSize, page));
  return table.Set(block, BlockChecksum(page.data(), page.size()));
}

// Whole blocks become holes: their entries first, so that they read as zeros whatever happens to the punching.
Status ReplicaFile::WriteZeros(const WriteOperation& write, TableEditor& table) {
  std::vector<ChunkRange> holes;
  for (const ChunkRange& range : write.ranges) {
    uint32_t end = write.kind == WriteOperation::Kind::kTruncate ? kChunkSize : range.offset + range.length;
    uint32_t first = (range.offset + kBlockSize - 1) / kBlockSize;
    uint32_t last = end / kBlockSize;  // whole blocks: [first, last)
    if (first > last) {  // inside one block
      TRY(ZeroPartOfBlock(last, range.offset % kBlockSize, end % kBlockSize, table));
      continue;
    }
    if (range.offset % kBlockSize != 0) {
      TRY(ZeroPartOfBlock(first - 1, range.offset % kBlockSize, kBlockSize, table));
    }
    if (end % kBlockSize != 0) {
      TRY(ZeroPartOfBlock(last, 0, end % kBlockSize, table));
    }
    for (uint32_t b = first; b < last; ++b) {
      TRY(table.Set(b, 0));
    }
    if (first < last) holes.push_back({first * kBlockSize, (last - first) * kBlockSize});
  }
  TRY(table.Flush());
  for (const ChunkRange& hole : holes) {
    Status punched = file_->PunchHole(kDataOffset + hole.offset, hole.length);
    if (!punched && punched.error().code != ErrorCode::kNotSupported) return punched;
  }
  return {};
}

Result<WriteEffect> ReplicaFile::Apply(const WriteOperation& write) {
  TRY(CheckHeader(Wait::kYes));
  TableEditor table(*this);
  if (write.kind == WriteOperation::Kind::kData) {
    TRY(WriteData(write, table));
    TRY(table.Flush());
  } else {
    TRY(WriteZeros(write, table));
  }
  touched_pages_.fetch_or(table.effect().table_pages);
  return table.effect();
}

Status ReplicaFile::WriteState(ChunkVersion version, uint64_t through) {
  state_.version = version;
  state_.synced_through = through;
  state_.table_pages = known_pages_.load();
  ++state_.sequence;
  Page page;
  state_.Encode(page);
  return file_->Write(kStateOffset + (state_.sequence + 1) % 2 * 4096, page);
}

Status ReplicaFile::SetVersion(ChunkVersion version) {
  ReplicaHeader raised = header_;
  raised.version = version;
  Page page;
  raised.Encode(page);
  TRY(file_->Write(0, page));
  header_ = raised;
  TRY(WriteState(version, 0));
  return Sync(0);
}

Status ReplicaFile::Sync(uint64_t through) {
  uint64_t touched = touched_pages_.exchange(0);
  TRY(file_->SyncData());
  uint64_t known = known_pages_.fetch_or(touched);
  // Only when there is news: a sync of overwritten blocks is to write nothing else.
  if ((known | touched) == known) return {};
  return WriteState(header_.version, through);
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
