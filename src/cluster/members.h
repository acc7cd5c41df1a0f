/* The state of the cluster: the fold of the control log. Every node folds the same records in the same order
 * and comes to the same state, whatever its own clock, its configuration or its view of the others; so a record
 * that does not count is a no-op for all of them.
 *
 * Slots number the nodes. A node keeps its slot over restarts; a slot whose node is gone is given up by VACATE,
 * when the repair delay is over or a newcomer stands by, and only then does data move. */
#ifndef CLUSTER_MEMBERS_H
#define CLUSTER_MEMBERS_H

#include "cluster/control.h"

struct members;

enum member_status {
    MEMBER_NONE,    /* the slot is free */
    MEMBER_UP,      /* joined, and nothing ended it */
    MEMBER_LEFT,    /* stopped of its own will; the slot is kept for it */
    MEMBER_EVICTED, /* put out by the others; the slot is kept for it */
};

struct member {
    enum member_status status;
    bool is_draining;     /* nothing is placed on it */
    bool is_leaving;      /* its process stops soon */
    bool hands_over;      /* … and others are to hold what it holds: as draining, until it comes back */
    bool is_claimed;      /* the suspicion is a claim to its name */
    uint8_t claims;       /* to its name, refuted in this life; MEMBERS_CLAIMS_MAX are counted */
    struct member_id id;  /* slot, and the JOIN of its present or last life */
    uint64_t slot_since;  /* offset of the JOIN that took the slot */
    int64_t ended_ms;     /* log time of LEAVE or EVICT */
    uint64_t ended_at;    /* offset of the record that ended its last life; UINT64_MAX: none did */
    uint64_t suspicion;   /* offset of the SUSPECT that stands; UINT64_MAX: none */
    int64_t suspected_ms; /* its log time */
    uint64_t held_at;     /* offset of the last OWN or DISOWN of this life; 0: none */
    char name[CLUSTER_NAME_BYTES_MAX + 1];
    char zone[CLUSTER_NAME_BYTES_MAX + 1];
    char address[CLUSTER_ADDRESS_BYTES_MAX + 1];
    uint8_t disk_id[CLUSTER_ID_BYTES];
    uint8_t process_id[CLUSTER_ID_BYTES];
    uint32_t format_min, format_max;
    uint8_t votes[(CLUSTER_NODES_MAX + 7) / 8];     /* slots that accuse it */
    uint8_t owns[(CLUSTER_PARTITIONS_MAX + 7) / 8]; /* partitions it has declared OWN for in this life */
};

/* What one record did. */
struct members_change {
    enum control_kind kind; /* 0: the bytes were no record */
    bool counted;
    const char *why;                      /* when it did not: for people */
    bool has_taken_time;                  /* the log's time is counted on from here */
    uint8_t process_id[CLUSTER_ID_BYTES]; /* of a JOIN */
};

/* Log time is counted by records of nodes that are up, and by JOINs: what lies between two of them, if it is not
 * more than this. docs/format/control.md §2 */
#define MEMBERS_STEP_MS    20000
#define MEMBERS_RETURN_MS  120000 /* so long who has ended may come back although a newcomer stands by */
#define MEMBERS_CLAIMS_MAX 30

/* An empty state, before any record. pool: a child of it holds everything. ERR_LIMIT. */
err members_open(struct pool *pool, struct members **out_members);
void members_close(struct members *members); /* NULL allowed */

/* Fold the record at offset, which is not below members_epoch (offsets may have holes). append_ms is what the
 * broker's clock said, which leaps. Errors ERR_VERSION: a newer version's record:
 * this node cannot follow (nothing changed); ERR_LIMIT: not folded, may be tried again. Everything else is OK:
 * see *out_change. */
err members_apply(struct members *members, uint64_t offset, int64_t append_ms, struct slice bytes,
                  struct members_change *out_change);

/* The offset behind the last record folded. */
uint64_t members_epoch(const struct members *members);
/* The log's time: ms, from 0 on, that somebody was up for. Only differences mean anything. */
int64_t members_now_ms(const struct members *members);
/* The append time of the last record: for what people give a date. 0 before the first. */
int64_t members_append_ms(const struct members *members);
/* Does something wait for log time to pass? Then somebody has to append. */
bool members_await_time(const struct members *members);
/* NULL before INIT counted. */
const struct control_init *members_init(const struct members *members);
const uint8_t *members_cluster_id(const struct members *members);
const struct control_settings *members_settings(const struct members *members);
/* How old a suspicion has to be: the setting, or the one before it for as long as that is. */
uint32_t members_suspect_age_ms(const struct members *members);

/* Slots 0 … members_slot_count - 1; some may be free. */
uint32_t members_slot_count(const struct members *members);
const struct member *members_at(const struct members *members, uint32_t slot);
/* The one in a slot that is not free. NULL: none. */
const struct member *members_find(const struct members *members, struct slice name);
uint32_t members_up_count(const struct members *members);

/* Who speaks as `id` is the present life of a node that is up. */
bool members_is_current(const struct members *members, struct member_id id);

/* The assignment: replica_count slots of the partition, rank 0 first, SLOT_NONE where none is. NULL before the
 * first ASSIGN counted. Borrowed until the next members_apply. */
const uint32_t *members_assigned(const struct members *members, uint32_t partition);
bool members_is_assigned(const struct members *members, uint32_t partition, uint32_t slot);
bool member_owns(const struct member *member, uint32_t partition);
/* Has the member in a slot voted against this one? */
bool member_is_accused_by(const struct member *member, uint32_t slot);
/* Does every slot that is assigned to the partition own it, and is there one? */
bool members_all_assigned_own(const struct members *members, uint32_t partition);

