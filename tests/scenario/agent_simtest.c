/* Goal: agents over one control log come to rest after any faults, and at no time does one decide, answer or own
 * that must not. Method: lives of agent_world.h, each of its own seed: a time of faults, then all is healed. */
#include "scenario/agent_world.h"

/* ---- faults ---- */

static void cut_from_brokers(uint32_t node, uint32_t but)
{
    for (uint32_t b = 0; b < 3; b++)
        if (b != but) {
            brokers_sim_cut(w.sim, b, BROKERS_SIM_AT_NODE(node), true);
            brokers_sim_cut(w.sim, BROKERS_SIM_AT_NODE(node), b, true);
        }
}

static void cut_from_peers(uint32_t node)
{
    for (uint32_t i = 0; i < w.node_count; i++)
        w.nodes[node].cannot_reach[i] = w.nodes[i].cannot_reach[node] = true;
}

/* A node sees but one broker, and that sees nobody else. */
static void isolate(uint32_t node, uint32_t broker)
{
    cut_from_brokers(node, broker);
    cut_from_peers(node);
    for (uint32_t i = 0; i < w.node_count; i++)
        if (i != node) {
            brokers_sim_cut(w.sim, broker, BROKERS_SIM_AT_NODE(i), true);
            brokers_sim_cut(w.sim, BROKERS_SIM_AT_NODE(i), broker, true);
        }
    for (uint32_t b = 0; b < 4; b++) {
        uint32_t place = b < 3 ? b : BROKERS_SIM_CONTROLLER;
        if (place == broker)
            continue;
        brokers_sim_cut(w.sim, broker, place, true);
        brokers_sim_cut(w.sim, place, broker, true);
    }
}

static void strike_brokers(uint64_t which)
{
    uint32_t b = (uint32_t)below(3);
    if (which == 0) {
        brokers_sim_kill(w.sim, b);
        note(EVENT_BROKER_DOWN, b, 0);
    } else if (which == 1) {
        for (uint32_t i = 0; i < 2; i++) {
            brokers_sim_pause(w.sim, (b + i) % 3);
            w.resume_ms[(b + i) % 3] = now_ms() + 5000 + (int64_t)below(40000);
        }
        note(EVENT_LOG_AWAY, b, 0);
    } else if (which == 4) {
        w.data_away_until_ms = now_ms() + (int64_t)below(60000);
        note(EVENT_DATA_AWAY, 0, 0);
    } else if (which == 2) {
        brokers_sim_move_leader(w.sim, 0, 0, b);
        note(EVENT_LEADER_MOVED, b, 0);
    } else {
        struct slice bytes = slice_str("somebody wrote into the wrong topic");
        if (kafka_produce(w.stranger, 0, &bytes, 1, 1) == OK)
            note(EVENT_FOREIGN, 0, 0);
    }
}

static void run_stranger(void)
{
    struct kafka_event event;
    while (kafka_poll(w.stranger, 0, false, &event) == OK)
        continue;
}

/* It was caught up, and is not any more. */
static void cease(struct node *n, uint32_t partition)
{
    n->held[partition].is_learnt = false;
    n->held[partition].broke_ms = now_ms();
    if (!w.looks)
        agent_ready(n->agent, partition, n->held[partition].opening, false);
}

static void strike_node(struct node *n, uint64_t which)
{
    uint32_t p = (uint32_t)below(PARTITIONS), other = (uint32_t)below(w.node_count);
    switch (which) {
    case 4:
        end(n);
        n->not_before_ms = now_ms() + (int64_t)below(chance(3) ? 150000 : 20000);
        note(EVENT_KILL, number_of(n), 0);
        break;
    case 5:
        n->frozen_until_ms = now_ms() + (int64_t)below(chance(3) ? 100000 : 10000);
        brokers_sim_client_freeze(n->client, true);
        note(EVENT_FREEZE, number_of(n), 0);
        break;
    case 6:
        agent_leave(n->agent);
        note(EVENT_LEAVE, number_of(n), 0);
        break;
    case 7:
        n->cannot_reach[other] = true;
        note(EVENT_CUT_PEER, number_of(n), other);
        break;
    case 8:
        cut_from_brokers(number_of(n), UINT32_MAX);
        if (chance(2))
            cut_from_peers(number_of(n));
        note(EVENT_CUT_LOG, number_of(n), 0);
        break;
    case 9:
        isolate(number_of(n), (uint32_t)below(3));
        note(EVENT_ISLAND, number_of(n), 0);
        break;
    case 10:
        if (!n->held[p].is_learnt)
            return;
        cease(n, p);
        n->held[p].is_lost = true;
        note(EVENT_LOST, number_of(n), p);
        if (!w.looks)
            open_again(n, p);
        break;
    case 11:
        n->data_cut_until_ms = now_ms() + (int64_t)below(60000);
        note(EVENT_DATA_CUT, number_of(n), 0);
        break;
    default:
        if (!n->held[p].is_learnt)
            return;
        cease(n, p);
        add_later((struct later){ .at_ms = now_ms() + (int64_t)below(chance(3) ? 120000 : 20000),
                                  .is_opening = true,
                                  .to = number_of(n),
                                  .process = n->process,
                                  .partition = p,
                                  .opening = n->held[p].opening });
        note(EVENT_BREAK, number_of(n), p);
        break;
    }
}

