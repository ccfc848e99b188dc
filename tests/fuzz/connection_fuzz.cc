// A server's connection before and after the handshake, and a client's, fed with arbitrary bytes in arbitrary pieces.
//
// An input is a way to begin, then things to send: raw bytes, frames with a right checksum and arbitrary fields,
// handshake messages, or whole requests. Every whole request is answered, unless the connection ends; whoever has not
// proved the key changes nothing.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/rpc/auth.h"
#include "tests/fuzz/messages.h"
#include "tests/fuzz/wire.h"

using namespace shoal;
using namespace shoal::rpc_internal;
using fuzz::Input;
using fuzz::Wire;

namespace {

constexpr uint32_t kIncarnation = 7;
constexpr int kMaxSends = 32;

// Answers everything with its own payload.
struct Server {
  EventLoop loop{"server", Duration(0)};
  RpcContext context;
  Dispatcher dispatcher;
  std::unique_ptr<RpcServer> server;

  Server() {
    context.key = ClusterKey::ForTest();
    context.role = pb::ROLE_CHUNKSERVER;
    context.name = "server";
    context.cluster_uuid = "cluster-1";
    context.incarnation = kIncarnation;
    for (auto method : {pb::LOOKUP, pb::READ_CHUNK, pb::WRITE_CHUNK}) {
      dispatcher.On(method, [](Request request) {
        std::unique_ptr<google::protobuf::Message> message(fuzz::RequestOf(request.method())->New());
        Status parsed = request.Parse(*message);
        if (!parsed) return request.AnswerError(parsed.error());
        request.Answer(*message, {request.payload()});
      });
    }
    dispatcher.On(pb::GET_ATTR, [](Request) {});  // dropped: answered all the same
    loop.Start();
    server = std::make_unique<RpcServer>(std::vector<EventLoop*>{&loop}, context, dispatcher);
    CHECK(server->Listen({"127.0.0.1", 0}));
  }
  ~Server() {
    server->Stop();
    loop.Stop();
  }
};

// What is sent over one connection.
struct Stream {
  explicit Stream(Input& in) : input(in), maker({"", "server", "cluster-1", std::string(kNonceSize, 'n')}, {}) {}
  Input& input;
  fuzz::MessageMaker maker;
  uint64_t sent = 0;    // whole requests
  bool in_step = true;  // the other end still knows where frames begin

  std::string Message(uint16_t method) {
    const auto* request = fuzz::RequestOf(static_cast<pb::Method>(method));
    if (!request || input.Byte() % 2) return std::string(input.TakeSized());
    std::unique_ptr<google::protobuf::Message> message(request->New());
    maker.Fill(input, *message);
    return message->SerializePartialAsString();
  }

  std::string Next() {
    uint8_t kind = input.Byte() % 4;
    if (kind == 0) {
      in_step = false;
      return std::string(input.TakeSized());
    }
    uint16_t method = kind == 1 ? input.Byte() % 4 : input.Number<uint16_t>() % 256;
    std::string message = Message(method);
    if (kind < 3) {
      std::string payload(kind == 2 ? input.Number<uint16_t>() : 0, 'p');
      ++sent;
      return fuzz::RequestFrame(100 + sent, method, input.Byte(), message, payload);
    }
    FrameHeader header{.kind = input.Byte(),
                       .method = method,
                       .id = input.Byte(),
                       .txn = input.Number<uint64_t>(),
                       .incarnation = input.Number<uint32_t>(),
                       .status = input.Number<uint32_t>()};
    header.message_size = static_cast<uint32_t>(message.size()) + (input.Byte() % 4 ? 0 : input.Number<uint32_t>());
    header.payload_size = input.Byte() % 4 ? 0 : input.Number<uint32_t>();
    in_step =
        in_step && header.kind == kRequestKind && header.message_size == message.size() && header.payload_size == 0;
    sent += in_step;
    std::string bytes(kHeaderSize, '\0');
    EncodeHeader(header, message, reinterpret_cast<uint8_t*>(bytes.data()));
    return bytes + message;
  }

