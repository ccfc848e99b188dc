// shoal: the command line. One table of verbs; each verb is a file of its own.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "common/daemon/config.h"
#include "common/log.h"
#include "tools/cli/command.h"

namespace shoal::cli {
namespace {

// Verbs that belong together, as --help shows them.
struct Group {
  const char* title;
  std::vector<Verb> verbs;
};

const std::vector<Group>& Groups() {
  static const std::vector<Group> groups = {
      {"A cluster on this machine, to try and to develop",
       {{"dev start", "[--dir DIR]", "Start one, or what is not running of it, and mount it", RunDevStart},
        {"dev status", "[--dir DIR]", "What of it runs", RunDevStatus},
        {"dev stop", "[--dir DIR]", "Unmount and stop it; the data stays", RunDevStop},
        {"dev add-chunkserver", "[--dir DIR]", "Add a server to it", RunDevAddChunkserver},
        {"dev wipe", "[--dir DIR]", "Stop it and delete its data", RunDevWipe}}},
      {"Mounts",
       {{"mount", "[SOURCE] DIR", "Mount the file system", RunMount},
        {"umount", "DIR", "Unmount it", RunUmount}}},
      {"Looking at a cluster",
       {{"status", "", "Servers, clients, chunks: is all well?", RunStatus},
        {"servers", "", "Chunkservers and their disks", RunServers},
        {"df", "[PATH]", "Space", RunDf},
        {"stat", "PATH", "A file's chunks, their versions, and where their copies are", RunStat},
        {"fsck", "[PATH]", "Is every file safe?", RunFsck}}},
      {"The metadata",
       {{"meta backup", "FILE", "A consistent copy of it, while it is served", RunMetaBackup},
        {"meta restore", "FILE --to DIR", "A metaserver's state from a backup", RunMetaRestore},
        {"meta check", "[FILE | --dir DIR]", "Is everything in it as it must be?", RunMetaCheck},
        {"meta unknown", "", "Replicas that are kept aside, as it does not know them", RunMetaUnknown}}},
      {"Working with it",
       {{"sync", "[PATH]", "Make everything that was acknowledged survive a power cut, now", RunSync},
        {"scrub", "[PATH]", "Read and compare all copies, and repair what is wrong", RunScrub},
        {"key create", "[FILE]", "Make the secret that all parts of a cluster share", RunKeyCreate},
        {"version", "", "Versions of this program, the wire and the kernel's FUSE", RunVersion}}},
  };
  return groups;
}

void PrintHelp(std::FILE* to, std::string_view only = {}) {
  fmt::print(to, "Shoal: a replicated, checksummed file system over many servers.\n\nUsage: shoal VERB [arguments] [options]\n");
  for (const Group& group : Groups()) {
    std::string rows;
    for (const Verb& verb : group.verbs) {
      if (!only.empty() && !std::string_view(verb.name).starts_with(only)) continue;
      rows += fmt::format("  {:34}{}\n", fmt::format("{} {}", verb.name, verb.arguments), verb.summary);
    }
    if (!rows.empty()) fmt::print(to, "\n{}:\n{}", group.title, rows);
  }
  fmt::print(to,
             "\nPATH is shoal:/a/b, a path in the file system, or a local one under a mount. Each verb takes --help and\n"
             "--json. Exit status: 0 done, 1 the answer is no or the work failed, 2 wrong usage, 3 no cluster.\n"
             "To start: shoal dev start\n");
}

// The verb that the first one or two arguments name.
const Verb* Find(const Arguments& arguments, size_t* words) {
  for (const Group& group : Groups()) {
    for (const Verb& verb : group.verbs) {
      std::string_view name = verb.name;
      size_t space = name.find(' ');
      *words = space == name.npos ? 1 : 2;
      if (arguments[0] != name.substr(0, space)) continue;
      if (*words == 1 || (arguments.size() > 1 && arguments[1] == name.substr(space + 1))) return &verb;
    }
  }
  return nullptr;
}

int Unknown(const Arguments& arguments) {
  std::vector<std::string> all;
  bool is_group = false;
  for (const Group& group : Groups()) {
    for (const Verb& verb : group.verbs) {
      all.push_back(verb.name);
      is_group = is_group || std::string_view(verb.name).starts_with(arguments[0] + " ");
    }
  }
  if (is_group && (arguments.size() < 2 || arguments[1] == "--help" || arguments[1] == "-h")) {
    PrintHelp(arguments.size() < 2 ? stderr : stdout, arguments[0] + " ");
    return arguments.size() < 2 ? kExitUsage : kExitDone;
  }
  std::string said = arguments[0] + (is_group && arguments.size() > 1 ? " " + arguments[1] : "");
  auto near = Nearest(said, all);
  Command command(arguments[0], "");
  bool json = std::ranges::find(arguments, "--json") != arguments.end();
  std::string message = fmt::format("there is no verb '{}'{}", said, near ? fmt::format(": did you mean '{}'?", *near) : "");
  if (json) {
    command.Parse({"--json"});
    return command.Fail(Failure::Usage(message, "shoal --help"));
  }
  fmt::print(stderr, "shoal: {}\n  next: shoal --help\n", message);
  return kExitUsage;
}

}  // namespace

int Main(int argc, char** argv) {
  Arguments arguments(argv + 1, argv + argc);
  if (arguments.empty()) {
    PrintHelp(stderr);
    return kExitUsage;
  }
  SilenceLog();  // what is printed is for people; the mount and the servers have logs of their own
  if (arguments[0] == "help" && arguments.size() > 1) {  // shoal help status: as shoal status --help
    arguments.erase(arguments.begin());
    arguments.push_back("--help");
  }
  if (arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    PrintHelp(stdout);
    return kExitDone;
  }
  if (arguments[0] == "--version") arguments[0] = "version";
  size_t words = 0;
  const Verb* verb = Find(arguments, &words);
  if (!verb) return Unknown(arguments);
  return verb->run(Arguments(arguments.begin() + static_cast<ptrdiff_t>(words), arguments.end()));
}

}  // namespace shoal::cli

int main(int argc, char** argv) { return shoal::cli::Main(argc, argv); }
