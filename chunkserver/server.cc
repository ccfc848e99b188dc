#include "chunkserver/server.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <random>

#include "chunkserver/control.h"
#include "chunkserver/node.h"
#include "chunkserver/service.h"
#include "common/files.h"
#include "common/log.h"

namespace shoal {
namespace {

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

}  // namespace

// Members in the order of their dependence: what is below uses what is above.
class ChunkServer::Impl {
 public:
  explicit Impl(ChunkServerOptions options);
  ~Impl() { Stop(); }

  Status Start();
  void Stop();

  ChunkServerOptions options_;
  Files& files_;
  Metrics metrics_;
  Node node_;
  DirectoryIdentity identity_;
  Dispatcher dispatcher_;
  std::vector<std::unique_ptr<EventLoop>> loops_;  // the last one is the control loop
  std::vector<std::unique_ptr<Service>> services_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Control> control_;
  bool started_ = false;

 private:
  Status OpenStore();
  void MakeLoops();
  Task<Status> Join(DirectoryIdentity identity);
  void AddGauges();
};

ChunkServer::Impl::Impl(ChunkServerOptions options)
    : options_(std::move(options)),
      files_(options_.files ? *options_.files : RealFiles()),
      node_(metrics_, options_.key, options_.name.empty() ? HostName() : options_.name) {
  node_.clean_after = options_.clean_after;
  if (options_.name.empty()) options_.name = HostName();
  if (options_.host.empty()) options_.host = HostName();
}

// As many descriptors as the system lets this process have, with some left for connections.
size_t AllowOpenFiles(size_t wanted) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  constexpr size_t kOthers = 1024;
  if (limit.rlim_cur < wanted + kOthers && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted + kOthers);
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted + kOthers) return wanted;
  return std::max<size_t>(16, limit.rlim_cur / 2);
}

Status ChunkServer::Impl::OpenStore() {
  TRY_ASSIGN(OpenedDisks opened, OpenDisks(files_, options_.directories, options_.reserved_bytes));
  identity_ = opened.identity;
  // Clients and other servers of another cluster are refused from the start, once it is known whose this one is.
  node_.network.cluster_uuid = identity_.cluster_uuid;
  node_.control.cluster_uuid = identity_.cluster_uuid;
  node_.control.incarnation = identity_.incarnation;  // a metaserver of an earlier one is refused
  auto sink = [this](const pb::ReplicaReport&, const Error&) {
    if (control_) control_->ReportBad();
  };
  node_.store = std::make_unique<ReplicaStore>(std::move(opened.disks), AllowOpenFiles(options_.open_files), node_.metrics, sink);
  node_.store->SetCluster(identity_.cluster_uuid);
  return {};
}

void ChunkServer::Impl::MakeLoops() {
  int network = std::max(1, options_.network_loops);
  std::vector<Service*> services;
  for (int i = 0; i <= network; ++i) {
    loops_.push_back(std::make_unique<EventLoop>(i == network ? "control" : fmt::format("net-{}", i)));
    services_.push_back(std::make_unique<Service>(*loops_.back(), node_));
    services.push_back(services_.back().get());
  }
  Service::Register(dispatcher_, services);
  for (auto& loop : loops_) loop->Start();
}

Status ChunkServer::Impl::Start() {
  if (options_.metaservers.empty()) return Fail(ErrorCode::kInvalidArgument, "no metaserver is named (--meta HOST:PORT)");
  TRY(OpenStore());
  MakeLoops();
  std::vector<EventLoop*> network;
  for (size_t i = 0; i + 1 < loops_.size(); ++i) network.push_back(loops_[i].get());
  server_ = std::make_unique<RpcServer>(network, node_.network, dispatcher_);
  if (Status listening = server_->Listen(options_.listen); !listening) {
    Stop();
    return listening;
  }
  Address address = options_.advertise.host.empty() ? options_.listen : options_.advertise;
  if (options_.advertise.host.empty() || address.port == 0) address.port = server_->port();
  std::random_device random;
  Registration self{identity_.server_uuid, identity_.cluster_uuid, options_.name, address.ToString(), options_.host,
                    options_.rack, (uint64_t{random()} << 32 | random()) | 1, identity_.incarnation, identity_.life};
  EventLoop& loop = *loops_.back();
  control_ = std::make_unique<Control>(loop, node_, self, options_.metaservers, dispatcher_, options_.heartbeat);
  started_ = true;
  node_.store->Start();
  AddGauges();
  loop.Sync([this] {
    Service* orders = services_.back().get();
    control_->Start([this](DirectoryIdentity identity) { return Join(std::move(identity)); }, [orders] { orders->ForgetOrders(); });
  });
  LogInfo("chunkserver {} serves at {}", options_.name, address.ToString());
  return {};
}

