// Every method of the metaserver with arbitrary requests, as they come from connections, on a metaserver in a directory
// in memory. No request may end the process or stay unanswered, and what is answered keeps the limits of limits.h.
// Every now and then the metaserver starts again from what the requests have left on its disk.
//
// An input is a list of calls: the method, how its request is made, the request. Ids that were answered are used again.
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>

#include "common/proto/chunk.pb.h"
#include "common/proto/control.pb.h"
#include "common/proto/meta.pb.h"
#include "common/rpc/connection.h"
#include "tests/fuzz/messages.h"
#include "tests/unit/metaserver/harness.h"

using namespace shoal;
using namespace shoal::meta;
using fuzz::Input;
using ProtoMessage = google::protobuf::Message;  // shoal::meta has another

namespace {

constexpr int kMaxCalls = 24;
constexpr int kRestartEvery = 200, kRenewEvery = 1000;  // inputs
constexpr Duration kDeadline = 20ms;                    // of a request
constexpr Duration kPatience = 30s;                     // for the answer to one that has no reason to wait

// Takes the answers to requests that never were on a wire; orders of the metaserver get arbitrary answers at once.
// Owner: one input's run. On the loop, but for Wait.
class FakeConnection : public Connection {
 public:
  FakeConnection(EventLoop& loop, RpcContext& context, pb::Role role, uint64_t seed)
      : loop_(loop), context_(context), role_(role), random_(seed) {}

  PendingReply Call(pb::Method method, const google::protobuf::MessageLite&, Payload, Duration) override {
    auto state = std::make_shared<rpc_internal::PendingState>();
    state->loop = &loop_;
    std::string bytes(random_() % 64, '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    const ProtoMessage* response = fuzz::ResponseOf(method);
    if (closed_ || random_() % 4 == 0) {
      state->Finish(Fail(ErrorFromWire(static_cast<uint32_t>(random_() % 100)), "as the fuzzer says"));
    } else if (random_() % 2 && response) {
      std::unique_ptr<ProtoMessage> message(response->New());
      Input input{std::string_view(bytes)};
      fuzz::MessageMaker({}, {}).Fill(input, *message);
      state->Finish(Reply{Buffer::CopyOf(message->SerializePartialAsString()), {}, {}});
    } else {
      state->Finish(Reply{Buffer::CopyOf(bytes), {}, {}});
    }
    return PendingReply(state);
  }
  void Close(const Error& why) override {
    if (closed_.exchange(true)) return;
    for (auto& callback : std::exchange(on_close_, {})) callback(why, false);
    attachment.reset();
  }
  bool closed() const override { return closed_; }
  void OnClose(std::move_only_function<void(const Error&, bool)> callback) override {
    on_close_.push_back(std::move(callback));
  }
  EventLoop& loop() override { return loop_; }
  RpcContext& context() override { return context_; }
  const std::string& peer() const override { return name_; }
  const std::string& peer_host() const override { return name_; }
  pb::Role peer_role() const override { return role_; }
  const std::string& peer_name() const override { return name_; }
  size_t queued_bytes() const override { return 0; }
  SteadyTime last_received() const override { return {}; }

  // The test's thread: waits until at most `left` of `sent` requests are not answered. False: not in time.
  bool Wait(uint64_t sent, uint64_t left, Duration time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [&] { return sent - answered_ <= left; });
  }
  // An answer that was not taken yet.
  struct Answer {
    uint64_t id;
    pb::Method method;
    std::string message;
  };
  std::optional<Answer> TakeAnswer() {
    std::lock_guard lock(mutex_);
    if (answers_.empty()) return std::nullopt;
    auto answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }

 protected:
  void SendResponse(uint64_t id, pb::Method method, ErrorCode status, const google::protobuf::MessageLite* message,
                    std::string_view raw, Payload, TxnId, size_t) override {
    std::lock_guard lock(mutex_);
    ++answered_;
    if (status == ErrorCode::kOk)
      answers_.emplace_back(id, method, message ? message->SerializeAsString() : std::string(raw));
    changed_.notify_all();
  }

 private:
  EventLoop& loop_;
  RpcContext& context_;
  const pb::Role role_;
  const std::string name_ = "fuzz";
  std::mt19937_64 random_;
  std::atomic<bool> closed_{false};
  std::vector<std::move_only_function<void(const Error&, bool)>> on_close_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  uint64_t answered_ = 0;
  std::deque<Answer> answers_;
};

// The metaserver that all inputs use.
class Server {
 public:
  Server() {
    for (int number = 1; number < 256; ++number) {
      if (pb::Method_IsValid(number)) methods_.push_back(static_cast<pb::Method>(number));
    }
  }
  ~Server() { Stop(); }

