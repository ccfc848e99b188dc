#include "metaserver/core.h"

#include "common/log.h"
#include "metaserver/admin/backup_ops.h"
#include "metaserver/admin/check_ops.h"
#include "metaserver/hand_in.h"
#include "metaserver/ops/ops.h"

namespace shoal::meta {
namespace {

// Left out of the transaction numbers at each start; more than a power cut can take.
constexpr uint64_t kTransactionStep = 1 << 24;

int64_t WallClock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Core::Core(EventLoop& loop, const MetaServerOptions& options, Metrics& metrics, RpcContext& rpc, Dispatcher& dispatcher)
    : context_{.loop = loop, .options = options, .metrics = metrics, .rpc = rpc, .dispatcher = dispatcher} {
  context_.now_ns = WallClock;
}

Core::~Core() { Stop(); }

Status Core::Start(MakeChunks make_chunks) {
  const MetaServerOptions& options = context_.options;
  context_.started = std::chrono::steady_clock::now();
  TRY_ASSIGN(database_, Database::Open(options));
  context_.rpc.cluster_uuid = database_->cluster().uuid();
  context_.rpc.incarnation = database_->life().incarnation();
  context_.rpc.txn = database_->last().txn();
  const pb::LifeRecord& life = database_->life();
  context_.life = {life.restored_incarnation(), life.restored_ns(), life.id(), life.restored_incarnation() == 0 || life.reconciled()};
  context_.hash_seed = database_->cluster().hash_seed();
  context_.hash_bits = options.dentry_hash_bits;
  const pb::CommitRecord& last = database_->last();
  context_.totals = {last.inodes(), last.file_bytes(), last.chunks()};

  Store::Options store{.cache_bytes = options.cache_bytes, .reader_threads = options.reader_threads};
  store_ = std::make_unique<Store>(context_.loop, database_->db(), store, context_.metrics);
  commit_ = std::make_unique<Commit>(context_.loop, database_->db(), database_->log(), TxnId(last.txn()),
                                     options.sync_interval, kTransactionStep);
  commit_->OnLogged([this](TxnId txn) {
    context_.rpc.txn = txn.value;
    store_->Logged(txn);
  });
  context_.store = store_.get();
  context_.commit = commit_.get();
  busy_ = std::make_unique<BusyTable>(context_.loop);
  context_.busy = busy_.get();
  ids_ = std::make_unique<IdAllocator>(context_);
  context_.ids = ids_.get();
  driver_ = std::make_unique<Driver>(context_);
  context_.driver = driver_.get();
  sessions_ = std::make_unique<Sessions>(context_);
  context_.sessions = sessions_.get();
  hand_in_ = std::make_unique<HandIn>(context_, TxnId(last.hand_in_above() ? last.hand_in_above() : last.txn()));
  context_.hand_in = hand_in_.get();
  reaper_ = std::make_unique<Reaper>(context_);
  context_.reaper = reaper_.get();
  admin_pool_ = std::make_unique<ReaderPool>(1);
  backup_ = std::make_unique<BackupOps>(context_, database_->db(), *admin_pool_);
  check_ = std::make_unique<CheckOps>(context_, database_->db());
  chunks_ = make_chunks(context_);
  context_.chunks = chunks_.get();
  chunks_->UseDatabase(database_->db());
  return RunOn(context_.loop, StartParts());
}

Task<Status> Core::StartParts() {
  store_->SetLogged(commit_->logged());
  Task<Status> ids = ids_->Start(database_->ids());
  Status started = co_await ids;
  if (!started) co_return started;
  std::function<Status(View&)> read_root = [this](View& view) -> Status {
    TRY_ASSIGN(const pb::InodeRecord* root, view.GetInode(kRootInode));
    if (!root) return Fail(ErrorCode::kCorrupt, "the metadata has no root directory; restore a backup");
    context_.default_copies = root->copies();
    return {};
  };
  Task<Result<TxnId>> root = driver_->Execute(std::move(read_root));
  Result<TxnId> read = co_await root;
  if (!read) co_return Fail(read.error());
  RegisterNamespaceOps(context_);
  sessions_->Register();
  hand_in_->Register();
  chunks_->Register();
  backup_->Register();
  check_->Register();
  reaper_->Start();
  Task<Status> chunks = chunks_->Start();
  started = co_await chunks;
  if (!started) co_return started;
  Task<Status> sessions = sessions_->Start();
  started = co_await sessions;
  if (started) hand_in_->Start();
  co_return started;
}

Task<void> Core::StopParts() {
  sessions_->Stop();
  hand_in_->Stop();
  check_->Stop();
  Task<void> chunks = chunks_->Stop();
  co_await chunks;
  Task<void> reaper = reaper_->Stop();
  co_await reaper;
  Task<void> driver = driver_->Stop();
  co_await driver;
  backup_->Stop();
}

void Core::Stop() {
  if (!commit_) return;
  RunOn(context_.loop, StopParts());
  context_.loop.Sync([this] { commit_->Stop(); });
  store_->Stop();
  admin_pool_->Stop();
  // What the pool's threads and the commit's have posted to the loop runs before the parts go; the parts are taken
  // down there, where they live.
  context_.loop.Sync([this] {
    chunks_.reset();
    check_.reset();
    backup_.reset();
    reaper_.reset();
    hand_in_.reset();
    sessions_.reset();
    driver_.reset();
    ids_.reset();
    busy_.reset();
    commit_.reset();
    store_.reset();
  });
  database_.reset();
}

}  // namespace shoal::meta
