// The RPC layer over real sockets on loopback.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <random>

#include "common/proto/meta.pb.h"
#include "common/rpc/frame.h"
#include "common/rpc/rpc.h"

#include <arpa/inet.h>

namespace shoal {
namespace {

Task<Result<std::shared_ptr<Connection>>> Connect(Channel* channel, bool wait = false) { co_return co_await channel->Get(5s, wait); }

Task<Result<Typed<pb::GetXattrResponse>>> Echo(std::shared_ptr<Connection> c, std::string text, size_t payload, Duration timeout) {
  pb::GetXattrRequest request;
  request.set_name(text);
  Payload parts;
  if (payload) {
    Buffer b = Buffer::Allocate(payload);
    memset(b.mutable_data(), 'x', payload);
    parts.push_back(b.Slice(0, payload / 2));
    parts.push_back(b.Slice(payload / 2, payload - payload / 2));
  }
  co_return co_await CallTyped<pb::GetXattrResponse>(c, pb::GET_XATTR, request, std::move(parts), timeout);
}

// A server whose GET_XATTR echoes name and payload, and whose LOOKUP never answers while `held` keeps the request.
class RpcTest : public ::testing::Test {
 protected:
  RpcTest() : server_loop_("server"), client_loop_("client") {
    server_context_.key = client_context_.key = ClusterKey::ForTest();
    server_context_.role = pb::ROLE_METASERVER;
    client_context_.role = pb::ROLE_CLIENT;
    client_context_.name = "tester";
    dispatcher_.On(pb::GET_XATTR, [](Request request) {
      pb::GetXattrRequest in;
      ASSERT_TRUE(request.Parse(in));
      pb::GetXattrResponse out;
      out.set_value(in.name());
      Payload back;
      if (!request.payload().empty()) back.push_back(request.payload());
      request.Answer(out, std::move(back), TxnId(42));
    });
    dispatcher_.On(pb::LOOKUP, [this](Request request) {
      held_.push_back(std::move(request));
      if (on_held_) on_held_();
    });
    dispatcher_.On(pb::RMDIR, [](Request request) { request.AnswerError(Error{ErrorCode::kNotEmpty, "full of things"}); });
    server_loop_.Start();
    client_loop_.Start();
    server_ = std::make_unique<RpcServer>(std::vector<EventLoop*>{&server_loop_}, server_context_, dispatcher_);
    EXPECT_TRUE(server_->Listen({"127.0.0.1", 0}));
    MakeChannel();
  }
  ~RpcTest() override {
    client_loop_.Sync([&] { channel_.reset(); });
    server_loop_.Sync([&] { held_.clear(); });
    server_->Stop();
    client_loop_.Stop();
    server_loop_.Stop();
  }
  void MakeChannel(const Dispatcher* dispatcher = nullptr) {
    client_loop_.Sync([&] {
      channel_ = std::make_unique<Channel>(client_loop_, client_context_, Address{"127.0.0.1", server_->port()}, dispatcher);
    });
  }
  std::shared_ptr<Connection> Connected() {
    auto c = RunOn(client_loop_, Connect(channel_.get()));
    EXPECT_TRUE(c) << (c ? "" : ToString(c.error()));
    return c ? *c : nullptr;
  }
  int RawSocket() {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(server_->port());
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    return fd;
  }

  EventLoop server_loop_, client_loop_;
  RpcContext server_context_, client_context_;
  Dispatcher dispatcher_;
  std::vector<Request> held_;
  std::function<void()> on_held_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Channel> channel_;
};

TEST_F(RpcTest, EchoesMessagesAndPayloadsOfEverySize) {
  auto c = Connected();
  for (size_t message : {0u, 1u, 100u, 8100u, 8192u, 40000u, 1000000u}) {
    for (size_t payload : {0u, 1u, 4096u, 16384u, 16385u, 1u << 20, 4u << 20}) {
      auto reply = RunOn(client_loop_, Echo(c, std::string(message, 'm'), payload, 10s));
      ASSERT_TRUE(reply) << ToString(reply.error()) << " " << message << " " << payload;
      EXPECT_EQ(reply->message.value().size(), message);
      ASSERT_EQ(reply->payload.size(), payload);
      EXPECT_EQ(reply->payload.view().find_first_not_of('x'), std::string_view::npos);
      EXPECT_EQ(reply->txn.value, 42u);
    }
  }
  EXPECT_EQ(client_context_.txn.load(), 42u);
}

TEST_F(RpcTest, TooLargeARequestFailsByItselfAndTheConnectionLives) {
  auto c = Connected();
  auto reply = RunOn(client_loop_, Echo(c, "x", kMaxPayload + 1, 5s));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kTooLarge);
  EXPECT_TRUE(RunOn(client_loop_, Echo(c, "x", 0, 5s)));
}

Task<Result<Typed<pb::AttrResponse>>> Lookup(std::shared_ptr<Connection> c, Duration timeout) {
  pb::LookupRequest request;
  co_return co_await CallTyped<pb::AttrResponse>(c, pb::LOOKUP, request, {}, timeout);
}

Task<Result<Typed<pb::UnlinkResponse>>> Rmdir(std::shared_ptr<Connection> c) {
  pb::UnlinkRequest request;
  co_return co_await CallTyped<pb::UnlinkResponse>(c, pb::RMDIR, request, {}, 5s);
}

Task<Result<Typed<pb::PingResponse>>> Unknown(std::shared_ptr<Connection> c) {
  pb::PingRequest request;
  co_return co_await CallTyped<pb::PingResponse>(c, static_cast<pb::Method>(999), request, {}, 5s);
}

TEST_F(RpcTest, ErrorsTravelWithTheirTextAndUnknownMethodsAreAnswered) {
  auto c = Connected();
  auto full = RunOn(client_loop_, Rmdir(c));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kNotEmpty);
  EXPECT_EQ(full.error().message, "full of things");
  auto unknown = RunOn(client_loop_, Unknown(c));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kUnknownMethod);
}

