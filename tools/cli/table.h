// Columns for people.
#pragma once

#include <string>
#include <vector>

namespace shoal::cli {

// Rows of cells under headings, padded to columns; a heading that starts with '>' is flushed right. A plain value.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : headings_(std::move(headings)) {}
  void Row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string Text(const std::string& indent = "") const;

 private:
  std::vector<std::string> headings_;
  std::vector<std::vector<std::string>> rows_;
};

// "3 servers", "1 server".
std::string Count(uint64_t n, const std::string& one);

}  // namespace shoal::cli
