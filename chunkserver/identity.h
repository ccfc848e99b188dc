// What makes a directory a data directory of this server and no other.
#pragma once

#include <optional>
#include <string>

#include "common/files.h"
#include "common/result.h"

namespace shoal {

// The content of DIR/identity, a text file: "shoal data directory", "format 1", "server UUID", "cluster UUID" (the last
// is "-" until the first registration), and once the metadata was restored "incarnation N LIFE" (the highest that was seen,
// and its id), one a line. A plain value.
struct DirectoryIdentity {
  std::string server_uuid;
  std::string cluster_uuid;  // empty: none yet
  uint32_t incarnation = 0;
  uint64_t life = 0;

  std::string Encode() const;
  static Result<DirectoryIdentity> Decode(const std::string& text);
};

inline constexpr char kIdentityName[] = "identity";

// Nothing when the file is not there. Errors name the file.
Result<std::optional<DirectoryIdentity>> ReadIdentity(Files& files, const std::string& directory);
// Durable when it returns.
Status WriteIdentity(Files& files, const std::string& directory, const DirectoryIdentity& identity);

// A random UUID (version 4) as text.
std::string RandomUuid();

}  // namespace shoal
