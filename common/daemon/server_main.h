// What the main functions of the servers share: their common options, and the life of a server process.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/daemon/config.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "common/rpc/rpc.h"

namespace shoal {

inline constexpr const char* kVersion = "0.1.0";
inline constexpr const char* kDefaultKey = "/etc/shoal/cluster.key";

// The options that every server has. A plain value.
struct ServerSettings {
  std::string program;
  std::string listen;    // HOST[:PORT]
  std::string http;      // HOST:PORT, "none", or empty: the port above the listening one
  std::string key = kDefaultKey;
  std::string pid_file;
  LogOptions log;
  bool daemon = false;

  // Adds them to a program's options.
  void Declare(Options& options);
  // After parsing: relative paths become absolute (a daemon's directory is /).
  void MakeAbsolute();
};

// A server that runs, as RunServer sees it. Made and destroyed on main's thread; Health and StatusJson on any.
class RunningServer {
 public:
  virtual ~RunningServer() = default;
  virtual Status Start() = 0;
  virtual void Stop() = 0;
  // Called before Start. `callback` may be called on any thread: the server can't go on, and the process is to end with
  // this error.
  virtual void OnFatal(std::function<void(const Error&)>) {}
  virtual uint16_t port() const = 0;
  virtual Metrics& metrics() = 0;
  virtual Status Health() const = 0;
  // Members of a JSON object, without the braces, or empty.
  virtual std::string StatusMembers() const = 0;
};

// The key, or an error that names the file and how to make one.
Result<ClusterKey> LoadKey(const std::string& path);
// "HOST:PORT" or "HOST" of an option; errors name the option.
Result<Address> ParseAddressOption(const std::string& option, const std::string& text, uint16_t default_port);
std::string AbsolutePath(const std::string& path);
std::string HostName();
// `text` as a JSON string, in quotes; bytes that are not UTF-8 become U+FFFD.
std::string JsonQuote(std::string_view text);

// Runs a server until SIGTERM or SIGINT: goes into the background if asked to, takes the pid file, opens the log, makes
// and starts the server, serves HTTP, says it is ready. Returns main's exit code: 0, or 1 with the reason on standard
// error of whoever started it (and in the log).
int RunServer(const ServerSettings& settings, std::function<std::unique_ptr<RunningServer>()> make);

}  // namespace shoal
