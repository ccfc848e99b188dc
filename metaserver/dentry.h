// Directory entries: how a name becomes a key, and how entries are found, added and removed.
#pragma once

#include <cstdint>
#include <string_view>

#include "common/ids.h"
#include "common/result.h"
#include "metaserver/view.h"

namespace shoal::meta {

// One entry. A plain value; inode 0: there is none.
struct Dentry {
  InodeId inode;
  uint32_t type = 0;
  uint64_t cookie = 0;
  explicit operator bool() const { return bool(inode); }
};

// The entry's bucket: hash << 8, 63 bits in use, above 2.
uint64_t BucketOf(const MetaContext& context, std::string_view name);

// kNameTooLong, kInvalidArgument (empty, with '/' or NUL). "." and ".." are `dots`.
Status CheckName(std::string_view name, ErrorCode dots = ErrorCode::kExists);

Result<Dentry> FindDentry(View& view, InodeId parent, std::string_view name);
// Names the bucket as needed soon.
void WantDentry(View& view, InodeId parent, std::string_view name);
// The three below require that FindDentry was called for the name in this attempt, and found none / one / one.
// Parent's inode record is not touched. kNoSpace when 256 names have the same hash.
Status AddDentry(View& view, InodeId parent, std::string_view name, InodeId inode, uint32_t type);
void RemoveDentry(View& view, InodeId parent, std::string_view name);
void ReplaceDentry(View& view, InodeId parent, std::string_view name, InodeId inode, uint32_t type);

}  // namespace shoal::meta
