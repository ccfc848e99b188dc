// Servers: the client's connections to chunkservers.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "common/rpc/rpc.h"

namespace shoal::client {

// One connection to each chunkserver that was ever needed, and the memory of which ones failed lately. Owner: the
// engine; lives on its loop. Errors: kUnavailable.
class Servers {
 public:
  Servers(EventLoop& loop, RpcContext& context) : loop_(loop), context_(context) {}

  // The live connection or null.
  std::shared_ptr<Connection> Live(const std::string& address);
  // The live connection or a new one. An address that is empty fails at once.
  Task<Result<std::shared_ptr<Connection>>> Connect(std::string address, Duration timeout);
  // For `how_long` this server is nobody's first choice.
  void Avoid(const std::string& address, Duration how_long);
  bool Avoided(const std::string& address) const;
  // It answered well: it may be chosen again.
  void Praise(const std::string& address);
  void Close();

 private:
  struct Server {
    std::unique_ptr<Channel> channel;
    SteadyTime avoid_until{};
  };
  EventLoop& loop_;
  RpcContext& context_;
  std::unordered_map<std::string, Server> servers_;
  bool closed_ = false;
};

}  // namespace shoal::client
