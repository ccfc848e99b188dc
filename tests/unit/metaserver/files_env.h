// LevelDB's Env over Files.
#pragma once

#include <memory>

#include "common/files.h"

namespace leveldb {
class Env;
}

namespace shoal::test {

// Does to `files` what LevelDB's own Env does to the operating system's, in the same order: so it syncs the directory
// before it syncs a manifest. `files` outlives it.
std::unique_ptr<leveldb::Env> MakeFilesEnv(Files& files);

}  // namespace shoal::test
