#include "counter.h"

#include <cctype>

std::map<std::string, size_t> CountWords(std::istream& text) {
  std::map<std::string, size_t> counts;
  std::string word;
  for (char c; text.get(c);) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      word += c;
    } else if (!word.empty()) {
      ++counts[word];
      word.clear();
    }
  }
  if (!word.empty()) ++counts[word];
  return counts;
}
