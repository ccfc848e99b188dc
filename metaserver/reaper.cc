#include "metaserver/reaper.h"

#include <algorithm>
#include <vector>

#include "common/log.h"
#include "metaserver/chunk_hooks.h"
#include "metaserver/driver.h"
#include "metaserver/store.h"

namespace shoal::meta {
namespace {

constexpr size_t kMaxQueue = 20000;      // inodes kept in memory; the rest is read again from the store
constexpr size_t kExtentsPerBatch = 16;  // each changes up to 16 keys
constexpr size_t kInodesPerBatch = 16;
constexpr Duration kRetry = 1s;

}  // namespace

Reaper::Reaper(MetaContext& context)
    : context_(context), wake_(context.loop), idle_(context.loop), group_(context.loop) {}
Reaper::~Reaper() = default;

void Reaper::Start() {
  working_ = true;
  group_.Spawn(Work());
}

Task<void> Reaper::Stop() {
  stop_ = true;
  wake_.WakeAll();
  idle_.WakeAll();
  Task<void> join = group_.Join();
  co_await join;
}

void Reaper::Add(InodeId inode) {
  if (queue_.size() >= kMaxQueue) {
    more_in_store_ = true;
    return;
  }
  queue_.push_back(inode);
  wake_.WakeAll();
}

Task<void> Reaper::WaitIdle() {
  while (!stop_ && (working_ || !queue_.empty() || more_in_store_)) co_await idle_.Wait();
}

Task<void> Reaper::Work() {
  while (!stop_) {
    Status done;
    if (!queue_.empty()) {
      working_ = true;
      Task<Status> drop = DropSome();
      done = co_await drop;
    } else if (more_in_store_) {
      Task<Status> refill = Refill();
      done = co_await refill;
    } else {
      working_ = false;
      idle_.WakeAll();
      co_await wake_.Wait();
    }
    if (!done && !stop_) {
      LogWarning("dropping the chunks of removed files: {}; trying again", ToString(done.error()));
      more_in_store_ = true;
      co_await context_.loop.Sleep(kRetry);
    }
  }
}

Task<Status> Reaper::Refill() {
  more_in_store_ = false;
  Store::ScanOptions options;
  options.start = Key(KeyKind::kReap);
  options.end = options.start.PrefixEnd();
  options.max_records = kMaxQueue / 2;
  Task<Result<Store::ScanResult>> scan = context_.store->Scan(std::move(options));
  Result<Store::ScanResult> page = co_await scan;
  if (!page) co_return Fail(page.error());
  for (const ScannedRecord& record : page->records) queue_.push_back(InodeId(record.key.number(0)));
  if (!page->next.empty()) more_in_store_ = true;
  co_return Status();
}

Task<Status> Reaper::DropSome() {
  std::vector<InodeId> inodes, large;
  while (!queue_.empty() && inodes.size() < kInodesPerBatch) {
    inodes.push_back(queue_.front());
    queue_.pop_front();
  }
  Task<Status> small = DropSmall(std::move(inodes), &large);
  Status done = co_await small;
  for (InodeId inode : large) {
    if (!done || stop_) break;
    Task<Status> drop = DropLarge(inode);
    done = co_await drop;
  }
  co_return done;
}

// Files of one chunk, several in one batch.
Task<Status> Reaper::DropSmall(std::vector<InodeId> inodes, std::vector<InodeId>* large) {
  std::function<Status(View&)> run = [this, inodes, large](View& view) -> Status {
    large->clear();
    for (InodeId inode : inodes) {
      view.Want<pb::ReapRecord>(ReapKey(inode));
      view.Want<pb::ExtentRecord>(ExtentKey(inode, 0));
    }
    for (InodeId inode : inodes) {
      TRY_ASSIGN(const pb::ReapRecord* reap, view.Get<pb::ReapRecord>(ReapKey(inode)));
      if (!reap) continue;  // done before, and found again by a refill
      TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(inode, 0));
      if (reap->extents() != 1 || !extent) {
        large->push_back(inode);
        continue;
      }
      TRY(context_.chunks->DropExtent(view, inode, 0));
      view.Delete(ReapKey(inode));
    }
    return {};
  };
  Task<Result<TxnId>> execute = context_.driver->Execute(std::move(run));
  Result<TxnId> done = co_await execute;
  if (!done) co_return Fail(done.error());
  co_return Status();
}

Task<Status> Reaper::DropLarge(InodeId inode) {
  Store::ScanOptions options;
  options.start = Key(KeyKind::kExtent, inode.value);
  options.end = options.start.PrefixEnd();
  options.max_records = kExtentsPerBatch;
  while (!stop_) {
    Task<Result<Store::ScanResult>> scan = context_.store->Scan(options);
    Result<Store::ScanResult> page = co_await scan;
    if (!page) co_return Fail(page.error());
    std::function<Status(View&)> run = [this, inode, &page](View& view) -> Status {
      for (const ScannedRecord& record : page->records) {
        TRY(context_.chunks->DropExtent(view, inode, record.key.number(1)));
      }
      if (page->next.empty()) view.Delete(ReapKey(inode));
      return {};
    };
    Task<Result<TxnId>> execute = context_.driver->Execute(std::move(run));
    Result<TxnId> done = co_await execute;
    if (!done) co_return Fail(done.error());
    if (page->next.empty()) break;
    options.start = page->next;
  }
  co_return Status();
}

}  // namespace shoal::meta
