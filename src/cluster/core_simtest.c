/* Lives of clusters in the world of core_world.h: what strikes them, how they come to rest, that the oracles
 * find the bugs they are there for, and some stories that chance tells too rarely. */
#include "cluster/core_world.h"

/* ---- faults ---- */

static void wrong(struct node *node) { node->faulty_ms = w.now_ms; }

/* Everybody at once, in order or not, for longer than the repair delay; they come back one after the other. */
static void stop_all(void)
{
    bool is_in_order = !chance(3);
    int64_t until_ms = w.now_ms + REPAIR_MS + up_to(2 * REPAIR_MS);
    for (uint32_t i = 0; i < w.node_count; i++) {
        struct node *node = &w.nodes[i];
        node->not_before_ms = until_ms + up_to(REPAIR_MS);
        if (node->core != NULL && is_in_order)
            tell_to_leave(node);
        else if (node->core != NULL)
            end(node);
        wrong(node);
    }
}

static void break_partition(struct node *node)
{
    uint32_t p = (uint32_t)test_random_below(&w.random, PARTITIONS);
    if (node->core == NULL || node->learnt_ms[p] == 0)
        return;
    node->learnt_ms[p] = w.now_ms + 1000 + up_to(40000);
    core_ready(node->core, p, false);
    w.faults[FAULT_BREAK]++;
}

/* Half of the time by seconds, half of the time by up to an hour. */
static void leap(void)
{
    w.broker_skew_ms = chance(2) ? w.broker_skew_ms + up_to(4000) - 2000 : up_to(2 * LEAP_MS) - LEAP_MS;
    w.leapt_ms = w.now_ms;
    w.faults[FAULT_CLOCK]++;
}

/* A person does something. */
static void command_any(struct node *node, enum fault fault)
{
    if (members_init(w.model) == NULL || (fault == FAULT_REMOVE && !chance(4)))
        return;
    if (fault == FAULT_REMOVE) {
        command(CONTROL_REMOVE, node->name, REMOVAL_GONE);
        wrong(node); /* nobody is the worse for the others */
    } else if (fault == FAULT_DRAIN)
        command(CONTROL_REMOVE, node->name, chance(2) ? REMOVAL_DRAIN : REMOVAL_UNDRAIN);
    else if (fault == FAULT_SUSPEND)
        command(CONTROL_SUSPEND, node->name, (unsigned)up_to(2));
    else
        command(CONTROL_SET, node->name, 10000 + (unsigned)up_to(20000));
    w.faults[fault]++;
}

static void strike(enum fault fault)
{
    struct node *node = &w.nodes[test_random_below(&w.random, w.node_count)];
    uint32_t other = (uint32_t)test_random_below(&w.random, w.node_count);
    switch (fault) {
    case FAULT_KILL:
    case FAULT_WIPE:
        if (node->core == NULL)
            return;
        end(node);
        if (fault == FAULT_WIPE)
            node->disk += 256;
        break;
    case FAULT_PAUSE:
        if (node->core == NULL)
            return;
        node->paused_until_ms = w.now_ms + up_to(90000);
        break;
    case FAULT_CUT_LOG:
        node->cannot_reach_log = true;
        break;
    case FAULT_CUT_PEER:
        node->cannot_reach[other] = true;
        w.nodes[other].faulty_ms = w.now_ms;
        break;
    case FAULT_ISOLATE:
        node->cannot_reach_log = true;
        for (uint32_t i = 0; i < w.node_count; i++)
            node->cannot_reach[i] = w.nodes[i].cannot_reach[node - w.nodes] = true;
        break;
    case FAULT_RESTART:
        if (node->core == NULL)
            return;
        tell_to_leave(node);
        break;
    case FAULT_STOP_ALL:
        if (!chance(4))
            return;
        stop_all();
        break;
    case FAULT_BREAK:
        break_partition(node);
        return;
    case FAULT_REMOVE:
    case FAULT_DRAIN:
    case FAULT_SUSPEND:
    case FAULT_SET:
        command_any(node, fault);
        return;
    case FAULT_CLOCK:
        leap();
        return;
    case FAULT_DOUBLE:
        if (w.nodes[w.node_count].core != NULL)
            return;
        w.nodes[w.node_count] = (struct node){ .disk = chance(2) ? node->disk : 9000, .lag_ms = up_to(200) };
        strcpy(w.nodes[w.node_count].name, node->name);
        start(&w.nodes[w.node_count]);
        wrong(node);
        break;
    default:
        return;
    }
    wrong(node);
    w.faults[fault]++;
}

