// shoal-metaserver: options -> MetaServer.
#include <fmt/format.h>

#include "common/daemon/server_main.h"
#include "metaserver/server.h"

namespace shoal {
namespace {

// Settings of the program as they are written on the command line or in the file.
struct Settings : ServerSettings {
  MetaServerOptions server;
  std::string sync = "periodic";
};

void Declare(Options& options, Settings& settings) {
  options.ConfigFile("/etc/shoal/metaserver.conf");
  options.Text("data", &settings.server.data_dir, "Directory of the metadata; a new file system is made in an empty one",
               "DIR");
  settings.Declare(options);
  options.Text("name", &settings.server.name, "Name in logs and status pages");
  options.Number("replicas", &settings.server.replicas, "Copies of each chunk, of a new file system", 1, 16);
  options.Number("min-copies", &settings.server.min_copies,
                 "Fewest copies that a write is acknowledged on (1 in a cluster of one server)", 1, 16);
  options.Choice("sync", &settings.sync, {"periodic", "always"},
                 "When the metadata is durable: two seconds later and on fsync, or before every answer");
  options.Time("sync-interval", &settings.server.sync_interval,
               "With sync=periodic: what is acknowledged is on the disk so much later");
  options.Time("grace", &settings.server.rereplication_grace,
               "A chunkserver away for longer is given up and its chunks are copied again");
  options.Time("keep-unknown", &settings.server.keep_unknown,
               "Replicas that no record knows are kept for so long, then dropped (0: for ever)");
  options.Size("cache", &settings.server.cache_bytes, "Memory for the cache of metadata");
  options.Text("cluster", &settings.server.cluster_uuid, "UUID of a new cluster; made up if not given", "UUID");
}

Status Check(Settings& settings) {
  if (settings.server.data_dir.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "--data DIR is missing: where to keep the metadata (say, /var/lib/shoal/metaserver)");
  }
  settings.MakeAbsolute();
  settings.server.data_dir = AbsolutePath(settings.server.data_dir);
  settings.server.sync_always = settings.sync == "always";
  if (settings.server.min_copies > settings.server.replicas) settings.server.min_copies = settings.server.replicas;
  TRY_ASSIGN(settings.server.listen, ParseAddressOption("--listen", settings.listen, kMetaPort));
  return {};
}

// The metaserver as RunServer sees it.
class Running : public RunningServer {
 public:
  explicit Running(MetaServerOptions options) : server_(std::move(options)) {}
  Status Start() override { return server_.Start(); }
  void Stop() override { server_.Stop(); }
  uint16_t port() const override { return server_.port(); }
  Metrics& metrics() override { return server_.metrics(); }
  Status Health() const override { return server_.Health(); }
  std::string StatusMembers() const override { return fmt::format("\"cluster\": {}", JsonQuote(server_.cluster_uuid())); }

 private:
  MetaServer server_;
};

}  // namespace

int Main(int argc, char** argv) {
  Settings settings;
  settings.program = "shoal-metaserver";
  settings.listen = fmt::format("127.0.0.1:{}", kMetaPort);
  Options options(settings.program, "Serves the namespace of a Shoal cluster and places its chunks.", "SHOAL_METASERVER_");
  Declare(options, settings);
  ParseOutcome outcome = options.ParseOrExplain(argc, argv);
  if (!outcome.run) return outcome.exit_code;
  if (Status status = Check(settings); !status) {
    fmt::print(stderr, "{}: {}\n", settings.program, status.error().message);
    return 2;
  }
  auto key = LoadKey(settings.key);
  if (!key) {
    fmt::print(stderr, "{}: {}\n", settings.program, key.error().message);
    return 1;
  }
  settings.server.key = *key;
  return RunServer(settings, [&settings] { return std::make_unique<Running>(settings.server); });
}

}  // namespace shoal

int main(int argc, char** argv) { return shoal::Main(argc, argv); }
