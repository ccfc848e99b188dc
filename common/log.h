// Logs, one line an event: LogInfo("chunk {} copied to {}", chunk, server). Any thread. spdlog is behind it.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

#include "common/result.h"

namespace shoal {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Where the log goes and how much of it; a plain value.
struct LogOptions {
  std::string file;  // empty: standard error
  std::string level = "info";  // debug, info, warning, error
};

// Once, before threads start. Fails with a clear error when the file can't be opened.
Status StartLog(const LogOptions& options);
// Nothing is logged until StartLog: for programs whose output is for people, and who say themselves what went wrong.
void SilenceLog();
// Reopens the file (SIGHUP, after rotation).
void ReopenLog();
bool LogEnabled(LogLevel level);
void LogLine(LogLevel level, std::string_view line);

#define SHOAL_DEFINE_LOG_(Name, level)                                                     \
  template <typename... Args>                                                              \
  void Name(fmt::format_string<Args...> format, Args&&... args) {                          \
    if (LogEnabled(level)) LogLine(level, fmt::format(format, std::forward<Args>(args)...)); \
  }
SHOAL_DEFINE_LOG_(LogDebug, LogLevel::kDebug)
SHOAL_DEFINE_LOG_(LogInfo, LogLevel::kInfo)
SHOAL_DEFINE_LOG_(LogWarning, LogLevel::kWarning)
SHOAL_DEFINE_LOG_(LogError, LogLevel::kError)
#undef SHOAL_DEFINE_LOG_

}  // namespace shoal
