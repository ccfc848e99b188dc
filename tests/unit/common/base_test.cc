// Results, buffers, checksums, tasks, loops, metrics, keys.
#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <future>
#include <thread>

#include "common/buffer.h"
#include "common/checksum.h"
#include "common/event_loop.h"
#include "common/ids.h"
#include "common/metrics.h"
#include "common/result.h"
#include "common/rpc/rpc.h"

namespace shoal {
namespace {

TEST(ErrorTest, TableKnowsEveryCodeAndRefusesUnknownNumbers) {
  EXPECT_EQ(ErrorErrno(ErrorCode::kNotEmpty), ENOTEMPTY);
  EXPECT_EQ(ErrorName(ErrorCode::kNoSpace), "NO_SPACE");
  EXPECT_TRUE(IsRetryable(ErrorCode::kUnavailable));
  EXPECT_FALSE(IsRetryable(ErrorCode::kNotFound));
  EXPECT_EQ(ErrorFromWire(12345), ErrorCode::kInternal);
  EXPECT_EQ(ErrorFromErrno(ENOSPC), ErrorCode::kNoSpace);
  EXPECT_EQ(ErrorFromErrno(EIO), ErrorCode::kIo);
  EXPECT_EQ(ErrorFromErrno(EDQUOT), ErrorCode::kNoSpace);
  for (int scarce : {EMFILE, ENFILE, ENOMEM}) EXPECT_EQ(ErrorFromErrno(scarce), ErrorCode::kOverloaded);
  for (uint32_t n = 0; n < 100; ++n) {
    if (ErrorFromWire(n) == ErrorCode::kInternal) continue;
    EXPECT_NE(ErrorName(ErrorFromWire(n)), "INTERNAL") << n;
  }
}

Status FailsAt(int step) {
  auto part = [step](int n) -> Status {
    if (n == step) return Fail(ErrorCode::kRange, "step " + std::to_string(n));
    return {};
  };
  TRY(part(1));
  TRY(part(2));
  return {};
}

TEST(ErrorTest, TryLeavesWithTheError) {
  EXPECT_TRUE(FailsAt(0));
  EXPECT_EQ(FailsAt(2).error().message, "step 2");
}

TEST(BufferTest, SlicesShareAndOutliveTheWhole) {
  for (size_t size : {1u, 100u, 4096u, 5000u, 1u << 20, 5u << 20}) {
    Buffer slice;
    {
      Buffer b = Buffer::Allocate(size);
      memset(b.mutable_data(), 'a', size);
      b.mutable_data()[size - 1] = 'z';
      EXPECT_TRUE(b.unique());
      slice = b.Slice(size - 1, 1);
      EXPECT_FALSE(b.unique());
    }
    EXPECT_EQ(slice.view(), "z");
    EXPECT_TRUE(slice.unique());
  }
  EXPECT_EQ(Flatten({Buffer::CopyOf("ab"), Buffer(), Buffer::CopyOf("c")}).view(), "abc");
  EXPECT_EQ(Buffer::Zeros(3).view(), std::string_view("\0\0\0", 3));
}

TEST(ChecksumTest, IsXxh3AndABlockNeverHasZero) {
  EXPECT_EQ(Checksum("", 0), 0x2d06800538d394c2ull);  // the reference value of XXH3-64 of nothing
  std::string block(4096, '\0');
  uint64_t sum = BlockChecksum(block.data(), block.size());
  EXPECT_NE(sum, 0u);
  block[4095] ^= 1;
  EXPECT_NE(BlockChecksum(block.data(), block.size()), sum);
}

Task<int> Add(int a, int b) { co_return a + b; }

Task<int> Sum(int n) {
  int total = 0;
  for (int i = 0; i < n; ++i) total += co_await Add(i, 1);
  co_return total;
}

TEST(TaskTest, DeepAwaitsAndManyOfThem) {
  EventLoop loop("test");
  loop.Start();
  EXPECT_EQ(RunOn(loop, Sum(10000)), 10000 / 2 * 10001);
}

Task<void> WaitFor(OneShot<int>* shot, int* sum) { *sum += co_await *shot; }

Task<int> SleepThenSet(EventLoop* loop) {
  OneShot<int> shot(*loop);
  int sum = 0;
  TaskGroup group(*loop);
  group.Spawn(WaitFor(&shot, &sum));
  co_await loop->Sleep(5ms);
  EXPECT_EQ(sum, 0);
  shot.Set(42);
  shot.Set(1);  // the first counts
  co_await group.Join();
  co_return sum;
}

TEST(LoopTest, OneShotsSleepsAndGroups) {
  EventLoop loop("test");
  loop.Start();
  EXPECT_EQ(RunOn(loop, SleepThenSet(&loop)), 42);
}

TEST(LoopTest, PostsFromManyThreadsAllRunOnTheLoop) {
  EventLoop loop("test", 0us);
  loop.Start();
  int count = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        loop.Post([&] {
          EXPECT_TRUE(loop.InThisThread());
          ++count;
        });
      }
    });
  }
  for (auto& t : threads) t.join();
  loop.Sync([&] { EXPECT_EQ(count, 4000); });
}

