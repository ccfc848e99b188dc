// Orders of the metaserver: carried out once, however often they arrive.
#pragma once

#include "chunkserver/service.h"

namespace shoal {

// A repetition (the same number, method and replica, on the same connection) waits for the first and gets its answer.
template <typename Message, typename Response>
Task<void> Service::Order(Request request, Task<Result<Response>> (Service::*work)(const Message&)) {
  Message message;
  if (Status parsed = request.Parse(message); !parsed) {
    request.AnswerError(parsed.error());
    co_return;
  }
  static constexpr size_t kRemembered = 4096;
  OrderKey key{request.method(), {message.order(), message.chunk(), message.instance()}};
  std::shared_ptr<OrderState> state = message.order() != 0 ? orders_[key] : nullptr;
  if (!state) {
    state = std::make_shared<OrderState>();
    state->waiting = std::make_shared<WaitList>(loop_);
    if (message.order() != 0) {
      if (orders_.size() > kRemembered) std::erase_if(orders_, [](const auto& o) { return o.second && o.second->done; });
      orders_[key] = state;
    }
    Result<Response> response = co_await (this->*work)(message);
    if (response) {
      state->answer = response->SerializeAsString();
      RaiseTo(node_.last_order, message.order());
    } else {
      state->answer = Fail(response.error());
      // To be tried again when it is sent again.
      if (auto it = orders_.find(key); it != orders_.end() && it->second == state) orders_.erase(it);
    }
    state->done = true;
    state->waiting->WakeAll();
  }
  while (!state->done) co_await state->waiting->Wait();
  if (state->answer) {
    request.AnswerRaw(ErrorCode::kOk, *state->answer);
  } else {
    request.AnswerError(state->answer.error());
  }
}

}  // namespace shoal
