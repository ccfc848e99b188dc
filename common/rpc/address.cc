#include <charconv>

#include "common/rpc/rpc.h"

namespace shoal {

Result<Address> Address::Parse(std::string_view text, uint16_t default_port) {
  Address a;
  a.port = default_port;
  std::string_view port;
  auto bad = [&](const char* why) {
    return Fail(ErrorCode::kInvalidArgument, "'" + std::string(text) + "' is not HOST[:PORT]: " + why);
  };
  if (text.starts_with('[')) {
    size_t end = text.find(']');
    if (end == text.npos) return bad("']' is missing");
    a.host = text.substr(1, end - 1);
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':') return bad("':PORT' must follow ']'");
      port = text.substr(end + 2);
      if (port.empty()) return bad("the port is missing");
    }
  } else {
    size_t colon = text.rfind(':');
    a.host = text.substr(0, colon);
    if (colon != text.npos) {
      port = text.substr(colon + 1);
      if (port.empty()) return bad("the port is missing");
    }
    if (a.host.find(':') != std::string::npos) return bad("an IPv6 address stands in brackets");
  }
  if (a.host.empty()) return bad("the host is missing");
  if (a.host.find_first_not_of("0123456789") == std::string::npos) return bad("a number alone is no host");
  if (a.host.find_first_of("[]") != std::string::npos) return bad("brackets stand around an IPv6 address only");
  if (!port.empty()) {
    auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), a.port);
    if (error != std::errc() || end != port.data() + port.size()) return bad("a port is a number from 0 to 65535");
  }
  return a;
}

std::string Address::ToString() const {
  bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace shoal
