#include "metaserver/view.h"

#include <fmt/format.h>

#include "metaserver/context.h"
#include "metaserver/driver.h"
#include "metaserver/ids.h"

namespace shoal::meta {

View::View(MetaContext& context, const pb::Caller* caller, int64_t now_ns, const pb::Recipe* recipe)
    : context_(context), caller_(caller), now_ns_(now_ns), recipe_(recipe) {}

View::~View() = default;

std::unexpected<Error> View::ColdError() {
  abandoned_ = true;
  return Fail(ErrorCode::kNotReady);
}

RecordChange* View::FindChange(const Key& key) {
  for (auto it = changes_.rbegin(); it != changes_.rend(); ++it) {
    if (it->key == key) return &*it;
  }
  return nullptr;
}

bool View::GetMessage(const Key& key, const Message& prototype, const Message** message) {
  if (const RecordChange* change = FindChange(key)) {
    *message = change->record.get();
    return true;
  }
  const StoreEntry* entry = context_.store->Find(key);
  if (entry) [[likely]] {
    *message = entry->record.get();
    if (entry->txn > seen_) seen_ = entry->txn;
    return true;
  }
  for (const auto& [kind, id] : fresh_) {
    if (key.numbers() > 0 && key.number(0) == id && Store::Covers(kind, key.kind())) {
      *message = nullptr;
      return true;
    }
  }
  needs_.cold.push_back({key, &prototype});
  return false;
}

Message* View::MutableMessage(const Key& key, const Message& prototype) {
  if (RecordChange* change = FindChange(key)) {
    CHECK(change->record);
    return change->record.get();
  }
  const StoreEntry* entry = context_.store->Find(key);
  CHECK(entry && entry->record);
  std::unique_ptr<Message> copy(prototype.New());
  copy->CheckTypeAndMergeFrom(*entry->record);
  changes_.push_back({key, std::move(copy)});
  return changes_.back().record.get();
}

Message* View::PutMessage(const Key& key, const Message& prototype) {
  std::unique_ptr<Message> record(prototype.New());
  if (RecordChange* change = FindChange(key)) {
    change->record = std::move(record);
    return change->record.get();
  }
  changes_.push_back({key, std::move(record)});
  return changes_.back().record.get();
}

void View::Delete(const Key& key) {
  if (RecordChange* change = FindChange(key)) {
    change->record.reset();
    return;
  }
  changes_.push_back({key, nullptr});
}

Result<uint64_t> View::NextOfRecipe(int which) {
  if (recipe_used_ == recipe_->numbers_size() || (recipe_->numbers(recipe_used_) & 7) != static_cast<uint64_t>(which)) {
    return Fail(ErrorCode::kStale, "it needs another number now than then");
  }
  numbers_.push_back(recipe_->numbers(recipe_used_));
  return recipe_->numbers(recipe_used_++) >> 3;
}

Result<uint64_t> View::NewId(int which) {
  const auto kind = static_cast<IdAllocator::Which>(which);
  std::optional<uint64_t> id;
  if (recipe_) {
    TRY_ASSIGN(uint64_t then, NextOfRecipe(which));
    id = context_.ids->Again(kind, then);
    if (!id) return Fail(ErrorCode::kStale, fmt::format("number {:x} was never given", then));
    return *id;
  }
  id = context_.ids->Next(kind);
  if (!id) {
    needs_.ids = true;
    return ColdError();
  }
  numbers_.push_back(IdAllocator::Bare(*id) << 3 | static_cast<uint64_t>(which));
  return *id;
}

// The count, then the servers, all under the kind of servers: operations of sessions make none.
void View::NotePlaced(const std::vector<ServerId>& servers) {
  numbers_.push_back(servers.size() << 3 | IdAllocator::kServer);
  for (ServerId server : servers) numbers_.push_back(static_cast<uint64_t>(server.value) << 3 | IdAllocator::kServer);
}

Result<std::vector<ServerId>> View::PlacedThen() {
  TRY_ASSIGN(uint64_t count, NextOfRecipe(IdAllocator::kServer));
  std::vector<ServerId> servers;
  for (uint64_t i = 0; i < count; ++i) {
    TRY_ASSIGN(uint64_t server, NextOfRecipe(IdAllocator::kServer));
    servers.emplace_back(static_cast<uint32_t>(server));
  }
  return servers;
}

Result<InodeId> View::NewInodeId() {
  TRY_ASSIGN(uint64_t id, NewId(IdAllocator::kInode));
  if (recipe_) {
    TRY_ASSIGN(const pb::InodeRecord* there, GetInode(InodeId(id)));
    if (there) return Fail(ErrorCode::kStale, fmt::format("inode {:x} exists", id));
    return InodeId(id);
  }
  fresh_.emplace_back(KeyKind::kInode, id);
  return InodeId(id);
}

Result<ChunkId> View::NewChunkId() {
  TRY_ASSIGN(uint64_t id, NewId(IdAllocator::kChunk));
  if (recipe_) {
    TRY_ASSIGN(const pb::ChunkRecord* there, GetChunk(ChunkId(id)));
    if (there) return Fail(ErrorCode::kStale, fmt::format("chunk {:016x} exists", id));
    return ChunkId(id);
  }
  fresh_.emplace_back(KeyKind::kChunk, id);
  return ChunkId(id);
}

Result<SessionId> View::NewSessionId() {
  TRY_ASSIGN(uint64_t id, NewId(IdAllocator::kSession));
  fresh_.emplace_back(KeyKind::kSession, id);
  return SessionId(id);
}

Result<InstanceId> View::NewInstanceId() {
  TRY_ASSIGN(uint64_t id, NewId(IdAllocator::kInstance));
  return InstanceId(id);
}

Result<ServerId> View::NewServerId() {
  TRY_ASSIGN(uint64_t id, NewId(IdAllocator::kServer));
  return ServerId(static_cast<uint32_t>(id));
}

Result<uint64_t> View::NewOrder() { return NewId(IdAllocator::kOrder); }
Result<uint64_t> View::NewLease() { return NewId(IdAllocator::kLease); }

Status View::WaitWhileBusy(InodeId id) {
  if (!context_.busy->Contains(id)) return {};
  needs_.busy = id;
  return ColdError();
}

Status View::Require(Prerequisite task) {
  needs_.prerequisite = std::move(task);
  return ColdError();
}

Status View::RetryAfter(Duration delay) {
  needs_.retry_after = delay;
  return ColdError();
}

}  // namespace shoal::meta
