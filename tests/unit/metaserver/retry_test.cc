// A retry is answered, never executed again.
#include "tests/unit/metaserver/names.h"

namespace shoal::meta {
namespace {

class RetryTest : public ::testing::Test {
 protected:
  void SetUp() override { h.Start(); }
  pb::MkdirRequest Request(const std::string& name, uint32_t slot, uint64_t sequence) {
    pb::MkdirRequest request;
    request.mutable_caller()->set_session(h.session());
    request.mutable_caller()->set_slot(slot);
    request.mutable_caller()->set_sequence(sequence);
    request.set_parent(kRoot);
    request.set_name(name);
    request.set_mode(0755);
    return request;
  }
  Result<pb::AttrResponse> Send(const pb::MkdirRequest& request) {
    return h.Call<pb::AttrResponse>(pb::MKDIR, request);
  }
  Harness h;
  Names fs{h};
};

TEST_F(RetryTest, TheSameAnswerAgain) {
  auto first = Send(Request("d", 3, 1));
  ASSERT_TRUE(first);
  auto again = Send(Request("d", 3, 1));
  ASSERT_TRUE(again) << ToString(again.error());
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  EXPECT_EQ(CodeOf(Send(Request("d", 3, 2))), ErrorCode::kExists);
}

TEST_F(RetryTest, AcrossACrash) {
  auto first = Send(Request("d", 3, 1));
  ASSERT_TRUE(first);
  h.CrashAndRestart();
  EXPECT_TRUE(h.Resume("client-1", h.session()).resumed());
  auto again = Send(Request("d", 3, 1));
  ASSERT_TRUE(again) << ToString(again.error());
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  EXPECT_EQ(CodeOf(Send(Request("e", 3, 0))), ErrorCode::kOk);
}

TEST_F(RetryTest, AnAnswerAfterACrashCountsTheOpen) {
  pb::CreateRequest request;
  *request.mutable_caller() = Request("", 3, 1).caller();
  request.set_parent(kRoot);
  request.set_name("f");
  request.set_open(true);
  auto first = h.Call<pb::OpenResponse>(pb::CREATE, request);
  ASSERT_TRUE(first);
  h.CrashAndRestart();  // before the client has heard of it
  h.Resume("client-1", h.session());
  InodeId inode(first->attr().inode());
  auto is_open = [&] {
    bool open = false;
    h.loop().Sync([&] { open = h.context().sessions->IsOpen(SessionId(h.session()), inode); });
    return open;
  };
  EXPECT_FALSE(is_open());
  for (int i = 0; i < 2; ++i) {
    auto again = h.Call<pb::OpenResponse>(pb::CREATE, request);
    ASSERT_TRUE(again) << ToString(again.error());
    EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
    EXPECT_TRUE(is_open());
  }
  h.loop().Sync([&] {
    Session* session = h.context().sessions->Find(SessionId(h.session()));
    EXPECT_EQ(session->opens[inode], 1u);
  });
}

// Its slot is free again, whatever it waits for.
TEST_F(RetryTest, NothingWaitsBeyondItsDeadline) {
  uint64_t file = fs.Create(kRoot, "file")->inode();
  auto run = [&](std::function<Status(View&)> op) {
    SteadyTime deadline = std::chrono::steady_clock::now() + 50ms;
    return RunOn(h.loop(), h.context().driver->Execute(std::move(op), CommitLevel::kLogged, deadline));
  };
  h.loop().Sync([&] { h.context().busy->Set(InodeId(file)); });
  EXPECT_EQ(CodeOf(run([&](View& view) { return view.WaitWhileBusy(InodeId(file)); })), ErrorCode::kTimeout);
  h.loop().Sync([&] { h.context().busy->Clear(InodeId(file)); });
  OneShot<int> never(h.loop());
  auto waits = [&]() -> Task<Status> { return [](OneShot<int>& shot) -> Task<Status> {
    co_await shot;
    co_return Status();
  }(never); };
  EXPECT_EQ(CodeOf(run([&](View& view) { return view.Require(waits); })), ErrorCode::kTimeout);
  h.loop().Sync([&] { never.Set(1); });
}

TEST_F(RetryTest, OldRequestsAreRefused) {
  ASSERT_TRUE(Send(Request("a", 0, 1)));
  ASSERT_TRUE(Send(Request("b", 0, 2)));
  EXPECT_EQ(CodeOf(Send(Request("c", 0, 1))), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(Send(Request("c", h.options.slots, 1))), ErrorCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(fs.Lookup(kRoot, "c")), ErrorCode::kNotFound);
}

TEST_F(RetryTest, ARetryJoinsTheFirstExecution) {
  uint64_t file = fs.Create(kRoot, "file")->inode();
  pb::SetAttrRequest request;
  request.set_inode(file);
  request.set_size(77);
  request.mutable_caller()->set_session(h.session());
  request.mutable_caller()->set_slot(1);
  request.mutable_caller()->set_sequence(1);
  h.loop().Sync([&] { h.context().busy->Set(InodeId(file)); });
  std::vector<std::thread> threads;
  std::vector<Result<pb::AttrResponse>> answers(4, Fail(ErrorCode::kInternal));
  for (auto& answer : answers) {
    threads.emplace_back([&] { answer = h.Call<pb::AttrResponse>(pb::SET_ATTR, request); });
  }
  // All of them are waiting by now or will be; only one may execute.
  h.loop().Sync([&] { h.context().busy->Clear(InodeId(file)); });
  for (auto& thread : threads) thread.join();
  for (auto& answer : answers) {
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->SerializeAsString(), answers[0]->SerializeAsString());
  }
}

TEST_F(RetryTest, FailuresAreTriedAgain) {
  EXPECT_EQ(CodeOf(Send([&] {
              auto request = Request("d", 0, 1);
              request.set_parent(999);
              return request;
            }())),
            ErrorCode::kStale);
  EXPECT_TRUE(Send(Request("d", 0, 1)));
}

TEST_F(RetryTest, UnknownSessionsAreRefused) {
  auto request = Request("d", 0, 1);
  request.mutable_caller()->set_session(12345);
  EXPECT_EQ(CodeOf(Send(request)), ErrorCode::kSessionEnded);
}

}  // namespace
}  // namespace shoal::meta
