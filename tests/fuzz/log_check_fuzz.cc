// The check of LevelDB's logs before LevelDB opens them.
//
// Kind 'd' damages the log of a real database: what the check lets pass (or cuts), LevelDB opens with paranoid checks.
// Kind 'p' makes logs of arbitrary pieces with right checksums, kind 'r' takes the bytes as they are, kind 'n' as a
// file's name.
#include <leveldb/db.h>
#include <leveldb/write_batch.h>

#include <climits>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/proto/record.pb.h"
#include "metaserver/batch.h"
#include "metaserver/log_check.h"
#include "metaserver/log_reader.h"
#include "tests/fuzz/fuzz.h"

using namespace shoal;
using namespace shoal::meta;
using fuzz::Input;
namespace fs = std::filesystem;

namespace {

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void WriteFile(const fs::path& path, std::string_view bytes) { std::ofstream(path, std::ios::binary) << bytes; }

bool OpensWithParanoidChecks(const std::string& dir) {
  leveldb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  leveldb::DB* db = nullptr;
  bool good = leveldb::DB::Open(options, dir, &db).ok();
  delete db;
  return good;
}

leveldb::WriteBatch MakeBatch(uint64_t txn, uint64_t durable, const std::string& value) {
  pb::CommitRecord record;
  record.set_txn(txn);
  record.set_durable(durable);
  leveldb::WriteBatch batch;
  batch.Put("key", value);
  PutRecord(&batch, CommitKey(), record);
  return batch;
}

// A database of twelve transactions in one log of three blocks, of which four are durable; and a directory to work in.
struct Fixture {
  const fs::path base = fuzz::MakeScratchDirectory(), dir = fuzz::MakeScratchDirectory();
  fs::path log;  // its name

