// What the public API's objects share: the loop's thread, the engine, and the way from paths to inodes.
#pragma once

#include <atomic>
#include <mutex>

#include "client/engine.h"
#include "client/include/shoal/file_system.h"

namespace shoal::api_internal {

FsError ToFsError(const Error& error);
FileInfo ToFileInfo(const client::Attr& attr);
inline FsStatus ToFsStatus(const Status& status) {
  if (status) return {};
  return std::unexpected(ToFsError(status.error()));
}

// Flags, environment and file, as the contract of the command line has it: a member that is set beats SHOAL_META,
// which beats the file.
Result<client::ClientOptions> MakeOptions(const ConnectOptions& options);
client::Cred MakeCred(const ConnectOptions& options);

// Owner: the FileSystem and its Files together. Made and destroyed on a caller's thread (or, when an asynchronous call
// was the last to use it, on a thread of its own); tasks run on `loop`.
struct Shared {
  static std::shared_ptr<Shared> Make(client::Cred cred);
  explicit Shared(client::Cred c) : loop("shoal"), cred(std::move(c)) {}
  ~Shared();

  EventLoop loop;
  Metrics metrics;
  const client::Cred cred;
  std::unique_ptr<client::Engine> engine;
  std::mutex mutex;  // guards started
  bool started = false;

  FsStatus Stop();
  template <typename T>
  T Run(Task<T> task) {
    return RunOn(loop, std::move(task));
  }

  // ---- on the loop ----
  // The inode at the end of the path.
  Task<Result<client::Attr>> Walk(std::string path, bool follow_last);
  // The directory that holds the path's last name, and that name (empty: the path is the root).
  struct Place {
    InodeId parent;
    std::string name;
  };
  Task<Result<Place>> WalkParent(std::string path);
  // Walk, but the work continues from a directory.
  Task<Result<client::Attr>> WalkFrom(InodeId start, std::string path, bool follow_last);
};

// One open file. Owner: its File; operations under way share it.
struct FileState {
  FileState(std::shared_ptr<Shared> s, client::HandlePtr h) : shared(std::move(s)), handle(std::move(h)) {}
  std::shared_ptr<Shared> shared;
  client::HandlePtr handle;  // touched on the loop only; null: closed
};

}  // namespace shoal::api_internal
