// storm: several writers, readers, renamers, fsyncers and appenders at work, over a mount and over the API, while
// servers are killed, frozen, stopped, cut off and filled and bits flip on their disks. No operation may fail,
// everything read must be what was acknowledged last, and in the end all of it must be there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "tests/fault/actors.h"
#include "tests/fault/faults.h"

namespace shoal::test {
namespace {

constexpr size_t kReaderFile = 80 << 20;
constexpr int kServers = 5;
constexpr int kAttempts = 20;  // to hit work in flight with one kind of fault

// What the command line says. A plain value.
struct StormOptions {
  int seconds = 90;
  uint64_t seed = 0;  // 0: a random one
  std::vector<std::string> faults = Faults::Kinds();
} options;

// What one kind of fault has done. A plain value.
struct Tally {
  int attempts = 0, strikes = 0, hits = 0;
};

void Say(const std::string& line) {
  printf("%s\n", line.c_str());
  fflush(stdout);
}

class Storm : public testing::Test {
 protected:
  void SetUp() override;
  void MakeActors();
  void StrikeOnce(const std::string& kind);
  void Rage();
  void Calm();
  bool AnyFailed() const {
    return reader_->failed() || std::ranges::any_of(actors_, [](const auto& actor) { return actor->failed(); });
  }

  std::mt19937_64 random_;
  std::unique_ptr<SmallDisk> small_disk_;  // goes after the cluster
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::unique_ptr<Actor>> actors_;
  std::unique_ptr<Reader> reader_;
  std::unique_ptr<Faults> faults_;
  std::map<std::string, Tally> tally_;
};

void Storm::SetUp() {
  if (options.seed == 0) options.seed = std::random_device()();
  random_.seed(options.seed);
  Say("storm: --seconds " + std::to_string(options.seconds) + " --seed " + std::to_string(options.seed));
  ClusterOptions shape;
  shape.chunkservers = kServers;
  shape.prepare = [&](const std::string& dir) {
    small_disk_ = std::make_unique<SmallDisk>(dir + "/chunkserver-1", "400m");
  };
  cluster_ = Cluster::Start(shape);
  ASSERT_NE(cluster_, nullptr);
  if (!small_disk_->mounted()) {
    Say("no small disk could be mounted (not root?): nothing is filled");
    std::erase(options.faults, "fill-chunkserver");
  }
  faults_ = std::make_unique<Faults>(*cluster_, options.seed + 1);
  MakeActors();
}

void Storm::MakeActors() {
  const Cluster& c = *cluster_;
  uint64_t seed = options.seed * 100;
  for (int i = 1; i <= 2; ++i) {
    std::string number = std::to_string(i);
    actors_.push_back(std::make_unique<FileActor>(c, "mount-file-" + number, ++seed, MountFile));
    actors_.push_back(std::make_unique<FileActor>(c, "api-file-" + number, ++seed, ApiFile));
    actors_.push_back(std::make_unique<NamesActor>(c, "names-" + number, ++seed));
  }
  actors_.push_back(std::make_unique<AppendActor>(c, "mount-append", ++seed, MountFile));
  actors_.push_back(std::make_unique<AppendActor>(c, "api-append", ++seed, ApiFile));
  reader_ = std::make_unique<Reader>(c.Path("read"), kReaderFile);
}

void Storm::StrikeOnce(const std::string& kind) {
  Tally& tally = tally_[kind];
  ++tally.attempts;
  std::string failed = faults_->Strike(kind);
  if (!failed.empty()) return Say(kind + ": not possible: " + failed);
  ++tally.strikes;
  bool hit = std::ranges::any_of(actors_, [](const auto& actor) { return actor->call() != 0; });
  tally.hits += hit ? 1 : 0;
  Say(kind + " " + faults_->victim() + (hit ? "" : " (nothing was under way)"));
  auto until = Clock::now() + faults_->Duration(kind);
  while (Clock::now() < until && !AnyFailed()) std::this_thread::sleep_for(Milliseconds(50));
  faults_->Heal();
}

// Every kind in turn in an order of chance, again and again.
void Storm::Rage() {
  auto end = Clock::now() + std::chrono::seconds(options.seconds);
  std::vector<std::string> next;
  while (!AnyFailed() && !HasFailure()) {
    if (next.empty()) {
      if (Clock::now() >= end) break;
      next = options.faults;
      std::ranges::shuffle(next, random_);
    }
    StrikeOnce(next.back());
    // What did not hit anything is tried again, within reason.
    const Tally& tally = tally_[next.back()];
    bool again = tally.hits == 0 && tally.attempts < kAttempts;
    if (!again) next.pop_back();
    std::this_thread::sleep_for(Milliseconds(200 + random_() % 1500));
    if (Clock::now() >= end)
      std::erase_if(
          next, [&](const std::string& kind) { return tally_[kind].hits > 0 || tally_[kind].attempts >= kAttempts; });
  }
}

void Storm::Calm() {
  for (const auto& actor : actors_) {
    EXPECT_EQ(actor->Stop(), "");
    Say(actor->name() + ": " + std::to_string(actor->calls()) + " calls, the longest took " +
        std::to_string(actor->worst().count()) + " ms");
  }
  EXPECT_EQ(reader_->Stop(), "");
  for (const std::string& kind : options.faults) {
    Say(kind + ": " + std::to_string(tally_[kind].strikes) + " times, " + std::to_string(tally_[kind].hits) +
        " with calls under way");
    // Not every kernel can cut connections (and only for root).
    if (HasFailure() || (kind.starts_with("cut") && tally_[kind].strikes == 0)) continue;
    EXPECT_GT(tally_[kind].hits, 0) << kind << " never hit work in flight";
  }
}

TEST_F(Storm, NothingAcknowledgedIsLost) {
  for (const auto& actor : actors_) actor->Start();
  reader_->Start();
  Rage();
  Calm();
  cluster_->StartMissing();
  for (const auto& actor : actors_) {
    if (actor->failed()) continue;
    EXPECT_EQ(actor->Close(), "");
  }
  cluster_->Remount();
  for (const auto& actor : actors_) {
    if (actor->failed()) continue;
    EXPECT_EQ(actor->Verify(), "");
  }
  std::string short_of;
  EXPECT_TRUE(Eventually([&] { return (short_of = cluster_->Shortage()).empty(); }, Milliseconds(120000))) << short_of;
  // Flipped bits that nobody has read yet.
  Say(cluster_->Shoal({"scrub"}, Milliseconds(300000)).Text());
  EXPECT_TRUE(Eventually([&] { return cluster_->Shoal({"fsck"}).exit == 0; }, Milliseconds(120000)))
      << cluster_->Shoal({"fsck"}).Text();
  Outcome check = cluster_->Shoal({"meta", "check"});
  EXPECT_EQ(check.exit, 0) << check.Text();
}

}  // namespace
}  // namespace shoal::test

