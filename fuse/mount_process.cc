#include "fuse/mount_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "common/log.h"
#include "fuse/mount_table.h"

namespace shoal::fuse {
namespace {

constexpr Duration kTakeAwayTimeout = 30s;  // for the kernel to write out what was stored through mmap
constexpr Duration kUsersTimeout = 1s;      // for users of a mount that was detached while it was busy
constexpr Duration kWriteOutTimeout = 60s;  // for the engine
constexpr Duration kNothingToWriteTimeout = 2s;
constexpr Duration kParentCheck = 200ms;    // whether the command that started this still waits

client::ClientOptions EngineOptions(const MountOptions& options, const ClusterKey& key) {
  client::ClientOptions engine;
  engine.meta = options.meta;
  engine.key = key;
  engine.name = "mount:" + options.mountpoint;
  engine.subdir = options.subdir;
  engine.timeout = options.timeout;
  // The kernel reads ahead by itself, but only root may tell it to do so by more than 128 KiB.
  if (geteuid() == 0) engine.read_ahead = 0;
  return engine;
}

// For the person at a terminal too, who may have sent the log elsewhere.
void Say(const MountOptions& options, const std::string& line) {
  LogWarning("{}", line);
  if (options.foreground && !options.log_file.empty()) std::fprintf(stderr, "%s\n", line.c_str());
}

// Writes back what was stored through shared mappings, then takes the mount away. Runs on a thread of its own: all of
// it needs answers from the loop.
void SyncAndUnmount(const MountOptions& options, const std::string& device) {
  const std::string& mountpoint = options.mountpoint;
  auto mount = FindMount(mountpoint);
  if (!mount || mount->device != device) return;
  int fd = open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    syncfs(fd);
    close(fd);
  }
  Status taken = TakeMountAway(mountpoint, false);
  if (!taken && taken.error().code == ErrorCode::kBusy) {
    std::string users = Describe(UsersOfMount(*mount));
    Say(options, mountpoint + " is still used" + (users.empty() ? "" : " by " + users) +
                     ". It is detached; what they have written is being flushed, and their files fail from now on");
    taken = TakeMountAway(mountpoint, true);
  }
  if (!taken) LogError("unmounting: {}", ToString(taken.error()));
}

}  // namespace

MountProcess::MountProcess(const MountOptions& options, Callback on_usable, int parent)
    : options_(options), on_usable_(std::move(on_usable)), parent_(parent), loop_("mount"), changed_(loop_) {}

MountProcess::~MountProcess() {
  if (unmounter_.joinable()) unmounter_.join();
  if (signals_ >= 0) close(signals_);
}

Status MountProcess::Run() {
  TRY_ASSIGN(ClusterKey key, ClusterKey::Load(options_.key_file));
  TRY(WatchSignals());
  // Memory that this process needs to write out dirty pages must not wait for dirty pages to be written out.
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  engine_ = std::make_unique<client::Engine>(loop_, EngineOptions(options_, key), metrics_);
  TaskGroup group(loop_);
  loop_.Post([&] { group.Spawn(Main()); });
  loop_.Run();
  control_.reset();
  session_.reset();
  fs_.reset();
  engine_.reset();
  return result_;
}

Status MountProcess::WatchSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&set, signal);
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return Fail(ErrorCode::kInternal, "blocking signals");
  std::signal(SIGPIPE, SIG_IGN);
  signals_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signals_ < 0) return Fail(ErrnoError(errno, "signalfd"));
  loop_.WatchReadable(signals_, [this] { OnSignals(); });
  CheckParent();
  return {};
}

