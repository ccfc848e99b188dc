#include "fuse/mount_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "common/daemon/config.h"

namespace shoal::fuse {
namespace {

// Words of mount(8) and fstab(5) that are for others.
constexpr std::string_view kPassedOver[] = {"defaults", "auto",   "noauto", "user",    "nouser", "users",    "group",
                                            "owner",    "nofail", "fail",   "_netdev", "rw",     "relatime", "atime",
                                            "nosuid",   "nodev",  "exec",   "async",   "nodiratime"};

constexpr std::string_view kKnown[] = {
    "ro",     "rw",           "allow_other",   "noallow_other",    "noatime",    "relatime", "suid",  "nosuid",
    "dev",    "nodev",        "noexec",        "exec",             "sync",       "async",    "timeout", "config",
    "key",    "attr_timeout", "entry_timeout", "negative_timeout", "read_ahead", "log",      "log_level", "pid_file",
    "nofail", "_netdev",      "defaults",      "noauto",           "user",       "nodiratime"};

// What is wrong with an unknown option, and what may have been meant.
std::string Unknown(std::string_view word) {
  auto near = Nearest(word, std::vector<std::string>(std::begin(kKnown), std::end(kKnown)));
  return near ? "is unknown; did you mean '" + *near + "'?" : "is unknown";
}

std::unexpected<Error> BadOption(std::string_view option, std::string_view why) {
  return Fail(ErrorCode::kInvalidArgument, "mount option '" + std::string(option) + "': " + std::string(why));
}

Result<double> ParseSeconds(std::string_view option, std::string_view value) {
  double seconds = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error != std::errc() || end != value.data() + value.size() || !(seconds >= 0) || seconds > 1e9) {
    return BadOption(option, "wants seconds, such as 1 or 0.5");
  }
  return seconds;
}

bool IsPassedOver(std::string_view word) {
  if (word.empty() || word.starts_with("x-") || word.starts_with("comment=") || word.starts_with("context=")) return true;
  return std::ranges::find(kPassedOver, word) != std::end(kPassedOver);
}

// Options without a value. False: not one of them.
bool ApplyFlag(std::string_view name, MountOptions& options) {
  if (name == "ro") options.read_only = true;
  else if (name == "rw") options.read_only = false;
  else if (name == "allow_other") options.allow_other = true;
  else if (name == "noallow_other") options.allow_other = false;
  else if (name == "noatime") options.noatime = true;
  else if (name == "relatime") options.noatime = false;
  else if (name == "suid") options.suid = true;
  else if (name == "nosuid") options.suid = false;
  else if (name == "dev") options.dev = true;
  else if (name == "nodev") options.dev = false;
  else if (name == "noexec") options.noexec = true;
  else if (name == "exec") options.noexec = false;
  else if (name == "sync") options.sync = true;
  else if (name == "async") options.sync = false;
  else return false;
  return true;
}

Status ApplyValue(std::string_view option, std::string_view name, std::string_view value, MountOptions& options) {
  if (value.empty()) return BadOption(option, "has no value");
  if (name == "timeout") {
    auto duration = ParseMountDuration(value);
    if (!duration) return BadOption(option, "wants a duration, such as 30s or 5m");
    options.timeout = *duration;
  } else if (name == "attr_timeout") {
    TRY_ASSIGN(options.attr_timeout_seconds, ParseSeconds(option, value));
  } else if (name == "entry_timeout") {
    TRY_ASSIGN(options.entry_timeout_seconds, ParseSeconds(option, value));
  } else if (name == "negative_timeout") {
    TRY_ASSIGN(options.negative_timeout_seconds, ParseSeconds(option, value));
  } else if (name == "read_ahead") {
    uint32_t kib = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), kib);
    std::string_view unit(end, value.data() + value.size() - end);
    if (error != std::errc() || (unit != "" && unit != "KiB" && unit != "MiB") || kib > (1u << 20)) {
      return BadOption(option, "wants a size, such as 4096KiB or 4MiB");
    }
    options.read_ahead_kib = unit == "MiB" ? kib * 1024 : kib;
  } else if (name == "config") {
    options.config_option = std::string(value);
  } else if (name == "key") {
    options.key_file = std::string(value);
  } else if (name == "log") {
    options.log_file = std::string(value);
  } else if (name == "log_level") {
    options.log_level = std::string(value);
  } else if (name == "pid_file") {
    options.pid_file = std::string(value);
  } else {
    return BadOption(option, Unknown(name));
  }
  return {};
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t from = 0;;) {
    size_t to = text.find(separator, from);
    parts.push_back(text.substr(from, to == text.npos ? to : to - from));
    if (to == text.npos) return parts;
    from = to + 1;
  }
}

}  // namespace

