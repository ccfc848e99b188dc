#include "client/writer.h"

#include <algorithm>

#include "common/checksum.h"
#include "common/limits.h"
#include "common/log.h"

namespace shoal::client {
namespace {

constexpr Duration kSyncTry = 5s;         // a sync request waits for disks
constexpr Duration kLongestTry = 60s;
constexpr Duration kConnectTry = 2s;
constexpr uint64_t kCommitBytes = 16 << 20;  // a file that grew by that much is committed

// One checksum for each part of the segment within one block.
void AddChecksums(uint32_t offset, std::span<const uint8_t> bytes, std::vector<uint64_t>& sums) {
  size_t at = 0;
  while (at < bytes.size()) {
    size_t in_block = (offset + at) % kBlockSize;
    size_t n = std::min(bytes.size() - at, kBlockSize - in_block);
    sums.push_back(BlockChecksum(bytes.data() + at, n));
    at += n;
  }
}

bool Overlap(const WriteOp& a, const WriteOp& b) {
  if (a.end <= b.begin || b.end <= a.begin) return false;
  for (auto [offset, length] : a.segments) {
    for (auto [other, other_length] : b.segments) {
      if (offset < other + other_length && other < offset + length) return true;
    }
  }
  return false;
}

}  // namespace

// ---- gathering ----

ChunkWriter& Writer::WriterOf(InodeState& state, uint64_t index) {
  auto& writer = state.writers[index];
  if (!writer) writer = std::make_shared<ChunkWriter>(index);
  return *writer;
}

void Writer::Track(const StatePtr& state) {
  if (std::exchange(state->gathered, true)) return;
  core_.to_write.insert(state);
}

void Writer::Add(const StatePtr& state, uint64_t offset, const Buffer& data, bool kill_suid_sgid) {
  ++state->write_epoch;
  Track(state);
  for (size_t at = 0; at < data.size();) {
    uint64_t index = (offset + at) / kChunkSize;
    auto in_chunk = static_cast<uint32_t>((offset + at) % kChunkSize);
    size_t n = std::min<size_t>(data.size() - at, kChunkSize - in_chunk);
    ChunkWriter& writer = WriterOf(*state, index);
    if (writer.gather.empty()) writer.oldest = Core::Now();
    size_t before = writer.gather.bytes();
    writer.gather.Insert(in_chunk, n == data.size() ? data : data.Slice(at, n));
    core_.dirty_bytes += writer.gather.bytes() - before;
    if (writer.gather.bytes() >= core_.options.gather_bytes) Cut(state, writer, false);
    at += n;
  }
  state->local_end = std::max(state->local_end, offset + data.size());
  state->local_mtime_ns = WallClock();
  state->kill_suid_sgid |= kill_suid_sgid;
}

void Writer::AddZeros(const StatePtr& state, uint64_t index, uint32_t begin, uint32_t end) {
  ++state->write_epoch;
  Track(state);
  ChunkWriter& writer = WriterOf(*state, index);
  auto op = std::make_shared<WriteOp>();
  op->kind = pb::WRITE_ZERO;
  op->segments.emplace_back(begin, end - begin);
  op->begin = begin;
  op->end = end;
  op->seq = op->write_id = core_.next_seq++;
  writer.queue.push_back(std::move(op));
  state->local_mtime_ns = WallClock();
  Start(state, writer);
}

void Writer::Extend(const StatePtr& state, uint64_t size) {
  if (size <= state->size()) return;
  Track(state);
  state->local_end = size;
  state->local_mtime_ns = WallClock();
  if (!std::exchange(state->pending, true)) state->pending_since = Core::Now();
  state->pending_end = std::max(state->pending_end, size);
}

Task<Status> Writer::MakeRoom(size_t bytes) {
  while (!HasRoom(bytes)) {
    if (core_.stopping) co_return Fail(ErrorCode::kCancelled, "the client is being stopped");
    // Everything goes: the memory is used up, whoever used it.
    std::vector<StatePtr> all(core_.to_write.begin(), core_.to_write.end());
    for (const StatePtr& state : all) Push(state);
    if (!HasRoom(bytes)) co_await core_.room.Wait();
  }
  co_return Status{};
}

void Writer::Credit(size_t bytes) {
  if (bytes == 0) return;
  core_.dirty_bytes -= bytes;
  if (!core_.room.empty()) core_.room.WakeAll();
}

// ---- requests ----

void Writer::MakeOp(const StatePtr& state, ChunkWriter& writer, WriteBatch batch) {
  auto op = std::make_shared<WriteOp>();
  op->bytes = batch.bytes;
  op->begin = batch.pieces.front().offset;
  for (WriteBatch::Piece& piece : batch.pieces) {
    auto length = static_cast<uint32_t>(piece.bytes.size());
    if (!op->segments.empty() && op->end == piece.offset) {
      op->segments.back().second += length;
    } else {
      op->segments.emplace_back(piece.offset, length);
    }
    op->end = piece.offset + length;
    op->payload.push_back(std::move(piece.bytes));
  }
  // A block whose bytes lie in several pieces has one checksum: they are brought together.
  bool split = false;
  for (size_t i = 1; i < batch.pieces.size(); ++i) {
    split |= batch.pieces[i].offset % kBlockSize != 0 &&
             batch.pieces[i - 1].offset + op->payload[i - 1].size() == batch.pieces[i].offset;
  }
  if (split) op->payload = {Flatten(op->payload)};
  if (op->payload.size() == 1) {
    size_t at = 0;
    for (auto [offset, length] : op->segments) {
      AddChecksums(offset, op->payload[0].bytes().subspan(at, length), op->checksums);
      at += length;
    }
  } else {
    for (size_t i = 0; i < batch.pieces.size(); ++i) {
      AddChecksums(batch.pieces[i].offset, op->payload[i].bytes(), op->checksums);
    }
  }
  op->seq = op->write_id = core_.next_seq++;
  writer.queue.push_back(std::move(op));
  Start(state, writer);
}

void Writer::Cut(const StatePtr& state, ChunkWriter& writer, bool all) {
  while (!writer.gather.empty() && (all || writer.gather.bytes() >= core_.options.gather_bytes)) {
    MakeOp(state, writer, writer.gather.Take());
  }
  writer.oldest = Core::Now();
}

void Writer::Push(const StatePtr& state, bool sync) {
  std::vector<std::shared_ptr<ChunkWriter>> writers;
  for (auto& [index, writer] : state->writers) writers.push_back(writer);
  for (auto& writer : writers) {
    if (sync && !writer->gather.empty()) {
      // The last request is made last: it gets the flag before it is sent.
      std::vector<WriteBatch> batches;
      while (!writer->gather.empty()) batches.push_back(writer->gather.Take());
      bool was_running = std::exchange(writer->running, true);  // nothing is sent while they are made
      for (WriteBatch& batch : batches) MakeOp(state, *writer, std::move(batch));
      writer->queue.back()->sync = true;
      writer->running = was_running;
      Start(state, *writer);
    } else {
      Cut(state, *writer, true);
      if (sync && !writer->queue.empty() && !writer->queue.back()->sent && !writer->queue.back()->done) {
        writer->queue.back()->sync = true;
      }
    }
  }
}

void Writer::Start(const StatePtr& state, ChunkWriter& writer) {
  if (writer.running) {
    state->progress.WakeAll();
    return;
  }
  if (writer.queue.empty()) return;
  writer.running = true;
  std::shared_ptr<ChunkWriter> shared = writer.shared_from_this();
  state->writers.try_emplace(writer.index, shared);
  core_.tasks.Spawn(Run(state, std::move(shared)));
}

Task<void> Writer::Run(StatePtr state, std::shared_ptr<ChunkWriter> writer) {
  while (!writer->queue.empty()) {
    if (core_.stopping) {
      Error stopped{ErrorCode::kCancelled, "the client was stopped before the data was written"};
      GiveUp(state, *writer, stopped);
      break;
    }
    if (writer->failed && writer->in_flight > 0) {
      co_await state->progress.Wait();
      continue;
    }
    LocationPtr location = Locator::Cached(*state, writer->index);
    if (writer->failed) {
      Status recovered = co_await Recover(state, writer, location, writer->failure);
      writer->failed = false;
      if (!recovered) GiveUp(state, *writer, recovered.error());
      continue;
    }
    // A grant is of a session: without one, nothing would fence the write.
    if (!location || !location->chunk || location->lease == 0 || core_.session.id() == 0) {
      SteadyTime deadline = StartClock(*writer->queue.front());
      Result<LocationPtr> granted = co_await locator_.Grant(state, writer->index);
      if (granted) continue;
      // Space may have been given back by the next round.
      bool full = granted.error().code == ErrorCode::kNoSpace && ++writer->no_space < kNoSpaceRounds;
      if ((IsRetryable(granted.error().code) || full) && Core::Now() < deadline) {
        co_await core_.loop.Sleep(NextPause(*writer));
      } else {
        writer->no_space = 0;
        GiveUp(state, *writer, granted.error());
      }
      continue;
    }
    const std::string& head = location->replicas.front().address;
    std::shared_ptr<Connection> connection = core_.servers.Live(head);
    if (!connection) {
      Result<std::shared_ptr<Connection>> made = co_await core_.servers.Connect(head, kConnectTry);
      if (!made) {
        writer->failed = true;
        writer->failure = made.error();
        if (!writer->queue.empty()) StartClock(*writer->queue.front());
        continue;
      }
      connection = *made;
    }
    SendWindow(state, writer, location, connection);
    if (!writer->queue.empty() && !writer->failed) co_await state->progress.Wait();
  }
  writer->running = false;
  Rest(state);
}

// Sends what may be sent now: in order, nothing that overlaps an earlier request without an answer.
void Writer::SendWindow(const StatePtr& state, const std::shared_ptr<ChunkWriter>& writer, const LocationPtr& location,
                        const std::shared_ptr<Connection>& connection) {
  for (size_t i = 0; i < writer->queue.size() && writer->in_flight < kWindow && !writer->failed; ++i) {
    WriteOpPtr op = writer->queue[i];
    if (op->sent || op->done) continue;
    for (size_t j = 0; j < i; ++j) {
      if (!writer->queue[j]->done && Overlap(*writer->queue[j], *op)) return;
    }
    op->sent = true;
    StartClock(*op);
    ++writer->in_flight;
    core_.tasks.Spawn(SendOne(state, writer, op, location, connection));
  }
}

Task<void> Writer::SendOne(StatePtr state, std::shared_ptr<ChunkWriter> writer, WriteOpPtr op, LocationPtr location,
                           std::shared_ptr<Connection> connection) {
  pb::WriteChunkRequest request;
  request.set_chunk(location->chunk.value);
  request.set_version(location->version.value);
  request.set_instance(location->replicas.front().instance.value);
  request.set_lease(location->lease);
  request.set_session(core_.session.id());
  request.set_write_id(op->write_id);
  request.set_kind(op->kind);
  request.set_create(!location->written);
  request.set_sync(op->sync);
  for (auto [offset, length] : op->segments) {
    pb::Segment* segment = request.add_segments();
    segment->set_offset(offset);
    segment->set_length(length);
  }
  request.mutable_checksums()->Assign(op->checksums.begin(), op->checksums.end());
  for (size_t i = 1; i < location->replicas.size(); ++i) {
    const ReplicaPlace& place = location->replicas[i];
    pb::Replica* next = request.add_chain();
    next->set_server(place.server.value);
    next->set_instance(place.instance.value);
    next->set_address(place.address);
    next->set_live(place.live);
  }
  // A disk that is slow, not dead, gets more time with each try: raising the version makes it no faster.
  Duration patience = op->sync ? std::max(kSyncTry, core_.options.write_try) : core_.options.write_try;
  patience = std::min<Duration>(patience * (1 << std::min(op->timeouts, 5)), kLongestTry);
  PendingReply pending = connection->Call(pb::WRITE_CHUNK, request, op->payload, patience);
  Result<Reply> reply = co_await pending;
  --writer->in_flight;
  op->sent = false;
  pb::WriteChunkResponse response;
  if (reply) {
    if (Status parsed = ParseReply(*reply, response); !parsed) reply = Fail(parsed.error());
  }
  if (reply) {
    Applied(state, *writer, op, location, response.number());
  } else {
    if (reply.error().code == ErrorCode::kTimeout) ++op->timeouts;
    if (!std::exchange(writer->failed, true)) writer->failure = reply.error();
  }
  state->progress.WakeAll();
}

// Notes what is on the disks: a sync covers the ops with lower numbers, whichever was sent first. (A raise of the version
// has synced all that was applied before.)
void Writer::NoteSynced(ChunkWriter& writer, bool sync, ChunkVersion version, uint64_t number) {
  if (writer.version != version) {
    writer.version = version;
    writer.plain_number = writer.sync_number = 0;
  }
  uint64_t& highest = sync ? writer.sync_number : writer.plain_number;
  highest = std::max(highest, number);
  ++writer.acked;
  if (writer.sync_number > writer.plain_number) writer.synced = writer.acked;
}

void Writer::Applied(const StatePtr& state, ChunkWriter& writer, const WriteOpPtr& op, const LocationPtr& location,
                     uint64_t number) {
  op->done = true;
  writer.pause = {};
  writer.no_space = 0;
  NoteSynced(writer, op->sync, location->version, number);
  if (writer.all_synced()) {
    state->synced.insert(location->chunk);
  } else {
    state->synced.erase(location->chunk);
  }
  core_.bytes_written.Add(op->bytes);
  if (op->kind == pb::WRITE_DATA) {
    state->pending_end = std::max(state->pending_end, writer.index * kChunkSize + op->end);
    if (!location->written) {
      state->fresh[writer.index] = location->chunk;
      Locator::MarkWritten(*state, writer.index, location);
    }
  }
  if (!std::exchange(state->pending, true)) state->pending_since = Core::Now();
  while (!writer.queue.empty() && writer.queue.front()->done) {
    Credit(writer.queue.front()->bytes);
    writer.queue.pop_front();
  }
  if (state->pending_end > state->attr.size + kCommitBytes && !state->committing) {
    core_.tasks.Spawn(CommitInBackground(state));
  }
}

// ---- waiting ----

Task<void> Writer::Settle(StatePtr state, bool sync) {
  Push(state, sync);
  uint64_t last = core_.next_seq;
  for (;;) {
    bool waiting = false;
    for (auto& [index, writer] : state->writers) {
      waiting |= !writer->queue.empty() && writer->queue.front()->seq < last;
    }
    if (!waiting) co_return;
    co_await state->progress.Wait();
  }
}

Task<void> Writer::SettleChunk(StatePtr state, uint64_t index) {
  auto it = state->writers.find(index);
  if (it == state->writers.end()) co_return;
  std::shared_ptr<ChunkWriter> writer = it->second;
  Cut(state, *writer, true);
  uint64_t last = core_.next_seq;
  while (!writer->queue.empty() && writer->queue.front()->seq < last) co_await state->progress.Wait();
}

Task<void> Writer::Flush(StatePtr state) {
  co_await Settle(state);
  co_await Commit(state);
}

Task<void> Writer::FlushOne(StatePtr state, size_t* left, WaitList* done) {
  co_await Flush(state);
  if (--*left == 0) done->WakeAll();
}

Task<void> Writer::FlushAll() {
  std::vector<StatePtr> all(core_.to_write.begin(), core_.to_write.end());
  size_t left = all.size();
  WaitList done(core_.loop);
  for (const StatePtr& state : all) core_.tasks.Spawn(FlushOne(state, &left, &done));
  while (left > 0) co_await done.Wait();
}

Task<void> Writer::BeginExclusive(StatePtr state) {
  while (state->exclusive) co_await state->progress.Wait();
  state->exclusive = true;
}

void Writer::EndExclusive(const StatePtr& state) {
  state->exclusive = false;
  state->progress.WakeAll();
  Rest(state);
}

void Writer::Tick() {
  auto now = Core::Now();
  std::vector<StatePtr> all(core_.to_write.begin(), core_.to_write.end());
  for (const StatePtr& state : all) {
    std::vector<std::shared_ptr<ChunkWriter>> old;
    for (auto& [index, writer] : state->writers) {
      if (!writer->gather.empty() && now - writer->oldest >= core_.options.gather_age) old.push_back(writer);
    }
    for (auto& writer : old) Cut(state, *writer, true);
    if (state->pending && !state->committing && now - state->pending_since >= core_.options.gather_age) {
      core_.tasks.Spawn(CommitInBackground(state));
    } else if (old.empty()) {
      Rest(state);
    }
  }
}

}  // namespace shoal::client
