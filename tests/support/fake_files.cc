#include "tests/support/fake_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

namespace shoal::test {
namespace {

constexpr uint64_t kPage = 4096;

std::shared_ptr<std::string> NewPage() { return std::make_shared<std::string>(kPage, '\0'); }

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
        std::memcpy(into.data() + i, it->second->data() + at % kPage, take);
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
    TRY_ASSIGN(bool goes_on, files_.Begin("write", path_));
    for (size_t i = 0; goes_on && i < bytes.size();) {
      uint64_t at = offset + i;
      size_t take = static_cast<size_t>(std::min<uint64_t>(bytes.size() - i, kPage - at % kPage));
      TRY_ASSIGN(std::string * page, ToWrite(at / kPage));
      std::memcpy(page->data() + at % kPage, bytes.data() + i, take);
      i += take;
      node_->size = std::max(node_->size, at + take);
    }
    return {};
  }
  Status SyncData() override {
    std::lock_guard guard(files_.mutex_);
    files_.syncs_.fetch_add(1);
    TRY_ASSIGN(bool goes_on, files_.Begin("sync", path_));
    if (!goes_on) return {};
    node_->on_disk.clear();
    node_->synced_size = node_->size;
    return {};
  }
  Status SyncFileSystem() override {
    std::lock_guard guard(files_.mutex_);
    files_.syncs_.fetch_add(1);
    TRY_ASSIGN(bool goes_on, files_.Begin("sync", path_));
    if (goes_on) files_.SyncAll();
    return {};
  }
  Status Truncate(uint64_t size) override {
    std::lock_guard guard(files_.mutex_);
    TRY_ASSIGN(bool goes_on, files_.Begin("truncate", path_));
    if (!goes_on) return {};
    if (size < node_->size) {
      Erase((size + kPage - 1) / kPage, UINT64_MAX);
      if (size % kPage != 0 && node_->pages.contains(size / kPage)) {
        TRY_ASSIGN(std::string * page, ToWrite(size / kPage));
        std::fill(page->begin() + static_cast<ptrdiff_t>(size % kPage), page->end(), '\0');
      }
    }
    node_->size = size;
    return {};
  }
  Status PunchHole(uint64_t offset, uint64_t length) override {
    std::lock_guard guard(files_.mutex_);
    TRY_ASSIGN(bool goes_on, files_.Begin("punch", path_));
    if (goes_on) Erase(offset / kPage, (offset + length) / kPage);
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
  // Remembers what the disk has of a page that is about to change.
  void Remember(uint64_t number) {
    auto it = node_->pages.find(number);
    auto [kept, first] = node_->on_disk.try_emplace(number, it == node_->pages.end() ? nullptr : it->second);
    if (!first && files_.write_back_ && (*files_.write_back_)() % 4 == 0) {
      kept->second = it == node_->pages.end() ? nullptr : it->second;  // written back before this change
    }
  }
  Result<std::string*> ToWrite(uint64_t number) {
    Remember(number);
    auto it = node_->pages.find(number);
    if (it == node_->pages.end()) {
      if ((files_.pages_in_use_ + 1) * kPage > files_.capacity) return Fail(ErrnoError(ENOSPC, "write " + path_));
      ++files_.pages_in_use_;
      it = node_->pages.emplace(number, NewPage()).first;
    } else if (it->second.use_count() > 1) {
      it->second = std::make_shared<std::string>(*it->second);
    }
    return it->second.get();
  }
  void Erase(uint64_t first_page, uint64_t end_page) {
    auto first = node_->pages.lower_bound(first_page);
    auto last = node_->pages.lower_bound(end_page);
    for (auto it = first; it != last; ++it) Remember(it->first);
    files_.pages_in_use_ -= static_cast<uint64_t>(std::distance(first, last));
    node_->pages.erase(first, last);
  }

  FakeFiles& files_;
  std::shared_ptr<FakeFiles::Node> node_;
  std::string path_;
  bool lock_;
};

FakeFiles::FakeFiles(std::shared_ptr<std::recursive_mutex> mutex)
    : shared_mutex_(std::move(mutex)), mutex_(*shared_mutex_), root_(std::make_shared<Node>(Node{.directory = true})) {}

Status FakeFiles::Check(const std::string& call, const std::string& path) const {
  int error = fails(call, path);
  return error > 0 ? Fail(ErrnoError(error, call + " " + path)) : Status();
}

Result<bool> FakeFiles::Begin(const std::string& call, const std::string& path) {
  int error = fails(call, path);
  if (error > 0) return Fail(ErrnoError(error, call + " " + path));
  if (error == kLeaveOut) return false;
  if (before) before(call, path);
  return true;
}

FakeFiles::NodePtr FakeFiles::Find(const std::string& path) const {
  NodePtr node = root_;
  for (size_t at = 0; node && at < path.size();) {
    size_t end = std::min(path.find('/', at), path.size());
    std::string name = path.substr(at, end - at);
    at = end + 1;
    if (name.empty()) continue;
    auto it = node->entries.find(name);
    node = it == node->entries.end() ? nullptr : it->second;
  }
  return node;
}

Result<FakeFiles::Place> FakeFiles::PlaceOf(const std::string& call, const std::string& path) const {
  size_t slash = path.rfind('/');
  NodePtr directory = slash == std::string::npos ? nullptr : Find(path.substr(0, slash));
  if (!directory || !directory->directory) return Fail(ErrnoError(ENOENT, call + " " + path));
  return Place{directory, path.substr(slash + 1)};
}

// Both as it is now and in the list of what is not durable.
void FakeFiles::Change(Place from, Place to, NodePtr node) {
  if (from.directory) from.directory->entries.erase(from.name);
  if (to.directory) to.directory->entries[to.name] = node;
  changes_.push_back({std::move(from), std::move(to), std::move(node)});
}

void FakeFiles::FlipBit(const std::string& path, uint64_t offset, int bit) {
  std::lock_guard guard(mutex_);
  auto& page = Find(path)->pages[offset / kPage];
  page = page ? std::make_shared<std::string>(*page) : NewPage();
  (*page)[offset % kPage] = static_cast<char>((*page)[offset % kPage] ^ (1 << bit));
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
  std::vector<std::pair<std::string, NodePtr>> left{{"", root_}};
  while (!left.empty()) {
    auto [path, node] = std::move(left.back());
    left.pop_back();
    if (!node->directory) paths.push_back(path);
    for (const auto& [name, child] : node->entries) left.emplace_back(path + "/" + name, child);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void FakeFiles::SyncNode(Node& node) {
  node.on_disk.clear();
  node.synced_size = node.size;
  node.synced_entries = node.entries;
  for (auto& [name, child] : node.entries) SyncNode(*child);
}

void FakeFiles::SyncAll() {
  std::lock_guard guard(mutex_);
  SyncNode(*root_);
  changes_.clear();
}

// Makes the copy of a tree that AfterPowerCut or Copy gives.
class FakeFiles::Cut {
 public:
  Cut(const FakeFiles& files, std::mt19937_64* random) : files_(files), random_(random) {
    std::vector<bool> kept;
    for (size_t i = 0; i < files.changes_.size(); ++i) kept.push_back(Keep());
    kept = WithThoseBefore(files.changes_, std::move(kept));
    for (size_t i = 0; i < kept.size(); ++i) {
      const NameChange& change = files.changes_[i];
      if (!kept[i]) continue;
      if (change.from.directory) EntriesOf(change.from.directory).erase(change.from.name);
      if (change.to.directory) EntriesOf(change.to.directory)[change.to.name] = change.node;
    }
  }
  NodePtr Tree(const NodePtr& node) {
    NodePtr& made = made_[node.get()];
    if (made) return made;
    made = std::make_shared<Node>(Node{.directory = node->directory});
    NodePtr result = made;
    if (!node->directory) {
      CutFile(*node, *result);
    } else {
      for (const auto& [name, child] : EntriesOf(node)) result->entries[name] = Tree(child);
      result->synced_entries = result->entries;
    }
    return result;
  }

 private:
  bool Keep() { return random_ && (*random_)() % 2 == 0; }
  Entries& EntriesOf(const NodePtr& directory) {
    return entries_.try_emplace(directory.get(), directory->synced_entries).first->second;
  }
  uint64_t SizeOf(const Node& from) {
    if (!Keep()) return from.synced_size;
    if (from.size <= from.synced_size || (*random_)() % 4 != 0) return from.size;
    return from.synced_size + (*random_)() % (from.size - from.synced_size);
  }
  void CutFile(const Node& from, Node& to) {
    to.pages = from.pages;
    for (const auto& [number, disk] : from.on_disk) {
      auto now = from.pages.find(number);
      PagePtr page = Torn(disk, now == from.pages.end() ? nullptr : now->second);
      if (page) to.pages[number] = page;
      if (!page) to.pages.erase(number);
    }
    to.size = to.synced_size = SizeOf(from);
    to.pages.erase(to.pages.lower_bound((to.size + kPage - 1) / kPage), to.pages.end());
    auto last = to.pages.find(to.size / kPage);
    if (last == to.pages.end()) return;
    last->second = std::make_shared<std::string>(*last->second);
    std::fill(last->second->begin() + static_cast<ptrdiff_t>(to.size % kPage), last->second->end(), '\0');
  }
  // Each sector as it was or as it is.
  PagePtr Torn(const PagePtr& disk, const PagePtr& now) {
    if (!random_) return disk;
    if (files_.sector == kPage) return Keep() ? now : disk;
    PagePtr page = disk ? std::make_shared<std::string>(*disk) : NewPage();
    bool any = disk != nullptr;
    for (uint64_t at = 0; at < kPage; at += files_.sector) {
      if (!Keep()) continue;
      any = true;
      if (now) page->replace(at, files_.sector, *now, at, files_.sector);
      if (!now) page->replace(at, files_.sector, files_.sector, '\0');
    }
    return any ? page : nullptr;
  }

  const FakeFiles& files_;
  std::mt19937_64* random_;
  std::map<const Node*, Entries> entries_;
  std::map<const Node*, NodePtr> made_;
};

std::unique_ptr<FakeFiles> FakeFiles::AfterPowerCut(std::mt19937_64* random) const {
  std::lock_guard guard(mutex_);
  auto after = std::make_unique<FakeFiles>();
  after->root_ = Cut(*this, random).Tree(root_);
  after->boot_ = boot_ + 1;
  after->sector = sector;
  after->Recount();
  return after;
}

void FakeFiles::PowerCut(std::mt19937_64* random) {
  std::lock_guard guard(mutex_);
  root_ = AfterPowerCut(random)->root_;
  changes_.clear();
  ++boot_;
  Recount();
}

std::unique_ptr<FakeFiles> FakeFiles::Copy() const {
  std::lock_guard guard(mutex_);
  auto copy = std::make_unique<FakeFiles>();
  std::map<const Node*, NodePtr> made;
  std::function<NodePtr(const NodePtr&)> of = [&](const NodePtr& node) -> NodePtr {
    if (!node) return nullptr;
    NodePtr& place = made[node.get()];
    if (place) return place;
    NodePtr result = place = std::make_shared<Node>(*node);
    result->locked = false;
    for (auto& [name, child] : result->entries) child = of(child);
    for (auto& [name, child] : result->synced_entries) child = of(child);
    return result;
  };
  copy->root_ = of(root_);
  for (const NameChange& c : changes_) {
    copy->changes_.push_back({{of(c.from.directory), c.from.name}, {of(c.to.directory), c.to.name}, of(c.node)});
  }
  copy->boot_ = boot_.load();
  copy->sector = sector;
  copy->write_back_ = write_back_;
  copy->Recount();
  return copy;
}

void FakeFiles::Recount() {
  pages_in_use_ = 0;
  std::vector<NodePtr> left{root_};
  while (!left.empty()) {
    NodePtr node = std::move(left.back());
    left.pop_back();
    pages_in_use_ += node->pages.size();
    for (const auto& [name, child] : node->entries) left.push_back(child);
  }
}

Result<std::unique_ptr<File>> FakeFiles::Open(const std::string& path, Mode mode) {
  std::lock_guard guard(mutex_);
  TRY(Check("open", path));
  if (mode != Mode::kRead) {
    TRY(Check("open to write", path));
  }
  NodePtr node = Find(path);
  if (mode == Mode::kCreate) {
    if (node) return Fail(ErrnoError(EEXIST, "open " + path));
    TRY_ASSIGN(Place place, PlaceOf("open", path));
    if (before) before("create", path);
    node = std::make_shared<Node>();
    Change({}, std::move(place), node);
  }
  if (!node) return Fail(ErrnoError(ENOENT, "open " + path));
  if (node->directory) return Fail(ErrnoError(EISDIR, "open " + path));
  return std::make_unique<FakeFile>(*this, node, path);
}

Result<std::vector<std::string>> FakeFiles::List(const std::string& path) {
  std::lock_guard guard(mutex_);
  TRY(Check("list", path));
  NodePtr node = Find(path);
  if (!node || !node->directory) return Fail(ErrnoError(node ? ENOTDIR : ENOENT, "list " + path));
  std::vector<std::string> found;
  for (const auto& [name, child] : node->entries) found.push_back(name);
  return found;
}

Status FakeFiles::CreateDirectory(const std::string& path) {
  std::lock_guard guard(mutex_);
  if (Find(path)) return Fail(ErrnoError(EEXIST, "make directory " + path));
  TRY_ASSIGN(Place place, PlaceOf("make directory", path));
  if (before) before("create directory", path);
  Change({}, std::move(place), std::make_shared<Node>(Node{.directory = true}));
  return {};
}

Status FakeFiles::Rename(const std::string& from, const std::string& to) {
  std::lock_guard guard(mutex_);
  TRY_ASSIGN(bool goes_on, Begin("rename", from));
  NodePtr node = Find(from);
  if (!node) return Fail(ErrnoError(ENOENT, "rename " + from));
  TRY_ASSIGN(Place source, PlaceOf("rename", from));
  TRY_ASSIGN(Place target, PlaceOf("rename", to));
  NodePtr there = Find(to);
  if (there && there->directory && !there->entries.empty()) return Fail(ErrnoError(ENOTEMPTY, "rename to " + to));
  if (goes_on) Change(std::move(source), std::move(target), std::move(node));
  return {};
}

Status FakeFiles::Remove(const std::string& call, const std::string& path, bool directory) {
  std::lock_guard guard(mutex_);
  TRY_ASSIGN(bool goes_on, Begin(call, path));
  NodePtr node = Find(path);
  if (!node) return Fail(ErrnoError(ENOENT, call + " " + path));
  if (node->directory != directory) return Fail(ErrnoError(directory ? ENOTDIR : EISDIR, call + " " + path));
  if (!node->entries.empty()) return Fail(ErrnoError(ENOTEMPTY, call + " " + path));
  TRY_ASSIGN(Place place, PlaceOf(call, path));
  if (!goes_on) return {};
  pages_in_use_ -= node->pages.size();
  Change(std::move(place), {}, nullptr);
  return {};
}

Status FakeFiles::Unlink(const std::string& path) { return Remove("unlink", path, false); }
Status FakeFiles::RemoveDirectory(const std::string& path) { return Remove("remove directory", path, true); }

Status FakeFiles::Link(const std::string& from, const std::string& to) {
  std::lock_guard guard(mutex_);
  NodePtr node = Find(from);
  if (!node) return Fail(ErrnoError(ENOENT, "link " + from));
  if (Find(to)) return Fail(ErrnoError(EEXIST, "link " + to));
  TRY_ASSIGN(Place place, PlaceOf("link", to));
  if (before) before("create", to);
  Change({}, std::move(place), std::move(node));
  return {};
}

Result<bool> FakeFiles::Exists(const std::string& path) {
  std::lock_guard guard(mutex_);
  return Find(path) != nullptr;
}

std::vector<bool> FakeFiles::WithThoseBefore(const std::vector<NameChange>& changes, std::vector<bool> wanted) {
  std::set<std::pair<const Node*, std::string>> needed;
  for (size_t i = changes.size(); i-- > 0;) {
    for (const Place* place : {&changes[i].from, &changes[i].to}) {
      if (needed.contains({place->directory.get(), place->name})) wanted[i] = true;
    }
    for (const Place* place : {&changes[i].from, &changes[i].to}) {
      if (wanted[i] && place->directory) needed.emplace(place->directory.get(), place->name);
    }
  }
  return wanted;
}

Status FakeFiles::SyncDirectory(const std::string& path) {
  std::lock_guard guard(mutex_);
  TRY_ASSIGN(bool goes_on, Begin("sync directory", path));
  NodePtr directory = Find(path);
  if (!directory || !directory->directory) return Fail(ErrnoError(ENOENT, "sync directory " + path));
  if (!goes_on) return {};
  std::vector<bool> now;
  for (const NameChange& c : changes_) now.push_back(c.from.directory == directory || c.to.directory == directory);
  now = WithThoseBefore(changes_, std::move(now));
  std::vector<NameChange> later;
  for (size_t i = 0; i < now.size(); ++i) {
    const NameChange& change = changes_[i];
    if (!now[i]) later.push_back(change);
    if (now[i] && change.from.directory) change.from.directory->synced_entries.erase(change.from.name);
    if (now[i] && change.to.directory) change.to.directory->synced_entries[change.to.name] = change.node;
  }
  changes_ = std::move(later);
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
  NodePtr node = Find(path);
  if (!node) {
    TRY_ASSIGN(Place place, PlaceOf("lock", path));
    node = std::make_shared<Node>();
    Change({}, std::move(place), node);
  }
  if (node->locked) return Fail(ErrorCode::kBusy, path + " is locked");
  node->locked = true;
  return std::make_unique<FakeFile>(*this, node, path, true);
}

}  // namespace shoal::test
