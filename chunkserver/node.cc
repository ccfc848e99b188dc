#include "chunkserver/node.h"

#include <time.h>

namespace shoal {

int64_t ServerLease::NowNs() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

Status ServerLease::Check(ChunkMetrics& metrics) const {
  if (valid()) return {};
  metrics.refused_lease.Add();
  return Fail(ErrorCode::kLeaseLapsed, "this chunkserver has no valid lease from the metaserver");
}

Node::Node(Metrics& m, const ClusterKey& key, std::string name) : metrics(m) {
  for (RpcContext* context : {&network, &control}) {
    context->key = key;
    context->role = pb::ROLE_CHUNKSERVER;
    context->name = name;
  }
}

}  // namespace shoal
