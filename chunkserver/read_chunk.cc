// READ_CHUNK: blocks with their checksums, from the page cache on the loop if they are there.
#include <fmt/format.h>

#include "chunkserver/service.h"

namespace shoal {

// The open file, if the replica has that version (zero: any). kWouldBlock: not open.
Result<std::shared_ptr<ReplicaFile>> Service::FileFor(Replica& replica, ChunkVersion version) {
  replica.touched.store(true, std::memory_order_relaxed);
  std::lock_guard lock(replica.mutex);
  if (replica.dropped || !replica.exists) return Fail(ErrorCode::kNoReplica, "no replica of that chunk here");
  if (!replica.file) return Fail(ErrorCode::kWouldBlock);
  if (version && replica.version != version) {
    return Fail(ErrorCode::kVersionMismatch,
                fmt::format("the replica has version {}, not {}", replica.version.value, version.value));
  }
  return replica.file;
}

Task<Result<std::shared_ptr<ReplicaFile>>> Service::OpenFor(std::shared_ptr<Replica> replica, ChunkVersion version) {
  Result<std::shared_ptr<ReplicaFile>> file = FileFor(*replica, version);
  for (int attempt = 0; !file && file.error().code == ErrorCode::kWouldBlock && attempt < 8; ++attempt) {
    Status loaded = co_await EnsureLoaded(replica);
    if (!loaded) co_return Fail(std::move(loaded).error());
    file = FileFor(*replica, version);
  }
  if (!file && file.error().code == ErrorCode::kWouldBlock) {
    co_return Fail(ErrorCode::kOverloaded, "too few files can be open");
  }
  co_return file;
}

Task<Result<ReadBlocks>> Service::ReadBlocksOf(std::shared_ptr<Replica> replica, ChunkVersion version, uint32_t offset,
                                               uint32_t length, bool verify) {
  Result<std::shared_ptr<ReplicaFile>> opened = co_await OpenFor(replica, version);
  if (!opened) co_return Fail(std::move(opened).error());
  std::shared_ptr<ReplicaFile> file = std::move(*opened);
  verify |= file->doubted();
  if (std::shared_lock io(replica->io, std::try_to_lock); io.owns_lock()) {
    auto cached = file->Read(offset, length, ReplicaFile::Wait::kNo, verify);
    if (cached) {
      node_.metrics.reads_cached.Add();
      co_return cached;
    }
    // Whatever else it is, the disk's thread will find it again, and judge it.
  }
  if (replica->disk.work().overloaded()) {
    node_.metrics.overloaded.Add();
    co_return Fail(ErrorCode::kOverloaded, "too many requests are waiting for the disk");
  }
  OnQueue read(loop_, replica->disk.work(), [&] {
    std::shared_lock io(replica->io);
    return file->Read(offset, length, ReplicaFile::Wait::kYes, verify);
  });
  Result<ReadBlocks> blocks = co_await read;
  if (!blocks && (blocks.error().code == ErrorCode::kCorrupt || blocks.error().code == ErrorCode::kIo)) {
    node_.store->Judge(replica, blocks.error());
  }
  if (!blocks && blocks.error().code == ErrorCode::kCorrupt) {
    OnQueue again(loop_, replica->disk.work(), [&]() -> Result<ReadBlocks> {
      if (!node_.store->Mend(replica, *file)) return std::move(blocks);
      std::shared_lock io(replica->io);
      return file->Read(offset, length, ReplicaFile::Wait::kYes, verify);
    });
    blocks = co_await again;
  }
  if (!blocks && blocks.error().code == ErrorCode::kNotReady) node_.store->ReportDoubt(replica, blocks.error());
  co_return blocks;
}

static Status CheckRange(uint32_t offset, uint32_t length) {
  bool good = offset % kBlockSize == 0 && length % kBlockSize == 0 && length > 0 && length <= kMaxIo &&
              uint64_t{offset} + length <= kChunkSize;
  if (good) return {};
  return Fail(ErrorCode::kInvalidArgument, fmt::format("can't read {}+{}: not whole blocks, too many, or outside the chunk", offset, length));
}

Task<void> Service::ReadChunk(Request request) {
  auto start = std::chrono::steady_clock::now();
  pb::ReadChunkRequest message;
  Status ok = request.Parse(message);
  if (ok) ok = node_.lease.Check(node_.metrics);
  if (ok) ok = CheckRange(message.offset(), message.length());
  std::shared_ptr<Replica> replica;
  if (ok) {
    replica = node_.store->Find(ChunkId{message.chunk()}, InstanceId{message.instance()});
    if (!replica) ok = Fail(ErrorCode::kNoReplica, fmt::format("no replica of chunk {:016x} here", message.chunk()));
  }
  if (!ok) {
    request.AnswerError(ok.error());
    co_return;
  }
  // Clients verify themselves; what another chunkserver is going to keep is verified before it leaves.
  bool verify = request.connection()->peer_role() == pb::ROLE_CHUNKSERVER;
  ChunkVersion version{message.version()};
  Result<ReadBlocks> blocks = co_await ReadBlocksOf(replica, version, message.offset(), message.length(), verify);
  ok = node_.lease.Check(node_.metrics);
  if (!blocks || !ok) {
    request.AnswerError(blocks ? ok.error() : blocks.error());
    co_return;
  }
  node_.metrics.reads.Add();
  node_.metrics.read_bytes.Add(message.length());
  pb::ReadChunkResponse response;
  response.mutable_checksums()->Add(blocks->checksums.begin(), blocks->checksums.end());
  Payload payload;
  payload.push_back(std::move(blocks->data));
  node_.metrics.read_latency.Record(std::chrono::steady_clock::now() - start);
  request.Answer(response, std::move(payload));
}

}  // namespace shoal
