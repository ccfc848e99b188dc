#include "common/daemon/config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iostream>
#include <map>
#include <set>

#include "common/daemon/ini.h"

namespace shoal {
namespace {

using Values = std::vector<std::string>;

Error Wrong(std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message)}; }

std::string VariableOf(const std::string& prefix, const std::string& name) {
  std::string variable = prefix;
  for (char c : name) variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return variable;
}

Result<bool> ParseBool(const std::string& text) {
  for (const char* yes : {"true", "yes", "on", "1"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"false", "no", "off", "0"}) {
    if (text == no) return false;
  }
  return Fail(Wrong(fmt::format("'{}' is neither true nor false", text)));
}

Values SplitCommas(const Values& values) {
  Values parts;
  for (const std::string& value : values) {
    for (size_t at = 0; at <= value.size();) {
      size_t end = std::min(value.find(',', at), value.size());
      std::string part = value.substr(at, end - at);
      part.erase(0, part.find_first_not_of(" \t"));
      part.erase(part.find_last_not_of(" \t") + 1);
      if (!part.empty()) parts.push_back(part);
      at = end + 1;
    }
  }
  return parts;
}

}  // namespace

struct Options::Impl {
  // One declared option.
  struct Entry {
    std::string name;     // long, or the name of an argument
    std::string letter;   // short form, or empty
    std::string help;
    std::string value;    // what stands for the value in help; empty: a flag
    std::string shown_default;
    std::function<Status(const Values&)> set;
    bool many = false;
    bool argument = false;
    bool required = false;
    bool command_line_only = false;
    CLI::Option* cli = nullptr;
    std::string source;
  };

  std::string program, summary, epilogue, prefix;
  std::vector<std::unique_ptr<Entry>> entries;
  std::set<std::string> also_in_file;
  bool command_line_only = false;
  bool has_config = false;
  std::string config_flag, default_config, config_read;
  bool help = false;

  Entry& Add(const std::string& names, const std::string& help_text) {
    auto entry = std::make_unique<Entry>();
    size_t comma = names.find(',');
    entry->name = comma == names.npos ? names : names.substr(comma + 1);
    if (comma != names.npos) entry->letter = names.substr(0, comma);
    entry->help = help_text;
    entry->command_line_only = command_line_only || prefix.empty();
    entries.push_back(std::move(entry));
    return *entries.back();
  }
  Entry* Find(const std::string& name) const {
    for (const auto& entry : entries) {
      if (!entry->argument && entry->name == name) return entry.get();
    }
    return nullptr;
  }
  std::vector<std::string> FlagNames() const {
    std::vector<std::string> names{"--help"};
    for (const auto& entry : entries) {
      if (!entry->argument) names.push_back("--" + entry->name);
    }
    return names;
  }

  Status Set(Entry& entry, const Values& values, const std::string& source) {
    Status status = entry.set(values);
    if (!status) return Fail(status.error().code, source + ": " + status.error().message);
    entry.source = source;
    return {};
  }
  void Declare(CLI::App& app, Values* arguments);
  Status ReadCommandLine(const Values& arguments);
  Status TakeArguments(Values arguments);
  Status ReadFile();
  Status ReadEnvironment();
};

