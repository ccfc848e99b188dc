// The frame: a fixed header of 48 bytes (little-endian), a protobuf message, a raw payload.
//
//   offset size
//    0      4   magic "SHL1"
//    4      1   kind: 1 request, 2 response
//    5      1   flags, 0
//    6      2   method (pb::Method)
//    8      8   request id, chosen by the requester, unique on its connection and direction
//   16      8   transaction number: of a response, the highest one its answer depends on; else the highest seen
//   24      4   incarnation, the highest seen by the sender
//   28      4   request: milliseconds until its deadline; response: status (ErrorCode)
//   32      4   message length, at most kMaxMessage
//   36      4   payload length, at most kMaxPayload
//   40      8   XXH3-64 of the message, seeded with the XXH3-64 of the 40 bytes before
//
// The payload is covered by the block checksums in the message that goes with it.
#pragma once

#include <cstdint>
#include <string_view>

#include "common/result.h"

namespace shoal::rpc_internal {

inline constexpr size_t kHeaderSize = 48;
inline constexpr uint32_t kMagic = 0x314c4853;  // "SHL1"
inline constexpr uint8_t kRequestKind = 1;
inline constexpr uint8_t kResponseKind = 2;

// A decoded header. A plain value.
struct FrameHeader {
  uint8_t kind = 0;
  uint16_t method = 0;
  uint64_t id = 0;
  uint64_t txn = 0;
  uint32_t incarnation = 0;
  uint32_t status = 0;  // or the time left
  uint32_t message_size = 0;
  uint32_t payload_size = 0;
  uint64_t checksum = 0;
  uint64_t seed = 0;  // XXH3 of the first 40 bytes
};

// The largest frame that a connection takes in its present state.
struct FrameLimits {
  size_t message = 0;
  size_t payload = 0;
};

// Fills 48 bytes, with the checksum of `message`.
void EncodeHeader(const FrameHeader& header, std::string_view message, uint8_t* out);
// kBadMessage or kTooLarge when the frame can't be one of ours; checked before memory is taken.
Result<FrameHeader> DecodeHeader(const uint8_t* bytes, const FrameLimits& limits);
Status CheckMessage(const FrameHeader& header, std::string_view message);

}  // namespace shoal::rpc_internal
