#include "client/session.h"

#include <unistd.h>

#include <algorithm>
#include <random>

#include "common/log.h"

namespace shoal::client {
namespace {

constexpr uint32_t kMaxSlots = 256;
constexpr size_t kReleaseBatch = 256;
constexpr Duration kReleaseDelay = 10ms;
constexpr Duration kUnsyncedPause = 1s;        // between two questions what is durable
constexpr size_t kHandInBytes = 1 << 20;       // of one message

SteadyTime Now() { return std::chrono::steady_clock::now(); }

std::string RandomHex() {
  std::random_device random;
  std::string text;
  for (int i = 0; i < 4; ++i) text += fmt::format("{:08x}", random());
  return text;
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

// The request was not executed, or nobody knows: it may be sent again, with the same slot and sequence.
bool SendAgain(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
    case ErrorCode::kTimeout:
    case ErrorCode::kOverloaded:
    case ErrorCode::kNotReady:
    case ErrorCode::kNotEnoughServers:
    case ErrorCode::kSessionEnded:
    case ErrorCode::kOldIncarnation:
      return true;
    default:
      return false;
  }
}

// Doing these a second time, in a new session, gives the same result.
bool MayRepeat(pb::Method method) {
  switch (method) {
    case pb::SET_ATTR:
    case pb::GRANT_WRITE:
    case pb::COMMIT_WRITE:
    case pb::FSYNC:
    case pb::REPORT_REPLICA:
    case pb::FALLOCATE:
    case pb::SYNC_ALL:
    case pb::OPEN:
    case pb::SET_LOCK:
      return true;
    default:
      return false;
  }
}

bool Final(ErrorCode code) {
  return code == ErrorCode::kAuthFailed || code == ErrorCode::kWrongCluster || code == ErrorCode::kCancelled ||
         code == ErrorCode::kRestored;
}

}  // namespace

Session::Session(EventLoop& loop, const ClientOptions& options, RpcContext& context)
    : loop_(loop),
      options_(options),
      context_(context),
      client_uuid_(RandomHex()),
      slot_free_(loop),
      unsynced_room_(loop),
      wake_keeper_(loop),
      tasks_(loop) {
  CHECK(!options.meta.empty());
  for (const Address& address : options.meta) {
    auto channel = std::make_unique<Channel>(loop, context, address);
    channel->OnConnect([this](std::shared_ptr<Connection> connection) { return OpenSession(std::move(connection)); });
    channels_.push_back(std::move(channel));
  }
}

Session::~Session() = default;

Task<Status> Session::Start() {
  Result<std::shared_ptr<Connection>> connection = co_await Connect(Now() + options_.timeout);
  if (!connection) co_return Fail(std::move(connection).error());
  if (options_.open_session) tasks_.Spawn(Keeper());
  co_return Status{};
}

Task<void> Session::Stop() {
  if (!closed_ && session_ && options_.open_session) {
    if (!released_.empty()) co_await SendReleases();
    if (auto connection = current()) {
      pb::CloseSessionRequest request;
      request.set_session(session_);
      PendingReply pending = connection->Call(pb::CLOSE_SESSION, request, Payload(), 2s);
      Result<Reply> ignored = co_await pending;
    }
  }
  Close();
  co_await tasks_.Join();
}

void Session::Close() {
  if (std::exchange(closed_, true)) return;
  keeper_timer_.reset();
  release_timer_.reset();
  for (auto& channel : channels_) channel->Close();
  wake_keeper_.WakeAll();
  slot_free_.WakeAll();
  unsynced_room_.WakeAll();
}

// ---- requests ----

void Session::FillCaller(pb::Caller* caller, const Cred& cred) {
  caller->set_uid(cred.uid);
  caller->set_gid(cred.gid);
  caller->mutable_groups()->Assign(cred.groups.begin(), cred.groups.end());
}

Task<Session::Slot> Session::TakeSlot() {
  while (free_slots_.empty() && !closed_) co_await slot_free_.Wait();
  Slot slot;
  if (!closed_) {
    slot = free_slots_.back();
    free_slots_.pop_back();
    ++slot.sequence;
  }
  co_return slot;
}

// A slot whose last request may still be under way at the metaserver is the last one to be used again.
void Session::GiveSlot(const Slot& slot, bool answered) {
  if (slot.epoch != epoch_) return;
  free_slots_.insert(answered ? free_slots_.end() : free_slots_.begin(), slot);
  slot_free_.WakeAll();
}

Task<Result<Reply>> Session::Send(pb::Method method, google::protobuf::MessageLite& request, pb::Caller* caller,
                                  CallKind kind, Duration try_time) {
  if (kind == CallKind::kRead) {
    Result<Reply> reply = co_await Attempts(method, request, caller, nullptr, try_time);
    co_return reply;
  }
  if (unsynced_.Full()) co_await WaitForRoom();
  Slot slot;
  if (free_slots_.empty()) {
    slot = co_await TakeSlot();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
    ++slot.sequence;
  }
  Result<Reply> reply = co_await Attempts(method, request, caller, &slot, try_time);
  GiveSlot(slot, reply || reply.error().code != ErrorCode::kTimeout);
  co_return reply;
}

Task<Result<Reply>> Session::Attempts(pb::Method method, google::protobuf::MessageLite& request, pb::Caller* caller,
                                      Slot* slot, Duration try_time) {
  SteadyTime deadline = Now() + std::max(options_.timeout, try_time > kTryTime ? try_time : Duration{0});
  Duration backoff = 10ms;
  bool sent = false;
  for (;;) {
    if (closed_) co_return Fail(ErrorCode::kCancelled, "the client is being stopped");
    std::shared_ptr<Connection> connection = current();
    if (!connection) {
      Result<std::shared_ptr<Connection>> made = co_await Connect(deadline);
      if (!made) co_return Fail(std::move(made).error());
      connection = *made;
    }
    if (slot && slot->epoch != epoch_) {
      if (sent && !MayRepeat(method)) {
        co_return Fail(ErrorCode::kSessionEnded,
                       "the metaserver has ended this client's session; whether the operation was done is not known");
      }
      *slot = co_await TakeSlot();
      continue;
    }
    if (caller) {
      caller->set_session(session_);
      if (slot) {
        caller->set_slot(slot->number);
        caller->set_sequence(slot->sequence);
      }
    }
    sent = true;
    SteadyTime began = Now();
    PendingReply pending = connection->Call(method, request, Payload(), std::min<Duration>(try_time, deadline - Now()));
    Result<Reply> reply = co_await pending;
    if (reply && slot && Unsynced::Covers(method)) Keep(reply->txn, method, request, reply->message);
    if (reply || !SendAgain(reply.error().code)) co_return reply;
    if (reply.error().code == ErrorCode::kSessionEnded && !options_.open_session) co_return reply;
    ErrorCode code = reply.error().code;
    if (Now() >= deadline) {
      if (code == ErrorCode::kNotEnoughServers || code == ErrorCode::kNotReady) co_return reply;
      co_return Fail(ErrorCode::kTimeout, "no answer from the metaserver: " + reply.error().message);
    }
    if (code == ErrorCode::kSessionEnded) DropSession(connection, reply.error());
    // Silence is the connection's end; of one that answers others, this request alone waits for something.
    if (code == ErrorCode::kTimeout && try_time <= kTryTime && connection->last_received() < began) connection->Close(reply.error());
    if (!connection->closed()) {  // it has answered: not yet
      Duration pause = std::min<Duration>(backoff, deadline - Now());
      backoff = std::min<Duration>(backoff * 2, 500ms);
      co_await loop_.Sleep(pause);
    }
  }
}

// ---- what is not yet durable ----

void Session::Keep(TxnId txn, pb::Method method, const google::protobuf::MessageLite& request, const Buffer& response) {
  const bool first = unsynced_.empty();
  unsynced_.Keep(txn, method, request, response.view());
  if (first && keeper_timer_) keeper_timer_ = loop_.RunAfter(kUnsyncedPause, [this] { wake_keeper_.WakeAll(); });
  if (unsynced_.Many()) wake_keeper_.WakeAll();
}

// Without a connection nothing is answered, so nothing more is kept.
Task<void> Session::WaitForRoom() {
  while (unsynced_.Full() && !closed_ && current()) {
    wake_keeper_.WakeAll();
    co_await unsynced_room_.Wait();
  }
}

// The metaserver has lost what was done between two transactions.
Task<Status> Session::HandIn(std::shared_ptr<Connection> connection, const pb::OpenSessionResponse* opened) {
  uint64_t above = opened->hand_in_above();
  size_t count = 0;
  for (bool more = true; more;) {
    pb::HandInRequest request;
    request.set_session(session_);
    more = unsynced_.Fill(&above, opened->hand_in_below(), kHandInBytes, &request);
    request.set_end(!more);
    count += static_cast<size_t>(request.done_size());
    PendingReply pending = connection->Call(pb::HAND_IN, request, Payload(), kTryTime);
    Result<Reply> reply = co_await pending;
    if (!reply) co_return Fail(std::move(reply).error());
    // Executed already: that is what has to become durable.
    if (reply->txn && request.done_size() > 0) {
      unsynced_.Renumber(request.done(0).txn() - 1, above + 1, reply->txn);
    }
  }
  LogWarning("the metaserver has lost what was done last, as after a power cut: {} requests were handed in again", count);
  co_return Status{};
}

// ---- connections and the session ----

Task<Result<std::shared_ptr<Connection>>> Session::Connect(SteadyTime deadline) {
  Error last;
  for (;;) {
    for (size_t i = 0; i < channels_.size(); ++i) {
      if (closed_) co_return Fail(ErrorCode::kCancelled, "the client is being stopped");
      size_t which = (current_ + i) % channels_.size();
      Duration patience = std::min<Duration>(5s, std::max<Duration>(deadline - Now(), 1ms));
      Result<std::shared_ptr<Connection>> made = co_await channels_[which]->Get(patience);
      if (made) {
        current_ = which;
        co_return made;
      }
      last = made.error();
      if (Final(last.code)) co_return Fail(last);
    }
    auto now = Now();
    if (now >= deadline) break;
    co_await loop_.Sleep(std::min<Duration>(deadline - now, 50ms));
  }
  std::string all;
  for (auto& channel : channels_) all += (all.empty() ? "" : ", ") + channel->address().ToString();
  co_return Fail(ErrorCode::kTimeout, "no metaserver answers at " + all + " (" + last.message +
                                          "); check that shoal-metaserver runs there and that meta= names it");
}

Task<Status> Session::OpenSession(std::shared_ptr<Connection> connection) {
  if (!options_.open_session) co_return Status{};
  for (int attempt = 0; attempt < 2; ++attempt) {
    pb::OpenSessionRequest request;
    request.set_session(session_);
    request.set_client_uuid(client_uuid_);
    request.set_name(options_.name);
    request.set_host(HostName());
    if (fill_) fill_(request);
    // They are released after this: until then they count as open.
    for (InodeId inode : released_) request.add_open_inodes(inode.value);
    request.set_seen_txn(context_.txn.load());
    request.set_durable_txn(unsynced_.durable().value);
    request.set_kept_txn(unsynced_.last().value);
    PendingReply pending = connection->Call(pb::OPEN_SESSION, request, Payload(), 10s);
    Result<Reply> reply = co_await pending;
    if (!reply && reply.error().code == ErrorCode::kSessionEnded && session_ != 0) {
      session_ = 0;
      continue;
    }
    if (!reply && reply.error().code == ErrorCode::kRestored) co_return Restored(reply.error().message);
    if (!reply) co_return Fail(std::move(reply).error());
    pb::OpenSessionResponse response;
    CO_TRY(ParseReply(*reply, response));
    bool same = response.session() == session_ && response.resumed();
    if (opened_ && !same && response.incarnation() > incarnation_) {
      co_return Restored(fmt::format("the metadata has incarnation {}, this client belongs to {}: it was restored from a backup; "
                                     "unmount and mount again", response.incarnation(), incarnation_));
    }
    incarnation_ = response.incarnation();
    SessionOpened(response);
    connection->OnClose([this](const Error&, bool) {
      wake_keeper_.WakeAll();
      unsynced_room_.WakeAll();
    });
    if (same && response.hand_in_above() != 0) {
      CO_TRY(co_await HandIn(connection, &response));
    }
    co_return Status{};
  }
  co_return Fail(ErrorCode::kSessionEnded, "the metaserver opens no session for this client");
}

// Nothing of before may be used or written out: locations and grants go, and every call fails from now on.
std::unexpected<Error> Session::Restored(const std::string& what) {
  if (!std::exchange(restored_, true)) {
    LogError("{}", what);
    unsynced_.Clear();
    if (lost_) lost_();
  }
  return Fail(ErrorCode::kRestored, what);
}

void Session::SessionOpened(const pb::OpenSessionResponse& response) {
  cluster_uuid_ = response.cluster_uuid();
  if (response.timeout_ms()) session_timeout_ = std::chrono::milliseconds(response.timeout_ms());
  if (session_ == response.session() && response.resumed()) return;
  bool first = !std::exchange(opened_, true);
  session_ = response.session();
  unsynced_.Clear();  // of the session that has ended
  hand_in_failed_ = 0;
  ++epoch_;
  free_slots_.clear();
  for (uint32_t i = std::clamp(response.slots(), 1u, kMaxSlots); i-- > 0;) free_slots_.push_back({i, 0, epoch_});
  slot_free_.WakeAll();
  if (!first) {
    LogWarning("the metaserver has ended this client's session: a new one is open, its locks are lost");
    if (lost_) lost_();
  }
}

void Session::DropSession(const std::shared_ptr<Connection>& connection, const Error& why) {
  if (connection->closed()) return;  // somebody else saw it first
  session_ = 0;
  connection->Close(why);
}

Task<void> Session::Keeper() {
  while (!closed_) {
    if (current()) {
      const bool idle = unsure_.empty() && released_.empty() && unsynced_.empty();
      Duration pause = idle ? session_timeout_ / 3 : Duration(kUnsyncedPause);
      keeper_timer_ = loop_.RunAfter(pause, [this] { wake_keeper_.WakeAll(); });
      co_await wake_keeper_.Wait();
      keeper_timer_.reset();
      if (closed_) break;
    }
    if (current()) {
      co_await KeepAlive();
      if (!released_.empty() && !releasing_ && !closed_) co_await SendReleases();
    } else {
      Result<std::shared_ptr<Connection>> made = co_await Connect(Now() + 1s);
      if (!made && !closed_) co_await loop_.Sleep(100ms);
    }
  }
}

Task<void> Session::KeepAlive() {
  std::shared_ptr<Connection> connection = current();
  pb::KeepAliveRequest request;
  request.set_session(session_);
  std::erase_if(unsure_, [this](InodeId inode) { return !is_closed_ || !is_closed_(inode); });
  size_t told = unsure_.size();
  for (InodeId inode : unsure_) request.add_released(inode.value);
  request.set_sync(unsynced_.Many());
  PendingReply pending = connection->Call(pb::KEEP_ALIVE, request, Payload(), 10s);
  Result<Reply> reply = co_await pending;
  if (reply) KeptAlive(*reply);
  unsynced_room_.WakeAll();
  if (reply) unsure_.erase(unsure_.begin(), unsure_.begin() + static_cast<ptrdiff_t>(told));
  if (reply || closed_) co_return;
  if (reply.error().code == ErrorCode::kSessionEnded) DropSession(connection, reply.error());
  if (reply.error().code == ErrorCode::kTimeout) connection->Close(reply.error());
}

void Session::KeptAlive(const Reply& reply) {
  pb::KeepAliveResponse response;
  if (!ParseReply(reply, response)) return;
  unsynced_.Covered(TxnId(response.durable_txn()));
  if (response.hand_in_failed() > hand_in_failed_) {
    LogError("{} changes that a power cut of the metaserver took could not be done again as they were, the last one: {}",
             response.hand_in_failed(), response.hand_in_error());
  }
  hand_in_failed_ = response.hand_in_failed();
}

// ---- releases ----

void Session::Released(InodeId inode) {
  released_.push_back(inode);
  if (closed_ || releasing_) return;
  if (released_.size() >= kReleaseBatch) {
    tasks_.Spawn(SendReleases());
  } else if (!release_timer_) {
    release_timer_ = loop_.RunAfter(kReleaseDelay, [this] {
      release_timer_.reset();
      if (!closed_ && !releasing_) tasks_.Spawn(SendReleases());
    });
  }
}

Task<void> Session::SendReleases() {
  releasing_ = true;
  while (!released_.empty() && !closed_) {
    std::shared_ptr<Connection> connection = current();
    if (!connection) break;  // the keeper sends them when there is one
    pb::ReleaseRequest request;
    request.set_session(session_);
    std::vector<InodeId> sent = std::exchange(released_, {});
    for (InodeId inode : sent) request.add_inodes(inode.value);
    PendingReply pending = connection->Call(pb::RELEASE, request, Payload(), kTryTime);
    Result<Reply> reply = co_await pending;
    // Never a second time: it could end an open made meanwhile.
    if (!reply && reply.error().code != ErrorCode::kSessionEnded) unsure_.insert(unsure_.end(), sent.begin(), sent.end());
  }
  releasing_ = false;
}

}  // namespace shoal::client
