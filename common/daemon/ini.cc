#include "common/daemon/ini.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace shoal {
namespace {

constexpr size_t kMaxFile = 1 << 20;  // bytes

std::string_view Trim(std::string_view text) {
  size_t first = text.find_first_not_of(" \t\r");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

bool IsKey(std::string_view key) {
  return !key.empty() && std::ranges::all_of(key, [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

Result<std::string> Unquote(std::string_view value, const std::string& where) {
  if (value.empty() || value.front() != '"') return std::string(value);
  std::string plain;
  size_t i = 1;
  for (; i < value.size() && value[i] != '"'; ++i) {
    if (value[i] == '\\' && i + 1 < value.size()) ++i;
    plain += value[i];
  }
  if (i + 1 != value.size()) return Fail(ErrorCode::kInvalidArgument, where + ": the quoted value has no end, or text after it");
  return plain;
}

}  // namespace

Result<std::vector<IniEntry>> ParseIni(const std::string& text, const std::string& path) {
  std::vector<IniEntry> entries;
  int number = 0;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = Trim(std::string_view(text).substr(at, end - at));
    at = end + 1;
    ++number;
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    std::string where = fmt::format("{}:{}", path, number);
    if (line.front() == '[') {
      return Fail(ErrorCode::kInvalidArgument, where + ": sections are not used here: put 'key = value' lines without one");
    }
    size_t equals = line.find('=');
    std::string_view key = Trim(line.substr(0, equals));
    if (equals == line.npos || !IsKey(key)) {
      return Fail(ErrorCode::kInvalidArgument, fmt::format("{}: '{}' is not of the form 'key = value'", where, line.substr(0, 60)));
    }
    TRY_ASSIGN(std::string value, Unquote(Trim(line.substr(equals + 1)), where));
    entries.push_back({std::string(key), std::move(value), number});
  }
  return entries;
}

Result<std::vector<IniEntry>> ReadIni(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Fail(ErrnoError(errno, "can't open the configuration file " + path));
  std::string text(kMaxFile + 1, '\0');
  size_t size = 0;
  ssize_t n = 0;
  while (size < text.size() && (n = read(fd, text.data() + size, text.size() - size)) > 0) size += n;
  int error = errno;
  close(fd);
  if (n < 0) return Fail(ErrnoError(error, "can't read the configuration file " + path));
  if (size > kMaxFile) return Fail(ErrorCode::kTooLarge, path + " is larger than 1 MiB: not a configuration file");
  text.resize(size);
  if (text.find('\0') != text.npos) return Fail(ErrorCode::kInvalidArgument, path + " holds binary data: not a configuration file");
  return ParseIni(text, path);
}

}  // namespace shoal
