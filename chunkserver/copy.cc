#include "chunkserver/copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "chunkserver/service.h"
#include "chunkserver/work_queue.h"
#include "common/checksum.h"
#include "common/proto/chunk.pb.h"

namespace shoal {
namespace {

constexpr Duration kCallTimeout = 10s;
constexpr uint32_t kBlocksAtOnce = kMaxIo / kBlockSize;
constexpr uint64_t kUnknownContent = ~0ull;  // as an own checksum: equal to no other

// Blocks of the target that its table describes wrongly get kUnknownContent.
void VerifyBlocks(const ReadBlocks& blocks, uint32_t first, std::vector<uint64_t>& table) {
  for (uint32_t i = 0; i < blocks.checksums.size(); ++i) {
    uint64_t& entry = table[first + i];
    bool bad = entry != 0 && BlockChecksum(blocks.data.data() + uint64_t{i} * kBlockSize, kBlockSize) != entry;
    if (bad) entry = kUnknownContent;
  }
}

Status VerifyOwn(ReplicaFile& file, std::vector<uint64_t>& table) {
  for (uint32_t first = 0; first < table.size(); first += kBlocksAtOnce) {
    bool any = std::any_of(table.begin() + first, table.begin() + first + kBlocksAtOnce, [](uint64_t e) { return e != 0; });
    if (!any) continue;
    TRY_ASSIGN(auto blocks, file.Read(first * kBlockSize, kBlocksAtOnce * kBlockSize, ReplicaFile::Wait::kYes, false));
    VerifyBlocks(blocks, first, table);
  }
  return {};
}

// What a source answered, as an error of this server: kChainFailed when the source's replica is to blame. Passed on
// unchanged it would look as if this server's own replica were bad, and the last good copy could be left out for it.
Error SourceError(Error error) {
  switch (error.code) {
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo:
    case ErrorCode::kNoReplica:
    case ErrorCode::kVersionMismatch:
    case ErrorCode::kChecksumMismatch:
      error.code = ErrorCode::kChainFailed;
      break;
    default:
      break;
  }
  return error;
}

}  // namespace

Task<Result<SourceTable>> FetchTable(CopySource source) {
  pb::ReadTableRequest request;
  request.set_chunk(source.chunk.value);
  request.set_version(source.version.value);
  request.set_instance(source.instance.value);
  Payload nothing;
  auto reply = co_await CallTyped<pb::ReadTableResponse>(source.connection, pb::READ_TABLE, request, std::move(nothing),
                                                         kCallTimeout);
  if (!reply) co_return Fail(SourceError(std::move(reply).error()));
  if (reply->message.blocks() != kBlocksPerChunk || reply->payload.size() != kBlocksPerChunk * sizeof(uint64_t)) {
    co_return Fail(ErrorCode::kBadMessage, "the source's checksum table has another size");
  }
  SourceTable table;
  table.entries.resize(kBlocksPerChunk);
  std::memcpy(table.entries.data(), reply->payload.data(), reply->payload.size());
  table.applied = reply->message.applied();
  table.numbering = reply->message.numbering();
  table.known = reply->message.known();
  co_return table;
}

Copying::Copying(EventLoop& loop, Node& node, Peers& peers, std::optional<CopySource> source, OtherReplicas others,
                 std::shared_ptr<Replica> target, std::shared_ptr<ReplicaFile> file, uint64_t max_bytes_per_second)
    : loop_(loop),
      node_(node),
      peers_(peers),
      source_(std::move(source)),
      others_(std::move(others)),
      target_(std::move(target)),
      file_(std::move(file)),
      max_bytes_per_second_(max_bytes_per_second) {}

Task<Result<std::vector<uint64_t>>> Copying::OwnTable(bool verify) {
  OnQueue read(loop_, target_->disk.work(), [&]() -> Result<std::vector<uint64_t>> {
    std::shared_lock io(target_->io);
    TRY_ASSIGN(auto table, file_->ReadTable());
    if (verify) {
      TRY(VerifyOwn(*file_, table));
    }
    return table;
  });
  Result<std::vector<uint64_t>> table = co_await read;
  bool bad = !table && (table.error().code == ErrorCode::kCorrupt || table.error().code == ErrorCode::kIo);
  if (bad && target_->exists) node_.store->Judge(target_, table.error());
  co_return table;
}

Task<Status> Copying::Level(const SourceTable& table, bool verify_own, const std::set<uint32_t>& lost) {
  Result<std::vector<uint64_t>> own = co_await OwnTable(verify_own);
  if (!own) co_return Fail(std::move(own).error());
  still_damaged_ = 0;
  for (uint32_t block : lost) {
    if (block >= kBlocksPerChunk) continue;
    still_damaged_ += (*own)[block] == kUnknownContent;
    (*own)[block] = table.entries[block];
  }
  std::vector<ChunkRange> zeros;
  uint32_t run = 0;  // blocks before i that are to be copied
  for (uint32_t i = 0; i <= kBlocksPerChunk; ++i) {
    bool copy = i < kBlocksPerChunk && table.entries[i] != 0 && (*own)[i] != table.entries[i];
    if (run > 0 && (!copy || run == kBlocksAtOnce)) {
      CO_TRY(co_await CopyRun(i - run, run, table));
      run = 0;
    }
    if (copy) ++run;
    if (i == kBlocksPerChunk || table.entries[i] != 0 || (*own)[i] == 0) continue;
    if (!zeros.empty() && zeros.back().offset + zeros.back().length == i * kBlockSize) {
      zeros.back().length += kBlockSize;
    } else {
      zeros.push_back({i * kBlockSize, kBlockSize});
    }
  }
  co_return co_await ZeroBlocks(std::move(zeros));
}

Task<Result<WriteOperation>> Copying::Fetch(CopySource source, uint32_t first_block, uint32_t count) {
  pb::ReadChunkRequest request;
  request.set_chunk(source.chunk.value);
  request.set_version(source.version.value);
  request.set_instance(source.instance.value);
  request.set_offset(first_block * kBlockSize);
  request.set_length(count * kBlockSize);
  Payload nothing;
  auto reply = co_await CallTyped<pb::ReadChunkResponse>(source.connection, pb::READ_CHUNK, request, std::move(nothing),
                                                         kCallTimeout);
  if (!reply) co_return Fail(SourceError(std::move(reply).error()));
  if (reply->payload.size() != uint64_t{count} * kBlockSize || reply->message.checksums_size() != static_cast<int>(count)) {
    co_return Fail(ErrorCode::kBadMessage, "the source answered another number of blocks");
  }
  WriteOperation write;
  write.ranges.push_back({first_block * kBlockSize, count * kBlockSize});
  if (count == 1 && reply->message.checksums(0) == 0) {
    write.kind = WriteOperation::Kind::kZero;
    co_return write;
  }
  write.payload = reply->payload;
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t sum = reply->message.checksums(static_cast<int>(i));
    // A block that was zeroed at the source meanwhile: zeros, then.
    if (sum == 0) sum = BlockChecksum(write.payload.data() + uint64_t{i} * kBlockSize, kBlockSize);
    write.checksums.push_back(sum);
  }
  Status intact = VerifyPayload(write);
  if (!intact) co_return Fail(SourceError(std::move(intact).error()));
  co_return write;
}

