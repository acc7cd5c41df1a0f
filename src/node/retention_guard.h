/* Whether what is in the log alone will be in segments before the brokers drop it: how much time is left, who is
 * told when it gets short, and how long the topic is to keep records then. Called by the thread that steps
 * the node; what it found is read from any. */
#ifndef NODE_RETENTION_GUARD_H
#define NODE_RETENTION_GUARD_H

#include "base/err.h"
#include "io/io.h"
#include "log/log.h"
#include "shard/shard.h"

#include <stdatomic.h>

#define RETENTION_FOREVER_MS (INT64_C(3650) * 86400000) /* what is told where nothing expires */

enum retention_level {
    RETENTION_WELL,
    RETENTION_SHORT,    /* half of the retention is left, or less: people are told */
    RETENTION_EXPIRING, /* a quarter: the retention is raised, as far as that is allowed */
};

struct retention_guard {
    _Atomic int64_t left_ms; /* until the oldest record that is in no segment expires; as found last */
    _Atomic enum retention_level level;
    int64_t newest_ms,
        newest_ns; /* the newest record's time by the log, and when it was first seen (boot time) */
    int64_t asked_ns, told_ns; /* boot time; 0: not yet */
};

/* What is looked at. */
struct retention_facts {
    int64_t retention_ms;        /* of the topic: LOG_RETENTION_UNKNOWN, LOG_RETENTION_NONE */
    int64_t max_ms;              /* to which it may be raised */
    int64_t since_ms, newest_ms; /* as in struct shards_unsaved */
    int64_t
        waits_since_ns; /* boot time since when a partition waits to be opened here; INT64_MAX: none does */
    int64_t now_ns;     /* io_boottime_ns */
};

struct retention_verdict {
    int64_t
        left_ms; /* 0: what is lost if the brokers are quick is lost now. RETENTION_FOREVER_MS: nothing expires */
    enum retention_level level;
    int64_t raise_to_ms; /* 0: as it is */
};

/* The verdict on these facts; nothing happens but that the guard remembers the newest record. Ages are by the
 * log's own clock, as far as its newest record tells it: a node's may be wrong by years. */
struct retention_verdict retention_judge(struct retention_guard *guard, const struct retention_facts *facts);

/* Look, once a second at most; set the statistics, tell people, raise. max_ms: 0: never raise. waits_since_ns: as
 * in struct retention_facts. */
void retention_guard_step(struct retention_guard *guard, struct log *log, struct shards *shards,
                          int64_t waits_since_ns, int64_t max_ms, struct io *io);

#endif
