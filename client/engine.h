// Engine: libshoal's core. The inode-level client of one cluster, used by the FUSE mount and by the public API.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/attr.h"
#include "common/buffer.h"
#include "common/event_loop.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "common/result.h"
#include "common/rpc/rpc.h"

namespace shoal::pb {
class ClusterStatusResponse;
class FsckRequest;
class FsckResponse;
class ScrubRequest;
class ScrubResponse;
class ListServersResponse;
class StatPathResponse;
}  // namespace shoal::pb

namespace shoal::client {

// How to reach a cluster and what the client may use. A plain value; the defaults suit a mount.
struct ClientOptions {
  std::vector<Address> meta;         // metaservers, tried in turn
  ClusterKey key;
  std::string name = "client";       // shown by `shoal status`: "mount:/mnt/x"
  std::string subdir;                // the engine's root: a directory of the file system ("" or "/": its root)
  Duration timeout = kMountTimeout;  // how long an operation waits for an absent metaserver or chunkservers
  bool open_session = true;          // false: only ClusterStatus, ListServers, StatPath, Fsck and Scrub are used
  size_t write_memory = 64 << 20;    // bytes gathered and not yet acknowledged, of all files; writers wait above
  size_t gather_bytes = kMaxIo;      // a chunk with that much gathered is written out
  Duration gather_age = 1s;          // gathered data is written out when it is that old
  size_t read_ahead = 4 << 20;       // bytes fetched ahead of a sequential reader; 0: never (the kernel does it for a mount)
  Duration hedge_after = 400ms;      // a read without an answer for so long is sent to another replica too
  Duration read_try = 1500ms;        // one try of a read at one replica
  Duration write_try = 2s;           // one try of a write; then the metaserver is asked to look into it
  Duration avoid_server = 5s;        // a server that failed is not the first choice for so long
};

class EngineImpl;
struct InodeState;

// An open file: made by Open and Create, given back by Release. Belongs to the caller, lives on the engine's loop; must
// not be destroyed otherwise.
class Handle {
 public:
  InodeId inode() const { return inode_; }
  int flags() const { return flags_; }  // open(2)'s

 private:
  friend class EngineImpl;
  friend class Engine;
  Handle() = default;
  InodeId inode_;
  int flags_ = 0;
  Cred cred_;  // of the opener: data is written on its behalf
  std::shared_ptr<InodeState> state_;
  uint64_t errors_seen_ = 0;  // how many of the inode's write errors this handle has reported
  uint64_t next_offset_ = 0;  // read-ahead: where a sequential reader goes on
  struct ReadAhead;
  std::shared_ptr<ReadAhead> read_ahead_;

 public:
  ~Handle();
};
using HandlePtr = std::unique_ptr<Handle>;

// What Create and Open give. A plain value.
struct Opened {
  Attr attr;
  HandlePtr handle;
  bool created = false;
  bool keep_cache = false;  // since this client had it open last, nobody else has changed it: cached pages are right
};

// The client of one cluster: one session, its connections, the data on its way to the chunkservers.
//
// Owner: the mount or the FileSystem of the public API. Thread: everything is called on the one loop given to it
// (other threads use RunOn), and nothing blocks it. Every reference, pointer and string_view given to a task must live
// until that task ends; names are single components of at most 255 bytes, without NUL and '/'.
//
// Errors: what the metaserver answered, as codes of common/result.h. While no metaserver answers, an operation waits
// and is repeated (mutating ones with the same slot and sequence, so they are done once) until options.timeout, then
// fails with kTimeout.
//
// Durability: namespace operations, when they return, survive the death of any process, and power loss after Fsync of
// the file or of the directory (FsyncDir), SyncAll, or two seconds. Written bytes are gathered here for up to
// options.gather_age and are lost with this process until Flush, Fsync, Release or SyncAll has returned; power loss
// they survive after Fsync or SyncAll. An error of writing out that nobody waited for stays on the inode, and each
// handle that was open reports it once, by Flush, Fsync or Release.
class Engine {
 public:
  // `loop` and `metrics` outlive the engine.
  Engine(EventLoop& loop, ClientOptions options, Metrics& metrics);
  ~Engine();  // Stop must have been called if Start succeeded
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Connects, opens the session and finds the root; waits up to options.timeout.
  Task<Status> Start();
  // Writes out everything (waiting up to `timeout`), closes the session and the connections. Operations under way or
  // begun later fail with kCancelled. The status is the first failure of writing out.
  Task<Status> Stop(Duration timeout = 30s);