int main(int argc, char** argv) {
  using shoal::test::options;
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i];
    std::string value = i + 1 < argc ? argv[++i] : "";
    if (flag == "--seconds" && atoi(value.c_str()) > 0) {
      options.seconds = atoi(value.c_str());
    } else if (flag == "--seed" && !value.empty()) {
      options.seed = strtoull(value.c_str(), nullptr, 10);
    } else if (flag == "--faults" && !value.empty()) {
      options.faults.clear();
      for (size_t at = 0; at < value.size();) {
        size_t comma = std::min(value.find(',', at), value.size());
        options.faults.push_back(value.substr(at, comma - at));
        at = comma + 1;
      }
    } else {
      fprintf(stderr, "storm [--seconds N] [--seed N] [--faults KIND,KIND...]\nkinds:");
      for (const std::string& kind : shoal::test::Faults::Kinds()) fprintf(stderr, " %s", kind.c_str());
      fprintf(stderr, "\n");
      return 2;
    }
  }
  for (const std::string& kind : options.faults) {
    const auto& known = shoal::test::Faults::Kinds();
    if (std::ranges::find(known, kind) == known.end())
      return fprintf(stderr, "storm: no such fault: %s\n", kind.c_str()), 2;
  }
  return RUN_ALL_TESTS();
}
