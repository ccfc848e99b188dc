#include "metaserver/batch.h"

#include <google/protobuf/message_lite.h>
#include <leveldb/write_batch.h>

#include "common/proto/record.pb.h"
#include "metaserver/commit.h"
#include "metaserver/context.h"
#include "metaserver/hand_in.h"

namespace shoal::meta {

void PutRecord(leveldb::WriteBatch* batch, const Key& key, const Message& record) {
  static thread_local std::string scratch;
  scratch.clear();
  CHECK(record.AppendToString(&scratch));
  batch->Put({key.view().data(), key.view().size()}, scratch);
}

TxnId SubmitBatch(MetaContext& context, leveldb::WriteBatch* batch) {
  TxnId txn = context.commit->Next();
  pb::CommitRecord record;
  record.set_txn(txn.value);
  const Commit& commit = *context.commit;
  // What is durable from before the start is so by the last number of before.
  const bool nothing_synced = commit.durable() < commit.first();
  record.set_durable(nothing_synced ? commit.recovered().value : commit.durable().value);
  if (txn == commit.first()) record.set_previous(commit.recovered().value);
  if (context.hand_in && context.hand_in->holding()) record.set_hand_in_above(context.hand_in->above().value);
  record.set_inodes(context.totals.inodes);
  record.set_file_bytes(context.totals.file_bytes);
  record.set_chunks(context.totals.chunks);
  PutRecord(batch, CommitKey(), record);
  context.commit->Submit(txn, *batch);
  return txn;
}

}  // namespace shoal::meta
