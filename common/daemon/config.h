// Options: each declared once, and read from its flag, else its environment variable, else a file, else its default.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/event_loop.h"
#include "common/result.h"

namespace shoal {

// "64", "512KiB", "1.5GiB", "2TiB" (also K, M, G, T and "12MB": powers of 1024 all, as disks of Shoal count).
Result<uint64_t> ParseSize(std::string_view text);
// "10MiB/s"; 0: no limit.
Result<uint64_t> ParseRate(std::string_view text);
// "250ms", "10s", "5m", "2h", "1d"; a bare number counts seconds.
Result<Duration> ParseDuration(std::string_view text);
std::string FormatSize(uint64_t bytes);      // "1.5 GiB"
std::string FormatDuration(Duration value);  // "1m30s"

// Single-character insertions, deletions and replacements between two words (Levenshtein).
size_t EditDistance(std::string_view a, std::string_view b);
// The word of `known` that is nearest to `word` by edit distance, if one is near enough to be what was meant.
std::optional<std::string> Nearest(std::string_view word, const std::vector<std::string>& known);

// What a command line came to: go on, or end now with this exit status (after --help 0, wrong usage 2).
struct ParseOutcome {
  bool run = true;
  int exit_code = 0;
};

// The options of one program or command. Owner: main or the command; used on one thread, before others start.
// Every pointer given to it must outlive Parse and holds the default until then. Names are long flag names without
// dashes, and the same names are the keys of the file. The declaration order is the order of --help.
class Options {
 public:
  // `environment`: prefix of the variables ("SHOAL_": --meta is SHOAL_META); empty: no environment.
  Options(std::string program, std::string summary, std::string environment = "SHOAL_");
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  // Declares --config and its variable; `default_path` is read if it exists, one that was named must exist.
  void ConfigFile(std::string default_path);
  // Text at the end of --help.
  void Epilogue(std::string text);
  // Options declared from here on stand on the command line only, not in files or the environment (and back).
  void CommandLineOnly(bool only = true);

  // `name` is "replicas" or "f,foreground" (a short form first).
  void Flag(const std::string& name, bool* into, const std::string& help);
  void Text(const std::string& name, std::string* into, const std::string& help, const std::string& value = "TEXT");
  void List(const std::string& name, std::vector<std::string>* into, const std::string& help,
            const std::string& value = "TEXT");  // the flag may be repeated; commas separate
  void Number(const std::string& name, uint32_t* into, const std::string& help, uint32_t low = 0,
              uint32_t high = UINT32_MAX);
  void Size(const std::string& name, uint64_t* into, const std::string& help);
  void Rate(const std::string& name, uint64_t* into, const std::string& help);
  void Time(const std::string& name, Duration* into, const std::string& help);
  void Choice(const std::string& name, std::string* into, const std::vector<std::string>& choices,
              const std::string& help);
  // Arguments without a flag, in order.
  void Argument(const std::string& name, std::string* into, const std::string& help, bool required);
  void Arguments(const std::string& name, std::vector<std::string>* into, const std::string& help, bool required);
  // A key that the file may hold for other programs that share it; not looked at.
  void KnownInFile(const std::string& name);

  // Reads everything. Prints help to stdout. An error names the flag, or file and line, and the nearest known name.
  Result<ParseOutcome> Parse(const std::vector<std::string>& arguments);
  // The same, printing errors to stderr in one line ("PROGRAM: ... (see PROGRAM --help)"), exit code 2.
  ParseOutcome ParseOrExplain(int argc, char** argv);

  // After Parse: where the value came from: "" (default), "--name", "SHOAL_NAME", or "FILE:LINE".
  std::string SourceOf(const std::string& name) const;
  bool Given(const std::string& name) const { return !SourceOf(name).empty(); }
  // After Parse: the file that was read, or empty.
  const std::string& config_path() const;
  std::string Help() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace shoal
