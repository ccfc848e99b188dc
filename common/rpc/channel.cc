#include "common/log.h"
#include "common/rpc/connection.h"

#include <asio/ip/tcp.hpp>

namespace shoal {
namespace {

constexpr Duration kFirstBackoff = 10ms;
constexpr Duration kMaxBackoff = 300ms;
constexpr Duration kConnectTimeout = 3s;

using asio::ip::tcp;

// One TCP connect (with name resolution) as an awaitable Result, bounded by kConnectTimeout. On the loop.
struct ConnectAttempt : std::enable_shared_from_this<ConnectAttempt> {
  ConnectAttempt(EventLoop& l, const Address& a) : loop(l), address(a), resolver(l.impl().io), socket(l.impl().io), done(l) {}

  void Start() {
    timer = loop.RunAfter(kConnectTimeout, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->Fail("no answer in time");
    });
    resolver.async_resolve(address.host, std::to_string(address.port),
                           [self = shared_from_this()](const asio::error_code& error, const tcp::resolver::results_type& found) {
                             if (error) return self->Fail(error.message());
                             for (const auto& entry : found) self->endpoints.push_back(entry.endpoint());
                             self->TryNext();
                           });
  }

  void TryNext() {
    if (done.is_set()) return;
    if (next == endpoints.size()) return Fail(last_error.empty() ? "no address" : last_error);
    asio::error_code ignored;
    socket.close(ignored);
    socket.async_connect(endpoints[next++], [self = shared_from_this()](const asio::error_code& error) {
      if (error) {
        self->last_error = error.message();
        return self->TryNext();
      }
      self->timer.reset();
      self->done.Set(Status{});
    });
  }

  void Fail(const std::string& why) {
    done.Set(shoal::Fail(ErrorCode::kUnavailable, "cannot connect to " + address.ToString() + ": " + why));
    asio::error_code ignored;
    socket.close(ignored);
    resolver.cancel();
    timer.reset();
  }

  EventLoop& loop;
  Address address;
  tcp::resolver resolver;
  tcp::socket socket;
  std::vector<tcp::endpoint> endpoints;
  size_t next = 0;
  std::string last_error;
  std::unique_ptr<EventLoop::Timer> timer;
  OneShot<Status> done;
};

}  // namespace

struct Channel::Impl : std::enable_shared_from_this<Channel::Impl> {
  Impl(EventLoop& l, RpcContext& c, Address a, const Dispatcher* d)
      : loop(l), context(c), address(std::move(a)), dispatcher(d), changed(l), attempts(l) {}

  EventLoop& loop;
  RpcContext& context;
  Address address;
  const Dispatcher* dispatcher;
  std::function<Task<Status>(std::shared_ptr<Connection>)> on_connect;

  std::shared_ptr<Connection> live;
  std::shared_ptr<ConnectAttempt> connecting;
  bool attempt_running = false;
  bool closed = false;
  Duration backoff{0};
  SteadyTime not_before{};
  Error last_error;
  WaitList changed;  // woken when an attempt has ended
  TaskGroup attempts;

  // Runs one attempt; keeps the Impl alive by `self`.
  static Task<void> Attempt(std::shared_ptr<Impl> self) {
    Result<std::shared_ptr<Connection>> made = co_await Connect(self);
    self->attempt_running = false;
    self->connecting.reset();
    if (self->closed) {
      Error why{ErrorCode::kCancelled, "closed"};
      if (made) (*made)->Close(why);
    } else if (made) {
      self->live = *made;
      self->backoff = {};
    } else {
      self->last_error = made.error();
      self->backoff = std::clamp(self->backoff * 2, kFirstBackoff, kMaxBackoff);
      self->not_before = std::chrono::steady_clock::now() + self->backoff;
    }
    self->changed.WakeAll();
  }

  static Task<Result<std::shared_ptr<Connection>>> Connect(std::shared_ptr<Impl> self) {
    auto attempt = std::make_shared<ConnectAttempt>(self->loop, self->address);
    self->connecting = attempt;
    attempt->Start();
    Status connected = co_await attempt->done;
    if (!connected) co_return Fail(std::move(connected).error());
    if (self->closed) co_return Fail(ErrorCode::kCancelled, "closed");
    auto connection = std::make_shared<rpc_internal::ConnectionImpl>(self->loop, self->context, self->dispatcher, std::move(attempt->socket),
                                                                     rpc_internal::ConnectionImpl::Side::kClient);
    connection->Start(nullptr);
    Status ready = co_await connection->Handshake();
    if (ready && self->on_connect) {
      std::shared_ptr<Connection> base = connection;
      ready = co_await self->on_connect(base);
    }
    if (!ready) {
      connection->Close(ready.error());
      co_return Fail(std::move(ready).error());
    }
    connection->OnClose([weak = std::weak_ptr(self)](const Error&, bool) {
      if (auto impl = weak.lock()) impl->live.reset();
    });
    std::shared_ptr<Connection> result = connection;
    if (result->closed()) co_return Fail(ErrorCode::kUnavailable, "the connection to " + self->address.ToString() + " was lost");
    co_return result;
  }

  void StartAttempt() {
    attempt_running = true;
    attempts.Spawn(Attempt(shared_from_this()));
  }
};

Channel::Channel(EventLoop& loop, RpcContext& context, Address address, const Dispatcher* dispatcher) {
  auto shared = std::make_shared<Impl>(loop, context, std::move(address), dispatcher);
  impl_ = std::move(shared);
}

Channel::~Channel() { Close(); }

std::shared_ptr<Connection> Channel::current() const { return impl_->live && !impl_->live->closed() ? impl_->live : nullptr; }

void Channel::OnConnect(std::function<Task<Status>(std::shared_ptr<Connection>)> callback) { impl_->on_connect = std::move(callback); }

const Address& Channel::address() const { return impl_->address; }

void Channel::Close() {
  impl_->closed = true;
  if (impl_->connecting) impl_->connecting->Fail("closed");
  if (auto live = std::exchange(impl_->live, nullptr)) live->Close(Error{ErrorCode::kCancelled, "closed here"});
}

Task<Result<std::shared_ptr<Connection>>> Channel::Get(Duration timeout, bool wait) {
  auto impl = impl_;
  auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_ptr<EventLoop::Timer> alarm;
  for (;;) {
    if (impl->live && !impl->live->closed()) co_return impl->live;
    if (impl->closed) co_return Fail(ErrorCode::kCancelled, "the channel to " + impl->address.ToString() + " is closed");
    auto now = std::chrono::steady_clock::now();
    if (now >= deadline) {
      std::string why = impl->last_error.message.empty() ? "cannot connect to " + impl->address.ToString() : impl->last_error.message;
      co_return Fail(ErrorCode::kUnavailable, std::move(why));
    }
    if (!impl->attempt_running && now < impl->not_before) {
      Error error = impl->last_error;
      if (!wait || error.code == ErrorCode::kAuthFailed || error.code == ErrorCode::kWrongCluster) co_return Fail(error);
      co_await impl->loop.Sleep(std::min<Duration>(impl->not_before - now, deadline - now));
      continue;
    }
    if (!impl->attempt_running) impl->StartAttempt();
    if (!impl->attempt_running) continue;
    if (!alarm) alarm = impl->loop.RunAfter(deadline - now, [impl] { impl->changed.WakeAll(); });
    co_await impl->changed.Wait();
    if (!impl->live && !impl->attempt_running && !wait && !impl->closed) co_return Fail(impl->last_error);
  }
}

}  // namespace shoal
