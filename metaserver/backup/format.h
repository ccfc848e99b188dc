// A backup of the metadata as a file: docs/formats.md has it byte by byte.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/files.h"
#include "common/result.h"
#include "metaserver/keys.h"

namespace shoal::meta {

inline constexpr uint32_t kBackupFormat = 1;

// Whose backup it is, and of when. A plain value.
struct BackupHeader {
  std::string cluster_uuid;
  uint32_t incarnation = 0;
  uint32_t state_format = 0;  // of the metadata (ClusterRecord)
  uint64_t txn = 0;           // the last transaction in it
  int64_t time_ns = 0;        // when it was begun
};

// What its end says. A plain value.
struct BackupTrailer {
  uint64_t records = 0;
  uint64_t bytes = 0;   // of keys and values
  uint64_t digest = 0;  // over all records, in their order
};

// The header from the first records of a state (which stand at its very begin). kCorrupt when one is missing.
struct HeadRecords {
  // Gives the record's value, or an empty string.
  std::function<std::string(const Key&)> get;
  int64_t time_ns = 0;
};
Result<BackupHeader> HeaderOf(const HeadRecords& records);

// Writes a backup: under a temporary name beside `path` until Finish, which makes it durable and gives it its name.
// Without Finish the destructor deletes what there is. One thread. Errors: kExists (never overwrites), those of File.
class BackupWriter {
 public:
  static Result<std::unique_ptr<BackupWriter>> Create(Files& files, const std::string& path);
  ~BackupWriter();

  Status Begin(const BackupHeader& header);
  // Ascending by key; kInternal else.
  Status Add(std::string_view key, std::string_view value);
  Status Finish();
  const BackupTrailer& so_far() const { return trailer_; }

 private:
  BackupWriter(Files& files, std::string path);
  Status Put(std::string_view bytes);
  Status Flush();
  Files& files_;
  const std::string path_, temporary_;
  std::unique_ptr<File> file_;
  std::string buffer_, last_key_;
  uint64_t offset_ = 0;
  BackupTrailer trailer_;
  bool named_ = false;
};

// Reads a backup and checks everything in it. One thread. Errors name the file, and the place and kind of the damage:
// kCorrupt (no backup, damaged, cut off), kNotSupported (a newer format).
class BackupReader {
 public:
  static Result<std::unique_ptr<BackupReader>> Open(Files& files, const std::string& path);

  const BackupHeader& header() const { return header_; }
  // The next record. False: the end was reached, and the trailer agrees with all that was read.
  Result<bool> Next(std::string* key, std::string* value);
  const BackupTrailer& so_far() const { return trailer_; }
  uint64_t file_bytes() const { return size_; }

 private:
  explicit BackupReader(std::string path) : path_(std::move(path)) {}
  Status ReadHeader();
  Status CheckTrailer();
  // So many bytes from here on, without going on; kCorrupt when the file ends before.
  Result<std::string_view> Peek(size_t bytes);
  void Skip(size_t bytes) { at_ += bytes; }
  std::unexpected<Error> Damaged(const std::string& what) const;

  const std::string path_;
  std::unique_ptr<File> file_;
  uint64_t size_ = 0, buffer_offset_ = 0;
  std::string buffer_;
  size_t at_ = 0;  // in the buffer
  std::string last_key_;
  BackupHeader header_;
  BackupTrailer trailer_;
  bool ended_ = false;
};

}  // namespace shoal::meta
