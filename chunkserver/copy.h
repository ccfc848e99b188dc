// Copying from another chunkserver: all blocks, or those that differ.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chunkserver/node.h"
#include "chunkserver/replica.h"
#include "common/event_loop.h"
#include "common/rpc/rpc.h"

namespace shoal {

// Whom to copy from. A plain value.
struct CopySource {
  std::shared_ptr<Connection> connection;
  ChunkId chunk;
  ChunkVersion version;
  InstanceId instance;
};

// The checksums of all blocks of a source, and up to which write they are. A plain value.
struct SourceTable {
  std::vector<uint64_t> entries;
  uint64_t applied = 0;
  uint64_t numbering = 0;
  bool known = false;
};

Task<Result<SourceTable>> FetchTable(CopySource source);

// One copying on a loop: makes the blocks of `file` (of `target`, which nobody writes meanwhile) equal to the source's.
// Lives in the coroutine that awaits it. Disk work goes to the target's disk. Every block is verified at the source, and
// again on arrival. Errors: kChainFailed when the source's replica is to blame, else the connection's or this disk's;
// then part of the blocks is equal.
class Copying {
 public:
  Copying(EventLoop& loop, Node& node, CopySource source, std::shared_ptr<Replica> target,
          std::shared_ptr<ReplicaFile> file, uint64_t max_bytes_per_second);

  // `verify_own`: the target's blocks are read too, as what its table says of them may be wrong.
  Task<Status> Level(const SourceTable& table, bool verify_own);
  // One block, whatever the target has.
  Task<Status> CopyBlock(uint32_t block) { return CopyRun(block, 1); }
  uint64_t bytes() const { return bytes_; }

 private:
  Task<Result<std::vector<uint64_t>>> OwnTable(bool verify);
  Task<Status> CopyRun(uint32_t first_block, uint32_t count);
  Task<Status> ZeroBlocks(std::vector<ChunkRange> ranges);
  Task<Status> Apply(WriteOperation write);

  EventLoop& loop_;
  Node& node_;
  CopySource source_;
  std::shared_ptr<Replica> target_;
  std::shared_ptr<ReplicaFile> file_;
  uint64_t max_bytes_per_second_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  uint64_t bytes_ = 0;
};

}  // namespace shoal
