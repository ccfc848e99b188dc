#include "metaserver/chunks/bad_replicas.h"

#include <algorithm>

#include "common/log.h"
#include "metaserver/chunks/recovery.h"

namespace shoal::meta {
namespace {

constexpr size_t kAtOnce = 8;
constexpr Duration kFirstPause = 1s, kLongestPause = 60s;
constexpr Duration kLostPause = 600s;  // of a block that is good nowhere: it may be overwritten

}  // namespace

void BadReplicas::Add(ChunkId chunk, InstanceId instance, uint32_t version, bool damaged) {
  auto [it, fresh] = replicas_.emplace(instance, Replica{.chunk = chunk, .version = version, .damaged = damaged});
  if (fresh) due_.emplace(SteadyTime{}, instance);
  it->second.damaged &= damaged;
  it->second.again = true;
  Tick();
}

std::vector<std::pair<ChunkId, InstanceId>> BadReplicas::List() const {
  std::vector<std::pair<ChunkId, InstanceId>> list;
  for (const auto& [instance, replica] : replicas_) list.emplace_back(replica.chunk, instance);
  return list;
}

void BadReplicas::Tick() {
  auto now = std::chrono::steady_clock::now();
  while (running_ < kAtOnce && !state_.stopping() && !due_.empty() && due_.begin()->first <= now) {
    InstanceId instance = due_.begin()->second;
    due_.erase(due_.begin());
    running_++;
    state_.tasks.Spawn(Run(instance));
  }
}

void BadReplicas::ServersChanged() {
  for (auto& [at, instance] : std::exchange(due_, {})) {
    replicas_[instance].pause = {};
    due_.emplace(SteadyTime{}, instance);
  }
}

Task<void> BadReplicas::Run(InstanceId instance) {
  Replica& replica = replicas_[instance];
  const bool damaged = replica.damaged;
  replica.again = false;
  RecoveryRequest request;
  request.chunk = replica.chunk;
  request.bad = instance;
  request.version = replica.version;
  request.damaged = damaged;
  request.for_write = false;
  Task<Status> recover = state_.recovery->Recover(request);
  Status done = co_await recover;
  running_--;
  auto lost = state_.lost_blocks.find(replica.chunk);
  if (done && replica.again) {  // there is more to it
    due_.emplace(SteadyTime{}, instance);
  } else if (done && damaged && lost != state_.lost_blocks.end()) {
    LogError("chunk {:016x}: {} blocks are damaged in every replica, block {} the first: the rest of it can be read and written",
             replica.chunk.value, lost->second.count, lost->second.first);
    due_.emplace(std::chrono::steady_clock::now() + kLostPause, instance);
  } else if (done || done.error().code == ErrorCode::kNotFound) {
    replicas_.erase(instance);
  } else {
    if (replica.pause == Duration{}) {
      LogError("chunk {:016x}: a bad replica stays for now: {}", replica.chunk.value, ToString(done.error()));
    }
    replica.pause = std::clamp(replica.pause * 2, kFirstPause, kLongestPause);
    due_.emplace(std::chrono::steady_clock::now() + replica.pause, instance);
  }
  // The next one, off this stack.
  state_.context.loop.Post([this, alive = state_.alive] {
    if (*alive) Tick();
  });
}

}  // namespace shoal::meta