static void heal(struct node *node, bool is_last)
{
    if (is_last || chance(400))
        node->cannot_reach_log = false;
    for (uint32_t n = 0; n <= NODES_MAX; n++)
        if (n < NODES_MAX && (is_last || chance(400)))
            node->cannot_reach[n] = false;
    if (is_last)
        node->paused_until_ms = node->not_before_ms = 0;
    if (node->core == NULL && node->is_wanted && node->not_before_ms <= w.now_ms && (is_last || chance(400)))
        start(node);
}

static bool is_well(const struct node *node)
{
    for (uint32_t n = 0; n < NODES_MAX; n++)
        if (node->cannot_reach[n] || w.nodes[n].cannot_reach[node - w.nodes])
            return false;
    return node->core != NULL && node->paused_until_ms <= w.now_ms && !node->cannot_reach_log;
}

static void append_late(void)
{
    for (size_t i = 0; i < w.late_count;) {
        struct late late = w.late[i];
        if (late.at_ms > w.now_ms) {
            i++;
            continue;
        }
        w.late[i] = w.late[--w.late_count];
        append_now(late.node, late.process, late.bytes);
    }
}

/* An owner that is not ready says so within the time that a few lost records take. */
static void judge_owner(struct node *node)
{
    struct member_id id;
    bool is_up = node->core != NULL && w.now_ms - node->faulty_ms > 1000 && core_self(node->core, &id) &&
                 members_is_current(w.model, id);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        bool is_stale = is_up && member_owns(members_at(w.model, id.slot), p) &&
                        (node->learnt_ms[p] == 0 || node->learnt_ms[p] > w.now_ms);
        node->stale_ms[p] = !is_stale ? 0 : node->stale_ms[p] == 0 ? w.now_ms : node->stale_ms[p];
        require(!is_stale || w.now_ms - node->stale_ms[p] < 25000, "who owns is ready");
    }
}

static void tick(void)
{
    w.bound_ms += w.now_ms - w.spoken_ms <= 20000 ? STEP_MS : 0; /* by who spoke before it */
    w.now_ms += STEP_MS;
    append_late();
    for (uint32_t i = 0; i <= w.node_count; i++) {
        struct node *node = &w.nodes[i];
        if (w.is_faulty && i < w.node_count)
            heal(node, false);
        if (!is_well(node))
            wrong(node);
        run_node(node);
        if (w.now_ms % 1000 == 0)
            judge_owner(node);
    }
    deliver();
}

/* ---- rest ---- */

static const char *unrest(void)
{
    uint32_t *slots;
    uint64_t placed;
    if (members_init(w.model) == NULL || members_assigned(w.model, 0) == NULL)
        return "the cluster has begun";
    for (uint32_t i = 0; i < w.node_count; i++) {
        const struct member *m = members_find(w.model, slice_str(w.nodes[i].name));
        struct member_id id;
        if (w.nodes[i].core == NULL || m == NULL || m->status != MEMBER_UP || m->is_leaving ||
            m->suspicion != UINT64_MAX)
            return "every node is up, stays, and is not suspected";
        if (!core_self(w.nodes[i].core, &id) || id.incarnation != m->id.incarnation ||
            !core_may_decide(w.nodes[i].core, clock_ns(&w.nodes[i])))
            return "every node knows itself as the log does";
    }
    assert_ok(members_plan(w.model, w.pool, &slots, &placed));
    if (placed != 0 || members_is_assignment_due(w.model))
        return "the assignment is the plan for these members";
    for (uint32_t p = 0; p < PARTITIONS; p++)
        for (uint32_t i = 0; i < w.node_count; i++) {
            const struct member *m = members_find(w.model, slice_str(w.nodes[i].name));
            bool is_assigned = members_is_assigned(w.model, p, m->id.slot);
            if (member_owns(m, p) != is_assigned)
                return "who is assigned owns, and nobody else";
            if ((w.nodes[i].learnt_ms[p] != 0) != is_assigned)
                return "a partition is open where it is owned, and nowhere else";
            if (is_assigned && core_rank(w.nodes[i].core, clock_ns(&w.nodes[i]), p) >= 2)
                return "owners are ranked";
        }
    return NULL;
}

