// A metaserver without a network, in a directory of its own, for tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/limits.h"
#include "metaserver/core.h"

namespace shoal::meta {

// Chunks that exist in the metadata only: no servers, truncation cuts nothing.
class FakeChunks : public ChunkHooks {
 public:
  explicit FakeChunks(MetaContext& context) : context_(context) {}
  void Register() override {}
  Task<Status> Start() override { co_return Status(); }
  Task<void> Stop() override { co_return; }

  Status Truncate(View& view, InodeId id, uint64_t size) override {
    TRY_ASSIGN(const pb::InodeRecord* inode, view.GetInode(id));
    const uint64_t keep = (size + kChunkSize - 1) / kChunkSize;
    const uint64_t have = (inode->size() + kChunkSize - 1) / kChunkSize;
    for (uint64_t index = keep; index < have; ++index) {
      TRY(DropExtent(view, id, index));
    }
    pb::InodeRecord* changed = view.MutableInode(id);
    view.stats().file_bytes += static_cast<int64_t>(size) - static_cast<int64_t>(changed->size());
    changed->set_extents(std::min(keep, changed->extents()));
    changed->set_written_chunks(changed->extents());
    changed->set_size(size);
    return {};
  }

  Result<bool> GrantFirstChunk(View& view, InodeId id, pb::Extent* extent) override {
    TRY(AddExtent(view, id, 0));
    extent->set_index(0);
    return true;
  }

  // What writing chunk `index` of a file does to the metadata.
  Status AddExtent(View& view, InodeId id, uint64_t index) {
    TRY_ASSIGN(ChunkId chunk, view.NewChunkId());
    view.Put<pb::ExtentRecord>(ExtentKey(id, index))->set_chunk(chunk.value);
    view.Put<pb::ChunkRecord>(ChunkKey(chunk))->set_version(1);
    pb::InodeRecord* inode = view.MutableInode(id);
    inode->set_extents(inode->extents() + 1);
    view.stats().chunks += 1;
    return {};
  }

  Status FillExtents(View&, InodeId, const pb::InodeRecord&, size_t,
                     google::protobuf::RepeatedPtrField<pb::Extent>*) override {
    return {};
  }

  Status DropExtent(View& view, InodeId id, uint64_t index) override {
    TRY_ASSIGN(const pb::ExtentRecord* extent, view.GetExtent(id, index));
    if (!extent) return {};
    view.Delete(ChunkKey(ChunkId(extent->chunk())));
    view.Delete(ExtentKey(id, index));
    view.stats().chunks -= 1;
    return {};
  }

  void SessionEnded(SessionId session) override { ended.push_back(session); }
  void SessionOpened(SessionId, const pb::OpenSessionRequest&, bool) override {}

  std::vector<SessionId> ended;

 private:
  MetaContext& context_;
};

// Owner: a test. Everything of it is called on the test's thread.
class Harness {
 public:
  explicit Harness(Core::MakeChunks make = {}) : make_(std::move(make)) {
    char name[] = "/tmp/shoal-meta-XXXXXX";
    CHECK(::mkdtemp(name));
    dir_ = name;
    options.data_dir = dir_ + "/data0";
    options.root_uid = 0;
    options.root_gid = 0;
    options.hand_in_wait = 0s;  // no restart waits for sessions
    if (!make_) {
      make_ = [this](MetaContext& context) {
        auto chunks = std::make_unique<FakeChunks>(context);
        fake = chunks.get();
        return chunks;
      };
    }
  }
  ~Harness() {
    Stop();
    std::filesystem::remove_all(dir_);
  }