TEST_F(RpcTest, ACallEndsAtItsDeadline) {
  auto c = Connected();
  auto start = std::chrono::steady_clock::now();
  auto reply = RunOn(client_loop_, Lookup(c, 200ms));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kTimeout);
  EXPECT_GE(std::chrono::steady_clock::now() - start, 200ms);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 3s);
}

TEST_F(RpcTest, ALostConnectionFailsItsCallsAndTheChannelMakesANewOne) {
  auto c = Connected();
  std::promise<void> arrived;
  on_held_ = [&] { arrived.set_value(); };
  auto waiting = std::async(std::launch::async, [&] { return RunOn(client_loop_, Lookup(c, 30s)); });
  arrived.get_future().wait();
  server_loop_.Sync([&] {
    auto connection = held_.back().connection();
    connection->Close(Error{ErrorCode::kCancelled, "test"});
  });
  auto reply = waiting.get();
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  auto again = Connected();
  ASSERT_NE(again, c);
  EXPECT_TRUE(RunOn(client_loop_, Echo(again, "back", 0, 5s)));
}

TEST_F(RpcTest, AnotherKeyIsRefusedOnBothSides) {
  client_context_.key.bytes[3] ^= 1;
  auto c = RunOn(client_loop_, Connect(channel_.get()));
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, ErrorCode::kAuthFailed);
}

TEST_F(RpcTest, AnotherClusterIsRefusedByName) {
  server_context_.cluster_uuid = "uuid-one";
  client_context_.cluster_uuid = "uuid-two";
  auto c = RunOn(client_loop_, Connect(channel_.get()));
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error().code, ErrorCode::kWrongCluster);
  EXPECT_NE(c.error().message.find("uuid-two"), std::string::npos);
}

TEST_F(RpcTest, AMetaserverOfAnEarlierLifeIsRefused) {
  server_context_.incarnation = 3;
  ASSERT_TRUE(RunOn(client_loop_, Echo(Connected(), "x", 0, 5s)));
  EXPECT_EQ(client_context_.incarnation.load(), 3u);
  client_context_.incarnation = 4;
  auto reply = RunOn(client_loop_, Echo(Connected(), "x", 0, 5s));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kOldIncarnation);
}

TEST_F(RpcTest, TheServerCallsItsClientOnTheSameConnection) {
  Dispatcher mine;
  mine.On(pb::PING, [](Request request) { request.Answer(pb::PingResponse()); });
  mine.On(pb::RMDIR, [](Request request) { request.AnswerError(Error{ErrorCode::kBusy, "client side"}); });
  MakeChannel(&mine);
  auto c = Connected();
  std::promise<std::shared_ptr<Connection>> seen;
  on_held_ = [&] { seen.set_value(held_.back().connection()); };
  auto waiting = std::async(std::launch::async, [&] { return RunOn(client_loop_, Lookup(c, 30s)); });
  auto from_server = seen.get_future().get();
  auto reply = RunOn(server_loop_, Rmdir(from_server));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().message, "client side");
  server_loop_.Sync([&] { held_.clear(); });  // dropped unanswered: kInternal
  auto dropped = waiting.get();
  ASSERT_FALSE(dropped);
  EXPECT_EQ(dropped.error().code, ErrorCode::kInternal);
  client_loop_.Sync([&] { channel_.reset(); });  // before `mine` goes
}

TEST_F(RpcTest, GarbageEndsTheConnectionNotTheServer) {
  std::mt19937 random(7);
  for (int i = 0; i < 50; ++i) {
    int fd = RawSocket();
    std::string bytes(1 + random() % 5000, '\0');
    for (char& b : bytes) b = static_cast<char>(random());
    if (i % 2) memcpy(bytes.data(), "SHL1", std::min<size_t>(4, bytes.size()));  // gets past the magic
    if (bytes.size() >= 48 && i % 4 == 1) bytes[4] = 1;
    (void)!write(fd, bytes.data(), bytes.size());
    shutdown(fd, SHUT_WR);
    char sink[4096];
    while (read(fd, sink, sizeof sink) > 0) {
    }
    close(fd);
  }
  EXPECT_TRUE(RunOn(client_loop_, Echo(Connected(), "alive", 0, 5s)));
}

