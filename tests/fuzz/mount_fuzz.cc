// What a mount is told (SOURCE, -o) and what it reads of the kernel's table of mounts: one text is given to all of
// them.
#include <algorithm>

#include "fuse/mount_options.h"
#include "fuse/mount_table.h"
#include "tests/fuzz/fuzz.h"

std::vector<std::string> shoal::fuzz::Seeds() { return {}; }

using namespace shoal;
using namespace shoal::fuse;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);

  if (auto source = ParseMountSource(text)) {
    CHECK(source->subdir.empty() || (source->subdir.starts_with('/') && source->subdir.size() > 1));
    for (const Address& address : source->meta) CHECK(!address.host.empty());
  }
  MountOptions options;
  if (ParseMountOptions(text, options)) {
    CHECK(options.timeout >= Duration(0) && options.read_ahead_kib <= 1u << 30);
    for (double seconds :
         {options.attr_timeout_seconds, options.entry_timeout_seconds, options.negative_timeout_seconds}) {
      CHECK(seconds >= 0 && seconds <= 1e9);
    }
  }
  if (auto duration = ParseMountDuration(text)) CHECK(*duration >= Duration(0));
  (void)DefaultMountLog(std::string(text), true);

  size_t lines = static_cast<size_t>(std::ranges::count(text, '\n')) + 1;
  auto mounts = ParseMountInfo(text);
  CHECK(mounts.size() <= lines);
  for (const MountEntry& mount : mounts) CHECK(mount.mountpoint.size() <= size);
  return 0;
}
