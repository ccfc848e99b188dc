// FileWalk: all files under a directory, as a snapshot of the metadata has them, a part at a time.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "common/ids.h"
#include "common/proto/record.pb.h"
#include "common/result.h"
#include "metaserver/keys.h"

namespace leveldb {
class DB;
class Iterator;
class Snapshot;
}  // namespace leveldb

namespace shoal::meta {

// What a walk tells of what it finds. Called on the thread that steps.
class WalkVisitor {
 public:
  virtual ~WalkVisitor() = default;
  // Each file once (one with several names up to a bound), then its chunks in order, then its end. `path` is below the
  // start; empty: the start itself.
  virtual void BeginFile(const std::string& path, InodeId inode, const pb::InodeRecord& record) = 0;
  virtual void Chunk(uint64_t index, ChunkId chunk, const pb::ChunkRecord& record) = 0;
  virtual void EndFile() = 0;
  // The step ends here.
  virtual bool Full() const = 0;
};

// Goes through directories depth first. Holds one name of each level and a position: its memory is that of the longest
// path, and of the inodes with several names (a million, at most; those beyond are met once for each name). What is
// without a name is not met. One thread at a time; owner: who asked. It holds a snapshot of LevelDB, which outlives it.
class FileWalk {
 public:
  FileWalk(leveldb::DB* db, InodeId start);
  ~FileWalk();
  FileWalk(const FileWalk&) = delete;
  FileWalk& operator=(const FileWalk&) = delete;

  // Goes on until the visitor is full, `steps` records were looked at, or the end. kIo and kCorrupt from LevelDB.
  Status Step(WalkVisitor& visitor, size_t steps);
  bool done() const { return done_; }
  uint64_t directories() const { return directories_; }
  uint64_t others() const { return others_; }  // neither file nor directory

 private:
  // A directory that is being gone through.
  struct Frame {
    InodeId inode;
    size_t path = 0;  // length of its own path
    Key next;         // the bucket of entries to look at
    int in_bucket = 0;
  };
  template <typename T>
  Result<bool> Read(const Key& key, T* record);
  Status Enter(InodeId inode, WalkVisitor& visitor);
  Status NextEntry(leveldb::Iterator& it, WalkVisitor& visitor);
  Status NextChunk(leveldb::Iterator& it, WalkVisitor& visitor);

  leveldb::DB* db_;
  const leveldb::Snapshot* snapshot_;
  InodeId start_;
  bool started_ = false, done_ = false;
  std::string path_;
  std::vector<Frame> frames_;
  InodeId file_;  // whose chunks come next; none: entries come next
  uint64_t file_size_ = 0;
  Key next_extent_;
  std::unordered_set<uint64_t> seen_;
  uint64_t directories_ = 0, others_ = 0;
};

}  // namespace shoal::meta
