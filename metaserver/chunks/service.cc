// ChunkService: puts the parts of the chunks' side together behind ChunkHooks.
#include "common/log.h"
#include "metaserver/chunk_hooks.h"
#include "metaserver/chunks/bad_replicas.h"
#include "metaserver/chunks/data_ops.h"
#include "metaserver/chunks/drops.h"
#include "metaserver/chunks/fsck_ops.h"
#include "metaserver/chunks/lock_ops.h"
#include "metaserver/chunks/loss_watch.h"
#include "metaserver/chunks/reconcile.h"
#include "metaserver/chunks/recovery.h"
#include "metaserver/chunks/repair.h"
#include "metaserver/chunks/scrub_ops.h"
#include "metaserver/chunks/server_ops.h"
#include "metaserver/chunks/state.h"
#include "metaserver/chunks/status_ops.h"
#include "metaserver/chunks/truncate.h"
#include "metaserver/chunks/unknown.h"
#include "metaserver/hand_in.h"

namespace shoal::meta {
namespace {

constexpr Duration kTick = 100ms;

class ChunkService final : public ChunkHooks {
 public:
  explicit ChunkService(MetaContext& context)
      : state_(context),
        recovery_(state_),
        repairer_(state_),
        drops_(state_),
        bad_(state_),
        losses_(state_),
        unknown_(state_),
        reconciler_(state_),
        truncator_(state_),
        servers_(state_),
        inventory_(state_),
        data_(state_, truncator_),
        status_(state_),
        walks_(context.loop),
        fsck_(state_, walks_),
        scrub_(state_, walks_),
        locks_(state_) {
    state_.recovery = &recovery_;
    state_.repairer = &repairer_;
    state_.drops = &drops_;
    state_.bad = &bad_;
    state_.losses = &losses_;
    state_.unknown = &unknown_;
    state_.reconciler = &reconciler_;
    state_.registry.OnChange([this](ServerId) { ServersMayHaveChanged(); });
  }

  void UseDatabase(leveldb::DB* db) override { walks_.UseDatabase(db); }

  void Register() override {
    servers_.Register();
    inventory_.Register();
    data_.Register();
    status_.Register();
    fsck_.Register();
    scrub_.Register();
    locks_.Register();
    unknown_.Register();
  }

  Task<Status> Start() override {
    Task<Status> servers = servers_.Start();
    Status loaded = co_await servers;
    if (!loaded) co_return loaded;
    Task<Status> truncations = truncator_.Start();
    Status resumed = co_await truncations;
    if (!resumed) co_return resumed;
    repairer_.Start();
    ArmTick();
    co_return Status();
  }

  Task<void> Stop() override {
    state_.stop = true;
    timer_.reset();
    locks_.Stop();
    state_.changed.WakeAll();
    while (state_.tasks.size() > 0) {  // some wait again before they look
      state_.changed.WakeAll();
      auto pause = state_.context.loop.Sleep(1ms);
      co_await pause;
    }
    Task<void> join = state_.tasks.Join();
    co_await join;
    ArmTick();  // tasks of the driver may still wait for `changed`
  }

  Status Truncate(View& view, InodeId id, uint64_t size) override { return truncator_.Truncate(view, id, size); }
  Result<bool> GrantFirstChunk(View& view, InodeId id, pb::Extent* extent) override {
    return data_.GrantFirstChunk(view, id, extent);
  }
  Status FillExtents(View& view, InodeId id, const pb::InodeRecord& inode, size_t max,
                     google::protobuf::RepeatedPtrField<pb::Extent>* extents) override {
    return data_.FillExtents(view, id, inode, max, extents);
  }
  Status DropExtent(View& view, InodeId id, uint64_t index) override {
    return DropExtentRecords(view, state_, id, index);
  }
  Status Health() const override { return losses_.health(); }
  void SessionEnded(SessionId session) override { locks_.SessionEnded(session); }
  void SessionOpened(SessionId session, const pb::OpenSessionRequest& request, bool resumed) override {
    locks_.SessionOpened(session, request, resumed);
  }

 private:
  void ServersMayHaveChanged() {
    state_.EndDeadCalls();
    state_.changed.WakeAll();
  }
  void ArmTick() {
    timer_ = state_.context.loop.RunAfter(kTick, [this] { Tick(); });
  }
  void Tick() {
    state_.registry.Tick(state_.now());
    ServersMayHaveChanged();
    if (!state_.stopping()) {
      drops_.Tick();
    }
    // What was handed in may say that a chunk is being written.
    if (!state_.stopping() && !state_.context.hand_in->holding()) {
      repairer_.Tick();
      bad_.Tick();
      losses_.Tick();
      fsck_.Tick();
      scrub_.Tick();
      unknown_.Tick();
      reconciler_.Tick();
    }
    if (state_.stopping()) locks_.Stop();
    ArmTick();
  }

  ChunkState state_;
  Recovery recovery_;
  Repairer repairer_;
  DropSender drops_;
  BadReplicas bad_;
  LossWatch losses_;
  UnknownReplicas unknown_;
  Reconciler reconciler_;
  Truncator truncator_;
  ServerOps servers_;
  Inventory inventory_;
  DataOps data_;
  StatusOps status_;
  WalkThread walks_;
  FsckOps fsck_;
  ScrubOps scrub_;
  LockOps locks_;
  std::unique_ptr<EventLoop::Timer> timer_;
};

}  // namespace

std::unique_ptr<ChunkHooks> MakeChunkService(MetaContext& context) { return std::make_unique<ChunkService>(context); }

}  // namespace shoal::meta
