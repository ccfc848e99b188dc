// Session: this client's conversation with the metaserver.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/attr.h"
#include "client/engine.h"
#include "client/unsynced.h"
#include "common/proto/meta.pb.h"
#include "common/rpc/rpc.h"

namespace shoal::client {

// Whether a request changes something: then it has a slot and a sequence number, and is executed once however often it
// is sent.
enum class CallKind { kRead, kMutate };

// Connections to the metaservers (one in use at a time), the session and its slots, retries, keep-alive.
// What was done and is not yet durable at the metaserver is kept, and handed in when it has lost it in a power cut.
//
// Owner: the engine; lives on its loop. Errors: what the metaserver answered; kTimeout when none answered for
// options.timeout; kCancelled after Close; kSessionEnded when the session was lost while a request that cannot be
// repeated was under way; kRestored, from then on for ever, when the metadata was restored from a backup: what this
// client knows and holds belongs to another history.
class Session {
 public:
  Session(EventLoop& loop, const ClientOptions& options, RpcContext& context);
  ~Session();

  // What a resumed session must tell: open inodes and locks. Called whenever one is opened.
  void OnOpen(std::function<void(pb::OpenSessionRequest&)> fill) { fill_ = std::move(fill); }
  // Whether nothing of the inode is open or being opened here.
  void OnAskClosed(std::function<bool(InodeId)> closed) { is_closed_ = std::move(closed); }
  // Called when the old session was gone and a new one stands in its place.
  void OnLost(std::function<void()> lost) { lost_ = std::move(lost); }

  Task<Status> Start();
  // Tells the metaserver that the session ends (shortly; no retry), then ends all calls with kCancelled.
  Task<void> Stop();
  // The hard part of Stop: nothing is sent any more.
  void Close();
  bool closed() const { return closed_; }

  // One request for `cred`, whose answer is parsed into a Response. `request` must have a Caller; it lives until the
  // task ends. `try_time`: how long one attempt may take (a lock may wait for hours).
  template <typename Response, typename RequestType>
  Task<Result<Response>> Call(pb::Method method, RequestType& request, const Cred& cred, CallKind kind,
                              Duration try_time = kTryTime) {
    FillCaller(request.mutable_caller(), cred);
    Result<Reply> reply = co_await Send(method, request, request.mutable_caller(), kind, try_time);
    if (!reply) co_return Fail(std::move(reply).error());
    Response response;
    CO_TRY(ParseReply(*reply, response));
    co_return response;
  }
  // A request without a Caller.
  template <typename Response, typename RequestType>
  Task<Result<Response>> CallPlain(pb::Method method, RequestType& request) {
    Result<Reply> reply = co_await Send(method, request, nullptr, CallKind::kRead, kTryTime);
    if (!reply) co_return Fail(std::move(reply).error());
    Response response;
    CO_TRY(ParseReply(*reply, response));
    co_return response;
  }

  // An open of this inode has ended: the metaserver is told soon.
  void Released(InodeId inode);

  uint64_t id() const { return session_; }
  const std::string& cluster_uuid() const { return cluster_uuid_; }
  // What the metaserver has answered and not yet said to be durable.
  const Unsynced& unsynced() const { return unsynced_; }

 private:
  static constexpr Duration kTryTime = 20s;
  struct Slot {
    uint32_t number = 0;
    uint64_t sequence = 0;
    uint64_t epoch = 0;  // of the session it belongs to
  };

  static void FillCaller(pb::Caller* caller, const Cred& cred);
  Task<Result<Reply>> Send(pb::Method method, google::protobuf::MessageLite& request, pb::Caller* caller, CallKind kind,
                           Duration try_time);
  Task<Result<Reply>> Attempts(pb::Method method, google::protobuf::MessageLite& request, pb::Caller* caller, Slot* slot,
                               Duration try_time);
  Task<Slot> TakeSlot();
  void GiveSlot(const Slot& slot, bool answered);
  Task<Result<std::shared_ptr<Connection>>> Connect(SteadyTime deadline);
  std::shared_ptr<Connection> current() const { return channels_[current_]->current(); }
  Task<Status> OpenSession(std::shared_ptr<Connection> connection);
  Task<Status> HandIn(std::shared_ptr<Connection> connection, const pb::OpenSessionResponse* opened);
  void Keep(TxnId txn, pb::Method method, const google::protobuf::MessageLite& request, const Buffer& response);
  Task<void> WaitForRoom();
  void SessionOpened(const pb::OpenSessionResponse& response);
  std::unexpected<Error> Restored(const std::string& what);
  void DropSession(const std::shared_ptr<Connection>& connection, const Error& why);
  Task<void> Keeper();
  Task<void> KeepAlive();
  void KeptAlive(const Reply& reply);
  Task<void> SendReleases();

  EventLoop& loop_;
  const ClientOptions& options_;
  RpcContext& context_;
  std::vector<std::unique_ptr<Channel>> channels_;
  size_t current_ = 0;
  std::function<void(pb::OpenSessionRequest&)> fill_;
  std::function<void()> lost_;
  std::function<bool(InodeId)> is_closed_;

  std::string client_uuid_;
  std::string cluster_uuid_;
  uint64_t session_ = 0;
  uint32_t incarnation_ = 0;  // of the metadata that the session belongs to
  bool restored_ = false;     // it was noticed
  uint64_t epoch_ = 1;  // raised when a session was replaced by a new one
  Duration session_timeout_ = kSessionTimeout;
  std::vector<Slot> free_slots_;
  WaitList slot_free_;
  std::vector<InodeId> released_;
  std::vector<InodeId> unsure_;  // releases whose answer was lost: told again by KEEP_ALIVE, if nothing is open then
  bool releasing_ = false;

  Unsynced unsynced_;
  WaitList unsynced_room_;
  uint64_t hand_in_failed_ = 0;  // so many were told of

  bool opened_ = false;  // a first session was opened
  bool closed_ = false;
  WaitList wake_keeper_;
  std::unique_ptr<EventLoop::Timer> keeper_timer_;
  std::unique_ptr<EventLoop::Timer> release_timer_;
  TaskGroup tasks_;
};

}  // namespace shoal::client
