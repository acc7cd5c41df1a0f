/* The live index. Goal: every query equals a brute force over the live series, through tails, parts, merges
 * and drops; ids and local numbers keep their promises; readers beside the writer see only consistent things.
 * Method: random series of three tenants against a plain list; one writer and three readers on real threads
 * (also run under the thread sanitizer). */
#include "base/test.h"

#include "io/io.h"
#include "io/thread.h"
#include "metric/index.h"
#include "model/labels.h"
#include "model/sum.h"

#include <stdatomic.h>

enum { PARTITIONS = 5 };

struct series {
    struct slice labels;
    uint32_t tenant;
    uint32_t partition;
    uint32_t id;
    uint32_t local;
    bool live;
};

struct world {
    struct pool *pool;
    struct metric_index *index;
    struct series *series;
    uint32_t count;
};

static const char *const tenants[] = { "default", "b", "c" };

static struct slice make_labels(struct pool *pool, uint32_t number)
{
    char text[64];
    struct buf out = buf_open(pool, LABELS_BYTES_MAX);
    struct slice copy;
    snprintf(text, sizeof text, "metric_%u", number / 7 % 40);
    labels_put(&out, slice_str("__name__"), slice_str(text));
    if (number % 3 == 0)
        labels_put(&out, slice_str("code"), slice_str(number % 2 ? "200" : "500"));
    snprintf(text, sizeof text, "host-%u", number / 100);
    labels_put(&out, slice_str("instance"), slice_str(text));
    labels_put(&out, slice_str("job"), slice_str("node"));
    snprintf(text, sizeof text, "%u", number);
    labels_put(&out, slice_str("number"), slice_str(text));
    assert_ok(pool_copy(pool, buf_slice(&out), &copy));
    buf_close(&out);
    return copy;
}

static void add_series(struct world *w, uint32_t number, uint32_t tenant)
{
    struct series *s = &w->series[w->count];
    *s = (struct series){ .labels = make_labels(w->pool, number),
                          .tenant = tenant,
                          .partition = number % PARTITIONS,
                          .live = true };
    bool is_new;
    assert_ok(
        metric_index_add(w->index, slice_str(tenants[tenant]), s->labels, s->partition, &s->id, &is_new));
    assert_true(is_new);
    s->local = metric_index_local(w->index, s->id);
    w->count++;
}

static struct world world_open(uint32_t count_max)
{
    struct world w = { .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED) };
    void *at;
    assert_ok(pool_alloc(w.pool, count_max * sizeof *w.series, &at));
    w.series = at;
    assert_ok(metric_index_open(w.pool, PARTITIONS, &w.index));
    return w;
}

static void world_close(struct world *w)
{
    metric_index_close(w->index);
    pool_close(w->pool);
}

static void check_facts(struct world *w)
{
    uint64_t live[3] = { 0 }, all = 0;
    struct metric_index_describer *describers[PARTITIONS];
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_ok(metric_index_describer_open(w->index, p, w->pool, &describers[p]));
    for (uint32_t i = 0; i < w->count; i++) {
        const struct series *s = &w->series[i];
        live[s->tenant] += s->live;
        all += s->live;
        if (i % 17 != 0)
            continue;
        struct slice tenant_name = slice_str(tenants[s->tenant]), tenant;
        struct hash128 fingerprint = sum_series_hash(tenant_name, s->labels);
        struct buf labels = buf_open(w->pool, LABELS_BYTES_MAX);
        if (s->live) {
            assert_int_equal(metric_index_find(w->index, fingerprint), s->id);
            assert_int_equal(metric_index_partition(w->index, s->id), s->partition);
            assert_int_equal(metric_index_local(w->index, s->id), s->local);
            assert_int_equal(metric_index_id_of_local(w->index, s->partition, s->local), s->id);
            assert_true(hash128_equal(metric_index_fingerprint(w->index, s->id), fingerprint));
            assert_ok(metric_index_describe(describers[s->partition], s->local, &labels, &tenant));
            assert_true(slice_equal(buf_slice(&labels), s->labels) && slice_equal(tenant, tenant_name));
            assert_true(s->local < metric_index_local_count(w->index, s->partition));
        } else {
            assert_int_equal(metric_index_partition(w->index, s->id), UINT16_MAX);
            assert_int_equal(metric_index_local(w->index, s->id), METRIC_LOCAL_NONE);
        }
        buf_close(&labels);
    }
    for (uint32_t p = 0; p < PARTITIONS; p++)
        metric_index_describer_close(describers[p]);
    for (uint32_t t = 0; t < 3; t++)
        assert_int_equal(metric_index_tenant_series(w->index, slice_str(tenants[t])), live[t]);
    assert_int_equal(metric_index_series(w->index), all);
}

