// What the commands that walk over files share (fsck, scrub): asking part by part, progress, names.
#pragma once

#include <functional>
#include <string>

#include "common/proto/check.pb.h"
#include "tools/cli/cluster.h"

namespace shoal::cli {

// One line on standard error that is written over, when that is a terminal. One thread; erased by its destructor.
class ProgressLine {
 public:
  explicit ProgressLine(bool wanted);
  ~ProgressLine() { Clear(); }
  bool shown() const { return shown_; }
  // At most a few times a second, unless `now`.
  void Show(const std::string& text, bool now = false);
  void Clear();

 private:
  bool shown_;
  size_t length_ = 0;
  SteadyTime next_{};
};

// PATH, or the whole file system when it is empty.
Result<Target> ResolveTree(const std::string& path, const Options& options, ClientSettings& settings);
// Where a walk begins.
pb::WalkRequest WalkOf(const Target& target);
// The full name of what a walk found: as PATH was written, and what is below.
std::string Below(const Target& target, const std::string& path);
// For people: control characters and bytes that are not UTF-8 as \xNN, so that a name is always one line.
std::string Printable(const std::string& name);

// All parts of an FSCK; `part` is called with each, and the last one is the result.
Result<pb::FsckResponse> WalkFsck(Cluster& cluster, const Target& target,
                                  const std::function<void(const pb::FsckResponse&)>& part);

}  // namespace shoal::cli
