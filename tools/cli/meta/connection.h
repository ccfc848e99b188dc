// A plain connection to the metaserver, for commands that neither need a session nor the file system.
#pragma once

#include <memory>

#include "common/rpc/rpc.h"
#include "tools/cli/cluster.h"

namespace shoal::cli {

// One connection with a loop of its own, for the time of one command. Owner: the command; main's thread, every call
// waits for its answer. Only the cluster key is needed.
class MetaConnection {
 public:
  // A failure says what to do next, and has exit code 3 when nobody answers.
  static std::expected<std::unique_ptr<MetaConnection>, Failure> Connect(const ClientSettings& settings,
                                                                         const std::string& verb);
  ~MetaConnection();

  template <typename Response, typename Request>
  Result<Response> Call(pb::Method method, const Request& request, Duration timeout = 60s) {
    Result<Typed<Response>> answer =
        RunOn(loop_, CallTyped<Response>(connection_, method, request, Payload(), timeout));
    if (!answer) return std::unexpected(answer.error());
    return std::move(answer->message);
  }

 private:
  MetaConnection() : loop_("cli") {}
  EventLoop loop_;
  RpcContext context_;
  std::unique_ptr<Channel> channel_;
  std::shared_ptr<Connection> connection_;
};

// A line about the progress of something long, on standard error, written over the one before; nothing unless standard
// error is a terminal. One thread.
class ProgressLine {
 public:
  ~ProgressLine();
  void Show(const std::string& text);  // at most a few times a second
 private:
  std::chrono::steady_clock::time_point next_{};
  size_t width_ = 0;
};

}  // namespace shoal::cli
