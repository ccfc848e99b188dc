#include "common/log.h"

#include <fcntl.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

namespace shoal {
namespace {

// Writes whole lines to a descriptor with O_APPEND, and can open its file again after a rotation.
class AppendSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  AppendSink(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  ~AppendSink() override {
    if (!path_.empty()) close(fd_);
  }
  void Reopen() {
    std::lock_guard lock(mutex_);
    if (path_.empty()) return;
    int fd = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0) return;  // keep the old one
    close(fd_);
    fd_ = fd;
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    const char* at = line.data();
    for (size_t left = line.size(); left > 0;) {
      ssize_t n = write(fd_, at, left);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return;
      at += n;
      left -= static_cast<size_t>(n);
    }
  }
  void flush_() override {}

 private:
  std::string path_;
  int fd_;
};

std::shared_ptr<AppendSink> sink = std::make_shared<AppendSink>("", STDERR_FILENO);

spdlog::logger& Logger() {
  static spdlog::logger* logger = [] {
    auto* made = new spdlog::logger("shoal", sink);
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %L %v", spdlog::pattern_time_type::utc);
    made->set_level(spdlog::level::info);
    return made;
  }();
  return *logger;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

}  // namespace

Status StartLog(const LogOptions& options) {
  if (!options.file.empty()) {
    int fd = open(options.file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0) return Fail(ErrnoError(errno, "cannot open the log file " + options.file));
    sink = std::make_shared<AppendSink>(options.file, fd);
  }
  Logger().sinks().assign(1, sink);
  Logger().set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %L %v", spdlog::pattern_time_type::utc);
  auto level = spdlog::level::from_str(options.level);
  bool known = options.level == "debug" || options.level == "info" || options.level == "warning" || options.level == "error";
  if (!known) return Fail(ErrorCode::kInvalidArgument, "unknown log level '" + options.level + "': use debug, info, warning or error");
  Logger().set_level(options.level == "warning" ? spdlog::level::warn : options.level == "error" ? spdlog::level::err : level);
  return {};
}

void SilenceLog() { Logger().set_level(spdlog::level::off); }

void ReopenLog() { sink->Reopen(); }

bool LogEnabled(LogLevel level) { return Logger().should_log(ToSpdlog(level)); }

void LogLine(LogLevel level, std::string_view line) {
  Logger().log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace shoal
