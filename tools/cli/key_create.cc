// shoal key create [FILE]: the secret that all parts of a cluster share.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "common/rpc/rpc.h"
#include "tools/cli/command.h"

namespace shoal::cli {

int RunKeyCreate(const Arguments& arguments) {
  Command command("key create", "Makes a new cluster key: 32 random bytes in a file that only its owner may read.");
  std::string path = kDefaultKey;
  command.options().Argument("FILE", &path, std::string("Where to put it [") + kDefaultKey + "]", false);
  command.options().Epilogue("Copy the file to every server and client of the cluster (mode 0600). Whoever has it can do anything there.");
  if (auto exit = command.Parse(arguments)) return *exit;
  path = AbsolutePath(path);
  auto key = ClusterKey::Create(path);
  if (!key) {
    return command.Fail(key.error(), key.error().code == ErrorCode::kExists
                                         ? "a key is never overwritten: name another file, or move the old one away"
                                         : "make its directory, or name another file: shoal key create FILE");
  }
  return command.Answer({{"path", path}},
                        fmt::format("{} is made.\nCopy it to every server and client of the cluster, and name it there with --key.\n", path));
}

}  // namespace shoal::cli
