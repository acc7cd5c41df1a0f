/* What lies in a data directory around what shard_verify reads. */
#ifndef NODE_ACCOUNT_H
#define NODE_ACCOUNT_H

#include "node/offline.h"

/* Give every file a class that shard_verify or shard_fsck left out, into the check that it filled: NODE, the log's
 * files, the quarantine, snapshots, and what is not ours. ERR_LIMIT. */
err account_directory(struct offline *offline, const struct shard_report *report, struct shard_check *check);

/* The sums by class on standard output, those that are not 0. */
void account_print(const struct shard_check *check);

#endif