  Fixture() {
    leveldb::Options options;
    options.create_if_missing = true;
    leveldb::DB* db = nullptr;
    CHECK(leveldb::DB::Open(options, base, &db).ok());
    for (uint64_t txn = 1; txn <= 12; ++txn) {
      leveldb::WriteBatch batch = MakeBatch(txn, txn > 4 ? 4 : 0, std::string(txn % 3 ? 200 : 20000, 'x'));
      CHECK(db->Write({}, &batch).ok());
    }
    delete db;
    for (const auto& file : fs::directory_iterator(base)) {
      if (file.path().extension() == ".log") log = file.path().filename();
    }
    CHECK(!log.empty());
  }
  ~Fixture() {
    fs::remove_all(base);
    fs::remove_all(dir);
  }
  void Reset() {
    for (const auto& file : fs::directory_iterator(dir)) fs::remove(file);
  }
};

// As LevelDB's log format has it.
std::string Piece(uint8_t type, std::string_view data) {
  auto crc_of = [](std::string_view bytes) {
    uint32_t crc = ~0u;
    for (char c : bytes) {
      crc ^= static_cast<uint8_t>(c);
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
  };
  std::string body = fuzz::Raw(type) + std::string(data);
  uint32_t crc = crc_of(body);
  return fuzz::Raw((crc >> 15 | crc << 17) + 0xa282ead8u) + fuzz::Raw(static_cast<uint16_t>(data.size())) + body;
}

// What a batch is on the disk: sequence number, count, then tag, key and value of each change.
std::string BatchBytes(uint64_t txn, uint64_t durable) {
  pb::CommitRecord record;
  record.set_txn(txn);
  record.set_durable(durable);
  std::string key(CommitKey().view()), value = record.SerializeAsString();
  return std::string(8, '\0') + fuzz::Raw(uint32_t{1}) + "\1" + static_cast<char>(key.size()) + key +
         static_cast<char>(value.size()) + value;
}

std::string LogOfPieces(Input& input) {
  std::string log;
  while (uint8_t kind = input.Byte() % 8) {
    if (kind < 5) {
      log += Piece(kind, input.TakeSized());
    } else if (kind == 5) {
      log += Piece(1, BatchBytes(input.Byte(), input.Byte()));
    } else if (kind == 6) {
      log += input.TakeSized();
    } else {
      log.append(std::min<size_t>(input.Number<uint16_t>(), 32768 - log.size() % 32768), '\0');  // to the next block
    }
  }
  return log;
}

std::string Damage(std::string log, Input& input) {
  while (uint8_t kind = input.Byte() % 4) {
    size_t at = input.Number<uint32_t>() % (log.size() + 1);
    if (kind == 1) {
      std::string_view bytes = input.TakeSized();
      log.replace(at, std::min(bytes.size(), log.size() - at), bytes);
    } else if (kind == 2) {
      log.resize(at);
    } else {
      log.append(input.Number<uint16_t>(), '\0');
    }
  }
  return log;
}

// A check that succeeded has nothing left to do.
void CheckOnce(const std::string& dir) {
  Status checked = CheckLogs(dir);
  if (!checked) {
    CHECK(checked.error().code == ErrorCode::kCorrupt);
    return;
  }
  std::vector<std::string> logs;
  for (const auto& file : fs::directory_iterator(dir)) {
    if (file.path().extension() != ".log") continue;
    std::string bytes = ReadFile(file.path());
    LogReader reader(bytes);
    LogRecord record;
    while (reader.Next(&record)) {
    }
    CHECK(!reader.damaged());
  }
  CHECK(CheckLogs(dir));
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  auto damage = [](uint32_t at, std::string_view bytes) { return "d\1" + Raw(at) + Sized(bytes); };
  auto commit = [](uint8_t txn, uint8_t durable) { return "\5" + Raw(txn) + Raw(durable); };
  std::vector<std::string> seeds{
      "d",
      "d\2" + Raw(uint32_t{60000}),
      "d\3" + Raw(uint32_t{0}) + Raw(uint16_t{40000}),
      "p" + commit(1, 0) + commit(2, 1),
      "p" + commit(1, 0) + commit(3, 1),
      "p\1" + Sized("damaged batch") + commit(4, 3),
      "p\2" + Sized(BatchBytes(1, 0).substr(0, 20)) + "\4" + Sized(BatchBytes(1, 0).substr(20)) + "\6" + Sized("junk"),
      "p" + commit(1, 0) + std::string("\0\1", 2) + commit(2, 0),  // two logs
      "r" + Piece(1, BatchBytes(1, 0)),
      "n0000001.log",
      "n.log",
      "n" + std::string(30, '9') + ".log"};
  for (uint32_t at : {0u, 4u, 6u, 7u, 19u, 300u, 1000u, 21000u, 32768u, 33000u, 62000u, 81000u})
    seeds.push_back(damage(at, "damage"));
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Fixture fixture;
  fixture.Reset();
  Input input(data, size);
  char kind = static_cast<char>(input.Byte());
  if (kind == 'd') {
    for (const auto& file : fs::directory_iterator(fixture.base)) {
      if (file.is_regular_file()) fs::copy(file, fixture.dir / file.path().filename());
    }
    WriteFile(fixture.dir / fixture.log, Damage(ReadFile(fixture.base / fixture.log), input));
    CheckOnce(fixture.dir);
    if (CheckLogs(fixture.dir)) CHECK(OpensWithParanoidChecks(fixture.dir));
  } else if (kind == 'p') {
    for (int number = 1; number == 1 || (number < 4 && !input.empty()); ++number) {
      WriteFile(fixture.dir / ("00000" + std::to_string(number) + ".log"), LogOfPieces(input));
    }
    CheckOnce(fixture.dir);
  } else if (kind == 'r') {
    WriteFile(fixture.dir / "000001.log", input.Rest());
    CheckOnce(fixture.dir);
  } else if (kind == 'n') {
    std::string name(input.Take(NAME_MAX));
    std::erase_if(name, [](char c) { return c == '/' || c == 0; });
    if (name.empty() || name == "." || name == "..") return 0;
    WriteFile(fixture.dir / name, input.Rest());
    CheckOnce(fixture.dir);
  }
  return 0;
}
