// How servers and file times look in answers; shared by status, servers, stat and dev status.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tools/cli/table.h"

namespace shoal::pb {
class ServerStatus;
}

namespace shoal::cli {

nlohmann::ordered_json ServerJson(const pb::ServerStatus& server);
// A table of servers: name, state, space, replicas.
Table ServerTable();
// "safe", "lost", ...: how --json names the safety of a chunk or file.
const char* SafetyName(int safety);
void AddServer(Table& table, const pb::ServerStatus& server);
std::string FormatPercent(uint64_t part, uint64_t whole);
// Nanoseconds since 1970 by RFC 3339, UTC, with the fraction.
std::string FormatTime(int64_t ns);
std::string Base64(const std::string& bytes);
bool IsUtf8(const std::string& bytes);
// Puts `name` under "name", or under "name_b64" when it is not UTF-8.
void PutName(nlohmann::ordered_json& object, const std::string& key, const std::string& name);

}  // namespace shoal::cli
