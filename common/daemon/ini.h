// The configuration file: INI without sections.
#pragma once

#include <string>
#include <vector>

#include "common/result.h"

namespace shoal {

// One `key = value` of a file; a plain value.
struct IniEntry {
  std::string key;
  std::string value;
  int line = 0;
};

// Parses `key = value` lines; `#` and `;` start comment lines; a value may stand in double quotes, where a
// backslash takes the next character as it is. Any other line is an error with "FILE:LINE". Reads at most 1 MiB.
Result<std::vector<IniEntry>> ReadIni(const std::string& path);
Result<std::vector<IniEntry>> ParseIni(const std::string& text, const std::string& path);

}  // namespace shoal
