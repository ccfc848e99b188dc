// MountFs: the file system as the kernel sees it; translates its requests to calls of the client's engine.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "client/engine.h"
#include "common/event_loop.h"
#include "common/metrics.h"
#include "fuse/creds.h"
#include "fuse/dir_packer.h"
#include "fuse/freshness.h"
#include "fuse/mount_options.h"
#include "fuse/removed.h"

struct fuse_lowlevel_ops;

namespace shoal::fuse {

class Call;

// A file the kernel has open: what stands behind fuse_file_info::fh. Owner: MountFs, from open to the kernel's release
// and the end of the last request that uses it, whichever is later (a killed caller's requests outlive its release).
struct FileHandle {
  client::HandlePtr handle;
  int flags = 0;              // open(2)'s
  bool direct = false;        // the kernel caches nothing for it
  bool atime_checked = false;
  bool released = false;
  int users = 0;              // requests under way
  int64_t atime_ns = 0, mtime_ns = 0, ctime_ns = 0;  // at open, for relatime
  // Who took fcntl(2) locks through it and has not closed a descriptor since. At the end these are the locks of the
  // open file itself (F_OFD_SETLK), which the kernel never gives back by itself.
  std::vector<uint64_t> lock_owners;

  InodeId inode() const { return handle->inode(); }
};

// A directory the kernel has open. Owner: as of FileHandle.
struct DirHandle {
  InodeId inode;
  FetchedPage fetched;
  bool released = false;
  int users = 0;
};

// The request as it came from the kernel, beside what libfuse makes of it. Owner: MountFs. On the loop.
struct Wire {
  Buffer buffer;              // the request being dispatched lies at its start
  size_t size = 0;            // of it
  uint64_t init_unique = 0;   // of the INIT request until it is answered
  uint64_t init_flags = 0;    // what the kernel offered there
  uint32_t kernel_minor = 0;  // its protocol
  uint64_t answer_flags = 0;  // what was agreed
  bool ready = false;         // INIT was answered

  uint32_t opcode() const;
  // Whether the kernel asks that the set-id bits be cleared (HANDLE_KILLPRIV_V2; libfuse 3.14 doesn't tell).
  bool KillSuidSgid() const;
};

// The state of one mount and its request handlers (ops_*.cc). Owner: the mount's main function; outlives the FUSE
// session. Everything is called on the engine's loop, handlers by libfuse from FuseSession's poller. Errors go to the
// kernel as errno; those that mean trouble in the cluster are logged.
class MountFs {
 public:
  MountFs(EventLoop& loop, client::Engine& engine, const MountOptions& options, Metrics& metrics);
  ~MountFs();
  MountFs(const MountFs&) = delete;
  MountFs& operator=(const MountFs&) = delete;

  // The table for libfuse; the session's user data is the MountFs.
  static const fuse_lowlevel_ops& Operations();

  EventLoop& loop() { return loop_; }
  client::Engine& engine() { return engine_; }
  const MountOptions& options() const { return options_; }
  Wire& wire() { return wire_; }
  Freshness& freshness() { return freshness_; }
  Removed& removed() { return removed_; }
  char* scratch() { return scratch_.get(); }  // kScratch bytes, for one answer being put together
  static constexpr size_t kScratch = 1 << 20;

  // The kernel's number of an inode and back: the root of the mount is 1 there, whatever it is in the cluster.
  uint64_t NodeOf(InodeId inode) const { return inode == engine_.root() ? 1 : inode.value; }
  InodeId InodeOf(uint64_t node) const { return node == 1 ? engine_.root() : InodeId(node); }

  CredPtr CredOf(uint32_t uid, uint32_t gid, uint32_t pid) {
    return creds_.Get(uid, gid, pid, std::chrono::steady_clock::now());
  }
  uint64_t NextWaitId() { return ++last_wait_id_; }

  FileHandle* AddFile(client::HandlePtr handle, int flags, const client::Attr& attr);
  DirHandle* AddDir(InodeId inode);
  void RemoveFile(FileHandle* file);  // the kernel has released it
  void RemoveDir(DirHandle* dir);
  void Use(FileHandle* file) { ++file->users; }
  void Unuse(FileHandle* file);
  void Use(DirHandle* dir) { ++dir->users; }
  void Unuse(DirHandle* dir);

  // Remembers that a file was read, if relatime wants it told to the metaserver (later, in the background).
  void NoteRead(FileHandle& file);

  // For Call: the books of requests.
  void Finished(uint32_t opcode, Duration latency, int error);
  void AddInterrupted(Call* call);
  void RemoveInterrupted(Call* call) { interrupted_.erase(call); }
  void LogTrouble(uint32_t opcode, const Error& error);

  // For Op: coroutines under way.
  void OpBegins() { ++ops_; }
  void OpEnds();
  // Gives back all handles the kernel will not release any more; then waits until no request is under way. The
  // engine must be told to stop first if requests may be waiting for servers.
  Task<void> ReleaseAll();
  Task<void> Drain();

 private:
  Task<void> SendAtimes();
  void CheckInterrupted();
  void Drop(FileHandle* file);

  EventLoop& loop_;
  client::Engine& engine_;
  const MountOptions& options_;
  Metrics& metrics_;
  Wire wire_;
  CredCache creds_;
  Freshness freshness_;
  Removed removed_;
  std::unique_ptr<char[]> scratch_;
  uint64_t last_wait_id_ = 0;

  std::unordered_set<FileHandle*> files_;
  std::unordered_set<DirHandle*> dirs_;
  std::unordered_map<InodeId, int64_t> atimes_;  // to be told
  bool sending_atimes_ = false;  // or soon
  std::unique_ptr<EventLoop::Timer> atime_timer_;
  TaskGroup background_;

  size_t ops_ = 0;
  WaitList idle_;
  std::unordered_set<Call*> interrupted_;
  std::unique_ptr<EventLoop::Timer> interrupt_timer_;

  static constexpr size_t kOpcodes = 64;
  std::array<Histogram*, kOpcodes> latency_{};  // by opcode; made when first needed
  Counter& errors_;
  std::chrono::steady_clock::time_point last_trouble_;
  uint64_t silent_troubles_ = 0;
};

// Keeps a handle for the length of a request. Owner: the request's coroutine.
template <typename H>
class Using {
 public:
  Using(MountFs& fs, H* handle) : fs_(fs), handle_(handle) { fs_.Use(handle_); }
  ~Using() { fs_.Unuse(handle_); }
  Using(const Using&) = delete;
  Using& operator=(const Using&) = delete;

 private:
  MountFs& fs_;
  H* handle_;
};

const char* OpcodeName(uint32_t opcode);

}  // namespace shoal::fuse
