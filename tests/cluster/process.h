// Running programs from tests.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace shoal::test {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

// How a program ended and what it printed. A plain value.
struct Outcome {
  int exit = -1;  // 128 + signal when killed; -1: could not be run, or was killed because its time was over
  std::string out;
  std::string err;
  std::string Text() const { return "exit " + std::to_string(exit) + "\n" + out + err; }
};

// A program that runs beside the test, with none of the test's open files. Destroying it kills it. Belongs to one thread.
class Process {
 public:
  // `uid` other than 0: as that user. Output goes to files of its own.
  static std::unique_ptr<Process> Start(const std::vector<std::string>& command, const std::string& directory = {},
                                        uid_t uid = 0);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  bool running();
  // Waits for its end; kills it when the time is over (exit -1).
  Outcome Wait(Milliseconds limit);
  pid_t pid() const { return pid_; }
  void Signal(int signal) const;

 private:
  Process() = default;
  pid_t pid_ = -1;
  bool reaped_ = false;
  int status_ = 0;
  int out_ = -1, err_ = -1;  // unlinked temporary files
};

Outcome RunProgram(const std::vector<std::string>& command, Milliseconds limit = Milliseconds(120000), const std::string& directory = {},
            uid_t uid = 0);
// The same with bash -c.
Outcome Shell(const std::string& command, Milliseconds limit = Milliseconds(120000), const std::string& directory = {});

// Polls until the condition holds; false when the time is over first.
bool Eventually(const std::function<bool()>& condition, Milliseconds limit = Milliseconds(30000));

// Sanitizers slow everything down: time limits are multiplied by this.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kSlowness = 4;
#else
inline constexpr int kSlowness = 1;
#endif

}  // namespace shoal::test