/* What an OWN or DISOWN of this member has to name: what it follows. */
uint64_t members_answers(const struct members *members, const struct member *by);

/* What an ASSIGN has to name in based_on: the last record that changed members or assignment. */
uint64_t members_changed_at(const struct members *members);
/* Are the members as the assignment was planned for? */
bool members_is_assignment_due(const struct members *members);
/* Plan the assignment for the members as they are: who is gone for less than the repair delay counts as there.
 * Into pool, partition_count × replica_count slots. ERR_NOT_FOUND: nobody could hold anything; ERR_LIMIT. */
err members_plan(const struct members *members, struct pool *pool, uint32_t **out_slots,
                 uint64_t *out_placed);

/* What would move if the members were others, before anybody says so. */
enum preview_change {
    PREVIEW_REBALANCE, /* as they are */
    PREVIEW_DRAIN,
    PREVIEW_UNDRAIN,
    PREVIEW_REMOVE,
    PREVIEW_REPLACE, /* a newcomer, and slot gone */
    PREVIEW_ADD,     /* a newcomer */
};

struct preview_request {
    enum preview_change change;
    uint32_t slot;                   /* DRAIN, UNDRAIN, REMOVE, REPLACE: of whom */
    struct slice zone;               /* REPLACE, ADD: of the newcomer */
    const uint64_t *partition_bytes; /* of one replica, by partition; NULL: not known, all are 0 */
};

struct preview_node {
    uint32_t slot; /* the newcomer's is the one it would get */
    bool is_newcomer;
    uint32_t partition_count;          /* it would hold */
    uint32_t gained_count, lost_count; /* of them, and of those it holds now */
    uint64_t bytes, gained_bytes, lost_bytes;
};

struct preview {
    struct preview_node *nodes; /* by slot: all that are in use, and the newcomer; in the pool */
    uint32_t node_count;
    uint64_t moved_count, moved_bytes; /* replicas that a node gets */
    uint32_t replica_count_min;        /* of the partition that would have the fewest */
    const uint32_t *slots;             /* the assignment, as members_plan */
};

/* ERR_NOT_FOUND: nobody could hold anything; ERR_INPUT: a slot that is free, or none left for a newcomer;
 * ERR_LIMIT. The cluster has begun. */
err members_preview(const struct members *members, const struct preview_request *request, struct pool *pool,
                    struct preview *out_preview);

/* An automation that a person had stand still, until the log's append time says that it is over. */
struct suspension {
    int64_t until_ms; /* append time; INT64_MIN: none */
    char owner[CLUSTER_TEXT_BYTES_MAX + 1];
    char reason[CLUSTER_TEXT_BYTES_MAX + 1];
};
/* The last one of this automation. */
const struct suspension *members_suspension(const struct members *members,
                                            enum control_automation automation);

/* How many live owners partitions have: those that are up and stay. */
struct redundancy {
    uint32_t owner_count_min; /* of the partition with the fewest */
    uint32_t unowned_count;   /* partitions that have none */
    uint32_t lacking_count;   /* partitions that have fewer than INIT asks for */
};

/* Of the cluster as it is, or were the node in slot `without` stopped (SLOT_NONE: nobody is). Nobody misses it if
 * then unowned_count is 0; who restarts nodes one after the other waits
 * for lacking_count 0 before each. The cluster has begun. */
struct redundancy members_redundancy(const struct members *members, uint32_t without);

/* Could the record with this kind count now? For who proposes: at log time now_ms and append time append_ms.
 * Votes that an EVICT needs are there, its suspicion is old enough, and no other was too recently. */
bool members_may_evict(const struct members *members, const struct member *of, int64_t now_ms,
                       int64_t append_ms);
bool members_may_vacate(const struct members *members, const struct member *of, int64_t now_ms,
                        int64_t append_ms);
bool members_is_suspended(const struct members *members, enum control_automation automation,
                          int64_t append_ms);
/* Why a JOIN would not count at log time now_ms; NULL: it would. *out_is_final: nothing but a person changes
 * that. Whoever is refused because its name is taken, while no suspicion stands, may claim it by a JOIN. */
const char *members_join_trouble(const struct members *members, const struct control_join *join,
                                 int64_t now_ms, bool *out_is_final);

/* Bugs that tests plant to prove that the simulation finds them; 0 in the server. */
enum members_plant {
    MEMBERS_PLANT_EVICT_ALONE = 1 << 0,   /* one accuser is enough */
    MEMBERS_PLANT_DROP_EARLY = 1 << 1,    /* an owner may go before those that follow it own */
    MEMBERS_PLANT_OLD_PLAN = 1 << 2,      /* an assignment counts that was planned for other members */
    MEMBERS_PLANT_ANY_LIFE = 1 << 3,      /* a life that has ended may speak */
    MEMBERS_PLANT_LATE_JOIN = 1 << 4,     /* a JOIN counts whatever was decided since it was sent */
    MEMBERS_PLANT_LEAPS = 1 << 5,         /* log time is the latest append time */
    MEMBERS_PLANT_NO_RESUMPTION = 1 << 6, /* time passes while nobody is up */
    MEMBERS_PLANT_LATE_OWN = 1 << 7,      /* an OWN counts whatever it answers */
    MEMBERS_PLANT_SET_AT_ONCE = 1 << 8,   /* a lower suspect age holds at once */
};
void members_plant(struct members *members, unsigned plants);

/* The state as bytes, and back: what was encoded folds on as the state itself does. ERR_CORRUPT, ERR_VERSION,
 * ERR_LIMIT. docs/format/control.md */
void members_encode(const struct members *members, struct buf *out);
err members_decode(struct slice bytes, struct pool *pool, struct members **out_members);

#endif
