/* The state of members.c, for it and the two files that print it and plan for it. */
#ifndef CLUSTER_MEMBERS_INSIDE_H
#define CLUSTER_MEMBERS_INSIDE_H

#include "cluster/members.h"

#define OFFSET_NONE         UINT64_MAX
#define MEMBERS_TIME_MS_MAX (INT64_C(1) << 52) /* later ones are no times */

struct members {
    struct pool *pool, *scratch;
    unsigned plants;
    uint64_t epoch;
    int64_t now_ms;
    int64_t heard_ms;  /* append time of the last record that counts for it; INT64_MIN: none */
    int64_t append_ms; /* of the last record; 0: none */
    bool is_begun;     /* INIT counted */
    uint8_t cluster_id[CLUSTER_ID_BYTES];
    struct control_init init;
    struct control_settings settings;
    uint64_t changed_at, assigned_at; /* OFFSET_NONE: never */
    uint64_t joined_ever;             /* JOINs that took a slot */
    uint64_t freed_at;                /* the last record that freed a slot; OFFSET_NONE: none did */
    uint64_t vacated_since;           /* slots given up since the last ASSIGN */
    int64_t evicted_ms;               /* log time of the last EVICT; INT64_MIN: none */
    int64_t resumed_ms;               /* log time at which nobody had been up before; INT64_MIN: never */
    uint32_t former_age_ms;           /* the suspect age before it was lowered, which holds until … */
    int64_t former_until_ms;          /* … this log time */
    struct suspension suspensions[AUTOMATION_END];
    struct member *members; /* by slot */
    uint32_t member_count;
    size_t member_capacity;
    uint32_t *table; /* partition_count × replica_count, once INIT counted */
};

/* Is it the first slot in use of its zone? */
bool members_is_first_of_zone(const struct members *members, uint32_t slot);

#endif
