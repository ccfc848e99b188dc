// shoal meta unknown: replicas that are kept aside, because no record knows them.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/proto/admin.pb.h"
#include "tools/cli/meta/connection.h"
#include "tools/cli/report.h"

namespace shoal::cli {

int RunMetaUnknown(const Arguments& arguments) {
  Command command("meta unknown",
                  "Lists replicas that chunkservers have and the metadata does not know, or knows in another version.");
  ClientSettings settings;
  settings.Declare(command.options());
  command.options().Epilogue(
      "They are kept for the metaserver's keep-unknown, then dropped. After a restore they are of files that were "
      "made since the backup.");
  if (auto exit = command.Parse(arguments)) return *exit;
  auto metaserver = MetaConnection::Connect(settings, "meta unknown");
  if (!metaserver) return command.Fail(metaserver.error());
  nlohmann::ordered_json replicas = nlohmann::ordered_json::array();
  Table table({"server", ">chunk", ">version", ">instance", "since", "why"});
  pb::MetaUnknownRequest request;
  pb::MetaUnknownResponse page;
  do {
    auto answer = (*metaserver)->Call<pb::MetaUnknownResponse>(pb::META_UNKNOWN, request);
    if (!answer) return command.Fail(Failure::Unreachable(answer.error(), "shoal status"));
    page = std::move(*answer);
    for (const pb::UnknownReplica& replica : page.replicas()) {
      replicas.push_back({{"server", replica.server()},
                          {"name", replica.server_name()},
                          {"chunk", replica.chunk()},
                          {"instance", replica.instance()},
                          {"version", replica.version()},
                          {"why", replica.why()},
                          {"since", FormatTime(replica.since_ns())}});
      table.Row({replica.server_name(), fmt::format("{:x}", replica.chunk()), fmt::format("{}", replica.version()),
                 fmt::format("{:x}", replica.instance()), FormatTime(replica.since_ns()), replica.why()});
    }
    request.set_after(page.next());
  } while (!page.next().empty());
  std::string text;
  if (page.restored_incarnation()) {
    text += fmt::format("The metadata was restored at {} (incarnation {}).\n", FormatTime(page.restored_ns()),
                        page.restored_incarnation());
  }
  if (page.waiting_for_size() > 0)
    text += fmt::format("Nothing is served yet: waiting for {}.\n", fmt::join(page.waiting_for(), ", "));
  if (table.empty()) {
    text += "No replica is kept aside.\n";
  } else {
    std::string keep = page.keep_seconds() ? FormatDuration(std::chrono::seconds(page.keep_seconds())) : "ever";
    text += table.Text() + fmt::format("{} kept for {}, then dropped.\n", Count(replicas.size(), "replica"), keep);
  }
  return command.Answer(
      {{"keep_seconds", page.keep_seconds()},
       {"restored_incarnation", page.restored_incarnation()},
       {"waiting_for", std::vector<std::string>(page.waiting_for().begin(), page.waiting_for().end())},
       {"replicas", std::move(replicas)}},
      text);
}

}  // namespace shoal::cli
