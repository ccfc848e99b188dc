// The engine against real servers in this process.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <random>

#include "client/engine.h"
#include "common/proto/meta.pb.h"
#include "tests/support/cluster.h"

namespace shoal::client {
namespace {

using testing::Cluster;

std::string RandomBytes(size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, 0);
  for (size_t i = 0; i + 8 <= size; i += 8) {
    uint64_t n = random();
    std::memcpy(bytes.data() + i, &n, 8);
  }
  return bytes;
}

// An engine on a loop of its own, with calls that wait.
class Client {
 public:
  explicit Client(const Cluster& cluster, Duration timeout = 60s) : loop_("client") {
    ClientOptions options;
    options.meta = {cluster.meta_address()};
    options.key = ClusterKey::ForTest();
    options.name = "test";
    options.timeout = timeout;
    options.read_ahead = 0;
    loop_.Start();
    loop_.Sync([&] { engine_ = std::make_unique<Engine>(loop_, std::move(options), metrics_); });
    Status started = RunOn(loop_, engine_->Start());
    EXPECT_TRUE(started) << ToString(started.error());
  }
  ~Client() {
    if (!stopped_) (void)Stop();
    loop_.Sync([&] { engine_.reset(); });
  }
  Status Stop() {
    stopped_ = true;
    return RunOn(loop_, engine_->Stop());
  }
  Engine& engine() { return *engine_; }
  Metrics& metrics() { return metrics_; }

  template <typename T>
  T Run(Task<T> task) {
    return RunOn(loop_, std::move(task));
  }
  HandlePtr Create(const std::string& name, InodeId parent = kRootInode, int flags = O_RDWR) {
    Result<Opened> opened = Run(engine_->Create(cred_, parent, name, 0644, flags));
    EXPECT_TRUE(opened) << ToString(opened.error());
    return opened ? std::move(opened->handle) : nullptr;
  }
  HandlePtr Open(InodeId inode, int flags = O_RDWR) {
    Result<Opened> opened = Run(engine_->Open(cred_, inode, flags));
    EXPECT_TRUE(opened) << ToString(opened.error());
    return opened ? std::move(opened->handle) : nullptr;
  }
  void Write(Handle& handle, uint64_t offset, std::string_view bytes) {
    for (size_t at = 0; at < bytes.size(); at += 1 << 20) {
      Result<uint64_t> done = Run(engine_->Write(handle, offset + at, Buffer::CopyOf(bytes.substr(at, 1 << 20))));
      ASSERT_TRUE(done) << ToString(done.error());
    }
  }
  std::string Read(Handle& handle, uint64_t offset, size_t length) {
    std::string all;
    while (all.size() < length) {
      Result<Payload> part = Run(engine_->Read(handle, offset + all.size(), std::min<size_t>(length - all.size(), 4 << 20)));
      EXPECT_TRUE(part) << ToString(part.error());
      if (!part || PayloadSize(*part) == 0) break;
      for (const Buffer& b : *part) all += b.view();
    }
    return all;
  }
  void Close(HandlePtr handle) {
    Status closed = Run(engine_->Release(std::move(handle)));
    EXPECT_TRUE(closed) << ToString(closed.error());
  }
  const Cred& cred() const { return cred_; }