// Until the file system can be used, the end of the command that asked for it ends all.
void MountProcess::CheckParent() {
  if (parent_ < 0 || ready_) return;
  char byte;
  if (recv(parent_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) GiveUp(1);
  parent_timer_ = loop_.RunAfter(kParentCheck, [this] { CheckParent(); });
}

void MountProcess::GiveUp(int exit_status) {
  LogInfo("given up before {} was mounted", options_.mountpoint);
  if (session_ && session_->mounted()) {
    Status taken = TakeMountAway(options_.mountpoint, true);
    if (!taken) LogError("unmounting: {}", ToString(taken.error()));
  }
  _exit(exit_status);
}

void MountProcess::OnSignals() {
  signalfd_siginfo info;
  while (read(signals_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGUSR1) {
      LogInfo("metrics:\n{}", metrics_.Text());
    } else if (info.ssi_signo == SIGHUP && !options_.foreground) {
      ReopenLog();
    } else {
      if (!ready_) GiveUp(128 + static_cast<int>(info.ssi_signo));
      LogInfo("signal {}: unmounting {}", info.ssi_signo, options_.mountpoint);
      ++stop_;
      changed_.WakeAll();
    }
  }
}

Task<void> MountProcess::Main() {
  result_ = co_await Begin();
  if (result_) {
    OnUsable();
    co_await WaitForEnd();
  } else {
    LogError("{}: {}", options_.mountpoint, ToString(result_.error()));
  }
  co_await Finish();
  loop_.Stop();
}

Task<Status> MountProcess::Begin() {
  CO_TRY(co_await engine_->Start());
  started_ = true;
  fs_ = std::make_unique<MountFs>(loop_, *engine_, options_, metrics_);
  session_ = std::make_unique<FuseSession>(*fs_);
  auto ready = [this] {
    ready_ = true;
    changed_.WakeAll();
  };
  auto end = [this] {
    ended_ = true;
    changed_.WakeAll();
  };
  CO_TRY(session_->Mount(ready, end));
  while (!ready_ && !ended_) co_await changed_.Wait();
  if (ended_) {
    co_return Fail(ErrorCode::kNotSupported, "the kernel and libfuse could not agree on a protocol; see the log");
  }
  co_return Status();
}

void MountProcess::OnUsable() {
  if (auto mount = FindMount(options_.mountpoint)) {
    device_ = mount->device;
    SetReadAhead();
    control_ = std::make_unique<ControlSocket>();
    if (Status status = control_->Listen(loop_, device_); !status) LogWarning("{}", ToString(status.error()));
  }
  LogInfo("cluster {} is mounted on {}", engine_->cluster_uuid(), options_.mountpoint);
  on_usable_();
}

void MountProcess::SetReadAhead() {
  if (geteuid() != 0) return;
  std::ofstream file("/sys/class/bdi/" + device_ + "/read_ahead_kb");
  file << options_.read_ahead_kib << std::endl;
  if (!file) LogInfo("the kernel's read-ahead stays at 128 KiB: /sys is not writable");
}

Task<void> MountProcess::WaitForEnd() {
  while (!ended_ && stop_ == 0) co_await changed_.Wait();
  if (!ended_) co_await TakeAway();
}

// After SIGTERM: serves on until the kernel has written out and let go, but not for ever; a second signal ends that.
Task<void> MountProcess::TakeAway() {
  int signals = stop_;
  unmounter_ = std::thread([this] {
    SyncAndUnmount(options_, device_);
    loop_.Post([this] {
      taken_away_ = true;
      changed_.WakeAll();
    });
  });
  bool late = false;
  auto on_time = [this, &late] {
    late = true;
    changed_.WakeAll();
  };
  auto timer = loop_.RunAfter(kTakeAwayTimeout, on_time);
  while (!ended_ && !taken_away_ && !late && stop_ == signals) co_await changed_.Wait();
  timer = loop_.RunAfter(kUsersTimeout, on_time);
  late = late && !taken_away_;
  while (!ended_ && !late && stop_ == signals) co_await changed_.Wait();
}

Task<void> MountProcess::Finish() {
  if (session_) session_->Cut();  // whoever still waits gets ENOTCONN
  if (unmounter_.joinable()) unmounter_.join();
  if (fs_) co_await fs_->ReleaseAll();
  if (engine_) {
    Duration timeout = started_ ? kWriteOutTimeout : kNothingToWriteTimeout;
    Status written = co_await engine_->Stop(timeout);
    if (started_ && !written) {
      LogError("{}: not everything could be written: {}", options_.mountpoint, ToString(written.error()));
      if (result_) result_ = written;
    }
  }
  if (fs_) co_await fs_->Drain();
  if (ready_) LogInfo("{} is unmounted", options_.mountpoint);
}

}  // namespace shoal::fuse
