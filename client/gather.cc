#include "client/gather.h"

#include <algorithm>
#include <bit>

#include "common/limits.h"
#include "common/result.h"

namespace shoal::client {
namespace {
constexpr size_t kMinBlock = 256;
constexpr size_t kMaxBlock = 256 << 10;
}  // namespace

void Gather::Insert(uint32_t offset, const Buffer& data) {
  if (data.empty() || OverwriteOrAppend(offset, data)) return;
  auto length = static_cast<uint32_t>(data.size());
  Cut(offset, offset + length);
  Piece piece;
  piece.length = length;
  if (data.size() >= kShareBytes) {
    piece.block = data;
  } else {
    // A writer that goes on where it was gets blocks that double; one that jumps about gets no more than it needs.
    size_t capacity = data.size();
    auto next = pieces_.lower_bound(offset);
    if (next != pieces_.begin()) {
      auto before = std::prev(next);
      if (before->second.own && before->first + before->second.length == offset) {
        capacity = std::max(capacity, std::min(kMaxBlock, 2 * std::max(kMinBlock, before->second.block.size())));
        before->second.growable = false;
      }
    }
    piece.block = Buffer::Allocate(capacity);
    piece.own = true;
    piece.growable = true;
    std::memcpy(piece.block.mutable_data(), data.data(), length);
  }
  pieces_.emplace(offset, std::move(piece));
  bytes_ += length;
}

bool Gather::OverwriteOrAppend(uint32_t offset, const Buffer& data) {
  auto next = pieces_.upper_bound(offset);
  if (next == pieces_.begin()) return false;
  auto& [at, piece] = *std::prev(next);
  if (!piece.own) return false;
  uint32_t inside = offset - at;
  if (inside > piece.length) return false;
  size_t end = inside + data.size();
  if (end > piece.length) {
    if (!piece.growable || piece.start + end > piece.block.size()) return false;
    if (next != pieces_.end() && next->first < at + end) return false;
    bytes_ += end - piece.length;
    piece.length = static_cast<uint32_t>(end);
  }
  std::memcpy(piece.block.mutable_data() + piece.start + inside, data.data(), data.size());
  return true;
}

// Removes [begin, end); what stays of a piece on the right shares its block.
void Gather::Cut(uint32_t begin, uint32_t end) {
  auto it = pieces_.upper_bound(begin);
  if (it != pieces_.begin()) --it;
  while (it != pieces_.end() && it->first < end) {
    uint32_t first = it->first;
    Piece& piece = it->second;
    uint32_t last = first + piece.length;
    if (last <= begin) {
      ++it;
      continue;
    }
    bytes_ -= std::min(last, end) - std::max(first, begin);
    Piece right;
    if (last > end) {
      right = piece;
      right.start += end - first;
      right.length = last - end;
      right.growable = false;
    }
    if (first < begin) {
      piece.length = begin - first;
      piece.growable = piece.growable && last <= end;
      ++it;
    } else {
      it = pieces_.erase(it);
    }
    if (last > end) it = std::next(pieces_.emplace(end, std::move(right)).first);
  }
}

uint32_t Gather::end() const {
  return pieces_.empty() ? 0 : pieces_.rbegin()->first + pieces_.rbegin()->second.length;
}

bool Gather::Overlaps(uint32_t begin, uint32_t end) const {
  auto it = pieces_.lower_bound(end);
  if (it == pieces_.begin()) return false;
  --it;
  return it->first + it->second.length > begin;
}

bool Gather::ReadIfCovered(uint32_t begin, uint32_t end, uint8_t* to) const {
  auto it = pieces_.upper_bound(begin);
  if (it == pieces_.begin()) return begin == end;
  --it;
  auto first = it;
  for (uint32_t at = begin; at < end; ++it) {
    if (it == pieces_.end() || it->first > at || it->first + it->second.length <= at) return false;
    at = it->first + it->second.length;
  }
  it = first;
  for (uint32_t at = begin; at < end; ++it) {
    uint32_t stop = std::min(end, it->first + it->second.length);
    std::memcpy(to + (at - begin), it->second.block.data() + it->second.start + (at - it->first), stop - at);
    at = stop;
  }
  return true;
}

WriteBatch Gather::Take() {
  WriteBatch batch;
  size_t segments = 0;
  uint32_t run_end = UINT32_MAX;  // where the last piece taken ends
  while (!pieces_.empty() && batch.bytes < kMaxBatch) {
    auto it = pieces_.begin();
    uint32_t offset = it->first;
    Piece& piece = it->second;
    if (offset != run_end && ++segments > kMaxSegments) break;
    size_t room = kMaxBatch - batch.bytes;
    uint32_t take = piece.length;
    if (take > room) {
      uint32_t cut = (offset + static_cast<uint32_t>(room)) / kBlockSize * kBlockSize;
      if (cut <= offset) break;
      take = cut - offset;
    }
    batch.pieces.push_back({offset, piece.block.Slice(piece.start, take)});
    batch.bytes += take;
    bytes_ -= take;
    run_end = offset + take;
    Piece rest = std::move(piece);
    pieces_.erase(it);
    if (take < rest.length) {
      rest.start += take;
      rest.length -= take;
      pieces_.emplace(run_end, std::move(rest));
      break;
    }
  }
  return batch;
}

}  // namespace shoal::client
