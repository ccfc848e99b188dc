#include "chunkserver/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include "common/checksum.h"

namespace shoal {
namespace {

static_assert(std::endian::native == std::endian::little, "pages are written as they stand in memory");

constexpr char kHeaderMagic[] = "SHOALREP";
constexpr char kStateMagic[] = "SHOALSTA";
constexpr size_t kSumAt = 504;
constexpr size_t kUuidBytes = 40;

uint64_t PageSum(const Page& page) {
  uint64_t sum = Checksum(page.data(), kSumAt);
  return Checksum(page.data() + kSumAt + 8, page.size() - kSumAt - 8, sum);
}

// Puts numbers one after the other.
struct Writer {
  uint8_t* at;
  void Bytes(const void* bytes, size_t size) {
    std::memcpy(at, bytes, size);
    at += size;
  }
  template <typename T>
  void Number(T value) {
    Bytes(&value, sizeof value);
  }
};

// Takes them out again.
struct Reader {
  const uint8_t* at;
  void Bytes(void* bytes, size_t size) {
    std::memcpy(bytes, at, size);
    at += size;
  }
  template <typename T>
  T Number() {
    T value;
    Bytes(&value, sizeof value);
    return value;
  }
};

Status CheckPage(const Page& page, const char* magic, const char* what) {
  uint64_t stored;
  std::memcpy(&stored, page.data() + kSumAt, 8);
  if (std::memcmp(page.data(), magic, 8) != 0) {
    return Fail(ErrorCode::kCorrupt, fmt::format("the {} does not begin with {}", what, magic));
  }
  if (stored != PageSum(page)) return Fail(ErrorCode::kCorrupt, fmt::format("the {} does not match its checksum", what));
  return {};
}

void SealPage(Page& page) {
  uint64_t sum = PageSum(page);
  std::memcpy(page.data() + kSumAt, &sum, 8);
}

}  // namespace

void ReplicaHeader::Encode(Page& page) const {
  page.fill(0);
  Writer out{page.data()};
  out.Bytes(kHeaderMagic, 8);
  out.Number(kReplicaFormat);
  out.Number(uint32_t{kBlockSize});
  out.Number(uint64_t{kChunkSize});
  out.Number(chunk.value);
  out.Number(instance.value);
  out.Number(version.value);
  out.Number(uint32_t{0});
  out.Bytes(cluster_uuid.data(), std::min(cluster_uuid.size(), kUuidBytes - 1));
  SealPage(page);
}

Result<ReplicaHeader> ReplicaHeader::Decode(const Page& page) {
  TRY(CheckPage(page, kHeaderMagic, "header page"));
  Reader in{page.data() + 8};
  auto format = in.Number<uint32_t>();
  if (format != kReplicaFormat) {
    return Fail(ErrorCode::kNotSupported, fmt::format("replica format {}, this program knows {}", format, kReplicaFormat));
  }
  auto block = in.Number<uint32_t>();
  auto size = in.Number<uint64_t>();
  if (block != kBlockSize || size != kChunkSize) {
    return Fail(ErrorCode::kNotSupported, fmt::format("blocks of {} and chunks of {} bytes are not known", block, size));
  }
  ReplicaHeader header;
  header.chunk = ChunkId{in.Number<uint64_t>()};
  header.instance = InstanceId{in.Number<uint64_t>()};
  header.version = ChunkVersion{in.Number<uint32_t>()};
  in.Number<uint32_t>();
  char uuid[kUuidBytes];
  in.Bytes(uuid, sizeof uuid);
  header.cluster_uuid.assign(uuid, strnlen(uuid, sizeof uuid));
  return header;
}

bool ReplicaHeader::IsProvenBy(const Page& damaged) const {
  Page page;
  Encode(page);
  if (std::memcmp(page.data() + kSumAt, damaged.data() + kSumAt, 8) == 0) return true;
  std::memcpy(page.data() + kSumAt, damaged.data() + kSumAt, 8);
  return page == damaged;
}

void ReplicaState::Encode(Page& page) const {
  page.fill(0);
  Writer out{page.data()};
  out.Bytes(kStateMagic, 8);
  out.Number(sequence);
  out.Number(version.value);
  out.Number(uint32_t{0});
  out.Number(synced_through);
  out.Number(table_pages);
  static_assert(kRegions % 8 == 0);
  for (uint32_t i = 0; i < kRegions; i += 8) {
    uint8_t byte = 0;
    for (uint32_t bit = 0; bit < 8; ++bit) byte |= static_cast<uint8_t>(dirty_regions[i + bit] << bit);
    out.Number(byte);
  }
  out.Number(boot);
  SealPage(page);
}

Result<ReplicaState> ReplicaState::Decode(const Page& page) {
  TRY(CheckPage(page, kStateMagic, "state page"));
  Reader in{page.data() + 8};
  ReplicaState state;
  state.sequence = in.Number<uint64_t>();
  state.version = ChunkVersion{in.Number<uint32_t>()};
  in.Number<uint32_t>();
  state.synced_through = in.Number<uint64_t>();
  state.table_pages = in.Number<uint64_t>();
  for (uint32_t i = 0; i < kRegions; i += 8) {
    auto byte = in.Number<uint8_t>();
    for (uint32_t bit = 0; bit < 8; ++bit) state.dirty_regions[i + bit] = byte >> bit & 1;
  }
  state.boot = in.Number<uint64_t>();
  return state;
}

bool IsBlank(const Page& page) {
  return std::all_of(page.begin(), page.end(), [](uint8_t byte) { return byte == 0; });
}

void TablePage::Seal() { checksum = Checksum(entries.data(), sizeof entries); }

bool TablePage::Blank() const {
  return checksum == 0 && std::all_of(entries.begin(), entries.end(), [](uint64_t e) { return e == 0; });
}

bool TablePage::Valid() const { return checksum == Checksum(entries.data(), sizeof entries) || Blank(); }

std::string ReplicaFileName(ChunkId chunk, InstanceId instance) {
  return fmt::format("{:016x}.{:016x}", chunk.value, instance.value);
}

std::string ReplicaDirectoryName(ChunkId chunk) { return fmt::format("{:02x}", chunk.value & 0xff); }

bool ParseReplicaFileName(const std::string& name, ChunkId& chunk, InstanceId& instance) {
  if (name.size() != 33 || name[16] != '.') return false;
  const char* begin = name.data();
  auto first = std::from_chars(begin, begin + 16, chunk.value, 16);
  auto second = std::from_chars(begin + 17, begin + 33, instance.value, 16);
  return first.ptr == begin + 16 && second.ptr == begin + 33 && name == ReplicaFileName(chunk, instance);
}

}  // namespace shoal
