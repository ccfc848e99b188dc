// Errors of libshoal's C++ API.
#pragma once

#include <expected>
#include <string>

namespace shoal {

// What went wrong. A plain value.
struct FsError {
  int number = 0;        // an errno value: ENOENT, EACCES, ENOSPC, EIO, ETIMEDOUT, ...
  std::string code;      // Shoal's finer name: "NOT_FOUND", "NOT_ENOUGH_SERVERS", "CORRUPT", ...
  std::string message;   // for people: what failed and why, one line
  bool retryable = false;  // the same call may succeed later, unchanged
};

// Every call that can fail answers with one of these; nothing throws (but std::bad_alloc).
template <typename T>
using FsResult = std::expected<T, FsError>;
using FsStatus = FsResult<void>;

}  // namespace shoal
