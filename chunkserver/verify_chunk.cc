// VERIFY_CHUNK: somebody got bytes from here that did not match. Is it the replica?
#include <fmt/format.h>

#include <algorithm>

#include "chunkserver/service.h"

namespace shoal {

Task<void> Service::VerifyChunk(Request request) {
  pb::VerifyChunkRequest message;
  Status ok = request.Parse(message);
  std::shared_ptr<Replica> replica;
  if (ok) {
    replica = node_.store->Find(ChunkId{message.chunk()}, InstanceId{message.instance()});
    if (!replica) ok = Fail(ErrorCode::kNoReplica, fmt::format("no replica of chunk {:016x} here", message.chunk()));
  }
  if (ok && (message.offset() >= kChunkSize || message.length() > kChunkSize - message.offset())) {
    ok = Fail(ErrorCode::kInvalidArgument, "the range lies outside the chunk");
  }
  if (!ok) {
    request.AnswerError(ok.error());
    co_return;
  }
  pb::VerifyChunkResponse response;
  response.set_good(true);
  ChunkVersion version{message.version()};
  uint32_t at = message.offset() / kBlockSize * kBlockSize;
  uint32_t end = (message.offset() + message.length() + kBlockSize - 1) / kBlockSize * kBlockSize;
  while (at < end && response.good()) {
    uint32_t length = std::min<uint32_t>(end - at, kMaxIo);
    Result<ReadBlocks> blocks = co_await ReadBlocksOf(replica, version, at, length, true);
    if (!blocks && (blocks.error().code == ErrorCode::kCorrupt || blocks.error().code == ErrorCode::kIo)) {
      response.set_good(false);
    } else if (!blocks) {
      request.AnswerError(blocks.error());
      co_return;
    }
    at += length;
  }
  request.Answer(response);
}

}  // namespace shoal