  InodeId root() const;
  const ClientOptions& options() const;

  // ---- names ----
  Task<Result<Attr>> Lookup(const Cred& cred, InodeId parent, std::string_view name);
  Task<Result<Opened>> Create(const Cred& cred, InodeId parent, std::string_view name, uint32_t mode, int flags);
  Task<Result<Attr>> Mkdir(const Cred& cred, InodeId parent, std::string_view name, uint32_t mode);
  Task<Result<Attr>> Mknod(const Cred& cred, InodeId parent, std::string_view name, uint32_t mode, uint64_t rdev);
  Task<Result<Attr>> Symlink(const Cred& cred, InodeId parent, std::string_view name, std::string_view target);
  Task<Result<std::string>> Readlink(const Cred& cred, InodeId inode);
  Task<Result<Attr>> Link(const Cred& cred, InodeId inode, InodeId new_parent, std::string_view new_name);
  // Both give the inode that the name was (its attributes: nlink may be 0).
  Task<Result<Attr>> Unlink(const Cred& cred, InodeId parent, std::string_view name);
  Task<Result<Attr>> Rmdir(const Cred& cred, InodeId parent, std::string_view name);
  // What a rename moved and what it replaced (none: nothing).
  struct Renamed {
    InodeId inode;
    Attr replaced;  // what is left of what had the new name; inode 0: nothing had
  };
  Task<Result<Renamed>> Rename(const Cred& cred, InodeId parent, std::string_view name, InodeId new_parent,
                               std::string_view new_name, uint32_t flags);
  // The entries after `cookie` (0: from the start; 1 and 2, the cookies of "." and "..", mean the same).
  Task<Result<DirPage>> ReadDir(const Cred& cred, InodeId inode, uint64_t cookie, uint32_t max_entries,
                                uint32_t max_bytes, bool with_attr);
  Task<Status> FsyncDir(const Cred& cred, InodeId inode);

  // ---- attributes ----
  // Size and mtime include what was written here and is still on its way.
  Task<Result<Attr>> GetAttr(const Cred& cred, InodeId inode);
  // `handle`: of an ftruncate (permission was checked at open), else null.
  Task<Result<Attr>> SetAttr(const Cred& cred, InodeId inode, const AttrChange& change, Handle* handle = nullptr);
  // A relatime update: change and ctime stay, errors are ignored.
  Task<void> TouchAtime(InodeId inode, int64_t atime_ns);
  Task<Result<std::string>> GetXattr(const Cred& cred, InodeId inode, std::string_view name);
  Task<Status> SetXattr(const Cred& cred, InodeId inode, std::string_view name, std::string_view value, uint32_t flags);
  Task<Result<std::vector<std::string>>> ListXattr(const Cred& cred, InodeId inode);
  Task<Status> RemoveXattr(const Cred& cred, InodeId inode, std::string_view name);
  Task<Result<FsStat>> StatFs(const Cred& cred);

