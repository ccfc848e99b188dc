// Fakes: a scripted metaserver with one file and scripted chunkservers, over the real RPC layer.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "client/engine.h"
#include "common/checksum.h"
#include "common/proto/chunk.pb.h"
#include "common/proto/meta.pb.h"
#include "common/rpc/rpc.h"

namespace shoal::client {

// One server on the fakes' loop. A hook sees each request first; when it returns true it has dealt with it.
class FakeServer {
 public:
  using Hook = std::function<bool(Request&)>;
  FakeServer(EventLoop& loop, pb::Role role, std::string name) : loop_(loop), server_({&loop}, context_, dispatcher_) {
    context_.key = ClusterKey::ForTest();
    context_.role = role;
    context_.name = std::move(name);
    if (role == pb::ROLE_METASERVER) context_.incarnation = 1;
  }
  virtual ~FakeServer() = default;
  void Listen() {
    Status listening = server_.Listen(Address{"127.0.0.1", 0});
    CHECK(listening.has_value());
  }
  void Stop() { server_.Stop(); }
  Address address() const { return {"127.0.0.1", server_.port()}; }
  EventLoop& loop() { return loop_; }

  // From the test's thread.
  void SetHook(pb::Method method, Hook hook) {
    loop_.Sync([&] { hooks_[method] = std::move(hook); });
  }
  int Count(pb::Method method) {
    int n = 0;
    loop_.Sync([&] { n = counts_[method]; });
    return n;
  }

 protected:
  template <typename Message>
  void Serve(pb::Method method, std::function<void(Request, Message)> answer) {
    dispatcher_.On(method, [this, method, answer](Request request) {
      ++counts_[method];
      auto hook = hooks_.find(method);
      if (hook != hooks_.end() && hook->second && hook->second(request)) return;
      Message message;
      CHECK(request.Parse(message).has_value());
      answer(std::move(request), std::move(message));
    });
  }

  EventLoop& loop_;
  RpcContext context_;
  Dispatcher dispatcher_;
  std::map<int, Hook> hooks_;
  std::map<int, int> counts_;
  RpcServer server_;
};

// Stores chunks in memory; replicas of all fakes share the bytes, so any order of replicas reads the same.
class FakeChunkServer : public FakeServer {
 public:
  struct Write {
    uint64_t write_id;
    uint32_t version;
    uint32_t offset;
    size_t bytes;
    bool create;
    bool sync;
  };
  using Store = std::map<uint64_t, std::string>;  // chunk -> bytes

  FakeChunkServer(EventLoop& loop, Store& store, std::string name)
      : FakeServer(loop, pb::ROLE_CHUNKSERVER, std::move(name)), store_(store) {
    Serve<pb::WriteChunkRequest>(pb::WRITE_CHUNK, [this](Request r, pb::WriteChunkRequest m) { OnWrite(std::move(r), m); });
    Serve<pb::ReadChunkRequest>(pb::READ_CHUNK, [this](Request r, pb::ReadChunkRequest m) { OnRead(std::move(r), m); });
    Serve<pb::SyncChunkRequest>(pb::SYNC_CHUNK,
                                [](Request r, const pb::SyncChunkRequest&) { r.Answer(pb::SyncChunkResponse()); });
    Serve<pb::VerifyChunkRequest>(pb::VERIFY_CHUNK, [](Request r, const pb::VerifyChunkRequest&) {
      pb::VerifyChunkResponse response;
      response.set_good(false);
      r.Answer(response);
    });
  }
  std::vector<Write> writes;  // applied, in order; on the loop
  bool corrupt = false;       // answers to reads have a flipped bit
  std::set<uint32_t> bad_blocks;  // of every chunk: have one, whoever reads them

