// Power cuts at every step of what a metaserver writes, and that each sync is needed.
#include <leveldb/env.h>

#include "common/log.h"
#include "metaserver/commit.h"
#include "tests/unit/metaserver/files_env.h"
#include "tests/unit/metaserver/names.h"
#include "tests/unit/metaserver/power_cut.h"

namespace shoal::meta {
namespace {

using test::FakeFiles;

// What all images of a run were found to be.
struct Outcome {
  uint64_t steps = 0, images = 0;
  std::string first_violation;
  std::set<std::string> rules;
};

// A metaserver in memory under a workload, with images taken and checked on the way.
class Workload {
 public:
  Workload(uint64_t seed, int share, const std::string& leave_out = "")
      : seed_(seed), leave_out_(leave_out), random_(seed), recorder_(seed * 3 + 1, share, leave_out), files_(NewFiles()), history_({}, 0) {
    SilenceLog();
    char name[] = "/tmp/shoal-cut-XXXXXX";
    CHECK(::mkdtemp(name));
    scratch_ = name;
  }
  ~Workload() {
    harness_.reset();
    std::filesystem::remove_all(scratch_);
  }

  void Start() {
    recorder_.starting = true;
    recorder_.Listen(*files_);
    env_ = test::MakeFilesEnv(*files_);
    harness_ = std::make_unique<Harness>();
    MetaServerOptions options = OptionsIn(*files_, env_.get());
    options.root_uid = options.root_gid = 0;
    harness_->options = options;
    CHECK(harness_->TryStart().has_value());
    harness_->UseSession(harness_->OpenSession("client-" + std::to_string(++lives_)));
    names_ = std::make_unique<Names>(*harness_);
    recorder_.starting = false;
    auto hold = files_->Hold();
    recorder_.cluster = harness_->context().rpc.cluster_uuid;
    live_.clear();
    directories_ = {kRoot};
  }
  void Work(int operations) {
    for (int i = 0; i < operations; ++i) {
      Operation(static_cast<int>(random_() % 16));
      if (random_() % 3 == 0) WaitDurable();
      if (i % 50 == 49) Check();
    }
    Check();
  }
  // As after kill -9: a new process finds what is in the operating system, synced or not.
  void Kill() {
    std::unique_ptr<FakeFiles> copy;
    {
      auto hold = files_->Hold();
      copy = files_->Copy();
      Check();
      recorder_.Deafen();
    }
    Stop();
    files_ = std::move(copy);
    Start();
  }
  void Stop() {
    names_.reset();
    harness_.reset();
    env_.reset();
  }
  // Checks what was gathered so far.
  void Check() {
    std::vector<Image> images;
    {
      auto hold = files_->Hold();
      images = recorder_.TakeImages();
      history_.Add(recorder_.Logs());
    }
    for (Image& image : images) CheckOne(image);
  }
  Outcome outcome() {
    outcome_.steps = recorder_.steps();
    outcome_.rules = recorder_.rules();
    return outcome_;
  }
  bool violated() const { return !outcome_.first_violation.empty(); }
  // Cuts the power again after some of the cuts, while the metaserver comes back.
  int second_cut_in = 0;  // one of so many images

 private:
  std::unique_ptr<FakeFiles> NewFiles() {
    auto files = std::make_unique<FakeFiles>();
    files->sector = seed_ % 2 ? 512 : 4096;
    files->WriteBackAtRandom(seed_ * 7 + 5);
    CHECK(files->CreateDirectory("/var").has_value());
    files->SyncAll();
    return files;
  }
  void CheckOne(Image& image) {
    if (violated()) return;
    const bool again = second_cut_in != 0 && random_() % static_cast<uint64_t>(second_cut_in) == 0;
    auto second = again ? image.files->Copy() : nullptr;
    State state;
    uint64_t txn = 0;
    ++outcome_.images;
    std::string wrong = CheckImage(image, history_, scratch_, outcome_.images % 8 == 0, &state, &txn);
    Note(wrong, image.step);
    if (second && wrong.empty() && !image.cluster.empty()) SecondCut(image, std::move(second), std::move(state), txn);
  }
  void Note(const std::string& wrong, uint64_t step) {
    if (!wrong.empty() && !violated()) outcome_.first_violation = "step " + std::to_string(step) + ": " + wrong;
  }
  void SecondCut(const Image& first, std::unique_ptr<FakeFiles> files, State state, uint64_t txn);
  void Operation(int kind);
  void WaitDurable() {
    TxnId txn;
    harness_->loop().Sync([&] { txn = harness_->context().commit->submitted(); });
    CommitLevel level = CommitLevel::kDurable;
    Status durable = RunOn(harness_->loop(), harness_->context().commit->Wait(txn, level));
    CHECK(durable.has_value());
    recorder_.durable = txn.value;
  }
  uint64_t Any(const std::vector<uint64_t>& of) { return of[random_() % of.size()]; }

