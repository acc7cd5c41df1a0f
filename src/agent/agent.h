/* A node's agent in its cluster: it owns the core (cluster/core.h), tells it everything and does what it says.
 *
 *   control log ─ log_reader_next ─→ core_record        CORE_APPEND ─→ log_append
 *   appends, markers acknowledged ─→ core_at_end        CORE_PROBE, CORE_OPEN, CORE_CLOSE, CORE_TROUBLE,
 *   other nodes ─ agent_heard ─────→ core_heard         CORE_STOP ─→ the owner's table of functions
 *   opener ────── agent_ready ─────→ core_ready
 *
 * One thread steps it (agent_run_thread, or the simulator), and nothing in a step waits. Every other call here but
 * agent_open and agent_close comes from any thread. docs/decisions/0015-a-node-in-a-cluster.md */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/ask.h"
#include "agent/opener.h"
#include "agent/probe.h"
#include "agent/prober.h"
#include "agent/routes.h"
#include "cluster/cluster.h"
#include "io/io.h"
#include "log/log.h"

struct agent;

#define AGENT_TICK_MS        200 /* between two steps at most: CORE_TICK_MS less what a step takes */
#define AGENT_RETRY_MS       500 /* an append that tells how far the log goes is repeated */
#define AGENT_APPENDS_MAX    64  /* not answered; beyond, a wish is left to be spoken again */
#define AGENT_RECORDS_A_STEP 1000
#define AGENT_RANK_MS        1000 /* between two looks at ranks and readiness, at most */
#define AGENT_LEASE_MS       5000 /* what a look allows holds so long at most: the next four may be late */
#define AGENT_BEHIND_MS      2000 /* applied up to what was durable so long ago: ready … */
#define AGENT_LOST_MS        10000 /* … and beyond this not any more, as of the last end that was confirmed */
#define AGENT_WHY_BYTES_MAX  256

/* Which life of which node is to be asked, and by whom. Strings are borrowed during the call. */
struct agent_probe {
    uint8_t cluster_id[CLUSTER_ID_BYTES];
    struct member_id self; /* slot SLOT_NONE: it has not joined yet */
    uint64_t epoch;        /* records of the control log below it are known here */
    struct member_id of;
    const char *address; /* host:port */
};

/* How far an open partition has come, and its log. */
struct agent_progress {
    bool is_replayed;        /* it is open, and what the log had when it was opened is applied */
    uint64_t applied_offset; /* the next that is to be applied */
    uint64_t end_offset;     /* log_watermarks */
    int64_t confirmed_ns;    /* … INT64_MIN: not yet */
};

/* What the owner does for its agent: called by the agent's thread, without any lock (rank: and by who stops the
 * agent). None waits, none calls the agent but agent_heard and agent_ready. */
struct agent_calls {
    void (*probe)(void *context, const struct agent_probe *probe);
    /* Hold the partition, or let go of it. opening numbers this opening, for agent_ready. */
    void (*open_partition)(void *context, uint32_t partition, uint64_t opening);
    void (*close_partition)(void *context, uint32_t partition);
    /* Why this node is no member; NULL: nothing keeps it from being one any more. */
    void (*trouble)(void *context, const char *why);
    /* The process is to end; the last call there is. */
    void (*stop)(void *context, const char *why, enum core_end end);
    /* Every AGENT_RANK_MS, of each partition that is open, and once when it ceases to be: this node's place among
     * its owners (behind all of them: it is none), and a lease: from until_ns by io_boottime_ns on it cuts and
     * commits nothing, unless it is told anew; INT64_MIN: from now on. For shards_partition_rank as it is. NULL:
     * nobody wants to know. */
    void (*rank)(void *context, uint32_t partition, uint32_t rank, int64_t until_ns);
    /* How far this opening of a partition has come, all zero while it is another's or none (opener_holds);
     * readiness is told to the core by it. A partition that is found closed though the opening is held has closed
     * itself: opener_lost. NULL: readiness is told by agent_ready. */
    struct agent_progress (*progress)(void *context, uint32_t partition, uint64_t opening);
};

struct agent_config {
    struct core_config core;
    struct log *log; /* of one partition; its listener is the agent's until agent_stop */
    struct agent_calls calls;
    void *context; /* of calls */
};

/* Reads the log from its beginning. What config points to is borrowed during the call, but for log and context.
 * Errors ERR_LIMIT, ERR_NOT_FOUND: the log's beginning has been trimmed; ERR_ORDER, ERR_IO. */