Task<Status> Copying::CopyRun(uint32_t first_block, uint32_t count, const SourceTable& table) {
  Result<WriteOperation> write = co_await Fetch(*source_, first_block, count);
  if (write) {
    CO_TRY(co_await Apply(std::move(*write)));
    co_await Throttle(uint64_t{count} * kBlockSize);
    co_return Status();
  }
  if (write.error().code != ErrorCode::kChainFailed || (count == 1 && others_.replicas.empty())) {
    co_return Fail(std::move(write).error());
  }
  // One of them is damaged at the source.
  for (uint32_t block = first_block; block < first_block + count; ++block) {
    Result<WriteOperation> one = co_await Fetch(*source_, block, 1);
    Status copied;
    if (one) {
      copied = co_await Apply(std::move(*one));
    } else if (one.error().code == ErrorCode::kChainFailed) {
      copied = co_await TakeFromOthers(block, table.entries[block], 0);
    } else {
      copied = Fail(std::move(one).error());
    }
    if (!copied) co_return copied;
    co_await Throttle(kBlockSize);
  }
  co_return Status();
}

// From the first that has it exactly as `wanted`, else from the first of those that are sure.
Task<Status> Copying::TakeFromOthers(uint32_t block, uint64_t wanted, size_t sure) {
  for (size_t i = connected_.size(); i < others_.replicas.size(); ++i) {
    const pb::Replica& other = others_.replicas[i];
    std::string address = other.address();
    auto connection = co_await peers_.Get(address, 0, 2s);
    connected_.emplace_back();
    if (!connection) continue;
    connected_.back() = CopySource{*connection, target_->chunk, ChunkVersion{}, InstanceId{other.instance()}};
  }
  std::optional<WriteOperation> second;
  for (size_t i = 0; i < connected_.size(); ++i) {
    if (!connected_[i] || connected_[i]->connection->closed()) continue;
    CopySource from = *connected_[i];
    Result<WriteOperation> got = co_await Fetch(from, block, 1);
    if (!got) continue;
    bool exact = got->kind == WriteOperation::Kind::kData && got->checksums[0] == wanted;
    if (exact) co_return co_await Apply(std::move(*got));
    if (i < sure && !second) second = std::move(*got);
  }
  if (second) co_return co_await Apply(std::move(*second));
  co_return Fail(ErrorCode::kChainFailed, fmt::format("block {} is good on no replica in reach", block));
}

