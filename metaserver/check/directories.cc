// Directories: every entry stands where its name's hash says, their number is that of the inode, and so are the links.
#include <fmt/format.h>
#include <sys/stat.h>

#include <set>

#include "common/checksum.h"
#include "common/limits.h"
#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

constexpr const char* kName = "directory_entries";
constexpr const char* kNext = "restore a backup, or ask with this output";

uint64_t BucketOf(const CheckRun& run, std::string_view name) {
  uint64_t hash = Checksum(name, run.cluster.hash_seed()) >> (64 - run.hash_bits);
  return (hash ? hash : 1) << 8;
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

// Adds its entries, and its directories, to the counts.
Status CheckBucket(CheckRun& run, const Key& key, const pb::DentryBucket& bucket, uint64_t* entries,
                   uint64_t* directories) {
  std::set<std::string_view> names;
  int64_t last = -1;
  if (bucket.entries().empty()) run.Problem(kName, key, "there is a record without entries", kNext);
  for (const pb::DentryRecord& entry : bucket.entries()) {
    if (!IsName(entry.name())) run.Problem(kName, key, "an entry has a name that no file can have", kNext);
    if (BucketOf(run, entry.name()) != key.number(1)) {
      run.Problem(kName, key,
                  fmt::format("\"{}\" stands under the hash of another name: it can't be found", entry.name()), kNext);
    }
    if (entry.collision() > 255 || static_cast<int64_t>(entry.collision()) <= last) {
      run.Problem(
          kName, key,
          fmt::format("\"{}\": its collision number {} is not above the one before", entry.name(), entry.collision()),
          kNext);
    }
    last = entry.collision();
    if (!names.insert(entry.name()).second)
      run.Problem(kName, key, fmt::format("\"{}\" is there twice", entry.name()), kNext);
    ++*entries;
    *directories += S_ISDIR(entry.type());
    ++run.result.names;
    TRY(run.AddName(InodeId(entry.inode()), InodeId(key.number(0)), key.number(1) | (entry.collision() & 0xff),
                    entry.type()));
  }
  return {};
}

void CheckCounts(CheckRun& run, const Key& key, const pb::InodeRecord& inode, uint64_t entries, uint64_t directories) {
  if (inode.entries() != entries) {
    run.Mendable(kName, key, fmt::format("the directory counts {} entries and has {}", inode.entries(), entries), key,
                 CheckRun::Edit<pb::InodeRecord>([entries](pb::InodeRecord& r) { r.set_entries(entries); }));
  }
  if (inode.nlink() == 0 && entries == 0) return;  // removed, and open somewhere
  if (inode.nlink() != 2 + directories) {
    run.Mendable("directory_links", key,
                 fmt::format("the directory counts {} links, {} is right (2 and one for each of {} directories in it)",
                             inode.nlink(), 2 + directories, directories),
                 key, CheckRun::Edit<pb::InodeRecord>([directories](pb::InodeRecord& r) {
                   r.set_nlink(2 + static_cast<uint32_t>(directories));
                 }));
  }
}

}  // namespace

Status CheckDirectories(CheckRun& run) {
  Cursor<pb::DentryBucket> entry(run, Key(KeyKind::kDentry));
  Cursor<pb::InodeRecord> inode(run, Key(KeyKind::kInode));
  while (entry.valid() || inode.valid()) {
    uint64_t id = !inode.valid() ? entry.key().number(0) : inode.key().number(0);
    if (entry.valid()) id = std::min(id, entry.key().number(0));
    bool is_inode = inode.valid() && inode.key().number(0) == id;
    bool is_directory = is_inode && S_ISDIR(inode.record().mode());
    if (!is_directory && entry.valid() && entry.key().number(0) == id) {
      run.Problem(kName, entry.key(),
                  is_inode ? "entries of something that is no directory" : "entries of a directory that does not exist",
                  kNext);
    }
    uint64_t entries = 0, directories = 0;
    for (; entry.valid() && entry.key().number(0) == id; entry.Next()) {
      TRY(run.Step());
      TRY(CheckBucket(run, entry.key(), entry.record(), &entries, &directories));
    }
    if (is_directory) CheckCounts(run, inode.key(), inode.record(), entries, directories);
    if (is_inode) inode.Next();
  }
  TRY(entry.status());
  return inode.status();
}

}  // namespace shoal::meta
