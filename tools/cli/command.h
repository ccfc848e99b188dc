// What every command of `shoal` shares: its options, --json, errors and exit codes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/daemon/config.h"
#include "common/result.h"

namespace shoal::cli {

// Exit codes of every command (docs/operations.md).
inline constexpr int kExitDone = 0;
inline constexpr int kExitNo = 1;           // the answer is no, or the work failed
inline constexpr int kExitUsage = 2;        // wrong usage
inline constexpr int kExitUnreachable = 3;  // the cluster can't be reached

using Arguments = std::vector<std::string>;

// Why a command ends without having done its work: for people and, with --json, for programs. A plain value.
struct Failure {
  int exit = kExitNo;
  std::string code;     // "NOT_FOUND", as in common/result.cc
  std::string message;  // what failed, and why
  std::string next;     // what to run or look at next; empty: the command's --help

  static Failure Of(const Error& error, std::string next = {});
  static Failure Usage(std::string message, std::string next = {});
  // Of an error in the first contact with a cluster.
  static Failure Unreachable(const Error& error, std::string next);
};

// One run of a command: declares --json, parses, prints one answer. Made by the command on its stack; one thread.
class Command {
 public:
  // `verb` as in "dev start"; the schema of its answer is "shoal.dev_start/1".
  Command(const std::string& verb, const std::string& summary, const std::string& environment = "SHOAL_");

  Options& options() { return options_; }
  bool json() const { return json_; }
  const std::string& verb() const { return verb_; }
  // Parses the arguments. A value: end now with it (after --help, or wrong usage, which has been explained).
  std::optional<int> Parse(const Arguments& arguments);

  // The answer: `object` with its schema when --json was given, else `text`. Returns `exit`.
  int Answer(nlohmann::ordered_json object, const std::string& text, int exit = kExitDone) const;
  // The error on stderr, or as {"schema", "error": {code, message, next}} on stdout.
  int Fail(const Failure& failure) const;
  int Fail(const Error& error, const std::string& next = {}) const { return Fail(Failure::Of(error, next)); }

 private:
  std::string verb_;
  bool json_ = false;
  Options options_;
};

// A row of the table in main.cc: how a command is called and who runs it. A plain value.
struct Verb {
  const char* name;  // "dev start"
  const char* arguments;
  const char* summary;
  int (*run)(const Arguments& arguments);
};

// Each in a file of its own.
int RunDevStart(const Arguments& arguments);
int RunDevStop(const Arguments& arguments);
int RunDevStatus(const Arguments& arguments);
int RunDevWipe(const Arguments& arguments);
int RunDevAddChunkserver(const Arguments& arguments);
int RunMount(const Arguments& arguments);
int RunUmount(const Arguments& arguments);
int RunStatus(const Arguments& arguments);
int RunServers(const Arguments& arguments);
int RunDf(const Arguments& arguments);
int RunStat(const Arguments& arguments);
int RunFsck(const Arguments& arguments);
int RunScrub(const Arguments& arguments);
int RunSync(const Arguments& arguments);
int RunKeyCreate(const Arguments& arguments);
int RunMetaBackup(const Arguments& arguments);
int RunMetaRestore(const Arguments& arguments);
int RunMetaCheck(const Arguments& arguments);
int RunMetaUnknown(const Arguments& arguments);
int RunVersion(const Arguments& arguments);

}  // namespace shoal::cli