TEST_F(RpcTest, ADamagedMessageIsNoticed) {
  // A HELLO whose message was changed after its checksum was made.
  int fd = RawSocket();
  unsigned char frame[49] = {'S', 'H', 'L', '1', 1, 0, 1, 0};
  frame[32] = 1;
  ASSERT_EQ(write(fd, frame, sizeof frame), static_cast<ssize_t>(sizeof frame));
  char sink[64];
  EXPECT_LE(read(fd, sink, sizeof sink), 0);  // closed without an answer
  close(fd);
}

TEST_F(RpcTest, OneWhoOnlyClaimsToBeAMetaserverIsNotBelieved) {
  using namespace rpc_internal;
  server_context_.role = pb::ROLE_CHUNKSERVER;
  server_context_.incarnation = 3;
  int fd = RawSocket();
  auto send = [&](pb::Method method, const google::protobuf::MessageLite& message) {
    std::string body = message.SerializeAsString(), bytes(kHeaderSize, '\0');
    FrameHeader header{.kind = kRequestKind, .method = static_cast<uint16_t>(method), .id = 1, .txn = 99, .incarnation = 99};
    header.message_size = static_cast<uint32_t>(body.size());
    EncodeHeader(header, body, reinterpret_cast<uint8_t*>(bytes.data()));
    bytes += body;
    ASSERT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  };
  pb::HelloRequest hello;
  hello.set_role(pb::ROLE_METASERVER);
  hello.set_nonce(std::string(32, 'n'));
  send(pb::HELLO, hello);
  pb::ProveRequest prove;
  prove.set_proof("none");
  send(pb::PROVE, prove);
  char sink[4096];
  while (read(fd, sink, sizeof sink) > 0) {
  }
  close(fd);
  EXPECT_EQ(server_context_.incarnation.load(), 3u);
  EXPECT_EQ(server_context_.txn.load(), 0u);
}

TEST_F(RpcTest, RefusesToListenBeyondLoopbackAndOnATakenPort) {
  RpcServer other({&server_loop_}, server_context_, dispatcher_);
  auto beyond = other.Listen({"0.0.0.0", 0});
  ASSERT_FALSE(beyond);
  EXPECT_NE(beyond.error().message.find("TLS"), std::string::npos);
  auto taken = other.Listen({"127.0.0.1", server_->port()});
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, ErrorCode::kBusy);
}

Task<void> Flood(std::shared_ptr<Connection> c, int* done) {
  auto reply = co_await Echo(c, "flood", 1 << 20, 60s);
  if (reply) ++*done;
}

Task<int> FloodAll(EventLoop* loop, std::shared_ptr<Connection> c, int count) {
  TaskGroup group(*loop);
  int done = 0;
  for (int i = 0; i < count; ++i) group.Spawn(Flood(c, &done));
  co_await group.Join();
  co_return done;
}

TEST_F(RpcTest, ManyLargeCallsAtOnceAllComeBack) {
  EXPECT_EQ(RunOn(client_loop_, FloodAll(&client_loop_, Connected(), 300)), 300);
}

TEST_F(RpcTest, ChannelWaitsForAServerThatComesLater) {
  uint16_t port = server_->port();
  server_->Stop();
  MakeChannel();
  auto now = RunOn(client_loop_, Connect(channel_.get()));
  EXPECT_FALSE(now);
  auto later = std::async(std::launch::async, [&] { return RunOn(client_loop_, Connect(channel_.get(), true)); });
  server_ = std::make_unique<RpcServer>(std::vector<EventLoop*>{&server_loop_}, server_context_, dispatcher_);
  ASSERT_TRUE(server_->Listen({"127.0.0.1", port}));
  auto c = later.get();
  ASSERT_TRUE(c) << ToString(c.error());
  EXPECT_TRUE(RunOn(client_loop_, Echo(*c, "x", 0, 5s)));
}

TEST(AddressTest, Parses) {
  EXPECT_EQ(Address::Parse("h", 7)->ToString(), "h:7");
  EXPECT_EQ(Address::Parse("h:9", 7)->ToString(), "h:9");
  EXPECT_EQ(Address::Parse("[::1]:9", 7)->ToString(), "[::1]:9");
  EXPECT_EQ(Address::Parse("[::1]", 7)->ToString(), "[::1]:7");
  for (const char* bad : {"", ":5", "h:", "h:x", "h:70000", "::1", "[::1", "[::1]5", "[[::1]:5", "h]", "h[:5", "999", "7600:1"}) EXPECT_FALSE(Address::Parse(bad, 7)) << bad;
}

}  // namespace
}  // namespace shoal
