// Writes and reads through a chain of three servers in this process.
#include <thread>

#include "chunkserver/layout.h"
#include "tests/unit/chunkserver/cluster.h"

namespace shoal {
namespace {

using test::Await;
using test::RandomBytes;

class ChainTest : public test::ClusterTest {
 protected:
  const std::vector<size_t> all_{0, 1, 2};
};

TEST_F(ChainTest, AWriteIsOnEveryMember) {
  std::string bytes = RandomBytes(10000, 1);
  Status written = Write(all_, 7, 5000, bytes);
  ASSERT_TRUE(written.has_value()) << written.error().message;
  for (size_t i : all_) {
    auto read = Read(i, 7, 5000, 10000);
    ASSERT_TRUE(read.has_value()) << read.error().message;
    EXPECT_EQ(*read, bytes);
    EXPECT_EQ(*Read(i, 7, 0, 5000), std::string(5000, '\0'));
    EXPECT_EQ(Metric(i, "shoal_chunkserver_forwarded_writes_total"), i < 2 ? 1u : 0u);
  }
}

TEST_F(ChainTest, OnlyCreateMakesAReplica) {
  auto read = Read(0, 7, 0, 100);
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, ErrorCode::kNoReplica);
  Status refused = Write(all_, 7, 0, "abc", false);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNoReplica);
  EXPECT_FALSE(Read(0, 7, 0, 100).has_value());
  ASSERT_TRUE(Write(all_, 7, 0, "abc", true).has_value());
  ASSERT_TRUE(Write(all_, 7, 3, "def", false).has_value());
  EXPECT_EQ(*Read(2, 7, 0, 6), "abcdef");
}

TEST_F(ChainTest, ARetryIsAnsweredNotApplied) {
  pb::WriteChunkRequest first = WriteRequest(all_, 7, 0, "old old");
  first.set_create(true);
  ASSERT_TRUE(Send(0, first, "old old").has_value());
  ASSERT_TRUE(Write(all_, 7, 0, "new new").has_value());
  ASSERT_TRUE(Send(0, first, "old old").has_value());
  for (size_t i : all_) EXPECT_EQ(*Read(i, 7, 0, 7), "new new");
}

TEST_F(ChainTest, AnAddressThatIsNoneIsAnErrorEachTime) {
  pb::WriteChunkRequest message = WriteRequest(all_, 7, 0, "abc");
  message.set_create(true);
  message.mutable_chain(0)->set_address("host:99999");
  for (int i = 0; i < 2; ++i) {
    Status refused = Send(0, message, "abc");
    ASSERT_FALSE(refused.has_value());
    EXPECT_NE(refused.error().code, ErrorCode::kUnavailable) << "the server lives";
  }
}

TEST_F(ChainTest, DamagedPayloadsAreNotStored) {
  ASSERT_TRUE(Write(all_, 7, 0, "good").has_value());
  pb::WriteChunkRequest message = WriteRequest(all_, 7, 0, "evil");
  message.set_checksums(0, message.checksums(0) ^ 4);
  Status refused = Send(0, message, "evil");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kChecksumMismatch);
  EXPECT_EQ(*Read(0, 7, 0, 4), "good");
}

TEST_F(ChainTest, WrongVersionInstanceOrSizeIsRefused) {
  ASSERT_TRUE(Write(all_, 7, 0, "good").has_value());
  pb::WriteChunkRequest message = WriteRequest(all_, 7, 0, "evil");
  message.set_version(2);
  EXPECT_EQ(Send(0, message, "evil").error().code, ErrorCode::kVersionMismatch);
  message.set_version(1);
  message.set_instance(55);
  EXPECT_EQ(Send(0, message, "evil").error().code, ErrorCode::kNoReplica);
  message.set_instance(100);
  message.mutable_segments(0)->set_offset(kChunkSize - 1);
  EXPECT_EQ(Send(0, message, "evil").error().code, ErrorCode::kInvalidArgument);
  version_ = 2;
  EXPECT_EQ(Read(0, 7, 0, 4).error().code, ErrorCode::kVersionMismatch);
}

TEST_F(ChainTest, MembersApplyInOrderWhateverTheOrderOfArrival) {
  std::vector<pb::WriteChunkRequest> writes;
  for (uint64_t n = 1; n <= 4; ++n) {
    writes.push_back(WriteRequest({2}, 7, 0, std::string(8, static_cast<char>('0' + n))));
    writes.back().set_number(n);
    writes.back().set_numbering(5);
    writes.back().set_create(true);
  }
  std::vector<std::thread> senders;
  for (size_t i : {3, 1, 2, 0}) {
    senders.emplace_back([&, i] {
      Status sent = Send(2, writes[i], std::string(8, static_cast<char>('1' + i)));
      EXPECT_TRUE(sent.has_value()) << sent.error().message;
    });
    std::this_thread::yield();
  }
  for (auto& s : senders) s.join();
  EXPECT_EQ(*Read(2, 7, 0, 8), "44444444");
}

