/* What one node does about the cluster: a pure step function. Events are told to it, core_step says what to do
 * now; it has no clock, no thread and calls nothing that waits, so that the simulator runs the very code of the
 * server.
 *
 *   control log → core_record, core_at_end        effects: records to append, probes to send,
 *   other nodes → core_heard                       partitions to open and to close, an end
 *   shards      → core_ready
 *
 * A node that wants something appends a record and looks at what the fold makes of it when it is read back:
 * what was lost or did not count is proposed again while it is still wanted. Nothing waits for a particular
 * record. */
#ifndef CLUSTER_CORE_H
#define CLUSTER_CORE_H

#include "cluster/members.h"

struct core;

#define CORE_TICK_MS   250  /* core_step is called at least so often */
#define CORE_PROBE_MS  1000 /* between two probes of a node */
#define CORE_SILENT_MS 3000 /* not heard for so long: queries go elsewhere */
#define CORE_RETRY_MS  2000 /* a proposal is repeated while what it asks for has not come */
#define CORE_SETTLE_MS 2000 /* members that change together get one assignment */
#define CORE_RANK_MS   3000 /* node after node tries what one node suffices for */
#define CORE_GRACE_MS \
    10000 /* an owner that is not needed any more serves on, for queries that are under way */
#define CORE_TIME_MS  4000  /* the log is written to at least so often while something waits for its time */
#define CORE_ASK_MS   1000  /* who holds this node's name is asked for so long whether it is there */
#define CORE_LEAVE_MS 20000 /* others get so long to take over what a leaving node holds */
#define CORE_END_MS   23000 /* after which it ends, with the log or without it: supervisors kill after 30 s */

struct core_config {
    uint8_t cluster_id[CLUSTER_ID_BYTES]; /* all zero: not known yet, it comes from the log */
    const struct control_init *init;   /* to begin the cluster when its log is empty; NULL: never. Copied */
    uint8_t init_id[CLUSTER_ID_BYTES]; /* of the cluster that would begin */
    struct control_join self;          /* its strings are copied */
    bool holds_back;                   /* it follows the log, and does not join before core_join */
};

enum core_effect_kind {
    CORE_APPEND, /* append bytes to the control log; what becomes of it is seen in the log */
    CORE_PROBE,  /* ask this life of a node whether it is there */
    CORE_OPEN,   /* hold the partition: read it, tell core_ready when it is caught up */
    CORE_CLOSE,  /* let the partition go */
    CORE_TROUBLE, /* why this node is not a member; NULL: nothing keeps it from being one any more. For people */
    CORE_STOP,    /* this process is not wanted, or has left: why says so. The last effect there is */
};

/* How a process' part in the cluster ends. */
enum core_end {
    CORE_LEFT,     /* as it was told to */
    CORE_FAILED,   /* by an error; another start may do better */
    CORE_UNWANTED, /* by the cluster's word: another start would undo what a person decided */
};

struct core_effect {
    enum core_effect_kind kind;
    struct slice bytes;          /* CORE_APPEND */
    const struct member *member; /* CORE_PROBE */
    uint32_t partition;          /* CORE_OPEN, CORE_CLOSE */
    const char *why;             /* CORE_STOP, CORE_TROUBLE */
    enum core_end end;           /* CORE_STOP */
};

/* ERR_LIMIT. pool: a child holds everything. */
err core_open(const struct core_config *config, struct pool *pool, struct core **out_core);
void core_close(struct core *core); /* NULL allowed */

/* ---- events. now_ns is a clock that counts while the machine sleeps and never goes back. ---- */

/* The next record of the control log. As members_apply. */
err core_record(struct core *core, int64_t now_ns, uint64_t offset, int64_t append_ms, struct slice bytes);
/* The reader has come to an end that was confirmed at asked_ns: everything decided before is known. */
void core_at_end(struct core *core, int64_t asked_ns);
/* That life of a node answered a probe, or sent one. */
void core_heard(struct core *core, int64_t now_ns, struct member_id id);
/* The partition has caught up, or (false) has fallen behind or broken: then it is not owned any more. */
void core_ready(struct core *core, uint32_t partition, bool is_ready);
/* Whoever held back may join now. */
void core_join(struct core *core);
/* Stop for a while, or for good: what nobody else holds is handed over first, as far as that takes no longer than
 * CORE_LEAVE_MS; what others own stays assigned, so that a node which comes back within the repair delay moves
 * nothing. Ends with CORE_STOP within CORE_END_MS. */
void core_leave(struct core *core, int64_t now_ns);

/* What is to be done now. Effects are borrowed until the next call of any function of this core, and count with
 * ERR_LIMIT too: then there is more to do when there is memory. */
err core_step(struct core *core, int64_t now_ns, const struct core_effect **out_effects, size_t *out_count);

/* Bugs that tests plant: as members_plant, and these. */
enum core_plant {
    CORE_PLANT_OWN_CLOCK = 1 << 16,     /* the state depends on the clock of who reads */
    CORE_PLANT_LEAVE_AT_ONCE = 1 << 17, /* nothing is handed over */
    CORE_PLANT_WAIT_FOR_LOG = 1 << 18,  /* who leaves waits for the log for ever */
    CORE_PLANT_KEEP_OWN = 1 << 19,      /* an owner that is not ready says nothing */
    CORE_PLANT_DECIDE_ALWAYS = 1 << 20, /* a node that has not read for long decides */
};
void core_plant(struct core *core, unsigned plants);

/* ---- the view of this node ---- */

const struct members *core_members(const struct core *core);
/* The present life of this node. False: it has not joined, or is not up. */
bool core_self(const struct core *core, struct member_id *out_id);
/* Why this node is not a member, for people; NULL: it is, or nothing keeps it. */
const char *core_trouble(const struct core *core);
/* May this node cut and commit: it is up, knew everything decided the suspect age ago, and is not about to be put
 * out. */
bool core_may_decide(const struct core *core, int64_t now_ns);
bool core_is_silent(const struct core *core, int64_t now_ns, uint32_t slot);
/* Who may answer for a partition, best first: this node, then its zone, then others; those that are silent or
 * leaving come last. Returns the count, at most CLUSTER_NODES_MAX slots into out_slots. */
size_t core_route(const struct core *core, int64_t now_ns, uint32_t partition, uint32_t *out_slots,
                  size_t slots_max);
/* Which of the owners that are not silent this node is, in the order of the assignment; UINT32_MAX: none of
 * them. */
uint32_t core_rank(const struct core *core, int64_t now_ns, uint32_t partition);

#endif