 private:
  void OnWrite(Request request, const pb::WriteChunkRequest& message) {
    std::string& bytes = store_[message.chunk()];
    size_t at = 0;
    int sum = 0;
    for (const pb::Segment& segment : message.segments()) {
      uint32_t end = segment.offset() + segment.length();
      if (bytes.size() < end) bytes.resize(end);
      std::memcpy(bytes.data() + segment.offset(), request.payload().data() + at, segment.length());
      for (uint32_t from = segment.offset(); from < end; from = (from / 4096 + 1) * 4096) {
        size_t size = std::min<uint32_t>(end, (from / 4096 + 1) * 4096) - from;
        EXPECT_EQ(message.checksums(sum++), BlockChecksum(bytes.data() + from, size));
      }
      at += segment.length();
    }
    EXPECT_EQ(at, request.payload().size());
    EXPECT_EQ(sum, message.checksums_size());
    writes.push_back({message.write_id(), message.version(), message.segments(0).offset(), at, message.create(), message.sync()});
    pb::WriteChunkResponse response;
    response.set_number(++numbers_[message.chunk()]);
    request.Answer(response);
  }
  void OnRead(Request request, const pb::ReadChunkRequest& message) {
    Buffer payload = Buffer::Zeros(message.length());
    const std::string& bytes = store_[message.chunk()];
    if (message.offset() < bytes.size()) {
      size_t size = std::min<size_t>(message.length(), bytes.size() - message.offset());
      std::memcpy(payload.mutable_data(), bytes.data() + message.offset(), size);
    }
    pb::ReadChunkResponse response;
    for (uint32_t at = 0; at < message.length(); at += 4096) {
      bool never = message.offset() + at >= bytes.size();
      response.add_checksums(never ? 0 : BlockChecksum(payload.data() + at, 4096));
    }
    if (corrupt) payload.mutable_data()[1] ^= 4;
    for (uint32_t bad : bad_blocks) {
      if (bad * 4096 >= message.offset() && bad * 4096 < message.offset() + message.length()) {
        payload.mutable_data()[bad * 4096 - message.offset()] ^= 4;
      }
    }
    request.Answer(response, {payload});
  }
  Store& store_;
  std::map<uint64_t, uint64_t> numbers_;  // of the last write of each chunk
};

// One directory (the root) and any number of files named by number; one chunk record per (inode, index).
class FakeMeta : public FakeServer {
 public:
  explicit FakeMeta(EventLoop& loop) : FakeServer(loop, pb::ROLE_METASERVER, "meta") {
    Serve<pb::OpenSessionRequest>(pb::OPEN_SESSION, [this](Request r, pb::OpenSessionRequest m) {
      sessions.push_back(m);
      pb::OpenSessionResponse response;
      response.set_resumed(m.session() != 0 && !forget_sessions);
      response.set_session(response.resumed() ? m.session() : 7 + sessions.size());
      response.set_timeout_ms(30000);
      response.set_slots(8);
      response.set_cluster_uuid("test");
      r.Answer(response);
    });
    Serve<pb::KeepAliveRequest>(pb::KEEP_ALIVE, [](Request r, auto) { r.Answer(pb::KeepAliveResponse()); });
    Serve<pb::CloseSessionRequest>(pb::CLOSE_SESSION, [](Request r, auto) { r.Answer(pb::CloseSessionResponse()); });
    Serve<pb::ReleaseRequest>(pb::RELEASE, [](Request r, auto) { r.Answer(pb::ReleaseResponse()); });
    Serve<pb::FsyncRequest>(pb::FSYNC, [](Request r, auto) { r.Answer(pb::FsyncResponse()); });
    Serve<pb::SetLockRequest>(pb::SET_LOCK, [](Request r, auto) { r.Answer(pb::SetLockResponse()); });
    Serve<pb::SetAttrRequest>(pb::SET_ATTR, [](Request r, auto) { r.Answer(pb::AttrResponse()); });
    Serve<pb::MkdirRequest>(pb::MKDIR, [](Request r, auto) { r.Answer(pb::AttrResponse()); });
    Serve<pb::CreateRequest>(pb::CREATE, [this](Request r, pb::CreateRequest m) {
      uint64_t inode = next_inode++;
      pb::OpenResponse response;
      response.set_created(true);
      pb::Attr& attr = attrs[inode];
      attr.set_inode(inode);
      attr.set_nlink(1);
      attr.set_mode(0100644);
      attr.set_change(1);
      *response.mutable_attr() = attr;
      if (m.first_chunk()) *response.add_extents() = GrantOf(inode, 0);
      r.Answer(response);
    });
    Serve<pb::OpenRequest>(pb::OPEN, [this](Request r, pb::OpenRequest m) {
      pb::OpenResponse response;
      *response.mutable_attr() = attrs[m.inode()];
      for (auto& [key, extent] : extents) {
        if (key.first == m.inode()) *response.add_extents() = Plain(extent);
      }
      r.Answer(response);
    });
    Serve<pb::GetAttrRequest>(pb::GET_ATTR, [this](Request r, pb::GetAttrRequest m) {
      pb::AttrResponse response;
      *response.mutable_attr() = attrs[m.inode()];
      r.Answer(response);
    });
    Serve<pb::GetExtentsRequest>(pb::GET_EXTENTS, [this](Request r, pb::GetExtentsRequest m) {
      pb::GetExtentsResponse response;
      *response.mutable_attr() = attrs[m.inode()];
      for (auto& [key, extent] : extents) {
        if (key.first == m.inode()) *response.add_extents() = Plain(extent);
      }
      r.Answer(response);
    });
    Serve<pb::GrantWriteRequest>(pb::GRANT_WRITE, [this](Request r, pb::GrantWriteRequest m) {
      pb::GrantWriteResponse response;
      *response.add_extents() = GrantOf(m.inode(), m.first_index());
      r.Answer(response);
    });
    Serve<pb::CommitWriteRequest>(pb::COMMIT_WRITE, [this](Request r, pb::CommitWriteRequest m) {
      pb::Attr& attr = attrs[m.inode()];
      attr.set_size(std::max(attr.size(), m.end()));
      attr.set_change(attr.change() + 1);
      for (uint64_t index : m.written_indices()) extents[{m.inode(), index}].set_written(true);
      pb::CommitWriteResponse response;
      *response.mutable_attr() = attr;
      r.Answer(response);
    });
    Serve<pb::ReportReplicaRequest>(pb::REPORT_REPLICA, [this](Request r, pb::ReportReplicaRequest m) {
      reports.push_back(m);
      pb::Extent& extent = extents[{m.inode(), m.index()}];
      if (m.for_write() && extent.version() == m.version()) {
        // The head is dropped.
        extent.set_version(extent.version() + 1);
        extent.mutable_replicas()->DeleteSubrange(0, 1);
      }
      pb::ReportReplicaResponse response;
      *response.mutable_extent() = m.for_write() ? GrantOf(m.inode(), m.index()) : Plain(extent);
      r.Answer(response);
    });
  }