 private:
  Cred cred_;
  Metrics metrics_;
  EventLoop loop_;
  std::unique_ptr<Engine> engine_;
  bool stopped_ = false;
};

TEST(ClientCluster, NamesAndAttributes) {
  Cluster cluster;
  Client client(cluster);
  Engine& e = client.engine();
  Result<Attr> dir = client.Run(e.Mkdir(client.cred(), kRootInode, "d", 0755));
  ASSERT_TRUE(dir) << ToString(dir.error());
  HandlePtr file = client.Create("f", dir->inode);
  InodeId inode = file->inode();
  client.Write(*file, 0, "hello");
  Result<Attr> attr = client.Run(e.GetAttr(client.cred(), inode));
  ASSERT_TRUE(attr);
  EXPECT_EQ(attr->size, 5u);  // not written out yet
  client.Close(std::move(file));
  Result<Attr> found = client.Run(e.Lookup(client.cred(), dir->inode, "f"));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->inode, inode);
  EXPECT_EQ(found->size, 5u);
  ASSERT_TRUE(client.Run(e.Symlink(client.cred(), dir->inode, "l", "f")));
  ASSERT_TRUE(client.Run(e.Link(client.cred(), inode, kRootInode, "g")));
  Result<DirPage> page = client.Run(e.ReadDir(client.cred(), dir->inode, 0, 100, 1 << 20, true));
  ASSERT_TRUE(page);
  EXPECT_EQ(page->entries.size(), 2u);
  EXPECT_TRUE(page->end);
  Result<Attr> again = client.Run(e.Mkdir(client.cred(), kRootInode, "d", 0755));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kExists);
  ASSERT_TRUE(client.Run(e.Rename(client.cred(), dir->inode, "f", kRootInode, "h", 0)));
  EXPECT_FALSE(client.Run(e.Lookup(client.cred(), dir->inode, "f")));
  ASSERT_TRUE(client.Run(e.SetXattr(client.cred(), inode, "user.a", "b", 0)));
  EXPECT_EQ(*client.Run(e.GetXattr(client.cred(), inode, "user.a")), "b");
  Result<FsStat> fs = client.Run(e.StatFs(client.cred()));
  ASSERT_TRUE(fs);
  EXPECT_GT(fs->free_bytes, 0u);
}

TEST(ClientCluster, WriteReadTruncateHoles) {
  Cluster cluster;
  Client client(cluster);
  Engine& e = client.engine();
  std::string data = RandomBytes(150 << 20, 1);  // three chunks
  HandlePtr file = client.Create("big");
  InodeId inode = file->inode();
  client.Write(*file, 0, data);
  EXPECT_EQ(client.Read(*file, 70 << 20, 5 << 20), data.substr(70 << 20, 5 << 20));
  ASSERT_TRUE(client.Run(e.Fsync(*file, false)));
  client.Close(std::move(file));

  Client other(cluster);
  HandlePtr seen = other.Open(inode, O_RDONLY);
  EXPECT_TRUE(other.Read(*seen, 0, data.size() + 100) == data);
  other.Close(std::move(seen));

  file = client.Open(inode);
  AttrChange cut;
  cut.size = (64 << 20) + 1000;
  ASSERT_TRUE(client.Run(e.SetAttr(client.cred(), inode, cut, file.get())));
  cut.size = 80 << 20;
  ASSERT_TRUE(client.Run(e.SetAttr(client.cred(), inode, cut, file.get())));
  std::string want = data.substr(0, (64 << 20) + 1000);
  want.resize(80 << 20, 0);
  EXPECT_TRUE(client.Read(*file, 0, 100 << 20) == want);
  Result<uint64_t> hole = client.Run(e.SeekHole(*file, 0));
  ASSERT_TRUE(hole);
  EXPECT_EQ(*hole, (64u << 20) + 4096);
  EXPECT_FALSE(client.Run(e.SeekData(*file, *hole)));
  ASSERT_TRUE(client.Run(e.Fallocate(*file, 3, 1 << 20, 1 << 20)));
  std::fill(want.begin() + (1 << 20), want.begin() + (2 << 20), 0);
  EXPECT_TRUE(client.Read(*file, 0, 100 << 20) == want);
  Result<uint64_t> first_hole = client.Run(e.SeekHole(*file, 0));
  ASSERT_TRUE(first_hole);
  EXPECT_EQ(*first_hole, 1u << 20);

  HandlePtr copy = client.Create("copy");
  Result<uint64_t> copied = client.Run(e.CopyRange(*file, 0, *copy, 0, 1 << 30));
  ASSERT_TRUE(copied) << ToString(copied.error());
  EXPECT_EQ(*copied, want.size());
  EXPECT_TRUE(client.Read(*copy, 0, 100 << 20) == want);
  client.Close(std::move(copy));
  client.Close(std::move(file));
}

TEST(ClientCluster, ACopyThatEndsInAHoleIsAsLong) {
  Cluster cluster;
  Client client(cluster);
  Engine& e = client.engine();
  HandlePtr file = client.Create("sparse");
  client.Write(*file, 0, "data");
  AttrChange longer;
  longer.size = 200 << 20;
  ASSERT_TRUE(client.Run(e.SetAttr(client.cred(), file->inode(), longer, file.get())));
  HandlePtr copy = client.Create("copy");
  InodeId inode = copy->inode();
  Result<uint64_t> copied = client.Run(e.CopyRange(*file, 0, *copy, 0, 1 << 30));
  ASSERT_TRUE(copied) << ToString(copied.error());
  client.Close(std::move(copy));
  client.Close(std::move(file));
  Result<Attr> attr = client.Run(e.GetAttr(client.cred(), inode));
  ASSERT_TRUE(attr);
  EXPECT_EQ(attr->size, 200u << 20);
}

