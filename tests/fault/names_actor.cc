// A directory's names against a model of them.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/fault/actors.h"

namespace shoal::test {
namespace {

std::string Errno(const std::string& what) { return what + ": " + strerror(errno); }
std::string TextOf(uint64_t content) { return "this is content " + std::to_string(content) + "\n"; }

}  // namespace

NamesActor::NamesActor(const Cluster& cluster, std::string name, uint64_t seed)
    : Actor(std::move(name), seed), directory_(cluster.Path(this->name())) {
  if (mkdir(directory_.c_str(), 0755) != 0) Broken(Errno("mkdir"));
}

std::string NamesActor::RandomName() { return "n" + std::to_string(Below(60)); }

void NamesActor::Create(const std::string& name) {
  if (directories_.contains(name)) return;
  uint64_t content = ++contents_;
  std::string text = TextOf(content);
  int fd = Call([&] { return open(Path(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644); });
  if (fd < 0) return Broken(Errno("create " + name));
  if (Call([&] { return write(fd, text.data(), text.size()); }) != static_cast<ssize_t>(text.size()))
    Broken(Errno("write " + name));
  if (Below(8) == 0 && Call([&] { return fsync(fd); }) != 0) Broken(Errno("fsync " + name));
  if (Call([&] { return close(fd); }) != 0) Broken(Errno("close " + name));
  // A hard link to the old content is cut too.
  auto old = files_.find(name);
  uint64_t before = old == files_.end() ? 0 : old->second;
  for (auto& [other, held] : files_) {
    if (before != 0 && held == before) held = content;
  }
  files_[name] = content;
}

void NamesActor::Rename(const std::string& from, const std::string& to) {
  if (directories_.contains(from) || directories_.contains(to)) return;
  int done = Call([&] { return rename(Path(from).c_str(), Path(to).c_str()); });
  auto it = files_.find(from);
  if (it == files_.end()) {
    if (done == 0 || errno != ENOENT) Broken("rename of " + from + ", which is not there: " + Errno(""));
    return;
  }
  if (done != 0) return Broken(Errno("rename " + from + " " + to));
  uint64_t content = it->second;
  // Two names of one file: nothing happens.
  if (auto target = files_.find(to); target != files_.end() && target->second == content) return;
  files_.erase(it);
  files_[to] = content;
}

void NamesActor::Link(const std::string& from, const std::string& to) {
  if (directories_.contains(from)) return;
  int done = Call([&] { return link(Path(from).c_str(), Path(to).c_str()); });
  bool allowed = files_.contains(from) && !files_.contains(to) && !directories_.contains(to);
  if (allowed != (done == 0))
    return Broken("link " + from + " " + to + ": " + (done == 0 ? "succeeded" : strerror(errno)));
  if (allowed) files_[to] = files_[from];
}

void NamesActor::Unlink(const std::string& name) {
  if (directories_.contains(name)) return;
  int done = Call([&] { return unlink(Path(name).c_str()); });
  bool there = files_.erase(name) > 0;
  if (there != (done == 0)) Broken("unlink " + name + ": " + (done == 0 ? "succeeded" : strerror(errno)));
}

void NamesActor::Directory(const std::string& name) {
  if (directories_.contains(name)) {
    if (Call([&] { return rmdir(Path(name).c_str()); }) != 0) return Broken(Errno("rmdir " + name));
    directories_.erase(name);
  } else if (!files_.contains(name)) {
    if (Call([&] { return mkdir(Path(name).c_str(), 0755); }) != 0) return Broken(Errno("mkdir " + name));
    directories_.insert(name);
  }
}

std::string NamesActor::List() {
  std::set<std::string> found;
  DIR* directory = Call([&] { return opendir(directory_.c_str()); });
  if (!directory) return Errno("opendir");
  errno = 0;
  while (dirent* entry = Call([&] { return readdir(directory); })) {
    std::string name = entry->d_name;
    if (name != "." && name != ".." && !found.insert(name).second) return "listed twice: " + name;
  }
  int error = errno;
  closedir(directory);
  if (error != 0) return std::string("readdir: ") + strerror(error);
  std::set<std::string> wanted = directories_;
  for (const auto& [name, content] : files_) wanted.insert(name);
  if (found == wanted) return {};
  std::string wrong;
  for (const std::string& name : wanted) wrong += found.contains(name) ? "" : " -" + name;
  for (const std::string& name : found) wrong += wanted.contains(name) ? "" : " +" + name;
  return "the listing is wrong:" + wrong;
}

std::string NamesActor::Content(const std::string& name) {
  int fd = Call([&] { return open(Path(name).c_str(), O_RDONLY | O_CLOEXEC); });
  if (fd < 0) return Errno("open " + name);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  char bytes[128];
  ssize_t n = Call([&] { return read(fd, bytes, sizeof bytes); });
  std::string error = n < 0 ? Errno("read " + name) : "";
  close(fd);
  if (!error.empty()) return error;
  std::string wanted = TextOf(files_.at(name));
  return std::string(bytes, static_cast<size_t>(n)) == wanted
             ? ""
             : name + " holds '" + std::string(bytes, static_cast<size_t>(n)) + "', not '" + wanted + "'";
}

void NamesActor::Round() {
  std::string name = RandomName();
  switch (Below(12)) {
    case 0:
      return Directory("d" + std::to_string(Below(5)));
    case 1:
    case 2:
      return Unlink(name);
    case 3:
      return Link(name, RandomName());
    case 4:
    case 5:
    case 6:
      return Rename(name, RandomName());
    case 7:
      if (std::string error = List(); !error.empty()) Broken(error);
      return;
    case 8:
    case 9:
      if (!files_.contains(name)) return;
      if (std::string error = Content(name); !error.empty()) Broken(error);
      return;
    default:
      return Create(name);
  }
}

std::string NamesActor::Verify() {
  std::string error = List();
  for (auto it = files_.begin(); error.empty() && it != files_.end(); ++it) error = Content(it->first);
  return error.empty() ? "" : name() + " in the end: " + error;
}

}  // namespace shoal::test