void Options::Impl::Declare(CLI::App& app, Values* arguments) {
  app.set_help_flag();
  app.allow_extras();
  for (const auto& entry : entries) {
    if (entry->argument) continue;
    std::string names = "--" + entry->name + (entry->letter.empty() ? "" : ",-" + entry->letter);
    entry->cli = entry->value.empty() ? app.add_flag(names) : app.add_option(names);
    if (!entry->value.empty()) {
      entry->cli->expected(1);
      entry->cli->multi_option_policy(entry->many ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
      if (entry->many) entry->cli->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args(false);
    }
  }
  app.add_option("arguments", *arguments)->expected(0, CLI::detail::expected_max_vector_size);
}

Status Options::Impl::ReadCommandLine(const Values& arguments) {
  CLI::App app;
  Values positional;
  Declare(app, &positional);
  try {
    app.parse(Values(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& e) {
    return Fail(Wrong(e.what()));
  }
  for (const std::string& extra : app.remaining()) {
    if (extra == "--" || !extra.starts_with("-")) continue;
    std::string flag = extra.substr(0, extra.find('='));
    auto near = Nearest(flag, FlagNames());
    return Fail(Wrong(fmt::format("unknown flag {}{}", flag, near ? fmt::format(": did you mean {}?", *near) : "")));
  }
  for (const auto& entry : entries) {
    if (!entry->cli || entry->cli->count() == 0) continue;
    Values values = entry->cli->results();
    if (!entry->many && !values.empty()) values = {values.back()};
    TRY(Set(*entry, values, "--" + entry->name));
  }
  return help ? Status{} : TakeArguments(std::move(positional));
}

Status Options::Impl::TakeArguments(Values arguments) {
  size_t next = 0;
  for (const auto& entry : entries) {
    if (!entry->argument) continue;
    if (next == arguments.size()) {
      if (entry->required) return Fail(Wrong(fmt::format("{} is missing", entry->name)));
      continue;
    }
    Values values{arguments[next++]};
    while (entry->many && next < arguments.size()) values.push_back(arguments[next++]);
    TRY(Set(*entry, values, entry->name));
  }
  if (next < arguments.size()) return Fail(Wrong(fmt::format("'{}' is one argument too many", arguments[next])));
  return {};
}

Status Options::Impl::ReadEnvironment() {
  if (prefix.empty()) return {};
  for (const auto& entry : entries) {
    if (entry->argument || entry->command_line_only || !entry->source.empty()) continue;
    std::string variable = VariableOf(prefix, entry->name);
    const char* value = getenv(variable.c_str());
    if (value && *value) {
      TRY(Set(*entry, {value}, variable));
    }
  }
  return {};
}

Status Options::Impl::ReadFile() {
  if (!has_config) return {};
  const char* variable = getenv(VariableOf(prefix, "config").c_str());
  std::string path = config_flag, source = "--config: ";
  if (path.empty() && variable && !prefix.empty()) path = variable, source = VariableOf(prefix, "config") + ": ";
  if (path.empty()) {
    if (default_config.empty() || access(default_config.c_str(), F_OK) != 0) return {};
    path = default_config, source = "";
  }
  auto read = ReadIni(path);
  if (!read) {
    bool has_place = read.error().message.starts_with(path + ":");
    return Fail(read.error().code, (has_place ? "" : source) + read.error().message);
  }
  const std::vector<IniEntry>& lines = *read;
  config_read = path;
  std::map<std::string, std::pair<Values, int>> found;
  for (const IniEntry& line : lines) {
    Entry* entry = Find(line.key);
    if ((!entry || entry->command_line_only) && !also_in_file.contains(line.key)) {
      std::vector<std::string> known(also_in_file.begin(), also_in_file.end());
      for (const auto& e : entries) {
        if (!e->argument && !e->command_line_only) known.push_back(e->name);
      }
      auto near = Nearest(line.key, known);
      return Fail(Wrong(fmt::format("{}:{}: unknown key '{}'{}", path, line.line, line.key,
                                    near ? fmt::format(": did you mean '{}'?", *near) : "")));
    }
    auto [at, fresh] = found.try_emplace(line.key, Values{}, line.line);
    if (!fresh && !(entry && entry->many)) {
      return Fail(Wrong(fmt::format("{}:{}: '{}' was set in line {} already", path, line.line, line.key, at->second.second)));
    }
    at->second.first.push_back(line.value);
  }
  for (auto& [key, values] : found) {
    Entry* entry = Find(key);
    if (entry && entry->source.empty()) {
      TRY(Set(*entry, values.first, fmt::format("{}:{}", path, values.second)));
    }
  }
  return {};
}

Options::Options(std::string program, std::string summary, std::string environment) : impl_(std::make_unique<Impl>()) {
  impl_->program = std::move(program);
  impl_->summary = std::move(summary);
  impl_->prefix = std::move(environment);
}
Options::~Options() = default;

void Options::ConfigFile(std::string default_path) {
  impl_->has_config = true;
  impl_->default_config = std::move(default_path);
  bool before = std::exchange(impl_->command_line_only, true);
  Text("config", &impl_->config_flag,
       impl_->default_config.empty() ? "Read settings from this file" : "Read settings from this file (default: " + impl_->default_config + ")",
       "FILE");
  impl_->command_line_only = before;
}
void Options::Epilogue(std::string text) { impl_->epilogue = std::move(text); }
void Options::CommandLineOnly(bool only) { impl_->command_line_only = only; }
void Options::KnownInFile(const std::string& name) { impl_->also_in_file.insert(name); }

void Options::Flag(const std::string& name, bool* into, const std::string& help) {
  impl_->Add(name, help).set = [into](const Values& v) -> Status {
    TRY_ASSIGN(*into, ParseBool(v.empty() ? "true" : v.back()));
    return {};
  };
}

void Options::Text(const std::string& name, std::string* into, const std::string& help, const std::string& value) {
  auto& entry = impl_->Add(name, help);
  entry.value = value;
  entry.shown_default = *into;
  entry.set = [into](const Values& v) -> Status {
    *into = v.back();
    return {};
  };
}

void Options::List(const std::string& name, std::vector<std::string>* into, const std::string& help,
                   const std::string& value) {
  auto& entry = impl_->Add(name, help);
  entry.value = value;
  entry.shown_default = fmt::format("{}", fmt::join(*into, ","));
  entry.many = true;
  entry.set = [into](const Values& v) -> Status {
    *into = SplitCommas(v);
    return {};
  };
}

void Options::Number(const std::string& name, uint32_t* into, const std::string& help, uint32_t low, uint32_t high) {
  auto& entry = impl_->Add(name, help);
  entry.value = "N";
  entry.shown_default = fmt::format("{}", *into);
  entry.set = [into, low, high](const Values& v) -> Status {
    const std::string& text = v.back();
    uint32_t number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < low || number > high) {
      return Fail(Wrong(high == UINT32_MAX ? fmt::format("'{}' is not a number of at least {}", text, low)
                                           : fmt::format("'{}' is not a number from {} to {}", text, low, high)));
    }
    *into = number;
    return {};
  };
}

void Options::Size(const std::string& name, uint64_t* into, const std::string& help) {
  auto& entry = impl_->Add(name, help);
  entry.value = "SIZE";
  if (*into) entry.shown_default = FormatSize(*into);
  entry.set = [into](const Values& v) -> Status {
    TRY_ASSIGN(*into, ParseSize(v.back()));
    return {};
  };
}

void Options::Rate(const std::string& name, uint64_t* into, const std::string& help) {
  auto& entry = impl_->Add(name, help);
  entry.value = "SIZE/s";
  if (*into) entry.shown_default = FormatSize(*into) + "/s";
  entry.set = [into](const Values& v) -> Status {
    TRY_ASSIGN(*into, ParseRate(v.back()));
    return {};
  };
}

void Options::Time(const std::string& name, Duration* into, const std::string& help) {
  auto& entry = impl_->Add(name, help);
  entry.value = "TIME";
  entry.shown_default = FormatDuration(*into);
  entry.set = [into](const Values& v) -> Status {
    TRY_ASSIGN(*into, ParseDuration(v.back()));
    return {};
  };
}

void Options::Choice(const std::string& name, std::string* into, const std::vector<std::string>& choices,
                     const std::string& help) {
  auto& entry = impl_->Add(name, help + fmt::format(": {}", fmt::join(choices, ", ")));
  entry.value = "WORD";
  entry.shown_default = *into;
  entry.set = [into, choices](const Values& v) -> Status {
    if (std::ranges::find(choices, v.back()) == choices.end()) {
      return Fail(Wrong(fmt::format("'{}' is none of: {}", v.back(), fmt::join(choices, ", "))));
    }
    *into = v.back();
    return {};
  };
}

void Options::Argument(const std::string& name, std::string* into, const std::string& help, bool required) {
  Text(name, into, help, name);
  impl_->entries.back()->argument = true;
  impl_->entries.back()->required = required;
}

void Options::Arguments(const std::string& name, std::vector<std::string>* into, const std::string& help, bool required) {
  auto& entry = impl_->Add(name, help);
  entry.value = name;
  entry.many = true;
  entry.argument = true;
  entry.required = required;
  entry.set = [into](const Values& v) -> Status {
    *into = v;
    return {};
  };
}

Result<ParseOutcome> Options::Parse(const std::vector<std::string>& arguments) {
  if (!impl_->help && !impl_->Find("help")) {
    bool before = std::exchange(impl_->command_line_only, true);
    Flag("h,help", &impl_->help, "Show this");
    impl_->command_line_only = before;
  }
  TRY(impl_->ReadCommandLine(arguments));
  if (impl_->help) {
    std::cout << Help() << std::flush;
    return ParseOutcome{false, 0};
  }
  TRY(impl_->ReadEnvironment());
  TRY(impl_->ReadFile());
  return ParseOutcome{};
}

ParseOutcome Options::ParseOrExplain(int argc, char** argv) {
  auto outcome = Parse(std::vector<std::string>(argv + 1, argv + argc));
  if (outcome) return *outcome;
  fmt::print(stderr, "{}: {} (see {} --help)\n", impl_->program, outcome.error().message, impl_->program);
  return {false, 2};
}

std::string Options::SourceOf(const std::string& name) const {
  for (const auto& entry : impl_->entries) {
    if (entry->name == name) return entry->source;
  }
  return {};
}

const std::string& Options::config_path() const { return impl_->config_read; }

std::string Options::Help() const {
  std::string usage = impl_->program;
  std::vector<std::pair<std::string, std::string>> arguments, flags;
  for (const auto& e : impl_->entries) {
    std::string help = e->help;
    if (!e->shown_default.empty() && !e->argument) help += fmt::format(" [{}]", e->shown_default);
    if (e->argument) {
      std::string name = e->many ? e->name + "..." : e->name;
      usage += e->required ? " " + name : " [" + name + "]";
      arguments.emplace_back(name, help);
    } else {
      flags.emplace_back(fmt::format("{}--{}{}", e->letter.empty() ? "" : "-" + e->letter + ", ", e->name,
                                     e->value.empty() ? "" : " " + e->value),
                         help);
    }
  }
  std::string text = fmt::format("{}\n\nUsage: {} [options]\n", impl_->summary, usage);
  auto section = [&text](const char* title, const auto& rows) {
    if (rows.empty()) return;
    text += fmt::format("\n{}\n", title);
    for (const auto& [name, help] : rows) {
      text += name.size() > 24 ? fmt::format("  {}\n  {:26}{}\n", name, "", help) : fmt::format("  {:26}{}\n", name, help);
    }
  };
  section("Arguments:", arguments);
  section("Options:", flags);
  if (impl_->has_config) {
    text += fmt::format("\nA setting comes from its flag, else from the environment ({}...), else from the file, else is the\n"
                        "default in brackets. Keys of the file are the long names above: 'name = value' lines.\n",
                        impl_->prefix);
  }
  if (!impl_->epilogue.empty()) text += "\n" + impl_->epilogue + "\n";
  return text;
}

}  // namespace shoal
