#include "tools/cli/cluster.h"

#include <fmt/format.h>
#include <unistd.h>

#include "common/daemon/server_main.h"

namespace shoal::cli {

const std::vector<std::string>& MountKeys() {
  static const std::vector<std::string> keys = {"timeout", "options", "log-file", "log-level"};
  return keys;
}

void ClientSettings::Declare(Options& options) {
  options.ConfigFile("/etc/shoal/client.conf");
  options.CommandLineOnly(false);
  options.List("meta", &meta, "The cluster's metaserver (several: tried in turn)", "HOST:PORT");
  options.Text("key", &key, "File with the cluster's key", "FILE");
  options.CommandLineOnly(true);
  for (const std::string& name : MountKeys()) options.KnownInFile(name);
}

void ClientSettings::TakeFromConfig(const Options& options, const std::vector<std::string>& mount_meta,
                                    const std::string& mount_key) {
  if (options.SourceOf("meta") != "--meta" && !mount_meta.empty()) meta = mount_meta;
  if (options.SourceOf("key") != "--key" && !mount_key.empty()) key = mount_key;
}

Result<std::vector<Address>> ClientSettings::Addresses() const {
  std::vector<Address> addresses;
  for (const std::string& text : meta) {
    TRY_ASSIGN(Address address, ParseAddressOption("--meta", text, kMetaPort));
    addresses.push_back(std::move(address));
  }
  if (addresses.empty()) return ::shoal::Fail(ErrorCode::kInvalidArgument, "--meta HOST:PORT is missing");
  return addresses;
}

std::expected<std::unique_ptr<Cluster>, Failure> Cluster::Connect(const ClientSettings& settings, const std::string& verb,
                                                                  bool session) {
  auto addresses = settings.Addresses();
  if (!addresses) return std::unexpected(Failure::Usage(addresses.error().message));
  auto key = LoadKey(settings.key);
  if (!key) {
    return std::unexpected(Failure::Of(key.error(), "give --key FILE, or --config FILE of the cluster (shoal dev: DIR/shoal.conf)"));
  }
  client::ClientOptions options;
  options.meta = *addresses;
  options.key = *key;
  options.name = fmt::format("shoal {} (process {})", verb, getpid());
  options.timeout = settings.patience;
  options.open_session = session;
  std::unique_ptr<Cluster> cluster(new Cluster());
  cluster->loop_.Start();
  cluster->engine_ = std::make_unique<client::Engine>(cluster->loop_, options, cluster->metrics_);
  Status status = cluster->Run(cluster->engine_->Start());
  if (!status) {
    std::string where = fmt::format("{}", fmt::join(settings.meta, ","));
    bool refused = status.error().code == ErrorCode::kAuthFailed || status.error().code == ErrorCode::kWrongCluster;
    Error error{status.error().code, fmt::format("metaserver {}: {}", where, status.error().message)};
    if (refused) return std::unexpected(Failure::Of(error, "check --key: it must be the key file of that cluster"));
    return std::unexpected(Failure::Unreachable(
        error, "start the cluster ('shoal dev start', or the shoal-metaserver service), or say where it is: --meta HOST:PORT"));
  }
  cluster->started_ = true;
  return cluster;
}

Cluster::~Cluster() {
  if (started_) {
    Task<Status> stop = engine_->Stop(5s);
    Run(std::move(stop));
  }
  loop_.Sync([this] { engine_.reset(); });
  loop_.Stop();
}

client::Cred Cluster::Self() {
  client::Cred cred;
  cred.uid = geteuid();
  cred.gid = getegid();
  int count = getgroups(0, nullptr);
  if (count > 0) {
    std::vector<gid_t> groups(count);
    count = getgroups(count, groups.data());
    cred.groups.assign(groups.begin(), groups.begin() + std::max(count, 0));
  }
  return cred;
}

}  // namespace shoal::cli