static void strike(void)
{
    uint64_t which = below(14);
    struct node *n = &w.nodes[below(w.node_count)];
    if (which < 5)
        strike_brokers(which);
    else if (n->agent != NULL && now_ms() >= n->frozen_until_ms)
        strike_node(n, which - 1);
}

static void mend_some(void)
{
    for (uint32_t i = 0; i < 3; i++)
        if (now_ms() >= w.resume_ms[i])
            brokers_sim_resume(w.sim, i);
    if (chance(200))
        brokers_sim_start(w.sim, (uint32_t)below(3));
    if (chance(1500)) { /* cuts are healed together: an island lasts a while */
        for (uint32_t a = 0; a < BROKERS_SIM_PLACES_COUNT; a++)
            for (uint32_t b = 0; b < 3; b++) {
                brokers_sim_cut(w.sim, a, b, false);
                brokers_sim_cut(w.sim, b, a, false);
            }
        for (uint32_t i = 0; i < w.node_count; i++)
            memset(w.nodes[i].cannot_reach, 0, sizeof w.nodes[i].cannot_reach);
    }
}

/* ---- lives ---- */

static void step(void)
{
    int64_t ms = 1 + (int64_t)below(STEP_MS_MAX);
    brokers_sim_advance(w.sim, ms);
    io_sim_clock_advance(w.io, ms * NS_PER_MS);
    run_stranger();
    fold_committed();
    deliver_all();
    for (uint32_t i = 0; i < w.node_count; i++) {
        struct node *n = &w.nodes[i];
        if (n->agent == NULL && now_ms() >= n->not_before_ms)
            start(n);
        run(n);
    }
}

static const char *unrest_of(const struct node *n)
{
    struct agent_view view;
    char name[2] = { (char)('a' + number_of(n)) };
    const struct member *m = members_find(w.model, slice_str(name));
    if (n->agent == NULL || m == NULL || m->status != MEMBER_UP || m->is_leaving ||
        m->suspicion != UINT64_MAX)
        return "every node is up, stays, and is not suspected";
    agent_view(n->agent, &view);
    if (view.self.slot != m->id.slot || view.self.incarnation != m->id.incarnation ||
        !agent_may_decide(n->agent))
        return "every node knows itself as the log does, and decides";
    if (view.epoch != members_epoch(w.model) ||
        state_hash(core_members(n->agent->core)) != state_hash(w.model))
        return "every node comes to the model's state";
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        bool is_assigned = members_is_assigned(w.model, p, m->id.slot);
        if (member_owns(m, p) != is_assigned)
            return "who is assigned owns, and nobody else";
        if ((n->held[p].opening != 0) != is_assigned || n->held[p].is_learnt != is_assigned)
            return "a partition is open where it is owned, and nowhere else";
        if (is_assigned && n->leases[p].rank >= 2)
            return "owners are ranked";
        if ((n->leases[p].until_ns > io_boottime_ns(w.io)) != is_assigned)
            return "a lease is where an owner is";
    }
    return NULL;
}

static const char *unrest(void)
{
    uint32_t *slots;
    uint64_t placed;
    const char *why = NULL;
    if (members_init(w.model) == NULL || members_assigned(w.model, 0) == NULL)
        return "the cluster has begun";
    for (uint32_t i = 0; i < w.node_count && why == NULL; i++)
        why = unrest_of(&w.nodes[i]);
    if (why != NULL)
        return why;
    assert_ok(members_plan(w.model, w.pool, &slots, &placed));
    return placed != 0 || members_is_assignment_due(w.model) ? "the assignment is the plan for these members"
                                                             : NULL;
}

static void heal(void)
{
    w.is_faulty = false;
    w.data_away_until_ms = 0;
    brokers_sim_heal(w.sim);
    brokers_sim_calm(w.sim);
    for (uint32_t i = 0; i < w.node_count; i++) {
        struct node *n = &w.nodes[i];
        memset(n->cannot_reach, 0, sizeof n->cannot_reach);
        n->frozen_until_ms = n->frozen_until_ms > now_ms() ? now_ms() : n->frozen_until_ms;
        n->not_before_ms = n->data_cut_until_ms = 0;
    }
    for (size_t i = 0; i < w.later_count; i++)
        if (w.later[i].at_ms > now_ms() + 10000)
            w.later[i].at_ms = now_ms() + 10000;
}