static void show(const struct node *node)
{
    const struct member *m = members_find(w.model, slice_str(node->name));
    struct member_id id = { .slot = 999 };
    if (node->core != NULL)
        core_self(node->core, &id);
    printf("# node %s: slot %u, own incarnation %lld, in the log %lld with status %d, has read %llu of %llu, "
           "decides %d\n",
           node->name, id.slot, (long long)id.incarnation, m == NULL ? -1LL : (long long)m->id.incarnation,
           m == NULL ? 0 : (int)m->status, (unsigned long long)node->read, (unsigned long long)w.log_count,
           node->core != NULL && core_may_decide(node->core, clock_ns(node)));
}

static void come_to_rest(void)
{
    w.is_faulty = false;
    for (size_t i = 0; i < w.late_count; i++) /* what was on its way arrives: what follows is recovery */
        w.late[i].at_ms = w.now_ms;
    if (w.nodes[w.node_count].core != NULL)
        end(&w.nodes[w.node_count]);
    for (uint32_t i = 0; i < w.node_count; i++)
        heal(&w.nodes[i], true);
    if (members_init(w.model) != NULL)
        for (unsigned k = 0; k < 3; k++)
            command(CONTROL_SUSPEND, "", k);
    if (members_init(w.model) != NULL)
        command(CONTROL_SET, "", SUSPECT_AGE_MS);
    for (uint32_t i = 0; i < w.node_count; i++)
        if (members_init(w.model) != NULL && members_find(w.model, slice_str(w.nodes[i].name)) != NULL)
            command(CONTROL_REMOVE, w.nodes[i].name, REMOVAL_UNDRAIN);
    int64_t begin_ms = w.now_ms, until_ms = begin_ms + REST_MS;
    while (w.now_ms < until_ms && w.found == NULL) {
        for (uint32_t i = 0; i < w.node_count; i++)
            if (w.nodes[i].core == NULL)
                start(&w.nodes[i]); /* whoever watches over processes */
        for (int k = 0; k < 20; k++)
            tick();
        if (unrest() == NULL && w.message_count < 64)
            break;
    }
    w.rest_ms = w.now_ms - begin_ms > w.rest_ms ? w.now_ms - begin_ms : w.rest_ms;
    const char *why = w.found != NULL ? NULL : unrest();
    for (uint32_t i = 0; why != NULL && w.plants == 0 && i < w.node_count; i++)
        show(&w.nodes[i]);
    require(why == NULL, why);
}

/* A world at its beginning. Figures of the worlds before stay. */
static void begin(uint64_t seed, uint32_t node_count, unsigned plants, const char *wanted)
{
    uint64_t faults[FAULT_COUNT], counted[CONTROL_KIND_END];
    int64_t rest_ms = w.rest_ms;
    memcpy(faults, w.faults, sizeof faults);
    memcpy(counted, w.counted, sizeof counted);
    memset(&w, 0, sizeof w);
    memcpy(w.faults, faults, sizeof faults);
    memcpy(w.counted, counted, sizeof counted);
    w.rest_ms = rest_ms;
    w.random.state = seed;
    w.pool = pool_open(pool, "world", POOL_BYTES_UNLIMITED);
    w.plants = plants;
    w.wanted = wanted;
    w.node_count = node_count;
    w.age_ms_min = SUSPECT_AGE_MS;
    assert_ok(members_open(w.pool, &w.model));
    members_plant(w.model, plants);
    model_open(&w.rules);
    for (uint32_t i = 0; i < node_count; i++) {
        w.nodes[i] = (struct node){ .disk = i + 1, .is_wanted = true, .lag_ms = up_to(200) };
        w.nodes[i].name[0] = (char)('a' + i);
        start(&w.nodes[i]);
    }
}

