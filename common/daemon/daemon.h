// What makes a process a daemon: its own session, a pid file, signals.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/event_loop.h"
#include "common/result.h"

namespace shoal {

// A file with the number of a running process, locked (flock) as long as that process lives: a file left behind by a
// killed process, or a number given to another process meanwhile, is never taken for it. Owner: main. Any thread.
class PidFile {
 public:
  // kBusy, naming the process, if another one holds the file.
  static Result<PidFile> Take(const std::string& path);
  // The number of the process that holds the file; nothing if none does (or there is no such file).
  static std::optional<pid_t> Holder(const std::string& path);

  PidFile() = default;
  PidFile(PidFile&& other) noexcept;
  PidFile& operator=(PidFile&& other) noexcept;
  ~PidFile();  // removes the file

 private:
  std::string path_;
  int fd_ = -1;
};

// Puts the process into the background: forks twice, in a session of its own, working directory /, standard input and
// output on /dev/null. The process that was started waits until the daemon says Ready (and exits 0) or Failed (and
// prints why, exits 1); it exits 1 too if the daemon dies before. Owner: main, which calls Start before any thread
// exists. With `foreground` nothing forks, and Ready and Failed only report. Standard error stays as it is until Ready.
class Daemon {
 public:
  static Result<std::unique_ptr<Daemon>> Start(const std::string& program, bool foreground);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // In the background, standard error goes to `stderr_file` from here on ("": /dev/null): the last words of a dying
  // process belong into its log.
  void Ready(const std::string& stderr_file = {});
  // Reports the error to whoever started the program; returns main's exit code (1).
  int Failed(const Error& error);
  // Points standard error at `path` (opened for appending, made if need be); "": /dev/null.
  static void RedirectStderr(const std::string& path);

 private:
  Daemon(std::string program, int pipe) : program_(std::move(program)), pipe_(pipe) {}
  std::string program_;
  int pipe_;  // to the waiting process; -1 in the foreground, or when it has been told
};

// SIGTERM and SIGINT call `stop`, SIGHUP calls `reload`, on the loop's thread; SIGPIPE is ignored. Owner: main. Made
// before any thread exists (the signals are blocked in all), attached to the loop before it runs.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  void Attach(EventLoop& loop, std::function<void(int signal)> stop, std::function<void()> reload);

 private:
  int fd_;
};

}  // namespace shoal