  void NextInput() {
    if (inputs_ % kRenewEvery == 0) {
      Stop();
      directory_ = fuzz::MakeScratchDirectory();
      harness_ = std::make_unique<Harness>(MakeChunkService);
      MetaServerOptions& options = harness_->options;
      options.data_dir = directory_ + "/data";
      options.server_lease = 50ms;
      options.server_lease_margin = 5ms;
      options.rereplication_grace = options.drop_delay = 100ms;
      options.min_copies = 1;
      options.cache_bytes = 1 << 20;  // much is cold
    } else if (inputs_ % kRestartEvery == 0) {
      harness_->Stop();
    }
    if (inputs_++ % kRestartEvery == 0) {
      Status started = harness_->TryStart();
      if (!started) fprintf(stderr, "%s\n", ToString(started.error()).c_str());
      CHECK(started);
    }
  }
  Harness& harness() { return *harness_; }
  pb::Method method(uint8_t number) const { return methods_[number % methods_.size()]; }
  uint8_t number_of(pb::Method method) const {
    return static_cast<uint8_t>(std::ranges::find(methods_, method) - methods_.begin());
  }

 private:
  void Stop() {
    harness_.reset();
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  std::string directory_;
  std::unique_ptr<Harness> harness_;
  std::vector<pb::Method> methods_;
  uint64_t inputs_ = 0;
};

Server& TheServer() {
  static Server server;
  return server;
}

void CheckLimits(const pb::Extent& extent) { CHECK(extent.index() < kMaxFileSize / kChunkSize); }
void CheckAnswer(const ProtoMessage& answer) {
  if (auto* open = dynamic_cast<const pb::OpenResponse*>(&answer)) {
    for (const pb::Extent& extent : open->extents()) CheckLimits(extent);
  } else if (auto* grant = dynamic_cast<const pb::GrantWriteResponse*>(&answer)) {
    for (const pb::Extent& extent : grant->extents()) CheckLimits(extent);
  } else if (auto* attr = dynamic_cast<const pb::AttrResponse*>(&answer)) {
    CHECK(attr->attr().size() <= std::max<uint64_t>(kMaxFileSize, kMaxSymlink));
  } else if (auto* dir = dynamic_cast<const pb::ReadDirResponse*>(&answer)) {
    for (const pb::DirEntry& entry : dir->entries()) CHECK(entry.name().size() <= kMaxName && !entry.name().empty());
  }
}

// One input's calls, on one connection and in one session.
class Run {
 public:
  Run(Harness& harness, pb::Role role, uint64_t seed)
      : h_(harness),
        maker_({"a", "b", ".", "..", "", "a/b", std::string(256, 'n'), std::string(255, 'n'), "user.x",
                "system.posix_acl_access", "trusted.y", "/a/b", "client-1", std::string("x\0y", 3),
                std::string(5000, 's')},
               {"127.0.0.1:1", "", "[::1]:1", "host:99999"}),
        connection_(std::make_shared<FakeConnection>(h_.loop(), h_.context().rpc, role, seed)) {
    pb::OpenSessionRequest open;
    open.set_client_uuid("run-" + std::to_string(++runs_));
    Start(pb::OPEN_SESSION, open.SerializeAsString(), kPatience);  // durable before it is answered
    CHECK(connection_->Wait(sent_, 0, kPatience));
    TakeAnswers();
    CHECK(sessions_.size() == 1);
  }
  // Ends everything that waits.
  ~Run() {
    for (size_t i = 0; i < sessions_.size(); ++i) {  // a request that comes late may open another
      pb::CloseSessionRequest close;
      close.set_session(sessions_[i]);
      Start(pb::CLOSE_SESSION, close.SerializeAsString());
      if (i + 1 == sessions_.size()) CHECK(connection_->Wait(sent_, 0, kPatience));
      TakeAnswers();
    }
    h_.loop().Sync([this] { connection_->Close(Error{ErrorCode::kUnavailable, "the end of the input"}); });
  }

  void Call(Input& input) {
    pb::Method method = TheServer().method(input.Byte());
    uint8_t how = input.Byte();
    const ProtoMessage* prototype = fuzz::RequestOf(method);
    std::unique_ptr<ProtoMessage> request(prototype->New());
    if (how & 1) {
      std::string bytes(input.TakeSized());
      if (!request->ParseFromString(bytes)) return Send(method, bytes, how, false);
    } else {
      maker_.Fill(input, *request);
    }
    bool fresh = SetCaller(*request, how);
    Send(method, request->SerializePartialAsString(), how, fresh);
  }

