// Scrubber: reads every replica again, slowly and for ever, so that damage is found while there are other copies.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "chunkserver/node.h"
#include "chunkserver/scrub.h"
#include "common/event_loop.h"

namespace shoal {

// Where the scrubbing of one disk is; kept in DIR/scrub (docs/formats.md). A plain value.
struct ScrubPosition {
  // The replica that was read last; the order is by the low byte of the chunk, then chunk, then instance.
  ChunkId chunk;
  InstanceId instance;
  int64_t pass_started_ns = 0;  // since 1970; 0: no pass is under way
  int64_t last_started_ns = 0;  // of the last pass that came to its end; 0: none did
  int64_t last_ended_ns = 0;
  uint64_t last_errors = 0;
  uint64_t errors = 0;   // bad replicas that this pass has found
  uint64_t orphans = 0;  // files that are no replica of the index

  std::string Encode() const;
  static Result<ScrubPosition> Decode(const std::string& text);
};

// One coroutine a disk. It reads at most `rate` bytes a second of each disk (0: nothing), waits while the disk has
// other work, and remembers its position in the data directory at least once a minute. What it finds goes the way of
// any bad replica (ReplicaStore::MarkBad); what it found good is told to `report`, so that the copies can be compared.
// Lives on a loop; owner: the server.
class Scrubber {
 public:
  using Report = std::function<Task<void>(std::vector<uint64_t> chunks)>;
  // `every`: a pass begins no sooner after the beginning of the one before.
  Scrubber(EventLoop& loop, Node& node, uint64_t rate, Duration every, Report report);
  // On the loop, after ReplicaStore::Start.
  void Start();
  // On the loop: ends after the piece that is being read, and keeps the positions.
  Task<void> Stop();
  struct Progress {
    std::string directory;
    double part = 0;  // of the pass under way, 0 to 1
    ScrubPosition position;
  };
  std::vector<Progress> progress() const;  // any thread

 private:
  // One disk. On the loop but for `shown`.
  struct Run {
    explicit Run(Disk& d) : disk(d) {}
    Disk& disk;
    ScrubPosition position;
    std::vector<uint64_t> good;  // to be reported
    SteadyTime kept{};           // when the position was stored
    std::shared_ptr<OneShot<bool>> nap;
    std::mutex mutex;  // guards shown
    ScrubPosition shown;
  };
  Task<void> Scrub(Run* run);
  Task<void> Pass(Run* run);
  Task<void> ScrubOne(Run* run, ChunkId chunk, InstanceId instance);
  Task<Status> ScrubData(Run* run, std::shared_ptr<Replica> replica);
  Task<void> CheckNames(Run* run, uint64_t bucket);
  Task<void> Pace(Run* run, uint64_t bytes);
  Task<void> Nap(Run* run, Duration duration);
  Task<void> SendGood(Run* run);
  Task<void> Keep(Run* run, bool now);

  EventLoop& loop_;
  Node& node_;
  const uint64_t rate_;
  const Duration every_;
  const Report report_;
  TaskGroup tasks_;
  std::vector<std::unique_ptr<Run>> runs_;
  bool stopping_ = false;
};

}  // namespace shoal
