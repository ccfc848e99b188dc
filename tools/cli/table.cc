#include "tools/cli/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace shoal::cli {
namespace {

// Columns that a UTF-8 text takes (continuation bytes take none).
size_t Width(const std::string& text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

}  // namespace

std::string Table::Text(const std::string& indent) const {
  std::vector<size_t> widths;
  std::vector<bool> right;
  std::vector<std::string> titles;
  for (const std::string& heading : headings_) {
    right.push_back(heading.starts_with('>'));
    titles.push_back(heading.substr(right.back() ? 1 : 0));
    widths.push_back(Width(titles.back()));
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string text;
  auto line = [&](const std::vector<std::string>& cells) {
    std::string out = indent;
    for (size_t i = 0; i < cells.size() && i < widths.size(); ++i) {
      std::string pad(widths[i] - Width(cells[i]), ' ');
      out += (i ? "  " : "") + (right[i] ? pad + cells[i] : cells[i] + pad);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  };
  line(titles);
  for (const auto& row : rows_) line(row);
  return text;
}

std::string Count(uint64_t n, const std::string& one) { return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s"); }

}  // namespace shoal::cli
