#include "metaserver/check/check.h"

#include <fmt/format.h>
#include <leveldb/write_batch.h>

#include <map>

#include "metaserver/backup/state_db.h"
#include "metaserver/batch.h"
#include "metaserver/check/invariants.h"
#include "metaserver/database.h"

namespace shoal::meta {
namespace {

// One invariant. A plain value.
struct Invariant {
  const char* name;
  Status (*check)(CheckRun& run);
};

// Directories stand before links, which use their names; the totals use what the others have counted.
constexpr Invariant kInvariants[] = {
    {"records", CheckRecords},
    {"directories", CheckDirectories},
    {"inodes", CheckInodes},
    {"links", CheckLinks},
    {"file maps", CheckExtents},
    {"chunks", CheckChunks},
    {"index by server", CheckByServer},
    {"xattrs", CheckXattrs},
    {"unlinked files", CheckUnlinked},
    {"orders", CheckOrders},
    {"sessions", CheckSessions},
    {"totals", CheckTotals},
};
constexpr uint64_t kPasses = 3;  // how often a record is looked at, more or less

Status ReadHead(CheckRun& run) {
  auto read = [&](const Key& key, auto& into) -> Status {
    TRY_ASSIGN(auto record, run.Get<std::remove_reference_t<decltype(into)>>(key));
    if (!record)
      return Fail(ErrorCode::kCorrupt, fmt::format("there is no {}: this is no metaserver's state", key.ToString()));
    into = std::move(*record);
    return {};
  };
  TRY(read(ClusterKeyOf(), run.cluster));
  if (run.cluster.format() > kFormat) {
    return Fail(ErrorCode::kNotSupported,
                fmt::format("the metadata has format {}, this program knows formats up to {}: use a newer "
                            "version",
                            run.cluster.format(), kFormat));
  }
  TRY(read(LifeKey(), run.life));
  TRY(read(IdRangesKey(), run.ids));
  TRY(read(CommitKey(), run.commit));
  run.result.cluster_uuid = run.cluster.uuid();
  run.result.incarnation = run.life.incarnation();
  run.result.txn = run.commit.txn();
  if (run.commit.durable() > run.commit.txn()) {
    run.Problem("transactions", CommitKey(),
                fmt::format("transaction {} was durable, and the last one is {}: the end is missing",
                            run.commit.durable(), run.commit.txn()),
                "restore a backup");
  }
  return {};
}

}  // namespace

Result<CheckResult> CheckState(leveldb::DB* db, const leveldb::Snapshot* snapshot, const std::string& scratch_parent,
                               CheckProgress& progress, uint32_t hash_bits) {
  TRY_ASSIGN(auto scratch, ScratchDirectory::Make(scratch_parent, "check"));
  TRY_ASSIGN(auto sorted, StateDb::Open(scratch->path() + "/sorted", StateDb::Mode::kNew));
  const leveldb::Snapshot* own = snapshot ? nullptr : db->GetSnapshot();
  CheckRun run(db, snapshot ? snapshot : own, sorted->db(), progress);
  run.hash_bits = hash_bits;
  Status status = ReadHead(run);
  uint64_t records = static_cast<uint64_t>(std::max<int64_t>(0, 2 * run.commit.inodes() + 4 * run.commit.chunks()));
  progress.estimated = records * kPasses;
  for (const Invariant& invariant : kInvariants) {
    if (!status) break;
    run.Phase(invariant.name);
    status = invariant.check(run);
  }
  if (own) db->ReleaseSnapshot(own);
  if (!status) return Fail(status.error());
  run.result.inodes = static_cast<uint64_t>(run.inodes);
  run.result.chunks = static_cast<uint64_t>(run.chunks);
  return std::move(run.result);
}

Status MendState(leveldb::DB* db, const CheckResult& result) {
  std::map<std::string, std::string> values;  // several mends may be of one record
  auto current = [&](const Key& key) -> std::string& {
    std::string bytes(key.view());
    auto [it, fresh] = values.try_emplace(bytes);
    if (fresh) (void)db->Get(leveldb::ReadOptions(), bytes, &it->second);
    return it->second;
  };
  for (const CheckResult::Mending& mending : result.mends) {
    std::string& value = current(mending.key);
    value = mending.mend(value);
  }
  pb::CommitRecord commit;
  std::string& last = current(CommitKey());
  if (!commit.ParseFromString(last)) return Fail(ErrorCode::kCorrupt, "the commit record can't be parsed");
  commit.set_txn(commit.txn() + 1);
  commit.clear_previous();
  last = commit.SerializeAsString();
  leveldb::WriteBatch batch;
  for (const auto& [key, value] : values) {
    if (value.empty()) {
      batch.Delete(key);
    } else {
      batch.Put(key, value);
    }
  }
  leveldb::WriteOptions write;
  write.sync = true;
  leveldb::Status written = db->Write(write, &batch);
  if (!written.ok()) return Fail(ErrorCode::kIo, "mending: " + written.ToString());
  return {};
}

}  // namespace shoal::meta
