// READ_DIR: a part of a directory in the order of its cookies, read from a snapshot on the pool's threads; so an
// entry that exists all the while is listed exactly once whatever else changes.
#include <sys/stat.h>

#include <algorithm>

#include "metaserver/attr.h"
#include "metaserver/driver.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"
#include "metaserver/store.h"

namespace shoal::meta {
namespace {

constexpr uint32_t kMaxEntries = 4096;
constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kEntryBytes = 32;   // of an entry beside its name
constexpr size_t kAttrBytes = 110;

Status CheckDirectory(View& view, const pb::ReadDirRequest& request, pb::ReadDirResponse& response) {
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, InodeId(request.inode())));
  if (!S_ISDIR(inode->mode())) return Fail(ErrorCode::kNotDirectory);
  // As with open(2): who began to read may go on.
  if (request.cookie() == 0) {
    TRY(CheckAccess(request.caller(), *inode, kRead));
  }
  response.set_parent(inode->parent());
  return {};
}

// False: the answer is full.
bool AddBucket(const Key& key, const pb::DentryBucket& bucket, const pb::ReadDirRequest& request, uint32_t max_entries,
               size_t max_bytes, size_t* bytes, pb::ReadDirResponse& response) {
  for (const auto& entry : bucket.entries()) {
    uint64_t cookie = key.number(1) | entry.collision();
    if (cookie <= request.cookie()) continue;
    size_t size = kEntryBytes + entry.name().size() + (request.with_attr() ? kAttrBytes : 0);
    bool full = response.entries_size() >= static_cast<int>(max_entries) || *bytes + size > max_bytes;
    if (full && response.entries_size() > 0) return false;
    *bytes += size;
    pb::DirEntry* out = response.add_entries();
    out->set_name(entry.name());
    out->set_cookie(cookie);
    out->set_inode(entry.inode());
    out->set_type(entry.type());
  }
  return true;
}

Status FillAttrs(View& view, pb::ReadDirResponse& response) {
  for (const auto& entry : response.entries()) view.Want<pb::InodeRecord>(InodeKey(InodeId(entry.inode())));
  for (auto& entry : *response.mutable_entries()) {
    TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(InodeId(entry.inode())));
    // Removed since the snapshot: listed without attributes.
    if (inode) FillAttr(InodeId(entry.inode()), *inode, entry.mutable_attr());
  }
  return {};
}

}  // namespace

Task<Result<TxnId>> ReadDir(MetaContext* context, const pb::ReadDirRequest& request, pb::ReadDirResponse& response) {
  std::function<Status(View&)> check = [&](View& view) { return CheckDirectory(view, request, response); };
  Task<Result<TxnId>> checking = context->driver->Execute(std::move(check));
  Result<TxnId> seen = co_await checking;
  if (!seen) co_return seen;

  const uint32_t max_entries = std::clamp<uint32_t>(request.max_entries(), 1, kMaxEntries);
  const size_t max_bytes = std::clamp<size_t>(request.max_bytes(), 512, kMaxBytes);
  Store::ScanOptions options;
  options.start = DentryKey(InodeId(request.inode()), request.cookie() & ~uint64_t{0xff});
  options.end = Key(KeyKind::kDentry, request.inode()).PrefixEnd();
  options.max_records = max_entries + 1;
  options.max_bytes = max_bytes;
  const TxnId submitted = context->commit->submitted();
  size_t bytes = 0;
  while (true) {
    Task<Result<Store::ScanResult>> scan = context->store->Scan(options);
    Result<Store::ScanResult> page = co_await scan;
    if (!page) co_return Fail(page.error());
    bool full = false;
    for (const ScannedRecord& record : page->records) {
      pb::DentryBucket bucket;
      if (!bucket.ParseFromString(record.value)) co_return Fail(ErrorCode::kCorrupt, record.key.ToString());
      full = !AddBucket(record.key, bucket, request, max_entries, max_bytes, &bytes, response);
      if (full) break;
    }
    if (full) break;
    if (page->next.empty()) {
      response.set_end(true);
      break;
    }
    options.start = page->next;
  }
  if (request.with_attr() && response.entries_size() > 0) {
    std::function<Status(View&)> fill = [&](View& view) { return FillAttrs(view, response); };
    Task<Result<TxnId>> filling = context->driver->Execute(std::move(fill));
    Result<TxnId> filled = co_await filling;
    if (!filled) co_return filled;
  }
  // The snapshot has seen what was submitted then.
  Task<Status> wait = context->commit->Wait(submitted, CommitLevel::kLogged);
  Status logged = co_await wait;
  if (!logged) co_return Fail(logged.error());
  co_return submitted;
}

}  // namespace shoal::meta
