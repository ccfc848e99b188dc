// Where a metaserver's state is kept: the seam for tests.
#pragma once

namespace leveldb {
class Env;
}

namespace shoal {
class Files;
Files& RealFiles();
}  // namespace shoal

namespace shoal::meta {

// The files, and the same ones as LevelDB's Env: the operating system's, or a test's. Plain values; what they point to
// outlives every user.
struct StateFiles {
  Files* files = &RealFiles();
  leveldb::Env* env = nullptr;  // LevelDB's own
};

}  // namespace shoal::meta
