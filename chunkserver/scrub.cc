#include "chunkserver/scrub.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/checksum.h"

namespace shoal {
namespace {

constexpr uint32_t kBlocksPerPiece = kMaxIo / kBlockSize;
constexpr int kAttempts = 8;  // others may close the file at once

Result<std::shared_ptr<ReplicaFile>> OpenFile(ReplicaStore& store, const std::shared_ptr<Replica>& replica,
                                              ChunkVersion version) {
  for (int i = 0; i < kAttempts; ++i) {
    TRY(store.Load(replica));
    std::lock_guard lock(replica->mutex);
    if (replica->bad) return Fail(*replica->bad);
    if (!replica->file) continue;
    if (!version || replica->version == version) return replica->file;
    return Fail(ErrorCode::kVersionMismatch,
                fmt::format("the replica has version {}, not {}", replica->version.value, version.value));
  }
  return Fail(ErrorCode::kOverloaded, "too few files can be open");
}

// What stands under its name: an open file shows nothing of that.
Status CheckName(const Replica& replica, ReplicaFile& open) {
  auto file = replica.disk.files().Open(replica.disk.ReplicaPath(replica.chunk, replica.instance), Files::Mode::kRead);
  if (!file && file.error().code == ErrorCode::kNotFound) {
    return Fail(ErrorCode::kNoReplica, "the replica's file is gone: " + file.error().message);
  }
  if (!file) return Fail(file.error());
  if ((*file)->Number() != open.file().Number()) {
    return Fail(ErrorCode::kCorrupt, "another file has been put in its place");
  }
  Page page;
  (*file)->DropCached(0, page.size());
  TRY_ASSIGN(size_t n, (*file)->Read(0, page));
  auto header = ReplicaHeader::Decode(page);
  if (n < page.size() || !header || (header->chunk == replica.chunk && header->instance == replica.instance)) return {};
  return Fail(ErrorCode::kCorrupt,
              fmt::format("the header is of chunk {:016x} instance {:x}", header->chunk.value, header->instance.value));
}

// Nothing is locked. `in_places`: what is corrupt is a part of it.
std::unexpected<Error> Judge(ReplicaStore& store, const std::shared_ptr<Replica>& replica, Error why, bool in_places) {
  bool bad = why.code == ErrorCode::kCorrupt || why.code == ErrorCode::kIo || why.code == ErrorCode::kNoReplica;
  bool exists;
  {
    std::lock_guard lock(replica->mutex);
    exists = replica->exists && !replica->dropped;
  }
  if (bad && exists) {
    if (in_places) {
      store.Judge(replica, why);
    } else {
      store.MarkBad(replica, why);
    }
  }
  if (why.code == ErrorCode::kNotReady) store.ReportDoubt(replica, why);
  return Fail(std::move(why));
}

}  // namespace

uint32_t ScrubbedTable::NextPiece(uint32_t offset) const {
  for (; offset < kChunkSize; offset += kMaxIo) {
    auto begin = entries.begin() + offset / kBlockSize;
    if (std::any_of(begin, begin + kBlocksPerPiece, [](uint64_t entry) { return entry != 0; })) break;
  }
  return offset;
}

Result<ScrubbedTable> ScrubTable(ReplicaStore& store, const std::shared_ptr<Replica>& replica, ChunkVersion version) {
  auto file = OpenFile(store, replica, version);
  if (!file) return Fail(std::move(file).error());  // Load has judged it
  ScrubbedTable result;
  Status good;
  bool in_places = false;
  {
    std::shared_lock io(replica->io);  // the table and the write number belong together
    (*file)->file().DropCached(0, kDataOffset);
    good = CheckName(*replica, **file);
    in_places = good.has_value();
    if (good) good = (*file)->CheckPages();
    auto table = good ? (*file)->ReadTable() : Result<std::vector<uint64_t>>(Fail(good.error()));
    if (!table) {
      good = Fail(table.error());
    } else {
      result.entries = std::move(*table);
    }
    std::lock_guard lock(replica->mutex);
    result.applied = replica->order.applied();
    result.numbering = replica->order.numbering();
    result.known = replica->order.known();
    result.doubted = (*file)->doubted();
  }
  if (!good) return Judge(store, replica, std::move(good).error(), in_places);
  result.entries.resize(kBlocksPerChunk);
  result.digest = Checksum(result.entries.data(), result.entries.size() * sizeof(uint64_t));
  return result;
}

Result<uint32_t> ScrubPiece(ReplicaStore& store, const std::shared_ptr<Replica>& replica, ChunkVersion version,
                            uint32_t offset) {
  auto file = OpenFile(store, replica, version);
  if (!file) return Fail(std::move(file).error());
  Result<ReadBlocks> blocks;
  {
    std::shared_lock io(replica->io);
    (*file)->file().DropCached(kDataOffset + offset, kMaxIo);
    blocks = (*file)->Read(offset, kMaxIo, ReplicaFile::Wait::kYes, true);
    (*file)->file().DropCached(kDataOffset + offset, kMaxIo);  // nobody asked for it
  }
  if (!blocks) return Judge(store, replica, std::move(blocks).error(), true);
  auto written = std::ranges::count_if(blocks->checksums, [](uint64_t checksum) { return checksum != 0; });
  return static_cast<uint32_t>(written) * kBlockSize;
}

}  // namespace shoal
