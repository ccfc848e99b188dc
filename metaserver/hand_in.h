// HandIn: what a power cut of the metaserver took, brought back by the sessions that live on.
#pragma once

#include <memory>
#include <unordered_set>
#include <vector>

#include "common/event_loop.h"
#include "common/metrics.h"
#include "common/proto/meta.pb.h"
#include "common/result.h"
#include "metaserver/call_info.h"
#include "metaserver/context.h"

namespace shoal::meta {

struct Session;

// What was answered is in the operating system at once, and on the disk at most two seconds later. Every client keeps
// its changing requests with their answers until it is told that they are durable. When this metaserver starts with a
// state that lacks some of them, the sessions hand in what they keep (HAND_IN), and it is executed again in the order
// of its transactions, with the same ids and times (Recipe), before anything new is served: those requests wait here.
//
// Each start leaves a gap in the transaction numbers: those in (above, the first of this run) were given and lost.
// Whoever has heard of one (a session or a chunkserver that comes back) proves that something is missing. Until all
// sessions of before are back, or options.hand_in_wait has passed (hand_in_wait_missing once something is known to be
// missing), requests are held. What a session hands in later is executed then, as well as it goes.
//
// The slots say what the state has already, so nothing is done twice, however often it is handed in. Until the hand-in
// has ended every batch records where the state ended (CommitRecord.hand_in_above): should the metaserver be killed
// meanwhile, the next one begins there. Owner: Core; namespace thread.
class HandIn {
 public:
  // `above`: where the state ended, or ended when an earlier hand-in was interrupted.
  HandIn(MetaContext& context, TxnId above);
  ~HandIn();
  // Registers HAND_IN.
  void Register();
  // The sessions of before are known.
  void Start();
  // What is held is dropped; nothing is executed any more.
  void Stop();

  // Requests are held.
  bool holding() const { return phase_ != Phase::kOver && phase_ != Phase::kStopped; }
  bool Holds(pb::Method method) const;
  // `go` is called when it is over.
  void Hold(std::move_only_function<void()> go) { held_.push_back(std::move(go)); }
  Task<void> WaitUntilOver();

  TxnId above() const { return above_; }
  // What may be called durable: nothing of this run before what was handed in is.
  TxnId Durable() const;
  // A transaction that is neither in the state nor was given by this run.
  bool Missing(uint64_t txn) const;
  // An error where `durable`, which somebody was told to be durable, is not of this state: it is an older copy.
  Status CheckDurable(const std::string& who, uint64_t durable) const;

  // Somebody has heard of this transaction.
  void Seen(uint64_t txn);
  // A session is back; the answer says what it must hand in, if anything.
  void SessionResumed(const Session& session, const pb::OpenSessionRequest& request, pb::OpenSessionResponse& response);
  void SessionGone(SessionId session);

 private:
  enum class Phase { kWaiting, kExecuting, kOver, kStopped };
  struct Entry {
    SessionId session;
    pb::HandedIn done;
  };
  Task<Result<TxnId>> Take(CallInfo info, const pb::HandInRequest& request, pb::HandInResponse& response);
  Task<Result<TxnId>> TakeLate(const pb::HandInRequest* request);
  // Goes on when nobody has to be waited for any more.
  void Check();
  Task<void> ExecuteAll();
  Task<TxnId> ExecuteOne(SessionId session, const pb::HandedIn* done, SteadyTime until);
  void Over();

  MetaContext& context_;
  const TxnId above_;
  Phase phase_ = Phase::kWaiting;
  SteadyTime started_{};
  bool missing_ = false;
  std::unordered_set<SessionId> waiting_;  // sessions that are not back, or have more to hand in
  std::vector<Entry> entries_;
  std::vector<std::move_only_function<void()>> held_;
  TxnId last_;  // of what was executed again
  std::unique_ptr<EventLoop::Timer> timer_;
  WaitList over_;
  Counter& handed_in_;
  Counter& failed_;
};

}  // namespace shoal::meta