static void finish(void)
{
    for (uint32_t i = 0; i <= w.node_count; i++)
        core_close(w.nodes[i].core);
    members_close(w.model);
    pool_close(w.pool);
}

/* One life of a cluster. */
static void live(uint64_t seed, uint32_t node_count, unsigned plants, const char *wanted, int64_t faulty_ms)
{
    begin(seed, node_count, plants, wanted);
    uint64_t enabled = test_random_u64(&w.random); /* each seed has its own mix */
    w.is_faulty = true;
    while (w.now_ms < faulty_ms && w.found == NULL) {
        if (chance(60)) {
            enum fault fault = (enum fault)test_random_below(&w.random, FAULT_LOST_APPEND);
            if (enabled >> fault & 1)
                strike(fault);
        }
        tick();
    }
    come_to_rest();
    finish();
}

static void any_life_comes_to_rest(void **state)
{
    struct test_random r = test_random_begin("any_life_comes_to_rest");
    bool is_full = getenv("KELPIE_SIM") != NULL;
    uint64_t lives = is_full ? 2000 : 60, records = 0;
    if (getenv("LIVES") != NULL)
        lives = strtoull(getenv("LIVES"), NULL, 0);
    int64_t minutes = getenv("MINUTES") != NULL ? strtoll(getenv("MINUTES"), NULL, 0) : is_full ? 30 : 10;
    memset(&w, 0, sizeof w);
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = getenv("LIFE") != NULL ? strtoull(getenv("LIFE"), NULL, 0) : test_random_u64(&r);
        if (getenv("VERBOSE") != NULL)
            printf("# LIFE=0x%llx\n", (unsigned long long)seed);
        live(seed, 3 + (uint32_t)(seed % 3), 0, NULL, minutes * 60000);
        records += w.log_count;
    }
    static const char *const names[FAULT_COUNT] = {
        "kill",        "pause",        "wipe",        "cut from log",     "cut from peer",
        "isolated",    "restart",      "all stopped", "partition behind", "remove",
        "drain",       "suspend",      "set",         "broker clock",     "double",
        "append lost", "append twice", "append late",
    };
    printf("# %llu lives of %lld minutes, %llu records; at rest %lld s after the faults, or sooner\n",
           (unsigned long long)lives, (long long)minutes, (unsigned long long)records,
           (long long)w.rest_ms / 1000);
    for (int f = 0; f < FAULT_COUNT; f++) {
        printf("# fault %s: %llu\n", names[f], (unsigned long long)w.faults[f]);
        assert_true(w.faults[f] > 0);
    }
    for (int k = CONTROL_JOIN; k < CONTROL_KIND_END; k++) {
        printf("# %s counted: %llu\n", control_kind_text((enum control_kind)k),
               (unsigned long long)w.counted[k]);
        assert_true(w.counted[k] > 0);
    }
}

static void one_seed_one_trace(void **state)
{
    live(77, 4, 0, NULL, 300000);
    uint64_t first = w.trace;
    live(77, 4, 0, NULL, 300000);
    assert_true(first == w.trace);
    live(78, 4, 0, NULL, 300000);
    assert_true(first != w.trace);
}