static void check_select(struct world *w, struct test_random *random)
{
    static const char *const patterns[] = { "metric_1.*", "host-(1|2|3)",      "",    ".+", "500|",
                                            "200",        "metric_7|metric_8", "node" };
    static const char *const names[] = { "__name__", "code", "instance", "job", "absent" };
    struct pool *pool = pool_open(w->pool, "select", POOL_BYTES_UNLIMITED);
    struct matcher matchers[3];
    size_t matcher_count = test_random_below(random, 4), count, expected = 0, value_count;
    uint32_t tenant = (uint32_t)test_random_below(random, 3), *ids;
    struct slice tenant_name = slice_str(tenants[tenant]), *values;
    for (size_t i = 0; i < matcher_count; i++)
        assert_ok(matcher_init(pool, (enum match_type)test_random_below(random, 4),
                               slice_str(names[test_random_below(random, 5)]),
                               slice_str(patterns[test_random_below(random, 8)]), &matchers[i], NULL));
    uint32_t token = metric_index_hold(w->index);
    assert_ok(metric_index_select(w->index, tenant_name, matchers, matcher_count, pool, &ids, &count));
    for (uint32_t i = 0; i < w->count; i++) {
        const struct series *s = &w->series[i];
        if (!s->live || s->tenant != tenant || !matchers_match(matchers, matcher_count, s->labels))
            continue;
        assert_true(expected < count);
        assert_int_equal(ids[expected], s->id);
        expected++;
    }
    assert_int_equal(expected, count);
    assert_ok(metric_index_values(w->index, tenant_name, slice_str("number"), ids, count, pool, &values,
                                  &value_count));
    assert_int_equal(value_count, count); /* each series has a number of its own */
    for (size_t i = 1; i < value_count; i++)
        assert_true(slice_compare(values[i - 1], values[i]) < 0);
    assert_ok(metric_index_names(w->index, tenant_name, ids, count, pool, &values, &value_count));
    assert_true(count == 0 ? value_count == 0 : value_count == 4 || value_count == 5);
    if (matcher_count == 0) {
        assert_ok(metric_index_values(w->index, tenant_name, slice_str("number"), NULL, 0, pool, &values,
                                      &value_count));
        assert_int_equal(value_count, count);
        assert_ok(
            metric_index_values(w->index, tenant_name, slice_str(""), NULL, 0, pool, &values, &value_count));
        assert_int_equal(value_count, 0);
    }
    metric_index_release(w->index, token);
    for (size_t i = 0; i < matcher_count; i++)
        matcher_done(&matchers[i]);
    pool_close(pool);
}

struct keeping {
    struct world *w;
    uint32_t *index_of; /* id → series */
};

static bool keep_live(void *context, uint32_t id)
{
    struct keeping *k = context;
    return k->w->series[k->index_of[id]].live;
}

static void retain_live(struct world *w, uint64_t expected)
{
    struct keeping k = { .w = w };
    uint64_t dropped;
    void *at = NULL;
    uint32_t id_max = 0;
    for (uint32_t i = 0; i < w->count; i++)
        id_max = w->series[i].id > id_max ? w->series[i].id : id_max;
    assert_ok(pool_block_resize(w->pool, &at, ((size_t)id_max + 1) * 4));
    k.index_of = at;
    for (uint32_t i = 0; i < w->count; i++)
        k.index_of[w->series[i].id] = i;
    assert_ok(metric_index_retain(w->index, keep_live, &k, &dropped));
    assert_int_equal(dropped, expected);
    pool_block_free(w->pool, at);
}

