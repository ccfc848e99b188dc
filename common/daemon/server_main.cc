#include "common/daemon/server_main.h"

#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "common/daemon/daemon.h"
#include "common/daemon/http.h"

namespace shoal {
namespace {

// Length of the UTF-8 sequence at the start of `text`, 0 if it is not one.
size_t Utf8Length(std::string_view text) {
  unsigned char lead = text[0];
  if (lead < 0x80) return 1;
  size_t length = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xc2 && lead < 0xe0 ? 2 : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

std::string StatusPage(const ServerSettings& settings, const RunningServer& server,
                       std::chrono::steady_clock::time_point started) {
  Status health = server.Health();
  auto uptime = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - started).count();
  std::string members = server.StatusMembers();
  return fmt::format(R"({{"schema": "shoal.server_status/1", "program": {}, "version": "{}", "pid": {}, "port": {}, )"
                     R"("uptime_seconds": {}, "healthy": {}, "reason": {}{}{}}})",
                     JsonQuote(settings.program), kVersion, getpid(), server.port(), uptime, health ? "true" : "false",
                     JsonQuote(health ? "" : health.error().message), members.empty() ? "" : ", ", members);
}

Result<Address> HttpAddress(const ServerSettings& settings, uint16_t port) {
  if (!settings.http.empty()) return ParseAddressOption("--http", settings.http, static_cast<uint16_t>(port + 1));
  TRY_ASSIGN(Address address, ParseAddressOption("--listen", settings.listen, port));
  address.port = static_cast<uint16_t>(port + 1);
  return address;
}

}  // namespace

void ServerSettings::Declare(Options& options) {
  options.Text("listen", &listen, "Address to serve on (loopback only: there is no TLS yet)", "HOST[:PORT]");
  options.Text("http", &http, "Address of /metrics, /healthz and /status; 'none': no HTTP [the port above --listen's]",
               "HOST:PORT");
  options.Text("key", &key, "File with the cluster's key, made by 'shoal key create'", "FILE");
  options.Text("log-file", &log.file, "Write the log here (SIGHUP opens it again) [standard error]", "FILE");
  options.Choice("log-level", &log.level, {"debug", "info", "warning", "error"}, "Least level that is logged");
  options.Text("pid-file", &pid_file, "Write the process number here, and hold the file locked", "FILE");
  options.Flag("d,daemon", &daemon, "Go into the background; return when the server is ready");
}

void ServerSettings::MakeAbsolute() {
  for (std::string* path : {&key, &pid_file, &log.file}) *path = AbsolutePath(*path);
}

std::string AbsolutePath(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  auto absolute = std::filesystem::absolute(path, error);
  std::string text = error ? path : absolute.lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 && name[0] ? name : "localhost";
}

std::string JsonQuote(std::string_view text) {
  std::string quoted = "\"";
  for (size_t i = 0; i < text.size();) {
    unsigned char c = text[i];
    size_t length = Utf8Length(text.substr(i));
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += static_cast<char>(c);
    } else if (c < 0x20) {
      quoted += fmt::format("\\u{:04x}", c);
    } else if (length == 0) {
      quoted += "\\ufffd";
    } else {
      quoted += text.substr(i, length);
    }
    i += std::max<size_t>(length, 1);
  }
  return quoted + "\"";
}

Result<ClusterKey> LoadKey(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    return Fail(ErrorCode::kNotFound,
                fmt::format("the key file {} is not there: make one with 'shoal key create {}' and give the same file "
                            "to every server and client of the cluster (--key)",
                            path, path));
  }
  auto key = ClusterKey::Load(path);
  if (!key) return Fail(key.error().code, fmt::format("--key {}: {}", path, key.error().message));
  return key;
}

Result<Address> ParseAddressOption(const std::string& option, const std::string& text, uint16_t default_port) {
  auto address = Address::Parse(text, default_port);
  if (!address) return Fail(ErrorCode::kInvalidArgument, fmt::format("{} '{}': {}", option, text, address.error().message));
  return address;
}

int RunServer(const ServerSettings& settings, std::function<std::unique_ptr<RunningServer>()> make) {
  // Large blocks go back to the system when freed, whatever the threads' arenas think.
  mallopt(M_ARENA_MAX, 4);
  auto daemon = Daemon::Start(settings.program, !settings.daemon);
  if (!daemon) {
    fmt::print(stderr, "{}: {}\n", settings.program, daemon.error().message);
    return 1;
  }
  Signals signals;
  auto started = std::chrono::steady_clock::now();
  if (Status log = StartLog(settings.log); !log) return (*daemon)->Failed(log.error());
  PidFile pid_file;
  if (!settings.pid_file.empty()) {
    auto taken = PidFile::Take(settings.pid_file);
    if (!taken) return (*daemon)->Failed(taken.error());
    pid_file = std::move(*taken);
  }
  auto fail = [&](const Error& error) {
    LogError("{} ends: {}", settings.program, error.message);
    return (*daemon)->Failed(error);
  };
  EventLoop loop("main", Duration::zero());
  std::optional<Error> fatal;  // of the loop
  std::unique_ptr<RunningServer> server = make();
  server->OnFatal([&](const Error& error) {
    loop.Post([&fatal, &loop, error] {
      fatal = error;
      loop.Stop();
    });
  });
  if (Status status = server->Start(); !status) return fail(status.error());
  HttpServer http;
  if (settings.http != "none") {
    http.Standard(server->metrics(), [&] { return server->Health(); },
                  [&] { return StatusPage(settings, *server, started); });
    auto address = HttpAddress(settings, server->port());
    Status status = address ? http.Start(*address, "--http") : Fail(address.error());
    if (!status) {
      server->Stop();
      return fail(status.error());
    }
  }
  signals.Attach(
      loop,
      [&](int signal) {
        LogInfo("{} ends: {}", settings.program, signal == SIGINT ? "SIGINT" : "SIGTERM");
        loop.Stop();
      },
      [&settings] {
        ReopenLog();
        if (settings.daemon) Daemon::RedirectStderr(settings.log.file);
        LogInfo("log opened again");
      });
  LogInfo("{} {} serves on port {} (HTTP on {}), process {}", settings.program, kVersion, server->port(), http.port(), getpid());
  (*daemon)->Ready(settings.log.file);
  loop.Run();
  http.Stop();
  server->Stop();
  if (fatal) return fail(*fatal);
  LogInfo("{} has ended", settings.program);
  return 0;
}

}  // namespace shoal
