// A small state of a metaserver, made by hand, for tests of what looks at whole states.
#pragma once

#include <gtest/gtest.h>
#include <leveldb/db.h>
#include <leveldb/write_batch.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "common/checksum.h"
#include "common/proto/record.pb.h"
#include "metaserver/backup/state_db.h"
#include "metaserver/batch.h"

namespace shoal::meta {

// Number n of incarnation 1.
constexpr uint64_t Numbered(uint64_t n) { return uint64_t{1} << 48 | n; }

// A directory "data" with a state in it: root/{dir/{inner}, file, hard (the same file), link}, an orphan, a reaped file,
// a server with the replicas of two chunks, a session. Owner: a test.
class StateFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t kSeed = 42;
  static constexpr uint64_t kDir = Numbered(2), kFile = Numbered(3), kLink = Numbered(4), kInner = Numbered(5),
                            kOrphan = Numbered(6), kGone = Numbered(9);
  static constexpr uint64_t kChunk = Numbered(7), kOldChunk = Numbered(10), kReplica = Numbered(8), kOldReplica = Numbered(11);
  static constexpr uint64_t kSession = Numbered(1);

  void SetUp() override {
    char name[] = "/tmp/shoal-state-XXXXXX";
    ASSERT_TRUE(::mkdtemp(name));
    top_ = name;
    data_ = top_ + "/data";
    std::filesystem::create_directories(data_);
    OpenNew();
    MakeHead();
    MakeNames();
    MakeChunks();
    Write();
  }
  void TearDown() override {
    state_.reset();
    std::filesystem::remove_all(top_);
  }

  void OpenNew() {
    auto state = StateDb::Open(data_ + "/db", StateDb::Mode::kNew);
    ASSERT_TRUE(state) << ToString(state.error());
    state_ = std::move(*state);
  }
  leveldb::DB* db() { return state_->db(); }
  static uint64_t Bucket(const std::string& name) { return Checksum(name, kSeed) >> 9 << 8; }

  void Put(const Key& key, const Message& record) { PutRecord(&batch_, key, record); }
  void Delete(const Key& key) { batch_.Delete({key.view().data(), key.view().size()}); }
  void Write() {
    ASSERT_TRUE(db()->Write(leveldb::WriteOptions(), &batch_).ok());
    batch_.Clear();
  }
  template <typename T>
  T Get(const Key& key) {
    std::string value;
    EXPECT_TRUE(db()->Get(leveldb::ReadOptions(), {key.view().data(), key.view().size()}, &value).ok()) << key.ToString();
    T record;
    EXPECT_TRUE(record.ParseFromString(value));
    return record;
  }
  // Changes one record.
  template <typename T>
  void Change(const Key& key, std::function<void(T&)> change) {
    T record = Get<T>(key);
    change(record);
    Put(key, record);
    Write();
  }
  void PutInode(uint64_t id, uint32_t mode, uint32_t nlink, std::function<void(pb::InodeRecord&)> more = {}) {
    pb::InodeRecord inode;
    inode.set_mode(mode);
    inode.set_nlink(nlink);
    if (more) more(inode);
    Put(InodeKey(InodeId(id)), inode);
  }
  void PutName(uint64_t parent, const std::string& name, uint64_t inode, uint32_t type) {
    pb::DentryBucket bucket;
    auto* entry = bucket.add_entries();
    entry->set_name(name);
    entry->set_inode(inode);
    entry->set_type(type);
    Put(DentryKey(InodeId(parent), Bucket(name)), bucket);
  }
  void PutChunk(uint64_t chunk, uint64_t inode, uint64_t replica) {
    pb::ChunkRecord record;
    record.set_version(1);
    record.set_copies(1);
    record.set_written(true);
    record.set_inode(inode);
    auto* r = record.add_replicas();
    r->set_server(1);
    r->set_instance(replica);
    Put(ChunkKey(ChunkId(chunk)), record);
    pb::ByServerRecord by_server;
    by_server.set_instance(replica);
    by_server.set_version(1);
    Put(ByServerKey(ServerId(1), ChunkId(chunk)), by_server);
    pb::ExtentRecord extent;
    extent.set_chunk(chunk);
    Put(ExtentKey(InodeId(inode), 0), extent);
  }

  void MakeHead() {
    pb::ClusterRecord cluster;
    cluster.set_format(1);
    cluster.set_uuid("00000000-0000-4000-8000-000000000001");
    cluster.set_hash_seed(kSeed);
    Put(ClusterKeyOf(), cluster);
    pb::LifeRecord life;
    life.set_incarnation(1);
    Put(LifeKey(), life);
    pb::IdRanges ids;
    for (auto set : {&pb::IdRanges::set_inode, &pb::IdRanges::set_chunk, &pb::IdRanges::set_instance, &pb::IdRanges::set_session,
                     &pb::IdRanges::set_server, &pb::IdRanges::set_order, &pb::IdRanges::set_lease}) {
      (ids.*set)(100);
    }
    Put(IdRangesKey(), ids);
    pb::CommitRecord commit;
    commit.set_txn(1000);
    commit.set_inodes(6);
    commit.set_file_bytes(10);
    commit.set_chunks(2);
    Put(CommitKey(), commit);
    pb::SessionRecord session;
    session.set_client_uuid("client");
    Put(SessionKey(SessionId(kSession)), session);
    pb::SlotRecord slot;
    slot.set_sequence(1);
    Put(SlotKey(SessionId(kSession), 0), slot);
  }
  void MakeNames() {
    PutInode(1, S_IFDIR | 0755, 3, [](auto& r) {
      r.set_entries(4);
      r.set_parent(1);
    });
    PutInode(kDir, S_IFDIR | 0755, 2, [](auto& r) {
      r.set_entries(1);
      r.set_parent(1);
    });
    PutInode(kFile, S_IFREG | 0644, 2, [](auto& r) {
      r.set_size(10);
      r.set_extents(1);
      r.set_written_chunks(1);
      r.set_has_xattrs(true);
    });
    PutInode(kLink, S_IFLNK | 0777, 1, [](auto& r) {
      r.set_target("file");
      r.set_size(4);
    });
    PutInode(kInner, S_IFREG | 0644, 1);
    PutInode(kOrphan, S_IFREG | 0644, 0);
    Put(OrphanKey(InodeId(kOrphan)), pb::OrphanRecord());
    pb::XattrsRecord xattrs;
    xattrs.add_xattrs()->set_name("user.a");
    Put(XattrsKey(InodeId(kFile)), xattrs);
    PutName(1, "dir", kDir, S_IFDIR);
    PutName(1, "file", kFile, S_IFREG);
    PutName(1, "hard", kFile, S_IFREG);
    PutName(1, "link", kLink, S_IFLNK);
    PutName(kDir, "inner", kInner, S_IFREG);
  }
  void MakeChunks() {
    pb::ServerRecord server;
    server.set_uuid("server");
    server.set_name("one");
    server.set_start_id(5);
    Put(ServerKey(ServerId(1)), server);
    PutChunk(kChunk, kFile, kReplica);
    PutChunk(kOldChunk, kGone, kOldReplica);
    pb::ReapRecord reap;
    reap.set_extents(1);
    Put(ReapKey(InodeId(kGone)), reap);
  }

  std::string top_, data_;
  std::unique_ptr<StateDb> state_;
  leveldb::WriteBatch batch_;
};

}  // namespace shoal::meta