static void index_equals_list(void **state)
{
    struct test_random random = test_random_begin("index_equals_list");
    enum { SERIES = 60000 };
    struct world w = world_open(SERIES);
    for (uint32_t number = 0; number < SERIES; number++) {
        add_series(&w, number, number < SERIES / 2 ? 0 : (uint32_t)test_random_below(&random, 3));
        if (number % 400 == 0 || number == SERIES - 1)
            check_select(&w, &random);
        if (number % 10000 == 5000) {
            uint64_t dropped = 0;
            uint32_t share = 1 + (uint32_t)test_random_below(&random, 4);
            for (uint32_t i = 0; i < w.count; i++) {
                if (!w.series[i].live || test_random_below(&random, 4) >= share || i + 3 > w.count)
                    continue;
                w.series[i].live = false;
                dropped++;
            }
            retain_live(&w, dropped);
            check_facts(&w);
            check_select(&w, &random);
        }
    }
    check_facts(&w);
    struct slice *names;
    size_t count;
    assert_ok(metric_index_tenants(w.index, w.pool, &names, &count));
    assert_int_equal(count, 3);
    uint32_t token = metric_index_hold(w.index);
    assert_ok(metric_index_names(w.index, slice_str("nobody"), NULL, 0, w.pool, &names, &count));
    metric_index_release(w.index, token);
    assert_int_equal(count, 0);
    world_close(&w);
}

static void known_series_are_compared(void **state)
{
    struct world w = world_open(10);
    uint32_t id;
    bool is_new;
    add_series(&w, 1, 0);
    struct slice labels = w.series[0].labels;
    assert_ok(metric_index_add(w.index, slice_str("default"), labels, 1, &id, &is_new));
    assert_true(!is_new && id == w.series[0].id);
    assert_err(ERR_CONFLICT, metric_index_add(w.index, slice_str("default"), labels, 2, &id, &is_new));
    assert_ok(metric_index_add(w.index, slice_str("b"), labels, 2, &id, &is_new));
    assert_true(is_new);
    world_close(&w);
}

static bool keep_none(void *context, uint32_t id) { return false; }

static void local_numbers_wait_for_holders(void **state)
{
    struct world w = world_open(20000);
    uint64_t dropped;
    for (uint32_t i = 0; i < 9000; i++)
        add_series(&w, i, 0);
    uint32_t before = metric_index_local_count(w.index, 0);
    uint32_t token = metric_index_hold(w.index);
    assert_ok(metric_index_retain(w.index, keep_none, NULL, &dropped));
    assert_int_equal(dropped, 9000);
    w.count = 0;
    for (uint32_t i = 0; i < 100; i++)
        add_series(&w, i, 0);
    for (uint32_t i = 0; i < 100; i++)
        assert_true(w.series[i].partition != 0 || w.series[i].local >= before);
    metric_index_release(w.index, token);
    assert_ok(metric_index_retain(w.index, keep_none, NULL, &dropped));
    assert_int_equal(dropped, 100);
    w.count = 0;
    uint32_t high = metric_index_local_count(w.index, 0);
    for (uint32_t i = 0; i < 9000; i++)
        add_series(&w, i, 0);
    assert_int_equal(metric_index_local_count(w.index, 0), high); /* all of them were used again */
    uint8_t *seen = calloc(high, 1);
    for (uint32_t i = 0; i < 9000; i++) {
        if (w.series[i].partition != 0)
            continue;
        assert_false(seen[w.series[i].local]);
        seen[w.series[i].local] = 1;
    }
    free(seen);
    world_close(&w);
}

