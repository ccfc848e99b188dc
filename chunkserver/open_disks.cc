// Opening a server's data directories: whose are they, and may they be used?
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "chunkserver/disk.h"
#include "common/log.h"

namespace shoal {
namespace {

// A directory before its disk is made.
struct Candidate {
  DataDirectory directory;
  std::unique_ptr<File> lock;
  std::optional<DirectoryIdentity> identity;
};

Status RequireEmpty(const std::string& path, const std::vector<std::string>& names) {
  static const std::set<std::string> harmless = {"lock", "intent", "lost+found", "identity.new", "chunks", "tmp"};
  for (const std::string& name : names) {
    if (harmless.contains(name)) continue;
    return Fail(ErrorCode::kNotEmpty, fmt::format("the data directory {} has no identity file but is not empty (it has {}): "
                                                  "give an empty directory, or the right one", path, name));
  }
  return {};
}

// Under a new identity the replicas would be those of a server that the metaserver does not know.
Status RequireNoReplicas(Files& files, const std::string& path) {
  auto directories = files.List(path + "/chunks");
  if (!directories && directories.error().code == ErrorCode::kNotFound) return {};
  if (!directories) return Fail(std::move(directories).error());
  for (const std::string& name : *directories) {
    TRY_ASSIGN(auto replicas, files.List(path + "/chunks/" + name));
    if (replicas.empty()) continue;
    return Fail(ErrorCode::kNotEmpty,
                fmt::format("the data directory {} has no identity file but has replicas (chunks/{}/{}): copy the identity "
                            "file of another data directory of the same server, or give an empty directory",
                            path, name, replicas.front()));
  }
  return {};
}

Result<Candidate> Examine(Files& files, const DataDirectory& directory) {
  const std::string& path = directory.path;
  auto names = files.List(path);
  if (!names && names.error().code == ErrorCode::kNotFound) {
    return Fail(ErrorCode::kNotFound, fmt::format("the data directory {} does not exist: create it, or mount its disk", path));
  }
  if (!names) return Fail(names.error().code, fmt::format("the data directory {} can't be used: {}", path, names.error().message));
  Candidate candidate{directory, nullptr, std::nullopt};
  auto lock = files.Lock(path + "/lock");
  if (!lock && lock.error().code == ErrorCode::kBusy) {
    return Fail(ErrorCode::kBusy, fmt::format("the data directory {} is in use by another chunkserver: stop that one first", path));
  }
  if (!lock) return Fail(lock.error().code, fmt::format("the data directory {} can't be used: {}", path, lock.error().message));
  candidate.lock = std::move(*lock);
  TRY_ASSIGN(candidate.identity, ReadIdentity(files, path));
  if (!candidate.identity) {
    TRY(RequireEmpty(path, *names));
    TRY(RequireNoReplicas(files, path));
  }
  return candidate;
}

// All must be of one server and one cluster; the first one with an identity says which.
Result<DirectoryIdentity> CommonIdentity(const std::vector<Candidate>& candidates) {
  const Candidate* first = nullptr;
  std::string cluster, cluster_from;
  uint32_t incarnation = 0;
  uint64_t life = 0;
  for (const Candidate& c : candidates) {
    if (!c.identity) continue;
    if (!first) first = &c;
    if (c.identity->server_uuid != first->identity->server_uuid) {
      return Fail(ErrorCode::kWrongCluster,
                  fmt::format("the data directory {} belongs to server {}, but {} to server {}: give each its own directories",
                              c.directory.path, c.identity->server_uuid, first->directory.path, first->identity->server_uuid));
    }
    if (c.identity->incarnation > incarnation) {
      incarnation = c.identity->incarnation;
      life = c.identity->life;
    }
    const std::string& uuid = c.identity->cluster_uuid;
    if (!uuid.empty() && !cluster.empty() && uuid != cluster) {
      return Fail(ErrorCode::kWrongCluster, fmt::format("the data directory {} belongs to cluster {}, but {} to cluster {}",
                                                        c.directory.path, uuid, cluster_from, cluster));
    }
    if (!uuid.empty()) {
      cluster = uuid;
      cluster_from = c.directory.path;
    }
  }
  return DirectoryIdentity{first ? first->identity->server_uuid : RandomUuid(), cluster, incarnation, life};
}

}  // namespace

Result<OpenedDisks> OpenDisks(Files& files, const std::vector<DataDirectory>& directories, uint64_t reserved_bytes) {
  if (directories.empty()) return Fail(ErrorCode::kInvalidArgument, "a chunkserver needs at least one data directory (--data DIR)");
  std::vector<Candidate> candidates;
  for (const DataDirectory& directory : directories) {
    TRY_ASSIGN(Candidate candidate, Examine(files, directory));
    candidates.push_back(std::move(candidate));
  }
  OpenedDisks opened;
  TRY_ASSIGN(opened.identity, CommonIdentity(candidates));
  for (Candidate& c : candidates) {
    bool same = c.identity && c.identity->cluster_uuid == opened.identity.cluster_uuid;
    if (!same) {
      TRY(WriteIdentity(files, c.directory.path, opened.identity));
    }
    if (!c.identity) LogInfo("{} is now a data directory of server {}", c.directory.path, opened.identity.server_uuid);
    auto disk = std::make_unique<Disk>(files, c.directory, reserved_bytes, std::move(c.lock));
    if (Status ready = disk->Prepare(); !ready) {
      return Fail(ready.error().code, fmt::format("the data directory {} can't be used: {}", c.directory.path, ready.error().message));
    }
    opened.disks.push_back(std::move(disk));
  }
  return opened;
}

}  // namespace shoal
