#include "client/reader.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"
#include "common/limits.h"
#include "common/log.h"

namespace shoal::client {
namespace {

constexpr Duration kSizeAge = 1s;         // a size that old is asked for again before it is called the end of the file
constexpr Duration kReportInterval = 5s;  // of one chunk, for reads
constexpr Duration kBadReplica = 60s;
constexpr Duration kConnectTry = 1s;
constexpr int kCorruptRounds = 3;

// One buffer of zeros that all holes share.
const Buffer& Zeros() {
  static const Buffer zeros = Buffer::Zeros(kMaxIo);
  return zeros;
}

uint32_t RoundDown(uint32_t n) { return n / kBlockSize * kBlockSize; }
uint32_t RoundUp(uint32_t n) { return (n + kBlockSize - 1) / kBlockSize * kBlockSize; }

// What a server answers when its own copy is no good.
bool SaidToBeBad(ErrorCode code) {
  return code == ErrorCode::kNoReplica || code == ErrorCode::kCorrupt || code == ErrorCode::kIo;
}
bool BadReplica(ErrorCode code) { return SaidToBeBad(code) || code == ErrorCode::kChecksumMismatch; }

}  // namespace

// One piece of a chunk, tried at one or more replicas until one has given it.
struct Reader::Race {
  Race(EventLoop& loop, StatePtr s, uint64_t i, LocationPtr l, uint32_t b, uint32_t n)
      : state(std::move(s)), index(i), location(std::move(l)), begin(b), length(n), changed(loop) {}
  StatePtr state;
  uint64_t index;
  LocationPtr location;
  uint32_t begin;  // multiples of the block size
  uint32_t length;
  WaitList changed;
  size_t running = 0;
  Buffer bytes;  // of the winner
  bool won = false;
  bool abandoned = false;
  std::vector<std::pair<size_t, Error>> failures;
};

// The pieces of one read that are under way.
struct Reader::Pieces {
  explicit Pieces(EventLoop& loop) : done(loop) {}
  std::vector<Result<Payload>> results;
  size_t left = 0;
  WaitList done;
};

Task<Status> Reader::RefreshSize(StatePtr state) {
  pb::GetAttrRequest request;
  request.set_inode(state->inode.value);
  Result<pb::AttrResponse> response =
      co_await core_.session.Call<pb::AttrResponse>(pb::GET_ATTR, request, state->cred, CallKind::kRead);
  if (!response) co_return Fail(std::move(response).error());
  ApplyAttr(*state, FromProto(response->attr()));
  state->attr_time = Core::Now();
  co_return Status{};
}

Task<Result<Payload>> Reader::Read(StatePtr state, uint64_t offset, size_t length) {
  if (offset + length > state->size() && Core::Now() - state->attr_time > kSizeAge) {
    CO_TRY(co_await RefreshSize(state));
  }
  Payload payload;
  uint64_t size = state->size();
  if (offset >= size || length == 0) co_return payload;
  uint64_t end = std::min<uint64_t>(size, offset + length);
  Pieces pieces(core_.loop);
  struct Range {
    uint64_t index;
    uint32_t begin;
    uint32_t end;
  };
  std::vector<Range> ranges;
  for (uint64_t at = offset; at < end;) {
    uint64_t index = at / kChunkSize;
    auto begin = static_cast<uint32_t>(at % kChunkSize);
    // A piece with its whole blocks is at most kMaxIo.
    uint64_t stop = std::min<uint64_t>({end - index * kChunkSize, kChunkSize, uint64_t{RoundDown(begin)} + kMaxIo});
    ranges.push_back({index, begin, static_cast<uint32_t>(stop)});
    at = index * kChunkSize + stop;
  }
  if (ranges.size() == 1) {
    Result<Payload> one = co_await ReadPiece(state, ranges[0].index, ranges[0].begin, ranges[0].end);
    co_return one;
  }
  CO_TRY(co_await locator_.Prefetch(state, ranges.front().index, ranges.back().index - ranges.front().index + 1));
  pieces.results.resize(ranges.size());
  pieces.left = ranges.size();
  for (size_t i = 0; i < ranges.size(); ++i) {
    core_.tasks.Spawn(ReadOneOf(state, ranges[i].index, ranges[i].begin, ranges[i].end, &pieces, i));
  }
  while (pieces.left > 0) co_await pieces.done.Wait();
  for (Result<Payload>& result : pieces.results) {
    if (!result) co_return Fail(std::move(result).error());
    for (Buffer& part : *result) payload.push_back(std::move(part));
  }
  co_return payload;
}

Task<void> Reader::ReadOneOf(StatePtr state, uint64_t index, uint32_t begin, uint32_t end, Pieces* pieces, size_t which) {
  Result<Payload> result = co_await ReadPiece(state, index, begin, end);
  pieces->results[which] = std::move(result);
  if (--pieces->left == 0) pieces->done.WakeAll();
}

Task<Result<Payload>> Reader::ReadPiece(StatePtr state, uint64_t index, uint32_t begin, uint32_t end) {
  Payload payload;
  auto local = state->writers.find(index);
  if (local != state->writers.end() && !local->second->idle()) {
    // Bytes that are still on their way: straight from the gathered ones, or when they have arrived.
    Buffer copy = Buffer::Allocate(end - begin);
    if (local->second->gather.ReadIfCovered(begin, end, copy.mutable_data())) {
      payload.push_back(std::move(copy));
      co_return payload;
    }
    bool overlaps = local->second->gather.Overlaps(begin, end);
    for (const WriteOpPtr& op : local->second->queue) overlaps |= op->begin < end && op->end > begin;
    if (overlaps) co_await writer_.SettleChunk(state, index);
  }
  SteadyTime deadline = Core::Now() + core_.options.timeout;
  Duration pause = 10ms;
  LocationPtr location = Locator::Cached(*state, index);
  if (!location) {
    Result<LocationPtr> found = co_await locator_.Find(state, index);
    if (!found) co_return Fail(std::move(found).error());
    location = *found;
  }
  for (int round = 0;; ++round) {
    if (!location->chunk || !location->written) {
      payload.push_back(Zeros().Slice(0, end - begin));
      co_return payload;
    }
    uint32_t first = RoundDown(begin);
    Result<Buffer> bytes = co_await RunRace(state, index, location, first, RoundUp(end) - first);
    if (bytes) {
      core_.bytes_read.Add(end - begin);
      payload.push_back(bytes->Slice(begin - first, end - begin));
      co_return payload;
    }
    if (core_.stopping) co_return Fail(ErrorCode::kCancelled, "the client is being stopped");
    bool corrupt = bytes.error().code == ErrorCode::kCorrupt;
    if ((corrupt && round + 1 >= kCorruptRounds) || Core::Now() >= deadline) co_return Fail(std::move(bytes).error());
    if (round > 0) {
      co_await core_.loop.Sleep(pause);
      pause = std::min<Duration>(pause * 2, 500ms);
    }
    Result<LocationPtr> again = co_await locator_.Refetch(state, index);
    if (!again) co_return Fail(std::move(again).error());
    location = *again;
  }
}

// ---- replicas ----

std::vector<size_t> Reader::Order(const Location& location, uint32_t begin) const {
  size_t n = location.replicas.size();
  std::vector<size_t> order;
  // Neighbouring MiBs of a chunk come from one server, different chunks and clients spread.
  size_t start = n ? (location.chunk.value * 7 + core_.rotation + begin / (16u << 20)) % n : 0;
  for (int pass = 0; pass < 2; ++pass) {
    for (size_t i = 0; i < n; ++i) {
      const ReplicaPlace& place = location.replicas[(start + i) % n];
      bool second = place.address.empty() || core_.servers.Avoided(place.address);
      if (!bad_until_.empty() && !second) {
        auto bad = bad_until_.find({location.chunk, place.instance});
        second = bad != bad_until_.end() && bad->second > Core::Now();
      }
      if (second == (pass == 1)) order.push_back((start + i) % n);
    }
  }
  return order;
}

Task<Result<Buffer>> Reader::RunRace(StatePtr state, uint64_t index, LocationPtr location, uint32_t begin,
                                     uint32_t length) {
  auto race = std::make_shared<Race>(core_.loop, state, index, location, begin, length);
  std::vector<size_t> order = Order(*location, begin);
  std::unique_ptr<EventLoop::Timer> timer;
  SteadyTime next_start{};
  size_t started = 0;
  while (!race->won) {
    auto now = Core::Now();
    bool late = race->running > 0 && now >= next_start;
    if (started < order.size() && (race->running == 0 || late)) {
      if (late) {
        core_.hedged_reads.Add();
        core_.servers.Avoid(location->replicas[order[started - 1]].address, core_.options.avoid_server);
      }
      ++race->running;
      next_start = now + core_.options.hedge_after;
      core_.tasks.Spawn(TryOne(race, order[started++]));
      continue;
    }
    if (race->running == 0) break;
    if (started < order.size()) {
      timer = core_.loop.RunAfter(std::max<Duration>(next_start - now, 1ms), [race] { race->changed.WakeAll(); });
    }
    co_await race->changed.Wait();
  }
  race->abandoned = true;
  if (race->won) co_return std::move(race->bytes);
  bool damaged = std::ranges::any_of(race->failures, [](const auto& f) { return BadReplica(f.second.code); });
  if (!damaged || length <= kBlockSize) co_return Fail(WhyLost(*race));
  Result<Buffer> halves = co_await ReadHalves(state, index, location, begin, length);
  co_return halves;
}

// Each replica may be damaged at another place: every block comes from one that has it good.
Task<Result<Buffer>> Reader::ReadHalves(StatePtr state, uint64_t index, LocationPtr location, uint32_t begin,
                                        uint32_t length) {
  uint32_t first = RoundUp(length / 2);
  Result<Buffer> left = co_await RunRace(state, index, location, begin, first);
  if (!left) co_return Fail(std::move(left).error());
  Result<Buffer> right = co_await RunRace(state, index, location, begin + first, length - first);
  if (!right) co_return Fail(std::move(right).error());
  Buffer both = Buffer::Allocate(length);
  std::memcpy(both.mutable_data(), left->data(), first);
  std::memcpy(both.mutable_data() + first, right->data(), length - first);
  co_return both;
}

// The error of a race that nobody won: kCorrupt only when every replica has answered, and none is any good.
Error Reader::WhyLost(const Race& race) {
  std::string chunk = "chunk " + std::to_string(race.location->chunk.value);
  if (race.failures.empty()) return {ErrorCode::kUnavailable, chunk + " has no live replica"};
  for (const auto& [which, failure] : race.failures) {
    if (!BadReplica(failure.code)) return failure;
  }
  return {ErrorCode::kCorrupt, "no replica of " + chunk + " has right bytes: " + race.failures.front().second.message};
}

Task<void> Reader::TryOne(std::shared_ptr<Race> race, size_t which) {
  const ReplicaPlace& place = race->location->replicas[which];
  Result<Buffer> bytes = Fail(ErrorCode::kUnavailable);
  std::shared_ptr<Connection> connection = core_.servers.Live(place.address);
  if (!connection) {
    Result<std::shared_ptr<Connection>> made = co_await core_.servers.Connect(place.address, kConnectTry);
    if (made) {
      connection = *made;
    } else {
      bytes = Fail(std::move(made).error());
    }
  }
  if (connection && !race->abandoned) {
    pb::ReadChunkRequest request;
    request.set_chunk(race->location->chunk.value);
    request.set_version(race->location->version.value);
    request.set_instance(place.instance.value);
    request.set_offset(race->begin);
    request.set_length(race->length);
    PendingReply pending = connection->Call(pb::READ_CHUNK, request, Payload(), core_.options.read_try);
    Result<Reply> reply = co_await pending;
    if (!reply) {
      bytes = Fail(std::move(reply).error());
    } else if (!race->abandoned) {
      bytes = Check(*race, which, *reply, connection);
    }
  }
  --race->running;
  if (race->abandoned) co_return;
  if (bytes) {
    race->won = true;
    race->bytes = std::move(*bytes);
  } else {
    ErrorCode code = bytes.error().code;
    core_.failed_reads.Add();
    LogInfo("chunk {:016x} could not be read from {}: {}", race->location->chunk.value, place.address, ToString(bytes.error()));
    if (code == ErrorCode::kUnavailable || code == ErrorCode::kTimeout) {
      core_.servers.Avoid(place.address, core_.options.avoid_server);
    }
    if (BadReplica(code)) {
      auto now = Core::Now();
      if (bad_until_.size() > 1000) std::erase_if(bad_until_, [now](const auto& e) { return e.second < now; });
      bad_until_[{race->location->chunk, place.instance}] = now + kBadReplica;
    }
    if (SaidToBeBad(code)) {
      core_.tasks.Spawn(ReportBad(race->state, race->index, race->location, place.server, code));
    }
    race->failures.emplace_back(which, std::move(bytes).error());
  }
  race->changed.WakeAll();
}

Result<Buffer> Reader::Check(Race& race, size_t which, const Reply& reply, const std::shared_ptr<Connection>& connection) {
  pb::ReadChunkResponse response;
  TRY(ParseReply(reply, response));
  size_t blocks = race.length / kBlockSize;
  if (reply.payload.size() != race.length || static_cast<size_t>(response.checksums_size()) != blocks) {
    return Fail(ErrorCode::kBadMessage, "the answer to a read has not the length asked for");
  }
  Buffer bytes = reply.payload;
  for (size_t i = 0; i < blocks; ++i) {
    const uint8_t* block = bytes.data() + i * kBlockSize;
    uint64_t sum = response.checksums(static_cast<int>(i));
    if (sum == 0) {
      std::memset(bytes.mutable_data() + i * kBlockSize, 0, kBlockSize);
    } else if (BlockChecksum(block, kBlockSize) != sum) {
      core_.checksum_mismatches.Add();
      uint32_t at = race.begin + static_cast<uint32_t>(i * kBlockSize);
      LogWarning("chunk {:016x} from {}: the block at {} does not match its checksum", race.location->chunk.value,
                 race.location->replicas[which].address, at);
      core_.tasks.Spawn(Verify(connection, race.location, race.begin, race.length));
      return Fail(ErrorCode::kChecksumMismatch, "the block at " + std::to_string(at) + " does not match its checksum");
    }
  }
  return bytes;
}

// The server reads its copy again, and reports it if it is bad.
Task<void> Reader::Verify(std::shared_ptr<Connection> connection, LocationPtr location, uint32_t offset, uint32_t length) {
  pb::VerifyChunkRequest request;
  request.set_chunk(location->chunk.value);
  request.set_version(location->version.value);
  request.set_offset(offset);
  request.set_length(length);
  PendingReply pending = connection->Call(pb::VERIFY_CHUNK, request, Payload(), 10s);
  Result<Reply> reply = co_await pending;
  pb::VerifyChunkResponse response;
  if (!reply || !ParseReply(*reply, response)) co_return;
  LogInfo("chunk {:016x} on {}: the server finds its copy {}", location->chunk.value, connection->peer(),
          response.good() ? "good" : "bad");
}

Task<void> Reader::ReportBad(StatePtr state, uint64_t index, LocationPtr location, ServerId server, ErrorCode reason) {
  auto now = Core::Now();
  if (reported_.size() > 1000) std::erase_if(reported_, [now](auto& e) { return now - e.second > kReportInterval; });
  SteadyTime& last = reported_[location->chunk];
  if (last != SteadyTime{} && now - last < kReportInterval) co_return;
  last = now;
  Result<LocationPtr> ignored = co_await locator_.Report(state, index, location, server, reason, false);
}

Task<Result<std::vector<uint64_t>>> Reader::ReadTable(StatePtr state, uint64_t index, LocationPtr location) {
  Error last{ErrorCode::kUnavailable, "no replica gave its checksum table"};
  for (int round = 0; round < 2; ++round) {
    std::vector<size_t> order = Order(*location, 0);
    for (size_t which : order) {
      Result<std::shared_ptr<Connection>> connection =
          co_await core_.servers.Connect(location->replicas[which].address, kConnectTry);
      if (!connection) continue;
      pb::ReadTableRequest request;
      request.set_chunk(location->chunk.value);
      request.set_version(location->version.value);
      PendingReply pending = (*connection)->Call(pb::READ_TABLE, request, Payload(), core_.options.read_try);
      Result<Reply> reply = co_await pending;
      pb::ReadTableResponse response;
      if (reply && ParseReply(*reply, response) && reply->payload.size() == response.blocks() * sizeof(uint64_t)) {
        std::vector<uint64_t> table(response.blocks());
        if (!table.empty()) std::memcpy(table.data(), reply->payload.data(), reply->payload.size());
        co_return table;
      }
      if (!reply) last = reply.error();
    }
    Result<LocationPtr> again = co_await locator_.Refetch(state, index);
    if (!again || !(*again)->chunk) break;
    location = *again;
  }
  co_return Fail(last);
}

}  // namespace shoal::client
