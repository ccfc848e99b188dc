// The RPC layer: framed protobuf messages with a raw payload beside them, over TCP.
//
// One connection carries requests both ways. It is authenticated (both ends prove the cluster key) before
// anything else is read. The frame's layout is in docs/formats.md and common/rpc/frame.h.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/buffer.h"
#include "common/event_loop.h"
#include "common/ids.h"
#include "common/limits.h"
#include "common/proto/methods.pb.h"
#include "common/result.h"

namespace google::protobuf {
class MessageLite;
}

namespace shoal {

using SteadyTime = std::chrono::steady_clock::time_point;

// "HOST:PORT"; host may be a name, an IPv4 address, or an IPv6 address in brackets. A plain value.
struct Address {
  std::string host;
  uint16_t port = 0;

  static Result<Address> Parse(std::string_view text, uint16_t default_port);
  std::string ToString() const;
  bool operator==(const Address&) const = default;
};

// The secret that all parts of a cluster share: 32 bytes, in a file of mode 0600 as 64 hex digits.
struct ClusterKey {
  std::array<uint8_t, 32> bytes{};

  static Result<ClusterKey> Load(const std::string& path);  // refuses a file that others may read
  static Result<ClusterKey> Create(const std::string& path);  // fails if the file exists; synced on return
  static ClusterKey ForTest();
};

// What a process says of itself on its connections, and what it has learnt from them. One per process (or per
// server of an in-process cluster); outlives every connection made with it. The atomics may be used on any thread.
struct RpcContext {
  ClusterKey key;
  pb::Role role = pb::ROLE_CLIENT;
  std::string name;                       // for logs and status pages: "chunkserver-2", "mount:/mnt/x"
  std::string cluster_uuid;               // empty until known; two ends that both know one must agree
  std::atomic<uint32_t> incarnation{0};   // the highest seen; a metaserver's frame with a lower one is refused
  std::atomic<uint64_t> txn{0};           // the highest transaction number seen
};

// The answer to a call.
struct Reply {
  Buffer message;
  Buffer payload;
  TxnId txn;
};

// A reply with its message parsed.
template <typename Message>
struct Typed {
  Message message;
  Buffer payload;
  TxnId txn;
};

class Connection;

// A request that arrived. Answer it once, on the connection's loop; one that is destroyed unanswered is
// answered with kInternal. Lives as long as its handler needs it.
class Request {
 public:
  Request(std::shared_ptr<Connection> connection, uint64_t id, pb::Method method, SteadyTime deadline, Buffer message,
          Buffer payload, size_t cost);
  Request(Request&& other) noexcept;
  Request& operator=(Request&&) = delete;
  ~Request();

  pb::Method method() const { return method_; }
  const std::shared_ptr<Connection>& connection() const { return connection_; }
  SteadyTime deadline() const { return deadline_; }
  const Buffer& payload() const { return payload_; }
  // kBadMessage if the bytes are not such a message.
  Status Parse(google::protobuf::MessageLite& into) const;

  void Answer(const google::protobuf::MessageLite& message, Payload payload = {}, TxnId txn = {});
  void AnswerError(const Error& error, TxnId txn = {});
  // An answer that was serialized before (a slot's remembered one).
  void AnswerRaw(ErrorCode status, std::string_view message, TxnId txn = {});

 private:
  std::shared_ptr<Connection> connection_;
  uint64_t id_;
  pb::Method method_;
  SteadyTime deadline_;
  Buffer message_;
  Buffer payload_;
  size_t cost_;  // bytes this request holds of its connection's credit
};

// Which function answers which method. Filled before it is given to connections; outlives them; called on the
// connection's loop. A method without a handler is answered with kUnknownMethod.
class Dispatcher {
 public:
  using Handler = std::function<void(Request)>;
  void On(pb::Method method, Handler handler) { handlers_[method] = std::move(handler); }
  const Handler* Find(pb::Method method) const {
    auto it = handlers_.find(method);
    return it == handlers_.end() ? nullptr : &it->second;
  }

 private:
  std::unordered_map<int, Handler> handlers_;
};

namespace rpc_internal {
struct PendingState;
}

// A call under way; `co_await` it on the connection's loop for the Result<Reply>. The request was sent when
// this object was made, so several can be under way before the first is awaited. Dropping it abandons the answer.
// Errors: kUnavailable (connection lost), kTimeout, or what the peer answered, with its message.
class PendingReply {
 public:
  explicit PendingReply(std::shared_ptr<rpc_internal::PendingState> state) : state_(std::move(state)) {}
  bool await_ready() const noexcept;
  void await_suspend(std::coroutine_handle<> h) noexcept;
  Result<Reply> await_resume();

