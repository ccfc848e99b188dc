// The metrics of a chunkserver, by name in one place.
#pragma once

#include "common/metrics.h"

namespace shoal {

// References into a Metrics, which outlives them. Any thread.
struct ChunkMetrics {
  explicit ChunkMetrics(Metrics& m)
      : reads(m.counter("shoal_chunkserver_reads_total", "Read requests answered")),
        read_bytes(m.counter("shoal_chunkserver_read_bytes_total", "Bytes read by requests")),
        reads_cached(m.counter("shoal_chunkserver_reads_cached_total", "Reads answered from the page cache on the loop")),
        writes(m.counter("shoal_chunkserver_writes_total", "Writes applied to a replica")),
        write_bytes(m.counter("shoal_chunkserver_written_bytes_total", "Bytes written to replicas")),
        forwards(m.counter("shoal_chunkserver_forwarded_writes_total", "Writes sent on to the next member of a chain")),
        syncs(m.counter("shoal_chunkserver_syncs_total", "Replica files synced")),
        corrupt_blocks(m.counter("shoal_chunkserver_corrupt_blocks_total",
                                 "Headers, table pages and blocks found not to match their checksums")),
        accepted_blocks(m.counter("shoal_chunkserver_accepted_blocks_total",
                                  "Blocks under write at a power cut, good nowhere: they got the checksum of what they hold")),
        healed_blocks(m.counter("shoal_chunkserver_healed_blocks_total", "Damaged blocks that were taken from other replicas")),
        bad_replicas(m.counter("shoal_chunkserver_bad_replicas_total", "Replicas reported as bad to the metaserver")),
        payload_mismatches(m.counter("shoal_chunkserver_payload_mismatches_total", "Writes that arrived damaged")),
        copied_bytes(m.counter("shoal_chunkserver_copied_bytes_total", "Bytes copied from other chunkservers")),
        scrubbed_bytes(m.counter("shoal_chunkserver_scrubbed_bytes_total", "Bytes read again and compared with their checksums")),
        scrubbed_replicas(m.counter("shoal_chunkserver_scrubbed_replicas_total", "Replicas scrubbed and found good")),
        scrub_errors(m.counter("shoal_chunkserver_scrub_errors_total", "Replicas that scrubbing found bad or missing")),
        refused_lease(m.counter("shoal_chunkserver_refused_lease_total", "Requests refused because the lease had lapsed")),
        overloaded(m.counter("shoal_chunkserver_overloaded_total", "Requests refused because too much was waiting")),
        read_latency(m.histogram("shoal_chunkserver_read_seconds", "From a read's arrival to its answer")),
        write_latency(m.histogram("shoal_chunkserver_write_seconds", "From a write's arrival to its answer")),
        sync_latency(m.histogram("shoal_chunkserver_sync_seconds", "Time in fdatasync")) {}

  Counter& reads;
  Counter& read_bytes;
  Counter& reads_cached;
  Counter& writes;
  Counter& write_bytes;
  Counter& forwards;
  Counter& syncs;
  Counter& corrupt_blocks;
  Counter& accepted_blocks;
  Counter& healed_blocks;
  Counter& bad_replicas;
  Counter& payload_mismatches;
  Counter& copied_bytes;
  Counter& scrubbed_bytes;
  Counter& scrubbed_replicas;
  Counter& scrub_errors;
  Counter& refused_lease;
  Counter& overloaded;
  Histogram& read_latency;
  Histogram& write_latency;
  Histogram& sync_latency;
};

}  // namespace shoal
