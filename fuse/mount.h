// The life of a mount: RunMount and Unmount, the bodies of `shoal mount` and `shoal umount`.
#pragma once

#include <string>

#include "common/event_loop.h"
#include "common/result.h"
#include "fuse/mount_options.h"

namespace shoal::fuse {

// Mounts the file system. Must be called before the process has started any thread.
//
// Daemon (the default): returns in the calling process once the mount is usable, or with the error that stopped it;
// the mount lives on in a process and a session of its own, which never returns from here. Ctrl-C before that gives up.
// Foreground: returns when the file system is unmounted (by anyone) or after SIGTERM or SIGINT, which flush and unmount.
//
// Waits for an absent metaserver up to options.timeout (kTimeout then). A dead mount that stands at the mount point
// ("Transport endpoint is not connected") is removed first. Nothing is left behind in any case: no mount, no process,
// no pid file.
Status RunMount(const MountOptions& options);

// How to unmount. A plain value.
struct UnmountOptions {
  bool force = false;      // detach although it is busy; the users' open files fail later
  Duration timeout = 60s;  // how long to wait for the mount's process to write out and end
};

// Unmounts a Shoal mount and waits for the end of its process, which writes out what it has gathered. kNotFound: no
// Shoal mount there; kBusy: the message names the processes that use it. The working directory of this process is "/"
// afterwards.
Status Unmount(const std::string& path, const UnmountOptions& options = {});

}  // namespace shoal::fuse
