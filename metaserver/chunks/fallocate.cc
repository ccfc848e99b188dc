#include <fcntl.h>
#include <linux/falloc.h>

#include "metaserver/attr.h"
#include "metaserver/chunks/data_ops.h"

namespace shoal::meta {

// Space is not reserved: plain allocation only makes the file longer. Punching and zeroing drop the chunks that lie
// wholly inside; the client has zeroed the parts of chunks at both ends.
Task<Result<TxnId>> DataOps::Fallocate(CallInfo, const pb::FallocateRequest& request, pb::AttrResponse& response) {
  InodeId id(request.inode());
  uint32_t mode = request.mode();
  bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
  uint32_t what = mode & ~static_cast<uint32_t>(FALLOC_FL_KEEP_SIZE);
  bool zero = what == FALLOC_FL_ZERO_RANGE || (what == FALLOC_FL_PUNCH_HOLE && keep_size);
  if (what != 0 && !zero) {
    co_return Fail(ErrorCode::kNotSupported, fmt::format("fallocate mode {:#x} is not supported", mode));
  }
  if (request.length() == 0) co_return Fail(ErrorCode::kInvalidArgument, "the length is zero");
  uint64_t end = request.offset() + request.length();
  if (end < request.offset() || end > kMaxFileSize) co_return Fail(ErrorCode::kFileTooBig, "behind the largest size");

  std::function<Status(View&)> check = [&](View& view) -> Status {
    const pb::InodeRecord* inode = nullptr;
    return CheckMayWrite(view, id, request.caller(), &inode);
  };
  Task<Result<TxnId>> checking = RunOp(state_, std::move(check), CommitLevel::kLogged);
  Result<TxnId> checked = co_await checking;
  if (!checked) co_return Fail(checked.error());

  uint64_t first = (request.offset() + kChunkSize - 1) / kChunkSize, behind = end / kChunkSize;
  if (zero && first < behind) {
    Task<Status> drop = truncator_.DropBatches(id, first, behind - 1);
    Status dropped = co_await drop;
    if (!dropped) co_return Fail(dropped.error());
  }
  std::function<Status(View&)> finish = [&](View& view) -> Status {
    const pb::InodeRecord* inode = nullptr;
    TRY(CheckMayWrite(view, id, request.caller(), &inode));
    bool grows = !keep_size && end > inode->size();
    auto* changed = view.MutableInode(id);
    if (grows) SetSize(view, changed, end);
    if (zero) TouchModified(changed, view.now_ns());
    if (!zero && grows) TouchChanged(changed, view.now_ns());
    response.Clear();
    FillAttr(id, *changed, response.mutable_attr());
    return {};
  };
  // It is no remembered request, which the session could hand in after a power cut.
  Task<Result<TxnId>> finishing = RunOp(state_, std::move(finish), CommitLevel::kDurable);
  Result<TxnId> finished = co_await finishing;
  if (!finished) co_return Fail(finished.error());
  co_return *finished;
}

}  // namespace shoal::meta
