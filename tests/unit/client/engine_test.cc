// The engine against scripted servers.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "tests/unit/client/fakes.h"

namespace shoal::client {
namespace {

using std::chrono::steady_clock;

std::string Pattern(size_t size, int seed) {
  std::string bytes(size, 0);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>((i * 131 + i / 4096 + static_cast<size_t>(seed)) % 251);
  return bytes;
}

TEST(ClientSession, ARetryHasTheSameSlotAndSequence) {
  FakeCluster c;
  c.Start();
  std::vector<pb::Caller> callers;
  c.meta.SetHook(pb::MKDIR, [&](Request& request) {
    pb::MkdirRequest message;
    EXPECT_TRUE(request.Parse(message));
    callers.push_back(message.caller());
    if (callers.size() > 2) return false;
    request.connection()->Close(Error{ErrorCode::kUnavailable, "the test says so"});
    return true;
  });
  Result<Attr> made = c.Run(c.engine->Mkdir(c.cred, kRootInode, "d", 0755));
  ASSERT_TRUE(made) << ToString(made.error());
  ASSERT_EQ(callers.size(), 3u);
  for (const pb::Caller& caller : callers) {
    EXPECT_EQ(caller.slot(), callers[0].slot());
    EXPECT_EQ(caller.sequence(), callers[0].sequence());
    EXPECT_EQ(caller.session(), callers[0].session());
    EXPECT_GT(caller.sequence(), 0u);
  }
  ASSERT_EQ(c.meta.sessions.size(), 3u);
  EXPECT_EQ(c.meta.sessions[0].session(), 0u);
  EXPECT_EQ(c.meta.sessions[1].session(), callers[0].session());
  EXPECT_EQ(c.meta.sessions[1].client_uuid(), c.meta.sessions[0].client_uuid());
}

TEST(ClientSession, AResumeTellsOpenInodesAndLocks) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  LockRange range;
  range.start = 10;
  range.end = 19;
  range.exclusive = true;
  ASSERT_TRUE(c.Run(c.engine->SetLock(c.cred, file->inode(), 5, false, range, 0)));
  bool once = true;
  c.meta.SetHook(pb::MKDIR, [&](Request& request) {
    if (!std::exchange(once, false)) return false;
    request.connection()->Close(Error{ErrorCode::kUnavailable, "the test says so"});
    return true;
  });
  ASSERT_TRUE(c.Run(c.engine->Mkdir(c.cred, kRootInode, "d", 0755)));
  ASSERT_EQ(c.meta.sessions.size(), 2u);
  const pb::OpenSessionRequest& resume = c.meta.sessions[1];
  ASSERT_EQ(resume.open_inodes_size(), 1);
  EXPECT_EQ(resume.open_inodes(0), file->inode().value);
  ASSERT_EQ(resume.locks_size(), 1);
  EXPECT_EQ(resume.locks(0).range().start(), 10u);
  EXPECT_TRUE(resume.locks(0).range().exclusive());
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientSession, AnAbsentMetaserverIsATimeout) {
  FakeCluster c;
  c.options.timeout = 300ms;
  c.Start();
  c.meta.Stop();
  auto start = steady_clock::now();
  Result<Attr> made = c.Run(c.engine->Mkdir(c.cred, kRootInode, "d", 0755));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kTimeout);
  EXPECT_LT(steady_clock::now() - start, 5s);
}

// One request that waits at the metaserver neither ends the connection nor holds up the next one.
TEST(ClientSession, ARequestWithoutAnAnswerHoldsUpNobody) {
  FakeCluster c;
  c.options.timeout = 1s;
  c.Start();
  uint32_t stuck_slot = 0, next_slot = 0;
  auto slot_of = [](Request& request) {
    pb::MkdirRequest message;
    EXPECT_TRUE(request.Parse(message));
    return message.caller().slot();
  };
  c.meta.SetHook(pb::MKDIR, [&](Request& request) {
    stuck_slot = slot_of(request);
    return c.Hold()(request);
  });
  auto stuck = c.Begin(c.engine->Mkdir(c.cred, kRootInode, "stuck", 0755));
  while (stuck.wait_for(100ms) != std::future_status::ready) EXPECT_TRUE(c.Run(c.engine->GetAttr(c.cred, kRootInode)));
  EXPECT_EQ(stuck.get().error().code, ErrorCode::kTimeout);
  c.meta.SetHook(pb::MKDIR, [&](Request& request) {
    next_slot = slot_of(request);
    return false;
  });
  EXPECT_TRUE(c.Run(c.engine->Mkdir(c.cred, kRootInode, "next", 0755)));
  EXPECT_NE(next_slot, stuck_slot);
  EXPECT_EQ(c.meta.sessions.size(), 1u);
}

