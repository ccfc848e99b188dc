// Waits until a write with all copies works: a file is made, synced, looked at, and removed.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <set>
#include <thread>

#include "common/proto/meta.pb.h"
#include "tools/cli/dev/process.h"

namespace shoal::cli::dev {
namespace {

using client::Engine;

constexpr Duration kPatience = 10s;  // for the metaserver's answer, between two looks at whether it still runs

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

// The chunkservers of the layout that the metaserver takes for live.
Result<std::set<std::string>> LiveServers(Cluster& cluster) {
  auto servers = cluster.Run(cluster.engine().ListServers());
  if (!servers) return Fail(servers.error());
  std::set<std::string> live;
  for (const auto& server : servers->servers()) {
    if (server.state() == "live") live.insert(server.name());
  }
  return live;
}

// An error when one of the servers has ended.
Status AllRun(const Layout& layout) {
  for (const Server& server : layout.Servers()) {
    if (Running(layout, server.name)) continue;
    std::string last = LastLines(layout, server.name, 3);
    return Fail(ErrorCode::kUnavailable, fmt::format("{} has ended{}{} (log: {})", server.name, last.empty() ? "" : "; its last words:\n", last,
                                                     layout.LogPath(server.name)));
  }
  return {};
}

// One wait: what has been seen so far.
class Waiter {
 public:
  explicit Waiter(const Layout& layout) : layout_(layout), settings_(layout.Client()) { settings_.patience = kPatience; }

  // True: a write with all copies works. False: not yet. An error: there is no use in waiting.
  Result<bool> Try() {
    TRY(AllRun(layout_));
    if (!cluster_) {
      auto connected = Cluster::Connect(settings_, "dev start", true);
      if (!connected) {
        why_ = connected.error().message;
        if (connected.error().exit == kExitUnreachable) return false;
        return Fail(ErrorCode::kUnavailable, why_);
      }
      cluster_ = std::move(*connected);
    }
    auto live = LiveServers(*cluster_);
    if (!live) {
      why_ = ToString(live.error());
      return false;
    }
    live_ = std::move(*live);
    for (const Server& server : layout_.chunkservers) {
      if (!live_.contains(server.name)) return false;
    }
    return Write();
  }

  std::string Missing() const {
    for (const Server& server : layout_.Servers()) {
      if (ProcessState(Running(layout_, server.name)) == "frozen") return fmt::format("{}, which is stopped (kill -CONT)", server.name);
    }
    if (!cluster_) return "the metaserver: " + why_;
    for (const Server& server : layout_.chunkservers) {
      if (live_.contains(server.name)) continue;
      return fmt::format("{} to register; the last line of its log:\n  {}", server.name, LastLines(layout_, server.name, 1));
    }
    return fmt::format("a new file to have {} copies: it has {}{}", layout_.replicas, copies_, why_.empty() ? "" : ", " + why_);
  }

 private:
  Result<bool> Write() {
    auto probe = cluster_->Run(Probe(cluster_->engine(), fmt::format(".shoal-dev-probe-{}-{}", getpid(), attempt_++)));
    copies_ = probe ? *probe : 0;
    why_ = probe ? "" : ToString(probe.error());
    if (!probe && probe.error().code == ErrorCode::kNoSpace) return Fail(ErrorCode::kNoSpace, probe.error().message);
    return copies_ >= layout_.replicas;
  }

  const Layout& layout_;
  ClientSettings settings_;
  std::unique_ptr<Cluster> cluster_;
  std::set<std::string> live_;
  uint32_t copies_ = 0;
  int attempt_ = 0;
  std::string why_;
};

}  // namespace

Status AwaitWritable(const Layout& layout, Duration timeout) {
  Patience patience(timeout);
  Waiter waiter(layout);
  while (!patience.over()) {
    TRY_ASSIGN(bool works, waiter.Try());
    if (works) return {};
    patience.Say([&] { return waiter.Missing(); });
    std::this_thread::sleep_for(20ms);
  }
  return Fail(ErrorCode::kTimeout, fmt::format("after {} it still waits for {} (logs: {}/log)", FormatDuration(timeout), waiter.Missing(), layout.dir));
}

}  // namespace shoal::cli::dev
