#include "metaserver/dentry.h"

#include "common/checksum.h"
#include "common/limits.h"
#include "metaserver/context.h"

namespace shoal::meta {
namespace {

constexpr int kCollisions = 256;

const pb::DentryRecord* FindIn(const pb::DentryBucket& bucket, std::string_view name) {
  for (const auto& entry : bucket.entries()) {
    if (entry.name() == name) return &entry;
  }
  return nullptr;
}

int PositionIn(const pb::DentryBucket& bucket, std::string_view name) {
  for (int i = 0; i < bucket.entries_size(); ++i) {
    if (bucket.entries(i).name() == name) return i;
  }
  return -1;
}

}  // namespace

uint64_t BucketOf(const MetaContext& context, std::string_view name) {
  uint64_t hash = Checksum(name, context.hash_seed) >> (64 - context.hash_bits);
  if (hash == 0) hash = 1;  // cookies 0, 1 and 2 mean other things
  return hash << 8;
}

Status CheckName(std::string_view name, ErrorCode dots) {
  if (name.size() > kMaxName) return Fail(ErrorCode::kNameTooLong, "a name has at most 255 bytes");
  if (name.empty()) return Fail(ErrorCode::kNotFound, "an empty name");
  if (name == "." || name == "..") return Fail(dots);
  if (name.find('/') != name.npos || name.find('\0') != name.npos) {
    return Fail(ErrorCode::kInvalidArgument, "a name can't have '/' or NUL in it");
  }
  return {};
}

Result<Dentry> FindDentry(View& view, InodeId parent, std::string_view name) {
  uint64_t base = BucketOf(view.context(), name);
  TRY_ASSIGN(const pb::DentryBucket* bucket, view.Get<pb::DentryBucket>(DentryKey(parent, base)));
  if (!bucket) return Dentry{};
  const pb::DentryRecord* entry = FindIn(*bucket, name);
  if (!entry) return Dentry{};
  return Dentry{InodeId(entry->inode()), entry->type(), base | entry->collision()};
}

void WantDentry(View& view, InodeId parent, std::string_view name) {
  view.Want<pb::DentryBucket>(DentryKey(parent, BucketOf(view.context(), name)));
}

Status AddDentry(View& view, InodeId parent, std::string_view name, InodeId inode, uint32_t type) {
  Key key = DentryKey(parent, BucketOf(view.context(), name));
  TRY_ASSIGN(const pb::DentryBucket* old, view.Get<pb::DentryBucket>(key));
  pb::DentryBucket* bucket = old ? view.Mutable<pb::DentryBucket>(key) : view.Put<pb::DentryBucket>(key);
  // The lowest free collision number; entries stand in its order.
  int place = 0;
  while (place < bucket->entries_size() && bucket->entries(place).collision() == static_cast<uint32_t>(place)) ++place;
  if (place >= kCollisions) return Fail(ErrorCode::kNoSpace, "256 names with the same hash in one directory");
  pb::DentryRecord* entry = bucket->add_entries();
  entry->set_collision(place);
  entry->set_name(name.data(), name.size());
  entry->set_inode(inode.value);
  entry->set_type(type);
  for (int i = bucket->entries_size() - 1; i > place; --i) bucket->mutable_entries()->SwapElements(i, i - 1);
  return {};
}

void RemoveDentry(View& view, InodeId parent, std::string_view name) {
  Key key = DentryKey(parent, BucketOf(view.context(), name));
  pb::DentryBucket* bucket = view.Mutable<pb::DentryBucket>(key);
  int place = PositionIn(*bucket, name);
  CHECK(place >= 0);
  bucket->mutable_entries()->DeleteSubrange(place, 1);
  if (bucket->entries().empty()) view.Delete(key);
}

void ReplaceDentry(View& view, InodeId parent, std::string_view name, InodeId inode, uint32_t type) {
  pb::DentryBucket* bucket = view.Mutable<pb::DentryBucket>(DentryKey(parent, BucketOf(view.context(), name)));
  int place = PositionIn(*bucket, name);
  CHECK(place >= 0);
  bucket->mutable_entries(place)->set_inode(inode.value);
  bucket->mutable_entries(place)->set_type(type);
}

}  // namespace shoal::meta
