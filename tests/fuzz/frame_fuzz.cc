// The header of a frame: 48 arbitrary bytes, and a message behind them.
#include "common/checksum.h"
#include "common/limits.h"
#include "common/rpc/frame.h"
#include "tests/fuzz/fuzz.h"

using namespace shoal;
using namespace shoal::rpc_internal;

std::vector<std::string> fuzz::Seeds() {
  std::vector<std::string> seeds;
  for (std::string_view message : {"", "message"}) {
    FrameHeader header{.kind = kRequestKind, .method = 32, .id = 7, .status = 1000};
    header.message_size = static_cast<uint32_t>(message.size());
    std::string bytes(kHeaderSize, '\0');
    EncodeHeader(header, message, reinterpret_cast<uint8_t*>(bytes.data()));
    seeds.push_back(bytes.append(message));
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  std::string bytes(input.Take(kHeaderSize));
  bytes.resize(kHeaderSize);
  const auto* head = reinterpret_cast<const uint8_t*>(bytes.data());
  const FrameLimits limits{kMaxMessage, kMaxPayload};
  auto header = DecodeHeader(head, limits);
  if (!header) return 0;
  CHECK(header->kind == kRequestKind || header->kind == kResponseKind);
  CHECK(header->message_size <= limits.message && header->payload_size <= limits.payload);
  std::string_view message = input.Rest();
  if (!CheckMessage(*header, message)) return 0;
  // A frame that is taken is one that would be sent so.
  if (message.size() != header->message_size || bytes[5] != 0) return 0;
  std::string again(kHeaderSize, '\0');
  EncodeHeader(*header, message, reinterpret_cast<uint8_t*>(again.data()));
  CHECK(again == bytes);
  return 0;
}
