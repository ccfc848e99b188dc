// shoal::FileSystem.
#include "client/include/shoal/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "client/api/shared.h"

namespace shoal {

using api_internal::FileState;
using api_internal::Shared;
using api_internal::ToFileInfo;
using api_internal::ToFsError;
using api_internal::ToFsStatus;
using client::Attr;
using client::AttrChange;
using Place = Shared::Place;

namespace {

constexpr uint32_t kListEntries = 1000;
constexpr uint32_t kListBytes = 256 << 10;
constexpr uint32_t kNoReplace = 1;  // RENAME_NOREPLACE

int FlagsOf(const OpenOptions& options) {
  int flags = options.write ? (options.read ? O_RDWR : O_WRONLY) : O_RDONLY;
  if (options.create) flags |= O_CREAT;
  if (options.exclusive) flags |= O_EXCL;
  if (options.truncate) flags |= O_TRUNC;
  if (options.append) flags |= O_APPEND;
  return flags;
}

template <typename T>
std::unexpected<FsError> Failed(const Result<T>& result) {
  return std::unexpected(ToFsError(result.error()));
}

Task<Result<client::Opened>> OpenPath(Shared* shared, std::string path, OpenOptions options) {
  int flags = FlagsOf(options);
  bool changes = options.create || options.truncate || options.append;
  if (changes && !options.write) co_return Fail(ErrorCode::kInvalidArgument, "create, truncate and append need write");
  if (options.create) {
    Result<Place> place = co_await shared->WalkParent(path);
    if (!place) co_return Fail(std::move(place).error());
    if (place->name.empty()) co_return Fail(ErrorCode::kIsDirectory, "the path is the root directory");
    Result<client::Opened> created =
        co_await shared->engine->Create(shared->cred, place->parent, place->name, options.mode, flags);
    if (created || options.exclusive) co_return created;
    // The name may be a symbolic link: then what it points to is opened.
    Result<Attr> there = co_await shared->engine->Lookup(shared->cred, place->parent, place->name);
    if (!there || !S_ISLNK(there->mode)) co_return created;
  }
  Result<Attr> attr = co_await shared->Walk(std::move(path), true);
  if (!attr) co_return Fail(std::move(attr).error());
  if (S_ISDIR(attr->mode)) co_return Fail(ErrorCode::kIsDirectory, "the path is a directory");
  Result<client::Opened> opened = co_await shared->engine->Open(shared->cred, attr->inode, flags & ~(O_CREAT | O_EXCL));
  co_return opened;
}

Task<Result<std::vector<ListEntry>>> ListPath(Shared* shared, std::string path) {
  Result<Attr> directory = co_await shared->Walk(std::move(path), true);
  if (!directory) co_return Fail(std::move(directory).error());
  std::vector<ListEntry> entries;
  for (uint64_t cookie = 0;;) {
    Result<client::DirPage> page =
        co_await shared->engine->ReadDir(shared->cred, directory->inode, cookie, kListEntries, kListBytes, true);
    if (!page) co_return Fail(std::move(page).error());
    for (client::DirEntry& entry : page->entries) {
      cookie = entry.cookie;
      if (!entry.attr.inode) {
        Result<Attr> attr = co_await shared->engine->GetAttr(shared->cred, entry.inode);
        if (!attr) continue;  // removed meanwhile
        entry.attr = *attr;
      }
      entries.push_back({std::move(entry.name), ToFileInfo(entry.attr)});
    }
    if (page->end || page->entries.empty()) co_return entries;
  }
}

Task<Result<Attr>> ChangePath(Shared* shared, std::string path, AttrChange change) {
  Result<Attr> attr = co_await shared->Walk(std::move(path), true);
  if (!attr) co_return attr;
  Result<Attr> changed = co_await shared->engine->SetAttr(shared->cred, attr->inode, change);
  co_return changed;
}

Task<Status> MkdirPath(Shared* shared, std::string path, uint32_t mode) {
  Result<Place> place = co_await shared->WalkParent(std::move(path));
  if (!place) co_return Fail(std::move(place).error());
  if (place->name.empty()) co_return Fail(ErrorCode::kExists, "the root directory exists");
  Result<Attr> made = co_await shared->engine->Mkdir(shared->cred, place->parent, place->name, mode);
  if (!made) co_return Fail(std::move(made).error());
  co_return Status{};
}

Task<Status> MkdirsPath(Shared* shared, std::string path, uint32_t mode) {
  Result<Attr> there = co_await shared->Walk(path, true);
  if (there) {
    if (S_ISDIR(there->mode)) co_return Status{};
    co_return Fail(ErrorCode::kExists, path + " exists and is not a directory");
  }
  if (there.error().code != ErrorCode::kNotFound) co_return Fail(std::move(there).error());
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    std::string part = path.substr(0, slash);
    Status made = co_await MkdirPath(shared, std::move(part), mode);
    if (!made && made.error().code != ErrorCode::kExists) co_return made;
    if (slash == std::string::npos || slash + 1 >= path.size()) co_return Status{};
  }
}

Task<Status> RemovePath(Shared* shared, std::string path) {
  Result<Place> place = co_await shared->WalkParent(std::move(path));
  if (!place) co_return Fail(std::move(place).error());
  if (place->name.empty()) co_return Fail(ErrorCode::kBusy, "the root directory can't be removed");
  Result<Attr> gone = co_await shared->engine->Unlink(shared->cred, place->parent, place->name);
  if (!gone && gone.error().code == ErrorCode::kIsDirectory) {
    gone = co_await shared->engine->Rmdir(shared->cred, place->parent, place->name);
  }
  if (!gone) co_return Fail(std::move(gone).error());
  co_return Status{};
}

Task<Status> RenamePath(Shared* shared, std::string from, std::string to, bool replace) {
  Result<Place> source = co_await shared->WalkParent(std::move(from));
  if (!source) co_return Fail(std::move(source).error());
  Result<Place> target = co_await shared->WalkParent(std::move(to));
  if (!target) co_return Fail(std::move(target).error());
  Result<client::Engine::Renamed> renamed = co_await shared->engine->Rename(
      shared->cred, source->parent, source->name, target->parent, target->name, replace ? 0 : kNoReplace);
  if (!renamed) co_return Fail(std::move(renamed).error());
  co_return Status{};
}

Task<Status> LinkPath(Shared* shared, std::string existing, std::string path) {
  Result<Attr> attr = co_await shared->Walk(std::move(existing), false);
  if (!attr) co_return Fail(std::move(attr).error());
  Result<Place> place = co_await shared->WalkParent(std::move(path));
  if (!place) co_return Fail(std::move(place).error());
  Result<Attr> linked = co_await shared->engine->Link(shared->cred, attr->inode, place->parent, place->name);
  if (!linked) co_return Fail(std::move(linked).error());
  co_return Status{};
}

Task<Status> SymlinkPath(Shared* shared, std::string target, std::string path) {
  Result<Place> place = co_await shared->WalkParent(std::move(path));
  if (!place) co_return Fail(std::move(place).error());
  Result<Attr> made = co_await shared->engine->Symlink(shared->cred, place->parent, place->name, target);
  if (!made) co_return Fail(std::move(made).error());
  co_return Status{};
}

Task<Result<std::string>> ReadlinkPath(Shared* shared, std::string path) {
  Result<Attr> attr = co_await shared->Walk(std::move(path), false);
  if (!attr) co_return Fail(std::move(attr).error());
  if (!S_ISLNK(attr->mode)) co_return Fail(ErrorCode::kInvalidArgument, "not a symbolic link");
  Result<std::string> target = co_await shared->engine->Readlink(shared->cred, attr->inode);
  co_return target;
}

Task<Result<std::string>> GetXattrPath(Shared* shared, std::string path, std::string name) {
  Result<Attr> attr = co_await shared->Walk(std::move(path), true);
  if (!attr) co_return Fail(std::move(attr).error());
  Result<std::string> value = co_await shared->engine->GetXattr(shared->cred, attr->inode, name);
  co_return value;
}

Task<Status> SetXattrPath(Shared* shared, std::string path, std::string name, std::optional<std::string> value) {
  Result<Attr> attr = co_await shared->Walk(std::move(path), true);
  if (!attr) co_return Fail(std::move(attr).error());
  Status status;
  if (value) {
    status = co_await shared->engine->SetXattr(shared->cred, attr->inode, name, *value, 0);
  } else {
    status = co_await shared->engine->RemoveXattr(shared->cred, attr->inode, name);
  }
  co_return status;
}

Task<Result<std::vector<std::string>>> ListXattrPath(Shared* shared, std::string path) {
  Result<Attr> attr = co_await shared->Walk(std::move(path), true);
  if (!attr) co_return Fail(std::move(attr).error());
  Result<std::vector<std::string>> names = co_await shared->engine->ListXattr(shared->cred, attr->inode);
  co_return names;
}

}  // namespace

