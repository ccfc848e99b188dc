// Every method of a chunkserver with arbitrary requests over a proved connection; its disk is in memory. Every request
// is answered, and no request ends the process.
//
// An input is a role, then calls: the method, how its request is made, the request. Writes can be given a payload and
// checksums that fit.
#include "chunkserver/server.h"
#include "common/checksum.h"
#include "common/proto/chunk.pb.h"
#include "common/proto/control.pb.h"
#include "tests/fuzz/messages.h"
#include "tests/fuzz/wire.h"
#include "tests/unit/chunkserver/cluster.h"
#include "tests/support/fake_files.h"

using namespace shoal;
using fuzz::Input;
using fuzz::Wire;
using google::protobuf::Message;

namespace {

constexpr int kMaxCalls = 16;
constexpr int kRenewEvery = 500;          // inputs
constexpr uint32_t kMaxData = 256 << 10;  // bytes of a write that is made to fit
constexpr pb::Method kMethods[] = {pb::WRITE_CHUNK, pb::READ_CHUNK,     pb::SYNC_CHUNK,  pb::VERIFY_CHUNK,
                                   pb::READ_TABLE,  pb::FREEZE_REPLICA, pb::SET_VERSION, pb::DROP_REPLICA,
                                   pb::REPLICATE,   pb::SYNC_REPLICAS,  pb::SCRUB_REPLICA, pb::WRITE_CHUNK, pb::PING};

// One chunkserver that is registered with a metaserver that grants everything.
struct Server {
  test::FakeMeta meta;
  test::FakeFiles files;
  std::unique_ptr<ChunkServer> server;

  Server() {
    CHECK(files.CreateDirectory("/data"));
    files.capacity = 512 << 20;
    ChunkServerOptions options;
    options.directories = {{"/data", 0}};
    options.listen = {"127.0.0.1", 0};
    options.metaservers = {meta.address()};
    options.key = ClusterKey::ForTest();
    options.name = options.host = "fuzz";
    options.heartbeat = 20ms;
    options.files = &files;
    server = std::make_unique<ChunkServer>(options);
    CHECK(server->Start());
    test::Await([this] { return server->serving(); });
    CHECK(server->serving());
  }
  ~Server() { server.reset(); }
};

Server& TheServer() {
  static std::unique_ptr<Server> server;
  static int inputs = 0;
  if (inputs++ % kRenewEvery == 0) {
    server.reset();
    server = std::make_unique<Server>();
  }
  return *server;
}

// Gives a write the payload and the checksums that its segments ask for.
std::string MakeFit(pb::WriteChunkRequest& write) {
  uint32_t total = 0;
  write.clear_checksums();
  std::string payload;
  for (pb::Segment& segment : *write.mutable_segments()) {
    if (write.kind() != pb::WRITE_DATA) continue;
    segment.set_length(std::min(segment.length(), kMaxData - total));
    total += segment.length();
    uint64_t end = uint64_t{segment.offset()} + segment.length();
    for (uint64_t at = segment.offset(); at < end;) {
      uint64_t piece = std::min(end, (at / kBlockSize + 1) * kBlockSize) - at;
      std::string bytes(piece, static_cast<char>(at / kBlockSize));
      write.add_checksums(BlockChecksum(bytes.data(), bytes.size()));
      payload += bytes;
      at += piece;
    }
  }
  return payload;
}

std::string Call(Input& input, fuzz::MessageMaker& maker, uint64_t id) {
  pb::Method method = kMethods[input.Byte() % std::size(kMethods)];
  uint8_t how = input.Byte();
  auto milliseconds = static_cast<uint32_t>(input.Byte());
  std::string payload;
  std::unique_ptr<Message> request(fuzz::RequestOf(method)->New());
  if (how & 1) {
    std::string bytes(input.TakeSized());
    if (!request->ParseFromString(bytes)) return fuzz::RequestFrame(id, method, milliseconds, bytes);
  } else {
    maker.Fill(input, *request);
  }
  if (how & 2) {
    payload = input.TakeSized();
  } else if (auto* write = dynamic_cast<pb::WriteChunkRequest*>(request.get())) {
    payload = MakeFit(*write);
  }
  return fuzz::RequestFrame(id, method, milliseconds, request->SerializePartialAsString(), payload);
}

std::string Seed(uint8_t method, const Message& request) {
  return fuzz::Raw(method) + "\1\x64" + fuzz::Sized(request.SerializeAsString());
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  pb::WriteChunkRequest write;
  write.set_chunk(3);
  write.set_version(1);
  write.set_instance(4);
  write.set_lease(1);
  write.set_session(1);
  write.set_write_id(1);
  write.set_create(true);
  pb::Segment* segment = write.add_segments();
  segment->set_offset(4000);
  segment->set_length(9000);
  pb::WriteChunkRequest other = write, zero = write;
  other.set_write_id(2);
  other.set_sync(true);
  other.mutable_segments(0)->set_offset(5000);
  zero.set_write_id(3);
  zero.set_kind(pb::WRITE_ZERO);
  pb::ReadChunkRequest read;
  read.set_chunk(3);
  read.set_version(1);
  read.set_instance(4);
  read.set_length(16384);
  std::string life = Seed(0, write) + Seed(0, other) + Seed(0, zero) + Seed(1, read);

  std::vector<std::string> seeds;
  for (uint8_t role : {pb::ROLE_CLIENT, pb::ROLE_METASERVER, pb::ROLE_CHUNKSERVER}) {
    seeds.push_back(Raw(role) + life);
    for (uint8_t method = 0; method < std::size(kMethods); ++method) {
      for (uint8_t value : {1, 3, 5}) {
        std::string call = Raw(method) + Raw(uint8_t{0}) + "\x32" + std::string(60, static_cast<char>(value));
        seeds.push_back(Raw(role) + life + call + call);
      }
    }
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  Server& server = TheServer();
  constexpr pb::Role kRoles[] = {pb::ROLE_NONE, pb::ROLE_CLIENT, pb::ROLE_METASERVER, pb::ROLE_CHUNKSERVER};
  Wire wire(server.server->port());
  CHECK(wire.Prove(ClusterKey::ForTest(), kRoles[input.Byte() % 4]));
  const std::string self = "127.0.0.1:" + std::to_string(server.server->port());
  fuzz::MessageMaker maker({"a", ""}, {self, "127.0.0.1:1", "", "[::1]:1", "host:99999", ":"});
  uint64_t sent = 0;
  while (sent < kMaxCalls && !input.empty()) wire.Send(Call(input, maker, ++sent));
  for (; sent > 0; --sent) CHECK(wire.Receive());
  return 0;
}
