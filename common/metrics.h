// Counters, gauges and latency histograms of a process, in the Prometheus text form
// (https://prometheus.io/docs/instrumenting/exposition_formats/). Names follow its conventions:
// shoal_<part>_<what>_<unit>[_total].
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/event_loop.h"

namespace shoal {

// A number that only grows. Any thread.
class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// A number that goes up and down. Any thread.
class Gauge {
 public:
  void Set(int64_t v) { value_.store(v, std::memory_order_relaxed); }
  void Add(int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// Latencies in buckets from 16 us to 67 s, each double the one before. Any thread.
class Histogram {
 public:
  static constexpr int kBuckets = 23;
  void Record(Duration latency);
  uint64_t bucket(int i) const { return buckets_[i].load(std::memory_order_relaxed); }
  uint64_t sum_ns() const { return sum_ns_.load(std::memory_order_relaxed); }
  static double UpperBoundSeconds(int i);

 private:
  std::array<std::atomic<uint64_t>, kBuckets + 1> buckets_{};  // the last: above all bounds
  std::atomic<uint64_t> sum_ns_{0};
};

// All metrics of a process (or of one server of an in-process cluster); hands out references that live as long as
// it does. Any thread.
class Metrics {
 public:
  // `labels` as they stand between the braces: method="LOOKUP". The same name and labels give the same object.
  Counter& counter(const std::string& name, const std::string& help, const std::string& labels = {});
  Gauge& gauge(const std::string& name, const std::string& help, const std::string& labels = {});
  Histogram& histogram(const std::string& name, const std::string& help, const std::string& labels = {});
  // A gauge whose value is asked for at each scrape, on the scraper's thread.
  void gauge_function(const std::string& name, const std::string& help, std::function<double()> value,
                      const std::string& labels = {});
  std::string Text() const;

 private:
  struct Family {
    std::string help;
    std::string type;
    std::map<std::string, std::unique_ptr<Counter>> counters;
    std::map<std::string, std::unique_ptr<Gauge>> gauges;
    std::map<std::string, std::unique_ptr<Histogram>> histograms;
    std::map<std::string, std::function<double()>> functions;
  };
  Family& FamilyOf(const std::string& name, const std::string& help, const char* type);
  mutable std::mutex mutex_;  // guards families_
  std::map<std::string, Family> families_;
};

}  // namespace shoal
