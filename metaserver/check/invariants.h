// The invariants of the metadata, each in a file of its own: one function that looks at all records of a kind and tells
// the run of each that is not as it must be. Errors: those of reading, and kCancelled.
#pragma once

#include "metaserver/check/run.h"

namespace shoal::meta {

Status CheckRecords(CheckRun& run);      // every key and value is one that this program knows
Status CheckDirectories(CheckRun& run);  // entries: hashes, cookies, names; their number; links of directories
Status CheckInodes(CheckRun& run);       // type, parent, id, target, xattrs, orphans
Status CheckLinks(CheckRun& run);        // each inode has the names that it counts, each name an inode
Status CheckExtents(CheckRun& run);      // file maps: owner, chunks, counts
Status CheckChunks(CheckRun& run);       // each chunk: owner, replicas, by-server records
Status CheckByServer(CheckRun& run);     // each by-server record: the chunk has that replica
Status CheckXattrs(CheckRun& run);       // each xattrs record has an inode that knows of it
Status CheckUnlinked(CheckRun& run);     // orphans, reaped inodes, truncations under way
Status CheckOrders(CheckRun& run);       // orders to drop, replicas kept aside: none is of a record
Status CheckSessions(CheckRun& run);     // slots belong to sessions
Status CheckTotals(CheckRun& run);       // the numbers in the commit record; last

}  // namespace shoal::meta
