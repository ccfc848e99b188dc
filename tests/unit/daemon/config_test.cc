#include "common/daemon/config.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

#include "common/daemon/ini.h"

namespace shoal {
namespace {

// A program with one option of each kind, as the tests below use it. One test's; one thread.
class OptionsTest : public testing::Test {
 protected:
  OptionsTest() {
    char name[] = "/tmp/shoal-config-XXXXXX";
    int fd = mkstemp(name);
    close(fd);
    file_ = name;
    for (const char* variable : {"T_CONFIG", "T_META", "T_COPIES"}) unsetenv(variable);
  }
  ~OptionsTest() override { unlink(file_.c_str()); }

  Result<ParseOutcome> Parse(std::vector<std::string> arguments) {
    options_ = std::make_unique<Options>("prog", "A program.", "T_");
    options_->ConfigFile("");
    options_->Text("meta", &meta, "Where", "HOST");
    options_->Number("copies", &copies, "How many", 1, 9);
    options_->Size("capacity", &capacity, "How large");
    options_->Time("grace", &grace, "How long");
    options_->Flag("f,foreground", &foreground, "Stay");
    options_->List("data", &data, "Directories", "DIR");
    options_->Choice("level", &level, {"info", "debug"}, "Level");
    options_->CommandLineOnly(true);
    options_->Text("pid", &pid, "Not in files");
    options_->KnownInFile("elsewhere");
    options_->Argument("PATH", &path, "What", false);
    return options_->Parse(arguments);
  }
  std::string ErrorOf(std::vector<std::string> arguments) {
    auto outcome = Parse(std::move(arguments));
    return outcome ? "no error" : outcome.error().message;
  }
  void Write(const std::string& text) { std::ofstream(file_) << text; }

