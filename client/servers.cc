#include "client/servers.h"

#include "common/limits.h"
#include "common/log.h"

namespace shoal::client {

std::shared_ptr<Connection> Servers::Live(const std::string& address) {
  auto it = servers_.find(address);
  return it == servers_.end() || !it->second.channel ? nullptr : it->second.channel->current();
}

Task<Result<std::shared_ptr<Connection>>> Servers::Connect(std::string address, Duration timeout) {
  if (closed_) co_return Fail(ErrorCode::kCancelled, "the client is being stopped");
  if (address.empty()) co_return Fail(ErrorCode::kUnavailable, "the chunkserver is not known to live");
  Server& server = servers_[address];  // stays where it is: entries are never erased
  if (!server.channel) {
    Result<Address> parsed = Address::Parse(address, kChunkPort);
    if (!parsed) co_return Fail(std::move(parsed).error());
    server.channel = std::make_unique<Channel>(loop_, context_, *parsed);
  }
  Result<std::shared_ptr<Connection>> connection = co_await server.channel->Get(timeout);
  co_return connection;
}

void Servers::Avoid(const std::string& address, Duration how_long) {
  Server& server = servers_[address];
  auto now = std::chrono::steady_clock::now();
  if (server.avoid_until < now) LogInfo("chunkserver {} is avoided for a while", address);
  server.avoid_until = now + how_long;
}

bool Servers::Avoided(const std::string& address) const {
  auto it = servers_.find(address);
  return it != servers_.end() && it->second.avoid_until > std::chrono::steady_clock::now();
}

void Servers::Praise(const std::string& address) {
  auto it = servers_.find(address);
  if (it != servers_.end()) it->second.avoid_until = {};
}

void Servers::Close() {
  closed_ = true;
  for (auto& [address, server] : servers_) {
    if (server.channel) server.channel->Close();
  }
}

}  // namespace shoal::client
