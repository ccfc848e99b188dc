// LogReader: LevelDB's log format (https://github.com/google/leveldb/blob/main/doc/log_format.md), read on our own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace shoal::meta {

// One write batch of a log (of several transactions, when they were written together). A plain value.
struct LogRecord {
  uint64_t first_txn = 0;  // 0: the batch has no CommitRecord
  uint64_t last_txn = 0;
  uint64_t previous = 0;   // not 0: what precedes first_txn, where the numbers were made to leave a gap
  uint64_t durable = 0;    // the highest durable transaction that it knows of
};

// Goes through the bytes of a log. A bad record does not end it: it goes on with the next block, so that what lies
// behind the damage can be looked at. An incomplete record at the very end is none (the process died while writing).
// `bytes` outlives it.
class LogReader {
 public:
  explicit LogReader(std::string_view bytes) : bytes_(bytes) {}
  // The next good record. False: the end.
  bool Next(LogRecord* record);
  // The same for any file in that format, whatever its records are; `data` is good until the next call.
  bool NextRaw(std::string_view* data);
  // Whether something bad was passed, and where the first record that was lost begins.
  bool damaged() const { return damaged_; }
  size_t damaged_at() const { return damaged_at_; }

 private:
  enum class Piece { kGood, kBad, kEnd };
  Piece NextPiece(int* type, std::string_view* data);
  void Damage(size_t at);
  bool ParseBatch(std::string_view batch, LogRecord* record);

  std::string_view bytes_;
  size_t position_ = 0;
  size_t record_start_ = 0;
  bool damaged_ = false;
  size_t damaged_at_ = 0;
  std::string assembled_;
};

}  // namespace shoal::meta