 private:
  std::shared_ptr<rpc_internal::PendingState> state_;
};

// Parses a reply's message: kBadMessage if it can't be.
Status ParseReply(const Reply& reply, google::protobuf::MessageLite& into);

// One authenticated TCP connection. Made by Channel and RpcServer; kept alive by its own reads and by the
// shared_ptrs of its users; everything but closed() is called on its loop.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  virtual ~Connection() = default;

  // Sends a request. `timeout` counts from now and travels with the request. Requests of one connection
  // arrive in the order in which Call was called.
  virtual PendingReply Call(pb::Method method, const google::protobuf::MessageLite& message, Payload payload,
                            Duration timeout) = 0;
  // Ends the connection: calls under way fail with kUnavailable, `why` is logged.
  virtual void Close(const Error& why) = 0;
  virtual bool closed() const = 0;
  // Called once, on the loop, when the connection has ended. `clean`: the peer's end of stream was received (its
  // process ended or closed), not a reset or a time-out.
  virtual void OnClose(std::move_only_function<void(const Error& why, bool clean)> callback) = 0;

  virtual EventLoop& loop() = 0;
  virtual RpcContext& context() = 0;
  virtual const std::string& peer() const = 0;       // "127.0.0.1:4711 (client mount:/mnt/x)"
  virtual const std::string& peer_host() const = 0;  // "127.0.0.1"
  virtual pb::Role peer_role() const = 0;
  virtual const std::string& peer_name() const = 0;
  // Bytes waiting to be sent.
  virtual size_t queued_bytes() const = 0;
  // When a frame came in last.
  virtual SteadyTime last_received() const = 0;

  // For whoever owns the other end's meaning (a session, a registered server): set once by a handler.
  std::shared_ptr<void> attachment;

 protected:
  friend class Request;
  virtual void SendResponse(uint64_t id, pb::Method method, ErrorCode status, const google::protobuf::MessageLite* message,
                            std::string_view raw, Payload payload, TxnId txn, size_t cost) = 0;
};

// Calls a method and parses the answer. `request` must live until the task ends (a local of the caller).
template <typename Response>
Task<Result<Typed<Response>>> CallTyped(std::shared_ptr<Connection> connection, pb::Method method,
                                        const google::protobuf::MessageLite& request, Payload payload, Duration timeout) {
  PendingReply pending = connection->Call(method, request, std::move(payload), timeout);
  Result<Reply> reply = co_await pending;
  if (!reply) co_return Fail(std::move(reply).error());
  Typed<Response> typed;
  CO_TRY(ParseReply(*reply, typed.message));
  typed.payload = std::move(reply->payload);
  typed.txn = reply->txn;
  co_return typed;
}

// A connection to one address that is made when first needed and again when it was lost (with backoff from 10 ms to
// 300 ms). Lives on `loop`; every function is called there. Requests from the other end go to `dispatcher` (may be null).
class Channel {
 public:
  Channel(EventLoop& loop, RpcContext& context, Address address, const Dispatcher* dispatcher = nullptr);
  ~Channel();  // closes the connection; nobody may be waiting in Get

  // The live connection, or a new one. While one attempt is under way all callers wait for it. During the backoff
  // after a failure it fails at once with kUnavailable unless `wait`. kAuthFailed and kWrongCluster are final.
  Task<Result<std::shared_ptr<Connection>>> Get(Duration timeout, bool wait = false);
  // The live connection or null.
  std::shared_ptr<Connection> current() const;
  // Called on each new connection before Get returns it (to open a session, to register); an error closes it.
  void OnConnect(std::function<Task<Status>(std::shared_ptr<Connection>)> callback);
  const Address& address() const;
  void Close();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Listens and hands authenticated connections to the loops in turn. Owner: the program's main object; Start and
// Stop from any thread that is not one of the loops.
class RpcServer {
 public:
  // Loops, context and dispatcher outlive the server.
  RpcServer(std::vector<EventLoop*> loops, RpcContext& context, const Dispatcher& dispatcher);
  ~RpcServer();

  // Refuses an address beyond loopback (no TLS yet) and names the option; kBusy when the port is in use. Port 0
  // picks one: see port().
  Status Listen(const Address& address);
  uint16_t port() const;
  // Called on the connection's loop for each authenticated connection.
  void OnConnection(std::function<void(const std::shared_ptr<Connection>&)> callback);
  // Stops listening, closes every connection, and waits until they are gone.
  void Stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace shoal
