// shoal::File.
#include <cerrno>
#include <cstring>

#include "client/api/shared.h"

namespace shoal {

using api_internal::FileState;
using api_internal::Shared;
using api_internal::ToFileInfo;
using api_internal::ToFsError;
using api_internal::ToFsStatus;
using StatePtr = std::shared_ptr<FileState>;

namespace {

constexpr size_t kPiece = 1 << 20;       // of one write: what a request carries
constexpr size_t kReadPiece = 8 << 20;   // of one read

std::unexpected<FsError> NotOpen() { return std::unexpected(FsError{EBADF, "BAD_HANDLE", "the file is not open", false}); }
Error Closed() { return {ErrorCode::kBadHandle, "the file is closed"}; }

Task<FsResult<size_t>> DoRead(FileState* state, char* to, size_t length, uint64_t offset) {
  size_t done = 0;
  while (done < length) {
    if (!state->handle) co_return std::unexpected(ToFsError(Closed()));
    size_t piece = std::min(length - done, kReadPiece);
    Result<Payload> got = co_await state->shared->engine->Read(*state->handle, offset + done, piece);
    if (!got) co_return std::unexpected(ToFsError(got.error()));
    size_t size = 0;
    for (const Buffer& part : *got) {
      std::memcpy(to + done + size, part.data(), part.size());
      size += part.size();
    }
    done += size;
    if (size < piece) break;
  }
  co_return done;
}

Task<FsResult<size_t>> DoWrite(FileState* state, const char* from, size_t length, uint64_t offset) {
  size_t done = 0;
  while (done < length) {
    if (!state->handle) co_return std::unexpected(ToFsError(Closed()));
    // Pieces end at whole MiBs of the file, so that they are sent as they are.
    size_t piece = std::min(length - done, kPiece - (offset + done) % kPiece);
    Buffer copy = Buffer::CopyOf({from + done, piece});
    Result<uint64_t> written = co_await state->shared->engine->Write(*state->handle, offset + done, std::move(copy));
    if (!written) co_return std::unexpected(ToFsError(written.error()));
    done += piece;
  }
  co_return done;
}

// In one piece, so that appends of several threads do not mix.
Task<FsResult<uint64_t>> DoAppend(FileState* state, const char* from, size_t length) {
  if (!state->handle) co_return std::unexpected(ToFsError(Closed()));
  Buffer copy = Buffer::CopyOf({from, length});
  Result<uint64_t> begin = co_await state->shared->engine->Append(*state->handle, std::move(copy));
  if (!begin) co_return std::unexpected(ToFsError(begin.error()));
  co_return *begin;
}

enum class Out { kFlush, kSync, kDataSync };

Task<FsStatus> WriteOut(FileState* state, Out how) {
  if (!state->handle) co_return std::unexpected(ToFsError(Closed()));
  Status status;
  if (how == Out::kFlush) {
    status = co_await state->shared->engine->Flush(*state->handle);
  } else {
    status = co_await state->shared->engine->Fsync(*state->handle, how == Out::kDataSync);
  }
  co_return ToFsStatus(status);
}

Task<FsResult<FileInfo>> DoStat(FileState* state) {
  if (!state->handle) co_return std::unexpected(ToFsError(Closed()));
  Shared& shared = *state->shared;
  Result<client::Attr> attr = co_await shared.engine->GetAttr(shared.cred, state->handle->inode());
  if (!attr) co_return std::unexpected(ToFsError(attr.error()));
  co_return ToFileInfo(*attr);
}

Task<FsStatus> DoTruncate(FileState* state, uint64_t size) {
  if (!state->handle) co_return std::unexpected(ToFsError(Closed()));
  Shared& shared = *state->shared;
  client::AttrChange change;
  change.size = size;
  Result<client::Attr> attr = co_await shared.engine->SetAttr(shared.cred, state->handle->inode(), change, state->handle.get());
  if (!attr) co_return std::unexpected(ToFsError(attr.error()));
  co_return FsStatus{};
}

Task<FsStatus> DoClose(FileState* state) {
  if (!state->handle) co_return FsStatus{};
  Status status = co_await state->shared->engine->Release(std::move(state->handle));
  co_return ToFsStatus(status);
}

// Runs a task whose result goes to a callback; keeps the file's state until then.
template <typename T>
task_internal::Detached Deliver(StatePtr state, Task<T> task, std::move_only_function<void(T)> done) {
  T result = co_await task;
  done(std::move(result));
  state.reset();
}

template <typename T>
void Start(const StatePtr& state, Task<T> task, std::move_only_function<void(T)> done) {
  auto driver = Deliver(state, std::move(task), std::move(done)).handle;
  state->shared->loop.Post([driver] { driver.resume(); });
}

template <typename T>
std::future<T> StartWithFuture(const StatePtr& state, Task<T> task) {
  auto promise = std::make_shared<std::promise<T>>();
  std::future<T> future = promise->get_future();
  std::move_only_function<void(T)> done = [promise](T result) { promise->set_value(std::move(result)); };
  Start(state, std::move(task), std::move(done));
  return future;
}

template <typename T>
std::future<T> Ready(T value) {
  std::promise<T> promise;
  promise.set_value(std::move(value));
  return promise.get_future();
}

}  // namespace

File::File(File&&) noexcept = default;

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    (void)Close();
    state_ = std::move(other.state_);
  }
  return *this;
}

