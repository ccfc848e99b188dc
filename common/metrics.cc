#include "common/metrics.h"

#include <fmt/format.h>

#include <bit>

#include "common/result.h"

namespace shoal {
namespace {

constexpr uint64_t kFirstBoundNs = 16'000;

std::string Braces(const std::string& labels) { return labels.empty() ? "" : "{" + labels + "}"; }

void AppendHistogram(std::string& out, const std::string& name, const std::string& labels, const Histogram& h) {
  uint64_t cumulative = 0;
  std::string prefix = labels.empty() ? "" : labels + ",";
  for (int i = 0; i <= Histogram::kBuckets; ++i) {
    cumulative += h.bucket(i);
    std::string bound = i == Histogram::kBuckets ? "+Inf" : fmt::format("{:.6g}", Histogram::UpperBoundSeconds(i));
    out += fmt::format("{}_bucket{{{}le=\"{}\"}} {}\n", name, prefix, bound, cumulative);
  }
  out += fmt::format("{}_sum{} {:.9f}\n", name, Braces(labels), static_cast<double>(h.sum_ns()) * 1e-9);
  out += fmt::format("{}_count{} {}\n", name, Braces(labels), cumulative);
}

}  // namespace

void Histogram::Record(Duration latency) {
  auto ns = static_cast<uint64_t>(latency.count() > 0 ? latency.count() : 0);
  int i = ns <= kFirstBoundNs ? 0 : std::bit_width((ns - 1) / kFirstBoundNs);
  buckets_[std::min(i, kBuckets)].fetch_add(1, std::memory_order_relaxed);
  sum_ns_.fetch_add(ns, std::memory_order_relaxed);
}

double Histogram::UpperBoundSeconds(int i) { return static_cast<double>(kFirstBoundNs << i) * 1e-9; }

Metrics::Family& Metrics::FamilyOf(const std::string& name, const std::string& help, const char* type) {
  Family& family = families_[name];
  if (family.type.empty()) {
    family.type = type;
    family.help = help;
  }
  CHECK(family.type == type);
  return family;
}

Counter& Metrics::counter(const std::string& name, const std::string& help, const std::string& labels) {
  std::lock_guard lock(mutex_);
  auto& slot = FamilyOf(name, help, "counter").counters[labels];
  if (!slot) slot = std::make_unique<Counter>();
  return *slot;
}

Gauge& Metrics::gauge(const std::string& name, const std::string& help, const std::string& labels) {
  std::lock_guard lock(mutex_);
  auto& slot = FamilyOf(name, help, "gauge").gauges[labels];
  if (!slot) slot = std::make_unique<Gauge>();
  return *slot;
}

Histogram& Metrics::histogram(const std::string& name, const std::string& help, const std::string& labels) {
  std::lock_guard lock(mutex_);
  auto& slot = FamilyOf(name, help, "histogram").histograms[labels];
  if (!slot) slot = std::make_unique<Histogram>();
  return *slot;
}

void Metrics::gauge_function(const std::string& name, const std::string& help, std::function<double()> value,
                             const std::string& labels) {
  std::lock_guard lock(mutex_);
  FamilyOf(name, help, "gauge").functions[labels] = std::move(value);
}

std::string Metrics::Text() const {
  std::lock_guard lock(mutex_);
  std::string out;
  for (const auto& [name, family] : families_) {
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, family.help, name, family.type);
    for (const auto& [labels, c] : family.counters) out += fmt::format("{}{} {}\n", name, Braces(labels), c->value());
    for (const auto& [labels, g] : family.gauges) out += fmt::format("{}{} {}\n", name, Braces(labels), g->value());
    for (const auto& [labels, f] : family.functions) out += fmt::format("{}{} {}\n", name, Braces(labels), f());
    for (const auto& [labels, h] : family.histograms) AppendHistogram(out, name, labels, *h);
  }
  return out;
}

}  // namespace shoal
