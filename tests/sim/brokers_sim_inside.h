/* What the files of the simulated brokers share; brokers_sim.h is their face. */
#ifndef TESTS_BROKERS_SIM_INSIDE_H
#define TESTS_BROKERS_SIM_INSIDE_H

#include "sim/brokers_sim.h"

#define BROKERS_MAX   BROKERS_SIM_BROKERS_MAX
#define NOBODY        (-1)
#define START_WALL_MS INT64_C(1700000000000)
#define WINDOW        64 /* records of a producer whose offsets a broker remembers */
#define PRODUCERS_MAX 16 /* producers that a replica remembers */
#define LATER_MS      50 /* until something that does not go now is tried again */

/* ---- logs (brokers_sim_log.c) ---- */
struct blob { /* a record's bytes, shared by all who hold them */
    uint32_t refs, truth_refs, len;
    uint8_t bytes[];
};

struct entry {
    struct blob *blob; /* NULL: nothing for readers */
    uint64_t producer;
    uint32_t sequence;
    int32_t epoch;
    int64_t t_ms;
};

struct log_sim {
    struct entry *entries;
    size_t capacity, skip; /* skip: entries at the front that are gone */
    uint64_t start, end;
};

struct epoch_start {
    int32_t epoch;
    uint64_t at;
};

struct producer_memory {
    uint64_t id, last_use;
    uint32_t next_sequence;
    uint64_t offsets[WINDOW]; /* of sequence % WINDOW */
};

struct request {
    struct request *next;
    struct client *client;
    uint32_t client_life, producer_life, topic, partition, count, base, connection;
    uint64_t id, producer;
    int32_t broker;
    int64_t give_up_ms; /* the broker's patience */
    uint64_t first;     /* its first offset, once written */
    enum answer {
        ANSWER_OK,
        ANSWER_DISCONNECT,
        ANSWER_NOT_LEADER,
        ANSWER_UNKNOWN_TOPIC,
        ANSWER_FEW_REPLICAS,
        ANSWER_FEW_AFTER,
        ANSWER_TOO_LARGE,
        ANSWER_GAP,
        ANSWER_OLD_DOUBLE, /* stored already, and nobody knows where */
        ANSWER_TIMEOUT,
        ANSWER_DENIED,
    } answer;
    struct {
        struct blob *blob;
        int64_t t_ms;
    } records[];
};

struct replica {
    struct log_sim log;
    struct epoch_start *epochs;
    size_t epoch_count, epoch_capacity;
    struct producer_memory *producers;
    size_t producer_count, producer_capacity;
    uint64_t hw, flushed;
    uint32_t life; /* of the topic, as this broker knows it; 0: not there */
    /* What this broker believes. */
    int32_t leader, epoch;
    uint32_t isr;
    /* As leader. */
    uint64_t epoch_start, match[BROKERS_MAX];
    int64_t caught_up_ms[BROKERS_MAX];
    struct request *waiting; /* written, not yet held by all in sync */
    /* As follower. */
    bool must_agree; /* by epochs, before it fetches */
    bool is_fetching;
};

struct part {
    uint32_t topic, index, replicas, isr;
    int32_t leader, epoch, preferred;
    uint64_t version; /* of the cluster's metadata, at the last change */
    struct replica replica[BROKERS_MAX];
    struct log_sim truth;
    struct brokers_sim_back *backs;
    size_t back_count, back_capacity;
};

struct topic {
    uint32_t life; /* 0: not there */
    uint32_t last_life;
    struct kafka_topic settings;
    struct part *parts[LOG_PARTITION_COUNT_MAX];
    uint32_t parts_made;
};

enum power { POWER_UP, POWER_KILLED, POWER_OFF };

struct broker {
    enum power power;
    bool is_paused, is_booting, is_fenced, is_view_due;
    int64_t boot_ms, heard_ms, view_not_before_ms, slow_ms, skew_ms, flush_ms;
    uint64_t view_version;
    uint32_t topic_life[BROKERS_SIM_TOPICS_MAX];
    struct request *inbox, **inbox_tail; /* lies in its sockets while it is paused */
};

enum action_kind {
    ACTION_TICK,
    ACTION_VIEW,      /* broker */
    ACTION_REPLICATE, /* part, broker: the follower */
    ACTION_REQUEST,   /* request, at its broker */
    ACTION_ANSWER,    /* request, at its client */
    ACTION_SEND,      /* client, partition */
    ACTION_FETCH,     /* client, partition, life of the reading */
    ACTION_ASK,       /* client, number: the ask's */
    ACTION_CLIENT_TICK,
};

struct action {
    int64_t at_ms;
    uint64_t order, number;
    enum action_kind kind;
    uint32_t client_life, partition, life, broker;
    struct part *part;
    struct request *request;
    struct client *client;
};

struct odds {
    uint64_t net_ms, lost_one_in, fatal_one_in, gap_one_in, stale_one_in, trouble_one_in, batch, flush_ms;
    int64_t session_ms, lag_ms;
};

