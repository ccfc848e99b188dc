// WalkRuns: walks over files that a client asks for part by part (FSCK, SCRUB).
#pragma once

#include <map>
#include <memory>
#include <string>

#include "common/proto/check.pb.h"
#include "metaserver/chunks/file_walk.h"
#include "metaserver/chunks/state.h"
#include "metaserver/reader_pool.h"

namespace shoal::meta {

// A walk between two calls. Namespace thread but for the steps of `walk`; owner: WalkRuns and the call at work on it.
struct WalkRun {
  explicit WalkRun(EventLoop& loop) : idle(loop) {}
  virtual ~WalkRun() = default;

  uint64_t id = 0;
  std::unique_ptr<FileWalk> walk;
  bool busy = false;
  WaitList idle;
  uint64_t page = 0;   // the next one
  std::string answer;  // of the one before
  SteadyTime used{};
};

// A thread that reads LevelDB for walks, so that neither the namespace thread nor those who wait for cold records
// notice. Owner: ChunkService.
class WalkThread {
 public:
  explicit WalkThread(EventLoop& loop) : loop_(loop) {}
  void UseDatabase(leveldb::DB* db) { db_ = db; }
  // Runs `job` there, with LevelDB as far as it is logged.
  Task<void> Run(std::function<void(leveldb::DB*)> job);

 private:
  EventLoop& loop_;
  leveldb::DB* db_ = nullptr;
  ReaderPool pool_{1};
};

// Begins and finds them; a few at a time, each forgotten when nobody has asked for a minute. In memory only: after a
// restart the client is told to begin again. Namespace thread; owner: the methods that walk.
class WalkRuns {
 public:
  using Make = std::function<std::shared_ptr<WalkRun>()>;
  WalkRuns(ChunkState& state, WalkThread& thread, Make make) : state_(state), thread_(thread), make_(std::move(make)) {}

  // The run that is asked for, for one call, which ends with Leave; null: it was given up, as asked. kNotFound: it is
  // forgotten, or there is no such path. kBusy: too many run.
  Task<Result<std::shared_ptr<WalkRun>>> Take(const pb::WalkRequest* request);
  void Leave(WalkRun& run);
  // The same page again: `answer` is its answer.
  static bool Again(const WalkRun& run, const pb::WalkRequest& request) {
    return run.page > 0 && request.page() == run.page - 1;
  }
  // One step of the walk, on another thread.
  Task<Status> Step(WalkRun* run, WalkVisitor* visitor);
  void Tick();  // forgets

 private:
  Task<Result<std::shared_ptr<WalkRun>>> Begin(const pb::WalkRequest* request);

  ChunkState& state_;
  WalkThread& thread_;
  Make make_;
  std::map<uint64_t, std::shared_ptr<WalkRun>> runs_;
};

}  // namespace shoal::meta
