// What a method that is a coroutine knows of its request.
#pragma once

#include <memory>

#include "common/rpc/rpc.h"

namespace shoal::meta {

// A plain value.
struct CallInfo {
  std::shared_ptr<Connection> connection;
  SteadyTime deadline;
};

}  // namespace shoal::meta