TEST(ClientCluster, AgainstAByteModel) {
  Cluster cluster;
  Client client(cluster);
  Engine& e = client.engine();
  std::mt19937 random(7);
  HandlePtr file = client.Create("model");
  std::string model;
  constexpr size_t kBase = (64 << 20) - 500'000;  // around a chunk's end
  for (int step = 0; step < 400; ++step) {
    uint32_t kind = random() % 100;
    if (kind < 60) {
      size_t offset = kBase + random() % 1'000'000;
      std::string bytes = RandomBytes(1 + random() % (kind < 10 ? 300'000 : 9000), random());
      if (model.size() < offset + bytes.size()) model.resize(offset + bytes.size(), 0);
      model.replace(offset, bytes.size(), bytes);
      client.Write(*file, offset, bytes);
    } else if (kind < 90) {
      size_t offset = kBase + random() % 1'200'000;
      size_t length = random() % 100'000;
      std::string want = offset < model.size() ? model.substr(offset, length) : "";
      ASSERT_TRUE(client.Read(*file, offset, length) == want) << "step " << step;
    } else if (kind < 94) {
      AttrChange change;
      change.size = kBase + random() % 1'000'000;
      ASSERT_TRUE(client.Run(e.SetAttr(client.cred(), file->inode(), change, file.get())));
      model.resize(*change.size, 0);
    } else if (kind < 97) {
      ASSERT_TRUE(client.Run(e.Fsync(*file, kind == 94)));
    } else {
      ASSERT_TRUE(client.Run(e.Flush(*file)));
    }
    Result<Attr> attr = client.Run(e.GetAttr(client.cred(), file->inode()));
    ASSERT_TRUE(attr);
    ASSERT_EQ(attr->size, model.size()) << "step " << step;
  }
  InodeId inode = file->inode();
  client.Close(std::move(file));
  Client other(cluster);
  HandlePtr seen = other.Open(inode, O_RDONLY);
  EXPECT_TRUE(other.Read(*seen, 0, model.size() + 1) == model);
  other.Close(std::move(seen));
}

TEST(ClientCluster, ManySmallFiles) {
  Cluster cluster;
  Client client(cluster);
  for (int i = 0; i < 200; ++i) {
    HandlePtr file = client.Create("f" + std::to_string(i));
    client.Write(*file, 0, RandomBytes(1000 + i, i));
    client.Close(std::move(file));
  }
  for (int i = 0; i < 200; ++i) {
    Result<Attr> attr = client.Run(client.engine().Lookup(client.cred(), kRootInode, "f" + std::to_string(i)));
    ASSERT_TRUE(attr);
    HandlePtr file = client.Open(attr->inode, O_RDONLY);
    ASSERT_EQ(client.Read(*file, 0, 4096), RandomBytes(1000 + i, i));
    client.Close(std::move(file));
  }
  ASSERT_TRUE(client.Run(client.engine().SyncAll(client.cred())));
  EXPECT_EQ(client.engine().dirty_bytes(), 0u);
}

TEST(ClientCluster, AChunkserverEndsWhileWritingAndReading) {
  Cluster cluster;
  Client client(cluster);
  std::string data = RandomBytes(40 << 20, 3);
  HandlePtr file = client.Create("f");
  client.Write(*file, 0, data.substr(0, 20 << 20));
  cluster.StopChunk(1);
  client.Write(*file, 20 << 20, data.substr(20 << 20));
  Status synced = client.Run(client.engine().Fsync(*file, false));
  ASSERT_TRUE(synced) << ToString(synced.error());
  EXPECT_TRUE(client.Read(*file, 0, data.size()) == data);
  cluster.StartChunk(1);
  EXPECT_TRUE(client.Read(*file, 0, data.size()) == data);
  client.Write(*file, 0, "changed");
  data.replace(0, 7, "changed");
  InodeId inode = file->inode();
  client.Close(std::move(file));
  Client other(cluster);
  HandlePtr seen = other.Open(inode, O_RDONLY);
  EXPECT_TRUE(other.Read(*seen, 0, data.size()) == data);
  other.Close(std::move(seen));
}

TEST(ClientCluster, TheMetaserverStartsAgain) {
  Cluster cluster;
  Client client(cluster);
  Engine& e = client.engine();
  HandlePtr file = client.Create("f");
  client.Write(*file, 0, "before");
  ASSERT_TRUE(client.Run(e.Flush(*file)));
  LockRange range;
  range.exclusive = true;
  ASSERT_TRUE(client.Run(e.SetLock(client.cred(), file->inode(), 1, false, range, 0)));
  ASSERT_TRUE(client.Run(e.Unlink(client.cred(), kRootInode, "f")));  // an open file without a name
  cluster.StopMeta();
  client.Write(*file, 6, " after");
  cluster.StartMeta();
  Result<Attr> dir = client.Run(e.Mkdir(client.cred(), kRootInode, "d", 0755));
  ASSERT_TRUE(dir) << ToString(dir.error());
  Status flushed = client.Run(e.Flush(*file));
  ASSERT_TRUE(flushed) << ToString(flushed.error());
  EXPECT_EQ(client.Read(*file, 0, 100), "before after");
  Result<std::optional<LockRange>> lock = client.Run(e.GetLock(client.cred(), file->inode(), 2, range));
  ASSERT_TRUE(lock);
  EXPECT_TRUE(lock->has_value());
  client.Close(std::move(file));
}

// Two clients, with grants, commits and data of both, all of it after the last sync.
TEST(ClientCluster, TheMetaserverLosesPower) {
  Cluster::Options options;
  options.sync_interval = 1h;
  Cluster cluster(options);
  Client one(cluster), two(cluster);
  HandlePtr old = one.Create("old");
  one.Write(*old, 0, "old");
  ASSERT_TRUE(one.Run(one.engine().Flush(*old)));
  cluster.BeginLosing();

  Result<Attr> dir = one.Run(one.engine().Mkdir(one.cred(), kRootInode, "dir", 0755));
  ASSERT_TRUE(dir);
  std::string large = RandomBytes(3 << 20, 1);
  HandlePtr file = two.Create("file", dir->inode);
  two.Write(*file, 0, large);
  ASSERT_TRUE(two.Run(two.engine().Flush(*file)));
  one.Write(*old, 3, " and new");
  ASSERT_TRUE(one.Run(one.engine().Flush(*old)));
  ASSERT_TRUE(one.Run(one.engine().Rename(one.cred(), dir->inode, "file", kRootInode, "moved", 0)));
  HandlePtr nameless = one.Create("nameless");
  one.Write(*nameless, 0, "still here");
  ASSERT_TRUE(one.Run(one.engine().Flush(*nameless)));
  ASSERT_TRUE(one.Run(one.engine().Unlink(one.cred(), kRootInode, "nameless")));
  Result<Attr> before = two.Run(two.engine().GetAttr(two.cred(), file->inode()));
  ASSERT_TRUE(before);
  cluster.CutPowerOfMeta();

  Result<Attr> after = one.Run(one.engine().Lookup(one.cred(), kRootInode, "moved"));
  ASSERT_TRUE(after) << ToString(after.error());
  EXPECT_EQ(after->inode, file->inode());
  EXPECT_EQ(after->size, large.size());
  EXPECT_EQ(after->change, before->change);
  two.Write(*file, large.size(), "more");  // under its grant of before
  ASSERT_TRUE(two.Run(two.engine().Fsync(*file, false)));
  HandlePtr read = one.Open(file->inode(), O_RDONLY);
  EXPECT_TRUE(one.Read(*read, 0, large.size() + 4) == large + "more");
  one.Close(std::move(read));
  EXPECT_EQ(one.Read(*old, 0, 100), "old and new");
  EXPECT_EQ(one.Read(*nameless, 0, 100), "still here");
  Metrics& metrics = cluster.meta().metrics();
  EXPECT_GT(metrics.counter("shoal_metaserver_handed_in_total", "").value(), 5u);
  EXPECT_EQ(metrics.counter("shoal_metaserver_handed_in_failed_total", "").value(), 0u);
  one.Close(std::move(old));
  one.Close(std::move(nameless));
  two.Close(std::move(file));
}

}  // namespace
}  // namespace shoal::client
