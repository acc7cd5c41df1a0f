/* A shared log in memory that can go back, as a replicated log does that lost its newest records.
 *
 * One store, any number of handles: each is a struct log of a process of its own. What is appended is there at
 * once and for all. log_sim_back cuts a partition off and begins an epoch: a handle that had read or appended
 * beyond the cut finds that out, as the Kafka driver does: its reader ends with ERR_ORDER, log_went_back tells
 * where, and appends are refused until log_go_on. One that had not notices nothing. One thread.
 *
 * It finds out at once, or after a delay (log_sim_delay): meanwhile its reader has nothing to tell, and its end is
 * not confirmed again. */
#ifndef SIM_LOG_SIM_H
#define SIM_LOG_SIM_H

#include "log/log.h"

struct log_sim_store;

/* ERR_LIMIT. */
err log_sim_store_open(uint32_t partition_count, struct pool *pool, struct log_sim_store **out_store);

/* Every handle is closed by now. */
void log_sim_store_close(struct log_sim_store *store);

/* A handle, for log_close. ERR_LIMIT. */
err log_sim_open(struct log_sim_store *store, struct io *io, struct pool *pool, struct log **out_log);

/* The records of a partition from `to` on are gone. */
void log_sim_back(struct log_sim_store *store, uint32_t partition, uint64_t to);

/* From now on handles hear that the log went back up to so much later, each after another time; 0: at once. */
void log_sim_delay(struct log_sim_store *store, int64_t max_ns);

/* From now on records that are appended through this handle are on their way for ever (log_close answers them);
 * markers are answered. */
void log_sim_hold(struct log *handle);

/* While it is silent, no append to the partition through this handle is answered, markers neither; then they are:
 * ERR_TIMEOUT. */
void log_sim_silence(struct log *handle, uint32_t partition, bool is_silent);

/* The next record that is read through this handle says that so many before it are lost. */
void log_sim_hole(struct log *handle, uint64_t count);

/* End of what was read or appended through this handle, and is in the log. */
uint64_t log_sim_seen(struct log *handle, uint32_t partition);

uint64_t log_sim_end(const struct log_sim_store *store, uint32_t partition);

#endif
