#include "common/daemon/http.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <microhttpd.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace shoal {
namespace {

constexpr unsigned kMaxConnections = 256;
constexpr unsigned kTimeoutSeconds = 10;

// A listening socket on a loopback address, or why not.
Result<int> ListenOn(const Address& address, const std::string& option) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  int failed = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (failed) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("{} {}: can't resolve the host: {}", option, address.ToString(), gai_strerror(failed)));
  }
  std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  bool loopback = found->ai_family == AF_INET
                      ? (ntohl(reinterpret_cast<sockaddr_in*>(found->ai_addr)->sin_addr.s_addr) >> 24) == 127
                      : IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<sockaddr_in6*>(found->ai_addr)->sin6_addr);
  if (!loopback) {
    return Fail(ErrorCode::kNotPermitted,
                fmt::format("{} {} is beyond loopback: HTTP has no TLS and no password yet; use 127.0.0.1:{}", option,
                            address.ToString(), address.port));
  }
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Fail(ErrnoError(errno, "socket"));
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 128) != 0) {
    int error = errno;
    close(fd);
    if (error == EADDRINUSE) {
      return Fail(ErrorCode::kBusy, fmt::format("{} {}: the port is in use by another program; choose another with {}",
                                                option, address.ToString(), option));
    }
    return Fail(ErrnoError(error, fmt::format("{} {}", option, address.ToString())));
  }
  return fd;
}

}  // namespace

struct HttpServer::Impl {
  std::map<std::string, std::function<HttpAnswer()>> pages;
  MHD_Daemon* daemon = nullptr;

  static MHD_Result OnRequest(void* self, MHD_Connection* connection, const char* url, const char* method,
                              const char* version, const char* upload, size_t* upload_size, void** seen);
  HttpAnswer AnswerTo(const std::string& url, const std::string& method);
};

HttpAnswer HttpServer::Impl::AnswerTo(const std::string& url, const std::string& method) {
  if (method != "GET" && method != "HEAD") return {405, "text/plain", "only GET here\n"};
  auto page = pages.find(url);
  if (page != pages.end()) return page->second();
  std::string list = "not here; there are:\n";
  for (const auto& [path, unused] : pages) list += path + "\n";
  return {404, "text/plain", list};
}

MHD_Result HttpServer::Impl::OnRequest(void* self, MHD_Connection* connection, const char* url, const char* method,
                                       const char*, const char*, size_t* upload_size, void** seen) {
  static char mark;
  if (*seen == nullptr) {  // headers only so far
    *seen = &mark;
    return MHD_YES;
  }
  if (*upload_size != 0) {
    *upload_size = 0;
    return MHD_YES;
  }
  HttpAnswer answer = static_cast<Impl*>(self)->AnswerTo(url, method);
  MHD_Response* response =
      MHD_create_response_from_buffer(answer.body.size(), answer.body.data(), MHD_RESPMEM_MUST_COPY);
  if (!response) return MHD_NO;
  MHD_add_response_header(response, "Content-Type", answer.content_type.c_str());
  MHD_Result queued = MHD_queue_response(connection, answer.status, response);
  MHD_destroy_response(response);
  return queued;
}

HttpServer::HttpServer() : impl_(std::make_unique<Impl>()) {}
HttpServer::~HttpServer() { Stop(); }

void HttpServer::Route(const std::string& path, std::function<HttpAnswer()> page) { impl_->pages[path] = std::move(page); }

void HttpServer::Standard(const Metrics& metrics, std::function<Status()> health, std::function<std::string()> status) {
  Route("/metrics", [&metrics] { return HttpAnswer{200, "text/plain; version=0.0.4; charset=utf-8", metrics.Text()}; });
  Route("/healthz", [health = std::move(health)] {
    Status now = health();
    return now ? HttpAnswer{200, "text/plain", "ok\n"} : HttpAnswer{503, "text/plain", now.error().message + "\n"};
  });
  Route("/status", [status = std::move(status)] { return HttpAnswer{200, "application/json", status() + "\n"}; });
}

Status HttpServer::Start(const Address& address, const std::string& option) {
  TRY_ASSIGN(int fd, ListenOn(address, option));
  impl_->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, nullptr, nullptr, &Impl::OnRequest, impl_.get(),
                                   MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, kMaxConnections,
                                   MHD_OPTION_CONNECTION_TIMEOUT, kTimeoutSeconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                   static_cast<size_t>(32 << 10), MHD_OPTION_END);
  if (!impl_->daemon) {
    int error = errno;
    close(fd);
    return Fail(ErrnoError(error, option + " " + address.ToString() + ": can't start the HTTP thread"));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  port_ = ntohs(bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&bound)->sin_port
                                           : reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port);
  return {};
}

void HttpServer::Stop() {
  if (impl_->daemon) MHD_stop_daemon(std::exchange(impl_->daemon, nullptr));
}

}  // namespace shoal