 private:
  // The caller's session is this run's, unless `how` leaves everything as it is; a request that changes something is a
  // new one, or has the last number again. Returns whether it is new: others may get the answer to another method,
  // which is what their number asks for. Slot 0 is for this alone.
  bool SetCaller(ProtoMessage& request, uint8_t how) {
    const auto* with = request.GetReflection();
    // Who has seen a later incarnation ends this metaserver for good.
    if (const auto* field = request.GetDescriptor()->FindFieldByName("incarnation")) with->ClearField(&request, field);
    const auto* caller_field = request.GetDescriptor()->FindFieldByName("caller");
    if (!caller_field) {
      const auto* session = request.GetDescriptor()->FindFieldByName("session");
      if (session && !(how & 2)) with->SetUInt64(&request, session, sessions_[0]);
      return true;
    }
    auto* caller = static_cast<pb::Caller*>(with->MutableMessage(&request, caller_field));
    if (!(how & 2)) caller->set_session(sessions_[0]);
    if (how & (2 | 4)) {
      if (caller->slot() == 0) caller->set_slot(1);
      return false;
    }
    caller->set_uid(0);
    caller->set_slot(0);
    caller->set_sequence(how & 8 ? sequence_ : ++sequence_);
    return !(how & 8);
  }
  void Send(pb::Method method, const std::string& bytes, uint8_t how, bool fresh) {
    Start(method, bytes);
    if (!fresh) unchecked_.insert(sent_);
    if (how & 16) return;  // the next one comes before its answer
    connection_->Wait(sent_, 0, 2 * kDeadline);
    TakeAnswers();
  }
  void Start(pb::Method method, const std::string& bytes, Duration deadline = kDeadline) {
    ++sent_;
    h_.loop().Sync([&] {
      const Dispatcher::Handler* handler = h_.context().dispatcher.Find(method);
      Request request(connection_, sent_, method, std::chrono::steady_clock::now() + deadline, Buffer::CopyOf(bytes),
                      {}, 0);
      if (handler) (*handler)(std::move(request));
    });
  }
  void TakeAnswers() {
    while (auto answer = connection_->TakeAnswer()) {
      const ProtoMessage* prototype = fuzz::ResponseOf(answer->method);
      CHECK(prototype);
      std::unique_ptr<ProtoMessage> response(prototype->New());
      bool parsed = response->ParseFromString(answer->message);
      if (!unchecked_.contains(answer->id)) {
        CHECK(parsed);
        CheckAnswer(*response);
      }
      maker_.Learn(*response);
      auto* opened = dynamic_cast<const pb::OpenSessionResponse*>(response.get());
      if (opened) sessions_.push_back(opened->session());
    }
  }

  inline static uint64_t runs_ = 0;
  Harness& h_;
  fuzz::MessageMaker maker_;
  std::shared_ptr<FakeConnection> connection_;
  std::vector<uint64_t> sessions_;
  std::set<uint64_t> unchecked_;  // requests that may be answered with anything
  uint64_t sent_ = 0, sequence_ = 0;
};

std::string CallOf(pb::Method method, const ProtoMessage& request, uint8_t how = 1) {
  return fuzz::Raw(TheServer().number_of(method)) + fuzz::Raw(how) + fuzz::Sized(request.SerializeAsString());
}

template <typename Request>
Request Named(const std::string& name) {
  Request request;
  request.set_parent(1);
  request.set_name(name);
  return request;
}

// All fields filled out of `bytes`.
std::string Filled(pb::Method method, const std::string& bytes) {
  return fuzz::Raw(TheServer().number_of(method)) + fuzz::Raw(uint8_t{0}) + bytes;
}

}  // namespace

std::vector<std::string> fuzz::Seeds() {
  const std::string client = Raw(uint8_t{pb::ROLE_CLIENT}), server = Raw(uint8_t{pb::ROLE_CHUNKSERVER});
  std::string servers;
  for (const char* name : {"one", "two", "three"}) {
    pb::RegisterRequest request;
    request.set_server_uuid(name);
    request.set_name(name);
    request.set_host(name);
    request.set_address("127.0.0.1:1");
    pb::DiskReport* disk = request.add_disks();
    disk->set_path("/d");
    disk->set_capacity_bytes(1ull << 40);
    disk->set_free_bytes(1ull << 40);
    servers += CallOf(pb::REGISTER, request);
  }
  auto create = Named<pb::CreateRequest>("a");
  create.set_mode(0644);
  create.set_open(true);
  create.set_first_chunk(true);
  create.set_open_flags(2);
  const std::string file = CallOf(pb::CREATE, create);

  std::vector<std::string> seeds{client + file + CallOf(pb::MKDIR, Named<pb::MkdirRequest>("b")) +
                                 CallOf(pb::LOOKUP, Named<pb::LookupRequest>("a")) +
                                 CallOf(pb::UNLINK, Named<pb::UnlinkRequest>("a")) +
                                 CallOf(pb::RMDIR, Named<pb::UnlinkRequest>("b"))};
  // Each method with all its fields filled: the first id that was answered everywhere, and small numbers.
  for (int number = 1; number < 256; ++number) {
    if (!pb::Method_IsValid(number) || !RequestOf(static_cast<pb::Method>(number))) continue;
    for (uint8_t value : {1, 65, 129}) {
      std::string call = Filled(static_cast<pb::Method>(number), std::string(60, static_cast<char>(value)));
      seeds.push_back(client + file + call + call);
      seeds.push_back(server + servers + file + call);
    }
  }
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  Server& server = TheServer();
  server.NextInput();
  auto role = static_cast<pb::Role>(input.Byte() % 4);
  Run run(server.harness(), role, size);
  for (int i = 0; i < kMaxCalls && !input.empty(); ++i) run.Call(input);
  return 0;
}
