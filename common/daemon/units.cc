// Sizes, rates and durations as people write them; the nearest known word.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "common/daemon/config.h"

namespace shoal {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

constexpr Unit kSizeUnits[] = {{"", 1},           {"B", 1},           {"K", 1024.0},     {"KB", 1024.0},
                               {"KiB", 1024.0},   {"M", 1048576.0},   {"MB", 1048576.0}, {"MiB", 1048576.0},
                               {"G", 0x1p30},     {"GB", 0x1p30},     {"GiB", 0x1p30},   {"T", 0x1p40},
                               {"TB", 0x1p40},    {"TiB", 0x1p40},    {"P", 0x1p50},     {"PiB", 0x1p50}};
constexpr Unit kTimeUnits[] = {{"", 1e9},   {"ms", 1e6},   {"us", 1e3}, {"s", 1e9},
                               {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9}};

bool SameLetters(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// A number, perhaps with a fraction, and one of `units`; the product must be below 2^63.
template <size_t N>
std::optional<double> ParseWithUnit(std::string_view text, const Unit (&units)[N], bool letters_matter) {
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  double number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
  std::string_view unit(end, text.data() + text.size() - end);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const Unit& known : units) {
    if (letters_matter ? unit == known.name : SameLetters(unit, known.name)) {
      double value = number * known.factor;
      if (value >= 0x1p63) return std::nullopt;
      return value;
    }
  }
  return std::nullopt;
}

}  // namespace

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

Result<uint64_t> ParseSize(std::string_view text) {
  auto value = ParseWithUnit(text, kSizeUnits, false);
  if (!value) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is not a size: write 4096, 512KiB, 64MiB, 1.5GiB or 2TiB", text));
  }
  return static_cast<uint64_t>(*value);
}

Result<uint64_t> ParseRate(std::string_view text) {
  std::string_view size = text;
  if (size.ends_with("/s")) size.remove_suffix(2);
  auto value = ParseWithUnit(size, kSizeUnits, false);
  if (!value) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is not a rate: write 10MiB/s, 1GiB/s, or 0 for no limit", text));
  }
  return static_cast<uint64_t>(*value);
}

Result<Duration> ParseDuration(std::string_view text) {
  auto value = ParseWithUnit(text, kTimeUnits, true);
  if (!value) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is not a duration: write 250ms, 10s, 5m, 2h or 1d", text));
  }
  return Duration(static_cast<int64_t>(*value));
}

std::string FormatSize(uint64_t bytes) {
  static constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1023.95 && unit < 6) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  return fmt::format("{:.1f} {}", value, kNames[unit]);
}

std::string FormatDuration(Duration value) {
  int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(value).count();
  if (ms < 1000) return fmt::format("{}ms", ms);
  int64_t s = ms / 1000;
  if (s < 60) return ms % 1000 && s < 10 ? fmt::format("{}.{}s", s, ms % 1000 / 100) : fmt::format("{}s", s);
  if (s < 3600) return s % 60 ? fmt::format("{}m{}s", s / 60, s % 60) : fmt::format("{}m", s / 60);
  if (s < 86400) return s % 3600 / 60 ? fmt::format("{}h{}m", s / 3600, s % 3600 / 60) : fmt::format("{}h", s / 3600);
  return s % 86400 / 3600 ? fmt::format("{}d{}h", s / 86400, s % 86400 / 3600) : fmt::format("{}d", s / 86400);
}

std::optional<std::string> Nearest(std::string_view word, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  size_t best_distance = SIZE_MAX;
  for (const std::string& candidate : known) {
    size_t distance = EditDistance(word, candidate);
    // "capac" means capacity: a beginning is as near as one wrong letter.
    if (word.size() >= 3 && candidate.starts_with(word)) distance = std::min<size_t>(distance, 1);
    if (distance < best_distance) {
      best_distance = distance;
      best = &candidate;
    }
  }
  if (!best || best_distance > std::max<size_t>(2, word.size() / 3)) return std::nullopt;
  return *best;
}

}  // namespace shoal
