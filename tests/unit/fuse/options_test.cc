// The grammar of mount sources and mount options.
#include <gtest/gtest.h>

#include <cstdlib>

#include "fuse/mount_options.h"
#include "fuse/session.h"

namespace shoal::fuse {
namespace {

TEST(MountSource, HostsPortsAndSubdirectory) {
  auto source = ParseMountSource("alpha,beta:7700:/data/x/");
  ASSERT_TRUE(source) << source.error().message;
  ASSERT_EQ(source->meta.size(), 2u);
  EXPECT_EQ(source->meta[0].host, "alpha");
  EXPECT_EQ(source->meta[0].port, kMetaPort);
  EXPECT_EQ(source->meta[1].host, "beta");
  EXPECT_EQ(source->meta[1].port, 7700);
  EXPECT_EQ(source->subdir, "/data/x");
}

TEST(MountSource, WithoutHosts) {
  for (const char* text : {"", "none", ":/", "/", "shoal:/"}) {
    auto source = ParseMountSource(text);
    ASSERT_TRUE(source) << text;
    EXPECT_TRUE(source->meta.empty()) << text;
    EXPECT_EQ(source->subdir, "") << text;
  }
  EXPECT_EQ(ParseMountSource(":/a/b")->subdir, "/a/b");
  EXPECT_EQ(ParseMountSource("shoal:/a/b")->subdir, "/a/b");
}

TEST(MountSource, Ipv6) {
  auto source = ParseMountSource("[::1]:7601:/s");
  ASSERT_TRUE(source) << source.error().message;
  ASSERT_EQ(source->meta.size(), 1u);
  EXPECT_EQ(source->meta[0].port, 7601);
  EXPECT_EQ(source->subdir, "/s");
}

TEST(MountSource, Broken) {
  for (const char* text : {"host:port", "a,,b", "host/dir", "host:99999"}) {
    auto source = ParseMountSource(text);
    ASSERT_FALSE(source) << text;
    EXPECT_EQ(source.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(source.error().message.find("HOST[:PORT]"), std::string::npos) << source.error().message;
  }
}

TEST(MountWords, AllOfThem) {
  MountOptions options;
  Status status = ParseMountOptions(
      "ro,allow_other,noatime,suid,dev,noexec,sync,timeout=5m,attr_timeout=0.5,entry_timeout=2,negative_timeout=0,"
      "read_ahead=8MiB,config=/etc/x.conf,key=/etc/x.key,log=/tmp/l,log_level=debug,pid_file=/run/x.pid",
      options);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_TRUE(options.read_only && options.noatime && options.suid && options.dev && options.noexec && options.sync);
  EXPECT_EQ(options.allow_other, true);
  EXPECT_EQ(options.timeout, 300s);
  EXPECT_EQ(options.attr_timeout_seconds, 0.5);
  EXPECT_EQ(options.entry_timeout_seconds, 2);
  EXPECT_EQ(options.negative_timeout_seconds, 0);
  EXPECT_EQ(options.read_ahead_kib, 8192u);
  EXPECT_EQ(options.config_option, "/etc/x.conf");
  EXPECT_EQ(options.key_file, "/etc/x.key");
  EXPECT_EQ(options.log_file, "/tmp/l");
  EXPECT_EQ(options.log_level, "debug");
  EXPECT_EQ(options.pid_file, "/run/x.pid");
}

TEST(MountWords, LastOneCountsAndFstabWordsPass) {
  MountOptions options;
  ASSERT_TRUE(ParseMountOptions("defaults,_netdev,nofail,x-systemd.automount,ro,rw,suid,nosuid,dev,nodev", options));
  EXPECT_FALSE(options.read_only);
  EXPECT_FALSE(options.suid);
  EXPECT_FALSE(options.dev);
  EXPECT_EQ(options.allow_other, std::nullopt);
}

TEST(MountWords, ErrorsNameTheNearest) {
  MountOptions options;
  Status status = ParseMountOptions("noatmie", options);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("'noatime'"), std::string::npos) << status.error().message;
  for (const char* text : {"timeout", "timeout=", "timeout=soon", "attr_timeout=x", "read_ahead=1GB", "colour=red"}) {
    EXPECT_FALSE(ParseMountOptions(text, options)) << text;
  }
}

TEST(MountDuration, Units) {
  EXPECT_EQ(ParseMountDuration("30"), Duration(30s));
  EXPECT_EQ(ParseMountDuration("30s"), Duration(30s));
  EXPECT_EQ(ParseMountDuration("2h"), Duration(7200s));
  EXPECT_EQ(ParseMountDuration("1d"), Duration(86400s));
  for (const char* text : {"", "s", "-1", "1.5s", "3w", "99999999999d"}) EXPECT_FALSE(ParseMountDuration(text)) << text;
}

TEST(MountWords, WhatTheKernelIsTold) {
  MountOptions options;
  options.meta = {{"alpha", 7600}, {"beta", 7600}};
  options.subdir = "/a,b";
  std::string words = KernelOptions(options, true);
  EXPECT_NE(words.find("fsname=alpha:7600\\,beta:7600:/a\\,b"), std::string::npos) << words;
  EXPECT_NE(words.find("default_permissions"), std::string::npos);
  EXPECT_NE(words.find("allow_other"), std::string::npos);
  EXPECT_EQ(KernelOptions(options, false).find("allow_other"), std::string::npos);
  options.allow_other = false;
  EXPECT_EQ(KernelOptions(options, true).find("allow_other"), std::string::npos);
  options.read_only = true;
  EXPECT_NE(KernelOptions(options, true).find(",ro"), std::string::npos);
}

TEST(MountLog, IsNamedAfterTheMountPoint) {
  EXPECT_EQ(DefaultMountLog("/mnt/x", true), "/var/log/shoal/mount-mnt-x.log");
  setenv("XDG_STATE_HOME", "/home/u/.state", 1);
  EXPECT_EQ(DefaultMountLog("/home/u/m", false), "/home/u/.state/shoal/mount-home-u-m.log");
}

}  // namespace
}  // namespace shoal::fuse
