// words FILE...: prints how many words the files hold, and how many different ones.
#include <fstream>
#include <iostream>

#include "counter.h"

int main(int argc, char** argv) {
  std::map<std::string, size_t> all;
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i]);
    for (const auto& [word, count] : CountWords(in)) all[word] += count;
  }
  size_t words = 0;
  for (const auto& [word, count] : all) words += count;
  std::cout << words << " words, " << all.size() << " different\n";
}
