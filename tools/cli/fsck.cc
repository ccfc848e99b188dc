// shoal fsck [PATH]: is every file safe?
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/cli/report.h"
#include "tools/cli/walk.h"

namespace shoal::cli {
namespace {

constexpr int kExitNotSafe = 4;  // nothing is lost, but copies are missing or misplaced

// How a state is called for people; several share a line.
const char* Words(int safety) {
  switch (safety) {
    case pb::SAFE:
      return "safe";
    case pb::ONE_RACK:
    case pb::SHORT_RACK:
      return "lost if one more rack fails";
    case pb::ONE_SERVER:
    case pb::SHORT_SERVER:
      return "lost if one more server fails";
    case pb::MISPLACED:
      return "misplaced";
    case pb::SHORT:
      return "short of copies";
    case pb::UNAVAILABLE:
      return "unavailable";
    case pb::LOST:
      return "lost";
  }
  return "of an unknown state";
}

// Files that are not safe, worst ones first; those beyond the limit are only counted. On the stack of the command.
class Findings {
 public:
  explicit Findings(size_t limit) : limit_(limit) {}
  void Add(const pb::FsckResponse& part) {
    for (const auto& file : part.files()) {
      auto& list = file.safety() >= pb::UNAVAILABLE ? gone_ : short_;
      if (limit_ == 0 || list.size() < limit_) list.push_back(file);
    }
  }
  template <typename F>
  void Each(F&& f) const {
    for (const auto* list : {&gone_, &short_}) {
      for (const auto& file : *list) f(file);
    }
  }
  size_t size() const { return gone_.size() + short_.size(); }

