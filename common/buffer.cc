#include "common/buffer.h"

#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <mutex>

#include "common/result.h"

namespace shoal {
namespace {

constexpr size_t kPage = 4096;
constexpr int kClasses = 11;                     // pages of 4 KiB << 0 ... 4 KiB << 10 (4 MiB)
constexpr size_t kMaxFreeBytes = size_t{96} << 20;  // kept for reuse over all classes

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kPooled = false;  // so that the sanitizer sees each use after free
#else
constexpr bool kPooled = true;
#endif

// Freed blocks of each size class, for reuse: a fresh MiB costs 256 page faults.
struct Pool {
  std::mutex mutex;
  std::array<std::vector<void*>, kClasses> free;
  size_t free_bytes = 0;
};

Pool& ThePool() {
  static Pool* pool = new Pool;
  return *pool;
}

int ClassOf(size_t size) {
  size_t pages = (size + kPage - 1) / kPage;
  return std::countr_zero(std::bit_ceil(pages));
}

void* TakePages(size_t size) {
  int c = ClassOf(size);
  if (kPooled && c < kClasses) {
    Pool& pool = ThePool();
    std::lock_guard lock(pool.mutex);
    auto& list = pool.free[c];
    if (!list.empty()) {
      void* memory = list.back();
      list.pop_back();
      pool.free_bytes -= kPage << c;
      return memory;
    }
  }
  void* memory = std::aligned_alloc(kPage, kPage << c);
  CHECK(memory != nullptr);
  return memory;
}

void GivePages(void* memory, size_t size) {
  int c = ClassOf(size);
  if (kPooled && c < kClasses) {
    Pool& pool = ThePool();
    std::lock_guard lock(pool.mutex);
    if (pool.free_bytes + (kPage << c) <= kMaxFreeBytes) {
      pool.free[c].push_back(memory);
      pool.free_bytes += kPage << c;
      return;
    }
  }
  std::free(memory);
}

}  // namespace

// Small blocks follow their header in one allocation; large ones are page-aligned and stand alone.
struct Buffer::Block {
  std::atomic<uint32_t> references{1};
  uint8_t* pages = nullptr;  // null: the bytes follow this header
  size_t size = 0;
};

Buffer Buffer::Allocate(size_t size) {
  Buffer b;
  if (size == 0) return b;
  if (size < kPage) {
    void* memory = std::malloc(sizeof(Block) + size);
    CHECK(memory != nullptr);
    b.block_ = new (memory) Block;
    b.data_ = static_cast<uint8_t*>(memory) + sizeof(Block);
  } else {
    void* header = std::malloc(sizeof(Block));
    CHECK(header != nullptr);
    b.block_ = new (header) Block;
    b.block_->pages = static_cast<uint8_t*>(TakePages(size));
    b.data_ = b.block_->pages;
  }
  b.block_->size = size;
  b.size_ = size;
  return b;
}

Buffer Buffer::CopyOf(std::string_view bytes) {
  Buffer b = Allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(b.data_, bytes.data(), bytes.size());
  return b;
}

Buffer Buffer::Zeros(size_t size) {
  Buffer b = Allocate(size);
  if (size) std::memset(b.data_, 0, size);
  return b;
}

Buffer::Buffer(const Buffer& other) : block_(other.block_), data_(other.data_), size_(other.size_) {
  if (block_) block_->references.fetch_add(1, std::memory_order_relaxed);
}

Buffer::~Buffer() {
  if (!block_ || block_->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (block_->pages) GivePages(block_->pages, block_->size);
  block_->~Block();
  std::free(block_);
}

Buffer Buffer::Slice(size_t offset, size_t length) const {
  CHECK(offset <= size_ && length <= size_ - offset);
  Buffer part(*this);
  part.data_ += offset;
  part.size_ = length;
  return part;
}

bool Buffer::unique() const { return block_ && block_->references.load(std::memory_order_acquire) == 1; }

size_t PayloadSize(const Payload& payload) {
  size_t total = 0;
  for (const Buffer& part : payload) total += part.size();
  return total;
}

Buffer Flatten(const Payload& payload) {
  if (payload.size() == 1) return payload[0];
  Buffer all = Buffer::Allocate(PayloadSize(payload));
  size_t at = 0;
  for (const Buffer& part : payload) {
    if (part.empty()) continue;
    std::memcpy(all.mutable_data() + at, part.data(), part.size());
    at += part.size();
  }
  return all;
}

}  // namespace shoal
