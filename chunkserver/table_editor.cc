#include "chunkserver/table_editor.h"

namespace shoal {

Result<TablePage*> TableEditor::Load(uint32_t page) {
  CHECK(page < kTablePages);
  if (!pages_[page]) {
    auto fresh = std::make_unique_for_overwrite<TablePage>();
    TRY(file_.ReadTablePage(page, *fresh, ReplicaFile::Wait::kYes));
    pages_[page] = std::move(fresh);
  }
  return pages_[page].get();
}

Result<uint64_t> TableEditor::Get(uint32_t block) {
  TRY_ASSIGN(TablePage * page, Load(TablePageOf(block)));
  return page->entries[TableSlotOf(block)];
}

Status TableEditor::Set(uint32_t block, uint64_t checksum) {
  TRY_ASSIGN(TablePage * page, Load(TablePageOf(block)));
  uint64_t& entry = page->entries[TableSlotOf(block)];
  if (entry == checksum) return {};
  if (entry == 0) effect_.allocated_bytes += kBlockSize;
  if (checksum == 0) effect_.allocated_bytes -= kBlockSize;
  entry = checksum;
  regions_.set(RegionOf(block));
  changed_ |= 1ull << TablePageOf(block);
  return {};
}

Status TableEditor::Flush() {
  for (uint32_t p = 0; p < kTablePages; ++p) {
    if (!(changed_ & (1ull << p))) continue;
    TablePage& page = *pages_[p];
    if (page.checksum == 0 && p != 0) effect_.allocated_bytes += sizeof page;  // it was blank
    page.Seal();
    TRY(file_.file_->Write(TablePageOffset(p), {reinterpret_cast<const uint8_t*>(&page), sizeof page}));
  }
  effect_.table_pages = changed_;
  changed_ = 0;
  return {};
}

}  // namespace shoal
