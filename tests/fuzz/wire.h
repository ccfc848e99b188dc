// The other end of a connection, by hand: a plain socket that can send anything at all.
#pragma once

#include <google/protobuf/message_lite.h>

#include <optional>
#include <string>
#include <string_view>

#include "common/rpc/frame.h"
#include "common/rpc/rpc.h"

namespace shoal::fuzz {

// A connected TCP socket on loopback with time limits of its own. Owner: one input's run; one thread.
class Wire {
 public:
  // A frame that came. A plain value.
  struct Frame {
    rpc_internal::FrameHeader header;
    std::string message, payload;
  };

  explicit Wire(uint16_t port);
  explicit Wire(int connected_fd) : fd_(connected_fd) { SetLimits(); }
  ~Wire();
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  // Does nothing once the other end has closed.
  void Send(std::string_view bytes);
  // "I have nothing more to say."
  void ShutDown();
  // The next whole frame; nothing when the other end has closed. Ends the process when neither happens in 20 s.
  std::optional<Frame> Receive();
  // Proves the key as a client (or whatever `role` says); false: refused.
  bool Prove(const ClusterKey& key, pb::Role role);

 private:
  void SetLimits();
  bool Take(size_t size, std::string* into);
  int fd_;
};

// The bytes of a request; what the header says of sizes is right.
std::string RequestFrame(uint64_t id, uint16_t method, uint32_t milliseconds, std::string_view message,
                         std::string_view payload = {});

}  // namespace shoal::fuzz
