// READ_TABLE: the checksums of all blocks, for copying and levelling.
#include <fmt/format.h>

#include <cstring>

#include "chunkserver/service.h"

namespace shoal {

Task<void> Service::ReadTable(Request request) {
  pb::ReadTableRequest message;
  Status ok = request.Parse(message);
  if (ok) ok = node_.lease.Check(node_.metrics);
  std::shared_ptr<Replica> replica;
  if (ok) {
    replica = node_.store->Find(ChunkId{message.chunk()}, InstanceId{message.instance()});
    if (!replica) ok = Fail(ErrorCode::kNoReplica, fmt::format("no replica of chunk {:016x} here", message.chunk()));
  }
  if (!ok) {
    request.AnswerError(ok.error());
    co_return;
  }
  ChunkVersion version{message.version()};
  Result<std::shared_ptr<ReplicaFile>> file = co_await OpenFor(replica, version);
  if (!file) {
    request.AnswerError(file.error());
    co_return;
  }
  pb::ReadTableResponse response;
  OnQueue read(loop_, replica->disk.work(), [&] {
    std::shared_lock io(replica->io);  // the table and the write number belong together
    auto table = (*file)->ReadTable();
    if (!table && table.error().code == ErrorCode::kCorrupt) {
      io.unlock();
      node_.store->MarkDamaged(replica, table.error());
      bool mended = node_.store->Mend(replica, **file);
      io.lock();
      if (mended) table = (*file)->ReadTable();
    }
    std::lock_guard lock(replica->mutex);
    response.set_applied(replica->order.applied());
    response.set_numbering(replica->order.numbering());
    response.set_known(replica->order.known());
    return table;
  });
  Result<std::vector<uint64_t>> table = co_await read;
  if (ok = node_.lease.Check(node_.metrics); table && !ok) table = Fail(ok.error());
  if (!table) {
    if (table.error().code == ErrorCode::kCorrupt || table.error().code == ErrorCode::kIo) {
      node_.store->Judge(replica, table.error());
    }
    if (table.error().code == ErrorCode::kNotReady) node_.store->ReportDoubt(replica, table.error());
    request.AnswerError(table.error());
    co_return;
  }
  response.set_blocks(static_cast<uint32_t>(table->size()));
  Payload payload;
  payload.push_back(Buffer::Allocate(table->size() * sizeof(uint64_t)));
  std::memcpy(payload[0].mutable_data(), table->data(), payload[0].size());
  request.Answer(response, std::move(payload));
}

}  // namespace shoal