  Status TryStart() {
    life_ = std::make_unique<Life>(options);
    return life_->core.Start(make_);
  }
  void Start() {
    Status started = TryStart();
    ASSERT_TRUE(started) << ToString(started.error());
    if (!session_) session_ = OpenSession("client-1");
  }
  void Stop() {
    if (!life_) return;
    life_->core.Stop();
    life_->loop.Stop();
    life_.reset();
  }
  void Restart() {
    Stop();
    Start();
  }
  // What is in the operating system at this moment.
  std::string CopyOfData() {
    std::string copy = dir_ + "/data" + std::to_string(++crashes_);
    std::filesystem::copy(options.data_dir, copy, std::filesystem::copy_options::recursive);
    return copy;
  }
  void RestartOn(const std::string& data) {
    Stop();
    options.data_dir = data;
    Start();
  }
  // As after kill -9.
  void CrashAndRestart() { RestartOn(CopyOfData()); }

  MetaContext& context() { return life_->core.context(); }
  EventLoop& loop() { return life_->loop; }

  // Sends a request as a client would.
  template <typename Resp, typename Req>
  Result<Resp> Call(pb::Method method, const Req& request) {
    std::string bytes;
    Task<Result<TxnId>> task = context().driver->Run(method, request.SerializeAsString(), &bytes);
    Result<TxnId> done = RunOn(life_->loop, std::move(task));
    if (!done) return Fail(done.error());
    if (watch) watch(method, request.SerializeAsString(), bytes, *done);
    Resp response;
    CHECK(response.ParseFromString(bytes));
    return response;
  }
  // An operation of the metaserver itself.
  Result<TxnId> Execute(std::function<Status(View&)> run, CommitLevel level = CommitLevel::kLogged) {
    Task<Result<TxnId>> task = context().driver->Execute(std::move(run), level);
    return RunOn(life_->loop, std::move(task));
  }
  void WaitReaped() {
    RunOn(life_->loop, context().reaper->WaitIdle());
  }
  // Forgets everything that is not pinned: the next operation is cold.
  void DropCache() {
    life_->loop.Sync([this] { context().store->DropCacheForTest(); });
  }

  pb::OpenSessionResponse Resume(const std::string& client, uint64_t session, std::vector<uint64_t> open = {}) {
    pb::OpenSessionRequest request;
    request.set_session(session);
    request.set_client_uuid(client);
    request.set_name(client);
    for (uint64_t inode : open) request.add_open_inodes(inode);
    auto response = Call<pb::OpenSessionResponse>(pb::OPEN_SESSION, request);
    CHECK(response.has_value());
    return *response;
  }
  uint64_t OpenSession(const std::string& client) { return Resume(client, 0).session(); }
  uint64_t session() const { return session_; }
  void UseSession(uint64_t session, uint64_t sequence = 0) {
    session_ = session;
    sequence_ = sequence;
  }

  // A mutating caller with the next sequence number of slot 0.
  void FillCaller(pb::Caller* caller, uint32_t uid = 0) {
    caller->set_session(session_);
    caller->set_uid(uid);
    caller->set_gid(uid);
    for (uint32_t group : groups) caller->add_groups(group);
    caller->set_sequence(++sequence_);
  }
  uint64_t sequence() const { return sequence_; }

  MetaServerOptions options;
  FakeChunks* fake = nullptr;
  Metrics& metrics() { return life_->metrics; }
  // Sees every request that was answered.
  std::function<void(pb::Method, const std::string& request, const std::string& response, TxnId txn)> watch;
  std::vector<uint32_t> groups;  // of every caller

 private:
  // One run of the server.
  struct Life {
    explicit Life(const MetaServerOptions& o) : options(o), loop("test"), core(loop, options, metrics, rpc, dispatcher) {
      loop.Start();
    }
    MetaServerOptions options;
    Metrics metrics;
    RpcContext rpc;
    Dispatcher dispatcher;
    EventLoop loop;
    Core core;
  };
  std::string dir_;
  Core::MakeChunks make_;
  std::unique_ptr<Life> life_;
  uint64_t session_ = 0;
  uint64_t sequence_ = 0;
  int crashes_ = 0;
};

}  // namespace shoal::meta
