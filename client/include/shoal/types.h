// Plain values of libshoal's C++ API.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace shoal {

// Points in time are nanoseconds since 1970, UTC.
using FileTime = std::chrono::sys_time<std::chrono::nanoseconds>;

enum class FileType { kRegular, kDirectory, kSymlink, kFifo, kSocket, kCharDevice, kBlockDevice };

// What stat(2) tells. A plain value.
struct FileInfo {
  uint64_t inode = 0;
  FileType type = FileType::kRegular;
  uint32_t mode = 0;             // permission bits, set-id and sticky bits
  uint32_t links = 0;            // hard links
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;             // bytes
  uint64_t allocated_bytes = 0;  // of data, not counting copies
  uint32_t copies = 0;           // how often each chunk is stored
  FileTime accessed{}, modified{}, changed{}, created{};
};

// One name of a directory. A plain value.
struct ListEntry {
  std::string name;
  FileInfo info;
};

// What statfs(2) tells, at the number of copies that new files get. A plain value.
struct SpaceInfo {
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t files = 0;
  uint32_t copies = 0;
};

// How to open a file. A plain value.
struct OpenOptions {
  bool read = true;
  bool write = false;
  bool create = false;     // make it if it does not exist (needs write)
  bool exclusive = false;  // with create: fail with EEXIST if it exists
  bool truncate = false;   // cut it to nothing (needs write)
  bool append = false;     // every write goes to the end (needs write)
  uint32_t mode = 0644;    // permission bits of a new file

  static OpenOptions Read() { return {}; }
  static OpenOptions Write() { return {.read = false, .write = true, .create = true, .truncate = true}; }
  static OpenOptions ReadWrite() { return {.write = true, .create = true}; }
  static OpenOptions Append() { return {.read = false, .write = true, .create = true, .append = true}; }
};

// How to reach a cluster. A plain value. A member that is empty is taken from the configuration file.
struct ConnectOptions {
  std::string config_file;         // INI with meta= and key=; empty: SHOAL_CONFIG, else /etc/shoal/client.conf if it exists
  std::vector<std::string> meta;   // "HOST[:PORT]" of the metaservers, tried in turn; default 127.0.0.1:7600
  std::string key_file;            // the cluster's key; default /etc/shoal/cluster.key
  std::string name;                // shown by `shoal status`; default: the process's id
  std::string root;                // paths begin at this directory of the file system; default: its root
  std::chrono::milliseconds timeout{300'000};  // how long calls wait for absent servers before ETIMEDOUT
  size_t write_memory = 64 << 20;  // bytes written and not yet acknowledged, of all files; writers wait above
  size_t read_ahead = 4 << 20;     // bytes fetched ahead of a sequential reader, for each open file; 0: none
  // On whose behalf files are used; default: this process's effective user, group and groups.
  std::optional<uint32_t> uid, gid;
  std::optional<std::vector<uint32_t>> groups;
};

}  // namespace shoal