static void begin(uint64_t seed, unsigned plants)
{
    struct brokers_sim_config config = {
        .broker_count = 3,
        .zone_count = 3,
        .topics = { { 1, -1, true } },
        .topic_count = 1,
        .is_gapless = true, /* offsets without a record end every node, whatever they were */
    };
    memset(&w, 0, sizeof w);
    w.random.state = seed;
    w.plants = plants;
    w.node_count = 3 + (uint32_t)(seed % 3);
    w.looks = seed / 3 % 2 == 0;
    w.sim = brokers_sim_open(seed, &config);
    assert_ok(io_sim_open(seed, &w.io));
    w.pool = pool_open(NULL, "world", POOL_BYTES_UNLIMITED);
    assert_ok(members_open(w.pool, &w.model));
    w.generation = brokers_sim_truth(w.sim, 0, 0).generation;
    w.stranger = brokers_sim_client(w.sim, BROKERS_SIM_CALM, 0, NULL);
    assert_ok(kafka_producer_start(w.stranger, NULL));
    for (uint32_t i = 0; i < w.node_count; i++)
        w.nodes[i].not_before_ms = (int64_t)below(10000);
}

static void finish(void)
{
    for (uint32_t i = 0; i < w.node_count; i++)
        if (w.nodes[i].agent != NULL)
            end(&w.nodes[i]);
    brokers_sim_client_drop(w.stranger);
    members_close(w.model);
    io_close(w.io);
    pool_close(w.pool);
    brokers_sim_close(w.sim);
}

/* True: no oracle had anything to say. */
static bool live(uint64_t seed, unsigned plants)
{
    const char *why = "";
    begin(seed, plants);
    uint64_t rarity = 100 + below(400);
    w.is_faulty = true;
    while (now_ms() < FAULTY_MS && w.violation[0] == 0) {
        if (chance(rarity))
            strike();
        mend_some();
        step();
    }
    heal();
    for (int64_t until_ms = now_ms() + REST_MS; why != NULL && now_ms() < until_ms && w.violation[0] == 0;) {
        for (int i = 0; i < 30; i++)
            step();
        why = unrest();
    }
    if (why != NULL)
        violate(why, 0, 0);
    finish();
    return w.violation[0] == 0;
}

static void any_life_comes_to_rest(void **state)
{
    struct test_random r = test_random_begin("any_life_comes_to_rest");
    const char *life = getenv("LIFE"), *many = getenv("LIVES");
    uint64_t lives = life != NULL                   ? 1
                     : many != NULL                 ? strtoull(many, NULL, 0)
                     : getenv("KELPIE_SIM") != NULL ? 500
                                                    : 20;
    unsigned missing = 0;
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = life != NULL ? strtoull(life, NULL, 0) : test_random_u64(&r);
        if (!live(seed, 0))
            fail_msg("LIFE=0x%llx: %s", (unsigned long long)seed, w.violation);
    }
    printf("# %llu lives\n", (unsigned long long)lives);
    for (unsigned i = 0; i < EVENT_COUNT; i++) {
        printf("# %s: %llu\n", event_names[i], (unsigned long long)events[i]);
        missing += events[i] == 0;
    }
    for (int k = CONTROL_INIT; k < CONTROL_KIND_END; k++) {
        bool is_by_people = k == CONTROL_REMOVE || k == CONTROL_SUSPEND || k == CONTROL_SET;
        printf("# %s counted: %llu\n", control_kind_text((enum control_kind)k),
               (unsigned long long)counted[k]);
        missing += !is_by_people && counted[k] == 0;
    }
    if (lives >= 20)
        assert_int_equal(missing, 0);
}

static void one_seed_one_history(void **state)
{
    live(5, 0);
    uint64_t first = w.trace;
    live(5, 0);
    assert_true(w.trace == first);
    live(6, 0);
    assert_true(w.trace != first);
}

static void planted_bugs_are_found(void **state)
{
    static const char *const oracles[] = { "another cluster is begun",   "whoever was put out",
                                           "whoever was put out",        "owns what it has not opened",
                                           "whoever was put out",        "who knows no log",
                                           "whoever was put out decides" };
    for (unsigned plant = 0; plant < sizeof oracles / sizeof *oracles; plant++) {
        uint64_t seed = 1;
        while (seed < 200 && live(seed, 1u << plant))
            seed++;
        printf("# plant %u: life %llu: %s\n", plant, (unsigned long long)seed, w.violation);
        assert_int_equal(strncmp(w.violation, oracles[plant], strlen(oracles[plant])), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_life_comes_to_rest),
        cmocka_unit_test(one_seed_one_history),
        cmocka_unit_test(planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
