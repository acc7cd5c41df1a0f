/* Replicas over the Kafka driver and simulated brokers: replicas.h. Brokers die, lose power, freeze, are cut off
 * and slow, and the log goes back as a replicated one does that lost the disks of all who had its end.
 * KELPIE_SIM=full or --full runs more lives; an argument is the seed of one.
 *
 * What the log lost is known from the brokers' truth when all is healed: an acknowledged record that is not at its
 * offset there. Its process names it if it lives since; of a process that died nobody is asked. */
#include "sim/replicas.h"

#include "base/time.h"
#include "log/log_kafka.h"
#include "sim/brokers_sim.h"

#define STEP_NS     (50 * NS_PER_MS)
#define STEP_MAX_NS (500 * NS_PER_MS)
#define DELIVERY_MS 30000

static bool is_full;

struct ground_state {
    struct brokers_sim *brokers;
    struct kafka_client *clients[REPLICA_COUNT];
    size_t life_begins; /* the first record of the producer's process */
    int64_t resume_ms[3];
    size_t backs_seen[WORLD_PARTITIONS];
};

static struct ground_state *state_of(struct life *l) { return l->ground_state; }

static void ground_begin(struct life *l, uint64_t seed)
{
    struct brokers_sim_config config = { .broker_count = 3,
                                         .zone_count = 3,
                                         .topics = { { WORLD_PARTITIONS, -1, seed % 2 == 0 } },
                                         .topic_count = 1,
                                         .is_calm = seed / 8 % 4 == 0,
                                         .is_gapless = true }; /* a gap is a loss that is named */
    void *at;
    assert_ok(pool_zalloc(l->w.node_pool, sizeof(struct ground_state), &at));
    l->ground_state = at;
    l->is_heard_late = l->is_told_roughly = true;
    state_of(l)->brokers = brokers_sim_open(seed, &config);
}

static void ground_end(struct life *l) { brokers_sim_close(state_of(l)->brokers); }

static void process_open(struct life *l, uint32_t k)
{
    static const struct kafka_client_config client = { .record_bytes_max = 1 << 20,
                                                       .send_bytes_max = 4 << 20,
                                                       .read_bytes_max = 1 << 20,
                                                       .linger_ms = 5,
                                                       .socket_timeout_ms = 5000,
                                                       .delivery_ms_max = DELIVERY_MS };
    const struct log_kafka_config config = { .cluster_id = "the cluster",
                                             .partition_count = WORLD_PARTITIONS,
                                             .queue_bytes_max = 8 << 20,
                                             .tail_bytes_max = 4 << 20,
                                             .delivery_ms_max = DELIVERY_MS,
                                             .accept_weak_topic = true };
    struct ground_state *g = state_of(l);
    g->clients[k] = brokers_sim_client(g->brokers, k, 0, &client);
    assert_ok(log_kafka_open(&config, g->clients[k], l->w.io, l->w.node_pool, &l->replicas[k].log));
    if (k == 0)
        g->life_begins = l->w.record_count;
}

static void pass(struct life *l, int64_t ns)
{
    struct ground_state *g = state_of(l);
    int64_t most = ns > 10 * NS_PER_SECOND ? STEP_MAX_NS : STEP_NS;
    memset(l->w.producer.announced, 0, sizeof l->w.producer.announced); /* the log may lose an announcement */
    while (ns > 0) {
        int64_t step = ns < most ? ns : most;
        io_sim_clock_advance(l->w.io, step);
        brokers_sim_advance(g->brokers, step / NS_PER_MS);
        for (uint32_t k = 0; k < REPLICA_COUNT; k++)
            if (l->replicas[k].log != NULL)
                assert_ok(log_pump(l->replicas[k].log));
        for (uint32_t b = 0; b < 3; b++)
            if (brokers_sim_now_ms(g->brokers) >= g->resume_ms[b])
                brokers_sim_resume(g->brokers, b);
        ns -= step;
    }
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        size_t count;
        (void)brokers_sim_backs(g->brokers, 0, p, &count);
        l->has_gone_back = l->has_gone_back || count > 0;
    }
}

/* Until what it appended is answered, which its memory is needed for. */
static void process_settle(struct life *l, uint32_t k)
{
    for (int i = 0; i < 4000 && log_usage(l->replicas[k].log).queued_bytes > 0; i++)
        pass(l, STEP_NS);
    assert_int_equal(log_usage(l->replicas[k].log).queued_bytes, 0);
}

