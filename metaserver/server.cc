#include "metaserver/server.h"

#include "common/event_loop.h"
#include "common/log.h"
#include "common/rpc/rpc.h"
#include "metaserver/core.h"

namespace shoal {

// In the order in which they are made; taken down by Stop.
struct MetaServer::Impl {
  explicit Impl(MetaServerOptions o) : options(std::move(o)), loop("metaserver") {}
  MetaServerOptions options;
  Metrics metrics;
  RpcContext rpc;
  Dispatcher dispatcher;
  EventLoop loop;
  std::unique_ptr<meta::Core> core;
  std::unique_ptr<RpcServer> server;
  bool running = false;
};

MetaServer::MetaServer(MetaServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

MetaServer::~MetaServer() { Stop(); }

Status MetaServer::Start() {
  Impl& s = *impl_;
  s.rpc.key = s.options.key;
  s.rpc.role = pb::ROLE_METASERVER;
  s.rpc.name = s.options.name;
  s.loop.Start();
  s.core = std::make_unique<meta::Core>(s.loop, s.options, s.metrics, s.rpc, s.dispatcher);
  Status started = s.core->Start(meta::MakeChunkService);
  if (started) {
    s.server = std::make_unique<RpcServer>(std::vector<EventLoop*>{&s.loop}, s.rpc, s.dispatcher);
    started = s.server->Listen(s.options.listen);
  }
  s.running = true;
  if (!started) {
    Stop();
    return started;
  }
  LogInfo("metaserver of cluster {} serves on port {}", s.rpc.cluster_uuid, s.server->port());
  return {};
}

void MetaServer::Stop() {
  Impl& s = *impl_;
  if (!s.running) return;
  s.running = false;
  if (s.server) s.server->Stop();
  s.core->Stop();
  s.loop.Stop();
}

uint16_t MetaServer::port() const { return impl_->server->port(); }
const std::string& MetaServer::cluster_uuid() const { return impl_->rpc.cluster_uuid; }
Metrics& MetaServer::metrics() { return impl_->metrics; }

Status MetaServer::Health() const {
  Status health;
  impl_->loop.Sync([&] {
    const meta::MetaContext& context = impl_->core->context();
    if (context.commit) health = context.commit->health();
    if (health && context.chunks) health = context.chunks->Health();
  });
  return health;
}

}  // namespace shoal
