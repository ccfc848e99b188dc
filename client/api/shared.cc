#include "client/api/shared.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "common/daemon/ini.h"

namespace shoal::api_internal {
namespace {

constexpr int kMaxLinks = 40;
constexpr const char* kDefaultConfig = "/etc/shoal/client.conf";
constexpr const char* kDefaultKey = "/etc/shoal/cluster.key";

void SplitList(const std::string& text, std::vector<std::string>& list) {
  for (size_t at = 0; at < text.size();) {
    size_t comma = std::min(text.find(',', at), text.size());
    std::string item = text.substr(at, comma - at);
    item.erase(0, item.find_first_not_of(" \t"));
    item.erase(item.find_last_not_of(" \t") + 1);
    if (!item.empty()) list.push_back(std::move(item));
    at = comma + 1;
  }
}

// Takes the first component off the path: empty at its end.
std::string TakeComponent(std::string& path) {
  size_t begin = path.find_first_not_of('/');
  if (begin == std::string::npos) {
    path.clear();
    return {};
  }
  size_t end = std::min(path.find('/', begin), path.size());
  std::string name = path.substr(begin, end - begin);
  path.erase(0, end);
  return name;
}

bool OnlySlashes(const std::string& path) { return path.find_first_not_of('/') == std::string::npos; }

}  // namespace

FsError ToFsError(const Error& error) {
  return {ErrorErrno(error.code), std::string(ErrorName(error.code)), error.message.empty() ? ToString(error) : error.message,
          IsRetryable(error.code)};
}

FileInfo ToFileInfo(const client::Attr& attr) {
  auto time = [](int64_t ns) { return FileTime(std::chrono::nanoseconds(ns)); };
  FileInfo info;
  info.inode = attr.inode.value;
  switch (attr.mode & S_IFMT) {
    case S_IFDIR: info.type = FileType::kDirectory; break;
    case S_IFLNK: info.type = FileType::kSymlink; break;
    case S_IFIFO: info.type = FileType::kFifo; break;
    case S_IFSOCK: info.type = FileType::kSocket; break;
    case S_IFCHR: info.type = FileType::kCharDevice; break;
    case S_IFBLK: info.type = FileType::kBlockDevice; break;
    default: info.type = FileType::kRegular; break;
  }
  info.mode = attr.mode & 07777;
  info.links = attr.nlink;
  info.uid = attr.uid;
  info.gid = attr.gid;
  info.size = attr.size;
  info.allocated_bytes = attr.allocated_bytes;
  info.copies = attr.copies;
  info.accessed = time(attr.atime_ns);
  info.modified = time(attr.mtime_ns);
  info.changed = time(attr.ctime_ns);
  info.created = time(attr.btime_ns);
  return info;
}

Result<client::ClientOptions> MakeOptions(const ConnectOptions& from) {
  std::vector<std::string> meta = from.meta;
  std::string key_file = from.key_file;
  if (const char* env = std::getenv("SHOAL_META"); env && meta.empty()) SplitList(env, meta);
  if (const char* env = std::getenv("SHOAL_KEY"); env && key_file.empty()) key_file = env;
  std::string config = from.config_file;
  if (const char* env = std::getenv("SHOAL_CONFIG"); env && config.empty()) config = env;
  if (config.empty() && access(kDefaultConfig, F_OK) == 0) config = kDefaultConfig;
  if (!config.empty()) {
    TRY_ASSIGN(std::vector<IniEntry> entries, ReadIni(config));
    bool take_meta = meta.empty();
    for (const IniEntry& entry : entries) {
      if (entry.key == "meta" && take_meta) SplitList(entry.value, meta);
      if (entry.key == "key" && key_file.empty()) key_file = entry.value;
    }
  }
  if (meta.empty()) meta.push_back("127.0.0.1");
  if (key_file.empty()) key_file = kDefaultKey;

  client::ClientOptions options;
  for (const std::string& text : meta) {
    TRY_ASSIGN(Address address, Address::Parse(text, kMetaPort));
    options.meta.push_back(std::move(address));
  }
  TRY_ASSIGN(options.key, ClusterKey::Load(key_file));
  options.name = from.name.empty() ? "libshoal (process " + std::to_string(getpid()) + ")" : from.name;
  options.subdir = from.root;
  options.timeout = from.timeout;
  options.write_memory = from.write_memory;
  options.read_ahead = from.read_ahead;
  return options;
}

client::Cred MakeCred(const ConnectOptions& options) {
  client::Cred cred;
  cred.uid = options.uid.value_or(geteuid());
  cred.gid = options.gid.value_or(getegid());
  if (options.groups) {
    cred.groups = *options.groups;
  } else if (!options.uid) {
    std::vector<gid_t> groups(static_cast<size_t>(std::max(0, getgroups(0, nullptr))));
    int count = getgroups(static_cast<int>(groups.size()), groups.data());
    cred.groups.assign(groups.begin(), groups.begin() + std::max(0, count));
  }
  return cred;
}

std::shared_ptr<Shared> Shared::Make(client::Cred cred) {
  return {new Shared(std::move(cred)), [](Shared* shared) {
            // A loop's thread can't wait for its own end.
            if (shared->loop.InThisThread()) {
              std::thread([shared] { delete shared; }).detach();
            } else {
              delete shared;
            }
          }};
}

Shared::~Shared() {
  (void)Stop();
  if (engine) loop.Sync([this] { engine.reset(); });
  loop.Stop();
}

FsStatus Shared::Stop() {
  std::lock_guard lock(mutex);
  if (!std::exchange(started, false)) return {};
  return ToFsStatus(Run(engine->Stop()));
}

// ---- paths ----

Task<Result<client::Attr>> Shared::Walk(std::string path, bool follow_last) {
  Result<client::Attr> found = co_await WalkFrom(engine->root(), std::move(path), follow_last);
  co_return found;
}

Task<Result<client::Attr>> Shared::WalkFrom(InodeId start, std::string path, bool follow_last) {
  InodeId at = start;
  int links = 0;
  for (;;) {
    std::string name = TakeComponent(path);
    if (name.empty()) {
      Result<client::Attr> attr = co_await engine->GetAttr(cred, at);
      co_return attr;
    }
    bool last = OnlySlashes(path);
    bool wants_directory = last && !path.empty();
    if (name == "." || (name == ".." && at == engine->root())) continue;
    Result<client::Attr> attr = co_await engine->Lookup(cred, at, name);
    if (!attr) co_return attr;
    bool is_link = S_ISLNK(attr->mode);
    if (is_link && (!last || follow_last || wants_directory)) {
      if (++links > kMaxLinks) co_return Fail(ErrorCode::kTooManySymlinks, "too many symbolic links at " + name);
      Result<std::string> target = co_await engine->Readlink(cred, attr->inode);
      if (!target) co_return Fail(std::move(target).error());
      if (target->starts_with('/')) at = engine->root();
      path = *target + path;
      continue;
    }
    if (last) {
      if (wants_directory && !S_ISDIR(attr->mode)) co_return Fail(ErrorCode::kNotDirectory, name + " is not a directory");
      co_return attr;
    }
    at = attr->inode;
  }
}

Task<Result<Shared::Place>> Shared::WalkParent(std::string path) {
  while (path.ends_with('/')) path.pop_back();
  size_t slash = path.rfind('/');
  Place place;
  place.name = slash == std::string::npos ? path : path.substr(slash + 1);
  place.parent = engine->root();
  if (place.name == "." || place.name == "..") {
    co_return Fail(ErrorCode::kInvalidArgument, "the path ends with . or ..");
  }
  if (slash != std::string::npos && slash > 0) {
    std::string above = path.substr(0, slash);
    Result<client::Attr> parent = co_await Walk(std::move(above), true);
    if (!parent) co_return Fail(std::move(parent).error());
    if (!S_ISDIR(parent->mode)) co_return Fail(ErrorCode::kNotDirectory, "the parent of " + place.name + " is not a directory");
    place.parent = parent->inode;
  }
  co_return place;
}

}  // namespace shoal::api_internal