// A write is given up when the first who waits for it has no more time; its retry hears of it then too.
TEST_F(ChainTest, AWriteWhosePredecessorsDoNotComeIsGivenUpForAll) {
  pb::WriteChunkRequest second = WriteRequest({2}, 7, 0, "x");
  second.set_create(true);
  second.set_number(2);
  second.set_numbering(5);
  auto send = [&](Duration timeout) {
    Payload payload;
    payload.push_back(Buffer::CopyOf("x"));
    auto reply = Call<pb::WriteChunkResponse>(2, pb::WRITE_CHUNK, second, std::move(payload), timeout);
    return reply ? ErrorCode::kOk : reply.error().code;
  };
  auto begin = std::chrono::steady_clock::now();
  std::thread retry([&] { EXPECT_EQ(send(30s), ErrorCode::kChainFailed); });
  Await([&] { return members_[2].server->metrics().Text().find("replicas{directory=\"/data\"} 1\n") != std::string::npos; });
  EXPECT_NE(send(300ms), ErrorCode::kOk);
  retry.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);
}

TEST_F(ChainTest, AMemberThatIsDownFailsTheChain) {
  ASSERT_TRUE(Write(all_, 7, 0, "first").has_value());
  StopMember(1);
  Status failed = Write(all_, 7, 0, "other");
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kChainFailed);
  // It comes back, and no longer knows the numbers: only a recovery helps.
  StartMember(1);
  WaitRegistered(1);
  EXPECT_EQ(*Read(1, 7, 0, 5), "first");
  EXPECT_EQ(Write(all_, 7, 0, "again").error().code, ErrorCode::kChainFailed);
}

TEST_F(ChainTest, ZerosAndTruncation) {
  std::string bytes = RandomBytes(5 * kBlockSize, 2);
  ASSERT_TRUE(Write(all_, 7, 0, bytes).has_value());
  pb::WriteChunkRequest zero = WriteRequest(all_, 7, 100, "");
  zero.set_kind(pb::WRITE_ZERO);
  zero.mutable_segments(0)->set_length(2 * kBlockSize);
  ASSERT_TRUE(Send(0, zero, "").has_value());
  bytes.replace(100, 2 * kBlockSize, 2 * kBlockSize, '\0');
  pb::WriteChunkRequest cut = WriteRequest(all_, 7, 4 * kBlockSize + 10, "");
  cut.set_kind(pb::WRITE_TRUNCATE);
  cut.set_session(0);
  cut.set_lease(0);
  auto ordered = Order<pb::WriteChunkResponse>(0, pb::WRITE_CHUNK, cut);  // as the metaserver does
  ASSERT_TRUE(ordered.has_value()) << ordered.error().message;
  bytes.replace(4 * kBlockSize + 10, kBlockSize - 10, kBlockSize - 10, '\0');
  for (size_t i : all_) EXPECT_EQ(*Read(i, 7, 0, 5 * kBlockSize), bytes);
}

TEST_F(ChainTest, SyncedWritesSurviveAPowerCutEverywhere) {
  std::string bytes = RandomBytes(3 * kBlockSize, 3);
  ASSERT_TRUE(Write(all_, 7, 0, bytes, true, true).has_value());
  ASSERT_TRUE(Write(all_, 8, 0, bytes, true, false).has_value());
  for (size_t i : all_) {
    Status synced = Sync(i, 8);
    ASSERT_TRUE(synced.has_value()) << synced.error().message;
  }
  for (size_t i : all_) {
    StopMember(i);
    members_[i].files->PowerCut();
    StartMember(i);
    WaitRegistered(i);
    EXPECT_EQ(*Read(i, 7, 0, 3 * kBlockSize), bytes);
    EXPECT_EQ(*Read(i, 8, 0, 3 * kBlockSize), bytes);
  }
}

TEST_F(ChainTest, SyncReplicasSyncsEverything) {
  for (uint64_t c = 1; c <= 5; ++c) ASSERT_TRUE(Write(all_, c, 0, "abc").has_value());
  auto synced = Order<pb::SyncReplicasResponse>(0, pb::SYNC_REPLICAS, pb::SyncReplicasRequest());
  ASSERT_TRUE(synced.has_value()) << synced.error().message;
  StopMember(0);
  members_[0].files->PowerCut();
  StartMember(0);
  WaitRegistered(0);
  for (uint64_t c = 1; c <= 5; ++c) EXPECT_EQ(*Read(0, c, 0, 3), "abc");
}

