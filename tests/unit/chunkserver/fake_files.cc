#include "tests/unit/chunkserver/fake_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace shoal::test {
namespace {

constexpr uint64_t kPage = 4096;
std::string DirectoryOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

class FakeFile : public File {
 public:
  FakeFile(FakeFiles& files, std::shared_ptr<FakeFiles::Node> node, std::string path, bool lock = false)
      : files_(files), node_(std::move(node)), path_(std::move(path)), lock_(lock) {}
  ~FakeFile() override {
    std::lock_guard guard(files_.mutex_);
    if (lock_) node_->locked = false;
  }

  Result<size_t> Read(uint64_t offset, std::span<uint8_t> into) override {
    std::lock_guard guard(files_.mutex_);
    TRY(files_.Check("read", path_));
    size_t n = offset >= node_->size ? 0 : static_cast<size_t>(std::min<uint64_t>(into.size(), node_->size - offset));
    for (size_t i = 0; i < n;) {
      uint64_t at = offset + i;
      size_t take = static_cast<size_t>(std::min<uint64_t>(n - i, kPage - at % kPage));
      auto it = node_->pages.find(at / kPage);
      if (it == node_->pages.end()) {
        std::memset(into.data() + i, 0, take);
      } else {
        std::memcpy(into.data() + i, it->second.data() + at % kPage, take);
      }
      i += take;
    }
    return n;
  }
  Result<size_t> ReadCached(uint64_t offset, std::span<uint8_t> into) override {
    if (!files_.cached) return Fail(ErrorCode::kWouldBlock);
    return Read(offset, into);
  }
  Status Write(uint64_t offset, std::span<const uint8_t> bytes) override {
    std::lock_guard guard(files_.mutex_);
    TRY(files_.Check("write", path_));
    for (size_t i = 0; i < bytes.size();) {
      uint64_t at = offset + i;
      size_t take = static_cast<size_t>(std::min<uint64_t>(bytes.size() - i, kPage - at % kPage));
      auto it = node_->pages.find(at / kPage);
      if (it == node_->pages.end()) {
        if ((files_.pages_in_use_ + 1) * kPage > files_.capacity) return Fail(ErrnoError(ENOSPC, "write " + path_));
        ++files_.pages_in_use_;
        it = node_->pages.emplace(at / kPage, std::string(kPage, '\0')).first;
      }
      std::memcpy(it->second.data() + at % kPage, bytes.data() + i, take);
      i += take;
      node_->size = std::max(node_->size, at + take);
    }
    return {};
  }
  Status SyncData() override {
    std::lock_guard guard(files_.mutex_);
    files_.syncs_.fetch_add(1);
    TRY(files_.Check("sync", path_));
    node_->synced_pages = node_->pages;
    node_->synced_size = node_->size;
    return {};
  }
  Status SyncFileSystem() override {
    std::lock_guard guard(files_.mutex_);
    files_.syncs_.fetch_add(1);
    TRY(files_.Check("sync", path_));
    files_.SyncAll();
    return {};
  }
  Status Truncate(uint64_t size) override {
    std::lock_guard guard(files_.mutex_);
    TRY(files_.Check("truncate", path_));
    node_->size = size;
    auto behind = node_->pages.lower_bound((size + kPage - 1) / kPage);
    files_.pages_in_use_ -= static_cast<uint64_t>(std::distance(behind, node_->pages.end()));
    node_->pages.erase(behind, node_->pages.end());
    return {};
  }
  Status PunchHole(uint64_t offset, uint64_t length) override {
    std::lock_guard guard(files_.mutex_);
    TRY(files_.Check("punch", path_));
    auto first = node_->pages.lower_bound(offset / kPage);
    auto last = node_->pages.lower_bound((offset + length) / kPage);
    files_.pages_in_use_ -= static_cast<uint64_t>(std::distance(first, last));
    node_->pages.erase(first, last);
    return {};
  }
  Result<uint64_t> Size() override {
    std::lock_guard guard(files_.mutex_);
    return node_->size;
  }
  Result<uint64_t> AllocatedBytes() override {
    std::lock_guard guard(files_.mutex_);
    return node_->pages.size() * kPage;
  }

 private:
  FakeFiles& files_;
  std::shared_ptr<FakeFiles::Node> node_;
  std::string path_;
  bool lock_;
};

Status FakeFiles::Check(const std::string& call, const std::string& path) {
  int error = fails(call, path);
  return error ? Fail(ErrnoError(error, call + " " + path)) : Status();
}

void FakeFiles::FlipBit(const std::string& path, uint64_t offset, int bit) {
  std::lock_guard guard(mutex_);
  auto& node = names_.at(path);
  auto& page = node->pages[offset / kPage];
  page.resize(kPage, '\0');
  page[offset % kPage] = static_cast<char>(page[offset % kPage] ^ (1 << bit));
}

std::string FakeFiles::Content(const std::string& path, uint64_t offset, size_t size) {
  auto file = Open(path, Mode::kRead);
  std::string content(size, '\0');
  if (!file) return {};
  auto n = (*file)->Read(offset, {reinterpret_cast<uint8_t*>(content.data()), size});
  content.resize(n ? *n : 0);
  return content;
}

std::vector<std::string> FakeFiles::Paths() const {
  std::lock_guard guard(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, node] : names_) paths.push_back(path);
  return paths;
}

