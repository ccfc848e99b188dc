// The layout of a replica file, byte by byte (docs/formats.md). All numbers are little-endian.
//
//   [0, 4 KiB)          header page: who this replica is
//   [4 KiB, 12 KiB)     two state pages, used in turn; the valid one with the higher sequence counts
//   [12 KiB, 144 KiB)   checksum table: 33 pages of 511 entries and the XXH3-64 of those
//   [256 KiB, +64 MiB)  the data; blocks never written are holes
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <string>

#include "common/ids.h"
#include "common/limits.h"
#include "common/result.h"

namespace shoal {

inline constexpr uint32_t kReplicaFormat = 1;
inline constexpr uint64_t kStateOffset = 4096;
inline constexpr uint64_t kTableOffset = 3 * 4096;
inline constexpr uint32_t kEntriesPerPage = 511;
inline constexpr uint32_t kBlocksPerChunk = kChunkSize / kBlockSize;
inline constexpr uint32_t kTablePages = (kBlocksPerChunk + kEntriesPerPage - 1) / kEntriesPerPage;
inline constexpr uint64_t kDataOffset = 256 << 10;
inline constexpr uint64_t kReplicaFileSize = kDataOffset + kChunkSize;

// Of the two state pages, which are written by turns, the one for this sequence number.
inline constexpr uint64_t StatePageOffset(uint64_t sequence) { return kStateOffset + (sequence + 1) % 2 * 4096; }

static_assert(kTableOffset + kTablePages * 4096ull <= kDataOffset);

// What the write-intent bitmap has a bit for.
inline constexpr uint32_t kRegionBytes = 256 << 10;
inline constexpr uint32_t kRegions = kChunkSize / kRegionBytes;
inline constexpr uint32_t RegionOf(uint32_t block) { return block / (kRegionBytes / kBlockSize); }
using RegionSet = std::bitset<kRegions>;

using Page = std::array<uint8_t, 4096>;
bool IsBlank(const Page& page);  // zeros

// The header page: magic "SHOALREP" | u32 format | u32 block size | u64 chunk size | u64 chunk | u64 instance |
// u32 version | u32 0 | 40 bytes cluster uuid (text, padded with zeros) | ... | at 504 the XXH3-64 of the page without
// these 8 bytes. All that ever changes lies in the first 512 bytes: a torn write leaves the old page or the new one.
// A plain value; errors (kCorrupt) say what is wrong.
struct ReplicaHeader {
  ChunkId chunk;
  InstanceId instance;
  ChunkVersion version;
  std::string cluster_uuid;

  void Encode(Page& page) const;
  static Result<ReplicaHeader> Decode(const Page& page);
  // Whether a page that does not match its checksum was this header: it has this header's checksum, or all the rest of it.
  bool IsProvenBy(const Page& damaged) const;
};

// A state page: magic "SHOALSTA" | u64 sequence | u32 version | u32 0 | u64 synced through (write number) | u64 table
// pages (bit i: page i was written and synced, so zeros in its place are a loss) | 32 bytes write-intent bitmap (bit i:
// region i of 256 KiB may differ from its checksums after a power cut; durable before the first write to the region) | u64 the
// operating system's run in which that was (0: not known) | ... | at 504 the checksum as in the header.
// A plain value.
struct ReplicaState {
  uint64_t sequence = 0;
  ChunkVersion version;
  uint64_t synced_through = 0;
  uint64_t table_pages = 0;
  RegionSet dirty_regions;
  uint64_t boot = 0;

  void Encode(Page& page) const;
  static Result<ReplicaState> Decode(const Page& page);
};

// One page of the checksum table: 511 entries and the XXH3-64 of their bytes. Entry 0: never written. A page of zeros
// is a page that was never written. A plain value.
struct TablePage {
  std::array<uint64_t, kEntriesPerPage> entries{};
  uint64_t checksum = 0;

  void Seal();
  bool Valid() const;  // sealed rightly, or blank
  bool Blank() const;
};
static_assert(sizeof(TablePage) == 4096);

inline constexpr uint32_t TablePageOf(uint32_t block) { return block / kEntriesPerPage; }
inline constexpr uint32_t TableSlotOf(uint32_t block) { return block % kEntriesPerPage; }
inline constexpr uint32_t FirstBlockAfter(uint32_t table_page) {
  return (table_page + 1) * kEntriesPerPage < kBlocksPerChunk ? (table_page + 1) * kEntriesPerPage : kBlocksPerChunk;
}
inline constexpr uint64_t TablePageOffset(uint32_t page) { return kTableOffset + page * 4096ull; }

// Names of replica files: "<chunk, 16 hex digits>.<instance, 16 hex digits>" in "chunks/<low byte of chunk, 2 hex>/".
std::string ReplicaFileName(ChunkId chunk, InstanceId instance);
std::string ReplicaDirectoryName(ChunkId chunk);
// False if it is not such a name.
bool ParseReplicaFileName(const std::string& name, ChunkId& chunk, InstanceId& instance);

}  // namespace shoal