  pb::Extent GrantOf(uint64_t inode, uint64_t index) {
    pb::Extent& extent = extents[{inode, index}];
    if (extent.chunk() == 0) {
      extent.set_index(index);
      extent.set_chunk(inode * 1000 + index + 1);
      extent.set_version(1);
      for (size_t i = 0; i < chunk_addresses.size(); ++i) {
        pb::Replica* replica = extent.add_replicas();
        replica->set_server(static_cast<uint32_t>(i + 1));
        replica->set_instance(100 + i);
        replica->set_address(chunk_addresses[i]);
        replica->set_live(true);
      }
    }
    pb::Extent granted = extent;
    granted.set_lease(++next_lease);
    return granted;
  }
  static pb::Extent Plain(pb::Extent extent) {
    extent.set_lease(0);
    return extent;
  }

  // On the loop.
  std::map<uint64_t, pb::Attr> attrs;
  std::map<std::pair<uint64_t, uint64_t>, pb::Extent> extents;
  std::vector<std::string> chunk_addresses;
  std::vector<pb::OpenSessionRequest> sessions;
  std::vector<pb::ReportReplicaRequest> reports;
  uint64_t next_inode = 100;
  uint64_t next_lease = 0;
  bool forget_sessions = false;
};

// A fake metaserver, three fake chunkservers and an engine. Owner: a test.
class FakeCluster {
 public:
  FakeCluster() : server_loop("fakes"), client_loop("client"), meta(server_loop) {
    server_loop.Start();
    client_loop.Start();
    for (int i = 0; i < 3; ++i) {
      chunk.push_back(std::make_unique<FakeChunkServer>(server_loop, store, "chunk-" + std::to_string(i + 1)));
      chunk.back()->Listen();
      meta.chunk_addresses.push_back(chunk.back()->address().ToString());
    }
    meta.Listen();
    options.meta = {meta.address()};
    options.key = ClusterKey::ForTest();
    options.timeout = 20s;
    options.read_ahead = 0;
  }
  ~FakeCluster() {
    if (engine) {
      (void)RunOn(client_loop, engine->Stop(1s));
      client_loop.Sync([&] { engine.reset(); });
    }
    meta.Stop();
    for (auto& c : chunk) c->Stop();
    held.clear();
  }
  void Start() {
    client_loop.Sync([&] { engine = std::make_unique<Engine>(client_loop, options, metrics); });
    Status started = Run(engine->Start());
    ASSERT_TRUE(started) << ToString(started.error());
  }
  template <typename T>
  T Run(Task<T> task) {
    return RunOn(client_loop, std::move(task));
  }
  template <typename T>
  std::future<T> Begin(Task<T> task) {
    return std::async(std::launch::async, [this, t = std::move(task)]() mutable { return Run(std::move(t)); });
  }
  HandlePtr Create(int flags) {
    Result<Opened> opened = Run(engine->Create(cred, kRootInode, "f", 0644, flags));
    EXPECT_TRUE(opened) << ToString(opened.error());
    return opened ? std::move(opened->handle) : nullptr;
  }
  Result<uint64_t> Write(Handle& handle, uint64_t offset, const std::string& bytes) {
    return Run(engine->Write(handle, offset, Buffer::CopyOf(bytes)));
  }
  std::string Read(Handle& handle, uint64_t offset, size_t length) {
    Result<Payload> payload = Run(engine->Read(handle, offset, length));
    EXPECT_TRUE(payload) << ToString(payload.error());
    return payload ? std::string(Flatten(*payload).view()) : "";
  }
  uint64_t Metric(const std::string& name) { return metrics.counter(name, "").value(); }
  // A hook that keeps requests without an answer until the end.
  FakeServer::Hook Hold() {
    return [this](Request& request) {
      held.push_back(std::make_unique<Request>(std::move(request)));
      return true;
    };
  }

  EventLoop server_loop;
  EventLoop client_loop;
  FakeChunkServer::Store store;
  FakeMeta meta;
  std::vector<std::unique_ptr<FakeChunkServer>> chunk;
  std::vector<std::unique_ptr<Request>> held;  // on the fakes' loop
  Metrics metrics;
  ClientOptions options;
  Cred cred;
  std::unique_ptr<Engine> engine;
};

}  // namespace shoal::client
