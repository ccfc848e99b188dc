// Control: the connection to the metaserver.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "chunkserver/identity.h"
#include "chunkserver/node.h"
#include "common/event_loop.h"
#include "common/rpc/rpc.h"

namespace shoal {

// What a server says of itself when it registers. A plain value.
struct Registration {
  std::string server_uuid;
  std::string cluster_uuid;  // empty: belongs to none yet
  std::string name;
  std::string address;
  std::string host;
  std::string rack;
  uint64_t start_id = 0;  // of this process
};

// Registers, sends heartbeats and with them renews the lease, reports bad replicas (all of them at each
// registration, until the metaserver has taken the report) and those that need a recovery, and answers the inventory; tries the
// metaservers in turn when there is no connection, for ever. Lives on a loop of its own, so that nothing a disk does
// keeps a heartbeat waiting; requests that the metaserver sends on the connection go to `dispatcher`. Owner: the server.
class Control {
 public:
  Control(EventLoop& loop, Node& node, Registration self, std::vector<Address> metaservers, const Dispatcher& dispatcher,
          Duration heartbeat);

  // On the loop. `joined` is called (on the loop) with the uuid of the cluster at the first registration of a server that
  // belonged to none; `connected` at each new connection.
  void Start(std::function<Task<Status>(std::string)> joined, std::function<void()> connected);
  Task<void> Stop();

  // On the loop: tells the metaserver which chunks were scrubbed here. What it does not take is not told again.
  Task<void> ReportScrubbed(std::vector<uint64_t> chunks);

  // Any thread.
  void ReportBad();  // there is a new one in the store
  std::string state() const;

 private:
  Task<void> Run();
  Task<Status> Register(std::shared_ptr<Connection> connection);
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
  std::function<Task<Status>(std::string)> joined_;
  std::function<void()> connected_;
  TaskGroup tasks_;
  std::shared_ptr<OneShot<bool>> nap_;
  bool stopping_ = false;
  bool inventory_running_ = false;
  std::set<std::pair<uint64_t, uint64_t>> told_;  // bad replicas (chunk, instance) that the metaserver took since Register
  std::atomic<int> refreshing_{0};

  mutable std::mutex mutex_;  // guards what follows
  std::string state_ = "not registered yet";
};

}  // namespace shoal
