// Writer: the way of written bytes to the chunkservers, and of their size to the metaserver.
#pragma once

#include "client/core.h"
#include "client/locator.h"

namespace shoal::client {

// Gathers what is written, cuts it into requests of up to 1 MiB, sends up to kWindow of a chunk at once to the head of
// its chain, in order, and sends those without an answer again, in order, when a chain has failed and the metaserver
// has raised the chunk's version. What the chains have acknowledged is then committed to the metaserver.
//
// Owner: EngineImpl; lives on its loop. Errors of the background work go to the inode (InodeState::errors); the
// functions here answer with kCancelled when the engine stops, or not at all.
class Writer {
 public:
  static constexpr size_t kWindow = 4;
  static constexpr int kNoSpaceRounds = 14;  // with growing pauses: about four seconds, in which deleting files makes room

  Writer(Core& core, Locator& locator) : core_(core), locator_(locator) {}

  // Whether `bytes` more may be gathered now (always true when nothing is dirty).
  bool HasRoom(size_t bytes) const {
    return core_.dirty_bytes == 0 || core_.dirty_bytes + bytes <= core_.options.write_memory;
  }
  // Starts writing out, and waits until there is room.
  Task<Status> MakeRoom(size_t bytes);

  // Takes the bytes (which may cross chunks). The caller has seen to room and to `exclusive`.
  void Add(const StatePtr& state, uint64_t offset, const Buffer& data, bool kill_suid_sgid);
  // [begin, end) of one chunk becomes zeros. Nothing may be gathered there (Settle before).
  void AddZeros(const StatePtr& state, uint64_t index, uint32_t begin, uint32_t end);
  // The file shall be at least this long, though nothing was written there.
  void Extend(const StatePtr& state, uint64_t size);

  // Starts sending everything gathered; with `sync`, the last request of each chunk makes it durable.
  void Push(const StatePtr& state, bool sync = false);
  // Push, and waits until everything written before is applied or given up.
  Task<void> Settle(StatePtr state, bool sync = false);
  Task<void> SettleChunk(StatePtr state, uint64_t index);
  // Commits what is applied.
  Task<void> Commit(StatePtr state);
  // Settle and Commit.
  Task<void> Flush(StatePtr state);
  Task<void> FlushAll();
  // Waits until the truncation under way is over, and begins one: writes wait until EndExclusive.
  Task<void> BeginExclusive(StatePtr state);
  void EndExclusive(const StatePtr& state);

  // To be called a few times a second: writes out what is old.
  void Tick();

 private:
  ChunkWriter& WriterOf(InodeState& state, uint64_t index);
  void Track(const StatePtr& state);
  void Cut(const StatePtr& state, ChunkWriter& writer, bool all);
  void MakeOp(const StatePtr& state, ChunkWriter& writer, WriteBatch batch);
  void Start(const StatePtr& state, ChunkWriter& writer);
  Task<void> Run(StatePtr state, std::shared_ptr<ChunkWriter> writer);
  void SendWindow(const StatePtr& state, const std::shared_ptr<ChunkWriter>& writer, const LocationPtr& location,
                  const std::shared_ptr<Connection>& connection);
  Task<void> SendOne(StatePtr state, std::shared_ptr<ChunkWriter> writer, WriteOpPtr op, LocationPtr location,
                     std::shared_ptr<Connection> connection);
  static void NoteSynced(ChunkWriter& writer, bool sync, ChunkVersion version, uint64_t number);
  void Applied(const StatePtr& state, ChunkWriter& writer, const WriteOpPtr& op, const LocationPtr& location,
               uint64_t number);
  Task<Status> Recover(StatePtr state, std::shared_ptr<ChunkWriter> writer, LocationPtr location, Error error);
  // When the op was tried first, and until when.
  SteadyTime StartClock(WriteOp& op) const;
  static Duration NextPause(ChunkWriter& writer);
  void GiveUp(const StatePtr& state, ChunkWriter& writer, const Error& error);
  void SetError(InodeState& state, const Error& error);
  void Credit(size_t bytes);
  void Rest(const StatePtr& state);
  Task<void> CommitOnce(StatePtr state);
  Task<void> FlushOne(StatePtr state, size_t* left, WaitList* done);
  Task<void> CommitInBackground(StatePtr state);

  Core& core_;
  Locator& locator_;
};

}  // namespace shoal::client