TEST(ClientData, ASmallFileTakesFewMessages) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_WRONLY);
  ASSERT_TRUE(c.Write(*file, 0, "hello"));
  InodeId inode = file->inode();
  ASSERT_TRUE(c.Run(c.engine->Release(std::move(file))));
  EXPECT_EQ(c.meta.Count(pb::CREATE), 1);
  EXPECT_EQ(c.meta.Count(pb::GRANT_WRITE), 0);
  EXPECT_EQ(c.meta.Count(pb::COMMIT_WRITE), 1);
  EXPECT_EQ(c.meta.Count(pb::GET_EXTENTS) + c.meta.Count(pb::GET_ATTR) + c.meta.Count(pb::FSYNC), 0);
  int writes = 0;
  for (auto& chunk : c.chunk) writes += chunk->Count(pb::WRITE_CHUNK);
  EXPECT_EQ(writes, 1);
  EXPECT_EQ(c.store[inode.value * 1000 + 1], "hello");
}

TEST(ClientData, AReadIsHedged) {
  FakeCluster c;
  c.Start();
  std::string data = Pattern(100'000, 1);
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, data));
  ASSERT_TRUE(c.Run(c.engine->Flush(*file)));
  for (size_t frozen = 0; frozen < 2; ++frozen) c.chunk[frozen]->SetHook(pb::READ_CHUNK, c.Hold());
  auto start = steady_clock::now();
  EXPECT_EQ(c.Read(*file, 5000, 50'000), data.substr(5000, 50'000));
  EXPECT_LT(steady_clock::now() - start, 2s);
  // They are avoided now.
  start = steady_clock::now();
  EXPECT_EQ(c.Read(*file, 0, data.size()), data);
  EXPECT_LT(steady_clock::now() - start, 350ms);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, WrongBytesAreReadElsewhereAndVerified) {
  FakeCluster c;
  c.Start();
  std::string data = Pattern(10'000, 2);
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, data));
  ASSERT_TRUE(c.Run(c.engine->Flush(*file)));
  c.server_loop.Sync([&] { c.chunk[0]->corrupt = c.chunk[1]->corrupt = true; });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(c.Read(*file, 0, data.size()), data);
  int verified = c.chunk[0]->Count(pb::VERIFY_CHUNK) + c.chunk[1]->Count(pb::VERIFY_CHUNK);
  EXPECT_EQ(static_cast<uint64_t>(verified), c.Metric("shoal_client_checksum_mismatches_total"));
  // With no good replica there are no bytes, and never wrong ones.
  c.server_loop.Sync([&] { c.chunk[2]->corrupt = true; });
  Result<Payload> none = c.Run(c.engine->Read(*file, 0, data.size()));
  ASSERT_FALSE(none);
  EXPECT_EQ(ErrorErrno(none.error().code), EIO);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

// Each replica has another block damaged, all in what one request reads.
TEST(ClientData, EveryBlockIsReadFromWhereItIsGood) {
  FakeCluster c;
  c.Start();
  std::string data = Pattern(100'000, 2);
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, data));
  ASSERT_TRUE(c.Run(c.engine->Flush(*file)));
  c.server_loop.Sync([&] {
    for (uint32_t i = 0; i < 3; ++i) c.chunk[i]->bad_blocks = {i, i + 10, 24 - i};
  });
  EXPECT_EQ(c.Read(*file, 0, data.size()), data);
  EXPECT_EQ(c.Read(*file, 5000, 90'000), data.substr(5000, 90'000));
  for (uint32_t i = 0; i < 3; ++i) EXPECT_GT(c.chunk[i]->Count(pb::VERIFY_CHUNK), 0) << "each is told";
  c.server_loop.Sync([&] { c.chunk[1]->bad_blocks = c.chunk[2]->bad_blocks = {0}; });
  Result<Payload> none = c.Run(c.engine->Read(*file, 0, data.size()));
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(c.Read(*file, 4096, data.size() - 4096), data.substr(4096));
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

// A hook that answers with this error, the first `times` times.
FakeServer::Hook AnswerError(ErrorCode code, int times = INT_MAX) {
  return [code, left = times](Request& request) mutable {
    if (left-- <= 0) return false;
    request.AnswerError(Error{code, "the test says so"});
    return true;
  };
}

