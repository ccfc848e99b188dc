// The table pages that one write changes, held until its data is in the file.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "chunkserver/layout.h"
#include "chunkserver/replica_file.h"

namespace shoal {

// Lives for one ReplicaFile::Apply, on its thread. Get and Set read a page (checked: kCorrupt) when first needed;
// Flush writes the changed ones. Not flushed: nothing is changed.
class TableEditor {
 public:
  explicit TableEditor(ReplicaFile& file) : file_(file) {}

  Result<uint64_t> Get(uint32_t block);
  Status Set(uint32_t block, uint64_t checksum);
  Status Flush();
  // Where entries are changed.
  const RegionSet& regions() const { return regions_; }
  // What the changes amount to, once flushed.
  const WriteEffect& effect() const { return effect_; }

 private:
  Result<TablePage*> Load(uint32_t page);

  ReplicaFile& file_;
  std::array<std::unique_ptr<TablePage>, kTablePages> pages_;
  uint64_t changed_ = 0;
  RegionSet regions_;
  WriteEffect effect_;
};

}  // namespace shoal
