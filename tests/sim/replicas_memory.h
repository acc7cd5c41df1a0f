/* The ground of replicas.h over a log in memory that can go back. Test only; shared by replica_simtest.c and
 * sync_simtest.c. */
#ifndef SIM_REPLICAS_MEMORY_H
#define SIM_REPLICAS_MEMORY_H

#include "sim/log_sim.h"
#include "sim/replicas.h"

static struct log_sim_store *store_of(struct life *l) { return l->ground_state; }

static void ground_begin(struct life *l, uint64_t seed)
{
    struct log_sim_store *store;
    assert_ok(log_sim_store_open(WORLD_PARTITIONS, l->w.node_pool, &store));
    l->ground_state = store;
    log_sim_times(store, l->w.io);
    l->is_heard_late = seed / 4 % 2 == 0;
    log_sim_delay(store, l->is_heard_late ? 40 * NS_PER_SECOND : 0);
}

static void ground_end(struct life *l) { log_sim_store_close(store_of(l)); }

static void process_open(struct life *l, uint32_t k)
{
    assert_ok(log_sim_open(store_of(l), l->w.io, l->w.node_pool, &l->replicas[k].log));
}

static void process_settle(struct life *l, uint32_t k) {}
static void process_close(struct life *l, uint32_t k) { log_close(l->replicas[k].log); }
static void pass(struct life *l, int64_t ns) { io_sim_clock_advance(l->w.io, ns); }

/* The log loses its newest records, or as many as there are. What had been acknowledged of them may be gone; a
 * producer announces its series again when it hears of it. */
static void go_back(struct life *l, uint32_t partition)
{
    uint64_t end = log_sim_end(store_of(l), partition), most = draw(l, 3) == 0 ? end : 12;
    uint64_t to = end - draw(l, (most < end ? most : end) + 1);
    struct going_back back = { partition, to, to };
    if (l->back_count == BACKS_MAX || l->lost_count + (end - to) > LOST_MAX)
        return;
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        uint64_t seen = log_sim_seen(l->replicas[k].log, partition);
        back.seen_end = seen > back.seen_end ? seen : back.seen_end;
    }
    for (size_t i = 0; i < l->w.record_count; i++) {
        struct world_record *r = l->w.records[i];
        if (r->partition != partition || r->answer != WORLD_ACKED || r->offset < to)
            continue;
        uint32_t witnesses = 0;
        for (uint32_t k = 0; k < REPLICA_COUNT; k++)
            witnesses |= (uint32_t)(log_sim_seen(l->replicas[k].log, partition) > r->offset) << k;
        l->lost[l->lost_count].record = r;
        l->lost[l->lost_count++].witnesses = witnesses;
        r->answer = witnesses != 0 ? WORLD_LOST : WORLD_PENDING;
    }
    l->backs[l->back_count++] = back;
    log_sim_back(store_of(l), partition, to);
    memset(l->w.producer.announced[partition], 0, sizeof l->w.producer.announced[partition]);
    l->has_gone_back = true;
    deeds[DEED_BACK]++;
}

static void nothing(struct life *l) {}

static const struct ground memory = {
    .begin = ground_begin,
    .end = ground_end,
    .process_open = process_open,
    .process_settle = process_settle,
    .process_close = process_close,
    .pass = pass,
    .go_back = go_back,
    .strike = nothing,
    .heal = nothing,
    .judge = nothing,
};

#endif
