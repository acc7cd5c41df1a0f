/* The state of core.c, for it and core_self.c: what a node wants and has said, and how it says it. */
#ifndef CLUSTER_CORE_INSIDE_H
#define CLUSTER_CORE_INSIDE_H

#include "cluster/core.h"

enum wish {
    WISH_INIT,
    WISH_JOIN,
    WISH_LEAVING,
    WISH_HAND_OVER,
    WISH_LEAVE,
    WISH_TIME,
    WISH_REFUTE,
    WISH_VACATE,
    WISH_ASSIGN,
    WISH_OWN,
    WISH_DROP,
    WISH_DISOWN,
    WISH_COUNT
};

struct neighbour {
    uint64_t incarnation; /* of which the rest speaks */
    int64_t heard_ns;     /* or when this life was first seen in the log */
    int64_t probed_ns;    /* last sent */
    int64_t accused_ns;   /* last SUSPECT, VOTE or EVICT proposed */
    unsigned accusations; /* SUSPECTs since it was heard */
    bool has_answered;
};

struct core {
    struct pool *pool, *scratch; /* scratch: effects */
    struct members *members;
    struct core_config config;
    struct control_init init;
    char name[CLUSTER_NAME_BYTES_MAX + 1], zone[CLUSTER_NAME_BYTES_MAX + 1],
        address[CLUSTER_ADDRESS_BYTES_MAX + 1];
    bool has_joined; /* once, as this process */
    bool is_removed; /* a person gave this node up */
    bool is_leaving, has_ended;
    unsigned plants;
    unsigned join_count;
    const char *trouble, *told; /* why it is not a member: as it is, and as the last effect said */
    uint64_t holder;            /* incarnation of who holds the name, and … */
    unsigned claims;            /* … how many claims to it had been refuted when this process met it */
    int64_t leaving_ns;         /* since when it leaves */
    int64_t joining_ns;         /* since when it asks to join; INT64_MIN: it has not asked, or is in */
    int64_t known_ns;           /* everything decided before this moment is known; INT64_MIN: nothing */
    int64_t record_ns;          /* when the last record was read: append times go on from there */
    int64_t heard_ns;   /* when the last was read from which the log's time goes on; INT64_MIN: none */
    int64_t vacate_ns;  /* since when a slot could be given up; INT64_MAX: none can */
    int64_t changed_ns; /* when members or assignment were last seen to change */
    uint64_t changed_at;
    int64_t spoken_ns[WISH_COUNT];
    int64_t spare_ns
        [CLUSTER_PARTITIONS_MAX]; /* since when a partition is owned without need; INT64_MAX: it is not */
    uint8_t is_open[CLUSTER_PARTITIONS_MAX], is_ready[CLUSTER_PARTITIONS_MAX];
    struct neighbour neighbours[CLUSTER_NODES_MAX];
    struct core_effect *effects;
    size_t effect_count, effect_capacity;
    err failed; /* of the step under way */
};

/* This node's entry while it is up in the log as this process; NULL: it is not. */
const struct member *core_self_up(const struct core *core);
int64_t core_suspect_age_ns(const struct core *core);
/* The log's time by now, were a record appended. Slow readers think it earlier than it is, never later. */
int64_t core_log_now_ms(const struct core *core, int64_t now_ns);

/* A record of this cluster, by this node if it is up. */
struct control_record core_speak(const struct core *core, enum control_kind kind);
/* Has the wish not been spoken lately? Then it is now. */
bool core_may_speak(struct core *core, int64_t now_ns, enum wish wish);

/* Effects of the step under way; without memory they are left for the next one. */
struct core_effect *core_effect_add(struct core *core, enum core_effect_kind kind);
void core_append(struct core *core, const struct control_record *record);
void core_probe(struct core *core, int64_t now_ns, const struct member *m);
void core_stop(struct core *core, const char *why, enum core_end end);

/* Begin the cluster, join it, be up, or leave (core_self.c). True: there is nothing else to do. */
bool core_step_self(struct core *core, int64_t now_ns);
/* It leaves, and has waited for the log long enough. */
bool core_must_end(const struct core *core, int64_t now_ns);

#endif