/* More tenants than there may be at a time, one after the other. */
static void tenants_come_and_go(void **state)
{
    struct world w = world_open(1);
    struct slice labels = make_labels(w.pool, 1);
    for (uint32_t i = 0; i < METRIC_INDEX_TENANTS_MAX + 5000; i++) {
        char name[32];
        uint32_t id;
        bool is_new;
        uint64_t dropped;
        snprintf(name, sizeof name, "tenant-%u", i);
        assert_ok(metric_index_add(w.index, slice_str(name), labels, 0, &id, &is_new));
        assert_int_equal(metric_index_tenant_series(w.index, slice_str(name)), 1);
        if (i % 1000 != 999)
            continue;
        assert_ok(metric_index_retain(w.index, keep_none, NULL, &dropped));
        assert_int_equal(dropped, 1000);
        assert_int_equal(metric_index_tenant_series(w.index, slice_str(name)), 0);
    }
    world_close(&w);
}

static void cardinality_counts(void **state)
{
    struct world w = world_open(5000);
    for (uint32_t i = 0; i < 5000; i++)
        add_series(&w, i, 0);
    struct metric_cardinality c;
    assert_ok(metric_index_cardinality(w.index, slice_str("default"), 3, w.pool, &c));
    assert_int_equal(c.series_count, 5000);
    assert_int_equal(c.label_pair_count, 40 + 2 + 50 + 1 + 5000);
    assert_true(c.by_label_count == 3 && slice_equal_str(c.by_label[0].name, "number") &&
                c.by_label[0].count == 5000);
    assert_true(slice_equal_str(c.by_label[1].name, "instance") && c.by_label[1].count == 50);
    assert_true(slice_equal_str(c.by_pair[0].name, "job=node") && c.by_pair[0].count == 5000);
    assert_int_equal(c.by_metric_count, 3);
    assert_true(c.by_metric[0].count >= c.by_metric[1].count && c.by_metric[0].count <= 126);
    assert_true(slice_equal_str(c.bytes_by_label[0].name, "number"));
    assert_ok(metric_index_cardinality(w.index, slice_str("nobody"), 3, w.pool, &c));
    assert_int_equal(c.series_count + c.label_pair_count + c.by_metric_count, 0);
    world_close(&w);
}

static void allocation_failures_change_nothing(void **state)
{
    struct pool *pool = pool_open(NULL, "labels", POOL_BYTES_UNLIMITED);
    struct slice labels[3000];
    for (uint32_t i = 0; i < 3000; i++)
        labels[i] = make_labels(pool, i);
    for (uint64_t nth = 1; nth < 400; nth += nth < 60 ? 1 : 7) {
        struct pool *root = pool_open(NULL, "torture", POOL_BYTES_UNLIMITED);
        struct metric_index *index = NULL;
        uint64_t refused = 0;
        pool_fault_at(root, nth, false);
        if (metric_index_open(root, 2, &index) == OK) {
            for (uint32_t i = 0; i < 3000; i++) {
                uint32_t id;
                bool is_new;
                err e = metric_index_add(index, slice_str("t"), labels[i], i % 2, &id, &is_new);
                if (e == OK)
                    continue;
                assert_err(ERR_LIMIT, e);
                refused++;
                assert_ok(metric_index_add(index, slice_str("t"), labels[i], i % 2, &id, &is_new));
                assert_true(is_new);
            }
            assert_true(refused <= 1);
            assert_int_equal(metric_index_series(index), 3000);
            struct pool *answer = pool_open(NULL, "answer", POOL_BYTES_UNLIMITED);
            uint32_t *ids;
            size_t count;
            pool_fault_at(root, 0, false);
            uint32_t token = metric_index_hold(index);
            assert_ok(metric_index_select(index, slice_str("t"), NULL, 0, answer, &ids, &count));
            metric_index_release(index, token);
            assert_int_equal(count, 3000);
            pool_close(answer);
        }
        pool_fault_at(root, 0, false);
        metric_index_close(index);
        pool_close(root);
    }
    pool_close(pool);
}

/* ---- one writer, three readers ---- */

struct shared {
    struct pool *pool;
    struct metric_index *index;
    _Atomic uint32_t added; /* numbers below were added */
    _Atomic bool done;
    _Atomic uint32_t faults;
};

