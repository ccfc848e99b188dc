// The operations on ranges of open files: holes, preallocation, copying.
#include <algorithm>

#include "client/engine_impl.h"

namespace shoal::client {
namespace {

// linux/falloc.h
constexpr int kKeepSize = 0x01;
constexpr int kPunchHole = 0x02;
constexpr int kZeroRange = 0x10;

constexpr size_t kCopyPiece = 4 << 20;
constexpr Duration kSizeAge = 1s;

}  // namespace

Task<Result<uint64_t>> EngineImpl::Seek(StatePtr state, uint64_t offset, bool data) {
  co_await writer.Settle(state);
  if (Core::Now() - state->attr_time > kSizeAge) {
    CO_TRY(co_await RefreshAttr(state));
  }
  uint64_t size = state->size();
  if (offset >= size) co_return Fail(ErrorCode::kNoDevice, "the offset is at or behind the end of the file");
  for (uint64_t index = offset / kChunkSize; index * kChunkSize < size; ++index) {
    uint64_t start = index * kChunkSize;
    uint64_t begin = std::max(offset, start);
    Result<LocationPtr> found = co_await locator.Find(state, index);
    if (!found) co_return Fail(std::move(found).error());
    LocationPtr location = *found;
    if (!location->chunk || !location->written) {
      if (!data) co_return begin;
      continue;
    }
    Result<std::vector<uint64_t>> table = co_await reader.ReadTable(state, index, location);
    if (!table) {  // data may always be said to be there
      if (data) co_return begin;
      continue;
    }
    uint64_t end = std::min(size - start, kChunkSize);
    for (uint64_t at = begin - start; at < end; at = (at / kBlockSize + 1) * kBlockSize) {
      uint64_t block = at / kBlockSize;
      bool is_data = block < table->size() && (*table)[block] != 0;
      if (is_data == data) co_return start + at;
    }
  }
  if (data) co_return Fail(ErrorCode::kNoDevice, "no data follows");
  co_return size;
}

Task<Result<uint64_t>> Engine::SeekData(Handle& handle, uint64_t offset) {
  Result<uint64_t> found = co_await impl_->Seek(handle.state_, offset, true);
  co_return found;
}

Task<Result<uint64_t>> Engine::SeekHole(Handle& handle, uint64_t offset) {
  Result<uint64_t> found = co_await impl_->Seek(handle.state_, offset, false);
  co_return found;
}

Task<Status> Engine::Fallocate(Handle& handle, int mode, uint64_t offset, uint64_t length) {
  if (length == 0) co_return Fail(ErrorCode::kInvalidArgument, "the length is zero");
  if (offset > kMaxFileSize || length > kMaxFileSize - offset) co_return Fail(ErrorCode::kFileTooBig, "a file has at most 4 PiB");
  bool known = mode == 0 || mode == kKeepSize || mode == (kPunchHole | kKeepSize) || mode == kZeroRange ||
               mode == (kZeroRange | kKeepSize);
  if (!known) co_return Fail(ErrorCode::kNotSupported, "fallocate mode " + std::to_string(mode) + " is not supported");
  StatePtr state = handle.state_;
  ++state->pins;
  co_await impl_->writer.BeginExclusive(state);
  Status status = co_await impl_->Fallocate(state, mode, offset, length);
  impl_->writer.EndExclusive(state);
  --state->pins;
  co_return status;
}

// Whole chunks are dropped by the metaserver, the rest becomes zeros here.
Task<Status> EngineImpl::Fallocate(StatePtr state, int mode, uint64_t offset, uint64_t length) {
  uint64_t errors = state->errors;
  co_await writer.Flush(state);
  bool zero = (mode & (kPunchHole | kZeroRange)) != 0;
  uint64_t end = offset + length;
  if (zero) {
    uint64_t last = std::min(end, (state->size() + kBlockSize - 1) / kBlockSize * kBlockSize);
    for (uint64_t at = offset; at < last;) {
      uint64_t index = at / kChunkSize;
      uint64_t start = index * kChunkSize;
      uint64_t stop = std::min(end, start + kChunkSize);
      if (stop - at < kChunkSize) {
        Result<LocationPtr> found = co_await locator.Find(state, index);
        if (!found) co_return Fail(std::move(found).error());
        if ((*found)->chunk && (*found)->written) {
          writer.AddZeros(state, index, static_cast<uint32_t>(at - start), static_cast<uint32_t>(stop - start));
        }
      }
      at = stop;
    }
    co_await writer.Flush(state);
    if (state->errors != errors) co_return Fail(state->last_error);
  }
  pb::FallocateRequest request;
  request.set_inode(state->inode.value);
  request.set_mode(static_cast<uint32_t>(mode));
  request.set_offset(offset);
  request.set_length(length);
  Result<pb::AttrResponse> response =
      co_await core.session.Call<pb::AttrResponse>(pb::FALLOCATE, request, state->cred, CallKind::kMutate);
  if (!response) co_return Fail(std::move(response).error());
  if (zero) state->locations.erase(state->locations.lower_bound(offset / kChunkSize), state->locations.upper_bound(end / kChunkSize));
  ++state->write_epoch;
  if (response->has_attr()) {
    ApplyAttr(*state, FromProto(response->attr()), true);
  } else {
    CO_TRY(co_await RefreshAttr(state));
  }
  co_return Status{};
}

// ---- copying ----

Task<Result<uint64_t>> Engine::CopyRange(Handle& from, uint64_t from_offset, Handle& to, uint64_t to_offset,
                                         uint64_t length) {
  StatePtr source = from.state_;
  StatePtr target = to.state_;
  co_await impl_->writer.Settle(source);
  if (Core::Now() - source->attr_time > kSizeAge) {
    CO_TRY(co_await impl_->RefreshAttr(source));
  }
  if (from_offset >= source->size()) co_return 0;
  length = std::min(length, source->size() - from_offset);
  if (source == target && from_offset < to_offset + length && to_offset < from_offset + length) {
    co_return Fail(ErrorCode::kInvalidArgument, "the ranges overlap");
  }
  if (to_offset > kMaxFileSize || length > kMaxFileSize - to_offset) {
    co_return Fail(ErrorCode::kFileTooBig, "a file has at most 4 PiB");
  }
  for (uint64_t done = 0; done < length;) {
    Result<uint64_t> data = co_await impl_->Seek(source, from_offset + done, true);
    uint64_t data_at = data ? std::min(*data, from_offset + length) : from_offset + length;
    if (!data && data.error().code != ErrorCode::kNoDevice) co_return Fail(std::move(data).error());
    uint64_t hole = data_at - (from_offset + done);
    if (hole > 0) {
      if (to_offset + done < target->size()) {
        constexpr int kMode = kPunchHole | kKeepSize;
        CO_TRY(co_await Fallocate(to, kMode, to_offset + done, hole));
      }
      done += hole;
      continue;
    }
    Result<uint64_t> hole_at = co_await impl_->Seek(source, data_at, false);
    if (!hole_at) co_return Fail(std::move(hole_at).error());
    uint64_t run = std::min(*hole_at - data_at, length - done);
    Result<uint64_t> copied = co_await impl_->CopyRun(this, &from, from_offset + done, &to, to_offset + done, run);
    if (!copied) co_return copied;
    done += *copied;
    if (*copied < run) break;  // the source became shorter
  }
  if (target->size() < to_offset + length) impl_->writer.Extend(target, to_offset + length);
  co_return length;
}

Task<Result<uint64_t>> EngineImpl::CopyRun(Engine* engine, Handle* from, uint64_t from_offset, Handle* to,
                                           uint64_t to_offset, uint64_t length) {
  StatePtr source = from->state_;
  uint64_t done = 0;
  while (done < length) {
    uint64_t at = from_offset + done;
    // Pieces end at whole MiBs of the source, so that no block is read twice.
    size_t piece = std::min<uint64_t>(length - done, kCopyPiece - at % kMaxIo);
    Result<Payload> bytes = co_await reader.Read(source, at, piece);
    if (!bytes) co_return Fail(std::move(bytes).error());
    size_t got = 0;
    for (Buffer& part : *bytes) {
      size_t size = part.size();
      Result<uint64_t> written = co_await engine->Write(*to, to_offset + done + got, std::move(part));
      if (!written) co_return written;
      got += size;
    }
    done += got;
    if (got < piece) break;
  }
  co_return done;
}

}  // namespace shoal::client
