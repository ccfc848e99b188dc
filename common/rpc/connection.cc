#include "common/rpc/connection.h"

#include <google/protobuf/message_lite.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>

#include "common/log.h"
#include "common/raise.h"
#include "common/rpc/auth.h"

namespace shoal {
namespace rpc_internal {
namespace {

constexpr size_t kReceiveBuffer = 32 << 10;
constexpr size_t kSmallPayload = 16 << 10;        // copied out of the receive buffer when it is there whole
constexpr FrameLimits kHandshakeLimits{4096, 0};
constexpr FrameLimits kReadyLimits{kMaxMessage, kMaxPayload};
constexpr Duration kHandshakeTimeout = 5s;
constexpr Duration kDeadlineTick = 20ms;
// A connection whose requests in work and unsent answers hold this much is not read from until some are done.
constexpr size_t kCreditBytes = 64 << 20;
constexpr size_t kCreditRequests = 4096;
constexpr int kMaxIovecs = 64;
constexpr uint32_t kProtocol = 1;

uint32_t MillisecondsLeft(Duration timeout) {
  auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(ms, 1, 3'600'000));
}

}  // namespace

void PendingState::Finish(Result<Reply> r) {
  if (result) return;
  result.emplace(std::move(r));
  if (waiter) loop->ResumeSoon(std::exchange(waiter, {}));
}

ConnectionImpl::ConnectionImpl(EventLoop& loop, RpcContext& context, const Dispatcher* dispatcher, asio::ip::tcp::socket socket, Side side)
    : loop_(loop),
      context_(context),
      dispatcher_(dispatcher),
      socket_(std::move(socket)),
      side_(side),
      limits_(kHandshakeLimits),
      credit_(loop.impl().io) {
  asio::error_code ignored;
  auto endpoint = socket_.remote_endpoint(ignored);
  peer_host_ = endpoint.address().to_string(ignored);
  peer_ = Address{peer_host_, endpoint.port()}.ToString();
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.non_blocking(true, ignored);
}

ConnectionImpl::~ConnectionImpl() = default;

void ConnectionImpl::Start(std::function<void(const std::shared_ptr<Connection>&)> ready) {
  ready_ = std::move(ready);
  in_ = Buffer::Allocate(kReceiveBuffer);
  auto self = std::static_pointer_cast<ConnectionImpl>(shared_from_this());
  handshake_timer_ = loop_.RunAfter(kHandshakeTimeout, [weak = std::weak_ptr(self)] {
    if (auto c = weak.lock()) c->Shut(Error{ErrorCode::kTimeout, "the handshake was not finished in time"}, false);
  });
  asio::co_spawn(
      loop_.impl().io, [](std::shared_ptr<ConnectionImpl> me) -> asio::awaitable<void> { co_await me->ReadLoop(); }(std::move(self)),
      asio::detached);
}

// ---- reading ----

asio::awaitable<void> ConnectionImpl::ReadLoop() {
  auto self = shared_from_this();
  Status status;
  bool clean = false;
  while (!closed() && status) {
    if (OverCredit()) co_await WaitForCredit();
    if (large_) {
      status = co_await ReadPayload(large_->payload, large_->have);
      if (!status) break;
      Large frame = std::move(*large_);
      large_.reset();
      Deliver(frame.header, std::move(frame.message), std::move(frame.payload));
      continue;
    }
    if (in_end_ == in_.size()) {  // make room: what is left moves to the front (less than a frame's head and message)
      std::memmove(in_.mutable_data(), in_.data() + in_begin_, in_end_ - in_begin_);
      in_end_ -= in_begin_;
      in_begin_ = 0;
    }
    asio::error_code error;
    size_t n = co_await socket_.async_read_some(asio::buffer(in_.mutable_data() + in_end_, in_.size() - in_end_),
                                                asio::redirect_error(asio::use_awaitable, error));
    if (error) {
      clean = error == asio::error::eof;
      status = Fail(ErrorCode::kUnavailable, clean ? "the other end closed the connection" : error.message());
      break;
    }
    in_end_ += n;
    status = TakeFrames();
  }
  if (!status && !closed()) Shut(status.error(), clean);
}

asio::awaitable<Status> ConnectionImpl::ReadPayload(Buffer& payload, size_t have) {
  while (have < payload.size()) {
    asio::error_code error;
    size_t n = co_await socket_.async_read_some(asio::buffer(payload.mutable_data() + have, payload.size() - have),
                                                asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return Fail(ErrorCode::kUnavailable, error.message());
    have += n;
  }
  co_return Status{};
}

asio::awaitable<void> ConnectionImpl::WaitForCredit() {
  while (OverCredit() && !closed()) {
    asio::error_code ignored;
    credit_.expires_at(asio::steady_timer::time_point::max());
    co_await credit_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

bool ConnectionImpl::OverCredit() const {
  return request_cost_ + queued_responses_ > kCreditBytes || requests_ > kCreditRequests;
}

Status ConnectionImpl::TakeFrames() {
  while (!closed() && !large_ && in_end_ - in_begin_ >= kHeaderSize) {
    const uint8_t* at = in_.data() + in_begin_;
    TRY_ASSIGN(FrameHeader header, DecodeHeader(at, limits_));
    size_t have = in_end_ - in_begin_ - kHeaderSize;
    size_t whole = size_t{header.message_size} + header.payload_size;
    bool small = header.message_size <= kSmallPayload / 2 && header.payload_size <= kSmallPayload;
    if (small && have < whole) return {};  // fits: wait for the rest
    Buffer message = Buffer::Allocate(header.message_size);
    size_t taken = std::min<size_t>(have, header.message_size);
    if (taken) std::memcpy(message.mutable_data(), at + kHeaderSize, taken);
    if (!small && taken < header.message_size) {
      // A large message: read it and its payload as one piece of memory, then cut it.
      Buffer both = Buffer::Allocate(whole);
      std::memcpy(both.mutable_data(), at + kHeaderSize, have);
      large_.emplace(Large{header, Buffer(), std::move(both), have});
      in_begin_ = in_end_ = 0;
      return {};
    }
    Buffer payload = Buffer::Allocate(header.payload_size);
    size_t rest = std::min<size_t>(have - taken, header.payload_size);
    if (rest) std::memcpy(payload.mutable_data(), at + kHeaderSize + taken, rest);
    in_begin_ += kHeaderSize + taken + rest;
    if (in_begin_ == in_end_) in_begin_ = in_end_ = 0;
    if (rest < header.payload_size) {
      TRY(CheckMessage(header, message.view()));
      large_.emplace(Large{header, std::move(message), std::move(payload), rest});
      return {};
    }
    Deliver(header, std::move(message), std::move(payload));
  }
  return {};
}

Status ConnectionImpl::CheckPeerFrame(const FrameHeader& header) {
  if (side_ == Side::kServer && state_ != State::kReady) return {};  // its role is only what it says
  if (peer_role_ == pb::ROLE_METASERVER && context_.role != pb::ROLE_METASERVER) {
    uint32_t known = context_.incarnation.load(std::memory_order_relaxed);
    if (header.incarnation < known) {
      return Fail(ErrorCode::kOldIncarnation, "the metaserver at " + peer_ + " has incarnation " + std::to_string(header.incarnation) +
                                                  ", but " + std::to_string(known) + " has been seen: it is not the current one");
    }
    RaiseTo(context_.incarnation, header.incarnation);
    RaiseTo(context_.txn, header.txn);
  }
  return {};
}

void ConnectionImpl::Deliver(const FrameHeader& header, Buffer message, Buffer payload) {
  if (message.size() != header.message_size) {  // read as one piece
    message = payload.Slice(0, header.message_size);
    payload = payload.Slice(header.message_size, header.payload_size);
  }
  Status status = CheckMessage(header, message.view());
  if (status) status = CheckPeerFrame(header);
  if (!status) return Shut(status.error(), false);
  peer_incarnation_ = std::max(peer_incarnation_, header.incarnation);
  last_received_ = std::chrono::steady_clock::now();
  if (header.kind == kRequestKind) return DeliverRequest(header, std::move(message), std::move(payload));
  auto it = pending_.find(header.id);
  if (it == pending_.end()) return;  // its caller has given up
  auto state = std::move(it->second);
  pending_.erase(it);
  if (header.status == 0) {
    state->Finish(Reply{std::move(message), std::move(payload), TxnId(header.txn)});
  } else {
    pb::ErrorDetail detail;
    (void)detail.ParseFromArray(message.data(), static_cast<int>(message.size()));
    state->Finish(Fail(ErrorFromWire(header.status), detail.message()));
  }
}

void ConnectionImpl::DeliverRequest(const FrameHeader& header, Buffer message, Buffer payload) {
  size_t cost = kHeaderSize + message.size() + payload.size() + 256;
  request_cost_ += cost;
  ++requests_;
  auto method = static_cast<pb::Method>(header.method);
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(header.status);
  Request request(shared_from_this(), header.id, method, deadline, std::move(message), std::move(payload), cost);
  if (state_ != State::kReady) {
    if (side_ == Side::kServer) return ServeHandshake(std::move(request));
    return Shut(Error{ErrorCode::kBadMessage, "a request before the handshake"}, false);
  }
  const Dispatcher::Handler* handler = dispatcher_ ? dispatcher_->Find(method) : nullptr;
  if (handler) return (*handler)(std::move(request));
  if (method == pb::PING) return request.Answer(pb::PingResponse());
  request.AnswerError(Error{ErrorCode::kUnknownMethod, "method " + std::to_string(header.method) + " is not known here"});
}

// ---- writing ----

void ConnectionImpl::Enqueue(FrameHeader header, const google::protobuf::MessageLite* message, std::string_view raw, Payload payload) {
  size_t message_size = message ? message->ByteSizeLong() : raw.size();
  size_t payload_size = PayloadSize(payload);
  CHECK(payload_size <= kMaxPayload && message_size <= kMaxMessage);
  OutFrame frame;
  frame.head = Buffer::Allocate(kHeaderSize + message_size);
  uint8_t* body = frame.head.mutable_data() + kHeaderSize;
  if (message) {
    message->SerializeWithCachedSizesToArray(body);
  } else if (!raw.empty()) {
    std::memcpy(body, raw.data(), raw.size());
  }
  header.incarnation = context_.incarnation.load(std::memory_order_relaxed);
  header.payload_size = static_cast<uint32_t>(payload_size);
  EncodeHeader(header, {reinterpret_cast<const char*>(body), message_size}, frame.head.mutable_data());
  frame.payload = std::move(payload);
  frame.size = kHeaderSize + message_size + payload_size;
  frame.response = header.kind == kResponseKind;
  queued_bytes_ += frame.size;
  if (frame.response) queued_responses_ += frame.size;
  out_.push_back(std::move(frame));
  ScheduleFlush();
}

void ConnectionImpl::ScheduleFlush() {
  if (flush_scheduled_ || waiting_writable_) return;
  flush_scheduled_ = true;
  loop_.impl().AtEndOfRound([self = shared_from_this(), this] {
    flush_scheduled_ = false;
    Flush();
  });
}

void ConnectionImpl::Flush() {
  while (!closed() && !out_.empty()) {
    iovec parts[kMaxIovecs];
    int count = 0;
    size_t skip = out_offset_;
    auto add = [&](const Buffer& b) {
      if (skip >= b.size()) {
        skip -= b.size();
      } else if (count < kMaxIovecs) {
        parts[count++] = {const_cast<uint8_t*>(b.data()) + skip, b.size() - skip};
        skip = 0;
      }
    };
    for (auto frame = out_.begin(); frame != out_.end() && count < kMaxIovecs; ++frame) {
      add(frame->head);
      for (const Buffer& part : frame->payload) add(part);
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = static_cast<size_t>(count);
    ssize_t n = sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      DropSent(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      waiting_writable_ = true;
      socket_.async_wait(asio::ip::tcp::socket::wait_write, [self = shared_from_this(), this](const asio::error_code& error) {
        waiting_writable_ = false;
        if (!error) Flush();
      });
      return;
    } else if (errno != EINTR) {
      return Shut(ErrnoError(errno, "cannot send"), false);
    }
  }
}

void ConnectionImpl::DropSent(size_t bytes) {
  queued_bytes_ -= bytes;
  bytes += out_offset_;
  while (!out_.empty() && bytes >= out_.front().size) {
    bytes -= out_.front().size;
    if (out_.front().response) queued_responses_ -= out_.front().size;
    out_.pop_front();
  }
  out_offset_ = bytes;
  if (!OverCredit()) credit_.cancel();
}

PendingReply ConnectionImpl::Call(pb::Method method, const google::protobuf::MessageLite& message, Payload payload, Duration timeout) {
  auto state = std::make_shared<PendingState>();
  state->loop = &loop_;
  state->deadline = std::chrono::steady_clock::now() + timeout;
  if (closed()) {
    state->Finish(Fail(ErrorCode::kUnavailable, "the connection to " + peer_ + " was lost"));
  } else if (size_t size = message.ByteSizeLong(); size > kMaxMessage || PayloadSize(payload) > kMaxPayload) {
    state->Finish(Fail(ErrorCode::kTooLarge, "a request of " + std::to_string(size + PayloadSize(payload)) + " bytes"));
  } else {
    FrameHeader header;
    header.kind = kRequestKind;
    header.method = static_cast<uint16_t>(method);
    header.id = next_id_++;
    header.txn = context_.txn.load(std::memory_order_relaxed);
    header.status = MillisecondsLeft(timeout);
    pending_.emplace(header.id, state);
    Enqueue(header, &message, {}, std::move(payload));
    ArmDeadlines();
  }
  return PendingReply(std::move(state));
}

void ConnectionImpl::SendResponse(uint64_t id, pb::Method method, ErrorCode status, const google::protobuf::MessageLite* message,
                                  std::string_view raw, Payload payload, TxnId txn, size_t cost) {
  request_cost_ -= cost;
  --requests_;
  if (!OverCredit()) credit_.cancel();
  if (closed()) return;
  pb::ErrorDetail detail;
  size_t size = message ? message->ByteSizeLong() : raw.size();
  if (size > kMaxMessage || PayloadSize(payload) > kMaxPayload) {
    detail.set_message("the answer is larger than a frame may be");
    message = &detail;
    payload.clear();
    status = ErrorCode::kTooLarge;
  }
  FrameHeader header;
  header.kind = kResponseKind;
  header.method = static_cast<uint16_t>(method);
  header.id = id;
  header.txn = txn.value;
  header.status = static_cast<uint32_t>(status);
  Enqueue(header, message, raw, std::move(payload));
}

// ---- the end ----

void ConnectionImpl::Shut(const Error& why, bool clean) {
  if (closed_.exchange(true)) return;
  auto self = shared_from_this();
  handshake_timer_.reset();
  deadline_timer_.reset();
  if (state_ != State::kReady && why.code != ErrorCode::kUnavailable) {
    LogWarning("connection with {} refused: {}", peer_, shoal::ToString(why));
  } else {
    LogDebug("connection with {} ended: {}", peer_, shoal::ToString(why));
  }
  asio::error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  credit_.cancel();
  out_.clear();
  queued_bytes_ = queued_responses_ = out_offset_ = 0;
  auto pending = std::move(pending_);
  pending_.clear();
  bool refused = why.code == ErrorCode::kAuthFailed || why.code == ErrorCode::kWrongCluster || why.code == ErrorCode::kOldIncarnation;
  for (auto& [id, state] : pending) {
    state->Finish(refused ? Fail(why) : Fail(ErrorCode::kUnavailable, "the connection to " + peer_ + " was lost: " + why.message));
  }
  ready_ = nullptr;
  auto callbacks = std::move(on_close_);
  on_close_.clear();
  for (auto& callback : callbacks) callback(why, clean);
  attachment.reset();
}

void ConnectionImpl::OnClose(std::move_only_function<void(const Error&, bool)> callback) {
  if (closed()) return callback(Error{ErrorCode::kUnavailable, "the connection was lost"}, false);
  on_close_.push_back(std::move(callback));
}

void ConnectionImpl::ArmDeadlines() {
  if (deadline_timer_ || closed()) return;
  deadline_timer_ = loop_.RunAfter(kDeadlineTick, [this] { ExpireCalls(); });
}

void ConnectionImpl::ExpireCalls() {
  auto self = shared_from_this();
  auto now = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<PendingState>> expired;
  std::erase_if(pending_, [&](auto& entry) {
    if (entry.second->deadline > now) return false;
    expired.push_back(std::move(entry.second));
    return true;
  });
  for (auto& state : expired) state->Finish(Fail(ErrorCode::kTimeout, "no answer from " + peer_ + " in time"));
  // The timer that is running now is replaced or dropped, after this callback.
  auto fired = std::move(deadline_timer_);
  if (!pending_.empty()) ArmDeadlines();
}

// ---- handshake ----

Task<Status> ConnectionImpl::Handshake() {
  auto self = std::static_pointer_cast<ConnectionImpl>(shared_from_this());
  pb::HelloRequest hello;
  hello.set_role(context_.role);
  hello.set_name(context_.name);
  hello.set_cluster_uuid(context_.cluster_uuid);
  hello.set_protocol(kProtocol);
  client_nonce_ = MakeNonce();
  hello.set_nonce(client_nonce_);
  auto greeted = co_await CallTyped<pb::HelloResponse>(self, pb::HELLO, hello, {}, kHandshakeTimeout);
  if (!greeted) co_return Fail(std::move(greeted).error());
  const pb::HelloResponse& answer = greeted->message;
  std::string expected = ServerProof(context_.key, client_nonce_, answer.nonce(), context_.role);
  if (!SameProof(expected, answer.proof())) {
    Error error{ErrorCode::kAuthFailed, "the server at " + peer_ + " has another cluster key: use the key file of its cluster"};
    Shut(error, false);
    co_return Fail(error);
  }
  peer_role_ = answer.role();
  peer_name_ = answer.name();
  peer_ += " (" + peer_name_ + ")";
  pb::ProveRequest prove;
  prove.set_proof(ClientProof(context_.key, client_nonce_, answer.nonce(), context_.role));
  auto proved = co_await CallTyped<pb::ProveResponse>(self, pb::PROVE, prove, {}, kHandshakeTimeout);
  if (!proved) co_return Fail(std::move(proved).error());
  state_ = State::kReady;
  limits_ = kReadyLimits;
  handshake_timer_.reset();
  co_return Status{};
}

void ConnectionImpl::ServeHandshake(Request request) {
  if (request.method() == pb::HELLO && state_ == State::kHello) {
    pb::HelloResponse response;
    Status status = ServeHello(request, response);
    if (!status) {
      request.AnswerError(status.error());
      Flush();
      return Shut(status.error(), false);
    }
    state_ = State::kProve;
    return request.Answer(response);
  }
  if (request.method() == pb::PROVE && state_ == State::kProve) {
    Status status = ServeProve(request);
    if (!status) {
      request.AnswerError(status.error());
      Flush();
      return Shut(status.error(), false);
    }
    state_ = State::kReady;
    limits_ = kReadyLimits;
    handshake_timer_.reset();
    pb::ProveResponse response;
    response.set_cluster_uuid(context_.cluster_uuid);
    request.Answer(response);
    if (auto ready = std::exchange(ready_, nullptr)) ready(shared_from_this());
    return;
  }
  Error error{ErrorCode::kAuthFailed, "a request before the cluster key was proved"};
  request.AnswerError(error);
  Flush();
  Shut(error, false);
}

Status ConnectionImpl::ServeHello(const Request& request, pb::HelloResponse& response) {
  pb::HelloRequest hello;
  TRY(request.Parse(hello));
  if (hello.nonce().size() != kNonceSize) return Fail(ErrorCode::kAuthFailed, "the nonce has the wrong size");
  if (!hello.cluster_uuid().empty() && !context_.cluster_uuid.empty() && hello.cluster_uuid() != context_.cluster_uuid) {
    return Fail(ErrorCode::kWrongCluster, hello.name() + " belongs to cluster " + hello.cluster_uuid() + "; " + context_.name + " to " + context_.cluster_uuid);
  }
  peer_role_ = hello.role();
  peer_name_ = hello.name().substr(0, 200);
  client_nonce_ = hello.nonce();
  server_nonce_ = MakeNonce();
  response.set_role(context_.role);
  response.set_name(context_.name);
  response.set_cluster_uuid(context_.cluster_uuid);
  response.set_nonce(server_nonce_);
  response.set_proof(ServerProof(context_.key, client_nonce_, server_nonce_, peer_role_));
  response.set_protocol(kProtocol);
  return {};
}

Status ConnectionImpl::ServeProve(const Request& request) {
  pb::ProveRequest prove;
  TRY(request.Parse(prove));
  if (!SameProof(prove.proof(), ClientProof(context_.key, client_nonce_, server_nonce_, peer_role_))) {
    return Fail(ErrorCode::kAuthFailed, "the other end has another cluster key");
  }
  peer_ += " (" + peer_name_ + ")";
  NoteSuperseded();
  return {};
}

// A metaserver that was replaced hears of it from those who know better, before they go away.
void ConnectionImpl::NoteSuperseded() const {
  if (context_.role != pb::ROLE_METASERVER || peer_incarnation_ <= context_.incarnation.load()) return;
  static std::atomic<uint32_t> said{0};
  if (said.exchange(peer_incarnation_) == peer_incarnation_) return;
  LogError("{} has seen incarnation {} of the metadata, this metaserver has {}: it was replaced or restored elsewhere, stop it",
           peer_, peer_incarnation_, context_.incarnation.load());
}

}  // namespace rpc_internal

// ---- Request, PendingReply ----

Request::Request(std::shared_ptr<Connection> connection, uint64_t id, pb::Method method, SteadyTime deadline, Buffer message,
                 Buffer payload, size_t cost)
    : connection_(std::move(connection)),
      id_(id),
      method_(method),
      deadline_(deadline),
      message_(std::move(message)),
      payload_(std::move(payload)),
      cost_(cost) {}

Request::Request(Request&& other) noexcept = default;

Request::~Request() {
  if (connection_) AnswerError(Error{ErrorCode::kInternal, "the request was dropped"});
}

Status Request::Parse(google::protobuf::MessageLite& into) const {
  if (into.ParseFromArray(message_.data(), static_cast<int>(message_.size()))) return {};
  return Fail(ErrorCode::kBadMessage, "not a " + into.GetTypeName());
}

void Request::Answer(const google::protobuf::MessageLite& message, Payload payload, TxnId txn) {
  auto connection = std::exchange(connection_, nullptr);
  CHECK(connection != nullptr);
  connection->SendResponse(id_, method_, ErrorCode::kOk, &message, {}, std::move(payload), txn, cost_);
}

void Request::AnswerError(const Error& error, TxnId txn) {
  auto connection = std::exchange(connection_, nullptr);
  CHECK(connection != nullptr);
  pb::ErrorDetail detail;
  detail.set_message(error.message);
  connection->SendResponse(id_, method_, error.code, &detail, {}, {}, txn, cost_);
}

void Request::AnswerRaw(ErrorCode status, std::string_view message, TxnId txn) {
  auto connection = std::exchange(connection_, nullptr);
  CHECK(connection != nullptr);
  connection->SendResponse(id_, method_, status, nullptr, message, {}, txn, cost_);
}

bool PendingReply::await_ready() const noexcept { return state_->result.has_value(); }
void PendingReply::await_suspend(std::coroutine_handle<> h) noexcept { state_->waiter = h; }
Result<Reply> PendingReply::await_resume() { return std::move(*state_->result); }

Status ParseReply(const Reply& reply, google::protobuf::MessageLite& into) {
  if (into.ParseFromArray(reply.message.data(), static_cast<int>(reply.message.size()))) return {};
  return Fail(ErrorCode::kBadMessage, "the answer is not a " + into.GetTypeName());
}

}  // namespace shoal