static void read_always(void *context)
{
    struct shared *s = context;
    struct pool *pool = pool_open(s->pool, "reader", POOL_BYTES_UNLIMITED);
    struct pool *round = pool_open(pool, "round", POOL_BYTES_UNLIMITED);
    struct matcher matchers[2];
    assert_ok(matcher_init(pool, MATCH_EQUAL, slice_str("job"), slice_str("node"), &matchers[0], NULL));
    assert_ok(
        matcher_init(pool, MATCH_REGEX, slice_str("__name__"), slice_str("metric_1.?"), &matchers[1], NULL));
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct metric_index_describer *describers[PARTITIONS];
    while (!atomic_load(&s->done)) {
        uint32_t *ids, least = 0, added = atomic_load(&s->added);
        size_t count;
        uint32_t token = metric_index_hold(s->index);
        if (metric_index_select(s->index, slice_str("default"), matchers, 2, round, &ids, &count) != OK)
            atomic_fetch_add(&s->faults, 1);
        for (uint32_t p = 0; p < PARTITIONS; p++)
            assert_ok(metric_index_describer_open(s->index, p, pool, &describers[p]));
        for (uint32_t number = 0; number < added; number += 2) { /* odd ones may be dropped */
            uint32_t metric = number / 7 % 40;
            least += metric == 1 || (metric >= 10 && metric < 20);
        }
        if (count < least)
            atomic_fetch_add(&s->faults, 1);
        for (size_t i = 0; i < count; i += 50) {
            buf_clear(&labels);
            uint32_t local = metric_index_local(s->index, ids[i]);
            uint16_t partition = metric_index_partition(s->index, ids[i]);
            struct slice tenant;
            if (partition >= PARTITIONS)
                continue; /* dropped */
            err e = metric_index_describe(describers[partition], local, &labels, &tenant);
            if (e == ERR_NOT_FOUND)
                continue;
            if (e != OK || !matchers_match(matchers, 2, buf_slice(&labels)))
                atomic_fetch_add(&s->faults, 1);
            uint32_t found =
                metric_index_find(s->index, sum_series_hash(slice_str("default"), buf_slice(&labels)));
            if (local != METRIC_LOCAL_NONE && found != METRIC_ID_NONE && found != ids[i])
                atomic_fetch_add(&s->faults, 1);
        }
        for (uint32_t p = 0; p < PARTITIONS; p++)
            metric_index_describer_close(describers[p]);
        metric_index_release(s->index, token);
        pool_reset(round);
    }
    buf_close(&labels);
    matcher_done(&matchers[0]);
    matcher_done(&matchers[1]);
    pool_close(round);
    pool_close(pool);
}

struct odd_dropper {
    struct metric_index *index;
    uint8_t *is_even; /* by id */
};

static bool keep_even(void *context, uint32_t id)
{
    const struct odd_dropper *d = context;
    return d->is_even[id] != 0;
}

static void readers_beside_the_writer(void **state)
{
    enum { SERIES = 12000 };
    struct io *io;
    struct io_thread *threads[3];
    struct shared s = { .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED) };
    struct pool *labels = pool_open(s.pool, "labels", POOL_BYTES_UNLIMITED);
    struct odd_dropper dropper = { .is_even = calloc(2 * SERIES, 1) };
    assert_ok(io_open(".", &io));
    assert_ok(metric_index_open(s.pool, PARTITIONS, &s.index));
    for (int i = 0; i < 3; i++)
        assert_ok(io_thread_start(io, "reader", read_always, &s, &threads[i]));
    for (uint32_t number = 0; number < SERIES; number++) {
        uint32_t id;
        bool is_new;
        assert_ok(metric_index_add(s.index, slice_str("default"), make_labels(labels, number),
                                   number % PARTITIONS, &id, &is_new));
        dropper.is_even[id] = number % 2 == 0;
        atomic_store(&s.added, number + 1);
        if (number % 3000 == 2999) {
            uint64_t dropped;
            assert_ok(metric_index_retain(s.index, keep_even, &dropper, &dropped));
            assert_int_equal(dropped, 1500);
        }
    }
    atomic_store(&s.done, true);
    for (int i = 0; i < 3; i++)
        io_thread_join(threads[i]);
    assert_int_equal(atomic_load(&s.faults), 0);
    metric_index_close(s.index);
    io_close(io);
    pool_close(labels);
    pool_close(s.pool);
    free(dropper.is_even);
}