struct brokers_sim {
    struct pool *pool;
    struct brokers_sim_config config;
    struct odds odds;
    uint64_t random, orders, numbers, version, trace;
    int64_t now_ms;
    struct action *heap;
    size_t heap_count, heap_capacity;
    struct broker brokers[BROKERS_MAX];
    struct topic topics[BROKERS_SIM_TOPICS_MAX];
    struct client *clients[BROKERS_SIM_NODES_MAX + 1][BROKERS_SIM_TOPICS_MAX];
    bool is_cut[BROKERS_SIM_PLACES_COUNT][BROKERS_SIM_PLACES_COUNT];
    int64_t balance_ms, expiry_ms;
    uint64_t counts[BROKERS_SIM_COUNT_END];
    void (*wait)(bool (*is_ready)(void *client), void *client, int64_t budget_ms); /* NULL: nobody waits */
};

#define COUNT(sim, name) ((sim)->counts[BROKERS_SIM_COUNT_##name]++)

uint64_t sim_below(struct brokers_sim *sim, uint64_t bound);
bool sim_chance(struct brokers_sim *sim, uint64_t one_in); /* 0: never */
void sim_trace(struct brokers_sim *sim, uint64_t a, uint64_t b);
void sim_at(struct brokers_sim *sim, int64_t delay_ms, struct action action);

struct blob *blob_new(struct brokers_sim *sim, const struct slice *parts, size_t part_count);
struct blob *blob_ref(struct blob *blob); /* NULL is allowed, here and below */
void blob_drop(struct brokers_sim *sim, struct blob *blob);
struct entry *log_sim_at(const struct log_sim *log, uint64_t offset);
void log_sim_push(struct brokers_sim *sim, struct log_sim *log, struct entry entry); /* takes a reference */
void log_sim_truncate(struct brokers_sim *sim, struct log_sim *log, uint64_t end);
void log_sim_advance(struct brokers_sim *sim, struct log_sim *log, uint64_t start);
void log_sim_reset(struct brokers_sim *sim, struct log_sim *log, uint64_t start);
void replica_append(struct brokers_sim *sim, struct replica *r, struct entry entry);
void replica_truncate(struct brokers_sim *sim, struct replica *r, uint64_t end);
void replica_reset(struct brokers_sim *sim, struct replica *r, uint64_t start);
void replica_begin_epoch(struct brokers_sim *sim, struct replica *r, int32_t epoch);
/* OffsetsForLeaderEpoch: the highest epoch not above the one asked for, and its end. Both −1: unknown. */
int64_t replica_epoch_end(const struct replica *r, int32_t epoch, int32_t *out_epoch);
struct producer_memory *replica_producer(struct replica *r, uint64_t id); /* NULL: not known */

/* ---- brokers (brokers_sim.c) ---- */
bool broker_runs(const struct brokers_sim *sim, int32_t broker);
int64_t broker_delay_ms(struct brokers_sim *sim, int32_t broker);
struct part *part_at(struct brokers_sim *sim, uint32_t topic, uint32_t partition); /* NULL: not there */
void part_appoint(struct brokers_sim *sim, struct part *part, int32_t leader);     /* under a new epoch */
void part_shorten_truth(struct brokers_sim *sim, struct part *part, uint64_t at);
void broker_fence(struct brokers_sim *sim, uint32_t broker);
void part_expire(struct brokers_sim *sim, struct part *part, uint64_t before);
void request_done(struct brokers_sim *sim, struct request *request, enum answer answer);
/* It vanishes without a word. */
void request_vanish(struct brokers_sim *sim, struct request *request);
void request_free(struct brokers_sim *sim, struct request *request);
void topic_create(struct brokers_sim *sim, uint32_t topic, uint32_t partition_count);
void cluster_changed(struct brokers_sim *sim);

/* ---- clients (brokers_sim_client.c, brokers_sim_read.c) ---- */
struct sending {
    struct sending *next; /* of its partition, in produce order */
    struct blob *blob;
    uint64_t cookie, request; /* request: it is in flight in; 0: queued */
    uint64_t batch;           /* the request that it was first sent in: retries keep batches together */
    int64_t t_ms, deadline_ms;
    uint32_t sequence, bytes;
    bool is_numbered; /* by the producer's present id */
    bool is_maybe;    /* an attempt ended without a word that it was not written */
};

struct flight {
    uint64_t request; /* 0: free */
    int32_t broker;
    int64_t give_up_ms;
};

struct outbox { /* records of a partition that are not answered */
    struct sending *first, **last;
    struct flight flights[5];
    uint32_t next_sequence;
    uint64_t acked_end; /* behind the record acknowledged last */
    int64_t not_before_ms;
    bool is_due; /* a send action is under way */
};

