// XXH3-64 checksums (xxHash, https://github.com/Cyan4973/xxHash).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shoal {

uint64_t Checksum(const void* data, size_t size, uint64_t seed = 0);
inline uint64_t Checksum(std::string_view bytes, uint64_t seed = 0) { return Checksum(bytes.data(), bytes.size(), seed); }

// The checksum of a block of file data as it stands in checksum tables and messages: never 0, which means
// "never written" there.
inline uint64_t BlockChecksum(const void* data, size_t size) {
  uint64_t sum = Checksum(data, size);
  return sum ? sum : 1;
}

}  // namespace shoal
