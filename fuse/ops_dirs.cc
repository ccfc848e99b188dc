// Directories: opendir, readdir, readdirplus, releasedir, fsyncdir.
//
// The kernel asks for about 4 KiB of a listing at a time; a page of a thousand entries is fetched and answers many of
// those. A name stays in a page although it was removed meanwhile (POSIX allows that), but attributes are given only
// while they are true: see Freshness. The offset of an entry is its cookie, for ever the same, so a reader can come
// back to it after any changes.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "fuse/convert.h"
#include "fuse/ops.h"

namespace shoal::fuse {
namespace {

constexpr uint32_t kPageEntries = 1024;
constexpr uint32_t kPageBytes = 512 << 10;
constexpr uint64_t kDotCookie = 1;
constexpr uint64_t kDotDotCookie = 2;

int64_t SteadyNanoseconds() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

Task<Status> Fetch(MountFs& fs, CredPtr cred, DirHandle* dir, uint64_t cookie, bool with_attr) {
  FetchedPage fetched;
  fetched.from = cookie <= kDotDotCookie ? 0 : cookie;
  fetched.freshness = fs.freshness().Now();
  fetched.fetched_ns = SteadyNanoseconds();
  fetched.with_attr = with_attr;
  auto page = co_await fs.engine().ReadDir(*cred, dir->inode, fetched.from, kPageEntries, kPageBytes, with_attr);
  if (!page) co_return shoal::Fail(std::move(page).error());
  fetched.page = std::move(*page);
  fetched.valid = true;
  dir->fetched = std::move(fetched);
  co_return Status();
}

// What is told of an entry: all, or, when its attributes may be old, only its number and type.
fuse_entry_param PlusEntry(MountFs& fs, const FetchedPage& fetched, const client::DirEntry& entry, bool page_fresh) {
  if (page_fresh && entry.attr.inode && fs.freshness().UnchangedSince(entry.inode, fetched.freshness)) {
    return ToEntry(fs, entry.attr);
  }
  fuse_entry_param bare{};
  bare.attr.st_ino = entry.inode.value;
  bare.attr.st_mode = entry.type;
  return bare;
}

bool PackDots(const DirHandle& dir, uint64_t cookie, bool plus, DirPacker& packer) {
  auto add = [&](const char* name, InodeId inode, uint64_t next) {
    if (!plus) return packer.Add(name, inode.value, S_IFDIR, next);
    fuse_entry_param entry{};
    entry.attr.st_ino = inode.value;
    entry.attr.st_mode = S_IFDIR;
    return packer.AddPlus(name, entry, next);
  };
  if (cookie < kDotCookie && !add(".", dir.inode, kDotCookie)) return false;
  InodeId parent = dir.fetched.page.parent;
  return cookie >= kDotDotCookie || add("..", parent ? parent : dir.inode, kDotDotCookie);
}

// Adds entries from `first` on. False: the answer is full.
bool PackPage(MountFs& fs, const DirHandle& dir, size_t first, bool plus, DirPacker& packer) {
  const FetchedPage& fetched = dir.fetched;
  int64_t age = SteadyNanoseconds() - fetched.fetched_ns;
  bool fresh = fetched.with_attr && age < static_cast<int64_t>(fs.options().attr_timeout_seconds * 1e9) &&
               fs.freshness().UnchangedSince(dir.inode, fetched.freshness);
  for (size_t i = first; i < fetched.page.entries.size(); ++i) {
    const client::DirEntry& entry = fetched.page.entries[i];
    bool added = plus ? packer.AddPlus(entry.name.c_str(), PlusEntry(fs, fetched, entry, fresh), entry.cookie)
                      : packer.Add(entry.name.c_str(), entry.inode.value, entry.type, entry.cookie);
    if (!added) return false;
  }
  return true;
}

Op Readdir(MountFs& fs, Call call, DirHandle* dir, size_t size, uint64_t cookie, bool plus) {
  Using<DirHandle> use(fs, dir);
  call.Arm();
  CredPtr cred = call.cred_ptr();
  if (cookie == 0) dir->fetched.valid = false;  // from the start, or rewound: what is there now
  std::optional<size_t> first = dir->fetched.Find(std::max(cookie, kDotDotCookie));
  if (!first) {
    Status status = co_await Fetch(fs, cred, dir, cookie, plus);
    if (!status) {
      call.Fail(status.error());
      co_return;
    }
    first = dir->fetched.Find(std::max(cookie, kDotDotCookie));
  }
  if (!first) {  // a page with nothing in it that isn't the end
    call.Error(EIO);
    co_return;
  }
  DirPacker packer(fs.scratch(), std::min(size, MountFs::kScratch));
  // No suspension from here to the answer: others use the scratch memory too.
  if (PackDots(*dir, cookie, plus, packer)) PackPage(fs, *dir, *first, plus, packer);
  call.Bytes(fs.scratch(), packer.used());
}

Op Fsyncdir(MountFs& fs, Call call, InodeId inode) {
  call.Arm();
  Status status = co_await fs.engine().FsyncDir(call.cred(), inode);
  call.Answer(status);
}

}  // namespace

void OpendirHandler(fuse_req_t req, fuse_ino_t node, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  DirHandle* dir = fs.AddDir(fs.InodeOf(node));
  info->fh = reinterpret_cast<uint64_t>(dir);
  if (!Call(fs, req).Open(info)) fs.RemoveDir(dir);
}

void ReaddirHandler(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Readdir(fs, Call(fs, req), DirOf(info), size, static_cast<uint64_t>(offset), false);
}

void ReaddirplusHandler(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Readdir(fs, Call(fs, req), DirOf(info), size, static_cast<uint64_t>(offset), true);
}

void ReleasedirHandler(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  DirHandle* dir = DirOf(info);
  Call(fs, req).Ok();
  fs.RemoveDir(dir);
}

void FsyncdirHandler(fuse_req_t req, fuse_ino_t, int, fuse_file_info* info) {
  MountFs& fs = FsOf(req);
  Fsyncdir(fs, Call(fs, req), DirOf(info)->inode);
}

}  // namespace shoal::fuse