/* Every oracle finds the bug that it is there for. */
static void planted_bugs_are_found(void **state)
{
    static const struct {
        unsigned plant;
        const char *oracle;
    } plants[] = {
        { MEMBERS_PLANT_EVICT_ALONE, "two never evict" },
        { MEMBERS_PLANT_DROP_EARLY, "an owner goes when as many own as are assigned" },
        { MEMBERS_PLANT_OLD_PLAN, "an assignment is the plan for the members it meets" },
        { MEMBERS_PLANT_ANY_LIFE, "only present lives decide" },
        { MEMBERS_PLANT_LATE_JOIN, "a process that has ended takes nobody's place" },
        { MEMBERS_PLANT_LEAPS, "nobody is put out before it had the time to object" },
        { MEMBERS_PLANT_NO_RESUMPTION, "who comes back in time finds its slot" },
        { MEMBERS_PLANT_LATE_OWN, "the fold follows the rules" },
        { MEMBERS_PLANT_SET_AT_ONCE, "who is put out decides no more" },
        { CORE_PLANT_DECIDE_ALWAYS, "who is put out decides no more" },
        { CORE_PLANT_OWN_CLOCK, "all nodes come to the same state" },
        { CORE_PLANT_LEAVE_AT_ONCE, "who leaves has left everything to others" },
        { CORE_PLANT_WAIT_FOR_LOG, "who leaves ends in time" },
        { CORE_PLANT_KEEP_OWN, "who owns is ready" },
    };
    for (size_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        uint64_t lives = 0;
        do {
            assert_true(++lives < 3000);
            live(hash_mix(1000 * i + lives), 3 + (uint32_t)(lives % 3), plants[i].plant, plants[i].oracle,
                 600000);
        } while (w.found == NULL);
        printf("# %s: found in life %llu\n", plants[i].oracle, (unsigned long long)lives);
    }
}

/* ---- without chance ---- */

static void pass(int64_t ms)
{
    for (int64_t until_ms = w.now_ms + ms; w.now_ms < until_ms;)
        tick();
}

static void rest(void)
{
    int64_t until_ms = w.now_ms + REST_MS;
    while (w.now_ms < until_ms && unrest() != NULL)
        pass(1000);
    require(unrest() == NULL, unrest());
    pass(15000); /* what is not needed any more has been let go */
}

/* What lies where, by slots. */
static uint64_t places(void)
{
    uint64_t h = 1;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        for (uint32_t i = 0; i < NODES_MAX; i++)
            h = hash_mix(h * 2 + members_is_assigned(w.model, p, i));
    return h;
}

/* All leave, and come back one after the other, an hour later. */
static void who_starts_late_keeps_its_slot(void **state)
{
    for (int has_newcomer = 0; has_newcomer < 2; has_newcomer++) {
        begin(1, 3, 0, NULL);
        rest();
        for (uint32_t i = 0; i < 3; i++)
            tell_to_leave(&w.nodes[i]);
        pass(CORE_END_MS);
        for (uint32_t i = 0; i < 3; i++)
            assert_null(w.nodes[i].core);
        pass(3600000);
        uint64_t before = w.counted[CONTROL_VACATE], placed = places();
        start(&w.nodes[0]);
        pass(REPAIR_MS / 2);
        if (has_newcomer == 1) {
            w.nodes[3] = (struct node){ .name = "d", .disk = 4 };
            w.node_count = 4;
            start(&w.nodes[3]);
        }
        start(&w.nodes[1]);
        pass(REPAIR_MS / 2 - 5000);
        start(&w.nodes[2]);
        rest();
        assert_int_equal(w.counted[CONTROL_VACATE], before);
        assert_true(has_newcomer == 1 || places() == placed);
        finish();
    }
}

/* The replica beside it has just died: what only the leaving node has goes to a third before it ends. */
static void who_leaves_hands_over(void **state)
{
    begin(2, 4, 0, NULL);
    rest();
    end(&w.nodes[0]);
    pass(5000);
    int64_t begin_ms = w.now_ms;
    tell_to_leave(&w.nodes[1]);
    while (w.nodes[1].core != NULL)
        tick();
    printf("# handed over in %lld ms\n", (long long)(w.now_ms - begin_ms));
    assert_true(w.now_ms - begin_ms <= CORE_END_MS);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        uint32_t owners = 0;
        for (uint32_t i = 2; i < 4; i++)
            owners += member_owns(members_find(w.model, slice_str(w.nodes[i].name)), p);
        assert_true(owners > 0);
    }
    finish();
}

