/* The whole cluster in one process, one thread, from one seed: docs/decisions/0021-simulating-the-whole.md.
 *
 *   client ─ ingest ─ log ─ brokers_sim      agent, opener ─ control log ─ brokers_sim
 *   shards ─ bucket_sim, io_sim              sync, fan-out, probes ─ network of delays and cuts (whole_net.c)
 *
 * A node is what cluster_node.c makes of a process, with its threads as fibers (fibers.h) and without HTTP. What
 * is shared by the files of this world: whole_node.c, whole_net.c, whole_model.c, whole_faults.c,
 * whole_simtest.c. Test only. */
#ifndef TESTS_WHOLE_H
#define TESTS_WHOLE_H

#include "base/test.h"

#include <string.h>

#include "agent/agent.h"
#include "base/check.h"
#include "base/time.h"
#include "fanout/fanout.h"
#include "ingest/ingest.h"
#include "log/log_kafka.h"
#include "query/query.h"
#include "shard/shard.h"
#include "sim/brokers_sim.h"
#include "sim/bucket_sim.h"
#include "sim/fibers.h"
#include "sim/io_sim.h"
#include "sync/sync.h"

#define NODES_MAX      5
#define PARTITIONS     4
#define SERIES_LASTING 16
#define SERIES_BRIEF   112 /* each is written for BRIEF_MS, one after the other, and never again */
#define SERIES         (SERIES_LASTING + SERIES_BRIEF)
#define BRIEF_MS       15000
#define ROWS_MAX       65536
#define ATTEMPTS_MAX   16384
#define LIVES_MAX      1024
#define REQUEST_ROWS   6
#define TICK_MS        10
#define SUSPECT_MS     15000
#define REPAIR_MS      30000
#define REST_MS        120000 /* all converges in that time once the faults have ended */
#define START_MS       INT64_C(1700000000000)
#define TOPIC_CONTROL  0
#define TOPIC_DATA     1
#define RETENTION_MS   (INT64_C(10) * MS_PER_MINUTE) /* of the log, at first */

/* clang-format off */
#define WHOLE_EVENTS(X) \
    /* of nodes */ \
    X(START) X(JOINED) X(ENDED_ITSELF) X(STOPPED_IN_ORDER) X(ZOMBIE) X(PARTITION_OPENED) X(OPEN_FAILED) \
    X(OPENED_FROM_BUCKET) X(HAND_OVER) X(DECIDES_NOT) \
    /* of the network */ \
    X(PROBE) X(PROBE_LOST) X(PROBE_TWICE) X(PROBE_ANSWERED) X(CALL) X(CALL_STUCK) X(CALL_BROKEN) X(CALL_SERVED) \
    X(CALL_WITHIN) \
    X(SUMS_ASKED) X(SUMS_LOST) \
    /* of clients */ \
    X(WRITE_ACKED) X(WRITE_FAILED) X(WRITE_UNKNOWN) \
    X(QUERY) X(QUERY_COMPLETE) X(QUERY_INCOMPLETE) X(QUERY_FAILED) X(QUERY_STRONG) X(QUERY_GROUPS) \
    X(HAND_OVER_UNDER_QUERY) \
    /* of chains and logs */ \
    X(CUT_LOST) X(GENERATION) X(LOSS_NAMED)
/* clang-format on */
enum whole_event {
#define WHOLE_EVENT_ENUM(name) EVENT_##name,
    WHOLE_EVENTS(WHOLE_EVENT_ENUM)
#undef WHOLE_EVENT_ENUM
        EVENT_COUNT,
};

/* Bugs that tests plant, each to be found by one oracle. Of the world's own parts; others are the rooms'. */
struct whole_plants {
    unsigned agent, kafka;
    uint32_t ingest;
    uint32_t shard, shard_of_one; /* of every node; of the first one besides */
    bool no_guard;                /* nobody raises the log's retention */
    bool no_opening_again;        /* … or finds that a partition has closed itself */
};

/* ---- faults ---- */

