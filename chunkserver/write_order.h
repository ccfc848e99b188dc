// WriteOrder: in which order the writes of one replica are applied, and which it remembers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "chunkserver/replica_file.h"
#include "common/ids.h"
#include "common/result.h"

namespace shoal {

// A write between its admission and its end. Shared by the order and those who wait; guarded by the replica's mutex.
struct WriteJob {
  uint64_t number = 0;
  WriteOperation write;
  std::vector<std::function<void(const Status&)>> waiters;  // called once, on any thread, without locks held
};
using WriteJobs = std::vector<std::shared_ptr<WriteJob>>;

// What a write request says of itself. A plain value.
struct WriteTicket {
  ChunkVersion version;
  uint64_t lease = 0;
  SessionId session;
  uint64_t write_id = 0;
  uint64_t number = 0;     // 0: this replica is the head, and gives one
  uint64_t numbering = 0;  // of the head's count
};

// The writes of a chunk version are numbered by its head, 1, 2, 3, ..., and applied in that order everywhere. The count
// has a random name (numbering): a head that was started again has another one, and is refused by members that know the
// old one. Owner: a Replica, whose mutex guards it; no threads, no I/O.
class WriteOrder {
 public:
  static constexpr size_t kMaxWaiting = 1024;     // writes that came before their predecessors
  static constexpr size_t kMaxSessions = 16;      // remembered
  static constexpr size_t kMaxRemembered = 64;    // writes of each

  // A replica that was found on the disk: what has been applied is not known, and writes are refused until StartAt.
  WriteOrder() = default;
  // From here on: nothing applied yet, any numbering. (A new replica, or one whose version was just raised.)
  void Start(ChunkVersion version) { StartAt(version, 0, 0); }
  // As a copy of a replica that has applied `applied` of `numbering`.
  void StartAt(ChunkVersion version, uint64_t numbering, uint64_t applied);

  struct Admission {
    uint64_t number = 0;
    uint64_t numbering = 0;
    std::shared_ptr<WriteJob> job;  // null: applied already
  };
  // Takes the write in (a retry finds the number it had, and its job if that is still under way). Errors:
  // kVersionMismatch, kNotReady (frozen), kLeaseLapsed (below the fence), kChainFailed (only a recovery helps).
  Result<Admission> Admit(const WriteTicket& ticket, WriteOperation write);

  // The next one to apply, or null. Applied ends it: with an error, nothing more is applied until Start, and all that
  // wait are returned, to be told; else only the job itself is.
  std::shared_ptr<WriteJob> Next();
  WriteJobs Applied(const std::shared_ptr<WriteJob>& job, const Status& status);
  bool idle() const { return !running_ && ready_.empty(); }
  // A waiting job (whose predecessors did not come in time) is forgotten. False: it is not waiting any more.
  bool GiveUp(const std::shared_ptr<WriteJob>& job);
  bool IsWaiting(const std::shared_ptr<WriteJob>& job) const;

  // Refuses writes until Start; returns the ones that wait for predecessors, which are refused too. Those that are ready
  // will still be applied.
  WriteJobs Freeze();
  void Thaw() { frozen_ = false; }
  // Writes below this lease number are refused.
  void RaiseFence(uint64_t lease) { fence_ = std::max(fence_, lease); }

  bool known() const { return known_; }
  bool frozen() const { return frozen_; }
  uint64_t applied() const { return applied_; }
  uint64_t numbering() const { return numbering_; }

 private:
  // What was written lately by one session.
  struct Memory {
    SessionId session;
    std::deque<std::pair<uint64_t, uint64_t>> writes;  // (write id, number)
  };
  uint64_t Remembered(SessionId session, uint64_t write_id);
  void Remember(SessionId session, uint64_t write_id, uint64_t number);
  void TakeReady();

  ChunkVersion version_;
  bool known_ = false;
  bool frozen_ = false;
  bool running_ = false;
  std::optional<Error> broken_;
  uint64_t fence_ = 0;
  uint64_t numbering_ = 0;
  uint64_t given_ = 0;     // highest number this head gave
  uint64_t accepted_ = 0;  // highest number that is applied or ready
  uint64_t applied_ = 0;
  std::map<uint64_t, std::shared_ptr<WriteJob>> waiting_;
  std::deque<std::shared_ptr<WriteJob>> ready_;
  std::shared_ptr<WriteJob> current_;
  std::deque<Memory> memory_;  // the session heard of last is at the front
};

}  // namespace shoal
