// corruption: thousands of damages of every kind in the replica files of a running cluster, while readers read. None may
// be served, each must be found and repaired where a good copy is; where none is, reads fail and fsck names the range.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/fault/damage.h"

namespace shoal::test {
namespace {

constexpr int kServers = 4;
constexpr int kCopies = 3;
constexpr int kReaders = 3;
constexpr int kAtOnce = 60;  // damages between two scrubs

// What the command line says. A plain value.
struct CorruptionOptions {
  int seconds = 3600;
  int count = 3000;
  int files = 300;
  uint64_t seed = 0;  // 0: a random one
} options;

void Say(const std::string& line) {
  printf("%s\n", line.c_str());
  fflush(stdout);
}

class Corruption : public testing::Test {
 protected:
  void SetUp() override;
  void StartReaders();
  std::string StopReaders();
  bool ReadersFailed() const {
    return std::ranges::any_of(readers_, [](const auto& reader) { return reader->failed(); });
  }
  void Round(int strikes);
  void AwaitWhole();
  void ReadAll();
  nlohmann::json Fsck() {
    return nlohmann::json::parse(cluster_->Shoal({"fsck", cluster_->mount(), "--json"}).out, nullptr, false);
  }

  std::mt19937_64 random_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<DataSet> data_;
  std::unique_ptr<Damage> damage_;
  std::vector<std::unique_ptr<DataReader>> readers_;
  std::map<std::string, int> tally_;
  std::vector<std::string> done_;  // in this round
  uint64_t reads_ = 0;
  int strikes_ = 0, found_ = 0;
};

void Corruption::SetUp() {
  if (options.seed == 0) options.seed = std::random_device()();
  random_.seed(options.seed);
  Say("corruption: --seconds " + std::to_string(options.seconds) + " --count " + std::to_string(options.count) +
      " --files " + std::to_string(options.files) + " --seed " + std::to_string(options.seed));
  ClusterOptions shape;
  shape.chunkservers = kServers;
  shape.replicas = kCopies;
  cluster_ = Cluster::Start(shape);
  ASSERT_NE(cluster_, nullptr);
  data_ = std::make_unique<DataSet>(*cluster_, options.files, options.seed + 1);
  damage_ = std::make_unique<Damage>(*cluster_, *data_, options.seed + 2);
  ASSERT_EQ(data_->Create(), "");
  ASSERT_EQ(data_->CheckReplicas(kCopies), "");
}

void Corruption::StartReaders() {
  for (int i = 0; i < kReaders; ++i) {
    readers_.push_back(std::make_unique<DataReader>(*data_, random_()));
    readers_.back()->Start();
  }
}

std::string Corruption::StopReaders() {
  std::string failed;
  for (auto& reader : readers_) {
    failed += reader->Stop();
    reads_ += reader->progress();
  }
  readers_.clear();
  return failed;
}

// Every replica file on every disk is right again, byte by byte.
void Corruption::AwaitWhole() {
  std::string wrong;
  bool whole = Eventually([&] { return (wrong = data_->CheckReplicas(kCopies)).empty() || ReadersFailed(); },
                          Milliseconds(120000) * kSlowness);
  EXPECT_TRUE(whole) << wrong;
  Outcome fsck;
  EXPECT_TRUE(Eventually([&] { return (fsck = cluster_->Shoal({"fsck"})).exit == 0; }, Milliseconds(60000)))
      << fsck.Text();
}

// Readers read all the time; half of the rounds find the servers with nothing open.
void Corruption::Round(int strikes) {
  done_.clear();
  damage_->Begin();
  ASSERT_EQ(damage_->KeepSome(strikes / 12), "");
  if (random_() % 2) {
    std::vector<std::string> servers = cluster_->Chunkservers();
    cluster_->Kill(servers[random_() % servers.size()]);
    cluster_->StartMissing();
  }
  StartReaders();
  for (int i = 0; i < strikes && !ReadersFailed(); ++i) {
    const std::string& kind = Damage::Kinds()[random_() % Damage::Kinds().size()];
    if (!damage_->Strike(kind).empty()) continue;
    ++tally_[kind];
    ++strikes_;
    done_.push_back(damage_->last());
  }
  Outcome scrub = cluster_->Shoal({"scrub", cluster_->mount(), "--json"}, Milliseconds(300000));
  nlohmann::json found = nlohmann::json::parse(scrub.out, nullptr, false);
  EXPECT_TRUE(scrub.exit == 0 || scrub.exit == 1) << scrub.Text();
  if (found.is_object()) found_ += found.value("problems", 0);
  AwaitWhole();
  EXPECT_EQ(StopReaders(), "");
  if (!HasFailure()) return;
  for (const std::string& line : done_) Say("  " + line);
}

void Corruption::ReadAll() {
  for (size_t i = 0; i < data_->size(); ++i) {
    if (!data_->file(i).lost) {
      EXPECT_EQ(data_->Check(i), "");
    }
  }
}

TEST_F(Corruption, IsFoundAndRepairedAndNeverServed) {
  auto end = Clock::now() + std::chrono::seconds(options.seconds);
  while (strikes_ < options.count && Clock::now() < end && !HasFailure()) {
    int before = strikes_;
    auto began = Clock::now();
    Round(std::min(kAtOnce, options.count - strikes_));
    Say(std::to_string(strikes_) + " damages, " + std::to_string(strikes_ - before) + " repaired in " +
        std::to_string(std::chrono::duration_cast<Milliseconds>(Clock::now() - began).count()) + " ms, " +
        std::to_string(reads_) + " reads");
  }
  ASSERT_FALSE(HasFailure());
  for (const std::string& kind : Damage::Kinds()) {
    Say(kind + ": " + std::to_string(tally_[kind]));
    EXPECT_TRUE(tally_[kind] > 0 || options.count < 100) << kind << " was never possible";
  }
  Say(std::to_string(found_) + " found by scrubs, the others by reads; " + std::to_string(reads_) + " reads, none wrong");
  EXPECT_GT(reads_, 0u);
  cluster_->Remount();
  ReadAll();
  Outcome scrub = cluster_->Shoal({"scrub"}, Milliseconds(300000));
  EXPECT_EQ(scrub.exit, 0) << scrub.Text();
  Outcome check = cluster_->Shoal({"meta", "check"});
  EXPECT_EQ(check.exit, 0) << check.Text();
}

// Damage in all copies of a block, or of a chunk.
TEST_F(Corruption, WhatIsGoodNowhereIsNamedAndNeverServed) {
  auto replicas = data_->Replicas();
  std::map<std::string, std::set<uint64_t>> lost;  // blocks, by path
  std::map<std::string, std::set<uint64_t>> whole;  // chunks
  for (const auto& [chunk, paths] : replicas) {
    auto [number, index] = data_->FileOf(chunk);
    DataFile& file = data_->file(number);
    if (file.lost || random_() % 12 != 0) continue;
    file.lost = true;
    std::vector<uint32_t> blocks = WrittenBlocks(paths[0]);
    bool all = random_() % 3 == 0;
    uint32_t block = blocks[random_() % blocks.size()];
    for (const std::string& path : paths) {
      if (all) {
        ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(random_() % TablePageOffset(kTablePages))), 0);
      } else {
        ASSERT_EQ(FlipRandomBit(path, kDataOffset + uint64_t{block} * kBlockSize, kBlockSize, random_), "");
      }
    }
    if (all) whole[file.path].insert(index);
    if (!all) lost[file.path].insert(index * kBlocksPerChunk + block);
  }
  ASSERT_FALSE(lost.empty() && whole.empty()) << "nothing was chosen; another seed";
  Say(std::to_string(lost.size()) + " files with a lost block, " + std::to_string(whole.size()) + " with a lost chunk");
  cluster_->Remount();
  Outcome scrub = cluster_->Shoal({"scrub", cluster_->mount(), "--wait", "0", "--json"}, Milliseconds(300000));
  EXPECT_EQ(scrub.exit, 1) << scrub.Text();
  nlohmann::json fsck;
  auto named = [&] {
    fsck = Fsck();
    return fsck.is_object() && fsck["files_by_state"]["lost"] == lost.size() + whole.size();
  };
  ASSERT_TRUE(Eventually(named, Milliseconds(60000))) << fsck.dump(2);
  for (size_t i = 0; i < data_->size(); ++i) {
    DataFile& file = data_->file(i);
    if (!file.lost) continue;
    std::set<uint64_t> named_blocks;
    for (const auto& entry : fsck["not_safe"]) {
      if (!file.path.ends_with("/" + std::string(entry["path"]).substr(std::string(entry["path"]).rfind('/') + 1))) continue;
      for (const auto& range : entry["ranges"]) {
        uint64_t from = range["offset_bytes"], length = range["length_bytes"];
        for (const auto& [b, page] : file.blocks) {
          if (b * kBlockSize >= from && b * kBlockSize < from + length) named_blocks.insert(b);
        }
      }
    }
    for (const auto& [b, page] : file.blocks) {
      bool is_lost = lost[file.path].contains(b) || whole[file.path].contains(b / kBlocksPerChunk);
      std::string bytes;
      int error = 0;
      ReadAt(file.path, b * kBlockSize, kBlockSize, &bytes, &error);
      EXPECT_EQ(named_blocks.contains(b), is_lost) << file.path << " block " << b << " " << fsck["not_safe"].dump();
      if (is_lost) {
        EXPECT_EQ(error, EIO) << file.path << " block " << b;
      } else {
        EXPECT_EQ(error, 0) << file.path << " block " << b;
        EXPECT_EQ(bytes, file.Expected(b * kBlockSize, kBlockSize)) << file.path << " block " << b;
      }
    }
    if (HasFailure()) return;
  }
  ReadAll();
  for (size_t i = 0; i < data_->size(); ++i) {
    if (!data_->file(i).lost) continue;
    ASSERT_EQ(unlink(data_->file(i).path.c_str()), 0);
  }
  AwaitWhole();
  Outcome again = cluster_->Shoal({"scrub"}, Milliseconds(300000));
  EXPECT_EQ(again.exit, 0) << again.Text();
}

}  // namespace
}  // namespace shoal::test

int main(int argc, char** argv) {
  using shoal::test::options;
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; i += 2) {
    std::string flag = argv[i];
    uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], nullptr, 10) : 0;
    if (value == 0 || (flag != "--seconds" && flag != "--count" && flag != "--files" && flag != "--seed")) {
      fprintf(stderr, "corruption [--seconds N] [--count DAMAGES] [--files N] [--seed N]\n");
      return 2;
    }
    if (flag == "--seed") {
      options.seed = value;
    } else {
      (flag == "--seconds" ? options.seconds : flag == "--count" ? options.count : options.files) =
          static_cast<int>(value);
    }
  }
  return RUN_ALL_TESTS();
}
