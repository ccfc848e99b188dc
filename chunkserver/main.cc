// shoal-chunkserver: options -> ChunkServer.
#include <fmt/format.h>

#include "chunkserver/server.h"
#include "common/daemon/capacity.h"
#include "common/daemon/server_main.h"

namespace shoal {
namespace {

constexpr Duration kFirstTry = 3s;  // to register: how long the start waits for the outcome

// Settings of the program as they are written on the command line or in the file.
struct Settings : ServerSettings {
  ChunkServerOptions server;
  std::vector<std::string> data;
  std::vector<std::string> meta{fmt::format("127.0.0.1:{}", kMetaPort)};
  std::string advertise;
  uint64_t capacity = 0;
  uint32_t loops = 1;
};

void Declare(Options& options, Settings& settings) {
  options.ConfigFile("/etc/shoal/chunkserver.conf");
  options.List("data", &settings.data, "Data directories, one a disk; DIR:capacity=SIZE limits one of them", "DIR");
  options.List("meta", &settings.meta, "The metaserver (several: tried in turn)", "HOST:PORT");
  settings.Declare(options);
  options.Text("name", &settings.server.name, "Name of this server in the cluster [the host name]");
  options.Text("host", &settings.server.host, "Failure domain: the machine [the host name]");
  options.Text("rack", &settings.server.rack, "Failure domain: the rack");
  options.Size("capacity", &settings.capacity, "Bytes that Shoal may use of each data directory [its file system's size]");
  options.Size("reserved", &settings.server.reserved_bytes, "Bytes of each file system left free");
  options.Text("advertise", &settings.advertise, "Address that others are told to use [the listening one]", "HOST:PORT");
  options.Rate("scrub-rate", &settings.server.scrub_rate,
               "All replicas are read again and verified, at this rate of each data directory; 0: never");
  options.Number("loops", &settings.loops, "Network threads", 1, 64);
}

Result<DataDirectory> ParseDirectory(const std::string& text, uint64_t capacity) {
  DataDirectory directory{text, capacity};
  size_t colon = text.rfind(":capacity=");
  if (colon != text.npos) {
    auto size = ParseSize(std::string_view(text).substr(colon + 10));
    if (!size) return Fail(size.error().code, fmt::format("--data {}: {}", text, size.error().message));
    directory = {text.substr(0, colon), *size};
  }
  directory.path = AbsolutePath(directory.path);
  return directory;
}

Status Check(Settings& settings) {
  if (settings.data.empty()) {
    return Fail(ErrorCode::kInvalidArgument, "--data DIR is missing: where to keep the chunks (say, /var/lib/shoal/chunkserver)");
  }
  for (const std::string& text : settings.data) {
    TRY_ASSIGN(DataDirectory directory, ParseDirectory(text, settings.capacity));
    if (Status enough = CheckCapacity(directory.capacity); !enough) {
      return Fail(enough.error().code, fmt::format("--capacity of {}: {}", directory.path, enough.error().message));
    }
    settings.server.directories.push_back(std::move(directory));
  }
  for (const std::string& text : settings.meta) {
    TRY_ASSIGN(Address address, ParseAddressOption("--meta", text, kMetaPort));
    settings.server.metaservers.push_back(std::move(address));
  }
  if (settings.server.metaservers.empty()) return Fail(ErrorCode::kInvalidArgument, "--meta HOST:PORT is missing");
  settings.MakeAbsolute();
  TRY_ASSIGN(settings.server.listen, ParseAddressOption("--listen", settings.listen, kChunkPort));
  if (!settings.advertise.empty()) {
    TRY_ASSIGN(settings.server.advertise, ParseAddressOption("--advertise", settings.advertise, kChunkPort));
  }
  settings.server.version = kVersion;
  if (settings.server.name.empty()) settings.server.name = HostName();
  if (settings.server.host.empty()) settings.server.host = HostName();
  settings.server.network_loops = static_cast<int>(settings.loops);
  return {};
}

// The chunkserver as RunServer sees it.
class Running : public RunningServer {
 public:
  explicit Running(ChunkServerOptions options) : server_(WithRefusal(std::move(options))) {}
  // Without a metaserver it starts all the same; what would never serve does not.
  Status Start() override {
    TRY(server_.Start());
    return server_.AwaitFirstTry(kFirstTry);
  }
  void OnFatal(std::function<void(const Error&)> callback) override { on_fatal_ = std::move(callback); }
  void Stop() override { server_.Stop(); }
  uint16_t port() const override { return server_.port(); }
  Metrics& metrics() override { return server_.metrics(); }
  Status Health() const override {
    if (server_.serving()) return {};
    return Fail(ErrorCode::kNotReady, server_.state());
  }
  std::string StatusMembers() const override { 
    std::string scrubs;
    for (const ScrubStatus& s : server_.scrubs()) {
      scrubs += fmt::format("{}{{\"directory\": {}, \"running\": {}, \"done_percent\": {:.1f}, \"errors\": {}, \"orphan_files\": {}, "
                            "\"last_pass_started_seconds\": {}, \"last_pass_ended_seconds\": {}, \"last_pass_errors\": {}}}",
                            scrubs.empty() ? "" : ", ", JsonQuote(s.directory), s.running, 100 * s.part, s.errors, s.orphans,
                            s.last_started, s.last_ended, s.last_errors);
    }
    return fmt::format("\"state\": {}, \"scrub\": [{}]", JsonQuote(server_.state()), scrubs);
  }

 private:
  ChunkServerOptions WithRefusal(ChunkServerOptions options) {
    options.on_refused = [this](const Error& why) { on_fatal_(why); };
    return options;
  }
  std::function<void(const Error&)> on_fatal_ = [](const Error&) {};
  ChunkServer server_;
};

}  // namespace

int Main(int argc, char** argv) {
  Settings settings;
  settings.program = "shoal-chunkserver";
  settings.listen = fmt::format("127.0.0.1:{}", kChunkPort);
  settings.server.scrub_rate = 8ull << 20;
  Options options(settings.program, "Keeps replicas of a Shoal cluster's chunks on local disks and serves them.",
                  "SHOAL_CHUNKSERVER_");
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
