/* Simulated Kafka brokers behind log/kafka_client.h: one thread, one seed, time that only the test advances.
 *
 * A test (the world) opens the brokers, takes one client for each node and topic, lets time pass, and strikes with
 * the faults below. The model follows what real brokers were seen to do: a log of its own for each replica, leader
 * epochs, in-sync replicas, a high watermark, records that a power cut takes because nobody had flushed them, and
 * leaders that do not know yet that they are none.
 *
 * The world must let time pass in steps not longer than it wants answers to be late: kafka_poll gives what is due
 * now, whatever its budget, unless the world knows how to wait (brokers_sim_on_wait). Positions that name a
 * generation count how often the committed log went back. */
#ifndef TESTS_BROKERS_SIM_H
#define TESTS_BROKERS_SIM_H

#include "log/kafka_client.h"

#define BROKERS_SIM_BROKERS_MAX 5
#define BROKERS_SIM_NODES_MAX   16
#define BROKERS_SIM_TOPICS_MAX  2
#define BROKERS_SIM_CALM \
    BROKERS_SIM_NODES_MAX /* a node whose clients no fault touches: for the test's checks */

/* Ends of links: brokers are 0 … broker_count − 1. */
#define BROKERS_SIM_CONTROLLER   BROKERS_SIM_BROKERS_MAX
#define BROKERS_SIM_AT_NODE(n)   (BROKERS_SIM_BROKERS_MAX + 1 + (n))
#define BROKERS_SIM_PLACES_COUNT BROKERS_SIM_AT_NODE(BROKERS_SIM_NODES_MAX + 1)

struct brokers_sim_topic {
    uint32_t partition_count; /* 0: the topic is not there until somebody creates it */
    int64_t retention_ms;     /* −1: for ever */
    bool is_append_time;
};

struct brokers_sim_config {
    uint32_t broker_count; /* 3 … BROKERS_SIM_BROKERS_MAX; three of them hold each partition */
    uint32_t zone_count;   /* brokers are dealt to zones in turn */
    struct brokers_sim_topic topics[BROKERS_SIM_TOPICS_MAX];
    uint32_t topic_count;
    bool is_calm;    /* no chance events of their own: only the world's faults */
    bool is_gapless; /* nobody else's control records between the appended ones */
};

struct brokers_sim;

struct brokers_sim *brokers_sim_open(uint64_t seed, const struct brokers_sim_config *config);
/* Clients need not be closed before. NULL is allowed. */
void brokers_sim_close(struct brokers_sim *sim);

/* Let time pass; everything that is due happens. */
void brokers_sim_advance(struct brokers_sim *sim, int64_t ms);
int64_t brokers_sim_now_ms(const struct brokers_sim *sim);

/* kafka_poll with a budget and nothing to tell calls wait, which is to come back when is_ready(client) or when
 * budget_ms have passed: the world runs its processes as fibers. */
void brokers_sim_on_wait(struct brokers_sim *sim,
                         void (*wait)(bool (*is_ready)(void *client), void *client, int64_t budget_ms));

/* A client of a topic for a node; it must not be open already. config: sizes and times are used; NULL: 1 MiB
 * records and reading, 4 MiB sending, 5 ms, 5 s and 30 s. Closed with kafka_client_close. */
struct kafka_client *brokers_sim_client(struct brokers_sim *sim, uint32_t node, uint32_t topic,
                                        const struct kafka_client_config *config);
/* The node's process dies: its client is gone with every cookie; requests on their way are carried out. */
void brokers_sim_client_drop(struct kafka_client *client);
/* The node's process stands still, or goes on. Not polled meanwhile. */
void brokers_sim_client_freeze(struct kafka_client *client, bool is_frozen);
/* The node's credentials are refused from now on, or taken again. */
void brokers_sim_client_deny(struct kafka_client *client, bool is_denied);

/* ---- faults of brokers ---- */
void brokers_sim_kill(struct brokers_sim *sim, uint32_t broker); /* kill −9: what was written stays */
void brokers_sim_lose_power(struct brokers_sim *sim,
                            uint32_t broker);                     /* unflushed ends are lost, no goodbye */
void brokers_sim_wipe(struct brokers_sim *sim, uint32_t broker);  /* stops it if it runs; its disk is empty */
void brokers_sim_start(struct brokers_sim *sim, uint32_t broker); /* serves some seconds later */
void brokers_sim_pause(struct brokers_sim *sim, uint32_t broker); /* SIGSTOP */
void brokers_sim_resume(struct brokers_sim *sim, uint32_t broker); /* knows no news for some 100 ms */
void brokers_sim_slow(struct brokers_sim *sim, uint32_t broker,
                      int64_t ms); /* every message from and to it */
void brokers_sim_skew(struct brokers_sim *sim, uint32_t broker, int64_t ms); /* its wall clock */
bool brokers_sim_is_up(const struct brokers_sim *sim, uint32_t broker); /* not killed, paused or booting */
uint32_t brokers_sim_zone(const struct brokers_sim *sim, uint32_t broker);

/* Messages in this direction are lost, or pass again. */
void brokers_sim_cut(struct brokers_sim *sim, uint32_t from, uint32_t to, bool is_cut);
/* Undo every cut, pause, slowness and skew, and start who is down. */
void brokers_sim_heal(struct brokers_sim *sim);
/* From now on nothing happens by chance: no message is lost, no producer fails for good. */
void brokers_sim_calm(struct brokers_sim *sim);

