#include "common/daemon/http.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>

namespace shoal {
namespace {

int ConnectTo(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  timeval limit{10, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

std::string Ask(uint16_t port, const std::string& request) {
  int fd = ConnectTo(port);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char bytes[4096];
  for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, 0)) > 0;) answer.append(bytes, n);
  close(fd);
  return answer;
}

std::string Get(uint16_t port, const std::string& path) {
  return Ask(port, "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
}

TEST(Http, ServesMetricsHealthAndStatus) {
  Metrics metrics;
  metrics.counter("shoal_test_total", "Help.").Add(3);
  std::atomic<bool> sick = false;
  HttpServer server;
  server.Standard(
      metrics, [&]() -> Status { return sick ? Fail(ErrorCode::kIo, "the disk is gone") : Status{}; }, [] { return std::string("{\"a\": 1}"); });
  ASSERT_TRUE(server.Start({"127.0.0.1", 0}, "--http"));
  EXPECT_NE(Get(server.port(), "/metrics").find("shoal_test_total 3\n"), std::string::npos);
  EXPECT_NE(Get(server.port(), "/healthz").find(" 200 "), std::string::npos);
  EXPECT_NE(Get(server.port(), "/status").find("{\"a\": 1}"), std::string::npos);
  EXPECT_NE(Get(server.port(), "/nothing").find(" 404 "), std::string::npos);
  EXPECT_NE(Ask(server.port(), "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc").find(" 405 "),
            std::string::npos);
  sick = true;
  std::string health = Get(server.port(), "/healthz");
  EXPECT_NE(health.find(" 503 "), std::string::npos);
  EXPECT_NE(health.find("the disk is gone"), std::string::npos);
}

TEST(Http, SilentAndBabblingConnectionsDoNotStopIt) {
  Metrics metrics;
  HttpServer server;
  server.Standard(metrics, [] { return Status{}; }, [] { return std::string("{}"); });
  ASSERT_TRUE(server.Start({"127.0.0.1", 0}, "--http"));
  std::vector<int> silent;
  for (int i = 0; i < 64; ++i) silent.push_back(ConnectTo(server.port()));
  std::string noise(100000, '\xff');
  for (int i = 0; i < 8; ++i) {
    int fd = ConnectTo(server.port());
    [[maybe_unused]] ssize_t n = send(fd, noise.data(), noise.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    silent.push_back(fd);
  }
  EXPECT_NE(Get(server.port(), "/healthz").find(" 200 "), std::string::npos);
  for (int fd : silent) close(fd);
}

TEST(Http, RefusesAPortInUseAndAddressesBeyondLoopback) {
  HttpServer first, second, third;
  ASSERT_TRUE(first.Start({"127.0.0.1", 0}, "--http"));
  Status busy = second.Start({"127.0.0.1", first.port()}, "--http");
  ASSERT_FALSE(busy);
  EXPECT_EQ(busy.error().code, ErrorCode::kBusy);
  EXPECT_NE(busy.error().message.find("--http 127.0.0.1:" + std::to_string(first.port())), std::string::npos);
  Status beyond = third.Start({"0.0.0.0", 0}, "--http");
  ASSERT_FALSE(beyond);
  EXPECT_EQ(beyond.error().code, ErrorCode::kNotPermitted);
  EXPECT_NE(beyond.error().message.find("TLS"), std::string::npos);
}

}  // namespace
}  // namespace shoal
