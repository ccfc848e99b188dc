#include "tools/cli/report.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "common/daemon/config.h"
#include "common/proto/check.pb.h"
#include "common/proto/meta.pb.h"

namespace shoal::cli {

nlohmann::ordered_json ServerJson(const pb::ServerStatus& server) {
  nlohmann::ordered_json disks = nlohmann::ordered_json::array();
  for (const auto& disk : server.disks()) {
    disks.push_back({{"path", disk.path()},
                     {"state", disk.state()},
                     {"reason", disk.reason()},
                     {"capacity_bytes", disk.capacity_bytes()},
                     {"used_bytes", disk.used_bytes()},
                     {"free_bytes", disk.free_bytes()}});
  }
  return {{"id", server.id()},
          {"name", server.name()},
          {"state", server.state()},
          {"address", server.address()},
          {"host", server.host()},
          {"rack", server.rack()},
          {"version", server.version()},
          {"capacity_bytes", server.capacity_bytes()},
          {"used_bytes", server.used_bytes()},
          {"free_bytes", server.free_bytes()},
          {"replicas", server.replicas()},
          {"load", server.load()},
          {"unsynced_bytes", server.unsynced_bytes()},
          {"last_heartbeat_age_seconds", static_cast<double>(server.last_heartbeat_ms()) / 1000},
          {"disks", std::move(disks)}};
}

const char* SafetyName(int safety) {
  switch (safety) {
    case pb::SAFE: return "safe";
    case pb::ONE_RACK: return "one_rack";
    case pb::ONE_SERVER: return "one_server";
    case pb::MISPLACED: return "misplaced";
    case pb::SHORT: return "short";
    case pb::SHORT_RACK: return "short_one_rack";
    case pb::SHORT_SERVER: return "short_one_server";
    case pb::UNAVAILABLE: return "unavailable";
    case pb::LOST: return "lost";
  }
  return "unknown";
}

Table ServerTable() {
  return Table({">id", "name", "state", "address", "host", "rack", ">capacity", ">used", ">fill", ">replicas", ">heartbeat"});
}

void AddServer(Table& table, const pb::ServerStatus& server) {
  table.Row({fmt::format("{}", server.id()), server.name(), server.state(), server.address(), server.host(),
             server.rack().empty() ? "-" : server.rack(), FormatSize(server.capacity_bytes()),
             FormatSize(server.used_bytes()), FormatPercent(server.used_bytes(), server.capacity_bytes()),
             fmt::format("{}", server.replicas()),
             FormatDuration(std::chrono::milliseconds(server.last_heartbeat_ms())) + " ago"});
}

std::string FormatPercent(uint64_t part, uint64_t whole) {
  if (whole == 0) return "-";
  return fmt::format("{:.1f}%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string FormatTime(int64_t ns) {
  time_t seconds = ns / 1000000000;
  int64_t fraction = ns % 1000000000;
  if (fraction < 0) {
    fraction += 1000000000;
    --seconds;
  }
  tm utc{};
  if (!gmtime_r(&seconds, &utc)) return fmt::format("{}", ns);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:09}Z", utc, fraction);
}

std::string Base64(const std::string& bytes) {
  static constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) group = group << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) text += i + j > bytes.size() ? '=' : kLetters[group >> (18 - 6 * j) & 63];
  }
  return text;
}

bool IsUtf8(const std::string& bytes) {
  try {
    (void)nlohmann::json(bytes).dump();
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

void PutName(nlohmann::ordered_json& object, const std::string& key, const std::string& name) {
  if (IsUtf8(name)) {
    object[key] = name;
  } else {
    object[key + "_b64"] = Base64(name);
  }
}

}  // namespace shoal::cli