enum { ADDERS = 2, ADDER_SERIES = 120000 };

struct adder {
    struct shared *shared;
    uint32_t number;
};

/* Series of the adder's own partition, some of them twice, many at a time. */
static void add_many(void *context)
{
    struct adder *a = context;
    struct pool *pool = pool_open(NULL, "adder", POOL_BYTES_UNLIMITED);
    struct metric_index_item items[METRIC_INDEX_ITEMS];
    uint32_t next = 0;
    while (next < ADDER_SERIES) {
        uint32_t from = next >= 10 ? next - 10 : 0;
        size_t count = 0, done;
        for (next = from; count < METRIC_INDEX_ITEMS && next < ADDER_SERIES; next++)
            items[count++].labels = make_labels(pool, next * ADDERS + a->number);
        if (metric_index_add_all(a->shared->index, slice_str("default"), items, count, a->number, &done) !=
                OK ||
            done != count)
            atomic_fetch_add(&a->shared->faults, 1);
        for (size_t i = 0; i < count; i++) /* dense in the order of coming, whatever others add */
            if (items[i].local != from + i)
                atomic_fetch_add(&a->shared->faults, 1);
        pool_reset(pool);
    }
    pool_close(pool);
}

/* Two add to one tenant, through full tails and parts, while one reads. */
static void adders_take_turns(void **state)
{
    struct io *io;
    struct io_thread *reader, *threads[ADDERS];
    struct adder adders[ADDERS];
    struct shared s = { .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED) };
    assert_ok(io_open(".", &io));
    assert_ok(metric_index_open(s.pool, PARTITIONS, &s.index));
    metric_index_expect_many(s.index, true);
    assert_ok(io_thread_start(io, "reader", read_always, &s, &reader));
    for (uint32_t i = 0; i < ADDERS; i++) {
        adders[i] = (struct adder){ .shared = &s, .number = i };
        assert_ok(io_thread_start(io, "adder", add_many, &adders[i], &threads[i]));
    }
    for (uint32_t i = 0; i < ADDERS; i++)
        io_thread_join(threads[i]);
    metric_index_expect_many(s.index, false);
    atomic_store(&s.done, true);
    io_thread_join(reader);
    assert_int_equal(atomic_load(&s.faults), 0);
    assert_int_equal(metric_index_series(s.index), ADDERS * ADDER_SERIES);
    uint32_t *ids;
    size_t count;
    uint32_t token = metric_index_hold(s.index);
    assert_ok(metric_index_select(s.index, slice_str("default"), NULL, 0, s.pool, &ids, &count));
    metric_index_release(s.index, token);
    assert_int_equal(count, ADDERS * ADDER_SERIES);
    for (size_t i = 1; i < count; i++)
        assert_true(ids[i] > ids[i - 1]);
    struct pool *pool = pool_open(s.pool, "labels", POOL_BYTES_UNLIMITED);
    struct buf labels = buf_open(s.pool, LABELS_BYTES_MAX);
    struct metric_index_describer *describers[ADDERS];
    for (uint32_t i = 0; i < ADDERS; i++)
        assert_ok(metric_index_describer_open(s.index, i, s.pool, &describers[i]));
    for (uint32_t number = 0; number < ADDERS * ADDER_SERIES; number += 7) {
        struct slice expected = make_labels(pool, number);
        uint32_t id = metric_index_id_of_local(s.index, number % ADDERS, number / ADDERS);
        assert_int_equal(metric_index_find(s.index, sum_series_hash(slice_str("default"), expected)), id);
        buf_clear(&labels);
        struct slice tenant;
        assert_ok(metric_index_describe(describers[number % ADDERS], number / ADDERS, &labels, &tenant));
        assert_true(slice_equal(buf_slice(&labels), expected) && slice_equal_str(tenant, "default"));
        pool_reset(pool);
    }
    for (uint32_t i = 0; i < ADDERS; i++)
        metric_index_describer_close(describers[i]);
    buf_close(&labels);
    pool_close(pool);
    metric_index_close(s.index);
    io_close(io);
    pool_close(s.pool);
}