TEST(ClientData, NoGoodReplicaIsAnErrorSoonAnAbsentOneIsWaitedFor) {
  FakeCluster c;
  c.Start();
  std::string data = Pattern(10'000, 2);
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, data));
  ASSERT_TRUE(c.Run(c.engine->Flush(*file)));
  ErrorCode bad[] = {ErrorCode::kNoReplica, ErrorCode::kCorrupt, ErrorCode::kIo};
  for (size_t i = 0; i < 3; ++i) c.chunk[i]->SetHook(pb::READ_CHUNK, AnswerError(bad[i]));
  auto start = steady_clock::now();
  Result<Payload> none = c.Run(c.engine->Read(*file, 0, data.size()));
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kCorrupt);
  EXPECT_LT(steady_clock::now() - start, 5s);
  // One that is away may have the right bytes.
  c.chunk[1]->SetHook(pb::READ_CHUNK, AnswerError(ErrorCode::kLeaseLapsed, 6));
  EXPECT_EQ(c.Read(*file, 0, data.size()), data);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, AFullServerIsAnAnswerAndNoFailure) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  c.chunk[0]->SetHook(pb::WRITE_CHUNK, AnswerError(ErrorCode::kNoSpace, 3));
  ASSERT_TRUE(c.Write(*file, 0, "abc"));
  EXPECT_TRUE(c.Run(c.engine->Flush(*file)));  // space was given back
  c.chunk[0]->SetHook(pb::WRITE_CHUNK, AnswerError(ErrorCode::kNoSpace));
  c.meta.SetHook(pb::REPORT_REPLICA, AnswerError(ErrorCode::kNoSpace));  // no other has room either
  ASSERT_TRUE(c.Write(*file, 0, "abc"));
  auto start = steady_clock::now();
  Status full = c.Run(c.engine->Flush(*file));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kNoSpace);
  EXPECT_LT(steady_clock::now() - start, 10s);
  EXPECT_TRUE(c.meta.reports.empty());
  // Another has: the full one is left out.
  c.meta.SetHook(pb::REPORT_REPLICA, nullptr);
  (void)c.Run(c.engine->Fsync(*file, false));  // the error was told
  ASSERT_TRUE(c.Write(*file, 0, "abc"));
  Status written = c.Run(c.engine->Flush(*file));
  EXPECT_TRUE(written) << ToString(written.error());
  ASSERT_EQ(c.meta.reports.size(), 1u);
  EXPECT_EQ(static_cast<ErrorCode>(c.meta.reports[0].reason()), ErrorCode::kNoSpace);
  EXPECT_EQ(c.Read(*file, 0, 3), "abc");
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, NoRoomForANewChunkIsAskedForAgain) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  c.meta.SetHook(pb::GRANT_WRITE, AnswerError(ErrorCode::kNoSpace, 3));
  ASSERT_TRUE(c.Write(*file, 64 << 20, "abc"));
  EXPECT_TRUE(c.Run(c.engine->Flush(*file)));
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, ARecoveryThatNobodyEndsIsReported) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  c.chunk[0]->SetHook(pb::WRITE_CHUNK, AnswerError(ErrorCode::kNotReady));
  ASSERT_TRUE(c.Write(*file, 0, "abc"));
  auto start = steady_clock::now();
  ASSERT_TRUE(c.Run(c.engine->Fsync(*file, false)));
  EXPECT_LT(steady_clock::now() - start, 5s);
  ASSERT_EQ(c.meta.reports.size(), 1u);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, AGrantIsAskedForAgain) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  c.meta.SetHook(pb::GRANT_WRITE, AnswerError(ErrorCode::kChainFailed, 2));
  ASSERT_TRUE(c.Write(*file, 64 << 20, "abc"));
  Status flushed = c.Run(c.engine->Flush(*file));
  EXPECT_TRUE(flushed) << ToString(flushed.error());
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, ARefusedTruncationLosesNothing) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, "abc"));
  c.meta.SetHook(pb::OPEN, AnswerError(ErrorCode::kAccessDenied));
  EXPECT_FALSE(c.Run(c.engine->Open(c.cred, file->inode(), O_WRONLY | O_TRUNC)));
  c.meta.SetHook(pb::SET_ATTR, AnswerError(ErrorCode::kReadOnly));
  ASSERT_TRUE(c.Write(*file, 3, "def"));
  AttrChange change;
  change.size = 0;
  EXPECT_FALSE(c.Run(c.engine->SetAttr(c.cred, file->inode(), change, file.get())));
  EXPECT_EQ(c.Read(*file, 0, 10), "abcdef");
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