Result<Duration> ParseMountDuration(std::string_view text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, text.data() + text.size() - end);
  uint64_t scale = unit.empty() || unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : unit == "d" ? 86400 : 0;
  if (error != std::errc() || scale == 0 || number > 86400 * 365) {
    return Fail(ErrorCode::kInvalidArgument, "'" + std::string(text) + "' is no duration: write 30s, 5m, 2h or 1d");
  }
  return std::chrono::seconds(number * scale);
}

Result<MountSource> ParseMountSource(std::string_view text) {
  MountSource source;
  if (text.empty() || text == "none") return source;
  if (text.starts_with("shoal:")) text.remove_prefix(6);  // as on the command line: shoal:/a/b
  size_t slash = text.find('/');
  std::string_view hosts = text.substr(0, slash);
  if (slash != text.npos) {
    source.subdir = std::string(text.substr(slash));
    if (!hosts.empty()) {
      if (!hosts.ends_with(':')) {
        return Fail(ErrorCode::kInvalidArgument,
                    "mount source '" + std::string(text) + "': write HOST[:PORT][,HOST...][:/subdir]");
      }
      hosts.remove_suffix(1);
    }
  }
  while (source.subdir.size() > 1 && source.subdir.ends_with('/')) source.subdir.pop_back();
  if (source.subdir == "/") source.subdir.clear();
  if (hosts.ends_with(':')) hosts.remove_suffix(1);
  if (hosts.empty()) return source;
  for (std::string_view host : Split(hosts, ',')) {
    auto address = Address::Parse(host, kMetaPort);
    if (!address || host.empty()) {
      return Fail(ErrorCode::kInvalidArgument, "mount source '" + std::string(text) + "': '" + std::string(host) +
                                                   "' is no HOST[:PORT]; write HOST[:PORT][,HOST...][:/subdir]");
    }
    source.meta.push_back(*address);
  }
  return source;
}

Status ParseMountOptions(std::string_view text, MountOptions& options) {
  for (std::string_view option : Split(text, ',')) {
    size_t equals = option.find('=');
    std::string_view name = option.substr(0, equals);
    if (equals == option.npos && ApplyFlag(name, options)) continue;
    if (IsPassedOver(option)) continue;
    if (equals == option.npos) {
      for (std::string_view known : {"timeout", "config", "key", "attr_timeout", "entry_timeout", "negative_timeout",
                                     "read_ahead", "log", "log_level", "pid_file"}) {
        if (name == known) return BadOption(option, "wants a value: " + std::string(name) + "=...");
      }
      return BadOption(option, Unknown(name));
    }
    TRY(ApplyValue(option, name, option.substr(equals + 1), options));
  }
  return {};
}

std::string DefaultMountLog(const std::string& mountpoint, bool root) {
  std::string name = "mount";
  for (char c : mountpoint) name += c == '/' ? '-' : c;
  while (name.ends_with('-')) name.pop_back();
  name += ".log";
  if (root) return "/var/log/shoal/" + name;
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state && *state) return std::string(state) + "/shoal/" + name;
  if (home && *home) return std::string(home) + "/.local/state/shoal/" + name;
  return {};
}

}  // namespace shoal::fuse
