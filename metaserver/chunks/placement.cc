#include "metaserver/chunks/placement.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>

namespace shoal {
namespace {

constexpr size_t kChoices = 3;  // random candidates of which the best is taken

// Lower is better: how full the server is, and how busy. Sixteen requests in work weigh as much as 10 % of fill.
double Score(const PlacementCandidate& c) {
  double fill = c.capacity ? 1.0 - static_cast<double>(c.free) / static_cast<double>(c.capacity) : 1.0;
  return fill + 0.1 * std::min(c.load, 64u) / 16.0;
}

// 0: its rack has no replica yet; 1: its host has none; 2: both have.
int Crowding(const PlacementCandidate& c, const std::set<std::string>& racks, const std::set<std::string>& hosts) {
  if (!racks.contains(c.rack)) return 0;
  return hosts.contains(c.host) ? 2 : 1;
}

}  // namespace

std::vector<ServerId> PlaceReplicas(const std::vector<PlacementCandidate>& all, const std::vector<ServerId>& existing,
                                    size_t count, std::mt19937_64& rng) {
  std::set<std::string> racks, hosts;
  std::vector<const PlacementCandidate*> open;
  for (const PlacementCandidate& c : all) {
    if (std::find(existing.begin(), existing.end(), c.server) != existing.end()) {
      racks.insert(c.rack);
      hosts.insert(c.host);
    } else if (c.best_disk > kPlacementReserve && c.free > kPlacementReserve) {
      open.push_back(&c);
    }
  }
  std::vector<ServerId> chosen;
  while (chosen.size() < count && !open.empty()) {
    int best_class = 2;
    for (const auto* c : open) best_class = std::min(best_class, Crowding(*c, racks, hosts));
    std::vector<size_t> picks;
    for (size_t i = 0; i < open.size(); i++) {
      if (Crowding(*open[i], racks, hosts) == best_class) picks.push_back(i);
    }
    for (size_t i = 0; i < std::min(kChoices, picks.size()); i++) {  // the start of a random permutation
      size_t other = i + rng() % (picks.size() - i);
      std::swap(picks[i], picks[other]);
    }
    picks.resize(std::min(kChoices, picks.size()));
    size_t best = picks[0];
    for (size_t i : picks) {
      if (Score(*open[i]) < Score(*open[best])) best = i;
    }
    chosen.push_back(open[best]->server);
    racks.insert(open[best]->rack);
    hosts.insert(open[best]->host);
    open.erase(open.begin() + static_cast<std::ptrdiff_t>(best));
  }
  return chosen;
}

namespace {

struct Pool {
  std::map<ServerId, uint64_t> by_server;  // bytes that each server could put here
  uint64_t limit = 0;                      // 0: none known
};

// Bytes of replicas that can be placed when no server may take more than `each` (its replicas are of different data).
long double Placeable(const std::map<std::string, Pool>& pools, const std::map<ServerId, uint64_t>& totals,
                      long double each) {
  long double sum = 0;
  for (const auto& [name, pool] : pools) {
    long double in_pool = 0;
    for (const auto& [server, bytes] : pool.by_server) {
      long double total = static_cast<long double>(totals.at(server));
      long double share = total > each ? each / total : 1.0L;  // a server spreads over its directories by their room
      in_pool += static_cast<long double>(bytes) * share;
    }
    sum += pool.limit ? std::min(in_pool, static_cast<long double>(pool.limit)) : in_pool;
  }
  return sum;
}

}  // namespace

uint64_t UsableSpace(const std::vector<SpaceShare>& shares, uint32_t copies) {
  std::map<std::string, Pool> pools;
  std::map<ServerId, uint64_t> totals;
  for (const SpaceShare& s : shares) {
    Pool& pool = pools[s.pool];
    pool.by_server[s.server] += s.bytes;
    pool.limit = std::max(pool.limit, s.pool_bytes);
    totals[s.server] += s.bytes;
  }
  if (totals.empty()) return 0;
  copies = std::clamp<uint32_t>(copies, 1, static_cast<uint32_t>(totals.size()));
  // x bytes fit with R copies on different servers if the servers, none taking more than x, take R * x.
  uint64_t low = 0, high = 0;
  for (const auto& [server, bytes] : totals) high += bytes;
  while (low < high) {
    uint64_t x = low + (high - low + 1) / 2;
    auto wanted = static_cast<long double>(x) * copies;
    if (Placeable(pools, totals, static_cast<long double>(x)) + 0.5L >= wanted) {
      low = x;
    } else {
      high = x - 1;
    }
  }
  return low;
}

}  // namespace shoal