 private:
  size_t limit_;
  std::vector<pb::CheckedFile> gone_, short_;
};

uint64_t Files(const pb::CheckTotals& totals, int safety) {
  return safety < totals.files_by_safety_size() ? totals.files_by_safety(safety) : 0;
}

uint64_t NotSafe(const pb::CheckTotals& totals) {
  uint64_t n = 0;
  for (int s = pb::MISPLACED; s < totals.files_by_safety_size(); ++s) n += Files(totals, s);
  return n;
}

int ExitOf(const pb::CheckTotals& totals) {
  if (Files(totals, pb::LOST) + Files(totals, pb::UNAVAILABLE) > 0) return kExitNo;
  return NotSafe(totals) > 0 ? kExitNotSafe : kExitDone;
}

nlohmann::ordered_json ByState(const google::protobuf::RepeatedField<uint64_t>& counts) {
  nlohmann::ordered_json object;
  for (int s = 0; s < counts.size(); ++s) object[SafetyName(s)] = counts.Get(s);
  return object;
}

nlohmann::ordered_json FileJson(const Target& target, const pb::CheckedFile& file) {
  nlohmann::ordered_json ranges = nlohmann::ordered_json::array(), object;
  for (const auto& range : file.ranges()) {
    ranges.push_back(
        {{"offset_bytes", range.offset()}, {"length_bytes", range.length()}, {"state", SafetyName(range.safety())}});
  }
  PutName(object, "path", Below(target, file.path()));
  object.update({{"inode", file.inode()},
                 {"size_bytes", file.size()},
                 {"state", SafetyName(file.safety())},
                 {"ranges", std::move(ranges)},
                 {"ranges_left_out", file.ranges_left_out()}});
  return object;
}

nlohmann::ordered_json ToJson(const Target& target, const pb::FsckResponse& last, const Findings& findings) {
  const pb::CheckTotals& totals = last.totals();
  nlohmann::ordered_json files = nlohmann::ordered_json::array(), object;
  findings.Each([&](const pb::CheckedFile& file) { files.push_back(FileJson(target, file)); });
  PutName(object, "path", target.shown);
  object.update({{"safe", NotSafe(totals) == 0},
                 {"files", totals.files()},
                 {"directories", totals.directories()},
                 {"others", totals.others()},
                 {"file_bytes", totals.bytes()},
                 {"chunks", totals.chunks()},
                 {"files_by_state", ByState(totals.files_by_safety())},
                 {"chunks_by_state", ByState(totals.chunks_by_safety())},
                 {"not_safe", std::move(files)},
                 {"not_safe_left_out", NotSafe(totals) - findings.size()}});
  return object;
}

std::string RangesText(const pb::CheckedFile& file) {
  std::string text;
  for (const auto& range : file.ranges()) {
    if (file.safety() >= pb::UNAVAILABLE && range.safety() < pb::UNAVAILABLE) continue;
    text += fmt::format("{}{}-{}", text.empty() ? "" : ", ", range.offset(), range.offset() + range.length() - 1);
  }
  return file.ranges_left_out() ? text + ", ..." : text;
}

std::string ToText(const Target& target, const pb::FsckResponse& last, const Findings& findings) {
  const pb::CheckTotals& totals = last.totals();
  std::string text =
      fmt::format("{}: {}, {}, {} in {}\n", Printable(target.shown), Count(totals.files(), "file"),
                  totals.directories() == 1 ? "1 directory" : fmt::format("{} directories", totals.directories()),
                  FormatSize(totals.bytes()), Count(totals.chunks(), "chunk"));
  std::vector<std::pair<std::string, uint64_t>> lines;
  for (int s = 0; s < totals.files_by_safety_size(); ++s) {
    auto same = std::ranges::find(lines, Words(s), &std::pair<std::string, uint64_t>::first);
    if (same == lines.end()) {
      lines.emplace_back(Words(s), Files(totals, s));
    } else {
      same->second += Files(totals, s);
    }
  }
  for (const auto& [words, count] : lines) {
    if (count || words == "safe" || words == "lost") text += fmt::format("  {:<32}{:>10}\n", words, count);
  }
  if (NotSafe(totals) == 0) return text + "All are as safe as they are meant to be.\n";
  text += "\nNot safe:\n";
  findings.Each([&](const pb::CheckedFile& file) {
    text += fmt::format("  {:<30} {}  bytes {}\n", Words(file.safety()), Printable(Below(target, file.path())),
                        RangesText(file));
  });
  if (NotSafe(totals) > findings.size())
    text += fmt::format("  and {} more (--list)\n", NotSafe(totals) - findings.size());
  return text;
}

}  // namespace

int RunFsck(const Arguments& arguments) {
  Command command("fsck", "Says for every file under PATH whether it is safe: how many good copies it has, and where.");
  ClientSettings settings;
  std::string path;
  uint32_t limit = 1000;
  settings.Declare(command.options());
  command.options().Argument("PATH", &path, "shoal:/a/b, or a local path under a mount [everything]", false);
  command.options().Number("list", &limit,
                           "How many files that are lost, and that are otherwise not safe, are named; 0: all");
  command.options().Epilogue(
      "It goes by what is known of the copies; 'shoal scrub' reads them all.\nExit status: 0 all are safe, 1 some are "
      "lost or "
      "unavailable, 4 none is lost but some are short of copies or misplaced.");
  if (auto exit = command.Parse(arguments)) return *exit;
  auto target = ResolveTree(path, command.options(), settings);
  if (!target) return command.Fail(target.error(), "give a path under a mount, or shoal:/path with --meta HOST:PORT");
  auto cluster = Cluster::Connect(settings, "fsck", false);
  if (!cluster) return command.Fail(cluster.error());
  Findings findings(limit);
  ProgressLine progress(!command.json());
  bool all = !target->is_inode && target->path.empty();
  auto last = WalkFsck(**cluster, *target, [&](const pb::FsckResponse& part) {
    findings.Add(part);
    uint64_t seen = part.totals().files() + part.totals().directories() + part.totals().others();
    progress.Show(
        fmt::format("{} looked at{}", Count(seen, "inode"),
                    all ? fmt::format(" ({})", FormatPercent(std::min(seen, part.inodes()), part.inodes())) : ""));
  });
  progress.Clear();
  if (!last)
    return command.Fail(Error{last.error().code, Printable(target->shown) + ": " + ToString(last.error())},
                        "shoal status");
  return command.Answer(ToJson(*target, *last, findings), ToText(*target, *last, findings), ExitOf(last->totals()));
}

}  // namespace shoal::cli