/* The process dies without a word to the brokers. */
static void process_close(struct life *l, uint32_t k)
{
    brokers_sim_client_drop(state_of(l)->clients[k]);
    pool_close(((struct log_kafka *)l->replicas[k].log)->pool);
    l->replicas[k].log = NULL;
}

/* Every replica of the partition loses its end. */
static void go_back(struct life *l, uint32_t partition)
{
    struct brokers_sim *brokers = state_of(l)->brokers;
    uint64_t end = brokers_sim_truth(brokers, 0, partition).end_offset;
    uint64_t most = draw(l, 3) == 0 ? end : 12;
    brokers_sim_truncate_last_replica(brokers, 0, partition, end - draw(l, (most < end ? most : end) + 1));
    l->has_gone_back = true;
    deeds[DEED_BACK]++;
}

static void strike(struct life *l)
{
    struct ground_state *g = state_of(l);
    uint32_t b = (uint32_t)draw(l, 3), place = (uint32_t)draw(l, 3);
    switch (draw(l, 6)) {
    case 0:
        brokers_sim_kill(g->brokers, b);
        pass(l, (int64_t)draw(l, 20) * NS_PER_SECOND);
        brokers_sim_start(g->brokers, b);
        break;
    case 1:
        brokers_sim_pause(g->brokers, b);
        g->resume_ms[b] = brokers_sim_now_ms(g->brokers) + 500 + (int64_t)draw(l, 15000);
        break;
    case 2:
        brokers_sim_cut(g->brokers, b, BROKERS_SIM_AT_NODE(place), draw(l, 2) == 0);
        break;
    case 3:
        brokers_sim_cut(g->brokers, BROKERS_SIM_AT_NODE(place), b, draw(l, 2) == 0);
        break;
    case 4:
        brokers_sim_slow(g->brokers, b, (int64_t)draw(l, 1000));
        break;
    default:
        brokers_sim_move_leader(g->brokers, 0, (uint32_t)draw(l, WORLD_PARTITIONS), b);
        break;
    }
}

static void heal(struct life *l)
{
    brokers_sim_heal(state_of(l)->brokers);
    brokers_sim_calm(state_of(l)->brokers);
}

/* Is the record at its offset, as the brokers have it? */
static bool is_there(struct life *l, const struct world_record *r)
{
    struct brokers_sim_record there;
    struct slice bytes = buf_slice(&r->bytes);
    return brokers_sim_truth_record(state_of(l)->brokers, 0, r->partition, r->offset, &there) &&
           there.bytes.len == bytes.len + LOG_KAFKA_HEAD_BYTES &&
           memcmp(there.bytes.at + LOG_KAFKA_HEAD_BYTES, bytes.at, bytes.len) == 0;
}

static void judge(struct life *l)
{
    struct ground_state *g = state_of(l);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        size_t count;
        const struct brokers_sim_back *backs = brokers_sim_backs(g->brokers, 0, p, &count);
        for (size_t i = 0; i < count && l->back_count < BACKS_MAX; i++)
            l->backs[l->back_count++] = (struct going_back){ p, backs[i].at, backs[i].end };
    }
    for (size_t i = 0; i < l->w.record_count; i++) {
        struct world_record *r = l->w.records[i];
        if (r->answer == WORLD_ACKED && !is_there(l, r))
            r->answer = i >= g->life_begins ? WORLD_LOST : WORLD_PENDING;
    }
}

static const struct ground brokers = {
    .begin = ground_begin,
    .end = ground_end,
    .process_open = process_open,
    .process_settle = process_settle,
    .process_close = process_close,
    .pass = pass,
    .go_back = go_back,
    .strike = strike,
    .heal = heal,
    .judge = judge,
};

static void replicas_over_brokers_come_to_the_same(void **unused)
{
    struct test_random r = test_random_begin("replicas_over_brokers_come_to_the_same");
    run_lives(&brokers, is_full ? 500 : 20, 60, &r);
}

int main(int argc, char **argv)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = set != NULL && strcmp(set, "full") == 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--full") == 0)
            is_full = true;
        else {
            const char *wrong = run_life(&brokers, strtoull(argv[i], NULL, 0), 60, 0);
            printf("seed %s: %s\n", argv[i], wrong == NULL ? "right" : wrong);
            return wrong != NULL;
        }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_over_brokers_come_to_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
