// CREATE: open(2) with O_CREAT, in one call: makes the file, opens it, and may allocate its first chunk.
#include <fcntl.h>
#include <sys/stat.h>

#include "metaserver/attr.h"
#include "metaserver/chunk_hooks.h"
#include "metaserver/context.h"
#include "metaserver/ops/ops.h"
#include "metaserver/ops/parts.h"
#include "metaserver/sessions.h"

namespace shoal::meta {
namespace {

constexpr size_t kExtentsInAnswer = 8;

void CountOpen(View& view, InodeId id) {
  if (view.again()) return;  // the session has told what it has open
  Sessions* sessions = view.context().sessions;
  SessionId session = view.session();
  view.OnApplied([sessions, session, id](TxnId) { sessions->AddOpen(session, id); });
}

Status OpenExisting(View& view, InodeId id, const pb::InodeRecord& inode, const pb::CreateRequest& request,
                    pb::OpenResponse& response) {
  if (S_ISDIR(inode.mode())) return Fail(ErrorCode::kIsDirectory);
  if (S_ISLNK(inode.mode())) return Fail(ErrorCode::kTooManySymlinks, "the name is a symbolic link");
  const uint32_t truncates = request.truncate() ? O_TRUNC : 0;
  if (request.open() || request.truncate()) {
    TRY(CheckAccess(view.caller(), inode, AccessOfOpenFlags(request.open_flags() | truncates)));
  }
  if (request.truncate() && S_ISREG(inode.mode())) {
    TRY(TruncateForOpen(view, id));
  }
  TRY_ASSIGN(const pb::InodeRecord* now, view.GetInode(id));
  FillAttr(id, *now, response.mutable_attr());
  if (request.open()) {
    if (S_ISREG(now->mode()) && now->extents() > 0) {
      TRY(view.context().chunks->FillExtents(view, id, *now, kExtentsInAnswer, response.mutable_extents()));
    }
    CountOpen(view, id);
  }
  return {};
}

}  // namespace

Status Create(View& view, const pb::CreateRequest& request, pb::OpenResponse& response) {
  const InodeId parent(request.parent());
  const std::string& name = request.name();
  TRY(CheckName(name, ErrorCode::kIsDirectory));
  WantDentry(view, parent, name);
  TRY_ASSIGN(const pb::InodeRecord* directory, NeedDirectory(view, parent, kExecute));
  TRY_ASSIGN(Dentry entry, FindDentry(view, parent, name));
  if (entry) {
    if (request.exclusive()) return Fail(ErrorCode::kExists);
    TRY_ASSIGN(const pb::InodeRecord* inode, NeedNamed(view, entry, name));
    return OpenExisting(view, entry.inode, *inode, request, response);
  }
  TRY(NeedDirectory(view, parent, kWrite | kExecute));
  TRY_ASSIGN(NewInode made, MakeInode(view, *directory, S_IFREG | (request.mode() & 07777)));
  TRY(NameInode(view, parent, name, made));
  response.set_created(true);
  if (request.first_chunk()) {
    TRY_ASSIGN(bool granted, view.context().chunks->GrantFirstChunk(view, made.id, response.add_extents()));
    response.set_granted(granted);
    if (!granted) response.clear_extents();
  }
  TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(made.id));
  FillAttr(made.id, *inode, response.mutable_attr());
  if (request.open()) CountOpen(view, made.id);
  return {};
}

Status Open(View& view, const pb::OpenRequest& request, pb::OpenResponse& response) {
  constexpr uint32_t kForExec = 0x20;  // the kernel's FMODE_EXEC: opened to be executed
  const InodeId id(request.inode());
  TRY_ASSIGN(const pb::InodeRecord* inode, NeedInode(view, id));
  uint32_t access = AccessOfOpenFlags(request.flags());
  if ((request.flags() & kForExec) && access == kRead) access = kExecute;
  if (S_ISLNK(inode->mode())) return Fail(ErrorCode::kTooManySymlinks);
  if (S_ISDIR(inode->mode()) && (access & kWrite)) return Fail(ErrorCode::kIsDirectory);
  TRY(CheckAccess(view.caller(), *inode, access));
  if ((request.flags() & O_TRUNC) && S_ISREG(inode->mode())) {
    TRY(TruncateForOpen(view, id));
  }
  TRY_ASSIGN(const pb::InodeRecord* now, view.GetInode(id));
  FillAttr(id, *now, response.mutable_attr());
  if (S_ISREG(now->mode()) && now->extents() > 0) {
    TRY(view.context().chunks->FillExtents(view, id, *now, kExtentsInAnswer, response.mutable_extents()));
  }
  CountOpen(view, id);
  return {};
}

}  // namespace shoal::meta