TEST(LoopTest, ACancelledTimerDoesNotFire) {
  EventLoop loop("test");
  loop.Start();
  bool fired = false;
  std::unique_ptr<EventLoop::Timer> timer;
  loop.Sync([&] { timer = loop.RunAfter(1ms, [&] { fired = true; }); });
  loop.Sync([&] { timer.reset(); });
  bool was = fired;
  std::promise<void> later;
  std::unique_ptr<EventLoop::Timer> other;
  loop.Sync([&] { other = loop.RunAfter(20ms, [&] { later.set_value(); }); });
  later.get_future().wait();
  EXPECT_EQ(fired, was);
  loop.Sync([&] { other.reset(); });
}

TEST(LoopTest, WatchesAPipe) {
  EventLoop loop("test", 0us);
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  std::promise<char> got;
  loop.Start();
  loop.Sync([&] {
    loop.WatchReadable(fds[0], [&] {
      char c;
      if (read(fds[0], &c, 1) == 1) got.set_value(c);
    });
  });
  ASSERT_EQ(write(fds[1], "k", 1), 1);
  EXPECT_EQ(got.get_future().get(), 'k');
  loop.Stop();
  close(fds[0]);
  close(fds[1]);
}

// As a mount does: the watch only wakes the loop, a poller reads. The loop must get round to its poller.
TEST(LoopTest, APollerReadsWhatAWatchOnlyAnnounces) {
  EventLoop loop("test", 100us);
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_NONBLOCK), 0);
  std::promise<int> all;
  int got = 0;
  loop.AddPoller([&] {
    char c;
    if (read(fds[0], &c, 1) != 1) return false;
    if (++got == 100) all.set_value(got);
    return true;
  });
  loop.WatchReadable(fds[0], [] {});
  loop.Start();
  std::string bytes(100, 'b');
  ASSERT_EQ(write(fds[1], bytes.data(), bytes.size()), 100);
  EXPECT_EQ(all.get_future().get(), 100);
  loop.Stop();
  close(fds[0]);
  close(fds[1]);
}

TEST(MetricsTest, TextForm) {
  Metrics metrics;
  metrics.counter("shoal_test_total", "Things.", "kind=\"a\"").Add(3);
  metrics.gauge("shoal_test_level", "Level.").Set(-2);
  metrics.gauge_function("shoal_test_asked", "Asked.", [] { return 1.5; });
  Histogram& h = metrics.histogram("shoal_test_seconds", "Latency.");
  h.Record(10us);
  h.Record(16us);
  h.Record(17us);
  h.Record(1000s);
  std::string text = metrics.Text();
  EXPECT_NE(text.find("# TYPE shoal_test_total counter\nshoal_test_total{kind=\"a\"} 3\n"), text.npos);
  EXPECT_NE(text.find("shoal_test_level -2\n"), text.npos);
  EXPECT_NE(text.find("shoal_test_asked 1.5\n"), text.npos);
  EXPECT_NE(text.find("shoal_test_seconds_bucket{le=\"1.6e-05\"} 2\n"), text.npos);
  EXPECT_NE(text.find("shoal_test_seconds_bucket{le=\"3.2e-05\"} 3\n"), text.npos);
  EXPECT_NE(text.find("shoal_test_seconds_bucket{le=\"+Inf\"} 4\n"), text.npos);
  EXPECT_NE(text.find("shoal_test_seconds_count 4\n"), text.npos);
}

TEST(KeyTest, IsPrivateAndChecked) {
  char dir[] = "/tmp/shoal-key-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  std::string path = std::string(dir) + "/key";
  auto missing = ClusterKey::Load(path);
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("shoal key create"), std::string::npos);
  auto made = ClusterKey::Create(path);
  ASSERT_TRUE(made);
  EXPECT_FALSE(ClusterKey::Create(path));  // never overwritten
  EXPECT_EQ(ClusterKey::Load(path)->bytes, made->bytes);
  chmod(path.c_str(), 0644);
  EXPECT_FALSE(ClusterKey::Load(path));
  chmod(path.c_str(), 0600);
  std::ofstream(path) << "not a key";
  EXPECT_FALSE(ClusterKey::Load(path));
  unlink(path.c_str());
  rmdir(dir);
}

}  // namespace
}  // namespace shoal
