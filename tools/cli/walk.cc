#include "tools/cli/walk.h"

#include <fmt/format.h>
#include <unistd.h>

#include "tools/cli/report.h"

namespace shoal::cli {

ProgressLine::ProgressLine(bool wanted) : shown_(wanted && isatty(STDERR_FILENO)) {}

void ProgressLine::Show(const std::string& text, bool now) {
  auto at = std::chrono::steady_clock::now();
  if (!shown_ || (!now && at < next_)) return;
  next_ = at + 200ms;
  fmt::print(stderr, "\r{:{}}\r{}", "", length_, text);
  fflush(stderr);
  length_ = text.size();
}

void ProgressLine::Clear() {
  if (shown_ && length_ > 0) fmt::print(stderr, "\r{:{}}\r", "", length_);
  length_ = 0;
}

Result<Target> ResolveTree(const std::string& path, const Options& options, ClientSettings& settings) {
  return ResolvePath(path.empty() ? "shoal:/" : path, options, settings);
}

pb::WalkRequest WalkOf(const Target& target) {
  pb::WalkRequest walk;
  if (target.is_inode) {
    walk.set_inode(target.inode.value);
  } else {
    walk.set_path(target.path);
  }
  return walk;
}

std::string Below(const Target& target, const std::string& path) {
  if (path.empty()) return target.shown;
  return target.shown + (target.shown.ends_with('/') ? "" : "/") + path;
}

std::string Printable(const std::string& name) {
  bool utf8 = IsUtf8(name);
  std::string text;
  for (char c : name) {
    auto byte = static_cast<unsigned char>(c);
    bool plain = byte >= 0x20 && byte != 0x7f && (utf8 || byte < 0x80);
    text += plain ? std::string(1, c) : fmt::format("\\x{:02x}", byte);
  }
  return text;
}

Result<pb::FsckResponse> WalkFsck(Cluster& cluster, const Target& target,
                                  const std::function<void(const pb::FsckResponse&)>& part) {
  pb::FsckRequest request;
  *request.mutable_walk() = WalkOf(target);
  for (uint64_t page = 1;; page++) {
    auto answer = cluster.Run(cluster.engine().Fsck(request));
    if (!answer) return Fail(answer.error());
    part(*answer);
    request.mutable_walk()->set_run(answer->run());
    request.mutable_walk()->set_page(page);
    if (!answer->done()) continue;
    request.mutable_walk()->set_end(true);
    (void)cluster.Run(cluster.engine().Fsck(request));  // else it is forgotten after a while
    return *answer;
  }
}

}  // namespace shoal::cli