// The first request is refused while a later one, which syncs, is applied: its second try gets a higher number, and is
// on no disk.
TEST(ClientData, ASyncCoversLowerNumbersOnly) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  std::unique_ptr<Request> first;
  c.chunk[0]->SetHook(pb::WRITE_CHUNK, [&, seen = 0](Request& request) mutable {
    if (++seen == 1) {
      first = std::make_unique<Request>(std::move(request));
      return true;
    }
    if (auto held = std::move(first)) held->AnswerError(Error{ErrorCode::kOverloaded, "the test says so"});
    return false;
  });
  ASSERT_TRUE(c.Write(*file, 0, Pattern(1 << 20, 1)));  // sent at once
  ASSERT_TRUE(c.Write(*file, 2 << 20, "x"));
  ASSERT_TRUE(c.Run(c.engine->Fsync(*file, false)));
  ASSERT_EQ(c.chunk[0]->writes.size(), 2u);
  EXPECT_TRUE(c.chunk[0]->writes[0].sync);
  EXPECT_FALSE(c.chunk[0]->writes[1].sync);
  for (auto& chunk : c.chunk) EXPECT_EQ(chunk->Count(pb::SYNC_CHUNK), 1);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, UnansweredWritesAreSentAgainInOrder) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  std::string data = Pattern(6 << 20, 3);
  int seen = 0;
  std::vector<uint64_t> ids;
  c.chunk[0]->SetHook(pb::WRITE_CHUNK, [&](Request& request) {
    pb::WriteChunkRequest message;
    EXPECT_TRUE(request.Parse(message));
    ids.push_back(message.write_id());
    if (++seen == 1) return false;  // the first is applied
    request.AnswerError(Error{ErrorCode::kChainFailed, "the test says so"});
    return true;
  });
  ASSERT_TRUE(c.Write(*file, 0, data));
  Status flushed = c.Run(c.engine->Flush(*file));
  ASSERT_TRUE(flushed) << ToString(flushed.error());
  ASSERT_EQ(c.meta.reports.size(), 1u);
  EXPECT_TRUE(c.meta.reports[0].for_write());
  EXPECT_EQ(c.meta.reports[0].version(), 1u);
  const auto& again = c.chunk[1]->writes;
  ASSERT_FALSE(again.empty());
  for (size_t i = 0; i < again.size(); ++i) {
    EXPECT_EQ(again[i].version, 2u);
    if (i > 0) {
      EXPECT_LT(again[i - 1].write_id, again[i].write_id);
    }
  }
  EXPECT_EQ(again.front().write_id, ids[1]);  // the first without an answer
  EXPECT_EQ(c.store.begin()->second, data);
  EXPECT_EQ(c.Read(*file, 0, data.size()), data);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, GatheredBytesAreBounded) {
  FakeCluster c;
  c.options.write_memory = 4 << 20;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  std::vector<std::unique_ptr<Request>> waiting;
  bool hold = true;
  c.chunk[0]->SetHook(pb::WRITE_CHUNK, [&](Request& request) {
    if (!hold) return false;
    request.AnswerError(Error{ErrorCode::kOverloaded, "busy"});
    return true;
  });
  std::string data = Pattern(1 << 20, 4);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(c.Write(*file, static_cast<uint64_t>(i) << 20, data));
  size_t dirty = 0;
  c.client_loop.Sync([&] {
    EXPECT_FALSE(c.engine->TryWrite(*file, 4 << 20, Buffer::CopyOf("x")));
    dirty = c.engine->dirty_bytes();
  });
  EXPECT_EQ(dirty, size_t{4} << 20);
  Buffer more = Buffer::CopyOf(data);
  auto blocked = c.Begin(c.engine->Write(*file, 4 << 20, more));
  EXPECT_EQ(blocked.wait_for(300ms), std::future_status::timeout);
  c.server_loop.Sync([&] { hold = false; });
  ASSERT_TRUE(blocked.get());
  ASSERT_TRUE(c.Run(c.engine->Release(std::move(file))));
  EXPECT_EQ(c.store.begin()->second.size(), size_t{5} << 20);
  EXPECT_TRUE(c.meta.reports.empty());  // BUSY is no failure
  EXPECT_EQ(c.engine->dirty_bytes(), 0u);
}

