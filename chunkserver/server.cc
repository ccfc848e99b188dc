#include "chunkserver/server.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <random>

#include "chunkserver/control.h"
#include "chunkserver/node.h"
#include "chunkserver/scrubber.h"
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
  Status AwaitFirstTry(Duration limit);

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
  std::unique_ptr<Scrubber> scrubber_;
  bool started_ = false;

 private:
  Status OpenStore();
  void NoteTry(const Status& status);
  Error Explain(const Error& refusal) const;
  void MakeLoops();
  Task<Status> Join(DirectoryIdentity identity);
  void AddGauges();

  std::mutex mutex_;  // guards what follows
  std::condition_variable tried_;
  std::optional<Status> first_try_;  // an error: refused for good
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
                    options_.rack, options_.version, (uint64_t{random()} << 32 | random()) | 1, identity_.incarnation, identity_.life};
  EventLoop& loop = *loops_.back();
  control_ = std::make_unique<Control>(loop, node_, self, options_.metaservers, dispatcher_, options_.heartbeat);
  started_ = true;
  node_.store->Start();
  scrubber_ = std::make_unique<Scrubber>(loop, node_, options_.scrub_rate, options_.scrub_every,
                                         [this](std::vector<uint64_t> chunks) { return control_->ReportScrubbed(std::move(chunks)); });
  AddGauges();
  loop.Sync([this] {
    scrubber_->Start();
    Service* orders = services_.back().get();
    control_->Start({.joined = [this](DirectoryIdentity identity) { return Join(std::move(identity)); },
                     .connected = [orders] { orders->ForgetOrders(); },
                     .tried = [this](const Status& status) { NoteTry(status); }});
  });
  LogInfo("chunkserver {} serves at {}", options_.name, address.ToString());
  return {};
}

Status ChunkServer::Impl::AwaitFirstTry(Duration limit) {
  std::unique_lock lock(mutex_);
  tried_.wait_for(lock, limit, [this] { return first_try_.has_value(); });
  return first_try_.value_or(Status());
}

void ChunkServer::Impl::NoteTry(const Status& status) {
  Status outcome = status ? status : Fail(Explain(status.error()));
  {
    std::lock_guard lock(mutex_);
    if (!first_try_) first_try_ = outcome;
  }
  tried_.notify_all();
  if (outcome) return;
  LogError("{}", outcome.error().message);
  if (options_.on_refused) options_.on_refused(outcome.error());
}

// What the metaserver said, and what to do.
Error ChunkServer::Impl::Explain(const Error& refusal) const {
  if (refusal.code != ErrorCode::kWrongCluster) return refusal;  // says it
  std::string directories;
  for (const DataDirectory& directory : options_.directories) directories += (directories.empty() ? "" : ", ") + directory.path;
  return {refusal.code, fmt::format("the data directory {} belongs to cluster {}, and the metaserver {} to another one ({}). Nothing in it "
                                    "was touched. Name the metaserver of its own cluster with --meta, or an empty directory with --data",
                                    directories, identity_.cluster_uuid, options_.metaservers.front().ToString(), refusal.message)};
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
  for (size_t i = 0; i < node_.store->disks().size(); ++i) {
    std::string label = fmt::format("directory=\"{}\"", node_.store->disks()[i]->path());
    auto add = [&](const char* name, const char* help, auto value) {
      metrics_.gauge_function(name, help, [this, i, value] { return scrubber_ ? value(scrubber_->progress()[i]) : 0.0; }, label);
    };
    add("shoal_chunkserver_scrub_position", "Part of the disk that the scrubbing under way has read",
        [](const Scrubber::Progress& p) { return p.part; });
    add("shoal_chunkserver_scrub_last_pass_seconds", "When the last scrubbing of the whole disk ended, since 1970; 0: never",
        [](const Scrubber::Progress& p) { return static_cast<double>(p.position.last_ended_ns) / 1e9; });
    add("shoal_chunkserver_orphan_files", "Files among the replicas that are none, as scrubbing found them",
        [](const Scrubber::Progress& p) { return static_cast<double>(p.position.orphans); });
  }
  metrics_.gauge_function("shoal_chunkserver_requests", "Requests in work",
                          [this] { return static_cast<double>(node_.requests.load()); });
  metrics_.gauge_function("shoal_chunkserver_lease_valid", "1: the lease from the metaserver is valid",
                          [this] { return node_.lease.valid() ? 1.0 : 0.0; });
}

void ChunkServer::Impl::Stop() {
  node_.lease.End();
  if (scrubber_) RunOn(*loops_.back(), scrubber_->Stop());
  if (control_) RunOn(*loops_.back(), control_->Stop());
  if (server_) server_->Stop();
  for (size_t i = 0; i < services_.size(); ++i) RunOn(*loops_[i], services_[i]->Stop());
  if (node_.store) node_.store->Stop();  // joins the disks' threads, which may still post to the loops
  for (auto& loop : loops_) loop->Stop();
  server_.reset();
  scrubber_.reset();
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
Status ChunkServer::AwaitFirstTry(Duration limit) { return impl_->AwaitFirstTry(limit); }
void ChunkServer::Stop() { impl_->Stop(); }
uint16_t ChunkServer::port() const { return impl_->server_ ? impl_->server_->port() : 0; }
Metrics& ChunkServer::metrics() { return impl_->metrics_; }
bool ChunkServer::serving() const { return impl_->node_.lease.valid(); }
std::vector<ScrubStatus> ChunkServer::scrubs() const {
  std::vector<ScrubStatus> all;
  if (!impl_->scrubber_) return all;
  for (const Scrubber::Progress& p : impl_->scrubber_->progress()) {
    const ScrubPosition& at = p.position;
    all.push_back({p.directory, at.pass_started_ns != 0, p.part, at.errors, at.orphans, at.last_errors,
                   at.last_started_ns / 1'000'000'000, at.last_ended_ns / 1'000'000'000});
  }
  return all;
}
std::string ChunkServer::state() const { return impl_->control_ ? impl_->control_->state() : "not started"; }

}  // namespace shoal
