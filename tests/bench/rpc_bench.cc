// How fast a call through the RPC layer is, against a bare asio coroutine echo of the same bytes in the same run.
//
//   rpc_bench [SECONDS]      prints the median round trip of both, their ratio, and calls/s at depth 64
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "common/rpc/asio_loop.h"
#include "common/rpc/rpc.h"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include "common/proto/meta.pb.h"

namespace shoal {
namespace {

using Clock = std::chrono::steady_clock;
using asio::ip::tcp;
constexpr size_t kEchoBytes = 110;  // header and message of a LOOKUP

double Median(std::vector<double>& us) {
  std::nth_element(us.begin(), us.begin() + static_cast<long>(us.size() / 2), us.end());
  return us[us.size() / 2];
}

asio::awaitable<void> EchoServer(tcp::socket socket) {
  socket.set_option(tcp::no_delay(true));
  std::array<char, kEchoBytes> bytes;
  for (;;) {
    asio::error_code error;
    co_await asio::async_read(socket, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
    co_await asio::async_write(socket, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, error));
  }
}

asio::awaitable<void> EchoClient(tcp::socket& socket, Clock::time_point until, std::vector<double>& us) {
  std::array<char, kEchoBytes> bytes{};
  while (Clock::now() < until) {
    auto start = Clock::now();
    co_await asio::async_write(socket, asio::buffer(bytes), asio::use_awaitable);
    co_await asio::async_read(socket, asio::buffer(bytes), asio::use_awaitable);
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
}

// Both echo ends run on loops like ours (same yielding before sleep), so the ratio is the layer's own cost.
double BareEcho(double seconds) {
  EventLoop server("echo-server"), client("echo-client");
  tcp::acceptor acceptor(server.impl().io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  acceptor.async_accept([&](const asio::error_code&, tcp::socket socket) {
    asio::co_spawn(server.impl().io, EchoServer(std::move(socket)), asio::detached);
  });
  server.Start();
  std::vector<double> us;
  tcp::socket socket(client.impl().io);
  socket.connect(acceptor.local_endpoint());
  socket.set_option(tcp::no_delay(true));
  std::atomic<bool> done{false};
  auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  asio::co_spawn(client.impl().io, EchoClient(socket, until, us), [&](std::exception_ptr) { done = true; });
  client.Start();
  while (!done) std::this_thread::sleep_for(10ms);
  client.Stop();
  server.Stop();
  return Median(us);
}

Task<bool> Caller(std::shared_ptr<Connection> connection, Clock::time_point until, std::vector<double>* us) {
  pb::LookupRequest request;
  request.mutable_caller()->set_session(7);
  request.set_parent(1);
  request.set_name("some-file-name.txt");
  while (Clock::now() < until) {
    auto start = Clock::now();
    auto reply = co_await CallTyped<pb::AttrResponse>(connection, pb::LOOKUP, request, {}, 5s);
    if (!reply) co_return false;
    us->push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  co_return true;
}

Task<void> CallerTask(std::shared_ptr<Connection> connection, Clock::time_point until, std::vector<double>* us) {
  co_await Caller(std::move(connection), until, us);
}

Task<size_t> Depth(EventLoop* loop, std::shared_ptr<Connection> connection, int depth, double seconds, std::vector<double>* us) {
  auto until = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  TaskGroup group(*loop);
  for (int i = 0; i < depth; ++i) group.Spawn(CallerTask(connection, until, us));
  co_await group.Join();
  co_return us->size();
}

Task<Result<std::shared_ptr<Connection>>> Connect(Channel* channel) { co_return co_await channel->Get(5s); }

int Main(double seconds) {
  RpcContext server_context, client_context;
  server_context.key = client_context.key = ClusterKey::ForTest();
  Dispatcher dispatcher;
  dispatcher.On(pb::LOOKUP, [](Request request) {
    pb::LookupRequest lookup;
    if (!request.Parse(lookup)) return;
    pb::AttrResponse response;
    response.mutable_attr()->set_inode(lookup.parent());
    request.Answer(response);
  });
  EventLoop server_loop("server"), client_loop("client");
  server_loop.Start();
  client_loop.Start();
  RpcServer server({&server_loop}, server_context, dispatcher);
  if (auto status = server.Listen({"127.0.0.1", 0}); !status) return 1;
  std::unique_ptr<Channel> channel;
  client_loop.Sync([&] { channel = std::make_unique<Channel>(client_loop, client_context, Address{"127.0.0.1", server.port()}); });
  auto connection = RunOn(client_loop, Connect(channel.get()));
  if (!connection) {
    std::fprintf(stderr, "%s\n", ToString(connection.error()).c_str());
    return 1;
  }
  std::vector<double> ratios;
  for (int round = 0; round < 3; ++round) {
    double bare = BareEcho(seconds);
    std::vector<double> one, many;
    RunOn(client_loop, Depth(&client_loop, *connection, 1, seconds, &one));
    size_t calls = RunOn(client_loop, Depth(&client_loop, *connection, 64, seconds, &many));
    double ours = Median(one);
    ratios.push_back(ours / bare);
    std::printf("bare echo %.1f us, call %.1f us, ratio %.2f; %.0f calls/s at depth 64\n", bare, ours, ours / bare,
                static_cast<double>(calls) / seconds);
  }
  std::printf("median ratio %.2f\n", Median(ratios));
  client_loop.Sync([&] {
    *connection = nullptr;
    channel.reset();
  });
  server.Stop();
  return 0;
}

}  // namespace
}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc > 1 ? std::atof(argv[1]) : 1.0); }