/* A restart in order, with replicas that are there: nothing moves, and it takes no time. */
static void who_is_back_soon_moves_nothing(void **state)
{
    begin(3, 4, 0, NULL);
    rest();
    uint64_t before = w.counted[CONTROL_ASSIGN];
    for (uint32_t i = 0; i < 4; i++) {
        int64_t begin_ms = w.now_ms;
        tell_to_leave(&w.nodes[i]);
        while (w.nodes[i].core != NULL)
            tick();
        assert_true(w.now_ms - begin_ms <= 2000);
        pass(20000);
        start(&w.nodes[i]);
        rest();
    }
    assert_int_equal(w.counted[CONTROL_ASSIGN], before);
    finish();
}

static void who_leaves_ends_without_the_log(void **state)
{
    begin(4, 3, 0, NULL);
    rest();
    w.nodes[0].cannot_reach_log = true;
    tell_to_leave(&w.nodes[0]);
    pass(CORE_END_MS + 500);
    assert_null(w.nodes[0].core);
    assert_string_equal(w.nodes[0].why,
                        "it has stopped without leaving the cluster: the control log did not answer");
    w.nodes[0].cannot_reach_log = false;
    start(&w.nodes[0]);
    rest();
    finish();
}

/* Where nothing happens, nothing is written; and what happened waits for time only as long as it must. */
static void a_quiet_cluster_writes_nothing(void **state)
{
    begin(8, 3, 0, NULL);
    rest();
    uint64_t before = w.log_count;
    pass(3600000);
    assert_int_equal(w.log_count, before);
    end(&w.nodes[2]);
    pass(3600000); /* suspected, evicted, given up, and what it held taken over */
    printf("# %llu records for a node's end\n", (unsigned long long)(w.log_count - before));
    assert_null(members_find(w.model, slice_str("c")));
    before = w.log_count;
    pass(3600000);
    assert_int_equal(w.log_count, before);
    finish();
}

/* A second node of a name, or a copy of its disk, which something starts again whenever it stops: it says why,
 * and an hour of it costs the log next to nothing. */
static void a_doubled_name_costs_the_log_little(void **state)
{
    for (int kind = 0; kind < 3; kind++) { /* another disk; a copied one; another that reaches the log only */
        begin(5, 3, 0, NULL);
        rest();
        uint64_t before = w.log_count, starts = 0;
        struct node *twin = &w.nodes[3];
        *twin = (struct node){ .name = "a", .disk = kind == 1 ? 1 : 9000 };
        for (int i = 0; kind == 2 && i < 4; i++)
            w.nodes[i].cannot_reach[3] = twin->cannot_reach[i] = true;
        for (int64_t until_ms = w.now_ms + 3600000; w.now_ms < until_ms;) {
            if (twin->core == NULL) {
                start(twin);
                starts++;
            }
            pass(5000);
        }
        printf("# %llu starts, %llu records, %s; %s\n", (unsigned long long)starts,
               (unsigned long long)(w.log_count - before), twin->why == NULL ? "" : twin->why,
               twin->trouble == NULL ? "" : twin->trouble);
        assert_true(w.log_count - before <= (kind == 2 ? 60 : 0));
        assert_true(kind == 2 ? starts < 12 : starts > 300);
        assert_true(twin->why != NULL || twin->trouble != NULL);
        if (twin->core != NULL)
            end(twin);
        assert_int_equal(members_find(w.model, slice_str("a"))->status, MEMBER_UP);
        finish();
    }
}

