#include "fuse/call.h"

#include <linux/fuse.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#include <cerrno>
#include <utility>

#include "fuse/convert.h"
#include "fuse/mount_fs.h"

namespace shoal::fuse {

void Op::promise_type::Begin() { fs_.OpBegins(); }
void Op::promise_type::End() { fs_.OpEnds(); }

Call::Call(MountFs& fs, fuse_req_t req)
    : fs_(&fs), req_(req), opcode_(fs.wire().opcode()), started_(std::chrono::steady_clock::now()) {}

Call::Call(Call&& other) noexcept
    : fs_(other.fs_),
      req_(std::exchange(other.req_, nullptr)),
      opcode_(other.opcode_),
      started_(other.started_),
      cred_(std::move(other.cred_)) {}

Call::~Call() {
  if (req_) Error(EIO);
}

void Call::Arm(uint64_t wait_id) {
  wait_id_ = wait_id;
  arming_ = true;
  fuse_req_interrupt_func(req_, &Call::OnInterrupt, this);
  arming_ = false;
  if (interrupted_) Interrupted();
}

void Call::OnInterrupt(fuse_req_t, void* data) {
  auto* call = static_cast<Call*>(data);
  call->interrupted_ = true;
  if (!call->arming_) call->Interrupted();
}

void Call::Interrupted() {
  if (wait_id_) return fs_->engine().CancelLock(wait_id_);
  if (!listed_) {
    listed_ = true;
    fs_->AddInterrupted(this);
  }
}

void Call::CheckKilled() {
  // A signal that the process handles must not make a file operation fail; one that kills it may.
  if (req_ && ParseKillPending(ReadProcStatus(fuse_req_ctx(req_)->pid))) Error(EINTR);
}

const CredPtr& Call::cred_ptr() {
  if (!cred_) {
    const fuse_ctx* context = fuse_req_ctx(req_);
    cred_ = fs_->CredOf(context->uid, context->gid, static_cast<uint32_t>(context->pid));
  }
  return cred_;
}

const client::Cred& Call::cred() { return *cred_ptr(); }

fuse_req_t Call::Take(int error) {
  if (listed_) fs_->RemoveInterrupted(this);
  listed_ = false;
  if (req_) fs_->Finished(opcode_, std::chrono::steady_clock::now() - started_, error);
  return std::exchange(req_, nullptr);
}

bool Call::Error(int error) {
  fuse_req_t req = Take(error);
  return req && Sent(fuse_reply_err(req, error));
}

bool Call::Fail(const shoal::Error& error) {
  int number = error.code == ErrorCode::kCancelled ? ENOTCONN : ErrorErrno(error.code);
  if (number == EIO || number == ETIMEDOUT || number == ENOTCONN) fs_->LogTrouble(opcode_, error);
  return Error(number ? number : EIO);
}

bool Call::Entry(const client::Attr& attr) {
  fuse_req_t req = Take(0);
  if (!req) return false;
  fuse_entry_param entry = ToEntry(*fs_, attr);
  return Sent(fuse_reply_entry(req, &entry));
}

bool Call::NoEntry() {
  if (fs_->options().negative_timeout_seconds <= 0) return Error(ENOENT);
  fuse_req_t req = Take(0);
  if (!req) return false;
  fuse_entry_param entry{};
  entry.entry_timeout = fs_->options().negative_timeout_seconds;
  return Sent(fuse_reply_entry(req, &entry));
}

bool Call::Attr(const client::Attr& attr) {
  fuse_req_t req = Take(0);
  if (!req) return false;
  struct stat st = ToStat(attr);
  return Sent(fuse_reply_attr(req, &st, fs_->options().attr_timeout_seconds));
}

bool Call::Open(fuse_file_info* info) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_open(req, info));
}

bool Call::Create(const client::Attr& attr, fuse_file_info* info) {
  fuse_req_t req = Take(0);
  if (!req) return false;
  fuse_entry_param entry = ToEntry(*fs_, attr);
  return Sent(fuse_reply_create(req, &entry, info));
}

bool Call::Written(size_t bytes) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_write(req, bytes));
}

bool Call::Data(const Payload& payload) {
  fuse_req_t req = Take(0);
  if (!req) return false;
  constexpr size_t kFew = 8;
  iovec few[kFew];
  std::vector<iovec> many;
  iovec* parts = few;
  if (payload.size() > kFew) {
    many.resize(payload.size());
    parts = many.data();
  }
  int count = 0;
  for (const Buffer& part : payload) {
    if (!part.empty()) parts[count++] = {const_cast<uint8_t*>(part.data()), part.size()};
  }
  return Sent(count ? fuse_reply_iov(req, parts, count) : fuse_reply_buf(req, nullptr, 0));
}

bool Call::Bytes(const void* data, size_t size) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_buf(req, static_cast<const char*>(data), size));
}

bool Call::Text(const char* text) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_readlink(req, text));
}

bool Call::Size(size_t size) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_xattr(req, size));
}

bool Call::Position(uint64_t offset) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_lseek(req, static_cast<off_t>(offset)));
}

bool Call::StatFs(const client::FsStat& stat) {
  fuse_req_t req = Take(0);
  if (!req) return false;
  struct statvfs st = ToStatVfs(stat);
  return Sent(fuse_reply_statfs(req, &st));
}

bool Call::Lock(const struct flock& lock) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_lock(req, &lock));
}

bool Call::Ioctl(const void* data, size_t size) {
  fuse_req_t req = Take(0);
  return req && Sent(fuse_reply_ioctl(req, 0, data, size));
}

void Call::None() {
  if (fuse_req_t req = Take(0)) fuse_reply_none(req);
}

}  // namespace shoal::fuse