// A process that is killed leaves its writes to the operating system: the next one's syncs cover them.
TEST_F(ChainTest, WritesFromBeforeARestartAreSynced) {
  for (uint64_t c = 1; c <= 5; ++c) ASSERT_TRUE(Write(all_, c, 0, "abc").has_value());
  auto restart = [&](size_t i, bool power_cut) {
    StopMember(i);
    if (power_cut) members_[i].files->PowerCut();
    StartMember(i);
    WaitRegistered(i);
  };
  for (size_t i : all_) restart(i, false);
  Status synced = Sync(0, 3);
  ASSERT_TRUE(synced.has_value()) << synced.error().message;
  auto all = Order<pb::SyncReplicasResponse>(1, pb::SYNC_REPLICAS, pb::SyncReplicasRequest());
  ASSERT_TRUE(all.has_value()) << all.error().message;
  for (size_t i : all_) restart(i, true);
  EXPECT_EQ(*Read(0, 3, 0, 3), "abc");
  EXPECT_EQ(Read(0, 4, 0, 3).error().code, ErrorCode::kNoReplica) << "nobody asked for it";
  for (uint64_t c = 1; c <= 5; ++c) EXPECT_EQ(*Read(1, c, 0, 3), "abc");
}

TEST_F(ChainTest, ReadsThatAreNotCachedGoToTheDisk) {
  std::string bytes = RandomBytes(1 << 20, 4);
  ASSERT_TRUE(Write(all_, 7, 0, bytes).has_value());
  EXPECT_EQ(*Read(0, 7, 0, 1 << 20), bytes);
  EXPECT_EQ(Metric(0, "shoal_chunkserver_reads_cached_total"), 2u);
  members_[0].files->cached = false;
  EXPECT_EQ(*Read(0, 7, 0, 1 << 20), bytes);
  EXPECT_EQ(Metric(0, "shoal_chunkserver_reads_cached_total"), 2u);
}

TEST_F(ChainTest, ManyWritersOnAllRotationsOfTheChain) {
  std::vector<std::vector<size_t>> chains{{0, 1, 2}, {1, 2, 0}, {2, 0, 1}};
  std::vector<std::thread> writers;
  std::string bytes = RandomBytes(1 << 20, 5);
  std::vector<std::vector<pb::WriteChunkRequest>> requests(6);
  for (size_t w = 0; w < requests.size(); ++w) {
    for (uint32_t n = 0; n < 12; ++n) {
      requests[w].push_back(WriteRequest(chains[w % 3], 50 + w, n << 20, bytes));
      requests[w].back().set_create(true);
    }
  }
  for (size_t w = 0; w < requests.size(); ++w) {
    writers.emplace_back([&, w] {
      for (auto& request : requests[w]) {
        Status sent = Send(chains[w % 3][0], request, bytes);
        ASSERT_TRUE(sent.has_value()) << sent.error().message;
      }
    });
  }
  for (auto& w : writers) w.join();
  for (size_t w = 0; w < requests.size(); ++w) {
    for (size_t i : all_) EXPECT_EQ(*Read(i, 50 + w, 11 << 20, 1 << 20), bytes);
  }
}

// Random operations through the chain, compared with an array of bytes on every member.
TEST_F(ChainTest, LikeAnArrayOfBytes) {
  constexpr uint32_t kSpan = 512 << 10;
  std::string model(kSpan, '\0');
  std::mt19937_64 random(6);
  ASSERT_TRUE(Write(all_, 7, 0, "x").has_value());
  model[0] = 'x';
  for (int step = 0; step < 300; ++step) {
    uint32_t offset = static_cast<uint32_t>(random() % kSpan);
    uint32_t length = 1 + static_cast<uint32_t>(random() % std::min<uint32_t>(30000, kSpan - offset));
    if (random() % 5 == 0) {
      pb::WriteChunkRequest zero = WriteRequest(all_, 7, offset, "");
      bool cut = random() % 4 == 0;
      zero.set_kind(cut ? pb::WRITE_TRUNCATE : pb::WRITE_ZERO);
      zero.mutable_segments(0)->set_length(cut ? 0 : length);
      ASSERT_TRUE(Send(0, zero, "").has_value());
      if (cut) length = kSpan - offset;
      model.replace(offset, length, length, '\0');
    } else {
      std::string bytes = RandomBytes(length, random());
      Status written = Write(all_, 7, offset, bytes, false, step % 20 == 0);
      ASSERT_TRUE(written.has_value()) << written.error().message;
      model.replace(offset, length, bytes);
    }
    size_t member = step % 3;
    if (step % 10 == 0) {
      ASSERT_EQ(*Read(member, 7, 0, kSpan), model) << step;
    }
  }
  for (size_t i : all_) EXPECT_EQ(*Read(i, 7, 0, kSpan), model);
}

}  // namespace
}  // namespace shoal
