// WriteIntent: which blocks a disk is just overwriting, so that a killed process leaves no block without its checksum.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/files.h"
#include "common/ids.h"
#include "common/result.h"

namespace shoal {

// A block that a write is about to replace, and its checksum afterwards. A plain value.
struct BlockChange {
  uint32_t block = 0;
  uint64_t checksum = 0;
};

// The file DIR/intent: before a write replaces blocks that have a checksum, it says here what theirs will be. A process
// that is killed between the data and the table leaves each such block with its old bytes or its new ones: the next
// start finds out which, and corrects the table (ReplicaFile::Settle). Never synced: after a power cut it proves nothing
// and is only believed where the bytes match. One write at a time: the disk's thread. Owner: the Disk.
//
// Layout: magic "SHOALINT" | u32 format | u32 count | u64 chunk | u64 instance | count x (u32 block, u32 0, u64 checksum)
// | u64 XXH3-64 of all before.
class WriteIntent {
 public:
  // What was last written here.
  struct Content {
    ChunkId chunk;
    InstanceId instance;
    std::vector<BlockChange> changes;
  };

  // Opens or makes the file, and takes out what the last process left (nothing, if it is not readable as such).
  static Result<std::unique_ptr<WriteIntent>> Open(Files& files, const std::string& path);
  const Content& left_behind() const { return left_behind_; }

  Status Note(ChunkId chunk, InstanceId instance, const std::vector<BlockChange>& changes);

 private:
  explicit WriteIntent(std::unique_ptr<File> file) : file_(std::move(file)) {}

  std::unique_ptr<File> file_;
  Content left_behind_;
  std::vector<uint8_t> bytes_;
};

}  // namespace shoal
