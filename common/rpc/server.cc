#include <mutex>
#include <set>

#include "common/log.h"
#include "common/rpc/connection.h"

#include <asio/ip/tcp.hpp>

namespace shoal {
namespace {

using asio::ip::tcp;
using rpc_internal::ConnectionImpl;

// Connections that have not proved the key yet, over all of a server: more are closed at once.
constexpr size_t kMaxUnproved = 256;

Result<tcp::endpoint> LoopbackEndpoint(const Address& address) {
  std::string host = address.host == "localhost" ? "127.0.0.1" : address.host;
  asio::error_code error;
  auto ip = asio::ip::make_address(host, error);
  if (error) return Fail(ErrorCode::kInvalidArgument, "cannot listen on '" + address.host + "': give an IP address");
  if (!ip.is_loopback()) {
    return Fail(ErrorCode::kInvalidArgument, "cannot listen on " + address.ToString() +
                                                 ": without TLS (option --tls-cert, not available in this version) only loopback "
                                                 "addresses are allowed; use --listen 127.0.0.1:" + std::to_string(address.port));
  }
  return tcp::endpoint(ip, address.port);
}

}  // namespace

// Connections are kept weakly: each lives by its own read loop. `mutex` guards what all loops touch.
struct RpcServer::Impl : std::enable_shared_from_this<RpcServer::Impl> {
  Impl(std::vector<EventLoop*> l, RpcContext& c, const Dispatcher& d)
      : loops(std::move(l)), context(c), dispatcher(d), acceptor(loops[0]->impl().io), pause(loops[0]->impl().io) {}

  std::vector<EventLoop*> loops;
  RpcContext& context;
  const Dispatcher& dispatcher;
  tcp::acceptor acceptor;
  asio::steady_timer pause;
  uint16_t port = 0;
  size_t next_loop = 0;
  std::function<void(const std::shared_ptr<Connection>&)> on_connection;
  std::atomic<bool> stopped{false};
  std::atomic<size_t> unproved{0};
  std::mutex mutex;
  std::map<ConnectionImpl*, std::weak_ptr<ConnectionImpl>> connections;

  void Accept() {
    EventLoop* loop = loops[next_loop++ % loops.size()];
    acceptor.async_accept(loop->impl().io, [self = shared_from_this(), loop](const asio::error_code& error, tcp::socket socket) {
      if (self->stopped || error == asio::error::operation_aborted) return;
      if (error) {  // out of descriptors: try again when some may be free
        LogWarning("cannot accept a connection on port {}: {}", self->port, error.message());
        self->pause.expires_after(100ms);
        self->pause.async_wait([self](const asio::error_code& e) {
          if (!e && !self->stopped) self->Accept();
        });
        return;
      }
      if (self->unproved.load() < kMaxUnproved) {
        self->unproved++;
        auto shared = std::make_shared<tcp::socket>(std::move(socket));
        loop->Post([self, loop, shared] { self->Take(*loop, std::move(*shared)); });
      }
      self->Accept();
    });
  }

  void Take(EventLoop& loop, tcp::socket socket) {
    auto connection = std::make_shared<ConnectionImpl>(loop, context, &dispatcher, std::move(socket), ConnectionImpl::Side::kServer);
    {
      std::lock_guard lock(mutex);
      connections[connection.get()] = connection;
    }
    auto proved = std::make_shared<bool>(false);
    connection->OnClose([self = shared_from_this(), raw = connection.get(), proved](const Error&, bool) {
      if (!*proved) self->unproved--;
      std::lock_guard lock(self->mutex);
      self->connections.erase(raw);
    });
    connection->Start([self = shared_from_this(), proved](const std::shared_ptr<Connection>& ready) {
      *proved = true;
      self->unproved--;
      if (self->on_connection) self->on_connection(ready);
    });
    if (stopped) connection->Close(Error{ErrorCode::kCancelled, "the server is stopping"});
  }
};

RpcServer::RpcServer(std::vector<EventLoop*> loops, RpcContext& context, const Dispatcher& dispatcher)
    : impl_(std::make_shared<Impl>(std::move(loops), context, dispatcher)) {}

RpcServer::~RpcServer() { Stop(); }

Status RpcServer::Listen(const Address& address) {
  TRY_ASSIGN(tcp::endpoint endpoint, LoopbackEndpoint(address));
  asio::error_code error;
  impl_->acceptor.open(endpoint.protocol(), error);
  if (!error) impl_->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) impl_->acceptor.bind(endpoint, error);
  if (!error) impl_->acceptor.listen(1024, error);
  if (error) {
    ErrorCode code = error == asio::error::address_in_use ? ErrorCode::kBusy : ErrorCode::kIo;
    return Fail(code, "cannot listen on " + address.ToString() + ": " + error.message() +
                          (code == ErrorCode::kBusy ? " (another process has the port; choose one with --listen HOST:PORT)" : ""));
  }
  impl_->port = impl_->acceptor.local_endpoint(error).port();
  impl_->loops[0]->Post([impl = impl_] { impl->Accept(); });
  return {};
}

uint16_t RpcServer::port() const { return impl_->port; }

void RpcServer::OnConnection(std::function<void(const std::shared_ptr<Connection>&)> callback) {
  impl_->on_connection = std::move(callback);
}

void RpcServer::Stop() {
  if (impl_->stopped.exchange(true)) return;
  if (impl_->port == 0) return;
  impl_->loops[0]->Sync([this] {
    asio::error_code ignored;
    impl_->acceptor.close(ignored);
    impl_->pause.cancel();
  });
  for (EventLoop* loop : impl_->loops) {
    loop->Sync([this, loop] {
      std::vector<std::shared_ptr<ConnectionImpl>> mine;
      {
        std::lock_guard lock(impl_->mutex);
        for (auto& [raw, weak] : impl_->connections) {
          if (auto c = weak.lock(); c && &c->loop() == loop) mine.push_back(std::move(c));
        }
      }
      for (auto& c : mine) c->Close(Error{ErrorCode::kCancelled, "the server is stopping"});
    });
  }
}

}  // namespace shoal
