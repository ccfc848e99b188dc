#include "tests/fuzz/wire.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "common/rpc/auth.h"

namespace shoal::fuzz {

using namespace rpc_internal;

std::string RequestFrame(uint64_t id, uint16_t method, uint32_t milliseconds, std::string_view message,
                         std::string_view payload) {
  FrameHeader header{.kind = kRequestKind, .method = method, .id = id, .status = milliseconds};
  header.message_size = static_cast<uint32_t>(message.size());
  header.payload_size = static_cast<uint32_t>(payload.size());
  std::string bytes(kHeaderSize, '\0');
  EncodeHeader(header, message, reinterpret_cast<uint8_t*>(bytes.data()));
  return bytes.append(message).append(payload);
}

Wire::Wire(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(fd_ >= 0 && connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  SetLimits();
}

// Closed by a reset: thousands of connections one after the other would use up the ports.
Wire::~Wire() {
  linger hard{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  close(fd_);
}

void Wire::SetLimits() {
  timeval limit{20, 0};
  int on = 1;
  CHECK(setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
  CHECK(setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
  CHECK(setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
}

void Wire::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0) {
      CHECK(errno != EAGAIN);  // the other end neither reads nor closes
      return;
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void Wire::ShutDown() { shutdown(fd_, SHUT_WR); }

bool Wire::Take(size_t size, std::string* into) {
  into->resize(size);
  for (size_t have = 0; have < size;) {
    ssize_t n = recv(fd_, into->data() + have, size - have, 0);
    CHECK(n >= 0 || errno != EAGAIN);  // neither an answer nor the end of the connection
    if (n <= 0) return false;
    have += static_cast<size_t>(n);
  }
  return true;
}

std::optional<Wire::Frame> Wire::Receive() {
  std::string head;
  Frame frame;
  if (!Take(kHeaderSize, &head)) return std::nullopt;
  auto header = DecodeHeader(reinterpret_cast<const uint8_t*>(head.data()), {kMaxMessage, kMaxPayload});
  CHECK(header);
  frame.header = *header;
  if (!Take(header->message_size, &frame.message) || !Take(header->payload_size, &frame.payload)) return std::nullopt;
  CHECK(CheckMessage(frame.header, frame.message));
  return frame;
}

bool Wire::Prove(const ClusterKey& key, pb::Role role) {
  pb::HelloRequest hello;
  hello.set_role(role);
  hello.set_name("fuzz");
  hello.set_nonce(std::string(kNonceSize, 'n'));
  hello.set_protocol(1);
  Send(RequestFrame(1, pb::HELLO, 1000, hello.SerializeAsString()));
  std::optional<Frame> greeted = Receive();
  pb::HelloResponse answer;
  if (!greeted || greeted->header.status != 0 || !answer.ParseFromString(greeted->message)) return false;
  pb::ProveRequest prove;
  prove.set_proof(ClientProof(key, hello.nonce(), answer.nonce(), role));
  Send(RequestFrame(2, pb::PROVE, 1000, prove.SerializeAsString()));
  std::optional<Frame> proved = Receive();
  return proved && proved->header.status == 0;
}

}  // namespace shoal::fuzz
