// HTTP on loopback: metrics, health and a status page of a server.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/metrics.h"
#include "common/result.h"
#include "common/rpc/rpc.h"

namespace shoal {

// What a page answers; a plain value.
struct HttpAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// GET pages on one thread of its own (libmicrohttpd's, with epoll, a limit of connections and time-outs: silent
// connections cost nothing but their place). Owner: the program's main object. Pages are called on that thread and
// must not block for long. Routes are set before Start.
class HttpServer {
 public:
  HttpServer();
  ~HttpServer();  // stops
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void Route(const std::string& path, std::function<HttpAnswer()> page);
  // /metrics, /healthz ("ok", or 503 with the reason from `health`) and /status (`status`, JSON).
  void Standard(const Metrics& metrics, std::function<Status()> health, std::function<std::string()> status);
  // Loopback only; kBusy when the port is in use. Port 0 picks one. `option` is named in errors ("--http").
  Status Start(const Address& address, const std::string& option);
  uint16_t port() const { return port_; }
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  uint16_t port_ = 0;
};

}  // namespace shoal
