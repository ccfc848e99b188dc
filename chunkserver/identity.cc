#include "chunkserver/identity.h"

#include <fmt/format.h>

#include <cstdint>
#include <random>
#include <sstream>

namespace shoal {
namespace {

constexpr char kTitle[] = "shoal data directory";
constexpr int kDirectoryFormat = 1;

}  // namespace

std::string DirectoryIdentity::Encode() const {
  std::string text = fmt::format("{}\nformat {}\nserver {}\ncluster {}\n", kTitle, kDirectoryFormat, server_uuid,
                                 cluster_uuid.empty() ? "-" : cluster_uuid);
  if (life != 0) text += fmt::format("incarnation {} {:x}\n", incarnation, life);
  return text;
}

Result<DirectoryIdentity> DirectoryIdentity::Decode(const std::string& text) {
  std::istringstream in(text);
  std::string title;
  std::getline(in, title);
  std::string format_word, server_word, cluster_word;
  int format = 0;
  DirectoryIdentity identity;
  in >> format_word >> format >> server_word >> identity.server_uuid >> cluster_word >> identity.cluster_uuid;
  bool good = in && title == kTitle && format_word == "format" && server_word == "server" && cluster_word == "cluster";
  if (good && format > kDirectoryFormat) {
    return Fail(ErrorCode::kNotSupported,
                fmt::format("it has format {}, and this program knows up to {}: use a newer program", format, kDirectoryFormat));
  }
  if (!good || format < 1) return Fail(ErrorCode::kCorrupt, "it is not readable as a data directory's identity");
  if (identity.cluster_uuid == "-") identity.cluster_uuid.clear();
  std::string word;
  if (!(in >> word) || word != "incarnation") return identity;
  if (!(in >> identity.incarnation >> std::hex >> identity.life) || identity.life == 0) {
    return Fail(ErrorCode::kCorrupt, "its incarnation is not readable");
  }
  return identity;
}

Result<std::optional<DirectoryIdentity>> ReadIdentity(Files& files, const std::string& directory) {
  std::string path = directory + "/" + kIdentityName;
  auto text = ReadSmallFile(files, path, 64 << 10);
  if (!text && text.error().code == ErrorCode::kNotFound) return std::optional<DirectoryIdentity>();
  if (!text) return Fail(std::move(text).error());
  auto identity = DirectoryIdentity::Decode(*text);
  if (!identity) return Fail(identity.error().code, path + ": " + identity.error().message);
  return std::optional<DirectoryIdentity>(std::move(*identity));
}

Status WriteIdentity(Files& files, const std::string& directory, const DirectoryIdentity& identity) {
  return ReplaceFile(files, directory, kIdentityName, identity.Encode());
}

std::string RandomUuid() {
  std::random_device random;
  uint32_t w[4];
  for (uint32_t& word : w) word = random();
  w[1] = (w[1] & 0xffff0fff) | 0x4000;
  w[2] = (w[2] & 0x3fffffff) | 0x80000000;
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:04x}{:08x}", w[0], w[1] >> 16, w[1] & 0xffff, w[2] >> 16,
                     w[2] & 0xffff, w[3]);
}

}  // namespace shoal