void FakeFiles::SyncAll() {
  std::lock_guard guard(mutex_);
  for (auto& [name, node] : names_) {
    node->synced_pages = node->pages;
    node->synced_size = node->size;
  }
  synced_names_ = names_;
}

void FakeFiles::PowerCut(std::mt19937_64* random) {
  std::lock_guard guard(mutex_);
  ++boot_;
  auto keep = [&] { return random && (*random)() % 2 == 0; };
  std::map<std::string, std::shared_ptr<Node>> names = synced_names_;
  for (const auto& [path, node] : names_) {
    if (keep()) names[path] = node;
  }
  names_ = synced_names_ = names;
  pages_in_use_ = 0;
  for (auto& [path, node] : names_) {
    Pages after = node->synced_pages;
    for (const auto& [number, page] : node->pages) {
      for (uint64_t at = 0; at < kPage; at += sector) {
        if (keep()) after.try_emplace(number, kPage, '\0').first->second.replace(at, sector, page, at, sector);
      }
    }
    node->size = keep() ? node->size : node->synced_size;
    std::erase_if(after, [&](const auto& p) { return p.first * kPage >= node->size; });
    node->pages = node->synced_pages = std::move(after);
    node->synced_size = node->size;
    node->locked = false;
    pages_in_use_ += node->pages.size();
  }
}

Result<std::unique_ptr<File>> FakeFiles::Open(const std::string& path, Mode mode) {
  std::lock_guard guard(mutex_);
  TRY(Check("open", path));
  if (mode != Mode::kRead) {
    TRY(Check("open to write", path));
  }
  auto it = names_.find(path);
  if (mode == Mode::kCreate) {
    if (it != names_.end()) return Fail(ErrnoError(EEXIST, "open " + path));
    if (!directories_.contains(DirectoryOf(path))) return Fail(ErrnoError(ENOENT, "open " + path));
    it = names_.emplace(path, std::make_shared<Node>()).first;
  }
  if (it == names_.end()) return Fail(ErrnoError(ENOENT, "open " + path));
  return std::make_unique<FakeFile>(*this, it->second, path);
}

Result<std::vector<std::string>> FakeFiles::List(const std::string& path) {
  std::lock_guard guard(mutex_);
  TRY(Check("list", path));
  if (!directories_.contains(path)) return Fail(ErrnoError(ENOENT, "list " + path));
  std::vector<std::string> found;
  auto add = [&](const std::string& name) {
    if (name.size() > path.size() + 1 && DirectoryOf(name) == path) found.push_back(name.substr(path.size() + 1));
  };
  for (const auto& [name, node] : names_) add(name);
  for (const auto& name : directories_) add(name);
  return found;
}

Status FakeFiles::CreateDirectory(const std::string& path) {
  std::lock_guard guard(mutex_);
  return directories_.insert(path).second ? Status() : Fail(ErrnoError(EEXIST, "make directory " + path));
}

Status FakeFiles::Rename(const std::string& from, const std::string& to) {
  std::lock_guard guard(mutex_);
  TRY(Check("rename", from));
  auto it = names_.find(from);
  if (it == names_.end()) return Fail(ErrnoError(ENOENT, "rename " + from));
  auto node = it->second;
  names_.erase(it);
  names_[to] = node;
  return {};
}

Status FakeFiles::Unlink(const std::string& path) {
  std::lock_guard guard(mutex_);
  TRY(Check("unlink", path));
  auto it = names_.find(path);
  if (it == names_.end()) return Fail(ErrnoError(ENOENT, "unlink " + path));
  pages_in_use_ -= it->second->pages.size();
  names_.erase(it);
  return {};
}

Status FakeFiles::SyncDirectory(const std::string& path) {
  std::lock_guard guard(mutex_);
  TRY(Check("sync directory", path));
  std::erase_if(synced_names_, [&](const auto& n) { return DirectoryOf(n.first) == path; });
  for (const auto& [name, node] : names_) {
    if (DirectoryOf(name) == path) synced_names_[name] = node;
  }
  return {};
}

Result<FileSystemSpace> FakeFiles::Space(const std::string& path) {
  std::lock_guard guard(mutex_);
  TRY(Check("space", path));
  uint64_t used = pages_in_use_ * kPage;
  return FileSystemSpace{capacity, capacity > used ? capacity - used : 0, 1};
}

Result<std::unique_ptr<File>> FakeFiles::Lock(const std::string& path) {
  std::lock_guard guard(mutex_);
  auto& node = names_[path];
  if (!node) node = std::make_shared<Node>();
  if (node->locked) return Fail(ErrorCode::kBusy, path + " is locked");
  node->locked = true;
  return std::make_unique<FakeFile>(*this, node, path, true);
}

}  // namespace shoal::test
