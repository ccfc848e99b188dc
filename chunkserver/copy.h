// Copying from other chunkservers: all blocks, those that differ, those that are damaged.
#pragma once

#include <memory>
#include <optional>
#include <set>
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

class Peers;

// The other replicas of a chunk, for blocks that are damaged where they should come from. The first `sure` of them have
// every write that was acknowledged. A plain value.
struct OtherReplicas {
  std::vector<pb::Replica> replicas;
  size_t sure = 0;
};

// One copying on a loop: makes the blocks of `file` (of `target`, which nobody writes meanwhile) equal to the source's, or
// good again. Lives in the coroutine that awaits it. Disk work goes to the target's disk. Every block is verified where it
// comes from, and again on arrival. Errors: kChainFailed when no replica can give a block, else the connection's or this
// disk's; then part of the blocks is equal.
//
// Why a block of another replica may stand in for a damaged one: in a recovery all members are frozen before the first
// SET_VERSION, and thawed by the new version only, of which no writer hears before it is committed: no write is under way
// anywhere, and what is fetched does not change. Each member has every acknowledged write (that is what acknowledged means),
// but those that a power cut may have set back: they are not `sure`. So where the checksum is known (the table's entry),
// a block that has exactly that is right, from whomever. Where nobody has that, the block of a sure member lacks at most
// writes that were never acknowledged, which their writers send again. Outside of recoveries (REPLICATE) only exact blocks
// are taken, and the write numbers before and after say whether the table was still true.
class Copying {
 public:
  // No source: for Heal only.
  Copying(EventLoop& loop, Node& node, Peers& peers, std::optional<CopySource> source, OtherReplicas others,
          std::shared_ptr<Replica> target, std::shared_ptr<ReplicaFile> file, uint64_t max_bytes_per_second);

  // `verify_own`: the target's blocks are read too, as what its table says of them may be wrong. `lost`: blocks that nobody
  // has good; the target's stay as they are.
  Task<Status> Level(const SourceTable& table, bool verify_own, const std::set<uint32_t>& lost);
  // The target's own blocks that do not match its table.
  Task<Result<std::vector<uint32_t>>> FindDamaged();
  // Takes these from the others, as their entries say or else as a sure one has them; `all_sure`: as anybody has them. Those
  // that nobody could give stay in `blocks`.
  Task<Status> Heal(std::vector<uint32_t>* blocks, bool all_sure);
  uint64_t bytes() const { return bytes_; }
  // Of the lost blocks, those that the target does not have good (known after Level with verify_own).
  size_t still_damaged() const { return still_damaged_; }

 private:
  Task<Result<std::vector<uint64_t>>> OwnTable(bool verify);
  Task<Status> CopyRun(uint32_t first_block, uint32_t count, const SourceTable& table);
  Task<Result<WriteOperation>> Fetch(CopySource source, uint32_t first_block, uint32_t count);
  Task<Status> TakeFromOthers(uint32_t block, uint64_t wanted, size_t sure);
  Task<Status> ZeroBlocks(std::vector<ChunkRange> ranges);
  Task<Status> Apply(WriteOperation write);
  Task<void> Throttle(uint64_t bytes);

  EventLoop& loop_;
  Node& node_;
  Peers& peers_;
  std::optional<CopySource> source_;
  OtherReplicas others_;
  std::vector<std::optional<CopySource>> connected_;  // to the others, once one was needed; none: not in reach
  std::shared_ptr<Replica> target_;
  std::shared_ptr<ReplicaFile> file_;
  uint64_t max_bytes_per_second_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  uint64_t bytes_ = 0;
  size_t still_damaged_ = 0;
};

}  // namespace shoal
