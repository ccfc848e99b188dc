// The one header that shows asio: what the sources of the RPC layer and the event loop share.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <coroutine>
#include <thread>
#include <vector>

#include "common/event_loop.h"

namespace shoal {

// The insides of an EventLoop. All members but `io` (post only) and `stop` belong to the loop's thread.
struct EventLoop::Impl {
  explicit Impl(Duration spin_for) : spin(spin_for) {}

  asio::io_context io{1};
  std::vector<std::coroutine_handle<>> ready;   // resumed in the next round
  std::vector<Callback> end_of_round;           // run once, after the coroutines of this round
  std::vector<std::move_only_function<bool()>> pollers;
  std::vector<std::shared_ptr<void>> watches;
  Duration spin;
  std::atomic<bool> stop{false};
  std::thread thread;

  // Runs `callback` when the coroutines that are ready now have run: replies made in one round leave together.
  void AtEndOfRound(Callback callback) { end_of_round.push_back(std::move(callback)); }
  bool RunReady();
};

}  // namespace shoal
