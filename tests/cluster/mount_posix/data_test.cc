// Bytes: appending, holes, truncation, mmap, fallocate, SEEK_HOLE and SEEK_DATA, copy_file_range.
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <numeric>

#include "tests/cluster/mount_posix/posix_fixture.h"

namespace shoal::posix_test {
namespace {

constexpr off_t kMiB = 1 << 20;

class Data : public PosixTest {
 protected:
  // Bytes that differ at every place.
  static std::string Pattern(size_t size, uint32_t seed = 1) {
    std::string bytes(size, 0);
    uint32_t x = seed * 2654435761u + 1;
    for (char& c : bytes) {
      x = x * 1664525 + 1013904223;
      c = static_cast<char>(x >> 24);
    }
    return bytes;
  }
};

TEST_F(Data, WriteReadAcrossBlocks) {
  std::string bytes = Pattern(3 * kMiB + 123);
  Put("f", bytes);
  EXPECT_EQ(Get("f"), bytes);
  File file(P("f"), O_RDWR);
  for (off_t at : {0L, 4095L, 4096L, 65535L, kMiB - 1L, 2 * kMiB + 7L}) {
    std::string part = Pattern(5000, static_cast<uint32_t>(at));
    ASSERT_EQ(pwrite(file, part.data(), part.size(), at), 5000);
    bytes.replace(static_cast<size_t>(at), part.size(), part);
  }
  EXPECT_EQ(Get("f"), bytes);
}

TEST_F(Data, SmallWritesInOrderAndReversed) {
  File file(P("f"), O_RDWR | O_CREAT);
  std::string want(20000, 0);
  for (int i = 0; i < 2000; ++i) {
    int at = (i * 7919) % 2000;
    std::string part = std::to_string(1000000000 + at);
    ASSERT_EQ(pwrite(file, part.data(), 10, at * 10), 10);
    want.replace(static_cast<size_t>(at) * 10, 10, part);
  }
  EXPECT_EQ(Get("f"), want);
}

TEST_F(Data, AppendGoesToTheEnd) {
  File one(P("f"), O_WRONLY | O_CREAT | O_APPEND);
  File two(P("f"), O_WRONLY | O_APPEND);
  File plain(P("f"), O_RDWR);
  std::string want;
  for (int i = 0; i < 50; ++i) {
    std::string a = "one" + std::to_string(i) + ";", b = "two" + std::to_string(i) + ";";
    ASSERT_EQ(write(one, a.data(), a.size()), static_cast<ssize_t>(a.size()));
    ASSERT_EQ(write(two, b.data(), b.size()), static_cast<ssize_t>(b.size()));
    want += a + b;
    if (i == 25) {
      ASSERT_EQ(pwrite(plain, "PLAIN", 5, static_cast<off_t>(want.size())), 5);
      want += "PLAIN";
    }
  }
  std::string got(want.size() + 10, 0);
  EXPECT_EQ(pread(plain, got.data(), got.size(), 0), static_cast<ssize_t>(want.size()));
  got.resize(want.size());
  EXPECT_EQ(got, want);
  EXPECT_EQ(Get("f"), want);
}

TEST_F(Data, ParallelAppendsAreAllThere) {
  Put("f", "");
  std::vector<pid_t> children;
  for (int c = 0; c < 4; ++c) {
    pid_t child = fork();
    if (child == 0) {
      int fd = open(P("f").c_str(), O_WRONLY | O_APPEND);
      std::string line(15, static_cast<char>('a' + c));
      line += '\n';
      for (int i = 0; i < 200; ++i) {
        if (write(fd, line.data(), 16) != 16) _exit(1);
      }
      _exit(close(fd) == 0 ? 0 : 1);
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  std::string bytes = Get("f");
  ASSERT_EQ(bytes.size(), 4u * 200 * 16);
  int counts[4] = {};
  for (size_t at = 0; at < bytes.size(); at += 16) {
    std::string line = bytes.substr(at, 16);
    EXPECT_EQ(line, std::string(15, line[0]) + "\n");
    if (line[0] >= 'a' && line[0] <= 'd') ++counts[line[0] - 'a'];
  }
  for (int count : counts) EXPECT_EQ(count, 200);
}

TEST_F(Data, SparseFilesReadZeros) {
  File file(P("f"), O_RDWR | O_CREAT);
  ASSERT_EQ(pwrite(file, "end", 3, 200 * kMiB), 3);
  struct stat st;
  ASSERT_OK(fstat(file, &st));
  EXPECT_EQ(st.st_size, 200 * kMiB + 3);
  EXPECT_LT(st.st_blocks * 512, 100 * kMiB);
  std::string part(kMiB, 'x');
  ASSERT_EQ(pread(file, part.data(), kMiB, 100 * kMiB - 5), kMiB);
  EXPECT_EQ(part, std::string(kMiB, 0));
  ASSERT_EQ(pread(file, part.data(), kMiB, 200 * kMiB - 10), 13);
  EXPECT_EQ(part.substr(0, 13), std::string(10, 0) + "end");
}

TEST_F(Data, TruncateCutsAndExtendsWithZeros) {
  std::string bytes = Pattern(300000);
  Put("f", bytes);
  ASSERT_OK(truncate(P("f").c_str(), 100001));
  EXPECT_EQ(Get("f"), bytes.substr(0, 100001));
  ASSERT_OK(truncate(P("f").c_str(), 250000));
  EXPECT_EQ(Get("f"), bytes.substr(0, 100001) + std::string(149999, 0));
  File file(P("f"), O_RDWR);
  ASSERT_OK(ftruncate(file, 0));
  ASSERT_OK(ftruncate(file, 5000));
  EXPECT_EQ(Get("f"), std::string(5000, 0));
  EXPECT_ERRNO(ftruncate(file, -1), EINVAL);
  File reader(P("f"), O_RDONLY);
  EXPECT_ERRNO(ftruncate(reader, 1), EINVAL);
}

TEST_F(Data, TruncateInsideUnwrittenData) {
  File file(P("f"), O_RDWR | O_CREAT);
  std::string bytes = Pattern(50000);
  ASSERT_EQ(write(file, bytes.data(), bytes.size()), 50000);
  ASSERT_OK(ftruncate(file, 777));
  ASSERT_EQ(pwrite(file, "Z", 1, 2000), 1);
  EXPECT_EQ(Get("f"), bytes.substr(0, 777) + std::string(1223, 0) + "Z");
}

TEST_F(Data, WriteBeyondTheEndAfterTruncate) {
  std::string bytes = Pattern(20000);
  Put("f", bytes);
  ASSERT_OK(truncate(P("f").c_str(), 5000));
  File file(P("f"), O_RDWR);
  ASSERT_EQ(pwrite(file, "tail", 4, 10000), 4);
  ASSERT_OK(fsync(file));
  EXPECT_EQ(Get("f"), bytes.substr(0, 5000) + std::string(5000, 0) + "tail");
}

TEST_F(Data, SharedMappings) {
  Put("f", std::string(20000, 'a'));
  File file(P("f"), O_RDWR);
  void* memory = mmap(nullptr, 20000, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ASSERT_NE(memory, MAP_FAILED) << std::strerror(errno);
  auto* bytes = static_cast<char*>(memory);
  EXPECT_EQ(bytes[19999], 'a');
  bytes[0] = 'b';
  bytes[8192] = 'c';
  bytes[19999] = 'd';
  ASSERT_OK(msync(memory, 20000, MS_SYNC));
  ASSERT_OK(munmap(memory, 20000));
  ASSERT_OK(file.Close());
  std::string want(20000, 'a');
  want[0] = 'b', want[8192] = 'c', want[19999] = 'd';
  EXPECT_EQ(Get("f"), want);
}

TEST_F(Data, MappingSeesWritesAndOutlivesTheDescriptor) {
  Put("f", std::string(4096, 'x'));
  void* memory;
  {
    File file(P("f"), O_RDWR);
    memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    ASSERT_NE(memory, MAP_FAILED);
    ASSERT_EQ(pwrite(file, "hello", 5, 100), 5);
  }
  auto* bytes = static_cast<char*>(memory);
  EXPECT_EQ(std::string(bytes + 100, 5), "hello");
  bytes[0] = 'M';
  ASSERT_OK(munmap(memory, 4096));
  EXPECT_EQ(Get("f")[0], 'M');
}

// What the kernel writes out of a mapping has its place, though it comes through a handle that appends.
TEST_F(Data, MappingOfAnAppender) {
  Put("f", std::string(10000, 'a'));
  File appender(P("f"), O_RDWR | O_APPEND);
  auto* bytes = static_cast<char*>(mmap(nullptr, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, appender, 0));
  ASSERT_NE(bytes, MAP_FAILED) << std::strerror(errno);
  bytes[100] = 'b';
  bytes[9000] = 'c';
  ASSERT_OK(msync(bytes, 10000, MS_SYNC));
  ASSERT_EQ(write(appender, "end", 3), 3);
  bytes[5000] = 'd';
  ASSERT_OK(munmap(bytes, 10000));
  ASSERT_OK(fsync(appender));
  std::string want = std::string(10000, 'a') + "end";
  want[100] = 'b', want[9000] = 'c', want[5000] = 'd';
  EXPECT_EQ(Get("f"), want);
}

TEST_F(Data, AppendingBeginsAndEndsWhileOpen) {
  Put("f", "0123456789");
  File file(P("f"), O_WRONLY);
  ASSERT_OK(fcntl(file, F_SETFL, O_APPEND));
  ASSERT_EQ(pwrite(file, "ab", 2, 1), 2);
  ASSERT_OK(fcntl(file, F_SETFL, 0));
  ASSERT_EQ(pwrite(file, "cd", 2, 3), 2);
  File appender(P("f"), O_WRONLY | O_APPEND);
  ASSERT_OK(fcntl(appender, F_SETFL, 0));
  ASSERT_EQ(pwrite(appender, "ef", 2, 5), 2);
  EXPECT_EQ(Get("f"), "012cdef789ab");
}

TEST_F(Data, VectoredAndEmptyWrites) {
  File file(P("f"), O_RDWR | O_CREAT);
  char a[] = "aa", b[] = "bbb";
  iovec parts[] = {{a, 2}, {b, 3}};
  EXPECT_EQ(pwritev(file, parts, 2, 10), 5);
  EXPECT_EQ(write(file, "", 0), 0);
  EXPECT_EQ(Get("f"), std::string(10, 0) + "aabbb");
  char one;
  EXPECT_EQ(pread(file, &one, 1, 100), 0);
}

TEST_F(Data, AccessModesAreKept) {
  Put("f", "x");
  File reader(P("f"), O_RDONLY);
  File writer(P("f"), O_WRONLY);
  char c;
  EXPECT_ERRNO(write(reader, "y", 1), EBADF);
  EXPECT_ERRNO(read(writer, &c, 1), EBADF);
}

TEST_F(Data, DirectIo) {
  int fd = open(P("f").c_str(), O_RDWR | O_CREAT | O_DIRECT, 0644);
  if (fd < 0) GTEST_SKIP() << "no O_DIRECT here";
  close(fd);
  File file(P("f"), O_RDWR | O_DIRECT);
  void* memory = nullptr;
  ASSERT_EQ(posix_memalign(&memory, 4096, 2 * kMiB), 0);
  std::string bytes = Pattern(2 * kMiB);
  std::memcpy(memory, bytes.data(), bytes.size());
  EXPECT_EQ(pwrite(file, memory, 2 * kMiB, 0), 2 * kMiB);
  EXPECT_EQ(Get("f"), bytes);
  std::memset(memory, 0, 2 * kMiB);
  EXPECT_EQ(pread(file, memory, 2 * kMiB, 0), 2 * kMiB);
  EXPECT_EQ(std::memcmp(memory, bytes.data(), bytes.size()), 0);
  free(memory);
}

TEST_F(Data, FallocateModes) {
  std::string bytes = Pattern(100000);
  Put("f", bytes);
  File file(P("f"), O_RDWR);
  struct stat st;
  ASSERT_OK(fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 200000));
  ASSERT_OK(fstat(file, &st));
  EXPECT_EQ(st.st_size, 100000);
  ASSERT_OK(fallocate(file, 0, 0, 150000));
  ASSERT_OK(fstat(file, &st));
  EXPECT_EQ(st.st_size, 150000);
  bytes.resize(150000);
  EXPECT_EQ(Get("f"), bytes);
  ASSERT_OK(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 20000));
  bytes.replace(5000, 20000, std::string(20000, 0));
  EXPECT_EQ(Get("f"), bytes);
  ASSERT_OK(fallocate(file, FALLOC_FL_ZERO_RANGE, 60001, 999));
  bytes.replace(60001, 999, std::string(999, 0));
  EXPECT_EQ(Get("f"), bytes);
  ASSERT_OK(fallocate(file, FALLOC_FL_ZERO_RANGE, 149000, 3000));
  bytes.resize(149000);
  bytes.resize(152000);
  EXPECT_EQ(Get("f"), bytes);
  EXPECT_ERRNO(fallocate(file, 0, 0, 0), EINVAL);
  EXPECT_ERRNO(fallocate(file, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
}

TEST_F(Data, PunchingAcrossManyChunks) {
  File file(P("f"), O_RDWR | O_CREAT);
  std::string piece = Pattern(8192);
  for (off_t at : {0L, 63 * kMiB, 64 * kMiB, 130 * kMiB, 200 * kMiB}) {
    ASSERT_EQ(pwrite(file, piece.data(), piece.size(), at), 8192);
  }
  ASSERT_OK(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 200 * kMiB));
  std::string got(8192, 'x');
  ASSERT_EQ(pread(file, got.data(), 8192, 0), 8192);
  EXPECT_EQ(got, piece.substr(0, 4096) + std::string(4096, 0));
  ASSERT_EQ(pread(file, got.data(), 8192, 64 * kMiB), 8192);
  EXPECT_EQ(got, std::string(8192, 0));
  ASSERT_EQ(pread(file, got.data(), 8192, 200 * kMiB), 8192);
  EXPECT_EQ(got, std::string(4096, 0) + piece.substr(4096));
}

TEST_F(Data, SeekHoleAndData) {
  File file(P("f"), O_RDWR | O_CREAT);
  EXPECT_ERRNO(lseek(file, 0, SEEK_DATA), ENXIO);
  ASSERT_EQ(pwrite(file, "x", 1, 128 * kMiB), 1);
  ASSERT_OK(ftruncate(file, 300 * kMiB));
  ASSERT_OK(fsync(file));
  off_t data = lseek(file, 0, SEEK_DATA);
  EXPECT_GE(data, 0);
  EXPECT_LE(data, 128 * kMiB);
  if (OnShoal()) {
    EXPECT_GE(data, 64 * kMiB);
  }
  off_t hole = lseek(file, 128 * kMiB, SEEK_HOLE);
  EXPECT_GT(hole, 128 * kMiB);
  EXPECT_LE(hole, 300 * kMiB);
  EXPECT_EQ(lseek(file, 0, SEEK_HOLE), 0);
  EXPECT_ERRNO(lseek(file, 299 * kMiB, SEEK_DATA), ENXIO);
  EXPECT_ERRNO(lseek(file, 300 * kMiB, SEEK_HOLE), ENXIO);
  EXPECT_EQ(lseek(file, 0, SEEK_END), 300 * kMiB);
}

TEST_F(Data, CopyFileRange) {
  std::string bytes = Pattern(3 * kMiB + 77);
  Put("from", bytes);
  Put("to", "0123456789");
  File from(P("from"), O_RDONLY);
  File to(P("to"), O_RDWR);
  off_t in = 100, out = 5;
  size_t left = 2 * kMiB;
  while (left > 0) {
    ssize_t n = copy_file_range(from, &in, to, &out, left, 0);
    ASSERT_GT(n, 0) << std::strerror(errno);
    left -= static_cast<size_t>(n);
  }
  EXPECT_EQ(Get("to"), "01234" + bytes.substr(100, 2 * kMiB));
  in = static_cast<off_t>(bytes.size()) - 10, out = 0;
  EXPECT_EQ(copy_file_range(from, &in, to, &out, 100, 0), 10);
  EXPECT_EQ(copy_file_range(from, &in, to, &out, 100, 0), 0);
  EXPECT_EQ(Get("to").substr(0, 10), bytes.substr(bytes.size() - 10));
}

TEST_F(Data, ReaderSeesWhatAnotherDescriptorWrites) {
  File writer(P("f"), O_RDWR | O_CREAT);
  File reader(P("f"), O_RDONLY);
  char c = 0;
  for (int i = 0; i < 300; ++i) {
    char want = static_cast<char>('a' + i % 26);
    ASSERT_EQ(pwrite(writer, &want, 1, i * 37), 1);
    ASSERT_EQ(pread(reader, &c, 1, i * 37), 1);
    ASSERT_EQ(c, want);
    struct stat st;
    ASSERT_OK(fstat(reader, &st));
    ASSERT_EQ(st.st_size, i * 37 + 1);
  }
}

TEST_F(Data, FiveChunks) {
  File file(P("f"), O_RDWR | O_CREAT);
  std::string piece = Pattern(kMiB);
  for (int i = 0; i < 5; ++i) {
    for (off_t at : {64 * i * kMiB, (64 * i + 63) * kMiB + kMiB / 2}) {  // the second crosses into the next chunk
      ASSERT_EQ(pwrite(file, piece.data(), piece.size(), at), kMiB);
    }
  }
  ASSERT_OK(fsync(file));
  std::string got(kMiB, 0);
  for (int i = 0; i < 5; ++i) {
    off_t at = (64 * i + 63) * kMiB + kMiB / 2;
    ASSERT_EQ(pread(file, got.data(), kMiB, at), kMiB);
    bool overwritten = i < 4;  // its second half, by the next chunk's first piece
    EXPECT_EQ(got, overwritten ? piece.substr(0, kMiB / 2) + piece.substr(0, kMiB / 2) : piece) << i;
  }
}

}  // namespace
}  // namespace shoal::posix_test