  // ---- files ----
  // `flags` as in open(2): access mode, O_TRUNC, O_APPEND are looked at. Fetches what close-to-open needs.
  Task<Result<Opened>> Open(const Cred& cred, InodeId inode, int flags);
  // Ends the handle: writes out the inode's data first, and answers with the error that the handle has not reported
  // yet. The metaserver is told later, in a batch.
  Task<Status> Release(HandlePtr handle);
  // Up to `length` bytes from `offset`; fewer only at the end of the file. At most 16 MiB at once.
  Task<Result<Payload>> Read(Handle& handle, uint64_t offset, size_t length);
  // Gathers the bytes and returns where they stand. Waits while options.write_memory is used up. Data of 64 KiB and more
  // is shared with `data`'s block, less is copied.
  Task<Result<uint64_t>> Write(Handle& handle, uint64_t offset, Buffer data, WriteHow how = {});
  // As Write of a handle with O_APPEND.
  Task<Result<uint64_t>> Append(Handle& handle, Buffer data);
  // Write without a coroutine: nullopt when that would have to wait (then call Write).
  std::optional<Result<uint64_t>> TryWrite(Handle& handle, uint64_t offset, const Buffer& data,
                                           WriteHow how = {});
  // Writes out the inode's data and commits its size. Reports the errors not yet reported by this handle.
  Task<Status> Flush(Handle& handle);
  // True when Flush would have nothing to do and nothing to report.
  bool FlushIsNothing(const Handle& handle) const;
  // Flush, and everything of the file (whoever wrote it) is on the disks of all replicas.
  Task<Status> Fsync(Handle& handle, bool data_only);
  // `mode` as in fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE [|KEEP_SIZE]; others: kNotSupported.
  Task<Status> Fallocate(Handle& handle, int mode, uint64_t offset, uint64_t length);
  // SEEK_DATA and SEEK_HOLE; kNoDevice (ENXIO) at or beyond the end, or when no data follows.
  Task<Result<uint64_t>> SeekData(Handle& handle, uint64_t offset);
  Task<Result<uint64_t>> SeekHole(Handle& handle, uint64_t offset);
  // Copies between files (or within one, ranges not overlapping), holes stay holes; returns the bytes copied: fewer
  // than `length` at the end of `from`.
  Task<Result<uint64_t>> CopyRange(Handle& from, uint64_t from_offset, Handle& to, uint64_t to_offset, uint64_t length);

  // ---- locks ----
  // `owner` is any number of the caller's. `wait_id`: 0: kWouldBlock at once when somebody else has the lock; else it
  // waits, and CancelLock(wait_id) ends the wait with kInterrupted. Locks are held by the session and survive
  // reconnection and a metaserver's restart.
  Task<Status> SetLock(const Cred& cred, InodeId inode, uint64_t owner, bool flock, const LockRange& range,
                       uint64_t wait_id);
  Task<Status> Unlock(const Cred& cred, InodeId inode, uint64_t owner, bool flock, const LockRange& range);
  void CancelLock(uint64_t wait_id);
  // The lock that would stand against this one.
  Task<Result<std::optional<LockRange>>> GetLock(const Cred& cred, InodeId inode, uint64_t owner,
                                                 const LockRange& range);
  // Whether `owner` holds any lock of this kind here; when not, a close needs no Unlock. No waiting.
  bool HoldsLocks(InodeId inode, uint64_t owner, bool flock) const;

  // ---- the whole ----
  // Writes out all of this client's data; then everything the cluster has acknowledged, to anyone, is made durable.
  Task<Status> SyncAll(const Cred& cred);
  Task<Result<pb::ClusterStatusResponse>> ClusterStatus();
  Task<Result<pb::ListServersResponse>> ListServers();
  // By path from the file system's root (not subdir), or, with an empty path, by inode.
  Task<Result<pb::StatPathResponse>> StatPath(const Cred& cred, std::string_view path, InodeId inode,
                                              uint64_t first_index, uint32_t max_chunks);
  // A part of a walk over the files under a path (docs/operations.md, `shoal fsck`, `shoal scrub`).
  Task<Result<pb::FsckResponse>> Fsck(const pb::FsckRequest& request);
  Task<Result<pb::ScrubResponse>> Scrub(const pb::ScrubRequest& request);
  // As the servers told at the connection; empty before Start.
  const std::string& cluster_uuid() const;
  // Bytes gathered or on their way now.
  size_t dirty_bytes() const;

 private:
  std::optional<Result<uint64_t>> AddNow(Handle& handle, uint64_t offset, const Buffer& data, bool kill_suid_sgid,
                                         bool append);
  Task<Result<uint64_t>> AddWhenPossible(Handle& handle, uint64_t offset, Buffer data, bool kill_suid_sgid, bool append);
  std::unique_ptr<EngineImpl> impl_;
};

}  // namespace shoal::client
