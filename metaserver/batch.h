// Making batches: used by the driver, and by the few that write below it.
#pragma once

#include "metaserver/keys.h"
#include "metaserver/store.h"

namespace leveldb {
class WriteBatch;
}

namespace shoal::meta {

struct MetaContext;

void PutRecord(leveldb::WriteBatch* batch, const Key& key, const Message& record);
// Adds the CommitRecord (with context.totals) and submits. The caller has brought the store up to date, or the
// records are none that it caches.
TxnId SubmitBatch(MetaContext& context, leveldb::WriteBatch* batch);

}  // namespace shoal::meta