/* One that hears another no more, but is heard: its suspicions are refuted, and it raises them more seldom. */
static void a_cut_in_one_direction_costs_the_log_little(void **state)
{
    begin(6, 3, 0, NULL);
    rest();
    uint64_t before = w.log_count;
    w.nodes[1].cannot_reach[0] = true;
    pass(3600000);
    printf("# %llu records in an hour\n", (unsigned long long)(w.log_count - before));
    assert_true(w.log_count - before <= 60);
    w.nodes[1].cannot_reach[0] = false;
    rest();
    finish();
}

static struct control_record joining(uint64_t offset, unsigned number, const char *name, const char *zone)
{
    struct control_record r = { .kind = CONTROL_JOIN, .cluster_id = { 1 }, .by = { .slot = SLOT_NONE } };
    r.join = (struct control_join){ .name = slice_str(name),
                                    .zone = slice_str(zone),
                                    .address = slice_str("h:1"),
                                    .read_to = offset,
                                    .disk_id = { (uint8_t)number, (uint8_t)(number >> 8), 1 },
                                    .process_id = { (uint8_t)number, (uint8_t)(number >> 8), 2 } };
    return r;
}

/* A node that reads of 256 others in as many zones, and looks once. */
static struct core *newcomer(const struct control_join *self)
{
    struct core_config config = { .self = *self };
    struct core *core;
    assert_ok(core_open(&config, w.pool, &core));
    for (unsigned i = 0; i <= 256; i++) {
        char name[8];
        struct control_record r = { .kind = CONTROL_INIT, .cluster_id = { 1 } };
        r.init = (struct control_init){ .partition_count = 8,
                                        .replica_count = 2,
                                        .expected_nodes = 1,
                                        .range_bytes_max = 1,
                                        .settings = { SUSPECT_AGE_MS, REPAIR_MS } };
        snprintf(name, sizeof name, "n%u", i);
        if (i > 0)
            r = joining(i, i, name, name);
        struct buf bytes = buf_open(w.pool, CONTROL_RECORD_BYTES_MAX);
        control_record_encode(&r, &bytes);
        assert_ok(core_record(core, 1, i, 1000 + i, buf_slice(&bytes)));
    }
    core_at_end(core, 1);
    return core;
}

static const struct core_effect *only_effect(struct core *core, int64_t now_ms)
{
    const struct core_effect *effects;
    size_t count;
    assert_ok(core_step(core, 1 + now_ms * NS_PER_MS, &effects, &count));
    assert_int_equal(count, 1);
    return effects;
}

/* What only a person can change stops a node at once, what may yet change after a while; neither is asked of the
 * log. */
static void who_cannot_join_says_why(void **state)
{
    begin(7, 1, 0, NULL);
    struct control_record late = joining(300, 300, "late", "elsewhere");
    struct core *core = newcomer(&late.join);
    const struct core_effect *e = only_effect(core, 0);
    assert_int_equal(e->kind, CORE_STOP);
    assert_int_equal(e->end, CORE_FAILED);
    assert_string_equal(e->why, "there are too many zones");
    core_close(core);
    struct control_record renamed =
        joining(300, 7, "renamed", "n7"); /* its former life is up in the log yet */
    core = newcomer(&renamed.join);
    e = only_effect(core, 0);
    assert_int_equal(e->kind, CORE_TROUBLE);
    assert_string_equal(e->why, "a node of another name is up with the same data directory");
    assert_string_equal(core_trouble(core), e->why);
    e = only_effect(core, 3 * SUSPECT_AGE_MS + 1);
    assert_int_equal(e->kind, CORE_STOP);
    assert_string_equal(e->why, "a node of another name is up with the same data directory");
    core_close(core);
    finish();
}

