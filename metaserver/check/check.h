// Checking the metadata as a whole.
#pragma once

#include <string>

#include "metaserver/check/run.h"

namespace shoal::meta {

// Looks at every invariant of the state that `snapshot` (null: the newest) of `db` has. Blocks for as long as that
// takes; any thread. `scratch_parent`: where a directory for scratch data is made. An error means that the check could
// not be made; what is wrong with the state stands in the result.
Result<CheckResult> CheckState(leveldb::DB* db, const leveldb::Snapshot* snapshot, const std::string& scratch_parent,
                               CheckProgress& progress, uint32_t hash_bits = 55);

// Makes the mends of a result, in one durable batch with the next transaction number. Nobody else uses the state.
Status MendState(leveldb::DB* db, const CheckResult& result);

}  // namespace shoal::meta
