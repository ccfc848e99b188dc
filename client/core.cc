#include "client/core.h"

#include <sys/stat.h>

#include <ctime>
#include <random>

namespace shoal::client {

Core::Core(EventLoop& l, ClientOptions o, Metrics& m)
    : loop(l),
      options(std::move(o)),
      session(l, options, context),
      servers(l, context),
      tasks(l),
      room(l),
      rotation(std::random_device{}()),
      bytes_read(m.counter("shoal_client_read_bytes_total", "Bytes read from chunkservers")),
      bytes_written(m.counter("shoal_client_written_bytes_total", "Bytes written to chunkservers and acknowledged")),
      checksum_mismatches(
          m.counter("shoal_client_checksum_mismatches_total", "Blocks received that did not match their checksums")),
      hedged_reads(m.counter("shoal_client_hedged_reads_total", "Reads sent to a second replica for want of an answer")),
      failed_reads(m.counter("shoal_client_failed_read_tries_total", "Tries of a read at one replica that failed")),
      write_recoveries(m.counter("shoal_client_write_recoveries_total", "Chunks reported because a write failed")),
      write_errors(m.counter("shoal_client_write_errors_total", "Writes given up; their data is lost")) {
  context.key = options.key;
  context.role = pb::ROLE_CLIENT;
  context.name = options.name;
}

StatePtr Core::State(InodeId inode) {
  StatePtr& state = states[inode];
  if (!state) {
    state = std::make_shared<InodeState>(loop, inode);
    state->attr.inode = inode;
    if (auto it = known_changes.find(inode); it != known_changes.end()) {
      state->remembered_change = it->second;
    }
    if (auto it = unsynced.find(inode); it != unsynced.end()) {
      for (uint64_t index : it->second) {
        auto writer = std::make_shared<ChunkWriter>(index);
        writer->acked = 1;
        state->writers.emplace(index, std::move(writer));
      }
      unsynced.erase(it);
    }
  }
  return state;
}

StatePtr Core::Find(InodeId inode) const {
  auto it = states.find(inode);
  return it == states.end() ? nullptr : it->second;
}

void Core::DropIfUnused(const StatePtr& state) {
  if (state->opens > 0 || state->pins > 0 || !state->clean() || state->exclusive) return;
  to_write.erase(state);
  if (state->attr.nlink > 0) {
    for (const auto& [index, writer] : state->writers) {
      if (!writer->all_synced()) unsynced[state->inode].push_back(index);
    }
  }
  if (state->attr.nlink > 0 && !state->foreign && state->attr.change != 0) {
    if (known_changes.size() >= kMaxKnownChanges) known_changes.clear();
    known_changes[state->inode] = state->attr.change;
  } else {
    known_changes.erase(state->inode);
  }
  states.erase(state->inode);
}

void Core::OwnChange(const Attr& attr) {
  auto it = known_changes.find(attr.inode);
  if (it != known_changes.end() && it->second + 1 == attr.change) it->second = attr.change;
}

int64_t WallClock() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

Attr FromProto(const pb::Attr& from) {
  Attr attr;
  attr.inode = InodeId(from.inode());
  attr.mode = from.mode();
  attr.nlink = from.nlink();
  attr.uid = from.uid();
  attr.gid = from.gid();
  attr.copies = from.copies();
  attr.rdev = from.rdev();
  attr.size = from.size();
  attr.allocated_bytes = from.allocated_bytes();
  attr.atime_ns = from.atime_ns();
  attr.mtime_ns = from.mtime_ns();
  attr.ctime_ns = from.ctime_ns();
  attr.btime_ns = from.btime_ns();
  attr.change = from.change();
  return attr;
}

void ApplyAttr(InodeState& state, const Attr& attr, bool own) {
  if (attr.change < state.attr.change) return;
  if (attr.change > state.attr.change + (own ? 1 : 0) || attr.size < state.attr.size) {
    // Somebody else may have changed the file: what is where is asked again.
    uint64_t before = state.attr.change ? state.attr.change : state.remembered_change;
    if (before != 0) state.foreign |= attr.change > before + (own ? 1 : 0);
    std::erase_if(state.locations, [](const auto& entry) { return entry.second->lease == 0; });
  }
  state.attr = attr;
  state.attr_time = Core::Now();
}

Attr WithLocal(const InodeState& state, Attr attr) {
  if (attr.change < state.attr.change) attr = state.attr;
  if (state.local_end > attr.size) attr.size = state.local_end;
  if (state.kill_suid_sgid || state.killing) {
    attr.mode &= ~static_cast<uint32_t>(attr.mode & S_IXGRP ? S_ISUID | S_ISGID : S_ISUID);
  }
  if (state.local_mtime_ns != 0) {
    attr.mtime_ns = std::max(attr.mtime_ns, state.local_mtime_ns);
    attr.ctime_ns = std::max(attr.ctime_ns, state.local_mtime_ns);
    // Some programs take a file without blocks for one that is all holes.
    uint64_t here = 0;
    for (const auto& [index, writer] : state.writers) {
      here += writer->gather.bytes();
      for (const auto& op : writer->queue) here += op->bytes;
    }
    if (here == 0 && attr.allocated_bytes == 0 && attr.size > 0) here = 512;
    attr.allocated_bytes = std::max(attr.allocated_bytes, (here + 511) / 512 * 512);
  }
  return attr;
}

}  // namespace shoal::client
