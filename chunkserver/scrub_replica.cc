// SCRUB_REPLICA: the metaserver wants a replica read from end to end, or to know what it has.
#include <fmt/format.h>

#include "chunkserver/scrub.h"
#include "chunkserver/service.h"

namespace shoal {

Task<void> Service::ScrubReplica(Request request) {
  pb::ScrubReplicaRequest message;
  Status ok = request.Parse(message);
  std::shared_ptr<Replica> replica;
  if (ok) {
    replica = node_.store->Find(ChunkId{message.chunk()}, InstanceId{message.instance()});
    if (!replica) ok = Fail(ErrorCode::kNoReplica, fmt::format("no replica of chunk {:016x} here", message.chunk()));
  }
  pb::ScrubReplicaResponse response;
  if (ok) ok = co_await ScrubAll(replica, message, &response);
  if (replica) node_.store->LetGo(std::move(replica));
  if (ok) {
    request.Answer(response);
  } else {
    request.AnswerError(ok.error());
  }
}

Task<Status> Service::ScrubAll(std::shared_ptr<Replica> replica, const pb::ScrubReplicaRequest& message,
                               pb::ScrubReplicaResponse* response) {
  ReplicaStore& store = *node_.store;
  ChunkVersion version{message.version()};
  OnQueue read(loop_, replica->disk.work(), [&] { return ScrubTable(store, replica, version); });
  Result<ScrubbedTable> table = co_await read;
  if (!table) {
    ErrorCode code = table.error().code;
    if (code == ErrorCode::kCorrupt || code == ErrorCode::kIo || code == ErrorCode::kNoReplica)
      node_.metrics.scrub_errors.Add();
    co_return Fail(std::move(table).error());
  }
  response->set_digest(table->digest);
  response->set_applied(table->applied);
  response->set_numbering(table->numbering);
  response->set_known(table->known);
  response->set_doubted(table->doubted);
  if (message.table_only()) co_return Status();
  for (uint32_t at = table->NextPiece(0); at < kChunkSize; at = table->NextPiece(at + kMaxIo)) {
    if (stopping_) co_return Fail(ErrorCode::kUnavailable, "the chunkserver is stopping");
    OnQueue piece(loop_, replica->disk.work(), [&] { return ScrubPiece(store, replica, version, at); });
    Result<uint32_t> bytes = co_await piece;
    if (!bytes && bytes.error().code == ErrorCode::kNoReplica)
      co_return Fail(ErrorCode::kNotReady, "it was dropped meanwhile");
    if (!bytes) {
      node_.metrics.scrub_errors.Add();
      co_return Fail(std::move(bytes).error());
    }
    response->set_bytes(response->bytes() + *bytes);
    node_.metrics.scrubbed_bytes.Add(*bytes);
  }
  node_.metrics.scrubbed_replicas.Add();
  co_return Status();
}

}  // namespace shoal
