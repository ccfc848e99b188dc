#include "metaserver/sessions.h"

#include <algorithm>

#include "common/log.h"
#include "metaserver/chunk_hooks.h"
#include "metaserver/commit.h"
#include "metaserver/driver.h"
#include "metaserver/hand_in.h"
#include "metaserver/store.h"
#include "metaserver/unlinked.h"

namespace shoal::meta {
namespace {

constexpr Duration kTick = 500ms;

SteadyTime Now() { return std::chrono::steady_clock::now(); }

}  // namespace

Sessions::Sessions(MetaContext& context)
    : context_(context),
      sessions_gauge_(context.metrics.gauge("shoal_metaserver_sessions", "Open sessions")),
      orphans_gauge_(context.metrics.gauge("shoal_metaserver_orphans", "Removed files that are still open")),
      unsynced_gauge_(context.metrics.gauge("shoal_metaserver_unsynced_operations",
                                            "Changes of the metadata that are not yet on the disk")),
      unsynced_bytes_gauge_(context.metrics.gauge("shoal_metaserver_unsynced_bytes", "Bytes of those changes")) {}
Sessions::~Sessions() = default;

void Sessions::Register() {
  using namespace std::placeholders;
  Driver& driver = *context_.driver;
  driver.OnTask<pb::OpenSessionRequest, pb::OpenSessionResponse>(pb::OPEN_SESSION,
                                                                 std::bind(&Sessions::OpenSession, this, _1, _2, _3));
  driver.OnTask<pb::KeepAliveRequest, pb::KeepAliveResponse>(pb::KEEP_ALIVE,
                                                             std::bind(&Sessions::KeepAlive, this, _1, _2, _3));
  driver.OnTask<pb::CloseSessionRequest, pb::CloseSessionResponse>(
      pb::CLOSE_SESSION, std::bind(&Sessions::CloseSession, this, _1, _2, _3));
  driver.OnTask<pb::ReleaseRequest, pb::ReleaseResponse>(pb::RELEASE,
                                                         std::bind(&Sessions::ReleaseInodes, this, _1, _2, _3));
}

// ---- start and end ----

Task<Status> Sessions::Start() {
  Task<Status> sessions = LoadSessions();
  Status loaded = co_await sessions;
  if (!loaded) co_return loaded;
  Task<Status> orphans = LoadOrphans();
  loaded = co_await orphans;
  if (!loaded) co_return loaded;
  if (unresumed_ > 0 || !orphans_.empty()) {
    LogInfo("{} sessions of before the start may come back, {} removed files wait for their last close", unresumed_,
            orphans_.size());
  }
  CheckOrphans();
  Tick();
  co_return Status();
}

Task<Status> Sessions::LoadSessions() {
  Store::ScanOptions options;
  options.start = Key(KeyKind::kSession);
  options.end = options.start.PrefixEnd();
  while (!options.start.empty()) {
    Task<Result<Store::ScanResult>> scan = context_.store->Scan(options);
    Result<Store::ScanResult> page = co_await scan;
    if (!page) co_return Fail(page.error());
    for (const ScannedRecord& found : page->records) {
      pb::SessionRecord record;
      if (!record.ParseFromString(found.value)) co_return Fail(ErrorCode::kCorrupt, found.key.ToString());
      if (record.lapsed()) {
        lapsed_.insert(SessionId(found.key.number(0)));
        continue;
      }
      Session* session = Add(SessionId(found.key.number(0)), record);
      session->resumed = false;
      ++unresumed_;
    }
    options.start = page->next;
  }
  co_return Status();
}

Task<Status> Sessions::LoadOrphans() {
  Store::ScanOptions options;
  options.start = Key(KeyKind::kOrphan);
  options.end = options.start.PrefixEnd();
  while (!options.start.empty()) {
    Task<Result<Store::ScanResult>> scan = context_.store->Scan(options);
    Result<Store::ScanResult> page = co_await scan;
    if (!page) co_return Fail(page.error());
    for (const ScannedRecord& found : page->records) orphans_.insert(InodeId(found.key.number(0)));
    options.start = page->next;
  }
  co_return Status();
}

void Sessions::Stop() { timer_.reset(); }

void Sessions::Tick() {
  SteadyTime now = Now();
  sessions_gauge_.Set(static_cast<int64_t>(sessions_.size()));
  orphans_gauge_.Set(static_cast<int64_t>(orphans_.size()));
  unsynced_gauge_.Set(static_cast<int64_t>(context_.commit->unsynced_operations()));
  unsynced_bytes_gauge_.Set(static_cast<int64_t>(context_.commit->unsynced_bytes()));
  std::vector<SessionId> expired;
  for (auto& [id, session] : sessions_) {
    if (session->ending || now - session->last_seen < context_.options.session_timeout) continue;
    session->ending = true;
    expired.push_back(id);
  }
  for (SessionId id : expired) context_.driver->Spawn(EndExpired(id));
  timer_ = context_.loop.RunAfter(std::min(kTick, context_.options.session_timeout / 4), [this] { Tick(); });
}

// ---- the table ----

Session* Sessions::Find(SessionId id) {
  auto it = sessions_.find(id);
  return it == sessions_.end() ? nullptr : it->second.get();
}

Session* Sessions::FindClient(const std::string& client_uuid) {
  for (auto& [id, session] : sessions_) {
    if (!session->ending && session->client_uuid == client_uuid) return session.get();
  }
  return nullptr;
}

Session* Sessions::Add(SessionId id, const pb::SessionRecord& record) {
  auto session = std::make_unique<Session>();
  session->id = id;
  session->client_uuid = record.client_uuid();
  session->name = record.name();
  session->host = record.host();
  session->last_seen = Now();
  Session* raw = session.get();
  sessions_[id] = std::move(session);
  return raw;
}

bool Sessions::MayBeOpen(InodeId inode) const {
  return unresumed_ > 0 || context_.hand_in->holding() || open_counts_.contains(inode);
}

bool Sessions::IsOpen(SessionId session, InodeId inode) const {
  auto it = sessions_.find(session);
  return it != sessions_.end() && it->second->opens.contains(inode);
}

void Sessions::AddOpen(SessionId id, InodeId inode) {
  Session* session = Find(id);
  if (!session) return;
  ++session->opens[inode];
  ++open_counts_[inode];
}

void Sessions::Release(Session& session, InodeId inode, uint32_t count) {
  auto open = session.opens.find(inode);
  if (open == session.opens.end()) return;
  count = std::min(count, open->second);
  if ((open->second -= count) == 0) session.opens.erase(open);
  auto total = open_counts_.find(inode);
  CHECK(total != open_counts_.end() && total->second >= count);
  if ((total->second -= count) > 0) return;
  open_counts_.erase(total);
  if (orphans_.contains(inode) && !MayBeOpen(inode)) context_.driver->Spawn(ReapOrphan(inode));
}

// ---- orphans ----

void Sessions::CheckOrphans() {
  if (unresumed_ > 0 || context_.hand_in->holding()) return;
  const std::vector<InodeId> orphans(orphans_.begin(), orphans_.end());  // reaping changes the set
  for (InodeId inode : orphans) {
    if (!open_counts_.contains(inode)) context_.driver->Spawn(ReapOrphan(inode));
  }
}

Task<void> Sessions::ReapOrphan(InodeId inode) {
  std::function<Status(View&)> run = [this, inode](View& view) -> Status {
    if (MayBeOpen(inode)) return {};
    TRY(view.WaitWhileBusy(inode));
    TRY_ASSIGN(const pb::OrphanRecord* orphan, view.Get<pb::OrphanRecord>(OrphanKey(inode)));
    TRY_ASSIGN(const pb::InodeRecord* record, view.GetInode(inode));
    view.OnApplied([this, inode](TxnId) { orphans_.erase(inode); });
    if (!orphan) return {};
    view.Delete(OrphanKey(inode));
    if (record && record->nlink() == 0) ForgetInode(view, inode, *record);
    return {};
  };
  Task<Result<TxnId>> execute = context_.driver->Execute(std::move(run));
  Result<TxnId> done = co_await execute;
  if (!done && done.error().code != ErrorCode::kCancelled) {
    LogError("removing the closed, unlinked inode {} failed: {}", inode.value, ToString(done.error()));
  }
}

// ---- methods ----

Task<Result<TxnId>> Sessions::OpenSession(CallInfo info, const pb::OpenSessionRequest& request,
                                          pb::OpenSessionResponse& response) {
  if (request.client_uuid().empty()) co_return Fail(ErrorCode::kInvalidArgument, "a session needs a client_uuid");
  if (request.session() && (request.session() >> 48) < context_.life.restored_incarnation) {
    co_return Fail(ErrorCode::kRestored,
                   fmt::format("the metadata was restored from a backup (incarnation {}) since this client mounted: unmount and "
                               "mount again", context_.life.restored_incarnation));
  }
  Status newest = context_.hand_in->CheckDurable(request.name(), request.durable_txn());
  if (request.session() && !newest) {
    LogError("{}", newest.error().message);
    co_return Fail(newest.error());
  }
  Session* session = request.session() ? Find(SessionId(request.session())) : FindClient(request.client_uuid());
  if (session && (session->ending || session->client_uuid != request.client_uuid())) session = nullptr;
  TxnId txn = context_.commit->logged();
  const bool resumed = session != nullptr;
  if (resumed) {
    Resume(*session, request);
  } else {
    SessionId id;
    Task<Result<TxnId>> create = Create(request, &id);
    Result<TxnId> created = co_await create;
    if (!created) co_return created;
    txn = *created;
    session = Find(id);
    if (!session) co_return Fail(ErrorCode::kSessionEnded);
  }
  session->connection = info.connection;
  session->last_seen = Now();
  response.set_session(session->id.value);
  response.set_timeout_ms(context_.options.session_timeout / 1ms);
  response.set_cluster_uuid(context_.rpc.cluster_uuid);
  response.set_slots(context_.options.slots);
  response.set_resumed(resumed && request.session() != 0);
  response.set_default_copies(context_.default_copies);
  response.set_incarnation(context_.rpc.incarnation.load());
  context_.chunks->SessionOpened(session->id, request, resumed);
  if (resumed) context_.hand_in->SessionResumed(*session, request, response);
  co_return txn;
}

Task<Result<TxnId>> Sessions::Create(const pb::OpenSessionRequest& request, SessionId* id) {
  std::function<Status(View&)> run = [this, &request, id](View& view) -> Status {
    TRY_ASSIGN(*id, view.NewSessionId());
    auto* record = view.Put<pb::SessionRecord>(SessionKey(*id));
    record->set_client_uuid(request.client_uuid());
    record->set_name(request.name());
    record->set_host(request.host());
    record->set_opened_ns(view.now_ns());
    view.OnApplied([this, id = *id, copy = *record](TxnId) { Add(id, copy); });
    return {};
  };
  // Durable before the client hears of it: after a power cut it resumes, and hands in what was lost.
  Task<Result<TxnId>> execute = context_.driver->Execute(std::move(run), CommitLevel::kDurable);
  Result<TxnId> done = co_await execute;
  if (done) LogInfo("session {:x} opened: {}", id->value, request.name());
  co_return done;
}

void Sessions::Resume(Session& session, const pb::OpenSessionRequest& request) {
  std::unordered_map<InodeId, uint32_t> counts;
  for (uint64_t inode : request.open_inodes()) ++counts[InodeId(inode)];
  // Both what the client says and what is known here: an answer to OPEN may not have reached the client yet.
  for (const auto& [inode, count] : counts) {
    for (uint32_t have = session.opens[inode]; have < count; ++have) AddOpen(session.id, inode);
  }
  LogInfo("session {:x} resumed: {}", session.id.value, session.name);
  if (!session.resumed) {
    session.resumed = true;
    --unresumed_;
    CheckOrphans();
  }
}

Task<Result<TxnId>> Sessions::KeepAlive(CallInfo, const pb::KeepAliveRequest& request,
                                        pb::KeepAliveResponse& response) {
  Session* session = Find(SessionId(request.session()));
  if (!session || session->ending) co_return Fail(ErrorCode::kSessionEnded, "the session has ended; mount again");
  session->last_seen = Now();
  for (uint64_t inode : request.released()) Release(*session, InodeId(inode), UINT32_MAX);
  if (request.sync() && !context_.hand_in->holding()) {
    Task<Status> wait = context_.commit->Wait(context_.commit->submitted(), CommitLevel::kDurable);
    Status durable = co_await wait;
    if (!durable) co_return Fail(durable.error());
    session = Find(SessionId(request.session()));
    if (!session) co_return Fail(ErrorCode::kSessionEnded, "the session has ended; mount again");
  }
  response.set_durable_txn(context_.hand_in->Durable().value);
  response.set_hand_in_failed(session->hand_in_failed);
  response.set_hand_in_error(session->hand_in_error);
  co_return context_.commit->logged();
}

Task<Result<TxnId>> Sessions::CloseSession(CallInfo, const pb::CloseSessionRequest& request, pb::CloseSessionResponse&) {
  Session* session = Find(SessionId(request.session()));
  if (!session || session->ending) co_return context_.commit->logged();
  session->ending = true;
  Task<Result<TxnId>> end = End(session->id, false);
  Result<TxnId> ended = co_await end;
  co_return ended;
}

Task<Result<TxnId>> Sessions::ReleaseInodes(CallInfo, const pb::ReleaseRequest& request, pb::ReleaseResponse&) {
  Session* session = Find(SessionId(request.session()));
  if (!session) co_return Fail(ErrorCode::kSessionEnded, "the session has ended; mount again");
  session->last_seen = Now();
  for (uint64_t inode : request.inodes()) Release(*session, InodeId(inode));
  co_return context_.commit->logged();
}

// ---- the end of a session ----

Task<void> Sessions::EndExpired(SessionId id) {
  Task<Result<TxnId>> end = End(id, true);
  Result<TxnId> ended = co_await end;
  if (!ended && ended.error().code != ErrorCode::kCancelled) {
    LogError("ending session {:x} failed: {}", id.value, ToString(ended.error()));
  }
}

Task<Result<TxnId>> Sessions::End(SessionId id, bool lapsed) {
  Session* session = Find(id);
  if (!session) co_return context_.commit->logged();
  LogInfo("session {:x} ends ({}): {}", id.value, lapsed ? "no sign of life" : "closed by its client", session->name);
  std::function<Status(View&)> run = [this, id, lapsed](View& view) -> Status {
    if (lapsed) {
      view.Put<pb::SessionRecord>(SessionKey(id))->set_lapsed(true);
      view.OnApplied([this, id](TxnId) { lapsed_.insert(id); });
    } else {
      view.Delete(SessionKey(id));
    }
    for (uint32_t slot = 0; slot < context_.options.slots; ++slot) view.Delete(SlotKey(id, slot));
    view.OnApplied([this, id](TxnId) { Remove(id); });
    return {};
  };
  // What others may do now (write its chunks) must not be undone by a power cut.
  Task<Result<TxnId>> execute = context_.driver->Execute(std::move(run), CommitLevel::kDurable);
  Result<TxnId> done = co_await execute;
  if (done) context_.chunks->SessionEnded(id);
  co_return done;
}

void Sessions::Remove(SessionId id) {
  auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  std::unique_ptr<Session> session = std::move(it->second);
  sessions_.erase(it);
  context_.hand_in->SessionGone(id);
  if (!session->resumed) {
    --unresumed_;
    CheckOrphans();
  }
  for (SlotState& slot : session->slots) {
    if (slot.joined) slot.joined->WakeAll();
  }
  std::vector<std::pair<InodeId, uint32_t>> opens(session->opens.begin(), session->opens.end());
  for (const auto& [inode, count] : opens) Release(*session, inode, count);
}

}  // namespace shoal::meta
