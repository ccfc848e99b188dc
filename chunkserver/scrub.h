// What scrubbing does to one replica: reads it from the disk and compares it with its checksums, a piece at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "chunkserver/store.h"

namespace shoal {

// The checksum table of a replica, and which writes it has. A plain value.
struct ScrubbedTable {
  std::vector<uint64_t> entries;
  uint64_t digest = 0;  // of all entries
  uint64_t applied = 0, numbering = 0;
  bool known = false;    // of the two above
  bool doubted = false;  // a power cut may have set it back

  // The first piece (of kMaxIo bytes) from `offset` on that has something written; kChunkSize: none.
  uint32_t NextPiece(uint32_t offset) const;
};

// Both are called on a disk thread, read past the page cache as far as that is clean, and judge what they find:
// kCorrupt, kIo and kNoReplica make a bad replica (ReplicaStore::MarkBad), kNotReady is reported as a doubt. Other
// errors say nothing of the replica: kVersionMismatch (`version` zero: any), kOverloaded.

// The file is there under its name, is whole, and its header is its own; the table.
Result<ScrubbedTable> ScrubTable(ReplicaStore& store, const std::shared_ptr<Replica>& replica, ChunkVersion version);
// The data of one piece. The number of bytes that had to be read.
Result<uint32_t> ScrubPiece(ReplicaStore& store, const std::shared_ptr<Replica>& replica, ChunkVersion version,
                            uint32_t offset);

}  // namespace shoal