TEST(ClientData, EveryHandleReportsAnErrorOnce) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  Result<Opened> second = c.Run(c.engine->Open(c.cred, file->inode(), O_RDWR));
  ASSERT_TRUE(second);
  c.meta.SetHook(pb::GRANT_WRITE, [](Request& request) {
    request.AnswerError(Error{ErrorCode::kNoSpace, "full"});
    return true;
  });
  ASSERT_TRUE(c.Write(*file, 64 << 20, "lost"));
  Status first = c.Run(c.engine->Flush(*file));
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, ErrorCode::kNoSpace);
  EXPECT_TRUE(c.Run(c.engine->Flush(*file)));
  EXPECT_FALSE(c.Run(c.engine->Fsync(*second->handle, false)));
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(second->handle))));
  Result<Attr> attr = c.Run(c.engine->GetAttr(c.cred, file->inode()));
  ASSERT_TRUE(attr);
  EXPECT_EQ(attr->size, 0u);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
  EXPECT_EQ(c.engine->dirty_bytes(), 0u);
}

TEST(ClientData, FsyncSyncsWithTheLastWrite) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, Pattern(3 << 20, 5)));
  ASSERT_TRUE(c.Write(*file, 100, "x"));
  ASSERT_TRUE(c.Run(c.engine->Fsync(*file, false)));
  bool last_synced = false;
  c.server_loop.Sync([&] { last_synced = c.chunk[0]->writes.back().sync; });
  EXPECT_TRUE(last_synced);
  EXPECT_EQ(c.meta.Count(pb::FSYNC), 1);
  int syncs = 0;
  for (auto& chunk : c.chunk) syncs += chunk->Count(pb::SYNC_CHUNK);
  EXPECT_EQ(syncs, 0);
  // Written, closed, opened again, synced: the replicas are told.
  ASSERT_TRUE(c.Write(*file, 0, "y"));
  InodeId inode = file->inode();
  ASSERT_TRUE(c.Run(c.engine->Release(std::move(file))));
  Result<Opened> again = c.Run(c.engine->Open(c.cred, inode, O_RDONLY));
  ASSERT_TRUE(again);
  ASSERT_TRUE(c.Run(c.engine->Fsync(*again->handle, false)));
  for (auto& chunk : c.chunk) EXPECT_EQ(chunk->Count(pb::SYNC_CHUNK), 1);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(again->handle))));
}

// Overwritten blocks change nothing at the metaserver: it is asked while the chain is at work, and what others have
// written and not synced is synced all the same.
TEST(ClientData, FdatasyncOfOverwrittenBlocksAsksBesideTheWrite) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, Pattern(100'000, 5)));
  ASSERT_TRUE(c.Run(c.engine->Fsync(*file, false)));
  // The write is answered once the metaserver has been asked.
  std::unique_ptr<Request> write;
  c.chunk[0]->SetHook(pb::WRITE_CHUNK, [&](Request& request) {
    write = std::make_unique<Request>(std::move(request));
    return true;
  });
  bool asked = false;
  c.meta.SetHook(pb::FSYNC, [&](Request&) {
    asked = true;
    if (auto held = std::move(write)) held->AnswerError(Error{ErrorCode::kOverloaded, "the test says so"});
    c.chunk[0]->SetHook(pb::WRITE_CHUNK, nullptr);
    return false;
  });
  ASSERT_TRUE(c.Write(*file, 4096, "abc"));
  ASSERT_TRUE(c.Run(c.engine->Fsync(*file, true)));
  EXPECT_TRUE(asked);
  bool synced = false;
  c.server_loop.Sync([&] { synced = c.chunk[0]->writes.back().sync; });
  EXPECT_TRUE(synced);
  EXPECT_EQ(c.meta.Count(pb::FSYNC), 2);
  EXPECT_EQ(c.chunk[0]->Count(pb::SYNC_CHUNK), 0);
  EXPECT_TRUE(c.Run(c.engine->Release(std::move(file))));
}

TEST(ClientData, ALostSessionIsReplaced) {
  FakeCluster c;
  c.Start();
  HandlePtr file = c.Create(O_RDWR);
  ASSERT_TRUE(c.Write(*file, 0, "abc"));
  bool once = true;
  c.server_loop.Sync([&] { c.meta.forget_sessions = true; });
  c.meta.SetHook(pb::COMMIT_WRITE, [&](Request& request) {
    if (!std::exchange(once, false)) return false;
    request.AnswerError(Error{ErrorCode::kSessionEnded, "gone"});
    return true;
  });
  Status flushed = c.Run(c.engine->Flush(*file));
  ASSERT_TRUE(flushed) << ToString(flushed.error());
  ASSERT_EQ(c.meta.sessions.size(), 2u);
  EXPECT_EQ(c.meta.sessions[1].open_inodes_size(), 1);
  ASSERT_TRUE(c.Write(*file, 3, "def"));
  ASSERT_TRUE(c.Run(c.engine->Release(std::move(file))));
  EXPECT_EQ(c.store.begin()->second, "abcdef");
}

}  // namespace
}  // namespace shoal::client
