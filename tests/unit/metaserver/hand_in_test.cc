// A metaserver that comes back with an older state, as after a power cut, and sessions that hand in what is missing.
#include "metaserver/hand_in.h"

#include <sys/stat.h>

#include <map>
#include <thread>

#include "metaserver/commit.h"
#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

// Keeps what a client keeps, for each session.
class HandInTest : public ::testing::Test {
 protected:
  struct Client {
    std::string uuid;
    uint64_t sequence = 0;
    std::vector<pb::HandedIn> kept;
    std::vector<uint64_t> open;
  };
  HandInTest() {
    h.options.hand_in_wait = h.options.hand_in_wait_missing = 60s;  // all who are missing come back in these tests
    h.watch = [this](pb::Method method, const std::string& request, const std::string& response, TxnId txn) {
      pb::AnyResponse any;
      if (!any.ParseFromString(response) || !any.has_recipe()) return;
      pb::HandedIn done;
      done.set_txn(txn.value);
      done.set_method(method);
      done.set_request(request);
      done.set_response(response);
      seen = std::max(seen, txn.value);
      clients[h.session()].kept.push_back(std::move(done));
    };
  }
  void Start() {
    h.Start();
    first = h.session();
    clients[first].uuid = "client-1";
  }
  uint64_t NewClient(const std::string& uuid) {
    uint64_t id = h.OpenSession(uuid);
    clients[id].uuid = uuid;
    return id;
  }
  // All that is there is durable. The second session.
  uint64_t StartWithTwo() {
    Start();
    const uint64_t second = NewClient("client-2");
    Synced();
    return second;
  }
  void As(uint64_t session) {
    clients[h.session()].sequence = h.sequence();
    h.UseSession(session, clients[session].sequence);
  }
  // The disk has this; what is done from now on is lost in the next power cut.
  void Synced() {
    snapshot = h.CopyOfData();
    for (auto& [id, client] : clients) client.kept.clear();
  }
  void PowerCut() { h.RestartOn(snapshot); }
  Result<pb::OpenSessionResponse> Resume(uint64_t session) {
    const Client& client = clients[session];
    pb::OpenSessionRequest request;
    request.set_session(session);
    request.set_client_uuid(client.uuid);
    request.set_seen_txn(seen);
    if (!client.kept.empty()) request.set_kept_txn(client.kept.back().txn());
    for (uint64_t inode : client.open) request.add_open_inodes(inode);
    return h.Call<pb::OpenSessionResponse>(pb::OPEN_SESSION, request);
  }
  void HandIn(uint64_t session) {
    pb::HandInRequest request;
    request.set_session(session);
    for (const pb::HandedIn& done : clients[session].kept) *request.add_done() = done;
    request.set_end(true);
    ASSERT_TRUE(h.Call<pb::HandInResponse>(pb::HAND_IN, request));
  }
  void Back(uint64_t session) {
    auto opened = Resume(session);
    ASSERT_TRUE(opened) << ToString(opened.error());
    ASSERT_TRUE(opened->resumed());
    ASSERT_NE(opened->hand_in_above(), 0u);
    HandIn(session);
  }
  // All names and attributes below a directory.
  std::map<std::string, std::string> Tree(uint64_t inode = kRoot, const std::string& path = "") {
    std::map<std::string, std::string> tree;
    auto page = fs.ReadDir(inode, 0, 1000, true);
    for (const pb::DirEntry& entry : page->entries()) {
      tree[path + "/" + entry.name()] = std::to_string(entry.cookie()) + ": " + entry.attr().ShortDebugString();
      if (S_ISDIR(entry.type())) tree.merge(Tree(entry.inode(), path + "/" + entry.name()));
    }
    return tree;
  }
  uint64_t HandedIn() { return h.metrics().counter("shoal_metaserver_handed_in_total", "").value(); }
  uint64_t Failed() { return h.metrics().counter("shoal_metaserver_handed_in_failed_total", "").value(); }

  Harness h;
  Names fs{h};
  uint64_t first = 0;
  uint64_t seen = 0;
  std::string snapshot;
  std::map<uint64_t, Client> clients;
};