struct reading {
    bool is_assigned, has_failed, is_due, is_waiting; /* waiting: at a broker, for more to come */
    uint32_t life;
    uint64_t offset, end_told;
    int32_t epoch;        /* of the record before offset */
    int32_t leader_epoch; /* the leader that checked it; −1: nobody yet */
    uint32_t checked_life;
    int32_t wait_broker;
    int64_t missing_ms; /* since when there is no such partition; −1: there is */
};

struct metadata { /* as one library object has it */
    bool is_known;
    uint32_t life, partition_count;
    int64_t next_ms;
    struct {
        int32_t leader, epoch;
    } at[LOG_PARTITION_COUNT_MAX];
};

struct told { /* an event not yet polled */
    struct told *next;
    struct kafka_event event;
    int64_t due_ms;
    struct sending *sending;
    struct blob *blob;
    struct ask *ask;
    size_t bytes; /* of the reading's bound */
    char text[96];
};

struct told_list {
    struct told *first, **last;
};

enum ask_kind { ASK_ENDS, ASK_TOPIC, ASK_CREATE, ASK_RETENTION, ASK_DELETE };

struct ask {
    struct ask *next;
    enum ask_kind kind;
    uint64_t cookie, number, before;
    int64_t deadline_ms, retention_ms;
    uint32_t partition;
    bool is_lost, is_done; /* lost: its reply will be; done: it is on its way */
    err result;
    uint64_t offset;
    struct kafka_topic topic; /* CREATE: as wanted */
    size_t count;
    struct kafka_ends ends[];
};

enum producer_state { PRODUCER_NONE, PRODUCER_RUNS, PRODUCER_FATAL, PRODUCER_PURGES, PRODUCER_VANISHES };

struct client {
    struct kafka_client face;
    struct brokers_sim *sim;
    uint32_t node, topic, life;
    bool is_open, is_calm, is_frozen, is_denied, is_woken;
    struct kafka_client_config config;
    struct metadata of_producer, of_reader;
    enum producer_state state;
    uint32_t producer_life;
    uint64_t producer; /* the library's id; 0: not given yet */
    int64_t producer_ms, purge_ms,
        vanish_ms;       /* when an id comes, when the rest is answered, when it is gone */
    bool is_changing_id; /* when nothing is in flight any more */
    struct outbox outbox[LOG_PARTITION_COUNT_MAX];
    uint64_t sending_bytes;
    /* The producer's connections: they keep the order, and what is lost of one is followed by nothing. */
    int64_t sent_ms[BROKERS_MAX], answered_ms[BROKERS_MAX];
    uint32_t connection[BROKERS_MAX];
    bool is_broken[BROKERS_MAX];
    struct reading reading[LOG_PARTITION_COUNT_MAX];
    struct told_list replies, records;
    struct told *held; /* the event that was polled last */
    size_t record_bytes;
    int64_t record_ms;
    struct ask *asks;
    unsigned ask_count, trouble_count;
    uint32_t partitions_used; /* highest that was ever touched, and one */
};

bool client_reaches(const struct client *client, int32_t broker); /* the way there */
bool client_hears(const struct client *client, int32_t broker);   /* the way back */
bool client_talks(const struct client *client, int32_t broker);   /* both, and the broker runs */
int32_t client_any_broker(struct client *client);                 /* that it talks to; NOBODY */
int64_t client_delay_ms(struct client *client, int32_t broker);
void client_refresh(struct client *client, struct metadata *of);
struct told *client_tell(struct client *client, struct told_list *list, enum kafka_event_kind kind,
                         err result, const char *text);
void client_trouble(struct client *client, enum kafka_trouble trouble, const char *text);
void client_forget(struct client *client, struct told_list *list, int64_t partition); /* −1: all */
void reading_fetch(struct client *client, uint32_t partition, uint32_t life);
void reading_tick(struct client *client, uint32_t partition);
void reading_wake(struct client *client, uint32_t partition, int64_t delay_ms);
void ask_act(struct client *client, uint64_t number);
void asks_forget(struct client *client);
err reading_assign(struct kafka_client *face, uint32_t partition, uint64_t offset, int32_t leader_epoch);
void reading_unassign(struct kafka_client *face, uint32_t partition);
err ask_ends(struct kafka_client *face, const uint32_t *partitions, size_t count, int64_t budget_ms,
             uint64_t cookie);
err ask_topic(struct kafka_client *face, int64_t budget_ms, uint64_t cookie);
err ask_create(struct kafka_client *face, const struct kafka_new_topic *topic, int64_t budget_ms,
               uint64_t cookie);
err ask_retention(struct kafka_client *face, int64_t retention_ms, int64_t budget_ms, uint64_t cookie);
err ask_delete(struct kafka_client *face, uint32_t partition, uint64_t before, int64_t budget_ms,
               uint64_t cookie);

void client_act(const struct action *action);
/* Some libraries ask a broker first that came back, and believe it. */
void clients_believe(struct brokers_sim *sim, int32_t broker);
void clients_wake_readers(struct brokers_sim *sim, struct part *part, uint32_t broker);

#endif
