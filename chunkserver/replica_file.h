// What is done to the file of one replica: plain calls on a File, each verified against header and table.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "chunkserver/layout.h"
#include "chunkserver/write_intent.h"
#include "common/buffer.h"
#include "common/files.h"
#include "common/ids.h"
#include "common/result.h"

namespace shoal {

// Something ran out (space, memory, descriptors): says nothing of the replica or the disk.
inline bool IsScarcity(ErrorCode code) { return code == ErrorCode::kNoSpace || code == ErrorCode::kOverloaded; }

// A range of a chunk. A plain value.
struct ChunkRange {
  uint32_t offset = 0;
  uint32_t length = 0;
};

// The parts of a range that a write has a checksum for: cut at multiples of the block size.
uint64_t CountPieces(std::span<const ChunkRange> ranges);

// One write, checked already (ValidateWrite, VerifyPayload). A plain value; the payload is shared, not copied.
struct WriteOperation {
  enum class Kind { kData, kZero, kTruncate };
  Kind kind = Kind::kData;
  std::vector<ChunkRange> ranges;   // ascending, not overlapping
  std::vector<uint64_t> checksums;  // of each piece; kData only
  Buffer payload;                   // kData only
};

// kInvalidArgument when the ranges are not in order, leave the chunk, or do not fit the payload and its checksums.
Status ValidateWrite(const WriteOperation& write);
// kChecksumMismatch when a piece of the payload does not match its checksum.
Status VerifyPayload(const WriteOperation& write);

// What a write changed. A plain value.
struct WriteEffect {
  int64_t allocated_bytes = 0;  // of blocks and table pages; negative when given back
  uint64_t table_pages = 0;     // bit i: page i was written
};

// Blocks read from a replica. A plain value.
struct ReadBlocks {
  Buffer data;                      // never-written blocks are zeros
  std::vector<uint64_t> checksums;  // one a block; 0: never written
};

// A replica's open file. Owned by its Replica and by those at work on it; any thread, but a write excludes every other
// call on the same file (Replica::io). Nothing is durable before Sync. Errors: kCorrupt when header, table or data do
// not match their checksums; kIo and kNoSpace from the file system. Random bytes in the file give errors, never more.
//
// Power cuts: before anything is written to a region of 256 KiB, its bit in the state page is durable, and it stays until
// Clean. In such a dirty region blocks and table may be of different times afterwards, and a page of the table may be torn.
// A file with dirty regions of another run of the operating system is doubted: what does not match in them is kNotReady
// then, until a recovery has found or made the right bytes (FindDoubtful, Accept) and raises the version.
//
// Damage: what does not match its checksum is an error until it is written anew. Mend brings back pages of the header, the
// state and the table of which it can be proven what they were.
class ReplicaFile {
 public:
  // `header` is what the page must say, each time it is read again.
  ReplicaFile(std::unique_ptr<File> file, ReplicaHeader header, ReplicaState state, uint64_t boot)
      : file_(std::move(file)),
        header_(std::move(header)),
        state_(state),
        written_(state.dirty_regions),
        boot_(boot),
        doubted_(state.dirty_regions.any() && state.boot != 0 && boot != 0 && state.boot != boot),
        known_pages_(state.table_pages) {}

  // Writes header, state and an empty table into a file that was just created. `boot`: Files::BootId.
  static Result<std::unique_ptr<ReplicaFile>> Format(std::unique_ptr<File> file, const ReplicaHeader& header, uint64_t boot);
  // Reads and checks header and state. A damaged header whose content is known all the same is mended by Mend.
  static Result<std::unique_ptr<ReplicaFile>> Load(std::unique_ptr<File> file, ChunkId chunk, InstanceId instance,
                                                   const std::string& cluster_uuid, uint64_t boot);
  static constexpr uint64_t kFormatBytes = 16 << 10;  // what an empty replica takes

  const ReplicaHeader& header() const { return header_; }
  File& file() { return *file_; }

  enum class Wait { kNo, kYes };
  // `offset` and `length` are multiples of the block size. With Wait::kNo: kWouldBlock when a page is not in memory.
  // `verify`: the data is checked too (a mismatch is kCorrupt, `bad_block` says where).
  Result<ReadBlocks> Read(uint32_t offset, uint32_t length, Wait wait, bool verify, uint32_t* bad_block = nullptr);
  // All entries of the table.
  Result<std::vector<uint64_t>> ReadTable();