/* A node that comes back to find that it could be put out any moment decides nothing until that is refuted. */
static void who_may_be_put_out_decides_nothing(void **state)
{
    struct control_record r = { .kind = CONTROL_INIT, .cluster_id = { 1 } }, a = joining(1, 1, "a", "z");
    struct core_config config = { .self = a.join };
    struct member_id self = { 0, 1 }, other = { 1, 2 };
    struct core *core;
    r.init = (struct control_init){ .partition_count = 8,
                                    .replica_count = 2,
                                    .expected_nodes = 1,
                                    .range_bytes_max = 1,
                                    .settings = { SUSPECT_AGE_MS, REPAIR_MS } };
    struct control_record records[] = {
        r,
        a,
        joining(2, 2, "b", "z"),
        { .kind = CONTROL_SUSPECT, .cluster_id = { 1 }, .by = other, .of = self },
        { .kind = CONTROL_NOOP, .cluster_id = { 1 }, .by = other },
        { .kind = CONTROL_REFUTE, .cluster_id = { 1 }, .by = self, .suspicion = 3 },
    };
    begin(9, 1, 0, NULL);
    assert_ok(core_open(&config, w.pool, &core));
    for (uint64_t i = 0; i < sizeof records / sizeof *records; i++) {
        int64_t append_ms = i < 4 ? 1000 : 1000 + SUSPECT_AGE_MS / 2;
        struct buf bytes = buf_open(w.pool, CONTROL_RECORD_BYTES_MAX);
        control_record_encode(&records[i], &bytes);
        assert_ok(core_record(core, 1, i, append_ms, buf_slice(&bytes)));
        core_at_end(core, 1);
        assert_true(core_may_decide(core, 2) == (i >= 1 && i != 4));
    }
    assert_false(
        core_may_decide(core, 1 + SUSPECT_AGE_MS * NS_PER_MS)); /* nor who has not read for so long */
    core_close(core);
    finish();
}

/* Another start would join again, against the word of whoever removed it. */
static void who_is_removed_is_not_wanted(void **state)
{
    struct control_record a = joining(1, 1, "a", "z");
    struct core_config config = { .self = a.join };
    struct control_record records[] = {
        { .kind = CONTROL_INIT, .cluster_id = { 1 } },
        a,
        { .kind = CONTROL_REMOVE, .cluster_id = { 1 }, .of = { 0, 1 }, .removal = REMOVAL_GONE }
    };
    records[0].init = (struct control_init){ .partition_count = 8,
                                             .replica_count = 2,
                                             .expected_nodes = 1,
                                             .range_bytes_max = 1,
                                             .settings = { SUSPECT_AGE_MS, REPAIR_MS } };
    struct core *core;
    const struct core_effect *effects;
    size_t count;
    begin(10, 1, 0, NULL);
    assert_ok(core_open(&config, w.pool, &core));
    for (uint64_t i = 0; i < sizeof records / sizeof *records; i++) {
        struct buf bytes = buf_open(w.pool, CONTROL_RECORD_BYTES_MAX);
        control_record_encode(&records[i], &bytes);
        assert_ok(core_record(core, 1, i, 1000, buf_slice(&bytes)));
        core_at_end(core, 1);
        assert_ok(core_step(core, 2, &effects, &count));
        bool has_ended = count > 0 && effects[count - 1].kind == CORE_STOP;
        assert_true(has_ended == (i == 2));
    }
    assert_int_equal(effects[count - 1].end, CORE_UNWANTED);
    assert_string_equal(effects[count - 1].why, "the node was removed from the cluster");
    core_close(core);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_life_comes_to_rest),
        cmocka_unit_test(one_seed_one_trace),
        cmocka_unit_test(planted_bugs_are_found),
        cmocka_unit_test(who_starts_late_keeps_its_slot),
        cmocka_unit_test(who_leaves_hands_over),
        cmocka_unit_test(who_is_back_soon_moves_nothing),
        cmocka_unit_test(who_leaves_ends_without_the_log),
        cmocka_unit_test(a_quiet_cluster_writes_nothing),
        cmocka_unit_test(a_doubled_name_costs_the_log_little),
        cmocka_unit_test(a_cut_in_one_direction_costs_the_log_little),
        cmocka_unit_test(who_cannot_join_says_why),
        cmocka_unit_test(who_may_be_put_out_decides_nothing),
        cmocka_unit_test(who_is_removed_is_not_wanted),
    };
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}
