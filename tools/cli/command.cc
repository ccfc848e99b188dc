#include "tools/cli/command.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace shoal::cli {
namespace {

std::string SchemaOf(const std::string& verb) {
  std::string name = verb;
  std::ranges::replace(name, ' ', '_');
  std::ranges::replace(name, '-', '_');
  return "shoal." + name + "/1";
}

void PrintJson(const nlohmann::ordered_json& object) {
  fmt::print("{}\n", object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

Failure Failure::Of(const Error& error, std::string next) {
  return {kExitNo, std::string(ErrorName(error.code)), error.message.empty() ? std::string(ErrorName(error.code)) : error.message,
          std::move(next)};
}

Failure Failure::Usage(std::string message, std::string next) {
  return {kExitUsage, "INVALID_ARGUMENT", std::move(message), std::move(next)};
}

Failure Failure::Unreachable(const Error& error, std::string next) {
  Failure failure = Of(error, std::move(next));
  failure.exit = kExitUnreachable;
  return failure;
}

Command::Command(const std::string& verb, const std::string& summary, const std::string& environment)
    : verb_(verb), options_("shoal " + verb, summary, environment) {
  options_.CommandLineOnly(true);
  options_.Flag("json", &json_, "Print one JSON object, for programs");
}

std::optional<int> Command::Parse(const Arguments& arguments) {
  auto outcome = options_.Parse(arguments);
  if (outcome && outcome->run) return std::nullopt;
  if (outcome) return outcome->exit_code;
  json_ = json_ || std::ranges::find(arguments, "--json") != arguments.end();
  return Fail(Failure::Usage(outcome.error().message, "shoal " + verb_ + " --help"));
}

int Command::Answer(nlohmann::ordered_json object, const std::string& text, int exit) const {
  if (json_) {
    nlohmann::ordered_json answer{{"schema", SchemaOf(verb_)}};
    answer.update(object);
    PrintJson(answer);
  } else {
    fmt::print("{}{}", text, text.empty() || text.ends_with('\n') ? "" : "\n");
  }
  fflush(stdout);
  return exit;
}

int Command::Fail(const Failure& given) const {
  Failure failure = given;
  if (failure.next.empty()) failure.next = "shoal " + verb_ + " --help";
  if (json_) {
    PrintJson({{"schema", SchemaOf(verb_)},
               {"error", {{"code", failure.code}, {"message", failure.message}, {"next", failure.next}}}});
    fflush(stdout);
  } else {
    fmt::print(stderr, "shoal {}: {}\n", verb_, failure.message);
    if (!failure.next.empty()) fmt::print(stderr, "  next: {}\n", failure.next);
  }
  return failure.exit;
}

}  // namespace shoal::cli