/* clang-format off */
#define FAULT_KINDS(X) \
    /* of processes */ \
    X(NODE_KILL) X(NODE_POWER) X(NODE_WIPE) X(NODE_FREEZE) X(NODE_LEAVE) X(PARTITION_CLOSED) \
    /* of ways from a node */ \
    X(PEER_CUT) X(PEER_LOSS) X(PEER_SLOW) X(PEERS_CUT) X(LOG_CUT) X(ISLAND) \
    /* of brokers */ \
    X(BROKER_KILL) X(BROKER_POWER) X(BROKER_PAUSE) X(BROKER_CUT) X(BROKER_SLOW) X(LEADER_MOVE) X(LOG_BACK) \
    /* of the bucket */ \
    X(BUCKET_CUT) X(BUCKET_AWAY) X(BUCKET_BAD) \
    /* of machines */ \
    X(DISK) X(CLOCK_JUMP) X(CLOCK_DRIFT)
/* clang-format on */
enum fault_kind {
#define FAULT_ENUM(name) FAULT_##name,
    FAULT_KINDS(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_KIND_COUNT,
};
const char *fault_name(enum fault_kind kind);

struct fault {
    int64_t at_ms, for_ms;
    enum fault_kind kind;
    uint32_t node, other, broker;
    uint64_t x;       /* whatever else it depends on */
    bool is_left_out; /* by who shrinks a life */
    bool is_on, has_struck, is_skipped;
};
#define FAULTS_MAX 256

/* ---- a node ---- */

struct whole;
struct whole_node;

/* What lives as long as a process does, all in its pool. */
struct whole_process {
    struct whole_node *node;
    struct pool *pool;
    struct fiber_group *group;
    struct kafka_client *clients[2];
    struct log *logs[2];
    struct agent *agent; /* NULL: not yet */
    struct opener *opener;
    struct blob *blob;
    struct shards *shards;
    struct sync *sync;
    struct fanout *fanout;
    struct query_service *queries;
    struct ingest *ingest;
    bool is_ready;         /* all of these are there */
    bool is_told_to_leave; /* by a fault: it ends in order */
    bool has_ended;        /* its agent says so */
    bool is_over;          /* it has stopped in order, and is to be cleaned up */
    bool is_stopping;      /* sync is to end */
    struct fiber *sync_fiber;
    bool was_up; /* as a member */
    bool was_deciding;
    uint32_t busy_requests;
    int64_t joined_ms;
};

struct whole_node {
    struct whole *whole;
    uint32_t number;
    char name[4], zone[4], address[4];
    struct io *io;                 /* its disk and clocks, which outlive processes */
    unsigned disk;                 /* grows when it is emptied */
    struct whole_process *process; /* NULL: none runs */
    unsigned life;                 /* number of the process */
    int64_t not_before_ms, frozen_until_ms;
    int64_t drift_ppm;
    struct member_id evicted; /* the life that was put out while its process ran */
    bool is_zombie;
    bool cannot_reach[NODES_MAX]; /* from here to there */
    uint32_t loss_one_in;         /* of messages from here; 0: none */
    int64_t slow_ms;              /* more for each */
};

/* ---- the model ---- */

struct whole_row {
    uint32_t series, attempt, seen; /* seen: number of the check that found it */
    uint32_t partition;
    uint64_t offset;  /* of the first record in the log that has it; UINT64_MAX: none was seen … */
    int64_t found_ms; /* … and when it was */
    int64_t t_ms;
};

/* What was acknowledged in that time the log may have lost. */
struct whole_loss {
    int64_t from_ns, to_ns;
};
#define LOSSES_MAX 256

/* One request of a client. */
struct whole_attempt {
    uint32_t first, count, node;
    unsigned life;    /* of the node's process that it was sent to */
    int64_t acked_ns; /* INT64_MAX: it was not */
    bool is_refused;  /* for sure: nothing of it is stored */
};

/* ---- the world ---- */

struct whole_call; /* whole_net.c */
struct whole_tail; /* whole_model.c */

struct whole_message {
    int64_t at_ms;
    uint32_t from, to;
    unsigned life; /* of the sender, whom the answer is for */
    bool is_answer;
    struct member_id sender, of;
};

#define MESSAGES_MAX 4096

struct whole {
    uint64_t seed;
    struct test_random random;
    struct whole_plants plants;
    struct pool *pool; /* the world's own */
    struct brokers_sim *brokers;
    struct bucket_sim *bucket;
    struct whole_node nodes[NODES_MAX];
    uint32_t node_count, zone_count;
    struct whole_message messages[MESSAGES_MAX];
    size_t message_count;
    struct whole_call *calls;
    bool is_faulty; /* chance events of the world's own parts */
    bool is_quiet;  /* clients write no more */
    bool goes_back; /* the log may, in this life … */
    bool has_gone_back;
    struct whole_loss losses[LOSSES_MAX];
    size_t loss_count;
    int64_t faulty_ms; /* until then */
    struct fault faults[FAULTS_MAX];
    size_t fault_count;
    uint64_t fault_counts[FAULT_KIND_COUNT];
    struct members *members; /* the fold of what is committed */
    uint64_t folded, control_generation;
    unsigned lives;
    int64_t ended_ms[LIVES_MAX]; /* by the number of a process's life; 0: it has not */
    struct whole_row *rows;
    uint32_t row_count;
    struct whole_attempt *attempts;
    uint32_t attempt_count, checks;
    struct slice labels[SERIES];
    int64_t last_t_ms[SERIES];
    struct whole_tail *tails; /* of each partition: what the log was given */
    uint64_t owners;          /* a hash of who owns what; changes of it are hand-overs */
    uint64_t hand_overs;
    int64_t query_at_ms;
    uint32_t answered_check; /* number of the last check of an answer that was complete … */
    bool was_answered[NODES_MAX];
    uint64_t events[EVENT_COUNT];
    uint64_t trace;
    int64_t rest_ms; /* until all was at rest */
    char violation[256];
};

const char *whole_event_name(enum whole_event event);

static inline uint64_t whole_below(struct whole *w, uint64_t bound)
{
    return test_random_below(&w->random, bound);
}
static inline bool whole_chance(struct whole *w, uint64_t one_in) { return whole_below(w, one_in) == 0; }
static inline int64_t whole_now_ms(void) { return fibers_now_ns() / NS_PER_MS; }

static inline void whole_note(struct whole *w, enum whole_event event, uint64_t a, uint64_t b)
{
    w->events[event]++;
    w->trace = hash_mix(w->trace ^
                        hash_mix((uint64_t)event ^ hash_mix(a ^ hash_mix(b ^ (uint64_t)fibers_now_ns()))));
}

/* The first one counts; the life ends with it. */
void whole_violate(struct whole *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool whole_is_verbose(void);

/* ---- whole_node.c ---- */

/* A process of the node begins; of its disk what earlier ones left is there. */
void node_start(struct whole_node *node);
/* kill −9, or with is_power the loss of power: what was not synced may be gone. */
void node_kill(struct whole_node *node, bool is_power);
void node_wipe(struct whole_node *node); /* kill, and an empty disk */
void node_freeze(struct whole_node *node, int64_t ms);
void node_pass(struct whole_node *node); /* each tick: starts, thaws, cleans up; judges what its agent says */
bool node_is_alive(const struct whole_node *node); /* it runs, and is not frozen */

/* ---- whole_net.c ---- */

void net_probe(void *context, const struct agent_probe *probe); /* context: a whole_process */
void net_transport(struct whole_process *process, struct fanout_transport *out_transport);
/* As sync_config.ask; context: a whole_process. */
err net_ask_sums(void *context, uint32_t slot, const struct sync_request *request,
                 struct shard_sums *out_sums);
void net_pass(struct whole *w); /* what is due arrives */
void net_close(struct whole *w);

/* ---- whole_faults.c ---- */

void faults_plan(struct whole *w); /* of the seed; nothing has happened yet */
void faults_pass(struct whole *w); /* each tick: what is due strikes, or is undone */
void faults_heal(struct whole *w); /* all of it is over */

/* ---- whole_model.c ---- */

void model_open(struct whole *w);
void model_close(struct whole *w);
void model_write(
    void *context); /* a client's thread, as long as its process lives; context: a whole_process */
void model_query(struct whole_node *node, bool is_strong); /* in a fiber of its process */
void model_pass(
    struct whole *w); /* each tick: the control log's fold, queries, what expired, what went back */
/* Why the cluster is not at rest yet; NULL: it is. Looks at no answer. */
const char *model_unrest(struct whole *w);
/* A strong query at every node, when no client writes. True: all of them are answered, and complete. */
bool model_last_queries(struct whole *w);
/* SUMs, chains and replicas against the model, at rest. */
void model_judge_rest(struct whole *w);

#endif