static bool is_odd(void *context, uint32_t id) { return id % 2 == 1; }

/* A view reads the labels of series that were dropped, and whose part was rewritten, after it was opened. */
static void views_outlive_drops(void **state)
{
    enum { SERIES = 40000 };
    struct world w = world_open(SERIES);
    struct metric_index_view *view;
    struct metric_index_cursor *cursor;
    uint32_t *ids;
    size_t count;
    uint64_t dropped;
    for (uint32_t i = 0; i < SERIES; i++)
        add_series(&w, i, 0);
    uint32_t token = metric_index_hold(w.index);
    assert_ok(metric_index_view_open(w.index, slice_str(tenants[0]), w.pool, &view));
    assert_ok(metric_index_retain(w.index, is_odd, NULL, &dropped));
    assert_true(dropped >= SERIES / 2);
    assert_ok(metric_index_view_select(view, NULL, 0, w.pool, &ids, &count));
    assert_int_equal(count, SERIES - dropped);
    assert_ok(metric_index_cursor_open(view, w.pool, &cursor));
    struct buf labels = buf_open(w.pool, LABELS_BYTES_MAX);
    for (uint32_t i = 0; i < SERIES; i++) {
        const struct series *s =
            &w.series[i < SERIES / 2 ? i : SERIES + SERIES / 2 - 1 - i]; /* and backward */
        buf_clear(&labels);
        assert_ok(metric_index_cursor_labels(cursor, s->id, &labels));
        assert_true(slice_equal(buf_slice(&labels), s->labels));
    }
    assert_err(ERR_NOT_FOUND, metric_index_cursor_labels(cursor, UINT32_MAX - 1, &labels));
    metric_index_view_close(view);
    metric_index_view_close(NULL);
    metric_index_release(w.index, token);
    world_close(&w);
}

/* A describer that knows a tenant finds series and tenants that came since, and no number that nobody has. */
static void describers_look_again(void **state)
{
    enum { SERIES = 6000 };
    struct world w = world_open(SERIES);
    struct metric_index_describer *d;
    struct slice tenant;
    assert_ok(metric_index_describer_open(w.index, 1, w.pool, &d));
    struct buf labels = buf_open(w.pool, LABELS_BYTES_MAX);
    assert_err(ERR_NOT_FOUND, metric_index_describe(d, 0, &labels, &tenant));
    for (uint32_t i = 0; i < SERIES; i++) {
        add_series(&w, i, i / (SERIES / 2) + i % 2);
        for (uint32_t back = 0; back < 40 && back <= i; back += 13) {
            const struct series *s = &w.series[i - back];
            if (s->partition != 1)
                continue;
            buf_clear(&labels);
            assert_ok(metric_index_describe(d, s->local, &labels, &tenant));
            assert_true(slice_equal(buf_slice(&labels), s->labels));
            assert_true(slice_equal_str(tenant, tenants[s->tenant]));
        }
    }
    assert_err(ERR_NOT_FOUND, metric_index_describe(d, METRIC_LOCALS_MAX - 1, &labels, &tenant));
    metric_index_describer_close(d);
    metric_index_describer_close(NULL);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_equals_list),
        cmocka_unit_test(known_series_are_compared),
        cmocka_unit_test(local_numbers_wait_for_holders),
        cmocka_unit_test(views_outlive_drops),
        cmocka_unit_test(describers_look_again),
        cmocka_unit_test(tenants_come_and_go),
        cmocka_unit_test(cardinality_counts),
        cmocka_unit_test(allocation_failures_change_nothing),
        cmocka_unit_test(readers_beside_the_writer),
        cmocka_unit_test(adders_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
