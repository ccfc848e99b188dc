// Configuration files, command lines, units, addresses and cluster keys: one text is given to all of them.
#include <iostream>
#include <sstream>

#include "common/daemon/config.h"
#include "common/daemon/ini.h"
#include "common/rpc/rpc.h"
#include "tests/fuzz/fuzz.h"

namespace shoal {
namespace {

// One option of each kind.
struct Program {
  bool flag = false;
  std::string text, word = "info", first;
  std::vector<std::string> list, others;
  uint32_t number = 1;
  uint64_t size = 1, rate = 0;
  Duration time{};
  Options options{"fuzz", "A program", ""};

  explicit Program(const std::string& file) {
    options.ConfigFile(file);
    options.Flag("f,flag", &flag, "A flag");
    options.Text("text", &text, "A text");
    options.List("meta", &list, "A list");
    options.Number("replicas", &number, "A number", 1, 9);
    options.Size("cache", &size, "A size");
    options.Rate("scrub", &rate, "A rate");
    options.Time("timeout", &time, "A time");
    options.Choice("log-level", &word, {"debug", "info"}, "A choice");
    options.KnownInFile("for-another");
    options.Argument("FIRST", &first, "An argument", false);
    options.Arguments("OTHERS", &others, "More", false);
  }
  void CheckValues() const {
    CHECK(number >= 1 && number <= 9);
    CHECK(word == "debug" || word == "info");
    CHECK(time >= Duration(0));
  }
};

void CheckValue(const std::string& value) {
  if (auto size = ParseSize(value)) CHECK(!FormatSize(*size).empty());
  (void)ParseRate(value);
  if (auto time = ParseDuration(value)) CHECK(*time >= Duration(0) && !FormatDuration(*time).empty());
  auto address = Address::Parse(value, 7600);
  if (!address) return;
  auto again = Address::Parse(address->ToString(), 1);
  CHECK(again && *again == *address);
}

// What is printed for --help goes nowhere.
struct Silence {
  std::ostringstream nowhere;
  std::streambuf* before = std::cout.rdbuf(nowhere.rdbuf());
  ~Silence() { std::cout.rdbuf(before); }
};

}  // namespace

std::vector<std::string> fuzz::Seeds() { return {std::string(64, 'a') + "\n"}; }

}  // namespace shoal

using namespace shoal;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fuzz::ScratchFile file;
  Silence silence;
  const std::string text(reinterpret_cast<const char*>(data), size);
  file.Write(text);

  if (auto entries = ParseIni(text, "fuzz.conf")) {
    for (const IniEntry& entry : *entries) CheckValue(entry.value);
  }
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  for (const std::string& line : lines) CheckValue(line);

  Program from_file(file.path());
  if (from_file.options.Parse({})) from_file.CheckValues();
  Program from_arguments("");
  if (from_arguments.options.Parse(lines)) from_arguments.CheckValues();

  if (auto key = ClusterKey::Load(file.path())) CHECK(size == 64 || size == 65);
  return 0;
}
