// What a writer does when a chain has failed.
#include <algorithm>

#include "client/writer.h"
#include "common/log.h"

namespace shoal::client {
namespace {

constexpr Duration kLongestPause = 500ms;
constexpr int kAskForRoom = 6;  // NO_SPACE: from that round on, about 0.3 s, another server is asked for

}  // namespace

SteadyTime Writer::StartClock(WriteOp& op) const {
  if (op.deadline == SteadyTime{}) op.deadline = Core::Now() + core_.options.timeout;
  return op.deadline;
}

Duration Writer::NextPause(ChunkWriter& writer) {
  return std::exchange(writer.pause, std::clamp<Duration>(writer.pause * 2, 5ms, kLongestPause));
}

// After a round with a failure, when nothing is in flight: what has to be done before the next. An error here is final
// for everything queued.
Task<Status> Writer::Recover(StatePtr state, std::shared_ptr<ChunkWriter> writer, LocationPtr location, Error error) {
  if (writer->queue.empty()) co_return Status{};
  SteadyTime deadline = writer->queue.front()->deadline;
  if (deadline != SteadyTime{} && Core::Now() >= deadline)
    co_return Fail(ErrorCode::kTimeout, "cannot write: " + error.message);
  if (Duration pause = NextPause(*writer); pause > Duration{0}) co_await core_.loop.Sleep(pause);
  if (core_.stopping || !location || !location->chunk) co_return Status{};
  switch (error.code) {
    case ErrorCode::kOverloaded:
    case ErrorCode::kChecksumMismatch:  // damaged on its way
      co_return Status{};
    case ErrorCode::kNotReady:  // in a recovery; one that takes long may have been given up by who began it
      if (writer->pause < kLongestPause) co_return Status{};
      break;
    case ErrorCode::kNoSpace:  // an answer, no failure: space may have been given back by the next round
      if (++writer->no_space < kAskForRoom) co_return Status{};
      if (writer->no_space <= kNoSpaceRounds) break;
      writer->no_space = 0;
      co_return Fail(error);
    case ErrorCode::kBadMessage:
    case ErrorCode::kTooLarge:
    case ErrorCode::kUnknownMethod:
    case ErrorCode::kInvalidArgument:
      co_return Fail(error);  // sending it again would not help
    default:
      break;
  }
  core_.write_recoveries.Add();
  auto without_grant = std::make_shared<Location>(*location);
  without_grant->lease = 0;  // it may be the grant that is refused
  state->locations[writer->index] = std::move(without_grant);
  bool head_failed = error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kTimeout;
  ServerId suspect = head_failed ? location->replicas.front().server : ServerId{};
  Result<LocationPtr> again = co_await locator_.Report(state, writer->index, location, suspect, error.code, true);
  if (again) co_return Status{};
  ErrorCode code = again.error().code;
  if (code == ErrorCode::kStale || code == ErrorCode::kNotFound || code == ErrorCode::kNoReplica) {
    // The chunk was cut off by a truncation elsewhere: a new one is asked for (or the file is gone, and that fails).
    state->locations.erase(writer->index);
    co_return Status{};
  }
  if (code == ErrorCode::kNoSpace && error.code == ErrorCode::kNoSpace)
    co_return Status{};  // no other server has room either
  if (IsRetryable(code) && code != ErrorCode::kTimeout) co_return Status{};
  co_return Fail(again.error());
}

void Writer::GiveUp(const StatePtr& state, ChunkWriter& writer, const Error& error) {
  if (writer.queue.empty()) return;
  size_t bytes = 0;
  for (const WriteOpPtr& op : writer.queue) bytes += op->bytes;
  writer.queue.clear();
  Credit(bytes);
  core_.write_errors.Add();
  LogError("inode {}: {} bytes of its chunk at index {} could not be written and are lost: {}", state->inode.value,
           bytes, writer.index, ToString(error));
  SetError(*state, error);
  state->progress.WakeAll();
}

void Writer::SetError(InodeState& state, const Error& error) {
  ++state.errors;
  state.last_error = error;
}

}  // namespace shoal::client
