/* Records of the control log: everything the cluster decides, one record a decision. docs/format/control.md.
 *
 * control_record_encode writes what a node proposes; control_record_decode reads what came out of the log,
 * which anybody may have written. What a record does, and whether it counts at all, is told by the fold
 * (members.h). */
#ifndef CLUSTER_CONTROL_H
#define CLUSTER_CONTROL_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define CONTROL_FORMAT_VERSION    1
#define CLUSTER_ID_BYTES          16
#define CLUSTER_PARTITIONS_MAX    1024 /* LOG_PARTITION_COUNT_MAX, of a room on this floor */
#define CLUSTER_REPLICAS_MAX      5
#define CLUSTER_NODES_MAX         1000
#define CLUSTER_NAME_BYTES_MAX    64
#define CLUSTER_TEXT_BYTES_MAX    256
#define CLUSTER_ADDRESS_BYTES_MAX 256
#define CONTROL_RECORD_BYTES_MAX  65536

enum control_kind {
    CONTROL_INIT = 1, /* the cluster begins; the first counts */
    CONTROL_NOOP,     /* somebody wants to know how far the log goes */
    CONTROL_JOIN,     /* a process is there under a name */
    CONTROL_REFUTE,   /* the suspected is alive */
    CONTROL_SUSPECT,  /* a node has been silent for its accuser; from now on it may refute */
    CONTROL_VOTE,     /* … and silent for the suspect age for this one */
    CONTROL_EVICT,    /* the suspected is out */
    CONTROL_LEAVE,    /* a process stops of its own will: step by step */
    CONTROL_VACATE,   /* a slot without its node is given up: what it held goes elsewhere */
    CONTROL_REMOVE,   /* a person gives up a node, or lets none be placed on it (drain) */
    CONTROL_ASSIGN,   /* which slots hold which partition */
    CONTROL_OWN,      /* a learner has caught up */
    CONTROL_DROP,     /* an owner that is not assigned any more lets go */
    CONTROL_SUSPEND,  /* an automation stands still: owner, reason, expiry */
    CONTROL_SET,      /* ages and delays that may change */
    CONTROL_DISOWN,   /* an owner is not caught up any more */
    CONTROL_KIND_END,
};

enum control_leaving {
    LEAVING_SOON = 1,   /* others know that they cannot count on it */
    LEAVING_HANDS_OVER, /* … and are to hold what it holds */
    LEAVING_DONE,       /* its process ends */
};

enum control_removal { REMOVAL_GONE = 1, REMOVAL_DRAIN, REMOVAL_UNDRAIN };

enum control_automation { AUTOMATION_PLACEMENT = 1, AUTOMATION_EVICTION, AUTOMATION_REPAIR, AUTOMATION_END };

/* Who speaks, or who is spoken of: a slot in one of its node's lives. */
struct member_id {
    uint32_t slot;
    uint64_t incarnation; /* offset of the JOIN that counted */
};

struct control_settings {
    uint32_t suspect_age_ms;  /* silence before a node may be evicted */
    uint32_t repair_delay_ms; /* between a node's end and the move of what it held */
};

struct control_init {
    uint32_t partition_count; /* 1 … CLUSTER_PARTITIONS_MAX */
    uint8_t replica_count;    /* 1 … CLUSTER_REPLICAS_MAX */
    uint32_t expected_nodes;  /* no ASSIGN before so many joined */
    uint64_t range_bytes_max;
    uint8_t hash_key[16]; /* routing (protocol 3.6) */
    struct control_settings settings;
};

struct control_join {
    struct slice name;    /* 1 … CLUSTER_NAME_BYTES_MAX bytes of [A-Za-z0-9._-] */
    struct slice zone;    /* as name */
    struct slice address; /* host:port for other nodes, 1 … CLUSTER_ADDRESS_BYTES_MAX printable bytes */
    uint8_t disk_id[CLUSTER_ID_BYTES];    /* of the data directory */
    uint8_t process_id[CLUSTER_ID_BYTES]; /* drawn at start, never stored: two lives differ */
    uint64_t
        read_to; /* the epoch that the process knew: what was decided about its name since is respected */
    uint32_t format_min, format_max; /* of what the process reads and writes */
};

struct control_record {
    enum control_kind kind;
    uint8_t cluster_id[CLUSTER_ID_BYTES];
    struct member_id by; /* REFUTE … EVICT, LEAVE, VACATE, OWN, DROP, DISOWN; ASSIGN, NOOP or SLOT_NONE */
    struct member_id of; /* SUSPECT, VOTE, EVICT, VACATE, REMOVE */
    union {
        struct control_init init;
        uint8_t nonce[CLUSTER_ID_BYTES]; /* NOOP: drawn by who waits for it */
        struct control_join join;
        uint64_t suspicion;           /* REFUTE, VOTE, EVICT: offset of the SUSPECT that stands */
        uint32_t silent_ms;           /* SUSPECT: for people */
        enum control_leaving leaving; /* LEAVE */
        enum control_removal removal; /* REMOVE */
        struct {
            uint64_t based_on; /* offset of the last record that changed members or assignment */
            uint32_t partition_count;
            uint8_t replica_count;
            bool force;            /* do not wait for expected_nodes */
            const uint32_t *slots; /* partition_count × replica_count, SLOT_NONE where none is; in the pool */
        } assign;
        struct {
            uint64_t answers;           /* OWN, DISOWN: members_answers */
            const uint32_t *partitions; /* ascending; in the pool */
            uint32_t count;             /* 1 … CLUSTER_PARTITIONS_MAX */
        } hold;                         /* OWN, DROP, DISOWN */
        struct {
            enum control_automation automation;
            uint64_t duration_ms;       /* from the record's time on; 0: it resumes */
            struct slice owner, reason; /* at most CLUSTER_TEXT_BYTES_MAX */
        } suspend;
        struct control_settings settings; /* SET */
    };
};

/* Append the record's bytes. Only what control_record_decode would take may be given (a check). Errors stick in
 * out. */
void control_record_encode(const struct control_record *record, struct buf *out);

/* What the bytes say; slices and tables of it are in pool or borrowed from bytes. ERR_INPUT: not a record, or
 * one out of its bounds. ERR_VERSION: of a format or a kind that this Kelpie does not know, and which may
 * change what others see: a node that meets it cannot go on; *out_record tells its cluster_id and nothing else.
 * ERR_LIMIT. */
err control_record_decode(struct slice bytes, struct pool *pool, struct control_record *out_record);

const char *control_kind_text(enum control_kind kind);

/* "placement", "eviction", "repair". */
const char *control_automation_text(enum control_automation automation);

/* Who suspends an automation, and why: 1 … CLUSTER_TEXT_BYTES_MAX printable bytes. */
bool control_text_valid(struct slice text);

/* Names of nodes and zones: 1 … CLUSTER_NAME_BYTES_MAX bytes of [A-Za-z0-9._-]. */
bool cluster_name_valid(struct slice name);

#endif
