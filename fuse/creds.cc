#include "fuse/creds.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>

namespace shoal::fuse {
namespace {

// What follows `key` on its line.
std::string_view LineOf(std::string_view status, std::string_view key) {
  for (size_t from = 0; from < status.size();) {
    size_t end = std::min(status.find('\n', from), status.size());
    std::string_view line = status.substr(from, end - from);
    if (line.starts_with(key)) return line.substr(key.size());
    from = end + 1;
  }
  return {};
}

}  // namespace

std::vector<uint32_t> ParseGroups(std::string_view status) {
  std::vector<uint32_t> groups;
  std::string_view line = LineOf(status, "Groups:");
  for (const char *at = line.data(), *end = at + line.size(); at < end;) {
    uint32_t group = 0;
    auto [next, error] = std::from_chars(at, end, group);
    if (error == std::errc()) groups.push_back(group);
    at = error == std::errc() ? next : at + 1;
  }
  return groups;
}

bool ParseKillPending(std::string_view status) {
  for (std::string_view key : {"SigPnd:", "ShdPnd:"}) {
    std::string_view line = LineOf(status, key);
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    uint64_t mask = 0;
    std::from_chars(line.data(), line.data() + line.size(), mask, 16);
    if (mask & (1ull << (SIGKILL - 1))) return true;
  }
  return false;
}

std::string ReadProcStatus(uint32_t pid) {
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%u/status", pid);
  int fd = open(path.data(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::string text;
  std::array<char, 4096> part;
  for (ssize_t n; (n = read(fd, part.data(), part.size())) > 0;) text.append(part.data(), static_cast<size_t>(n));
  close(fd);
  return text;
}

CredCache::CredCache() : CredCache([](uint32_t pid) { return ParseGroups(ReadProcStatus(pid)); }) {}

CredCache::CredCache(ReadGroups read_groups)
    : read_groups_(std::move(read_groups)), root_(std::make_shared<client::Cred>()) {}

CredPtr CredCache::Get(uint32_t uid, uint32_t gid, uint32_t pid, Clock::time_point now) {
  if (uid == 0 && gid == 0) return root_;
  auto it = entries_.find(pid);
  if (it != entries_.end() && now - it->second.read_at < kTimeToLive && it->second.cred->uid == uid &&
      it->second.cred->gid == gid) {
    return it->second.cred;
  }
  auto cred = std::make_shared<client::Cred>();
  cred->uid = uid;
  cred->gid = gid;
  if (uid != 0 && pid != 0) cred->groups = read_groups_(pid);
  if (it == entries_.end() && entries_.size() >= kMaxEntries) Shrink(now);
  entries_[pid] = {cred, now};
  return cred;
}

void CredCache::Shrink(Clock::time_point now) {
  std::erase_if(entries_, [&](const auto& item) { return now - item.second.read_at >= kTimeToLive; });
  if (entries_.size() >= kMaxEntries) entries_.clear();
}

}  // namespace shoal::fuse