Task<Result<std::vector<uint32_t>>> Copying::FindDamaged() {
  Result<std::vector<uint64_t>> own = co_await OwnTable(true);
  if (!own) co_return Fail(std::move(own).error());
  std::vector<uint32_t> damaged;
  for (uint32_t block = 0; block < kBlocksPerChunk; ++block) {
    if ((*own)[block] == kUnknownContent) damaged.push_back(block);
  }
  co_return damaged;
}

Task<Status> Copying::Heal(std::vector<uint32_t>* blocks, bool all_sure) {
  Result<std::vector<uint64_t>> own = co_await OwnTable(false);
  if (!own) co_return Fail(std::move(own).error());
  std::vector<uint32_t> left;
  for (uint32_t block : *blocks) {
    size_t sure = all_sure ? others_.replicas.size() : others_.sure;
    Status taken = co_await TakeFromOthers(block, (*own)[block], sure);
    if (!taken && taken.error().code != ErrorCode::kChainFailed) co_return taken;
    if (taken) co_await Throttle(kBlockSize);
    if (!taken) left.push_back(block);
  }
  *blocks = std::move(left);
  co_return Status();
}

Task<void> Copying::Throttle(uint64_t bytes) {
  bytes_ += bytes;
  node_.metrics.copied_bytes.Add(bytes);
  if (max_bytes_per_second_ == 0) co_return;
  auto due = start_ + std::chrono::nanoseconds(static_cast<int64_t>(1e9 * static_cast<double>(bytes_) /
                                                                    static_cast<double>(max_bytes_per_second_)));
  auto now = std::chrono::steady_clock::now();
  if (due > now) {
    auto nap = loop_.Sleep(due - now);
    co_await nap;
  }
}

Task<Status> Copying::ZeroBlocks(std::vector<ChunkRange> ranges) {
  for (size_t at = 0; at < ranges.size(); at += 256) {
    WriteOperation write;
    write.kind = WriteOperation::Kind::kZero;
    write.ranges.assign(ranges.begin() + static_cast<ptrdiff_t>(at),
                        ranges.begin() + static_cast<ptrdiff_t>(std::min(ranges.size(), at + 256)));
    CO_TRY(co_await Apply(std::move(write)));
  }
  co_return Status();
}

Task<Status> Copying::Apply(WriteOperation write) {
  OnQueue apply(loop_, target_->disk.work(), [&]() -> Status {
    if (write.kind == WriteOperation::Kind::kData) {
      TRY(target_->disk.CheckSpace(write.payload.size(), true));
    }
    std::unique_lock io(target_->io);
    TRY_ASSIGN(WriteEffect effect, file_->Apply(write, target_->disk.intent()));
    target_->disk.AddUsed(effect.allocated_bytes);
    return {};
  });
  Status applied = co_await apply;
  if (!applied) target_->disk.Note(applied.error());
  co_return applied;
}

}  // namespace shoal
