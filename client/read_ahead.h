// ReadAhead: what a sequential reader will ask for next.
#pragma once

#include <map>
#include <memory>

#include "client/reader.h"

namespace shoal::client {

// MiB blocks of a file that are fetched before they are asked for. Owner: a Handle (shared with the fetches under
// way); lives on the engine's loop. Blocks are thrown away when the file was written here since, or after a second.
struct Handle::ReadAhead : std::enable_shared_from_this<Handle::ReadAhead> {
  ReadAhead(Core& c, Reader& r, StatePtr s) : core(c), reader(r), state(std::move(s)), done(c.loop) {}

  // As Reader::Read.
  Task<Result<Payload>> Read(uint64_t offset, size_t length);

 private:
  struct Block {
    Result<Payload> result = Payload();
    bool done = false;
    SteadyTime when{};
    uint64_t epoch = 0;
  };
  static constexpr uint64_t kBlock = 1 << 20;
  Task<void> Fetch(std::shared_ptr<ReadAhead> self, std::shared_ptr<Block> block, uint64_t offset);
  void Advance(uint64_t offset, size_t length);
  void DropOld(uint64_t before);

  Core& core;
  Reader& reader;
  StatePtr state;
  WaitList done;
  std::map<uint64_t, std::shared_ptr<Block>> blocks;  // by block number
  uint64_t next = 0;    // where a sequential reader goes on
  uint64_t window = 0;  // bytes fetched ahead: doubles up to options.read_ahead
};

}  // namespace shoal::client
