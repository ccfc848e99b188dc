// What a fuzz target is made of. Each *_fuzz.cc implements the two functions below; built with g++ it gets the main of
// replay_main.cc, built with clang and -DSHOAL_FUZZER=ON that of libFuzzer.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

// Runs one input; anything wrong ends the process (CHECK, an exception, a sanitizer). Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace shoal::fuzz {

// Inputs that the target makes itself, because they are binary or depend on formats that may change; the files in
// corpus/TARGET/ come on top.
std::vector<std::string> Seeds();

// Takes an input apart. What lies behind the end reads as zeros, so every sequence of bytes is an input. A view: the
// bytes outlive it.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(reinterpret_cast<const char*>(data), size) {}
  explicit Input(std::string_view bytes) : left_(bytes) {}

  bool empty() const { return left_.empty(); }
  // Little-endian. (Not memcpy into a zeroed value: g++ 12 at -O2 drops the zeros.)
  template <std::unsigned_integral T>
  T Number() {
    uint64_t value = 0;
    std::string_view bytes = Take(sizeof(T));
    for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{static_cast<uint8_t>(bytes[i])} << 8 * i;
    return static_cast<T>(value);
  }
  uint8_t Byte() { return Number<uint8_t>(); }
  // At most `size` bytes.
  std::string_view Take(size_t size) {
    std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(bytes.size());
    return bytes;
  }
  // Bytes with their number (16 bits) in front; Sized() below writes them.
  std::string_view TakeSized() { return Take(Number<uint16_t>()); }
  std::string_view Rest() { return Take(left_.size()); }

 private:
  std::string_view left_;
};

// For seeds: what Input::TakeSized and Input::Number take.
std::string Sized(std::string_view bytes);
template <typename T>
std::string Raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// A new directory in memory (/dev/shm) if there is such a thing, else under /tmp; the caller removes it.
std::string MakeScratchDirectory();

// A file without a name, for functions that read paths. One per target; each Write replaces the content.
class ScratchFile {
 public:
  ScratchFile();
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  void Write(std::string_view content);
  std::string path() const;

 private:
  int fd_;
};

}  // namespace shoal::fuzz
