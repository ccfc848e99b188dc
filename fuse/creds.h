// On whose behalf the kernel asks: user, group and supplementary groups of a process.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "client/attr.h"

namespace shoal::fuse {

using CredPtr = std::shared_ptr<const client::Cred>;

// The credentials of the processes that use a mount. FUSE tells uid, gid and pid; the supplementary groups have to be
// read from /proc (22 us), which is done at most once per process and second. A process that is gone, or that lives
// in another pid namespace (pid 0), has none. Owner: MountFs. On the mount's loop. No errors.
class CredCache {
 public:
  using Clock = std::chrono::steady_clock;
  using ReadGroups = std::function<std::vector<uint32_t>(uint32_t pid)>;
  static constexpr auto kTimeToLive = std::chrono::seconds(1);
  static constexpr size_t kMaxEntries = 4096;

  CredCache();
  explicit CredCache(ReadGroups read_groups);  // for tests

  // Root needs no groups, and its permissions are not looked at: no look into /proc.
  CredPtr Get(uint32_t uid, uint32_t gid, uint32_t pid, Clock::time_point now);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    CredPtr cred;
    Clock::time_point read_at;
  };
  void Shrink(Clock::time_point now);

  ReadGroups read_groups_;
  CredPtr root_;
  std::unordered_map<uint32_t, Entry> entries_;  // by pid
};

// What the line "Groups:" of a /proc/PID/status says.
std::vector<uint32_t> ParseGroups(std::string_view status);
// Whether that file says that SIGKILL is pending (so does any fatal signal that is on its way).
bool ParseKillPending(std::string_view status);
// /proc/PID/status ("" when the process is gone); also takes the id of a thread.
std::string ReadProcStatus(uint32_t pid);

}  // namespace shoal::fuse
