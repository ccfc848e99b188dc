#include "common/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace shoal {
namespace {

struct Row {
  ErrorCode code;
  const char* name;
  int errno_value;
  bool retryable;
};

constexpr Row kTable[] = {
    {ErrorCode::kOk, "OK", 0, false},
    {ErrorCode::kNotFound, "NOT_FOUND", ENOENT, false},
    {ErrorCode::kExists, "EXISTS", EEXIST, false},
    {ErrorCode::kNotDirectory, "NOT_DIRECTORY", ENOTDIR, false},
    {ErrorCode::kIsDirectory, "IS_DIRECTORY", EISDIR, false},
    {ErrorCode::kNotEmpty, "NOT_EMPTY", ENOTEMPTY, false},
    {ErrorCode::kAccessDenied, "ACCESS_DENIED", EACCES, false},
    {ErrorCode::kNotPermitted, "NOT_PERMITTED", EPERM, false},
    {ErrorCode::kInvalidArgument, "INVALID_ARGUMENT", EINVAL, false},
    {ErrorCode::kNameTooLong, "NAME_TOO_LONG", ENAMETOOLONG, false},
    {ErrorCode::kTooManyLinks, "TOO_MANY_LINKS", EMLINK, false},
    {ErrorCode::kCrossDevice, "CROSS_DEVICE", EXDEV, false},
    {ErrorCode::kNoData, "NO_DATA", ENODATA, false},
    {ErrorCode::kRange, "RANGE", ERANGE, false},
    {ErrorCode::kNoSpace, "NO_SPACE", ENOSPC, false},
    {ErrorCode::kFileTooBig, "FILE_TOO_BIG", EFBIG, false},
    {ErrorCode::kTooManySymlinks, "TOO_MANY_SYMLINKS", ELOOP, false},
    {ErrorCode::kReadOnly, "READ_ONLY", EROFS, false},
    {ErrorCode::kStale, "STALE", ESTALE, false},
    {ErrorCode::kNotSupported, "NOT_SUPPORTED", EOPNOTSUPP, false},
    {ErrorCode::kBusy, "BUSY", EBUSY, false},
    {ErrorCode::kInterrupted, "INTERRUPTED", EINTR, false},
    {ErrorCode::kDeadlock, "DEADLOCK", EDEADLK, false},
    {ErrorCode::kWouldBlock, "WOULD_BLOCK", EAGAIN, false},
    {ErrorCode::kBadHandle, "BAD_HANDLE", EBADF, false},
    {ErrorCode::kNoDevice, "NO_DEVICE", ENXIO, false},
    {ErrorCode::kListTooBig, "LIST_TOO_BIG", E2BIG, false},
    {ErrorCode::kIo, "IO_ERROR", EIO, false},
    {ErrorCode::kCorrupt, "CORRUPT", EIO, false},
    {ErrorCode::kChecksumMismatch, "CHECKSUM_MISMATCH", EIO, true},
    {ErrorCode::kUnavailable, "UNAVAILABLE", EIO, true},
    {ErrorCode::kTimeout, "TIMEOUT", ETIMEDOUT, true},
    {ErrorCode::kOverloaded, "OVERLOADED", EAGAIN, true},
    {ErrorCode::kNotReady, "NOT_READY", EAGAIN, true},
    {ErrorCode::kVersionMismatch, "VERSION_MISMATCH", EIO, false},
    {ErrorCode::kNoReplica, "NO_REPLICA", EIO, false},
    {ErrorCode::kLeaseLapsed, "LEASE_LAPSED", EIO, true},
    {ErrorCode::kWrongCluster, "WRONG_CLUSTER", EPERM, false},
    {ErrorCode::kAuthFailed, "AUTH_FAILED", EPERM, false},
    {ErrorCode::kSessionEnded, "SESSION_ENDED", EIO, false},
    {ErrorCode::kUnknownMethod, "UNKNOWN_METHOD", ENOSYS, false},
    {ErrorCode::kBadMessage, "BAD_MESSAGE", EBADMSG, false},
    {ErrorCode::kTooLarge, "TOO_LARGE", EMSGSIZE, false},
    {ErrorCode::kInternal, "INTERNAL", EIO, false},
    {ErrorCode::kCancelled, "CANCELLED", ECANCELED, false},
    {ErrorCode::kChainFailed, "CHAIN_FAILED", EIO, true},
    {ErrorCode::kNotEnoughServers, "NOT_ENOUGH_SERVERS", EIO, true},
    {ErrorCode::kOldIncarnation, "OLD_INCARNATION", ESTALE, false},
    {ErrorCode::kRestored, "RESTORED", ESTALE, false},
};

const Row* Find(ErrorCode code) {
  for (const Row& row : kTable) {
    if (row.code == code) return &row;
  }
  return nullptr;
}

}  // namespace

std::string_view ErrorName(ErrorCode code) {
  const Row* row = Find(code);
  return row ? row->name : "INTERNAL";
}

int ErrorErrno(ErrorCode code) {
  const Row* row = Find(code);
  return row ? row->errno_value : EIO;
}

bool IsRetryable(ErrorCode code) {
  const Row* row = Find(code);
  return row && row->retryable;
}

ErrorCode ErrorFromWire(uint32_t number) {
  auto code = static_cast<ErrorCode>(number);
  return Find(code) ? code : ErrorCode::kInternal;
}

ErrorCode ErrorFromErrno(int error) {
  switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return ErrorCode::kOverloaded;  // passes, and says nothing of the file or the disk
    case EDQUOT:
      return ErrorCode::kNoSpace;
    default:
      break;
  }
  for (const Row& row : kTable) {
    if (row.errno_value == error) return row.code;
  }
  return ErrorCode::kIo;
}

Error ErrnoError(int error, std::string_view what) {
  return Error{ErrorFromErrno(error), std::string(what) + ": " + std::strerror(error)};
}

std::string ToString(const Error& error) {
  std::string text(ErrorName(error.code));
  return error.message.empty() ? text : text + ": " + error.message;
}

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace shoal