err agent_open(const struct agent_config *config, struct io *io, struct pool *pool, struct agent **out_agent);
/* End the thread and every lease, and let go of the log: calls are made no more, what they lead to (a prober, an
 * opener, a server) may be closed, and may call the agent until then. Appends may be on their way: log_close
 * answers them soon, log_drain as late as a log that is away lets it. One of them comes next. */
void agent_stop(struct agent *agent);
/* Free everything, after agent_stop, when the log has answered every append. Nobody calls the agent any more. */
void agent_close(struct agent *agent);

/* One step. False: it has ended (calls.stop was called), and does nothing any more. */
bool agent_step(struct agent *agent);
/* Step on a thread of its own until it has ended or agent_close. */
err agent_run_thread(struct agent *agent);

/* ---- from any thread ---- */

/* That life of a node answered a probe, or sent one. */
void agent_heard(struct agent *agent, struct member_id id);
/* The opening has caught up, or (false) has failed, fallen behind or broken. Of an opening that is over: nothing
 * happens. */
void agent_ready(struct agent *agent, uint32_t partition, uint64_t opening, bool is_ready);
/* As core_join. */
void agent_join(struct agent *agent);
/* As core_leave: ends with calls.stop within CORE_END_MS. From now on this node decides nothing: whoever has read
 * that it left does not count on it, and it may read that last. agent_stop, prober_close and opener_close take 2 s
 * more together, if the opener's config has an abort. */
void agent_leave(struct agent *agent);

/* What was so at the end of the last step. */
struct agent_view {
    uint8_t cluster_id[CLUSTER_ID_BYTES]; /* all zero: not known yet */
    struct member_id self;                /* slot SLOT_NONE: it is not up */
    uint64_t epoch;
    bool has_begun;           /* INIT counted: */
    struct control_init init; /* … this */
    bool is_assigned;         /* partitions have been given to nodes */
    uint32_t up_count;
    uint32_t open_count; /* partitions */
    int64_t known_ns; /* everything decided before is known; INT64_MIN: the log was not read to its end yet */
    bool has_ended;
    bool is_here;                            /* as agent_asked says it of this life, now */
    bool may_decide;                         /* core_may_decide then, and it does not leave */
    int64_t stepped_ns;                      /* by io_boottime_ns */
    int64_t here_until_ns, decides_until_ns; /* if no step is made; INT64_MIN: it is not, does not */
    uint64_t record_count, damaged_count, missing_count; /* of the log, since the start */
    uint64_t refused_count; /* appends that were not acknowledged, or not made for want of room */
    int64_t suspended_ms[AUTOMATION_END]; /* of each automation: for how long more it is; 0: it is not */
    char trouble[AGENT_WHY_BYTES_MAX];    /* empty: none; cut when longer */
};
void agent_view(struct agent *agent, struct agent_view *out_view);

/* Whom to ask for what, as of the last second. Borrowed until agent_close. */
struct routes *agent_routes(struct agent *agent);

/* Slots of the other owners of a partition that this node owns; *out_self: its own. Returns how many; 0 also of a
 * partition that it does not own. */
uint32_t agent_other_owners(struct agent *agent, uint32_t partition, uint32_t out_slots[CLUSTER_REPLICAS_MAX],
                            uint32_t *out_self);

/* Does the lease of the last step hold? It ends by itself AGENT_LEASE_MS after a step that was the last, half the
 * suspect age if that is less, and in time before anybody may put this node out. */
bool agent_may_decide(struct agent *agent);

/* A probe came in: `from` (slot SLOT_NONE: it has not joined) asks whether the life `of` is here. True: it is
 * this one, which answers. Another life than the one that is asked does not answer in its name; nor does this one
 * when its agent has not made a step for AGENT_LEASE_MS, or has not known the log for the suspect age. */
bool agent_asked(struct agent *agent, struct member_id from, struct member_id of);

/* Bugs that tests plant to prove that the simulation finds them; 0 in the server. */
enum agent_plant {
    AGENT_PLANT_NO_BARRIER = 1 << 0,  /* the first end that is met is believed */
    AGENT_PLANT_ANY_END = 1 << 1,     /* what was read is taken for all that was decided */
    AGENT_PLANT_TOLD_END = 1 << 2,    /* any leader is believed that says where the log ends */
    AGENT_PLANT_OLD_OPENING = 1 << 3, /* whatever opening was ready, the present one is */
    AGENT_PLANT_LONG_LEASE = 1 << 4,  /* a rank holds until another is told */
    AGENT_PLANT_HERE_ALWAYS = 1 << 5, /* who is up as it knows the log answers */
    AGENT_PLANT_LEAVE_LATE = 1 << 6,  /* who leaves decides until it has read that it left */
};
void agent_plant(struct agent *agent, unsigned plants);

#endif
