// Counting words.
#pragma once

#include <istream>
#include <map>
#include <string>

// How often each word (letters and digits only) stands in the text.
std::map<std::string, size_t> CountWords(std::istream& text);
