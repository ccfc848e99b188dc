// Completion: the end of something that another thread does.
#pragma once

#include <memory>

#include "common/event_loop.h"
#include "common/result.h"

namespace shoal {

// A Status set once on any thread, awaited by one coroutine on `loop`: `OneShot<Status>& shot = done.shot(); co_await shot;` (g++ 12
// copies the awaitable otherwise). Copies share it. The loop
// must outlive whoever may still set it.
class Completion {
 public:
  explicit Completion(EventLoop& loop) : state_(std::make_shared<State>(loop)) {}

  void Set(Status status) const {
    state_->loop.Post([state = state_, status = std::move(status)]() mutable { state->shot.Set(std::move(status)); });
  }
  OneShot<Status>& shot() const { return state_->shot; }

 private:
  struct State {
    explicit State(EventLoop& l) : loop(l), shot(l) {}
    EventLoop& loop;
    OneShot<Status> shot;
  };
  std::shared_ptr<State> state_;
};

}  // namespace shoal
