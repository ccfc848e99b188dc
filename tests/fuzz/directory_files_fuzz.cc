// The small files of a data directory: its identity, the write intents, the names of replica files.
#include "chunkserver/identity.h"
#include "chunkserver/layout.h"
#include "chunkserver/write_intent.h"
#include "common/checksum.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_files.h"

using namespace shoal;

namespace {

constexpr char kIntent[] = "/intent";

void Put(test::FakeFiles& files, const std::string& path, std::string_view content) {
  auto file = files.Open(path, Files::Mode::kCreate);
  CHECK(file && (*file)->Write(0, {reinterpret_cast<const uint8_t*>(content.data()), content.size()}));
}

void CheckIdentity(std::string_view text) {
  test::FakeFiles files;
  CHECK(files.CreateDirectory("/data"));
  Put(files, std::string("/data/") + kIdentityName, text);
  auto identity = ReadIdentity(files, "/data");
  if (!identity) return;
  CHECK(identity->has_value());
  auto again = DirectoryIdentity::Decode((*identity)->Encode());
  CHECK(again && again->server_uuid == (*identity)->server_uuid && again->cluster_uuid == (*identity)->cluster_uuid);
}

void CheckName(std::string_view text) {
  ChunkId chunk;
  InstanceId instance;
  std::string name(text);
  if (ParseReplicaFileName(name, chunk, instance)) CHECK(ReplicaFileName(chunk, instance) == name);
}

// `sealed`: the checksum is made right, so that all numbers are looked at.
void CheckIntent(std::string bytes, bool sealed) {
  if (sealed) bytes += fuzz::Raw(Checksum(bytes));
  test::FakeFiles files;
  Put(files, kIntent, bytes);
  auto intent = WriteIntent::Open(files, kIntent);
  CHECK(intent);
  const WriteIntent::Content found = (*intent)->left_behind();
  CHECK(found.changes.size() <= kBlocksPerChunk && found.changes.size() * 16 <= bytes.size());
  CHECK((*intent)->Note(found.chunk, found.instance, found.changes));
  auto again = WriteIntent::Open(files, kIntent);
  CHECK(again && (*again)->left_behind().chunk == found.chunk &&
        (*again)->left_behind().changes.size() == found.changes.size());
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  test::FakeFiles files;
  auto intent = WriteIntent::Open(files, kIntent);
  CHECK(intent && (*intent)->Note(ChunkId{1}, InstanceId{2}, {{3, 4}, {5, 6}}));
  std::string bytes = files.Content(kIntent, 0, 32 + 2 * 16);
  return {"i" + DirectoryIdentity{"server", "cluster"}.Encode(), "n" + ReplicaFileName(ChunkId{0xab}, InstanceId{1}),
          "s" + bytes, "r" + files.Content(kIntent, 0, 200)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  char kind = static_cast<char>(input.Byte());
  std::string_view rest = input.Rest();
  if (kind == 'i') CheckIdentity(rest);
  if (kind == 'n') CheckName(rest);
  if (kind == 's' || kind == 'r') CheckIntent(std::string(rest), kind == 's');
  return 0;
}
