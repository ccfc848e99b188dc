#include "metaserver/chunks/placement.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace shoal {
namespace {

constexpr uint64_t kGiB = 1ull << 30;

PlacementCandidate Server(uint32_t id, std::string rack, std::string host, uint64_t free = 50 * kGiB,
                          uint32_t load = 0) {
  PlacementCandidate c;
  c.server = ServerId(id);
  c.rack = std::move(rack);
  c.host = std::move(host);
  c.capacity = 100 * kGiB;
  c.free = c.best_disk = free;
  c.load = load;
  return c;
}

TEST(Placement, NeverTwiceOnOneServerAndNeverWithoutRoom) {
  std::mt19937_64 rng(1);
  std::mt19937_64 make(2);
  for (int round = 0; round < 2000; round++) {
    std::vector<PlacementCandidate> all;
    std::set<uint32_t> with_room;
    size_t n = 1 + make() % 8;
    for (uint32_t i = 1; i <= n; i++) {
      bool room = make() % 4 != 0;
      if (room) with_room.insert(i);
      all.push_back(Server(i, "r" + std::to_string(make() % 3), "h" + std::to_string(make() % 4),
                           room ? kGiB * (1 + make() % 99) : kPlacementReserve));
    }
    std::vector<ServerId> existing;
    if (make() % 2) existing.push_back(ServerId(static_cast<uint32_t>(1 + make() % n)));
    size_t count = 1 + make() % 4;
    auto chosen = PlaceReplicas(all, existing, count, rng);
    std::set<ServerId> distinct(chosen.begin(), chosen.end());
    EXPECT_EQ(distinct.size(), chosen.size());
    for (ServerId id : chosen) EXPECT_TRUE(with_room.contains(id.value));
    size_t usable = with_room.size();
    if (!existing.empty()) {
      EXPECT_FALSE(distinct.contains(existing[0]));
      usable -= with_room.contains(existing[0].value);
    }
    EXPECT_EQ(chosen.size(), std::min(count, usable));
  }
}

TEST(Placement, SpreadsOverRacksThenHosts) {
  std::vector<PlacementCandidate> all = {Server(1, "a", "a1"), Server(2, "a", "a1"), Server(3, "a", "a2"),
                                         Server(4, "b", "b1", kGiB), Server(5, "b", "b1", kGiB)};
  std::map<ServerId, std::pair<std::string, std::string>> where;
  for (const auto& c : all) where[c.server] = {c.rack, c.host};
  std::mt19937_64 rng(7);
  for (int i = 0; i < 500; i++) {
    auto chosen = PlaceReplicas(all, {}, 3, rng);
    ASSERT_EQ(chosen.size(), 3u);
    std::set<std::string> racks, hosts;
    for (ServerId id : chosen) {
      racks.insert(where[id].first);
      hosts.insert(where[id].second);
    }
    EXPECT_EQ(racks.size(), 2u);  // although rack b is nearly full
    EXPECT_EQ(hosts.size(), 3u);
  }
  // A replica that exists counts.
  for (int i = 0; i < 100; i++) {
    auto chosen = PlaceReplicas(all, {ServerId(1)}, 1, rng);
    ASSERT_EQ(chosen.size(), 1u);
    EXPECT_EQ(where[chosen[0]].first, "b");
  }
}

TEST(Placement, PrefersEmptyAndIdleServers) {
  std::vector<PlacementCandidate> all;
  for (uint32_t i = 1; i <= 10; i++) {
    all.push_back(Server(i, "", "h" + std::to_string(i), i <= 5 ? 90 * kGiB : 10 * kGiB));
  }
  std::mt19937_64 rng(3);
  int empty = 0;
  for (int i = 0; i < 2000; i++) empty += PlaceReplicas(all, {}, 1, rng)[0].value <= 5;
  EXPECT_GT(empty, 1700);  // three choices: 1 - 1/12 of them see one of the emptier half
  EXPECT_LT(empty, 1990);  // but not a stampede on one
  for (auto& c : all) {
    c.free = c.best_disk = 50 * kGiB;
    c.load = c.server.value <= 5 ? 0 : 64;
  }
  int idle = 0;
  for (int i = 0; i < 2000; i++) idle += PlaceReplicas(all, {}, 1, rng)[0].value <= 5;
  EXPECT_GT(idle, 1700);
}

TEST(Placement, SameSeedSameAnswer) {
  std::vector<PlacementCandidate> all;
  for (uint32_t i = 1; i <= 20; i++) all.push_back(Server(i, "", "h" + std::to_string(i)));
  std::mt19937_64 a(42), b(42);
  for (int i = 0; i < 50; i++) EXPECT_EQ(PlaceReplicas(all, {}, 3, a), PlaceReplicas(all, {}, 3, b));
}

SpaceShare Share(uint32_t server, uint64_t bytes, std::string pool, uint64_t pool_bytes = 0) {
  return {ServerId(server), std::move(pool), bytes, pool_bytes};
}

TEST(UsableSpace, IsWhatReplicasOnDifferentServersCanTake) {
  EXPECT_EQ(UsableSpace({}, 3), 0u);
  EXPECT_EQ(UsableSpace({Share(1, 100, "a"), Share(2, 100, "b"), Share(3, 100, "c")}, 3), 100u);
  EXPECT_EQ(UsableSpace({Share(1, 100, "a"), Share(2, 100, "b"), Share(3, 100, "c")}, 1), 300u);
  // One large server can't make up for two small ones.
  EXPECT_EQ(UsableSpace({Share(1, 1000, "a"), Share(2, 10, "b"), Share(3, 10, "c")}, 3), 10u);
  EXPECT_EQ(UsableSpace({Share(1, 1000, "a"), Share(2, 10, "b"), Share(3, 10, "c")}, 2), 20u);
  // Fewer servers than copies: as many as there are.
  EXPECT_EQ(UsableSpace({Share(1, 70, "a"), Share(2, 50, "b")}, 3), 50u);
}

TEST(UsableSpace, OneFileSystemCountsOnce) {
  // Three servers on one file system with 300 bytes left: three copies of 100.
  EXPECT_EQ(UsableSpace({Share(1, 300, "x", 300), Share(2, 300, "x", 300), Share(3, 300, "x", 300)}, 3), 100u);
  // Each with a capacity of 50 on it: that is what limits.
  EXPECT_EQ(UsableSpace({Share(1, 50, "x", 300), Share(2, 50, "x", 300), Share(3, 50, "x", 300)}, 3), 50u);
  // Two directories of one server on one file system.
  EXPECT_EQ(UsableSpace({Share(1, 300, "x", 300), Share(1, 300, "x", 300), Share(2, 300, "y", 300)}, 2), 300u);
}

}  // namespace
}  // namespace shoal