File::~File() { (void)Close(); }

uint64_t File::inode() const { return state_ ? state_->handle->inode().value : 0; }

FsResult<size_t> File::Pread(void* to, size_t length, uint64_t offset) const {
  if (!state_) return NotOpen();
  return state_->shared->Run(DoRead(state_.get(), static_cast<char*>(to), length, offset));
}

FsResult<size_t> File::Pwrite(const void* from, size_t length, uint64_t offset) {
  if (!state_) return NotOpen();
  return state_->shared->Run(DoWrite(state_.get(), static_cast<const char*>(from), length, offset));
}

FsResult<uint64_t> File::Append(const void* from, size_t length) {
  if (!state_) return NotOpen();
  return state_->shared->Run(DoAppend(state_.get(), static_cast<const char*>(from), length));
}

std::future<FsResult<size_t>> File::PreadAsync(void* to, size_t length, uint64_t offset) const {
  if (!state_) return Ready<FsResult<size_t>>(NotOpen());
  return StartWithFuture(state_, DoRead(state_.get(), static_cast<char*>(to), length, offset));
}

std::future<FsResult<size_t>> File::PwriteAsync(const void* from, size_t length, uint64_t offset) {
  if (!state_) return Ready<FsResult<size_t>>(NotOpen());
  return StartWithFuture(state_, DoWrite(state_.get(), static_cast<const char*>(from), length, offset));
}

std::future<FsStatus> File::FsyncAsync() {
  if (!state_) return Ready<FsStatus>(NotOpen());
  return StartWithFuture(state_, WriteOut(state_.get(), Out::kSync));
}

void File::PreadAsync(void* to, size_t length, uint64_t offset, Done done) const {
  if (!state_) return done(NotOpen());
  std::move_only_function<void(FsResult<size_t>)> deliver = std::move(done);
  Start(state_, DoRead(state_.get(), static_cast<char*>(to), length, offset), std::move(deliver));
}

void File::PwriteAsync(const void* from, size_t length, uint64_t offset, Done done) {
  if (!state_) return done(NotOpen());
  std::move_only_function<void(FsResult<size_t>)> deliver = std::move(done);
  Start(state_, DoWrite(state_.get(), static_cast<const char*>(from), length, offset), std::move(deliver));
}

FsStatus File::Truncate(uint64_t size) {
  if (!state_) return NotOpen();
  return state_->shared->Run(DoTruncate(state_.get(), size));
}

FsResult<uint64_t> File::Size() const {
  FsResult<FileInfo> info = Stat();
  if (!info) return std::unexpected(info.error());
  return info->size;
}

FsResult<FileInfo> File::Stat() const {
  if (!state_) return NotOpen();
  return state_->shared->Run(DoStat(state_.get()));
}

FsStatus File::Flush() {
  if (!state_) return NotOpen();
  return state_->shared->Run(WriteOut(state_.get(), Out::kFlush));
}

FsStatus File::Fsync() {
  if (!state_) return NotOpen();
  return state_->shared->Run(WriteOut(state_.get(), Out::kSync));
}

FsStatus File::DataSync() {
  if (!state_) return NotOpen();
  return state_->shared->Run(WriteOut(state_.get(), Out::kDataSync));
}

FsStatus File::Close() {
  if (!state_) return {};
  StatePtr state = std::move(state_);
  std::shared_ptr<Shared> shared = state->shared;
  return shared->Run(DoClose(state.get()));
}

}  // namespace shoal
