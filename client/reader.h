// Reader: bytes of files from the replicas of their chunks.
#pragma once

#include <map>
#include <unordered_map>

#include "client/core.h"
#include "client/locator.h"
#include "client/writer.h"

namespace shoal::client {

// Reads ranges: in parallel over chunks and MiBs, each piece from one replica, from another too when there is no answer
// in options.hedge_after, from the next at once when one fails. Every block is checked against the checksum that came
// with it; where no replica has all of a piece right, its halves are read, down to single blocks. A hole is only what the
// metadata or the checksum table says is one.
//
// Owner: EngineImpl; lives on its loop. Errors: kTimeout when no replica gave the bytes for options.timeout, kCorrupt
// when all have answered and none had right bytes.
class Reader {
 public:
  Reader(Core& core, Locator& locator, Writer& writer) : core_(core), locator_(locator), writer_(writer) {}

  // Fewer bytes than asked for only at the end of the file.
  Task<Result<Payload>> Read(StatePtr state, uint64_t offset, size_t length);
  // The checksums of all blocks of a chunk (0: a hole), from any replica.
  Task<Result<std::vector<uint64_t>>> ReadTable(StatePtr state, uint64_t index, LocationPtr location);

 private:
  struct Race;
  struct Pieces;
  Task<Status> RefreshSize(StatePtr state);
  Task<Result<Payload>> ReadPiece(StatePtr state, uint64_t index, uint32_t begin, uint32_t end);
  Task<void> ReadOneOf(StatePtr state, uint64_t index, uint32_t begin, uint32_t end, Pieces* pieces, size_t which);
  Task<Result<Buffer>> RunRace(StatePtr state, uint64_t index, LocationPtr location, uint32_t begin, uint32_t length);
  Task<Result<Buffer>> ReadHalves(StatePtr state, uint64_t index, LocationPtr location, uint32_t begin, uint32_t length);
  Task<void> TryOne(std::shared_ptr<Race> race, size_t which);
  Task<void> Verify(std::shared_ptr<Connection> connection, LocationPtr location, uint32_t offset, uint32_t length);
  Task<void> ReportBad(StatePtr state, uint64_t index, LocationPtr location, ServerId server, ErrorCode reason);
  std::vector<size_t> Order(const Location& location, uint32_t begin) const;
  static Error WhyLost(const Race& race);
  Result<Buffer> Check(Race& race, size_t which, const Reply& reply, const std::shared_ptr<Connection>& connection);

  Core& core_;
  Locator& locator_;
  Writer& writer_;
  // Replicas that gave wrong bytes or none, until when they are nobody's first choice.
  std::map<std::pair<ChunkId, InstanceId>, SteadyTime> bad_until_;
  std::unordered_map<ChunkId, SteadyTime> reported_;  // when a chunk was last reported for a read
};

}  // namespace shoal::client
