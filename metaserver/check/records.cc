// Every key is of a known kind with the right numbers, and its value can be parsed.
#include <fmt/format.h>
#include <google/protobuf/message_lite.h>

#include <map>

#include "metaserver/check/invariants.h"

namespace shoal::meta {
namespace {

constexpr const char* kNext = "restore a backup, or ask with this output";

// How a kind's keys and values look. A plain value.
struct Form {
  size_t numbers;
  const Message* prototype;
};

const std::map<KeyKind, Form>& Forms() {
  static const std::map<KeyKind, Form> forms = {
      {KeyKind::kCommit, {0, &pb::CommitRecord::default_instance()}},
      {KeyKind::kCluster, {0, &pb::ClusterRecord::default_instance()}},
      {KeyKind::kLife, {0, &pb::LifeRecord::default_instance()}},
      {KeyKind::kIdRanges, {0, &pb::IdRanges::default_instance()}},
      {KeyKind::kInode, {1, &pb::InodeRecord::default_instance()}},
      {KeyKind::kDentry, {2, &pb::DentryBucket::default_instance()}},
      {KeyKind::kXattrs, {1, &pb::XattrsRecord::default_instance()}},
      {KeyKind::kExtent, {2, &pb::ExtentRecord::default_instance()}},
      {KeyKind::kOrphan, {1, &pb::OrphanRecord::default_instance()}},
      {KeyKind::kReap, {1, &pb::ReapRecord::default_instance()}},
      {KeyKind::kTruncate, {1, &pb::TruncateIntent::default_instance()}},
      {KeyKind::kChunk, {1, &pb::ChunkRecord::default_instance()}},
      {KeyKind::kBackref, {3, &pb::BackrefRecord::default_instance()}},
      {KeyKind::kByServer, {2, &pb::ByServerRecord::default_instance()}},
      {KeyKind::kServer, {1, &pb::ServerRecord::default_instance()}},
      {KeyKind::kDrop, {3, &pb::DropRecord::default_instance()}},
      {KeyKind::kWork, {1, &pb::WorkRecord::default_instance()}},
      {KeyKind::kUnknown, {3, &pb::UnknownRecord::default_instance()}},
      {KeyKind::kSession, {1, &pb::SessionRecord::default_instance()}},
      {KeyKind::kSlot, {2, &pb::SlotRecord::default_instance()}},
  };
  return forms;
}

std::string Hex(const leveldb::Slice& bytes) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(bytes.size(), 40); ++i)
    text += fmt::format("{:02x}", static_cast<uint8_t>(bytes[i]));
  return text;
}

void CheckRecord(CheckRun& run, const leveldb::Slice& bytes, const leveldb::Slice& value) {
  Key key = Key::FromBytes({bytes.data(), bytes.size()});
  auto form = key.empty() ? Forms().end() : Forms().find(key.kind());
  Key head(key.empty() ? KeyKind::kCommit : key.kind());
  bool known = form != Forms().end() && form->second.numbers == key.numbers() &&
               bytes.starts_with({head.view().data(), Key::kHead});
  if (!known) {
    run.Problem("records", Key(), fmt::format("the key {} is none of this version's", Hex(bytes)),
                "use a newer version, if one has written here; else restore a backup");
    return;
  }
  std::unique_ptr<Message> record(form->second.prototype->New());
  if (!record->ParseFromArray(value.data(), static_cast<int>(value.size()))) {
    run.Problem("records", key, "its record can't be parsed", kNext);
  }
}

}  // namespace

Status CheckRecords(CheckRun& run) {
  leveldb::ReadOptions options;
  options.snapshot = run.snapshot();
  options.fill_cache = false;
  options.verify_checksums = true;
  std::unique_ptr<leveldb::Iterator> it(run.db()->NewIterator(options));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    TRY(run.Step());
    CheckRecord(run, it->key(), it->value());
  }
  if (it->status().ok()) return {};
  run.Problem("records", Key(), "a part of the metadata can't be read: " + it->status().ToString(), kNext);
  return {};
}

}  // namespace shoal::meta
