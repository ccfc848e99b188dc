// shoal scrub [PATH]: reads and compares all copies of the files under PATH, now.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "common/limits.h"
#include "tools/cli/report.h"
#include "tools/cli/walk.h"

namespace shoal::cli {
namespace {

constexpr Duration kPollRepairs = 500ms;

// One scrub. On the stack of the command.
class Scrub {
 public:
  Scrub(Command& command, Cluster& cluster, const Target& target, bool lines)
      : command_(command),
        cluster_(cluster),
        target_(target),
        lines_(command.json() && lines),
        progress_(!command.json()) {}

  Status Count() {
    auto counted = WalkFsck(cluster_, target_, [&](const pb::FsckResponse& part) {
      progress_.Show(fmt::format("{} to read ...", shoal::cli::Count(part.totals().chunks(), "chunk")));
    });
    if (!counted) return Fail(counted.error());
    total_ = counted->totals().chunks();
    started_ = std::chrono::steady_clock::now();
    return {};
  }

  Status Read() {
    pb::ScrubRequest request;
    *request.mutable_walk() = WalkOf(target_);
    do {
      auto part = cluster_.Run(cluster_.engine().Scrub(request));
      if (!part) return Fail(part.error());
      last_ = *part;
      for (const auto& finding : part->findings()) findings_.push_back(finding);
      request.mutable_walk()->set_run(part->run());
      request.mutable_walk()->set_page(++pages_);
      ShowProgress();
    } while (!last_.done());
    took_ = std::chrono::steady_clock::now() - started_;
    return {};
  }

  // Until all that was found is repaired.
  Status Wait(Duration patience) {
    auto until = std::chrono::steady_clock::now() + patience;
    while (Problems() > 0) {
      pb::ScrubRequest request;
      request.mutable_walk()->set_run(last_.run());
      request.mutable_walk()->set_page(pages_);
      request.set_repairs(true);
      auto answer = cluster_.Run(cluster_.engine().Scrub(request));
      if (!answer) return Fail(answer.error());
      // The first ones of what was found: beyond a bound nobody knows.
      for (int i = 0; i < answer->findings_size() && i < static_cast<int>(findings_.size()); ++i)
        findings_[i] = answer->findings(i);
      if (Repaired() == Problems() || std::chrono::steady_clock::now() >= until) break;
      progress_.Show(fmt::format("{} of {} repaired ...", Repaired(), Problems()));
      std::this_thread::sleep_for(kPollRepairs);
    }
    return {};
  }

  void End() {
    pb::ScrubRequest request;
    request.mutable_walk()->set_run(last_.run());
    request.mutable_walk()->set_end(true);
    (void)cluster_.Run(cluster_.engine().Scrub(request));  // else it is forgotten after a while
  }

  int Answer() {
    progress_.Clear();
    int exit = Problems() > 0 ? kExitNo : kExitDone;
    if (!lines_) return command_.Answer(Result(), Text(), exit);
    nlohmann::ordered_json object = Result();
    PrintLine("done", std::move(object));
    return exit;
  }

 private:
  static bool IsProblem(const pb::ScrubFinding& f) { return f.what() != "not_compared"; }
  size_t Problems() const { return std::ranges::count_if(findings_, IsProblem); }
  size_t Repaired() const {
    return std::ranges::count_if(findings_, [](const auto& f) { return IsProblem(f) && f.repaired(); });
  }
  double Seconds() const { return std::chrono::duration<double>(took_).count(); }
  uint64_t Rate() const {
    return Seconds() > 0 ? static_cast<uint64_t>(static_cast<double>(last_.bytes()) / Seconds()) : 0;
  }

  void ShowProgress() {
    took_ = std::chrono::steady_clock::now() - started_;
    double left = last_.chunks() ? Seconds() / static_cast<double>(last_.chunks()) *
                                       static_cast<double>(total_ > last_.chunks() ? total_ - last_.chunks() : 0)
                                 : 0;
    progress_.Show(fmt::format("{} of {}, {} read, {}/s, about {} left{}", last_.chunks(),
                               shoal::cli::Count(total_, "chunk"), FormatSize(last_.bytes()), FormatSize(Rate()),
                               FormatDuration(std::chrono::seconds(static_cast<int64_t>(left))),
                               Problems() ? fmt::format(", {} found", shoal::cli::Count(Problems(), "problem")) : ""));
    if (!lines_) return;
    for (; told_ < findings_.size(); ++told_) PrintLine("finding", FindingJson(findings_[told_]));
    PrintLine("progress", {{"chunks", last_.chunks()},
                           {"chunks_total", total_},
                           {"bytes", last_.bytes()},
                           {"bytes_per_second", Rate()},
                           {"left_seconds", static_cast<uint64_t>(left)},
                           {"problems", Problems()}});
  }

