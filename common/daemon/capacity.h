// The least capacity of a data directory.
#pragma once

#include <fmt/format.h>

#include "common/daemon/config.h"
#include "common/result.h"

namespace shoal {

// Room for one chunk of 64 MiB beside what is kept back: a sixteenth that lets writes under way end, and 16 MiB below
// which a directory takes no new chunks.
inline constexpr uint64_t kMinCapacity = 96ull << 20;

// Zero stands for the size of the file system.
inline Status CheckCapacity(uint64_t bytes) {
  if (bytes == 0 || bytes >= kMinCapacity) return {};
  return Fail(ErrorCode::kInvalidArgument, fmt::format("{} is too little: a data directory needs at least {} (write {}MiB)",
                                                       FormatSize(bytes), FormatSize(kMinCapacity), kMinCapacity >> 20));
}

}  // namespace shoal
