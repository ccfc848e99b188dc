#include "common/rpc/frame.h"

#include <bit>
#include <cstring>

#include "common/checksum.h"

namespace shoal::rpc_internal {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are little-endian; add byte swaps for this machine");

template <typename T>
void Put(uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

template <typename T>
T Get(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

void EncodeHeader(const FrameHeader& header, std::string_view message, uint8_t* out) {
  Put<uint32_t>(out, kMagic);
  Put<uint8_t>(out + 4, header.kind);
  Put<uint8_t>(out + 5, 0);
  Put<uint16_t>(out + 6, header.method);
  Put<uint64_t>(out + 8, header.id);
  Put<uint64_t>(out + 16, header.txn);
  Put<uint32_t>(out + 24, header.incarnation);
  Put<uint32_t>(out + 28, header.status);
  Put<uint32_t>(out + 32, static_cast<uint32_t>(message.size()));
  Put<uint32_t>(out + 36, header.payload_size);
  Put<uint64_t>(out + 40, Checksum(message, Checksum(out, 40)));
}

Result<FrameHeader> DecodeHeader(const uint8_t* bytes, const FrameLimits& limits) {
  if (Get<uint32_t>(bytes) != kMagic) return Fail(ErrorCode::kBadMessage, "this is not Shoal's protocol");
  FrameHeader h;
  h.kind = bytes[4];
  h.method = Get<uint16_t>(bytes + 6);
  h.id = Get<uint64_t>(bytes + 8);
  h.txn = Get<uint64_t>(bytes + 16);
  h.incarnation = Get<uint32_t>(bytes + 24);
  h.status = Get<uint32_t>(bytes + 28);
  h.message_size = Get<uint32_t>(bytes + 32);
  h.payload_size = Get<uint32_t>(bytes + 36);
  h.checksum = Get<uint64_t>(bytes + 40);
  if (h.kind != kRequestKind && h.kind != kResponseKind) {
    return Fail(ErrorCode::kBadMessage, "unknown kind of frame " + std::to_string(h.kind));
  }
  if (h.message_size > limits.message || h.payload_size > limits.payload) {
    return Fail(ErrorCode::kTooLarge, "frame of " + std::to_string(h.message_size) + " + " + std::to_string(h.payload_size) +
                                          " bytes; at most " + std::to_string(limits.message) + " + " +
                                          std::to_string(limits.payload) + " are taken here");
  }
  h.seed = Checksum(bytes, 40);
  return h;
}

Status CheckMessage(const FrameHeader& header, std::string_view message) {
  if (Checksum(message, header.seed) != header.checksum) {
    return Fail(ErrorCode::kChecksumMismatch, "a frame was damaged on its way");
  }
  return {};
}

}  // namespace shoal::rpc_internal
