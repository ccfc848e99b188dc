// RENAME: rename(2) and renameat2(2)'s NOREPLACE and EXCHANGE.
#include <sys/stat.h>

#include "metaserver/attr.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"
#include "metaserver/unlinked.h"

namespace shoal::meta {
namespace {

constexpr uint32_t kNoReplace = 1, kExchange = 2;

// Everything a rename has looked up.
struct Move {
  InodeId from, to;  // directories
  std::string_view name, new_name;
  const pb::InodeRecord* from_record = nullptr;
  const pb::InodeRecord* to_record = nullptr;
  Dentry source, target;
  const pb::InodeRecord* source_record = nullptr;
  const pb::InodeRecord* target_record = nullptr;
  bool source_is_directory() const { return S_ISDIR(source_record->mode()); }
  bool target_is_directory() const { return target_record && S_ISDIR(target_record->mode()); }
};

Status LookUp(View& view, const pb::RenameRequest& request, Move* move) {
  move->from = InodeId(request.parent());
  move->to = InodeId(request.new_parent());
  move->name = request.name();
  move->new_name = request.new_name();
  TRY(CheckName(move->name, ErrorCode::kBusy));
  TRY(CheckName(move->new_name, ErrorCode::kBusy));
  view.Want<pb::InodeRecord>(InodeKey(move->from));
  view.Want<pb::InodeRecord>(InodeKey(move->to));
  WantDentry(view, move->from, move->name);
  WantDentry(view, move->to, move->new_name);
  TRY_ASSIGN(move->from_record, NeedDirectory(view, move->from, kExecute));
  TRY_ASSIGN(move->to_record, NeedDirectory(view, move->to, kExecute));
  TRY_ASSIGN(move->source, FindDentry(view, move->from, move->name));
  if (!move->source) return Fail(ErrorCode::kNotFound);
  TRY_ASSIGN(move->target, FindDentry(view, move->to, move->new_name));
  view.Want<pb::InodeRecord>(InodeKey(move->source.inode));
  if (move->target) {
    TRY_ASSIGN(move->target_record, NeedNamed(view, move->target, move->new_name));
  }
  TRY_ASSIGN(move->source_record, NeedNamed(view, move->source, move->name));
  return {};
}

// kInvalidArgument when `directory` is `ancestor` or lies below it.
Status CheckNotBelow(View& view, InodeId directory, InodeId ancestor) {
  while (true) {
    if (directory == ancestor) return Fail(ErrorCode::kInvalidArgument, "a directory can't move into itself");
    if (directory == kRootInode) return {};
    TRY_ASSIGN(const pb::InodeRecord* record, NeedInode(view, directory));
    if (!record->parent()) return Fail(ErrorCode::kCorrupt, "a directory without a parent");
    if (record->nlink() == 0) return {};  // removed: under nothing
    directory = InodeId(record->parent());
  }
}

Status CheckPermissions(View& view, const Move& move, uint32_t flags) {
  const pb::Caller& caller = view.caller();
  TRY(NeedDirectory(view, move.from, kWrite | kExecute));
  TRY(NeedDirectory(view, move.to, kWrite | kExecute));
  TRY(CheckSticky(caller, *move.from_record, *move.source_record));
  if (move.target) {
    TRY(CheckSticky(caller, *move.to_record, *move.target_record));
  }
  if (move.from == move.to) return {};
  // The directory's ".." changes.
  if (move.source_is_directory()) {
    TRY(CheckAccess(caller, *move.source_record, kWrite));
  }
  if ((flags & kExchange) && move.target_is_directory()) {
    TRY(CheckAccess(caller, *move.target_record, kWrite));
  }
  return {};
}

Status CheckTypes(const Move& move) {
  if (!move.target) return {};
  if (move.source_is_directory()) {
    if (!move.target_is_directory()) return Fail(ErrorCode::kNotDirectory);
    if (move.target_record->entries() > 0) return Fail(ErrorCode::kNotEmpty);
  } else if (move.target_is_directory()) {
    return Fail(ErrorCode::kIsDirectory);
  }
  return {};
}

void Reparent(View& view, InodeId id, bool is_directory, InodeId from, InodeId to) {
  pb::InodeRecord* inode = view.MutableInode(id);
  TouchChanged(inode, view.now_ns());
  if (!is_directory || from == to) return;
  inode->set_parent(to.value);
  pb::InodeRecord* old_parent = view.MutableInode(from);
  old_parent->set_nlink(old_parent->nlink() - 1);
  pb::InodeRecord* new_parent = view.MutableInode(to);
  new_parent->set_nlink(new_parent->nlink() + 1);
}

void Exchange(View& view, const Move& move) {
  ReplaceDentry(view, move.from, move.name, move.target.inode, move.target.type);
  ReplaceDentry(view, move.to, move.new_name, move.source.inode, move.source.type);
  TouchParent(view, move.from, 0);
  if (move.from != move.to) TouchParent(view, move.to, 0);
  Reparent(view, move.source.inode, move.source_is_directory(), move.from, move.to);
  Reparent(view, move.target.inode, move.target_is_directory(), move.to, move.from);
}

Status Replace(View& view, const Move& move, pb::RenameResponse* response) {
  if (move.target) {
    if (!move.target_is_directory() && move.target_record->nlink() <= 1) {
      TRY(view.WaitWhileBusy(move.target.inode));
    }
    ReplaceDentry(view, move.to, move.new_name, move.source.inode, move.source.type);
  } else {
    TRY(AddDentry(view, move.to, move.new_name, move.source.inode, move.source.type));
  }
  RemoveDentry(view, move.from, move.name);
  TouchParent(view, move.from, -1);
  pb::InodeRecord* to = TouchParent(view, move.to, move.target ? 0 : 1);
  if (move.target_is_directory()) to->set_nlink(to->nlink() - 1);
  Reparent(view, move.source.inode, move.source_is_directory(), move.from, move.to);
  if (move.target) {
    pb::InodeRecord left = LoseLink(view, move.target.inode);
    response->set_replaced_inode(move.target.inode.value);
    FillAttr(move.target.inode, left, response->mutable_replaced());
  }
  return {};
}

}  // namespace

Status Rename(View& view, const pb::RenameRequest& request, pb::RenameResponse& response) {
  const uint32_t flags = request.flags();
  if ((flags & ~(kNoReplace | kExchange)) || flags == (kNoReplace | kExchange)) {
    return Fail(ErrorCode::kInvalidArgument, "unknown rename flags");
  }
  Move move;
  TRY(LookUp(view, request, &move));
  if ((flags & kNoReplace) && move.target) return Fail(ErrorCode::kExists);
  if ((flags & kExchange) && !move.target) return Fail(ErrorCode::kNotFound);
  if (move.source_is_directory() && move.from != move.to) {
    TRY(CheckNotBelow(view, move.to, move.source.inode));
  }
  if ((flags & kExchange) && move.target_is_directory() && move.from != move.to) {
    TRY(CheckNotBelow(view, move.from, move.target.inode));
  }
  response.set_inode(move.source.inode.value);
  // Two names of one file: nothing happens, by POSIX.
  if (move.target && move.target.inode == move.source.inode) return {};
  TRY(CheckPermissions(view, move, flags));
  if (flags & kExchange) {
    Exchange(view, move);
    return {};
  }
  TRY(CheckTypes(move));
  return Replace(view, move, &response);
}

}  // namespace shoal::meta
