#include <gtest/gtest.h>

#include "common/daemon/config.h"

namespace shoal {
namespace {

TEST(Units, SizesCountInPowersOf1024) {
  EXPECT_EQ(*ParseSize("0"), 0u);
  EXPECT_EQ(*ParseSize("4096"), 4096u);
  EXPECT_EQ(*ParseSize("512KiB"), 512u << 10);
  EXPECT_EQ(*ParseSize("64 MiB"), 64u << 20);
  EXPECT_EQ(*ParseSize("1.5G"), 3ull << 29);
  EXPECT_EQ(*ParseSize("2tib"), 2ull << 40);
  for (const char* wrong : {"", "MiB", "-1", "12 parsecs", "1e400", "9999999TiB", "1.2.3", "0x10", "10 MiB/s", "nan", "inf"}) {
    EXPECT_FALSE(ParseSize(wrong)) << wrong;
  }
}

TEST(Units, RatesAndDurations) {
  EXPECT_EQ(*ParseRate("10MiB/s"), 10u << 20);
  EXPECT_EQ(*ParseRate("0"), 0u);
  EXPECT_EQ(*ParseDuration("250ms"), 250ms);
  EXPECT_EQ(*ParseDuration("10"), 10s);
  EXPECT_EQ(*ParseDuration("1.5m"), 90s);
  EXPECT_EQ(*ParseDuration("2h"), 7200s);
  EXPECT_EQ(*ParseDuration("1d"), 86400s);
  EXPECT_FALSE(ParseDuration("1M"));
  EXPECT_FALSE(ParseDuration("soon"));
}

TEST(Units, FormatsForPeople) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(1023), "1023 B");
  EXPECT_EQ(FormatSize(1536), "1.5 KiB");
  EXPECT_EQ(FormatSize((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(FormatDuration(250ms), "250ms");
  EXPECT_EQ(FormatDuration(90s), "1m30s");
  EXPECT_EQ(FormatDuration(3600s), "1h");
}

TEST(Units, NearestFindsTheTypoAndNothingElse) {
  std::vector<std::string> known{"capacity", "chunkservers", "replicas"};
  EXPECT_EQ(Nearest("capactiy", known), "capacity");
  EXPECT_EQ(Nearest("repl", known), "replicas");
  EXPECT_EQ(Nearest("zzzzzz", known), std::nullopt);
  EXPECT_EQ(Nearest("", known), std::nullopt);
}

}  // namespace
}  // namespace shoal