  static void PrintLine(const char* event, nlohmann::ordered_json object) {
    nlohmann::ordered_json line{{"schema", "shoal.scrub/1"}, {"event", event}};
    line.update(object);
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    fflush(stdout);
  }

  nlohmann::ordered_json FindingJson(const pb::ScrubFinding& f) const {
    nlohmann::ordered_json object;
    PutName(object, "path", Below(target_, f.path()));
    object.update({{"inode", f.inode()},
                   {"offset_bytes", f.index() * kChunkSize},
                   {"chunk", f.chunk()},
                   {"server", f.server()},
                   {"server_name", f.name()},
                   {"what", f.what()},
                   {"why", f.why()},
                   {"repaired", f.repaired()}});
    return object;
  }

  nlohmann::ordered_json Result() const {
    nlohmann::ordered_json found = nlohmann::ordered_json::array(), object;
    for (const auto& f : findings_) found.push_back(FindingJson(f));
    PutName(object, "path", target_.shown);
    object.update({{"clean", Problems() == 0},
                   {"files", last_.files()},
                   {"chunks", last_.chunks()},
                   {"replicas_good", last_.replicas()},
                   {"bytes", last_.bytes()},
                   {"took_seconds", Seconds()},
                   {"problems", Problems()},
                   {"repaired", Repaired()},
                   {"findings", std::move(found)}});
    return object;
  }

  std::string Text() const {
    std::string text = fmt::format(
        "{}: {}, {}, {} of them good, {} read in {} ({}/s)\n", Printable(target_.shown),
        shoal::cli::Count(last_.files(), "file"), shoal::cli::Count(last_.chunks(), "chunk"),
        last_.replicas() == 1 ? "1 copy" : fmt::format("{} copies", last_.replicas()), FormatSize(last_.bytes()),
        FormatDuration(std::chrono::milliseconds(static_cast<int64_t>(Seconds() * 1000))), FormatSize(Rate()));
    for (const auto& f : findings_) {
      text += fmt::format(
          "  {:<13}{} at {}{}: {}{}\n", f.what(), Printable(Below(target_, f.path())), f.index() * kChunkSize,
          f.server() ? " on " + (f.name().empty() ? fmt::format("server {}", f.server()) : f.name()) : "", f.why(),
          !IsProblem(f)  ? ""
          : f.repaired() ? " -- repaired"
                         : " -- NOT repaired yet");
    }
    if (Problems() == 0) return text + "Nothing is wrong.\n";
    text += fmt::format("{} found, {} repaired.\n", shoal::cli::Count(Problems(), "problem"), Repaired());
    if (Repaired() < Problems()) text += "  next: shoal fsck\n";
    return text;
  }

  Command& command_;
  Cluster& cluster_;
  const Target& target_;
  const bool lines_;  // one object a line, with progress
  ProgressLine progress_;
  uint64_t total_ = 0, pages_ = 0;
  SteadyTime started_{};
  Duration took_{};
  pb::ScrubResponse last_;
  std::vector<pb::ScrubFinding> findings_;
  size_t told_ = 0;
};

}  // namespace

int RunScrub(const Arguments& arguments) {
  Command command(
      "scrub",
      "Reads all copies of the files under PATH, compares them with their checksums and with each other, and "
      "has what is wrong repaired.");
  ClientSettings settings;
  std::string path;
  Duration wait = 60s;
  bool progress = false;
  settings.Declare(command.options());
  command.options().Argument("PATH", &path, "shoal:/a/b, or a local path under a mount [everything]", false);
  command.options().Time("wait", &wait, "How long to wait, at the end, for the repair of what was found");
  command.options().Flag("progress", &progress,
                         "With --json: one object a line, of progress, of each finding, and at the end");
  command.options().Epilogue(
      "Chunkservers do the same by themselves, slowly (--scrub-rate of shoal-chunkserver).\nExit status: 0 nothing is "
      "wrong, 1 "
      "something was (the answer says whether it is repaired).");
  if (auto exit = command.Parse(arguments)) return *exit;
  auto target = ResolveTree(path, command.options(), settings);
  if (!target) return command.Fail(target.error(), "give a path under a mount, or shoal:/path with --meta HOST:PORT");
  auto cluster = Cluster::Connect(settings, "scrub", false);
  if (!cluster) return command.Fail(cluster.error());
  Scrub scrub(command, **cluster, *target, progress);
  Status done = scrub.Count();
  if (done) done = scrub.Read();
  if (done) done = scrub.Wait(wait);
  if (!done)
    return command.Fail(Error{done.error().code, Printable(target->shown) + ": " + ToString(done.error())},
                        "shoal status");
  scrub.End();
  return scrub.Answer();
}

}  // namespace shoal::cli