  // Applies the write: data first, then the table. After an error each block of the write is its old self or its new one
  // (kCorrupt: or unreadable). Blocks that are replaced are noted in `intent` before.
  Result<WriteEffect> Apply(const WriteOperation& write, WriteIntent& intent);
  // After the middle of an Apply (a process was killed, a call failed): blocks that hold what was intended get its checksum.
  // The number of blocks whose entry was corrected.
  Result<uint32_t> Settle(const std::vector<BlockChange>& changes);

  // Header, state, table and the file's length: damaged pages are written anew as they were, where their checksums prove
  // what that was. `all`: a page of which that is not known is made valid too, its blocks unreadable unless they match
  // their entries; only to be used when what is missing is taken from others next. A write, as far as Replica::io is
  // concerned. The number of pages. kCorrupt: it can't be mended, the file is another replica's.
  Result<uint32_t> Mend(bool all);
  // Whether header, state and the file's length are as they must be; of the table and the data nothing is read.
  Status CheckPages();
  // The header or a state page did not match its checksum when the file was opened, and was not mended yet.
  bool header_damaged() const { return header_damaged_.load(std::memory_order_relaxed); }

  bool doubted() const { return doubted_.load(std::memory_order_relaxed); }
  // The blocks of dirty regions that do not match their checksums; pages of the table that are torn there are mended
  // before. A write, as far as Replica::io is concerned.
  Result<std::vector<uint32_t>> FindDoubtful();
  // Takes what these blocks hold for right: they get its checksum. A write.
  Status Accept(const std::vector<uint32_t>& blocks);

  // Raises the version in the header page and syncs the file, which is not doubted from then on.
  Status SetVersion(ChunkVersion version);
  // Makes all that was applied before durable; may run beside reads and writes, but not beside another Sync or
  // SetVersion (Replica::sync). `through` is kept as the synced-through number.
  Status Sync(uint64_t through);
  // Regions that were synced and not written since are no longer dirty. Excludes writes, Sync and SetVersion. Not durable:
  // a bit too many does no harm.
  Status Clean();
  RegionSet dirty_regions() const;
  // Those that may hold something not synced: all, when the file was just opened.
  RegionSet written_regions() const;
  // Something was written through this file and not synced by it.
  bool unsynced() const { return unsynced_.load(std::memory_order_relaxed); }

 private:
  friend class TableEditor;
  static Status ReadExactly(File& file, uint64_t offset, std::span<uint8_t> into, Wait wait, const char* what);
  Result<size_t> ReadWithZeros(uint64_t offset, std::span<uint8_t> into);
  Result<bool> MendHeader();
  Result<bool> MendState();
  Result<bool> MendTablePage(uint32_t page, bool all, bool cut_off);
  Status WriteState();
  Status Announce(const RegionSet& regions);
  bool InDoubt(uint32_t first_block, uint32_t end_block) const;
  std::unexpected<Error> Mismatch(uint32_t first_block, uint32_t end_block, std::string what) const;
  Status MendPage(uint32_t page, std::vector<uint32_t>& doubtful);
  Status CheckHeader(Wait wait);
  Status ReadTablePage(uint32_t page, TablePage& into, Wait wait);
  Status ReadBlock(uint32_t block, uint64_t checksum, Page& into);
  struct Plan;
  Status PlanData(const WriteOperation& write, Plan& plan);
  Status PlanZeros(const WriteOperation& write, Plan& plan);
  Status PlanZerosInBlock(uint32_t block, uint32_t from, uint32_t to, Plan& plan);
  Result<Page*> PlanBlock(uint32_t block, Plan& plan);
  Status Replace(uint32_t block, uint64_t checksum, Plan& plan);
  Status Carry(Plan& plan, WriteIntent& intent);

  std::unique_ptr<File> file_;
  ReplicaHeader header_;
  mutable std::mutex state_mutex_;            // guards state_ and its pages, written_
  ReplicaState state_;
  RegionSet written_;                         // maybe not synced
  std::atomic<bool> unsynced_{false};
  std::atomic<bool> header_damaged_{false};
  const uint64_t boot_;
  std::atomic<bool> doubted_;
  std::atomic<uint64_t> known_pages_{0};      // table pages that a sync has covered: blank ones are a loss
  std::atomic<uint64_t> touched_pages_{0};    // table pages written since the last sync
};

}  // namespace shoal