  void SendAll(Wire& wire) {
    std::string held;
    for (int i = 0; i < kMaxSends && !input.empty(); ++i) {
      uint8_t pieces = input.Byte();
      held += Next();
      if (pieces % 4 == 0) continue;  // goes out with the next one
      size_t size = pieces % 4 == 1 ? held.size() : pieces / 4 + 1;
      for (size_t at = 0; at < held.size(); at += size) {
        if (size < held.size() && held.size() / size > 64) size = held.size() / 64;
        wire.Send(std::string_view(held).substr(at, size));
      }
      held.clear();
    }
    wire.Send(held);
  }
};

void FuzzServer(Input& input, bool prove) {
  static Server server;
  auto role = static_cast<pb::Role>(input.Byte() % 5);
  server.context.txn = 0;
  server.context.incarnation = kIncarnation;
  Wire wire(server.server->port());
  if (prove) CHECK(wire.Prove(server.context.key, role));
  Stream stream(input);
  stream.SendAll(wire);
  // In step and proved: an answer to each. Else the end of the stream ends it.
  const bool answered = prove && stream.in_step && role != pb::ROLE_METASERVER;
  if (!answered) wire.ShutDown();
  for (uint64_t left = stream.sent; !answered || left > 0; --left) {
    bool received = wire.Receive().has_value();
    CHECK(received || !answered);
    if (!received) break;
  }
  if (prove && role == pb::ROLE_METASERVER) return;
  CHECK(server.context.incarnation == kIncarnation && server.context.txn == 0);
}

// A client that connects to something else than a server of its cluster.
void FuzzClient(Input& input) {
  struct Client {
    EventLoop loop{"client", Duration(0)};
    RpcContext context;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    Address address{"127.0.0.1", 0};
    Client() {
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      socklen_t size = sizeof at;
      auto* any = reinterpret_cast<sockaddr*>(&at);
      CHECK(bind(listening, any, size) == 0 && listen(listening, 8) == 0 && getsockname(listening, any, &size) == 0);
      address.port = ntohs(at.sin_port);
      context.incarnation = kIncarnation;
      loop.Start();
    }
    ~Client() {
      loop.Stop();
      close(listening);
    }
  };
  static Client client;
  std::unique_ptr<Channel> channel;
  std::promise<bool> made;
  auto get = [](Channel* c, std::promise<bool>* done) -> Task<void> {
    Task<Result<std::shared_ptr<Connection>>> getting = c->Get(20s);
    auto connection = co_await getting;
    done->set_value(connection.has_value());
  };
  TaskGroup group(client.loop);
  client.loop.Sync([&] {
    channel = std::make_unique<Channel>(client.loop, client.context, client.address);
    group.Spawn(get(channel.get(), &made));
  });
  {
    Wire wire(accept4(client.listening, nullptr, nullptr, SOCK_CLOEXEC));
    CHECK(wire.Receive());  // HELLO
    Stream(input).SendAll(wire);
    wire.ShutDown();
    while (wire.Receive()) {
    }
  }
  CHECK(!made.get_future().get());
  RunOn(client.loop, group.Join());
  client.loop.Sync([&] { channel.reset(); });
  CHECK(client.context.incarnation == kIncarnation && client.context.txn == 0);
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  pb::HelloRequest hello;
  hello.set_role(pb::ROLE_METASERVER);
  hello.set_nonce(std::string(kNonceSize, 'n'));
  std::string role = Raw(uint8_t{1}), whole = "\1", late = Raw(uint8_t{0}), bits = Raw(uint8_t{7});
  std::string greet = "\1\1\1" + Sized(hello.SerializeAsString()) + "\1", prove = "\1\2\1" + Sized("no proof") + "\1";
  std::string lookup = "\2" + Raw(uint16_t{pb::LOOKUP}) + "\1" + Sized("\x10\1") + Raw(uint16_t{9000}) + "\1";
  std::string ping = "\2" + Raw(uint16_t{pb::PING}) + "\1" + Sized("") + Raw(uint16_t{0}) + "\1";
  std::string frame = "\3" + Raw(uint16_t{pb::PROVE}) + "\1" + Sized("") + "\1\1" + Raw(uint64_t{9}) +
                      Raw(uint32_t{99}) + Raw(uint32_t{9}) + "\1\1";
  std::string answer = "\3" + Raw(uint16_t{pb::HELLO}) + "\1" + Sized("") + "\2\1" + Raw(uint64_t{9}) +
                       Raw(uint32_t{99}) + Raw(uint32_t{0}) + "\1\1";
  std::string large = "\2" + Raw(uint16_t{pb::WRITE_CHUNK}) + "\1" + Sized("") + Raw(uint16_t{60000}) + "\1";
  std::vector<std::string> seeds;
  for (std::string begin : {"u", "p"}) {
    begin += role;
    seeds.push_back(begin + whole + greet + whole + prove);
    seeds.push_back(begin + bits + lookup + late + ping + whole + lookup + bits + large);
    seeds.push_back(begin + whole + greet + whole + frame);
    seeds.push_back(begin + whole + Raw(uint8_t{0}) + Sized("GET / HTTP/1.0\r\n\r\n") + whole + ping);
  }
  seeds.push_back("c" + whole + answer + bits + answer);
  seeds.push_back("c" + whole + Raw(uint8_t{0}) + Sized("SSH-2.0-OpenSSH"));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const char begin = static_cast<char>(input.Byte());
  if (begin == 'c') {
    FuzzClient(input);
  } else {
    FuzzServer(input, begin == 'p');
  }
  return 0;
}