TEST_F(HandInTest, EverythingIsThereAgain) {
  Start();
  uint64_t dir = fs.Mkdir(kRoot, "dir")->inode();
  uint64_t old = fs.Create(dir, "old")->inode();
  ASSERT_TRUE(fs.Create(dir, "victim"));
  Synced();
  uint64_t sub = fs.Mkdir(dir, "sub")->inode();
  uint64_t file = fs.Create(sub, "file")->inode();
  ASSERT_TRUE(fs.Chmod(file, 0600));
  ASSERT_TRUE(fs.Chown(file, 7, 8));
  ASSERT_TRUE(fs.Truncate(file, 12345));
  ASSERT_TRUE(fs.Link(file, kRoot, "hard"));
  ASSERT_TRUE(fs.Symlink(kRoot, "soft", "dir/old"));
  ASSERT_TRUE(fs.Mknod(kRoot, "pipe", S_IFIFO | 0644));
  ASSERT_TRUE(fs.Rename(dir, "old", dir, "victim"));
  ASSERT_TRUE(fs.Create(kRoot, "short-lived"));
  ASSERT_TRUE(fs.Unlink(kRoot, "short-lived"));
  ASSERT_TRUE(fs.Mkdir(kRoot, "gone"));
  ASSERT_TRUE(fs.Rmdir(kRoot, "gone"));
  pb::SetXattrRequest xattr;
  xattr.set_inode(old);
  xattr.set_name("user.a");
  xattr.set_value("1");
  ASSERT_TRUE((fs.Do<pb::AttrResponse>(pb::SET_XATTR, xattr)));
  auto chunk = fs.Named<pb::CreateRequest>(kRoot, "data");
  chunk.set_first_chunk(true);
  auto granted = fs.Do<pb::OpenResponse>(pb::CREATE, chunk);
  ASSERT_TRUE(granted && granted->granted());
  const auto before = Tree();
  const auto kept = clients[first].kept;

  PowerCut();
  EXPECT_TRUE(h.context().hand_in->holding());
  Back(first);
  EXPECT_EQ(Tree(), before);
  EXPECT_EQ(HandedIn(), kept.size());
  EXPECT_EQ(Failed(), 0u);
  // A retry of the last one gets the answer that was given then.
  pb::CreateRequest last;
  ASSERT_TRUE(last.ParseFromString(kept.back().request()));
  h.watch = nullptr;
  auto again = h.Call<pb::OpenResponse>(pb::CREATE, last);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->SerializeAsString(), granted->SerializeAsString());
  // New numbers are none of those.
  EXPECT_GT(fs.Create(kRoot, "new")->inode(), granted->attr().inode());
}

TEST_F(HandInTest, SessionsAreMerged) {
  const uint64_t second = StartWithTwo();
  uint64_t dir = fs.Mkdir(kRoot, "of-first")->inode();
  As(second);
  uint64_t file = fs.Create(dir, "of-second")->inode();
  As(first);
  ASSERT_TRUE(fs.Rename(dir, "of-second", kRoot, "moved"));
  As(second);
  ASSERT_TRUE(fs.Link(file, dir, "linked"));
  const auto before = Tree();
  PowerCut();
  Back(second);
  EXPECT_TRUE(h.context().hand_in->holding());
  Back(first);
  EXPECT_EQ(Tree(), before);
  EXPECT_EQ(Failed(), 0u);
}

TEST_F(HandInTest, LateSessionIsExecutedThen) {
  const uint64_t second = StartWithTwo();
  ASSERT_TRUE(fs.Mkdir(kRoot, "of-first"));
  As(second);
  uint64_t dir = fs.Mkdir(kRoot, "of-second")->inode();
  ASSERT_TRUE(fs.Create(kRoot, "clash"));
  As(first);
  ASSERT_TRUE(fs.Create(dir, "below"));
  h.options.hand_in_wait_missing = 20ms;
  PowerCut();
  Back(first);
  // Its directory was not there: said, and counted.
  RunOn(h.loop(), h.context().hand_in->WaitUntilOver());
  EXPECT_EQ(HandedIn(), 2u);
  EXPECT_EQ(Failed(), 1u);
  pb::KeepAliveRequest alive;
  alive.set_session(first);
  EXPECT_EQ((h.Call<pb::KeepAliveResponse>(pb::KEEP_ALIVE, alive)->hand_in_failed()), 1u);
  ASSERT_TRUE(fs.Create(kRoot, "clash"));
  As(second);
  Back(second);
  EXPECT_EQ(fs.Lookup(kRoot, "of-second")->inode(), dir);
  EXPECT_EQ(Failed(), 2u);
  h.loop().Sync([this] { EXPECT_GE(h.context().hand_in->Durable().value, h.context().hand_in->above().value); });
}

// What is open is what the sessions say, and nothing goes before all is handed in.
TEST_F(HandInTest, OpenFilesAndOrphans) {
  Start();
  Synced();
  auto open = fs.CreateFile(kRoot, "open", 0444, true);
  auto closed = fs.CreateFile(kRoot, "closed", 0444, true);
  ASSERT_TRUE(open && closed);
  for (const char* name : {"open", "closed"}) ASSERT_TRUE(fs.Unlink(kRoot, name));
  for (const auto& made : {open, closed}) ASSERT_TRUE(fs.Chmod(made->attr().inode(), 0400));
  fs.Release(closed->attr().inode());
  clients[first].open = {open->attr().inode()};
  PowerCut();
  Back(first);
  EXPECT_TRUE(fs.Stat(open->attr().inode()));
  EXPECT_EQ(Failed(), 0u);
  h.loop().Sync([&] {
    EXPECT_TRUE(h.context().sessions->IsOpen(SessionId(first), InodeId(open->attr().inode())));
    EXPECT_FALSE(h.context().sessions->IsOpen(SessionId(first), InodeId(closed->attr().inode())));
  });
  fs.Release(open->attr().inode());
  while (fs.Stat(open->attr().inode()) || fs.Stat(closed->attr().inode())) std::this_thread::yield();
}

