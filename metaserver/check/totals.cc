// The totals in the commit record are those of the records.
#include <fmt/format.h>

#include "metaserver/check/invariants.h"

namespace shoal::meta {

Status CheckTotals(CheckRun& run) {
  auto compare = [&](const char* what, int64_t recorded, int64_t counted, void (pb::CommitRecord::*set)(int64_t)) {
    if (recorded == counted) return;
    run.Mendable("totals", CommitKey(), fmt::format("{} {} are recorded, {} are there", recorded, what, counted),
                 CommitKey(),
                 CheckRun::Edit<pb::CommitRecord>([set, counted](pb::CommitRecord& r) { (r.*set)(counted); }));
  };
  compare("inodes", run.commit.inodes(), run.inodes, &pb::CommitRecord::set_inodes);
  compare("bytes of files", run.commit.file_bytes(), run.file_bytes, &pb::CommitRecord::set_file_bytes);
  compare("chunks", run.commit.chunks(), run.chunks, &pb::CommitRecord::set_chunks);
  return {};
}

}  // namespace shoal::meta