/* ---- faults of a partition ---- */
/* Let the controller make this broker the leader, if it is in sync and lives. */
void brokers_sim_move_leader(struct brokers_sim *sim, uint32_t topic, uint32_t partition, uint32_t broker);
/* Every replica loses its records from `end` on, as after a loss of power of all: the log goes back. */
void brokers_sim_truncate_last_replica(struct brokers_sim *sim, uint32_t topic, uint32_t partition,
                                       uint64_t end);
/* Records below `before`, at most up to the committed end, expire. */
void brokers_sim_expire_records(struct brokers_sim *sim, uint32_t topic, uint32_t partition, uint64_t before);
/* Records [from, to) vanish from the middle of the log, below its committed end. */
void brokers_sim_punch_hole(struct brokers_sim *sim, uint32_t topic, uint32_t partition, uint64_t from,
                            uint64_t to);
/* The topic is deleted, and with `again` created under another id with the same settings. */
void brokers_sim_delete_topic(struct brokers_sim *sim, uint32_t topic, bool again);

/* ---- the truth, for oracles ---- */
struct brokers_sim_truth {
    uint64_t generation; /* grows each time the committed log lost its end, a new topic included */
    uint64_t start_offset, end_offset;
};
struct brokers_sim_truth brokers_sim_truth(const struct brokers_sim *sim, uint32_t topic, uint32_t partition);

/* The committed log went from `end` back to `at`, which ended generation `generation`. */
struct brokers_sim_back {
    uint64_t generation, at, end;
    int64_t when_ms;
};
const struct brokers_sim_back *brokers_sim_backs(const struct brokers_sim *sim, uint32_t topic,
                                                 uint32_t partition, size_t *out_count);

struct brokers_sim_record {
    struct slice bytes; /* at NULL: no record has this offset (a control record, or a hole) */
    int32_t leader_epoch;
    uint64_t producer; /* id of the library's making; changes within a producer's life */
    int64_t t_ms;
};
/* The committed record at an offset; borrowed until time passes. False: not within the truth. */
bool brokers_sim_truth_record(const struct brokers_sim *sim, uint32_t topic, uint32_t partition,
                              uint64_t offset, struct brokers_sim_record *out_record);

/* ---- what happened ---- */
/* clang-format off */
#define BROKERS_SIM_COUNTS(X) \
    /* events as they were polled */ \
    X(DELIVERED_ACKED) X(DELIVERED_NOT_STORED) X(DELIVERED_MAYBE) X(PRODUCER_FATAL) \
    X(PRODUCER_STOPPED) X(RECORD) X(PARTITION_END) X(OUT_OF_RANGE) X(TRUNCATED) X(READ_FAILED) \
    X(ENDS) X(TOPIC) X(DONE) X(TROUBLE) \
    /* faults that the world ordered */ \
    X(KILL) X(POWER) X(WIPE) X(START) X(PAUSE) X(RESUME) X(SLOW) X(SKEW) X(CUT) X(MOVE_LEADER) \
    X(TRUNCATE_LAST) X(EXPIRE) X(HOLE) X(RECREATE) X(DROP) X(FREEZE) X(DENY) \
    /* what followed among the brokers */ \
    X(ELECTION) X(ISR_SHRINK) X(ISR_GROW) X(FOLLOWER_CUT_BACK) X(LOG_WENT_BACK) X(CONTROL_RECORD) \
    X(EXPIRED_BY_AGE) X(REFUSED_NOT_LEADER) X(REFUSED_FEW_REPLICAS) X(FEW_REPLICAS_AFTER) \
    X(REFUSED_TOO_LARGE) X(APPENDED_BY_ZOMBIE) \
    /* what followed between them and clients */ \
    X(REPLY_LOST) X(DEDUPED) X(SEQUENCE_GAP) X(ID_CHANGED) X(STORED_TWICE) \
    X(STORED_AFTER_GIVEN_UP) X(ACKED_BELOW_LAST) X(IMPLIED) \
    X(OUT_OF_RANGE_FALSE) X(TRUNCATED_FALSE) X(TRUNCATED_UNKNOWN) X(ENDS_STALE) X(ASK_TIMED_OUT) \
    X(ORDER_AFTER_TIMEOUT) X(BUSY) X(READING_BLOCKED)
/* clang-format on */
enum brokers_sim_count {
#define BROKERS_SIM_COUNT_ENUM(name) BROKERS_SIM_COUNT_##name,
    BROKERS_SIM_COUNTS(BROKERS_SIM_COUNT_ENUM)
#undef BROKERS_SIM_COUNT_ENUM
        BROKERS_SIM_COUNT_END,
};
const char *brokers_sim_count_name(enum brokers_sim_count count);
/* BROKERS_SIM_COUNT_END numbers. */
const uint64_t *brokers_sim_counts(const struct brokers_sim *sim);

/* A hash over appends, elections and events: same seed and same calls, same hash. */
uint64_t brokers_sim_trace(const struct brokers_sim *sim);
size_t brokers_sim_bytes(const struct brokers_sim *sim); /* memory in use */

#endif
