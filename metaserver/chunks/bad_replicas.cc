#include "metaserver/chunks/bad_replicas.h"

#include <algorithm>

#include "common/log.h"
#include "metaserver/chunks/recovery.h"

namespace shoal::meta {
namespace {

constexpr size_t kAtOnce = 8;
constexpr Duration kFirstPause = 1s, kLongestPause = 60s;

}  // namespace

void BadReplicas::Add(ChunkId chunk, InstanceId instance, uint32_t version) {
  if (replicas_.emplace(instance, Replica{chunk, version}).second) due_.emplace(SteadyTime{}, instance);
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
  RecoveryRequest request;
  request.chunk = replica.chunk;
  request.bad = instance;
  request.version = replica.version;
  request.for_write = false;
  Task<Status> recover = state_.recovery->Recover(request);
  Status done = co_await recover;
  running_--;
  if (done || done.error().code == ErrorCode::kNotFound) {
    replicas_.erase(instance);
  } else {
    if (replica.pause == Duration{}) {
      LogError("chunk {}: a bad replica stays for now: {}", replica.chunk.value, ToString(done.error()));
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