// The first registration: the data directories belong to that cluster from now on. Or the metadata was restored: no
// metaserver of before counts any more.
Task<Status> ChunkServer::Impl::Join(DirectoryIdentity identity) {
  for (const auto& disk : node_.store->disks()) {
    OnQueue write(*loops_.back(), disk->syncs(), [&] { return WriteIdentity(files_, disk->path(), identity); });
    Status written = co_await write;
    if (!written) co_return Fail(written.error().code, "the data directory can't be marked: " + written.error().message);
  }
  identity_ = identity;
  node_.store->SetCluster(identity.cluster_uuid);
  LogInfo("server {} belongs to cluster {}, incarnation {}, from now on", identity.server_uuid, identity.cluster_uuid,
          identity.incarnation);
  co_return Status();
}

void ChunkServer::Impl::AddGauges() {
  for (const auto& disk : node_.store->disks()) {
    Disk* raw = disk.get();
    std::string label = fmt::format("directory=\"{}\"", raw->path());
    auto add = [&](const char* name, const char* help, auto value) {
      metrics_.gauge_function(name, help, [raw, value] { return static_cast<double>(value(raw->Report())); }, label);
    };
    add("shoal_chunkserver_used_bytes", "Bytes of replicas", [](const pb::DiskReport& r) { return r.used_bytes(); });
    add("shoal_chunkserver_free_bytes", "Bytes that can be used", [](const pb::DiskReport& r) { return r.free_bytes(); });
    add("shoal_chunkserver_capacity_bytes", "Capacity", [](const pb::DiskReport& r) { return r.capacity_bytes(); });
    add("shoal_chunkserver_replicas", "Replicas", [](const pb::DiskReport& r) { return r.replicas(); });
    add("shoal_chunkserver_disk_failed", "1: the disk failed", [](const pb::DiskReport& r) { return r.failed(); });
  }
  metrics_.gauge_function("shoal_chunkserver_requests", "Requests in work",
                          [this] { return static_cast<double>(node_.requests.load()); });
  metrics_.gauge_function("shoal_chunkserver_lease_valid", "1: the lease from the metaserver is valid",
                          [this] { return node_.lease.valid() ? 1.0 : 0.0; });
}

void ChunkServer::Impl::Stop() {
  node_.lease.End();
  if (control_) RunOn(*loops_.back(), control_->Stop());
  if (server_) server_->Stop();
  for (size_t i = 0; i < services_.size(); ++i) RunOn(*loops_[i], services_[i]->Stop());
  if (node_.store) node_.store->Stop();  // joins the disks' threads, which may still post to the loops
  for (auto& loop : loops_) loop->Stop();
  server_.reset();
  control_.reset();
  services_.clear();
  loops_.clear();
  if (started_ && node_.store) LogInfo("chunkserver {} has stopped", options_.name);
  started_ = false;
  node_.store.reset();
}

ChunkServer::ChunkServer(ChunkServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
ChunkServer::~ChunkServer() = default;
Status ChunkServer::Start() { return impl_->Start(); }
void ChunkServer::Stop() { impl_->Stop(); }
uint16_t ChunkServer::port() const { return impl_->server_ ? impl_->server_->port() : 0; }
Metrics& ChunkServer::metrics() { return impl_->metrics_; }
bool ChunkServer::serving() const { return impl_->node_.lease.valid(); }
std::string ChunkServer::state() const { return impl_->control_ ? impl_->control_->state() : "not started"; }

}  // namespace shoal
