#include "metaserver/keys.h"

#include <fmt/format.h>

namespace shoal::meta {
namespace {

const char* KindName(KeyKind kind) {
  switch (kind) {
    case KeyKind::kCommit: return "commit record";
    case KeyKind::kCluster: return "cluster record";
    case KeyKind::kLife: return "life record";
    case KeyKind::kIdRanges: return "id ranges";
    case KeyKind::kInode: return "inode";
    case KeyKind::kDentry: return "directory entries";
    case KeyKind::kXattrs: return "xattrs of inode";
    case KeyKind::kExtent: return "extent of inode";
    case KeyKind::kOrphan: return "orphan";
    case KeyKind::kReap: return "reaped inode";
    case KeyKind::kTruncate: return "truncation of inode";
    case KeyKind::kChunk: return "chunk";
    case KeyKind::kBackref: return "reference to chunk";
    case KeyKind::kByServer: return "replica on server";
    case KeyKind::kServer: return "server";
    case KeyKind::kDrop: return "replica to drop on server";
    case KeyKind::kWork: return "work on chunk";
    case KeyKind::kUnknown: return "unknown replica on server";
    case KeyKind::kSession: return "session";
    case KeyKind::kSlot: return "slot of session";
  }
  return "unknown record";
}

}  // namespace

std::string Key::ToString() const {
  if (size_ < kHead) return "no key";
  std::string text = KindName(kind());
  for (size_t i = 0; i < numbers(); ++i) text += fmt::format("{}{:x}", i ? "/" : " ", number(i));
  return text;
}

}  // namespace shoal::meta
