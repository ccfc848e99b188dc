// Buffer: a slice of shared, pooled memory. Payloads travel in Buffers from the socket to the disk and
// on to the next server without being copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace shoal {

// A reference to part of a block of memory; copying it shares the block. The bytes of a block may be written
// only by whoever filled it first (before it is shared). Blocks may be shared and freed on any thread.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer& other);
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer();

  // `size` uninitialised bytes, aligned to 4096 when at least that large.
  static Buffer Allocate(size_t size);
  static Buffer CopyOf(std::string_view bytes);
  static Buffer Zeros(size_t size);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const uint8_t* data() const { return data_; }
  uint8_t* mutable_data() { return data_; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  std::string_view view() const { return {reinterpret_cast<const char*>(data_), size_}; }
  // The part [offset, offset + length), which must lie inside.
  Buffer Slice(size_t offset, size_t length) const;
  // Whether this is the only reference to its block (it may then be written again).
  bool unique() const;
  void swap(Buffer& other) noexcept {
    std::swap(block_, other.block_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

 private:
  struct Block;
  Block* block_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// The payload of a message: its parts are sent one after the other.
using Payload = std::vector<Buffer>;
size_t PayloadSize(const Payload& payload);
// One Buffer with all the bytes (without a copy when there is one part).
Buffer Flatten(const Payload& payload);

}  // namespace shoal