  const uint64_t seed_;
  const std::string leave_out_;
  std::mt19937_64 random_;
  Recorder recorder_;
  std::string scratch_;
  std::unique_ptr<FakeFiles> files_;
  std::unique_ptr<leveldb::Env> env_;
  std::unique_ptr<Harness> harness_;
  std::unique_ptr<Names> names_;
  History history_;
  Outcome outcome_;
  // Files: where, what name, which.
  struct Live {
    uint64_t parent;
    std::string name;
    uint64_t inode;
  };
  std::vector<Live> live_;
  std::vector<uint64_t> directories_;
  int next_name_ = 0, lives_ = 0;
};

void Workload::Operation(int kind) {
  std::string name = "n" + std::to_string(seed_) + "-" + std::to_string(++next_name_);
  Names& fs = *names_;
  if (kind < 5 || live_.empty()) {
    uint64_t parent = Any(directories_);
    auto made = fs.Create(parent, name);
    CHECK(made.has_value());
    recorder_.inode = made->inode();
    live_.push_back({parent, name, made->inode()});
    return;
  }
  size_t which = random_() % live_.size();
  Live& file = live_[which];
  if (kind < 10) {
    CHECK(fs.SetXattr(file.inode, "user.x", std::string(random_() % 6000, static_cast<char>('a' + kind))).has_value());
  } else if (kind == 10) {
    CHECK(fs.Chmod(file.inode, 0600 + random_() % 64).has_value());
  } else if (kind == 11) {
    uint64_t to = Any(directories_);
    CHECK(fs.Rename(file.parent, file.name, to, name).has_value());
    file = {to, name, file.inode};
  } else if (kind == 12 && directories_.size() < 20) {
    auto made = fs.Mkdir(Any(directories_), name);
    CHECK(made.has_value());
    recorder_.inode = made->inode();
    directories_.push_back(made->inode());
  } else if (kind == 13) {
    CHECK(fs.Truncate(file.inode, random_() % 100000).has_value());
  } else if (kind == 14) {
    uint64_t parent = Any(directories_);
    CHECK(fs.Link(file.inode, parent, name).has_value());
    live_.push_back({parent, name, file.inode});
  } else {
    CHECK(fs.Unlink(file.parent, file.name).has_value());
    live_.erase(live_.begin() + static_cast<ptrdiff_t>(which));
  }
}

// The metaserver comes back, promises a little, and the power is cut at any step of that.
void Workload::SecondCut(const Image& first, std::unique_ptr<FakeFiles> files, State state, uint64_t txn) {
  Recorder recorder(random_(), 300, leave_out_);
  recorder.durable = first.durable;
  recorder.inode = first.inode;
  recorder.cluster = first.cluster;
  recorder.Listen(*files);
  files->sector = seed_ % 2 ? 512 : 4096;
  auto env = test::MakeFilesEnv(*files);
  {
    Harness harness;
    harness.options = OptionsIn(*files, env.get());
    if (Status started = harness.TryStart(); !started) return Note("does not start: " + started.error().message, first.step);
    harness.UseSession(harness.OpenSession("another client"));
    recorder.starting = false;
    Names names(harness);
    for (int i = 0; i < 3; ++i) {
      auto made = names.Create(kRoot, "after-" + std::to_string(i));
      if (!made) return Note("then nothing can be made: " + made.error().message, first.step);
      if (made->inode() <= first.inode) Note("an inode's number was given again", first.step);
      recorder.inode = made->inode();
      auto done = harness.Execute([](View&) { return Status(); }, CommitLevel::kDurable);
      CHECK(done.has_value());
      recorder.durable = harness.context().commit->durable().value;
    }
  }
  History history(std::move(state), txn);
  history.Add(recorder.Logs());
  for (const Image& image : recorder.TakeImages()) {
    ++outcome_.images;
    Note(CheckImage(image, history, scratch_, outcome_.images % 8 == 0), first.step);
  }
}

uint64_t Seed() {
  const char* given = std::getenv("SHOAL_SEED");
  uint64_t seed = given ? std::stoull(given) : std::random_device()();
  std::cout << "SHOAL_SEED=" << seed << std::endl;
  return seed;
}

void Report(const Outcome& outcome) {
  std::cout << outcome.images << " images of " << outcome.steps << " steps" << std::endl;
  EXPECT_EQ(outcome.first_violation, "");
  for (const std::string& rule : outcome.rules) EXPECT_FALSE(rule.starts_with("unknown")) << rule;
}

TEST(PowerCutTest, EveryStepOfAShortLife) {
  Workload run(Seed(), 1000);
  run.Start();
  run.Work(150);
  run.Stop();
  run.Check();
  Report(run.outcome());
}

TEST(PowerCutTest, ManyStepsOfALongLife) {
  Workload run(Seed(), 300);
  run.second_cut_in = 40;
  run.Start();
  for (int life = 0; life < 3; ++life) {
    run.Work(100);
    run.Kill();
  }
  run.Stop();
  run.Check();
  Report(run.outcome());
  EXPECT_GT(run.outcome().images, 100u);
}

// The test of the tests: without any one of these syncs they find something. The other rules of LevelDB's own files are found
// too, but it depends on its thread how late.
class SyncTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SyncTest, IsNeeded) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Workload run(seed, 500, GetParam());
    run.second_cut_in = 20;
    run.Start();
    for (int i = 0; i < 4 && !run.violated(); ++i) {
      run.Work(100);
      run.Kill();
    }
    if (!run.violated()) continue;
    std::cout << "seed " << seed << ": " << run.outcome().first_violation << std::endl;
    return;
  }
  FAIL() << "nothing was missed";
}

INSTANTIATE_TEST_SUITE_P(Rules, SyncTest,
                         ::testing::Values("data-directory", "log", "id-range", "log-cut"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace shoal::meta
