// One request of the kernel, from its dispatch to its answer. For the folder's own sources only.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <span>

#include "client/attr.h"
#include "common/buffer.h"
#include "common/result.h"
#include "fuse/creds.h"
#include "fuse/fuse_api.h"

namespace shoal::fuse {

class MountFs;

// The duty to answer one request, exactly once. Owner: the handler, or the frame of its coroutine. On the mount's
// loop. Answering: true when the kernel took it; false when nobody waits any more (the caller was killed and has got
// EINTR meanwhile, or the mount is gone), so that what the answer would have handed over must be undone. A Call that
// is destroyed unanswered answers EIO.
class Call {
 public:
  Call(MountFs& fs, fuse_req_t req);
  Call(Call&& other) noexcept;
  Call& operator=(Call&&) = delete;
  ~Call();

  // From now on a killed caller is let go at once: with EINTR, or for a lock (`wait_id` not 0) by cancelling its
  // wait. The Call must stay where it is: called first thing in a coroutine.
  void Arm(uint64_t wait_id = 0);

  const client::Cred& cred();
  const CredPtr& cred_ptr();
  bool waiting() const { return req_ != nullptr; }

  bool Ok() { return Error(0); }
  bool Error(int error);
  bool Fail(const shoal::Error& error);
  bool Answer(const Status& status) { return status ? Ok() : Fail(status.error()); }
  bool Entry(const client::Attr& attr);
  bool NoEntry();  // the name does not exist, and the kernel may remember that
  bool Attr(const client::Attr& attr);
  bool Open(fuse_file_info* info);
  bool Create(const client::Attr& attr, fuse_file_info* info);
  bool Written(size_t bytes);
  bool Data(const Payload& payload);
  bool Bytes(const void* data, size_t size);
  bool Text(const char* text);  // a symlink's target
  bool Size(size_t size);       // of an extended attribute
  bool Position(uint64_t offset);
  bool StatFs(const client::FsStat& stat);
  bool Lock(const struct flock& lock);
  bool Ioctl(const void* data, size_t size);
  void None();  // a request that has no answer

  // Called again and again while an interrupted request waits: lets go of a caller that is being killed.
  void CheckKilled();

 private:
  static void OnInterrupt(fuse_req_t req, void* call);
  void Interrupted();
  fuse_req_t Take(int error);
  bool Sent(int result) const { return result == 0; }

  MountFs* fs_;
  fuse_req_t req_;
  uint32_t opcode_;
  bool arming_ = false;
  bool interrupted_ = false;
  bool listed_ = false;  // in the mount's list of interrupted calls
  uint64_t wait_id_ = 0;
  std::chrono::steady_clock::time_point started_;
  CredPtr cred_;
};

// A handler's coroutine: starts at once, frees itself at its end, and is counted by the mount meanwhile. Its first
// parameter is the MountFs.
struct Op {
  struct promise_type {
    template <typename... Args>
    explicit promise_type(MountFs& fs, const Args&...) : fs_(fs) {
      Begin();
    }
    ~promise_type() { End(); }
    Op get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }

   private:
    void Begin();
    void End();
    MountFs& fs_;
  };
};

}  // namespace shoal::fuse
