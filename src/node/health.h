/* What is not well with a node and its cluster, in sentences, with how bad it is: for people, for kelpie health,
 * and for whatever watches. Facts come from the node and from a copy of the cluster's state; nothing is
 * asked of other nodes. */
#ifndef NODE_HEALTH_H
#define NODE_HEALTH_H

#include "agent/agent.h"
#include "model/json.h"
#include "node/retention_guard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEALTH_FINDINGS_MAX   32 /* of one look; what is beyond them is counted */
#define HEALTH_TEXT_BYTES_MAX 400

enum health_level {
    HEALTH_WELL,
    HEALTH_WARNING, /* something is away or stands still, and nothing is lost by it yet */
    HEALTH_ALARM,   /* writes or answers suffer, or data will be lost if nobody does something */
};

struct health_finding {
    enum health_level level;
    const char *what; /* a word for programs */
    char text[HEALTH_TEXT_BYTES_MAX];
};

struct health {
    struct health_finding findings[HEALTH_FINDINGS_MAX];
    size_t count, beyond;    /* told, and not told for want of room */
    enum health_level level; /* the worst */
};

__attribute__((format(printf, 4, 5))) void health_add(struct health *health, enum health_level level,
                                                      const char *what, const char *format, ...);

/* Of a node, alone or not. */
struct health_node {
    const char *not_ready; /* what it waits for; NULL: it is ready */
    const char *refuses;   /* why writes are refused; NULL: they are not */
    uint64_t losses;       /* named in answers */
    uint64_t damaged_segments;
    uint32_t retention_waits; /* partitions whose cut-off waits for a person */
    uint32_t missing_count; /* partitions of which the bucket's list lacks objects that the manifest names */
};
void health_of_node(struct health *health, const struct health_node *node);

/* Of the cluster that it is in, which has begun: findings, and members of an open JSON object. */
struct health_cluster {
    const struct agent_copy *copy;
    bool may_decide;
    enum retention_level retention;
    int64_t left_ms; /* as in struct retention_guard */
};
void health_of_cluster(struct health *health, const struct health_cluster *cluster, struct json *json);

/* Members "state" and "findings" of an open JSON object. */
void health_put(const struct health *health, struct json *json);

#endif
