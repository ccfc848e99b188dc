// What `cmake --install` puts in place: programs, mount helper, and a library that another project finds and uses.
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/cluster/cluster.h"

namespace shoal::test {
namespace {

TEST(Install, APackageThatOthersBuildWith) {
  auto cluster = Cluster::Start({.mount = false});
  ASSERT_NE(cluster, nullptr);
  TestDirectory place;
  std::string root = place.path() + "/root", build = place.path() + "/build";
  Outcome installed = Shell("DESTDIR=" + root + " cmake --install " + SHOAL_TEST_BUILD + " --prefix /usr");
  ASSERT_EQ(installed.exit, 0) << installed.Text();
  for (const char* file : {"/usr/bin/shoal", "/usr/bin/shoal-metaserver", "/usr/bin/shoal-chunkserver",
                           "/sbin/mount.fuse.shoal", "/usr/include/shoal/file_system.h"}) {
    EXPECT_EQ(access((root + file).c_str(), R_OK), 0) << file;
  }
  Outcome version = RunProgram({root + "/usr/bin/shoal", "version", "--json"});
  EXPECT_EQ(version.exit, 0) << version.Text();

  std::string source = SHOAL_SOURCE;
  Outcome built = Shell("cmake -S " + source + "/tests/cluster/install -B " + build + " -DCMAKE_PREFIX_PATH=" + root +
                        "/usr -DHELLO=" + source + "/client/examples/hello.cc && cmake --build " + build);
  ASSERT_EQ(built.exit, 0) << built.Text();
  Outcome hello = RunProgram({build + "/hello", cluster->config()});
  EXPECT_EQ(hello.exit, 0) << hello.Text();
  EXPECT_EQ(hello.out, "hello from libshoal\n");
}

}  // namespace
}  // namespace shoal::test
