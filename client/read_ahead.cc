#include "client/read_ahead.h"

#include <algorithm>

namespace shoal::client {

Task<void> Handle::ReadAhead::Fetch(std::shared_ptr<ReadAhead> self, std::shared_ptr<Block> block, uint64_t offset) {
  Result<Payload> result = co_await self->reader.Read(self->state, offset, kBlock);
  block->result = std::move(result);
  block->done = true;
  block->when = Core::Now();
  self->done.WakeAll();
}

void Handle::ReadAhead::DropOld(uint64_t before) {
  auto now = Core::Now();
  std::erase_if(blocks, [&](const auto& entry) {
    const Block& block = *entry.second;
    return entry.first < before || block.epoch != state->write_epoch || (block.done && now - block.when > 1s);
  });
}

void Handle::ReadAhead::Advance(uint64_t offset, size_t length) {
  bool sequential = offset == next;
  next = offset + length;
  if (!sequential) {
    window = 0;
    blocks.clear();
    return;
  }
  window = std::clamp<uint64_t>(window * 2, kBlock, core.options.read_ahead);
  DropOld(offset / kBlock);
  uint64_t size = state->size();
  uint64_t last = std::min(size, next + window);
  for (uint64_t number = (next + kBlock - 1) / kBlock; number * kBlock < last; ++number) {
    auto& block = blocks[number];
    if (block) continue;
    block = std::make_shared<Block>();
    block->epoch = state->write_epoch;
    core.tasks.Spawn(Fetch(shared_from_this(), block, number * kBlock));
  }
}

Task<Result<Payload>> Handle::ReadAhead::Read(uint64_t offset, size_t length) {
  std::shared_ptr<ReadAhead> self = shared_from_this();
  Advance(offset, length);
  Payload payload;
  for (uint64_t at = offset; at < offset + length;) {
    uint64_t number = at / kBlock;
    auto it = blocks.find(number);
    if (it == blocks.end()) {
      // Up to the next block that is here or on its way.
      auto after = blocks.upper_bound(number);
      uint64_t stop = after == blocks.end() ? offset + length : std::min(offset + length, after->first * kBlock);
      Result<Payload> read = co_await reader.Read(state, at, stop - at);
      if (!read) co_return read;
      size_t got = PayloadSize(*read);
      for (Buffer& part : *read) payload.push_back(std::move(part));
      if (got < stop - at) break;
      at = stop;
      continue;
    }
    std::shared_ptr<Block> block = it->second;
    while (!block->done) co_await done.Wait();
    if (!block->result || block->epoch != state->write_epoch) {
      std::erase_if(blocks, [&](const auto& entry) { return entry.second == block; });
      continue;  // it is read in the ordinary way
    }
    size_t skip = at - number * kBlock;
    size_t want = std::min<uint64_t>(offset + length - at, kBlock - skip);
    size_t got = 0;
    for (const Buffer& part : *block->result) {
      if (skip >= part.size()) {
        skip -= part.size();
        continue;
      }
      size_t n = std::min(part.size() - skip, want - got);
      if (n == 0) break;
      payload.push_back(part.Slice(skip, n));
      skip = 0;
      got += n;
    }
    at += got;
    if (got < want) break;  // the end of the file
  }
  co_return payload;
}

}  // namespace shoal::client
