#include "metaserver/check/run.h"

#include <fmt/format.h>

namespace shoal::meta {
namespace {

constexpr size_t kKept = 1000;  // findings and mends; beyond that they are counted only

std::string BigEndian(std::initializer_list<uint64_t> numbers) {
  std::string bytes;
  for (uint64_t n : numbers) {
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(n >> shift));
  }
  return bytes;
}

uint64_t NumberAt(const leveldb::Slice& bytes, size_t index) {
  uint64_t n = 0;
  for (size_t i = 0; i < 8; ++i) n = n << 8 | static_cast<uint8_t>(bytes[8 * index + i]);
  return n;
}

}  // namespace

pb::MetaFinding* CheckRun::Note(const char* check, const Key& where, std::string what) {
  ++result.problems;
  if (result.findings.size() >= kKept) return nullptr;
  pb::MetaFinding& finding = result.findings.emplace_back();
  finding.set_check(check);
  finding.set_where(where.ToString());
  finding.set_what(std::move(what));
  return &finding;
}

void CheckRun::Problem(const char* check, const Key& where, std::string what, const char* next) {
  if (pb::MetaFinding* finding = Note(check, where, std::move(what))) finding->set_next(next);
}

void CheckRun::Mendable(const char* check, const Key& where, std::string what, const Key& key, Mend mend) {
  pb::MetaFinding* finding = Note(check, where, std::move(what));
  if (!finding) return;
  finding->set_mendable(true);
  finding->set_next("stop the metaserver and run `shoal meta check --dir DIR --mend`");
  result.mends.push_back({key, std::move(mend)});
}

Status CheckRun::AddName(InodeId inode, InodeId parent, uint64_t cookie, uint32_t type) {
  leveldb::Status put =
      scratch_->Put(leveldb::WriteOptions(), BigEndian({inode.value, parent.value, cookie}), BigEndian({type}));
  if (!put.ok()) return Fail(ErrorCode::kIo, "writing scratch data of the check: " + put.ToString());
  return {};
}

NameCursor::NameCursor(CheckRun& run) : it_(run.scratch()->NewIterator(leveldb::ReadOptions())) {
  it_->SeekToFirst();
  Load();
}

void NameCursor::Next() {
  it_->Next();
  Load();
}

void NameCursor::Load() {
  if (!it_->Valid()) return;
  name_ = {InodeId(NumberAt(it_->key(), 0)), InodeId(NumberAt(it_->key(), 1)), NumberAt(it_->key(), 2),
           static_cast<uint32_t>(NumberAt(it_->value(), 0))};
}

Status NameCursor::status() const {
  if (it_->status().ok()) return {};
  return Fail(ErrorCode::kIo, "reading scratch data of the check: " + it_->status().ToString());
}

bool IdWasGiven(const CheckRun& run, uint64_t id, uint64_t bound) {
  uint64_t incarnation = id >> 48, number = id & ((uint64_t{1} << 48) - 1);
  return number < bound && incarnation >= 1 && incarnation <= run.life.incarnation();
}

}  // namespace shoal::meta
