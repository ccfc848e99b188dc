// The main of a fuzz target without libFuzzer: replays the seeds and the given files and directories, then runs a fixed
// number of mutations of them. The same arguments always run the same inputs.
//
//   fuzz_TARGET [--runs N] [--seed N] [--write-seeds DIR] [DIRECTORY]...
//   fuzz_TARGET FILE...          only these
//
// The input that ends the process, or takes more than a minute, is left in ./crash-TARGET.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "common/result.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxInput = 64 << 10;  // bytes
constexpr unsigned kMaxSeconds = 60;    // for one input

std::string g_input;  // the one that runs
std::string g_crash_path;

void KeepInput(int signal_number) {
  int fd = open(g_crash_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool kept = fd >= 0 && write(fd, g_input.data(), g_input.size()) == static_cast<ssize_t>(g_input.size());
  const char* text = kept ? "\nthe input is in " : "\nthe input could not be written to ";
  (void)!write(2, text, strlen(text));
  (void)!write(2, g_crash_path.data(), g_crash_path.size());
  (void)!write(2, "\n", 1);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

void Run(std::string input) {
  g_input = std::move(input);
  alarm(kMaxSeconds);
  // A copy without spare bytes behind it, so that AddressSanitizer sees a read past the end.
  std::vector<uint8_t> bytes(g_input.begin(), g_input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.is_open());
  return {std::istreambuf_iterator<char>(in), {}};
}

// Changes inputs blindly, with parts of other inputs. Uses nothing that differs between libraries.
class Mutator {
 public:
  Mutator(uint64_t seed, const std::vector<std::string>& corpus) : random_(seed), corpus_(corpus) {}

  std::string Next() {
    std::string input = Any();
    for (size_t i = Below(5) + 1; i > 0; --i) Change(input);
    if (input.size() > kMaxInput) input.resize(kMaxInput);
    return input;
  }

 private:
  size_t Below(size_t limit) { return limit ? random_() % limit : 0; }
  const std::string& Any() { return corpus_[Below(corpus_.size())]; }
  // Short ones mostly.
  std::string Random() {
    std::string bytes(Below(Below(8) ? 8 : 64) + 1, '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    return bytes;
  }
  std::string Number() {
    static constexpr uint64_t kEdges[] = {0,
                                          1,
                                          2,
                                          0x7f,
                                          0x80,
                                          0xff,
                                          0xfff,
                                          0x1000,
                                          0x1001,
                                          0x7fff,
                                          0x8000,
                                          0xffff,
                                          0x10000,
                                          0x3ffffff,
                                          0x4000000,
                                          0x7fffffff,
                                          0x80000000,
                                          0xffffffff,
                                          0x100000000,
                                          0x7fffffffffffffff,
                                          0x8000000000000000,
                                          0xffffffffffffffff};
    uint64_t value = kEdges[Below(std::size(kEdges))] + Below(3) - 1;
    return shoal::fuzz::Raw(value).substr(0, size_t{1} << Below(4));
  }
  std::string Part(const std::string& of) {
    size_t from = Below(of.size());
    return of.substr(from, Below(Below(4) ? 32 : of.size()) + 1);
  }
  void Change(std::string& input) {
    size_t at = Below(input.size() + 1);
    size_t kind = Below(9);
    if (kind < 2 && at < input.size()) {
      input[at] = static_cast<char>(kind == 0 ? input[at] ^ 1 << Below(8) : random_());
    } else if (kind == 2) {
      input.erase(at, Below(Below(4) ? 8 : input.size()) + 1);
    } else {
      std::string piece = kind < 5 ? Random() : kind == 5 ? Number() : kind == 6 ? Part(input) : Part(Any());
      if (Below(2)) {
        input.insert(at, piece);
      } else {
        input.replace(at, std::min(piece.size(), input.size() - at), piece);
      }
    }
  }

  std::mt19937_64 random_;
  const std::vector<std::string>& corpus_;
};

void WriteSeeds(const std::string& directory) {
  fs::create_directories(directory);
  size_t number = 0;
  for (const std::string& seed : shoal::fuzz::Seeds()) {
    std::ofstream(fs::path(directory) / ("seed-" + std::to_string(number++)), std::ios::binary) << seed;
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t runs = 0, seed = 1;
  bool seeds = true;
  std::vector<fs::path> paths;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    bool option = argument == "--runs" || argument == "--seed" || argument == "--write-seeds";
    if (option && ++i == argc) return fprintf(stderr, "%s wants a value\n", argument.c_str()), 2;
    if (argument == "--write-seeds") return WriteSeeds(argv[i]), 0;
    if (argument == "--runs") {
      runs = strtoull(argv[i], nullptr, 10);
    } else if (argument == "--seed") {
      seed = strtoull(argv[i], nullptr, 10);
    } else if (fs::is_directory(argument)) {
      for (const auto& file : fs::directory_iterator(argument)) paths.push_back(file.path());
    } else {
      paths.push_back(argument);
      seeds = false;
    }
  }
  std::ranges::sort(paths);
  std::string name = fs::path(argv[0]).filename();
  g_crash_path = "crash-" + name;
  LLVMFuzzerInitialize(&argc, &argv);
  for (int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) signal(number, KeepInput);

  std::vector<std::string> corpus;
  if (seeds) corpus = shoal::fuzz::Seeds();
  for (const fs::path& path : paths) corpus.push_back(ReadFile(path));
  if (corpus.empty()) corpus.emplace_back();
  for (const std::string& input : corpus) Run(input);
  Mutator mutator(seed, corpus);
  for (uint64_t i = 0; i < runs; ++i) Run(mutator.Next());
  alarm(0);
  printf("%s: %zu inputs of the corpus and %llu mutations ran\n", name.c_str(), corpus.size(),
         static_cast<unsigned long long>(runs));
  return 0;
}
