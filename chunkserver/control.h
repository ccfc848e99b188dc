// Control: the connection to the metaserver.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "chunkserver/identity.h"
#include "chunkserver/node.h"
#include "common/event_loop.h"
#include "common/rpc/rpc.h"

namespace shoal::pb {
class RegisterResponse;
}

namespace shoal {

// What a server says of itself when it registers. A plain value.
struct Registration {
  std::string server_uuid;
  std::string cluster_uuid;  // empty: belongs to none yet
  std::string name;
  std::string address;
  std::string host;
  std::string rack;
  std::string version;    // of the program
  uint64_t start_id = 0;  // of this process
  // Of the metadata: the highest incarnation that was seen before, and its id (0: never restored).
  uint32_t incarnation = 0;
  uint64_t life = 0;
};

// Registers, sends heartbeats and with them renews the lease, reports bad replicas (all of them at each
// registration, until the metaserver has taken the report) and those that need a recovery, and answers the inventory; tries the
// metaservers in turn when there is no connection, for ever. Lives on a loop of its own, so that nothing a disk does
// keeps a heartbeat waiting; requests that the metaserver sends on the connection go to `dispatcher`. Owner: the server.
class Control {
 public:
  Control(EventLoop& loop, Node& node, Registration self, std::vector<Address> metaservers, const Dispatcher& dispatcher,
          Duration heartbeat);

  // What it calls, on the loop. Plain values.
  struct Callbacks {
    // With what is new, to be made durable: the uuid of the cluster at the first registration of a server that belonged to
    // none; a higher incarnation.
    std::function<Task<Status>(DirectoryIdentity)> joined;
    std::function<void()> connected;  // at each new connection
    // After each try to register. An error: every metaserver has refused for good, and no more is tried.
    std::function<void(const Status&)> tried;
  };
  // On the loop.
  void Start(Callbacks callbacks);
  Task<void> Stop();

  // On the loop: tells the metaserver which chunks were scrubbed here. What it does not take is not told again.
  Task<void> ReportScrubbed(std::vector<uint64_t> chunks);

  // Any thread.
  void ReportBad();  // there is a new one in the store
  std::string state() const;

 private:
  Task<void> Run();
  bool RefusedForGood(const Error& why);
  Task<Status> Register(std::shared_ptr<Connection> connection);
  Status CheckMetaserver(const pb::RegisterResponse& response, const std::string& peer) const;
  Task<Status> Join(const pb::RegisterResponse* response);
  Task<void> Serve(std::shared_ptr<Connection> connection);
  void Leave(Connection& connection, Error why);
  Task<Status> Heartbeat(std::shared_ptr<Connection> connection, bool* send_inventory);
  Task<Status> SendBadReports(std::shared_ptr<Connection> connection);
  Task<void> SendInventory(std::shared_ptr<Connection> connection);
  Task<Status> SendBucket(std::shared_ptr<Connection> connection, uint32_t bucket);
  Task<void> Nap(Duration duration);
  void Wake();
  void SetState(std::string state, bool problem);
  void RefreshDisks();

  EventLoop& loop_;
  Node& node_;
  Registration self_;
  Duration heartbeat_;
  uint32_t server_ = 0;
  std::weak_ptr<Connection> registered_;  // the connection that it is registered on
  std::vector<std::unique_ptr<Channel>> channels_;
  Callbacks callbacks_;
  size_t refusals_ = 0;  // for good, one after the other
  uint64_t durable_txn_ = 0;  // of self_.incarnation: what a metaserver has told to be durable
  TaskGroup tasks_;
  std::shared_ptr<OneShot<bool>> nap_;
  bool stopping_ = false;
  bool inventory_running_ = false;
  // Bad replicas (chunk, instance, version, damaged) that the metaserver took since Register.
  std::set<std::tuple<uint64_t, uint64_t, uint32_t, bool>> told_;
  std::atomic<int> refreshing_{0};

  mutable std::mutex mutex_;  // guards what follows
  std::string state_ = "not registered yet";
};

}  // namespace shoal
