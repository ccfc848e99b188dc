// ChunkHooks: what the namespace asks of the chunks' side (metaserver/chunks/).
#pragma once

#include <memory>

#include "common/result.h"
#include "metaserver/view.h"

namespace leveldb {
class DB;
}

namespace shoal::meta {

// Implemented by metaserver/chunks/ (and by fakes in tests). Namespace thread. Functions with a View are parts of an
// operation: they follow its rules (errors are returned at once, no effects but through the View).
class ChunkHooks {
 public:
  virtual ~ChunkHooks() = default;

  // For long looks at snapshots. It outlives this. Before Register.
  virtual void UseDatabase(leveldb::DB*) {}
  // Registers methods with the driver and the dispatcher. Before Start.
  virtual void Register() = 0;
  // Loads what it keeps in memory and starts background work. Requests are served only after it ended.
  virtual Task<Status> Start() = 0;
  // Ends background work; nothing of it runs afterwards.
  virtual Task<void> Stop() = 0;

  // Makes the file `size` long: sets inode.size (and totals in view.stats()), drops extents that lie behind it. When
  // bytes inside a written chunk have to be cut, or more extents go than fit in one batch, it does so through
  // View::Require, and the operation runs again. The caller has checked permission, sets times and raises `change`.
  virtual Status Truncate(View& view, InodeId id, uint64_t size) = 0;

  // Allocates and grants chunk 0 of a file made in this very operation. False: not now (too few servers): the caller
  // goes on without.
  virtual Result<bool> GrantFirstChunk(View& view, InodeId id, pb::Extent* extent) = 0;

  // The first (at most `max`) extents of a file, for the answer to an open.
  virtual Status FillExtents(View& view, InodeId id, const pb::InodeRecord& inode, size_t max,
                             google::protobuf::RepeatedPtrField<pb::Extent>* extents) = 0;

  // Deletes one extent of a file that is gone, and what belongs to its chunk; at most 16 changed keys. The extent
  // may be gone already. The inode record need not exist any more.
  virtual Status DropExtent(View& view, InodeId id, uint64_t index) = 0;

  // An error: files are lost. What `shoal status` and /healthz say of the chunks.
  virtual Status Health() const { return {}; }

  // The session is gone: its grants are, too.
  virtual void SessionEnded(SessionId session) = 0;
  // A session came back after a reconnect or restart (resumed) or is new. `request` has the locks it holds.
  virtual void SessionOpened(SessionId session, const pb::OpenSessionRequest& request, bool resumed) = 0;
};

// Made in metaserver/chunks/; `context` outlives it.
std::unique_ptr<ChunkHooks> MakeChunkService(MetaContext& context);

}  // namespace shoal::meta
