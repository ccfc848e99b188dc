#include "chunkserver/copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "chunkserver/work_queue.h"
#include "common/checksum.h"
#include "common/proto/chunk.pb.h"

namespace shoal {
namespace {

constexpr Duration kCallTimeout = 10s;
constexpr uint32_t kBlocksAtOnce = kMaxIo / kBlockSize;
constexpr uint64_t kUnknownContent = ~0ull;  // as an own checksum: equal to no other

// Blocks of the target that its table describes wrongly.
Status VerifyOwn(ReplicaFile& file, std::vector<uint64_t>& table) {
  for (uint32_t first = 0; first < table.size(); first += kBlocksAtOnce) {
    bool any = std::any_of(table.begin() + first, table.begin() + first + kBlocksAtOnce, [](uint64_t e) { return e != 0; });
    if (!any) continue;
    TRY_ASSIGN(auto blocks, file.Read(first * kBlockSize, kBlocksAtOnce * kBlockSize, ReplicaFile::Wait::kYes, false));
    for (uint32_t i = 0; i < kBlocksAtOnce; ++i) {
      bool bad = table[first + i] != 0 &&
                 BlockChecksum(blocks.data.data() + uint64_t{i} * kBlockSize, kBlockSize) != table[first + i];
      if (bad) table[first + i] = kUnknownContent;
    }
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

Copying::Copying(EventLoop& loop, Node& node, CopySource source, std::shared_ptr<Replica> target,
                 std::shared_ptr<ReplicaFile> file, uint64_t max_bytes_per_second)
    : loop_(loop),
      node_(node),
      source_(std::move(source)),
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
  if (bad && target_->exists) node_.store->MarkBad(target_, table.error());
  co_return table;
}

Task<Status> Copying::Level(const SourceTable& table, bool verify_own) {
  Result<std::vector<uint64_t>> own = co_await OwnTable(verify_own);
  if (!own) co_return Fail(std::move(own).error());
  std::vector<ChunkRange> zeros;
  uint32_t run = 0;  // blocks before i that are to be copied
  for (uint32_t i = 0; i <= kBlocksPerChunk; ++i) {
    bool copy = i < kBlocksPerChunk && table.entries[i] != 0 && (*own)[i] != table.entries[i];
    if (run > 0 && (!copy || run == kBlocksAtOnce)) {
      CO_TRY(co_await CopyRun(i - run, run));
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

Task<Status> Copying::CopyRun(uint32_t first_block, uint32_t count) {
  pb::ReadChunkRequest request;
  request.set_chunk(source_.chunk.value);
  request.set_version(source_.version.value);
  request.set_instance(source_.instance.value);
  request.set_offset(first_block * kBlockSize);
  request.set_length(count * kBlockSize);
  Payload nothing;
  auto reply = co_await CallTyped<pb::ReadChunkResponse>(source_.connection, pb::READ_CHUNK, request, std::move(nothing),
                                                         kCallTimeout);
  if (!reply) co_return Fail(SourceError(std::move(reply).error()));
  if (reply->payload.size() != uint64_t{count} * kBlockSize || reply->message.checksums_size() != static_cast<int>(count)) {
    co_return Fail(ErrorCode::kBadMessage, "the source answered another number of blocks");
  }
  WriteOperation write;
  write.ranges.push_back({first_block * kBlockSize, count * kBlockSize});
  write.payload = reply->payload;
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t sum = reply->message.checksums(static_cast<int>(i));
    // A block that was zeroed at the source meanwhile: zeros, then.
    if (sum == 0) sum = BlockChecksum(write.payload.data() + uint64_t{i} * kBlockSize, kBlockSize);
    write.checksums.push_back(sum);
  }
  Status intact = VerifyPayload(write);
  if (!intact) co_return Fail(SourceError(std::move(intact).error()));
  CO_TRY(co_await Apply(std::move(write)));
  bytes_ += uint64_t{count} * kBlockSize;
  node_.metrics.copied_bytes.Add(uint64_t{count} * kBlockSize);
  if (max_bytes_per_second_ != 0) {
    auto due = start_ + std::chrono::nanoseconds(static_cast<int64_t>(1e9 * static_cast<double>(bytes_) /
                                                                      static_cast<double>(max_bytes_per_second_)));
    auto now = std::chrono::steady_clock::now();
    if (due > now) {
      auto nap = loop_.Sleep(due - now);
      co_await nap;
    }
  }
  co_return Status();
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
