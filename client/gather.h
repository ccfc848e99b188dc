// Gather: the bytes of one chunk that were written and not yet sent.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "common/buffer.h"

namespace shoal::client {

// One write request in the making: pieces ascending, not overlapping; neighbours may touch. A plain value.
struct WriteBatch {
  struct Piece {
    uint32_t offset = 0;  // in the chunk
    Buffer bytes;
  };
  std::vector<Piece> pieces;
  size_t bytes = 0;
  bool empty() const { return pieces.empty(); }
};

// A map from offsets to bytes where the last writer wins. Owner: the inode's state in the engine; lives on its loop.
// No errors. Small data is copied into blocks that grow with a sequential writer; data of kShareBytes and more is
// kept as a reference to the writer's block, which must not change any more.
class Gather {
 public:
  static constexpr size_t kShareBytes = 64 << 10;
  static constexpr size_t kMaxBatch = 1 << 20;       // bytes of one batch
  static constexpr size_t kMaxSegments = 256;        // runs of bytes in one batch

  void Insert(uint32_t offset, const Buffer& data);
  size_t bytes() const { return bytes_; }
  bool empty() const { return pieces_.empty(); }
  uint32_t end() const;  // behind the last byte; 0 when empty
  bool Overlaps(uint32_t begin, uint32_t end) const;
  // Copies [begin, end) to `to` when every byte of it is here; false otherwise.
  bool ReadIfCovered(uint32_t begin, uint32_t end, uint8_t* to) const;
  // Takes the next batch out. A run that goes on behind the batch is cut at a multiple of 4096.
  WriteBatch Take();

 private:
  struct Piece {
    Buffer block;
    uint32_t start = 0;     // of the piece in the block
    uint32_t length = 0;
    bool own = false;       // the block was made here: its bytes may be overwritten
    bool growable = false;  // ... and the room behind the piece is free
  };
  using Pieces = std::map<uint32_t, Piece>;

  bool OverwriteOrAppend(uint32_t offset, const Buffer& data);
  void Cut(uint32_t begin, uint32_t end);

  Pieces pieces_;  // by offset in the chunk; not overlapping
  size_t bytes_ = 0;
};

}  // namespace shoal::client
