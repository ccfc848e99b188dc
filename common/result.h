// Errors as values.
//
// Every fallible function of Shoal returns Result<T> (std::expected with Error) or
// Status (Result<void>). No exception crosses a module boundary. The table of error
// codes, with their errno and whether a retry can help, is in result.cc and nowhere else.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace shoal {

// Numbers are part of the wire format (the status word of a response): never reuse one.
enum class ErrorCode : uint32_t {
  kOk = 0,
  // What a POSIX caller can be told.
  kNotFound = 1,
  kExists = 2,
  kNotDirectory = 3,
  kIsDirectory = 4,
  kNotEmpty = 5,
  kAccessDenied = 6,
  kNotPermitted = 7,
  kInvalidArgument = 8,
  kNameTooLong = 9,
  kTooManyLinks = 10,
  kCrossDevice = 11,
  kNoData = 12,
  kRange = 13,
  kNoSpace = 14,
  kFileTooBig = 15,
  kTooManySymlinks = 16,
  kReadOnly = 17,
  kStale = 18,
  kNotSupported = 19,
  kBusy = 20,
  kInterrupted = 21,
  kDeadlock = 22,
  kWouldBlock = 23,
  kBadHandle = 24,
  kNoDevice = 25,
  kListTooBig = 26,
  // What happens between servers.
  kIo = 64,               // a disk said no
  kCorrupt = 65,          // stored bytes do not match their checksum or their format
  kChecksumMismatch = 66, // received bytes do not match their checksum
  kUnavailable = 67,      // no connection, or it was lost: nothing is known of the request's fate
  kTimeout = 68,          // the deadline passed: nothing is known of the request's fate
  kOverloaded = 69,       // refused before anything was done: try again later
  kNotReady = 70,         // the server is starting or recovering this object: try again
  kVersionMismatch = 71,  // the replica has another version than the request names
  kNoReplica = 72,        // this server has no replica of that chunk
  kLeaseLapsed = 73,      // the server's heartbeat lease, or the writer's lease, has ended
  kWrongCluster = 74,
  kAuthFailed = 75,
  kSessionEnded = 76,
  kUnknownMethod = 77,
  kBadMessage = 78,       // a frame or message that can't be understood
  kTooLarge = 79,
  kInternal = 80,
  kCancelled = 81,
  kChainFailed = 82,      // a later member of the replication chain did not apply the write
  kNotEnoughServers = 83, // fewer live servers than min-copies
  kOldIncarnation = 84,   // the sender belongs to an earlier life of the metadata
  kRestored = 85,         // the metadata was restored from a backup since this client mounted
};

// Why something failed: a code for programs, a line for people. A plain value.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // for people: names the thing, says why, one line
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

// Makes the error value of any Result: `return Fail(ErrorCode::kNotFound, "no chunk 7")`.
inline std::unexpected<Error> Fail(ErrorCode code, std::string message = {}) {
  return std::unexpected<Error>(Error{code, std::move(message)});
}
inline std::unexpected<Error> Fail(Error error) { return std::unexpected<Error>(std::move(error)); }

// The table's columns. An unknown number (from a newer peer) reads as kInternal.
std::string_view ErrorName(ErrorCode code);  // "NOT_FOUND"
int ErrorErrno(ErrorCode code);              // ENOENT; EIO where POSIX has no word for it
bool IsRetryable(ErrorCode code);            // the same request may succeed later, unchanged
ErrorCode ErrorFromWire(uint32_t number);
ErrorCode ErrorFromErrno(int error);

// "what: strerror (ENOSPC)", with the code that belongs to `error`.
Error ErrnoError(int error, std::string_view what);
std::string ToString(const Error& error);

#define SHOAL_CONCAT_(a, b) a##b
#define SHOAL_CONCAT(a, b) SHOAL_CONCAT_(a, b)

// TRY(expr): leaves the function with the error of a Result. TRY_ASSIGN(auto x, expr): else takes its value.
// CO_TRY...: the same in a coroutine.
#define SHOAL_TRY_(ret, tmp, expr) \
  auto tmp = (expr);               \
  if (!tmp) [[unlikely]] ret ::shoal::Fail(std::move(tmp).error())
#define SHOAL_TRY_ASSIGN_(ret, tmp, lhs, expr)                      \
  auto tmp = (expr);                                                \
  if (!tmp) [[unlikely]] ret ::shoal::Fail(std::move(tmp).error()); \
  lhs = std::move(*tmp)
#define TRY(expr) SHOAL_TRY_(return, SHOAL_CONCAT(try_, __COUNTER__), expr)
#define TRY_ASSIGN(lhs, expr) SHOAL_TRY_ASSIGN_(return, SHOAL_CONCAT(try_, __COUNTER__), lhs, expr)
#define CO_TRY(expr) SHOAL_TRY_(co_return, SHOAL_CONCAT(try_, __COUNTER__), expr)
#define CO_TRY_ASSIGN(lhs, expr) SHOAL_TRY_ASSIGN_(co_return, SHOAL_CONCAT(try_, __COUNTER__), lhs, expr)

// An assertion that stays on in release: prints the condition and its place, and aborts.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
#define CHECK(condition) \
  do {                   \
    if (!(condition)) [[unlikely]] ::shoal::CheckFailed(#condition, __FILE__, __LINE__); \
  } while (false)

}  // namespace shoal