  std::string file_, meta = "default", level = "info", pid, path;
  uint32_t copies = 3;
  uint64_t capacity = 0;
  Duration grace = 10s;
  bool foreground = false;
  std::vector<std::string> data;
  std::unique_ptr<Options> options_;
};

TEST_F(OptionsTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  ASSERT_TRUE(Parse({}));
  EXPECT_EQ(meta, "default");
  EXPECT_FALSE(options_->Given("meta"));
  Write("# a comment\n\nmeta = from-file\ncopies=5\n");
  ASSERT_TRUE(Parse({"--config", file_}));
  EXPECT_EQ(meta, "from-file");
  EXPECT_EQ(copies, 5u);
  EXPECT_EQ(options_->SourceOf("meta"), file_ + ":3");
  setenv("T_META", "from-environment", 1);
  ASSERT_TRUE(Parse({"--config", file_}));
  EXPECT_EQ(meta, "from-environment");
  ASSERT_TRUE(Parse({"--config", file_, "--meta=from-flag"}));
  EXPECT_EQ(meta, "from-flag");
  EXPECT_EQ(options_->SourceOf("meta"), "--meta");
}

TEST_F(OptionsTest, TheFileIsFoundByItsVariable) {
  Write("copies = 7\n");
  setenv("T_CONFIG", file_.c_str(), 1);
  ASSERT_TRUE(Parse({}));
  EXPECT_EQ(copies, 7u);
  EXPECT_EQ(options_->config_path(), file_);
}

TEST_F(OptionsTest, EveryKindOfValue) {
  Write("data = /a\ndata = /b, /c\nforeground = yes\ncapacity = 1.5GiB\ngrace = 5m\nmeta = \"quoted # \\\"x\\\" \"\nelsewhere = 1\n");
  ASSERT_TRUE(Parse({"--config", file_, "some/path"}));
  EXPECT_EQ(data, (std::vector<std::string>{"/a", "/b", "/c"}));
  EXPECT_TRUE(foreground);
  EXPECT_EQ(capacity, 3ull << 29);
  EXPECT_EQ(grace, 5min);
  EXPECT_EQ(meta, "quoted # \"x\" ");
  EXPECT_EQ(path, "some/path");
  data.clear();
  ASSERT_TRUE(Parse({"--data", "/x", "-f", "--data=/y", "p"}));
  EXPECT_EQ(data, (std::vector<std::string>{"/x", "/y"}));
  EXPECT_EQ(path, "p");
}

TEST_F(OptionsTest, UnknownFlagsNameTheNearest) {
  EXPECT_EQ(ErrorOf({"--capasity", "1"}), "unknown flag --capasity: did you mean --capacity?");
  EXPECT_EQ(ErrorOf({"--qqqqqqq=1"}), "unknown flag --qqqqqqq");
  EXPECT_NE(ErrorOf({"--meta"}).find("--meta"), std::string::npos);
  EXPECT_EQ(ErrorOf({"a", "b"}), "'b' is one argument too many");
}

TEST_F(OptionsTest, WrongValuesNameTheirSource) {
  EXPECT_EQ(ErrorOf({"--copies", "10"}), "--copies: '10' is not a number from 1 to 9");
  EXPECT_EQ(ErrorOf({"--level", "loud"}), "--level: 'loud' is none of: info, debug");
  Write("meta = x\ncapacity = much\n");
  EXPECT_EQ(ErrorOf({"--config", file_}).find(file_ + ":2: 'much' is not a size"), 0u);
  setenv("T_COPIES", "none", 1);
  EXPECT_EQ(ErrorOf({}).find("T_COPIES: 'none'"), 0u);
}

TEST_F(OptionsTest, BadFilesAreErrorsWithTheirLine) {
  Write("meta = x\ncapasity = 3\n");
  EXPECT_EQ(ErrorOf({"--config", file_}), file_ + ":2: unknown key 'capasity': did you mean 'capacity'?");
  Write("meta = x\nwhat is this\n");
  EXPECT_EQ(ErrorOf({"--config", file_}), file_ + ":2: 'what is this' is not of the form 'key = value'");
  Write("[section]\n");
  EXPECT_EQ(ErrorOf({"--config", file_}).find(file_ + ":1: sections"), 0u);
  Write("meta = x\nmeta = y\n");
  EXPECT_EQ(ErrorOf({"--config", file_}), file_ + ":2: 'meta' was set in line 1 already");
  Write("pid = 3\n");  // stands on the command line only
  EXPECT_EQ(ErrorOf({"--config", file_}).find(file_ + ":1: unknown key 'pid'"), 0u);
  Write(std::string("meta = x\0y\n", 11));
  EXPECT_NE(ErrorOf({"--config", file_}).find("binary"), std::string::npos);
  Write("meta = \"no end\n");
  EXPECT_EQ(ErrorOf({"--config", file_}).find(file_ + ":1: the quoted value"), 0u);
  EXPECT_NE(ErrorOf({"--config", "/nonexistent/x.conf"}).find("/nonexistent/x.conf"), std::string::npos);
  EXPECT_NE(ErrorOf({"--config", "/tmp"}).find("/tmp"), std::string::npos);
}

TEST_F(OptionsTest, HelpShowsEveryOptionAndEndsTheProgram) {
  testing::internal::CaptureStdout();
  auto outcome = Parse({"--help"});
  std::string help = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome->run);
  EXPECT_EQ(outcome->exit_code, 0);
  for (const char* shown : {"--config FILE", "--capacity SIZE", "-f, --foreground", "[default]", "PATH"}) {
    EXPECT_NE(help.find(shown), std::string::npos) << shown;
  }
}

TEST_F(OptionsTest, RequiredArgumentsAreRequired) {
  std::vector<std::string> rest;
  std::string first;
  Options options("p", "s");
  options.Argument("FIRST", &first, "", true);
  options.Arguments("REST", &rest, "", false);
  auto missing = options.Parse({});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message, "FIRST is missing");
  ASSERT_TRUE(options.Parse({"a", "b", "c"}));
  EXPECT_EQ(first, "a");
  EXPECT_EQ(rest, (std::vector<std::string>{"b", "c"}));
}

}  // namespace
}  // namespace shoal
