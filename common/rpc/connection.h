// The connection's implementation, for channel.cc and server.cc.
#pragma once

#include "common/rpc/asio_loop.h"

#include <asio/awaitable.hpp>
#include <asio/ip/tcp.hpp>
#include <deque>
#include <list>

#include "common/rpc/frame.h"
#include "common/rpc/rpc.h"

namespace shoal::rpc_internal {

// One call under way. Shared by the connection's table and the awaiting PendingReply; on the loop only.
struct PendingState {
  EventLoop* loop = nullptr;
  SteadyTime deadline;
  std::optional<Result<Reply>> result;
  std::coroutine_handle<> waiter;

  void Finish(Result<Reply> r);
};

// See Connection. Kept alive by its read loop until the socket is closed.
class ConnectionImpl final : public Connection {
 public:
  enum class Side { kClient, kServer };

  ConnectionImpl(EventLoop& loop, RpcContext& context, const Dispatcher* dispatcher, asio::ip::tcp::socket socket, Side side);
  ~ConnectionImpl() override;

  // Starts reading. A server's connection calls `ready` once, when the client has proved the key.
  void Start(std::function<void(const std::shared_ptr<Connection>&)> ready);
  // The client's side of the handshake.
  Task<Status> Handshake();

  PendingReply Call(pb::Method method, const google::protobuf::MessageLite& message, Payload payload, Duration timeout) override;
  void Close(const Error& why) override { Shut(why, false); }
  bool closed() const override { return closed_.load(std::memory_order_relaxed); }
  void OnClose(std::move_only_function<void(const Error&, bool)> callback) override;
  EventLoop& loop() override { return loop_; }
  RpcContext& context() override { return context_; }
  const std::string& peer() const override { return peer_; }
  const std::string& peer_host() const override { return peer_host_; }
  pb::Role peer_role() const override { return peer_role_; }
  const std::string& peer_name() const override { return peer_name_; }
  size_t queued_bytes() const override { return queued_bytes_; }
  SteadyTime last_received() const override { return last_received_; }

 protected:
  void SendResponse(uint64_t id, pb::Method method, ErrorCode status, const google::protobuf::MessageLite* message,
                    std::string_view raw, Payload payload, TxnId txn, size_t cost) override;

 private:
  enum class State { kHello, kProve, kReady };
  struct OutFrame {
    Buffer head;  // header and message
    Payload payload;
    size_t size = 0;
    bool response = false;
  };

  asio::awaitable<void> ReadLoop();
  asio::awaitable<Status> ReadPayload(Buffer& payload, size_t have);
  asio::awaitable<void> WaitForCredit();
  // Takes what is whole in the receive buffer; sets large_ when a payload must be read straight into its own memory.
  Status TakeFrames();
  void Deliver(const FrameHeader& header, Buffer message, Buffer payload);
  void DeliverRequest(const FrameHeader& header, Buffer message, Buffer payload);
  Status CheckPeerFrame(const FrameHeader& header);
  void ServeHandshake(Request request);
  Status ServeHello(const Request& request, pb::HelloResponse& response);
  Status ServeProve(const Request& request);

  void Enqueue(FrameHeader header, const google::protobuf::MessageLite* message, std::string_view raw, Payload payload);
  void ScheduleFlush();
  void Flush();
  void DropSent(size_t bytes);
  void Shut(const Error& why, bool clean);
  void ArmDeadlines();
  void ExpireCalls();
  bool OverCredit() const;

  EventLoop& loop_;
  RpcContext& context_;
  const Dispatcher* dispatcher_;
  asio::ip::tcp::socket socket_;
  const Side side_;
  State state_ = State::kHello;
  std::atomic<bool> closed_{false};
  FrameLimits limits_;

  std::string peer_, peer_host_, peer_name_;
  void NoteSuperseded() const;
  uint32_t peer_incarnation_ = 0;  // the highest that the other end has seen, as it says
  pb::Role peer_role_ = pb::ROLE_NONE;
  std::string client_nonce_, server_nonce_;
  std::function<void(const std::shared_ptr<Connection>&)> ready_;
  std::unique_ptr<EventLoop::Timer> handshake_timer_;

  Buffer in_;  // the receive buffer: [in_begin_, in_end_) is not yet taken
  size_t in_begin_ = 0, in_end_ = 0;
  // A frame whose payload is too large for the receive buffer.
  struct Large {
    FrameHeader header;
    Buffer message;
    Buffer payload;
    size_t have = 0;
  };
  std::optional<Large> large_;

  std::deque<OutFrame> out_;
  size_t out_offset_ = 0;    // bytes of out_.front() already sent
  size_t queued_bytes_ = 0;
  size_t queued_responses_ = 0;  // bytes of them in out_
  size_t request_cost_ = 0;      // bytes of requests being worked on
  size_t requests_ = 0;
  bool flush_scheduled_ = false;
  bool waiting_writable_ = false;
  asio::steady_timer credit_;  // never fires by itself: cancelled when credit comes back

  SteadyTime last_received_{};
  uint64_t next_id_ = 1;
  std::unordered_map<uint64_t, std::shared_ptr<PendingState>> pending_;
  std::unique_ptr<EventLoop::Timer> deadline_timer_;
  std::vector<std::move_only_function<void(const Error&, bool)>> on_close_;
  friend class shoal::Request;
};

}  // namespace shoal::rpc_internal