TEST_F(HandInTest, KilledWhileItCollects) {
  const uint64_t second = StartWithTwo();
  uint64_t dir = fs.Mkdir(kRoot, "dir")->inode();
  As(second);
  ASSERT_TRUE(fs.Create(dir, "file"));
  const auto before = Tree();
  PowerCut();
  Back(first);
  h.CrashAndRestart();  // with transactions of its own behind those that were lost
  Back(second);
  Back(first);
  EXPECT_EQ(Tree(), before);
  EXPECT_EQ(Failed(), 0u);
  // And once more, with what has become of them on the disk.
  h.CrashAndRestart();
  auto opened = Resume(second);
  EXPECT_EQ(opened->hand_in_above(), 0u);
  EXPECT_EQ(Resume(first)->hand_in_above(), 0u);
  EXPECT_EQ(Tree(), before);
}

TEST_F(HandInTest, TwoPowerCuts) {
  Start();
  Synced();
  ASSERT_TRUE(fs.Create(kRoot, "a"));
  PowerCut();
  snapshot = h.CopyOfData();
  Back(first);
  ASSERT_TRUE(fs.Create(kRoot, "b"));
  const auto before = Tree();
  h.loop().Sync([this] { EXPECT_GT(h.context().commit->first().value, h.context().hand_in->above().value); });
  PowerCut();
  Back(first);
  EXPECT_EQ(Tree(), before);
  EXPECT_EQ(Failed(), 0u);
}

TEST_F(HandInTest, TwiceIsOnce) {
  Start();
  Synced();
  ASSERT_TRUE(fs.Create(kRoot, "a"));
  ASSERT_TRUE(fs.Rename(kRoot, "a", kRoot, "b"));
  PowerCut();
  Back(first);
  const auto before = Tree();
  HandIn(first);
  EXPECT_EQ(Tree(), before);
  EXPECT_EQ(HandedIn(), 2u);
  EXPECT_EQ(Failed(), 0u);
}

TEST_F(HandInTest, NothingIsLostWhenTheProcessIsKilled) {
  Start();
  ASSERT_TRUE(fs.Create(kRoot, "a"));
  h.CrashAndRestart();
  auto opened = Resume(first);
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->hand_in_above(), 0u);
  EXPECT_TRUE(fs.Lookup(kRoot, "a"));  // at once: all are back
}

TEST_F(HandInTest, NothingIsCalledDurableBeforeItIs) {
  Start();
  Synced();
  ASSERT_TRUE(fs.Create(kRoot, "a"));
  PowerCut();
  auto durable = [this] {
    pb::KeepAliveRequest alive;
    alive.set_session(first);
    alive.set_sync(true);
    return h.Call<pb::KeepAliveResponse>(pb::KEEP_ALIVE, alive)->durable_txn();
  };
  ASSERT_TRUE(Resume(first));
  EXPECT_LT(durable(), clients[first].kept.front().txn());
  HandIn(first);
  ASSERT_TRUE(fs.Lookup(kRoot, "a"));
  EXPECT_GT(durable(), clients[first].kept.back().txn());
}

TEST_F(HandInTest, AnOlderCopyIsRefused) {
  Start();
  Synced();
  ASSERT_TRUE(fs.Create(kRoot, "a"));
  pb::KeepAliveRequest alive;
  alive.set_session(first);
  alive.set_sync(true);
  uint64_t durable = h.Call<pb::KeepAliveResponse>(pb::KEEP_ALIVE, alive)->durable_txn();
  PowerCut();
  pb::OpenSessionRequest request;
  request.set_session(first);
  request.set_client_uuid("client-1");
  request.set_durable_txn(durable);
  auto opened = h.Call<pb::OpenSessionResponse>(pb::OPEN_SESSION, request);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kOldIncarnation);
}

// Nothing that is handed in can take an id that is in use, or one that was never given.
TEST_F(HandInTest, ForeignIdsAreRefused) {
  Start();
  Synced();
  ASSERT_TRUE(fs.Create(kRoot, "a"));
  ASSERT_TRUE(fs.Create(kRoot, "b"));
  ASSERT_TRUE(fs.Create(kRoot, "c"));
  auto& kept = clients[first].kept;
  kept[1].set_response(kept[0].response());  // the id of the other
  pb::AnyResponse any;
  any.mutable_recipe()->set_now_ns(1);
  any.mutable_recipe()->add_numbers(uint64_t{1} << 45);
  kept[2].set_response(any.SerializeAsString());
  PowerCut();
  Back(first);
  EXPECT_TRUE(fs.Lookup(kRoot, "a"));
  EXPECT_FALSE(fs.Lookup(kRoot, "b"));
  EXPECT_FALSE(fs.Lookup(kRoot, "c"));
  EXPECT_EQ(Failed(), 2u);
}

}  // namespace
}  // namespace shoal::meta
