// Waits until a write with all copies works: a file is made, synced, looked at, and removed.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <thread>

#include "common/proto/meta.pb.h"
#include "tools/cli/dev/process.h"

namespace shoal::cli::dev {
namespace {

using client::Engine;

// Number of live copies that the chunk of a freshly written file has.
Task<Result<uint32_t>> Probe(Engine& engine, std::string name) {
  client::Cred root;
  auto made = co_await engine.Create(root, engine.root(), name, 0600, O_RDWR | O_CREAT | O_EXCL);
  if (!made) co_return Fail(std::move(made).error());
  Buffer data = Buffer::Zeros(4096);
  client::Handle& handle = *made->handle;
  auto written = co_await engine.Write(handle, 0, data);
  Status synced;
  if (written) synced = co_await engine.Fsync(handle, false);
  std::string_view by_inode;
  auto stat = co_await engine.StatPath(root, by_inode, made->attr.inode, 0, 1);
  client::HandlePtr closing = std::move(made->handle);
  Status released = co_await engine.Release(std::move(closing));
  auto unlinked = co_await engine.Unlink(root, engine.root(), name);
  if (!written) co_return Fail(std::move(written).error());
  CO_TRY(synced);
  CO_TRY(released);
  CO_TRY(unlinked);
  if (!stat) co_return Fail(std::move(stat).error());
  uint32_t live = 0;
  for (const auto& extent : stat->extents()) {
    for (const auto& replica : extent.replicas()) live += replica.live() ? 1 : 0;
  }
  co_return live;
}

Result<uint32_t> LiveServers(Cluster& cluster) {
  auto servers = cluster.Run(cluster.engine().ListServers());
  if (!servers) return Fail(servers.error());
  uint32_t live = 0;
  for (const auto& server : servers->servers()) live += server.state() == "live" ? 1 : 0;
  return live;
}

}  // namespace

Status AwaitWritable(const Layout& layout, Duration timeout) {
  auto deadline = std::chrono::steady_clock::now() + timeout;
  ClientSettings settings = layout.Client();
  settings.patience = timeout;
  auto cluster = Cluster::Connect(settings, "dev start", true);
  if (!cluster) return Fail(ErrorCode::kUnavailable, cluster.error().message);
  auto wanted = static_cast<uint32_t>(layout.chunkservers.size());
  uint32_t live = 0, copies = 0;
  std::string why;
  for (int attempt = 0; std::chrono::steady_clock::now() < deadline; ++attempt) {
    auto now = LiveServers(**cluster);
    live = now ? *now : 0;
    if (live >= wanted) {
      auto probe = (*cluster)->Run(Probe((*cluster)->engine(), fmt::format(".shoal-dev-probe-{}-{}", getpid(), attempt)));
      copies = probe ? *probe : 0;
      if (!probe) why = ": " + ToString(probe.error());
      if (copies >= layout.replicas) return {};
    }
    std::this_thread::sleep_for(20ms);
  }
  return Fail(ErrorCode::kTimeout,
              fmt::format("after {} only {} of {} chunkservers are live, and a new file has {} of {} copies{} (logs: {}/log)",
                          FormatDuration(timeout), live, wanted, copies, layout.replicas, why, layout.dir));
}

}  // namespace shoal::cli::dev