FileSystem::FileSystem(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
FileSystem::~FileSystem() = default;

FsResult<std::unique_ptr<FileSystem>> FileSystem::Connect(const ConnectOptions& from) {
  Result<client::ClientOptions> options = api_internal::MakeOptions(from);
  if (!options) return Failed(options);
  auto shared = Shared::Make(api_internal::MakeCred(from));
  shared->loop.Start();
  shared->loop.Sync([&] {
    shared->engine = std::make_unique<client::Engine>(shared->loop, std::move(*options), shared->metrics);
  });
  shared->started = true;
  Status started = shared->Run(shared->engine->Start());
  if (!started) return std::unexpected(ToFsError(started.error()));
  return std::unique_ptr<FileSystem>(new FileSystem(std::move(shared)));
}

FsStatus FileSystem::Disconnect() { return shared_->Stop(); }

FsResult<File> FileSystem::Open(std::string_view path, const OpenOptions& options) {
  Result<client::Opened> opened = shared_->Run(OpenPath(shared_.get(), std::string(path), options));
  if (!opened) return Failed(opened);
  File file;
  file.state_ = std::make_shared<FileState>(shared_, std::move(opened->handle));
  return file;
}

FsResult<FileInfo> FileSystem::Stat(std::string_view path) {
  Result<Attr> attr = shared_->Run(shared_->Walk(std::string(path), true));
  if (!attr) return Failed(attr);
  return ToFileInfo(*attr);
}

FsResult<FileInfo> FileSystem::Lstat(std::string_view path) {
  Result<Attr> attr = shared_->Run(shared_->Walk(std::string(path), false));
  if (!attr) return Failed(attr);
  return ToFileInfo(*attr);
}

FsResult<bool> FileSystem::Exists(std::string_view path) {
  Result<Attr> attr = shared_->Run(shared_->Walk(std::string(path), true));
  if (attr) return true;
  if (attr.error().code == ErrorCode::kNotFound || attr.error().code == ErrorCode::kNotDirectory) return false;
  return Failed(attr);
}

FsResult<std::vector<ListEntry>> FileSystem::List(std::string_view path) {
  Result<std::vector<ListEntry>> entries = shared_->Run(ListPath(shared_.get(), std::string(path)));
  if (!entries) return Failed(entries);
  return std::move(*entries);
}

FsStatus FileSystem::Mkdir(std::string_view path, uint32_t mode) {
  return ToFsStatus(shared_->Run(MkdirPath(shared_.get(), std::string(path), mode)));
}

FsStatus FileSystem::Mkdirs(std::string_view path, uint32_t mode) {
  return ToFsStatus(shared_->Run(MkdirsPath(shared_.get(), std::string(path), mode)));
}

FsStatus FileSystem::Remove(std::string_view path) {
  return ToFsStatus(shared_->Run(RemovePath(shared_.get(), std::string(path))));
}

FsStatus FileSystem::Rename(std::string_view from, std::string_view to, bool replace) {
  return ToFsStatus(shared_->Run(RenamePath(shared_.get(), std::string(from), std::string(to), replace)));
}

FsStatus FileSystem::Link(std::string_view existing, std::string_view path) {
  return ToFsStatus(shared_->Run(LinkPath(shared_.get(), std::string(existing), std::string(path))));
}

FsStatus FileSystem::Symlink(std::string_view target, std::string_view path) {
  return ToFsStatus(shared_->Run(SymlinkPath(shared_.get(), std::string(target), std::string(path))));
}

FsResult<std::string> FileSystem::Readlink(std::string_view path) {
  Result<std::string> target = shared_->Run(ReadlinkPath(shared_.get(), std::string(path)));
  if (!target) return Failed(target);
  return std::move(*target);
}

namespace {
FsStatus Change(Shared& shared, std::string_view path, AttrChange change) {
  Result<Attr> changed = shared.Run(ChangePath(&shared, std::string(path), std::move(change)));
  if (!changed) return Failed(changed);
  return {};
}
}  // namespace

FsStatus FileSystem::Truncate(std::string_view path, uint64_t size) {
  AttrChange change;
  change.size = size;
  return Change(*shared_, path, change);
}

FsStatus FileSystem::Chmod(std::string_view path, uint32_t mode) {
  AttrChange change;
  change.mode = mode;
  return Change(*shared_, path, change);
}

FsStatus FileSystem::Chown(std::string_view path, std::optional<uint32_t> uid, std::optional<uint32_t> gid) {
  AttrChange change;
  change.uid = uid;
  change.gid = gid;
  return Change(*shared_, path, change);
}

FsStatus FileSystem::Utimens(std::string_view path, std::optional<FileTime> accessed, std::optional<FileTime> modified) {
  AttrChange change;
  if (accessed) change.atime_ns = accessed->time_since_epoch().count();
  if (modified) change.mtime_ns = modified->time_since_epoch().count();
  return Change(*shared_, path, change);
}

FsResult<std::string> FileSystem::GetXattr(std::string_view path, std::string_view name) {
  Result<std::string> value = shared_->Run(GetXattrPath(shared_.get(), std::string(path), std::string(name)));
  if (!value) return Failed(value);
  return std::move(*value);
}

FsStatus FileSystem::SetXattr(std::string_view path, std::string_view name, std::string_view value) {
  return ToFsStatus(
      shared_->Run(SetXattrPath(shared_.get(), std::string(path), std::string(name), std::string(value))));
}

FsResult<std::vector<std::string>> FileSystem::ListXattr(std::string_view path) {
  Result<std::vector<std::string>> names = shared_->Run(ListXattrPath(shared_.get(), std::string(path)));
  if (!names) return Failed(names);
  return std::move(*names);
}

FsStatus FileSystem::RemoveXattr(std::string_view path, std::string_view name) {
  return ToFsStatus(shared_->Run(SetXattrPath(shared_.get(), std::string(path), std::string(name), std::nullopt)));
}

FsResult<SpaceInfo> FileSystem::Statfs() {
  Result<client::FsStat> stat = shared_->Run(shared_->engine->StatFs(shared_->cred));
  if (!stat) return Failed(stat);
  return SpaceInfo{stat->capacity_bytes, stat->free_bytes, stat->inodes, stat->copies};
}

FsStatus FileSystem::SyncAll() { return ToFsStatus(shared_->Run(shared_->engine->SyncAll(shared_->cred))); }

std::string FileSystem::cluster_uuid() const {
  std::string uuid;
  shared_->loop.Sync([&] { uuid = shared_->engine->cluster_uuid(); });
  return uuid;
}

}  // namespace shoal
