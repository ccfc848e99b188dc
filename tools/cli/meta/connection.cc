#include "tools/cli/meta/connection.h"

#include <fmt/format.h>
#include <unistd.h>

#include "common/daemon/server_main.h"

namespace shoal::cli {

std::expected<std::unique_ptr<MetaConnection>, Failure> MetaConnection::Connect(const ClientSettings& settings,
                                                                                const std::string& verb) {
  auto addresses = settings.Addresses();
  if (!addresses) return std::unexpected(Failure::Usage(addresses.error().message));
  auto key = LoadKey(settings.key);
  if (!key) {
    return std::unexpected(
        Failure::Of(key.error(), "give --key FILE, or --config FILE of the cluster (shoal dev: DIR/shoal.conf)"));
  }
  std::unique_ptr<MetaConnection> made(new MetaConnection());
  made->context_.key = *key;
  made->context_.role = pb::ROLE_CLIENT;
  made->context_.name = fmt::format("shoal {} (process {})", verb, ::getpid());
  made->loop_.Start();
  Error last;
  for (const Address& address : *addresses) {
    made->loop_.Sync([&] { made->channel_ = std::make_unique<Channel>(made->loop_, made->context_, address); });
    auto connection = RunOn(made->loop_, made->channel_->Get(settings.patience, true));
    if (connection) {
      made->connection_ = *connection;
      return made;
    }
    last = {connection.error().code, fmt::format("metaserver {}: {}", address.ToString(), connection.error().message)};
    made->loop_.Sync([&] { made->channel_.reset(); });
    if (last.code == ErrorCode::kAuthFailed || last.code == ErrorCode::kWrongCluster) {
      return std::unexpected(Failure::Of(last, "check --key: it must be the key file of that cluster"));
    }
  }
  return std::unexpected(Failure::Unreachable(
      last,
      "start the cluster ('shoal dev start', or the shoal-metaserver service), or say where it is: --meta HOST:PORT"));
}

MetaConnection::~MetaConnection() {
  loop_.Sync([this] {
    connection_.reset();
    channel_.reset();
  });
  loop_.Stop();
}

ProgressLine::~ProgressLine() {
  if (width_ > 0) fmt::print(stderr, "\r{:{}}\r", "", width_);
}

void ProgressLine::Show(const std::string& text) {
  auto now = std::chrono::steady_clock::now();
  if (now < next_ || !::isatty(STDERR_FILENO)) return;
  next_ = now + 200ms;
  fmt::print(stderr, "\r{:{}}", text, width_);
  fflush(stderr);
  width_ = std::max(width_, text.size());
}

}  // namespace shoal::cli
