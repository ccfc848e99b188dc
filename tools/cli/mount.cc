// shoal mount [SOURCE] DIR [-o ...] [-f]; also what mount.fuse.shoal runs.
#include "fuse/mount.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "common/daemon/server_main.h"
#include "tools/cli/cluster.h"
#include "tools/cli/command.h"

namespace shoal::cli {
namespace {

// What stood on the command line besides the client's settings.
struct MountArguments {
  std::vector<std::string> places;  // [SOURCE] DIR
  std::vector<std::string> words;   // of -o, in order
  bool foreground = false;
  Duration timeout = kMountTimeout;
  std::string log_file, log_level = "info", pid_file;
};

void Declare(Options& options, ClientSettings& settings, MountArguments& mount) {
  options.ConfigFile("/etc/shoal/client.conf");
  options.CommandLineOnly(false);
  options.List("o,options", &mount.words, "Mount options, with commas between them (see below)", "WORDS");
  options.CommandLineOnly(true);
  options.Flag("f,foreground", &mount.foreground, "Stay in the foreground; Ctrl-C unmounts");
  options.Text("pid-file", &mount.pid_file, "Write the mount process's number here", "FILE");
  options.CommandLineOnly(false);
  options.List("meta", &settings.meta, "The cluster's metaserver (several: tried in turn)", "HOST:PORT");
  options.Text("key", &settings.key, "File with the cluster's key", "FILE");
  options.Time("timeout", &mount.timeout, "How long operations wait for an absent metaserver; then they fail");
  options.Text("log-file", &mount.log_file, "Write the log here", "FILE");
  options.Choice("log-level", &mount.log_level, {"debug", "info", "warning", "error"}, "Least level that is logged");
  options.CommandLineOnly(true);
  for (const std::string& name : MountKeys()) options.KnownInFile(name);
  options.Arguments("[SOURCE] DIR", &mount.places, "SOURCE is HOST[:PORT][,HOST...][:/subdir]; DIR an existing directory", true);
  options.Epilogue("Mount options: ro, noatime, noexec, suid, dev, allow_other (the default for root) or noallow_other, sync (every\n"
                   "write waits for the disks), timeout=TIME, config=FILE, key=FILE, log=FILE, log_level=LEVEL, pid_file=FILE,\n"
                   "read_ahead=SIZE, and for how many seconds the kernel believes what it knows: attr_timeout=, entry_timeout=,\n"
                   "negative_timeout=. What mount(8) and fstab know besides is passed over.\n\n"
                   "Returns when DIR can be used; waits for an absent metaserver (timeout). Unmount with 'shoal umount DIR' or\n"
                   "'fusermount3 -u DIR'. In /etc/fstab: HOST:/ /mnt/shoal fuse.shoal defaults,_netdev 0 0");
}

// -o WORDS and -oWORDS become --options=WORDS.
Arguments WithLongO(const Arguments& arguments) {
  Arguments changed;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "-o" && i + 1 < arguments.size()) {
      changed.push_back("--options=" + arguments[++i]);
    } else if (arguments[i].starts_with("-o") && arguments[i].size() > 2) {
      changed.push_back("--options=" + arguments[i].substr(2));
    } else {
      changed.push_back(arguments[i]);
    }
  }
  return changed;
}

// config=FILE among the -o options counts as --config, unless that is there too.
Arguments WithConfig(Arguments arguments) {
  std::string config;
  for (const std::string& a : arguments) {
    if (a == "--config" || a.starts_with("--config=")) return arguments;
    if (!a.starts_with("--options=")) continue;
    size_t at = a.find("config=");
    if (at != a.npos && (a[at - 1] == ',' || a[at - 1] == '=')) config = a.substr(at + 7, a.find(',', at) - at - 7);
  }
  if (!config.empty()) arguments.push_back("--config=" + config);
  return arguments;
}

Result<fuse::MountOptions> Combine(const Options& options, const ClientSettings& settings, const MountArguments& mount) {
  fuse::MountOptions result;
  result.foreground = mount.foreground;
  result.pid_file = AbsolutePath(mount.pid_file);
  result.log_file = AbsolutePath(mount.log_file);
  result.log_level = mount.log_level;
  result.timeout = mount.timeout;
  result.key_file = settings.key;
  result.config = AbsolutePath(options.config_path());
  if (mount.places.size() > 2) {
    return Fail(ErrorCode::kInvalidArgument, fmt::format("'{}' is one argument too many: write [SOURCE] DIR", mount.places[2]));
  }
  std::string words = fmt::format("{}", fmt::join(mount.words, ","));
  if (!words.empty()) {
    TRY(fuse::ParseMountOptions(words, result));
  }
  std::string named = mount.places.size() == 2 ? mount.places[0] : "";
  TRY_ASSIGN(auto source, fuse::ParseMountSource(named));
  result.meta = source.meta;
  result.subdir = source.subdir;
  if (result.meta.empty()) {
    TRY_ASSIGN(result.meta, settings.Addresses());
  }
  result.key_file = AbsolutePath(result.key_file);
  result.mountpoint = AbsolutePath(mount.places.back());
  return result;
}

Status CheckMountpoint(const std::string& path) {
  struct stat st;
  if (stat(path.c_str(), &st) == 0) {
    if (S_ISDIR(st.st_mode)) return {};
    return Fail(ErrorCode::kNotDirectory, path + " is not a directory: mount on an empty one");
  }
  if (errno == ENOTCONN) return {};  // a dead mount stands there; the mount removes it
  if (errno == ENOENT) return Fail(ErrorCode::kNotFound, fmt::format("{} is not there: make it first (mkdir {})", path, path));
  return Fail(ErrnoError(errno, path));
}

}  // namespace

int RunMount(const Arguments& arguments) {
  Command command("mount", "Mounts the file system of a cluster.");
  ClientSettings settings;
  MountArguments mount;
  Declare(command.options(), settings, mount);
  if (auto exit = command.Parse(WithConfig(WithLongO(arguments)))) return *exit;
  auto options = Combine(command.options(), settings, mount);
  if (!options) return command.Fail(Failure::Usage(options.error().message, "shoal mount --help"));
  if (Status status = CheckMountpoint(options->mountpoint); !status) return command.Fail(status.error());
  if (auto key = LoadKey(options->key_file); !key) return command.Fail(key.error(), "give the cluster's key with --key FILE or -o key=FILE");
  signal(SIGPIPE, SIG_IGN);
  if (Status status = fuse::RunMount(*options); !status) {
    bool absent = status.error().code == ErrorCode::kUnavailable || status.error().code == ErrorCode::kTimeout;
    Failure failure = absent ? Failure::Unreachable(status.error(), "start the metaserver, or say where it is: shoal mount HOST:PORT DIR")
                             : Failure::Of(status.error());
    return command.Fail(failure);
  }
  return command.Answer({{"mountpoint", options->mountpoint}}, "");
}

}  // namespace shoal::cli
