#include "metaserver/sessions.h"

#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

class SessionsTest : public ::testing::Test {
 protected:
  // Whether the session exists.
  bool Alive(uint64_t id) {
    bool alive = false;
    h.loop().Sync([&] { alive = h.context().sessions->Find(SessionId(id)) != nullptr; });
    return alive;
  }
  void AwaitEnd(uint64_t id) {
    for (int i = 0; i < 1000 && Alive(id); ++i) std::this_thread::sleep_for(10ms);
    EXPECT_FALSE(Alive(id));
  }
  ErrorCode Close(uint64_t id) {
    pb::CloseSessionRequest request;
    request.set_session(id);
    return CodeOf(h.Call<pb::CloseSessionResponse>(pb::CLOSE_SESSION, request));
  }
  ErrorCode KeepAlive(uint64_t id) {
    pb::KeepAliveRequest request;
    request.set_session(id);
    return CodeOf(h.Call<pb::KeepAliveResponse>(pb::KEEP_ALIVE, request));
  }
  // An orphan goes in the background, after its last close was answered. Asks without a session.
  void AwaitGone(uint64_t inode) {
    pb::GetAttrRequest request;
    request.set_inode(inode);
    ErrorCode code = ErrorCode::kOk;
    for (int i = 0; i < 1000 && code == ErrorCode::kOk; ++i) {
      if (i > 0) std::this_thread::sleep_for(10ms);
      code = CodeOf(h.Call<pb::AttrResponse>(pb::GET_ATTR, request));
    }
    EXPECT_EQ(code, ErrorCode::kStale);
  }
  // A file that is open and has no name.
  uint64_t MakeOrphan() {
    uint64_t inode = fs.CreateFile(kRoot, "orphan", 0644, true)->attr().inode();
    CHECK(fs.Unlink(kRoot, "orphan").has_value());
    return inode;
  }
  Harness h;
  Names fs{h};
};

TEST_F(SessionsTest, OpenResumeClose) {
  h.Start();
  EXPECT_TRUE(h.Resume("client-1", h.session()).resumed());
  EXPECT_FALSE(h.Resume("client-2", h.session()).resumed()) << "another client's";
  EXPECT_EQ(KeepAlive(h.session()), ErrorCode::kOk);
  uint64_t second = h.OpenSession("client-3");
  EXPECT_NE(second, h.session());
  EXPECT_EQ(h.OpenSession("client-3"), second) << "a lost answer makes no second session";
  EXPECT_EQ(Close(second), ErrorCode::kOk);
  EXPECT_FALSE(Alive(second));
  EXPECT_EQ(KeepAlive(second), ErrorCode::kSessionEnded);
  EXPECT_EQ(Close(second), ErrorCode::kOk);
  h.loop().Sync([&] { EXPECT_EQ(h.fake->ended, std::vector<SessionId>{SessionId(second)}); });
}

TEST_F(SessionsTest, TheEndClosesItsFiles) {
  h.Start();
  uint64_t inode = MakeOrphan();
  EXPECT_TRUE(fs.Stat(inode));
  EXPECT_EQ(Close(h.session()), ErrorCode::kOk);
  AwaitGone(inode);
}

TEST_F(SessionsTest, SilentSessionsEnd) {
  h.options.session_timeout = 400ms;
  h.Start();
  uint64_t inode = MakeOrphan();
  uint64_t live = h.OpenSession("live");
  for (int i = 0; i < 100 && Alive(h.session()); ++i) {
    EXPECT_EQ(KeepAlive(live), ErrorCode::kOk);
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_FALSE(Alive(h.session()));
  EXPECT_TRUE(Alive(live));
  AwaitGone(inode);
}

TEST_F(SessionsTest, OpenFilesSurviveARestart) {
  h.Start();
  uint64_t inode = MakeOrphan();
  h.CrashAndRestart();
  EXPECT_TRUE(fs.Stat(inode)) << "its session may come back";
  EXPECT_TRUE(h.Resume("client-1", h.session(), {inode}).resumed());
  EXPECT_TRUE(fs.Stat(inode));
  fs.Release(inode);
  AwaitGone(inode);
}

TEST_F(SessionsTest, OrphansOfSessionsThatCloseThemGoAfterARestart) {
  h.Start();
  uint64_t inode = MakeOrphan();
  h.CrashAndRestart();
  EXPECT_TRUE(h.Resume("client-1", h.session()).resumed());  // has it open no more
  AwaitGone(inode);
}

TEST_F(SessionsTest, OrphansOfSessionsThatNeverComeBackGo) {
  h.Start();
  uint64_t inode = MakeOrphan();
  h.options.session_timeout = 300ms;
  h.CrashAndRestart();
  AwaitEnd(h.session());
  AwaitGone(inode);
}

TEST_F(SessionsTest, FilesUnlinkedWhileASessionMayComeBackWait) {
  h.Start();
  uint64_t inode = fs.CreateFile(kRoot, "file", 0644, true)->attr().inode();
  uint64_t other = h.OpenSession("client-2");
  h.CrashAndRestart();
  // client-1, which has it open, has not come back yet; client-2 removes it.
  EXPECT_TRUE(h.Resume("client-2", other).resumed());
  pb::UnlinkRequest request;
  request.mutable_caller()->set_session(other);
  request.set_parent(kRoot);
  request.set_name("file");
  ASSERT_TRUE(h.Call<pb::UnlinkResponse>(pb::UNLINK, request));
  EXPECT_TRUE(h.Resume("client-1", h.session(), {inode}).resumed());
  EXPECT_TRUE(fs.Stat(inode));
  fs.Release(inode);
  AwaitGone(inode);
}

}  // namespace
}  // namespace shoal::meta
