// The process of a mount: loop, engine, session, signals.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "client/engine.h"
#include "common/event_loop.h"
#include "common/metrics.h"
#include "common/result.h"
#include "fuse/control.h"
#include "fuse/mount_fs.h"
#include "fuse/mount_options.h"
#include "fuse/session.h"

namespace shoal::fuse {

// One mount from its connection to the cluster to its end. Owner: RunMount. Run is called once, on a thread that
// becomes the loop; no other thread may exist that could take the signals (it blocks SIGINT, SIGTERM, SIGHUP and SIGUSR1
// and reads them from the loop).
class MountProcess {
 public:
  // `on_usable` is called once, on the loop, when the file system can be used. `parent`: a descriptor whose end of
  // file before that means that nobody waits any more (-1: none).
  MountProcess(const MountOptions& options, Callback on_usable, int parent);
  ~MountProcess();
  MountProcess(const MountProcess&) = delete;
  MountProcess& operator=(const MountProcess&) = delete;

  // Until the file system is unmounted. The error that stopped it from being mounted, or the first of writing out.
  Status Run();

 private:
  Task<void> Main();
  Task<Status> Begin();
  Task<void> WaitForEnd();
  Task<void> TakeAway();
  Task<void> Finish();
  Status WatchSignals();
  void OnSignals();
  void CheckParent();
  [[noreturn]] void GiveUp(int exit_status);
  void OnUsable();
  void SetReadAhead();

  const MountOptions& options_;
  Callback on_usable_;
  int parent_;
  int signals_ = -1;
  Metrics metrics_;
  EventLoop loop_;
  WaitList changed_;  // one of the flags below has changed
  std::unique_ptr<client::Engine> engine_;
  std::unique_ptr<MountFs> fs_;
  std::unique_ptr<FuseSession> session_;
  std::unique_ptr<ControlSocket> control_;
  std::unique_ptr<EventLoop::Timer> parent_timer_;
  std::thread unmounter_;
  std::string device_;   // of the mount, "MAJOR:MINOR"
  bool started_ = false; // the engine
  bool ready_ = false;   // mounted, the kernel has agreed
  bool ended_ = false;   // unmounted
  int stop_ = 0;         // SIGTERM and SIGINT received
  bool taken_away_ = false;
  Status result_;
};

}  // namespace shoal::fuse
