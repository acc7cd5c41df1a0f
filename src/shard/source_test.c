/* Queries on a room on a real disk: which row wins, names and values, what a view holds on to, damaged blocks, and
 * what open segments may take. Model and oracle: workload.h. */
#include "shard/fixture.h"

#include "shard/partition.h"
#include "shard/source.h"

/* A query finds what it saw in the index, though that was committed meanwhile and its producer is forgotten. */
static void a_view_keeps_its_series(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct views views;
    bool worked;
    assert_ok(world_open(w));
    world_write(w, 20);
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    uint64_t series = metric_index_series(w->shards->index);
    assert_true(series > 0);
    struct pool *pool = pool_open(w->pool, "query", POOL_BYTES_UNLIMITED);
    struct source_request request = { .range = { TIME_MS_MIN, TIME_MS_MAX } };
    assert_ok(views_open(w->shards, &request, request.range, pool, &views));
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    for (uint32_t i = 0; i < w->config.partition_count; i++)
        w->shards->partitions[i].producer_count = 0; /* as FORGET does */
    assert_ok(shards_apply_step(w->shards, &worked));
    assert_int_equal(metric_index_series(w->shards->index), series);
    views_close(&views);
    assert_ok(shards_apply_step(w->shards, &worked));
    assert_int_equal(metric_index_series(w->shards->index), 0);
    for (uint32_t i = 0; i < w->config.partition_count; i++)
        assert_null(w->shards->partitions[i].ended);
    pool_close(pool);
}

/* Whoever is gone waits for nothing to be applied. */
static void a_canceled_question_does_not_wait(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct guard guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX, .canceled = true };
    struct source_request request = { .range = { TIME_MS_MIN, TIME_MS_MAX }, .guard = &guard };
    struct views views;
    assert_ok(world_open(w));
    assert_ok(world_append(w, 0, 20, false));
    struct pool *pool = pool_open(w->pool, "query", POOL_BYTES_UNLIMITED);
    assert_err(ERR_CANCELED, views_open(w->shards, &request, request.range, pool, &views));
    /* Nor who knows an earlier end. */
    const struct source_position earlier = { 0, SOURCE_GENERATION_ANY, 0 };
    request.after = &earlier;
    request.after_count = 1;
    assert_ok(views_open(w->shards, &request, request.range, pool, &views));
    assert_true(views.proof.complete && views.proof.partitions[0].end_offset == 0);
    views_close(&views);
    request.after_count = 0;
    atomic_store(&guard.canceled, false);
    assert_ok(views_open(w->shards, &request, request.range, pool, &views));
    views_close(&views);
    pool_close(pool);
    world_expect(w);
}

/* Of equal (series, t) the highest position wins, wherever the rows are. */
static void the_last_row_wins(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    struct source *source = shards_source(w->shards);
    for (uint64_t i = 1; i <= 12; i++) {
        uint32_t numbers[] = { 0, 0 };
        int64_t t_ms[] = { WORLD_EPOCH_MS, WORLD_EPOCH_MS + 60000 };
        uint64_t bits[] = { double_bits((double)i), double_bits(5.0) };
        struct batch_announce announce = { 0, w->labels[0][0] };
        struct batch b = { .signal = SIGNAL_METRIC,
                           .tenant = slice_str("default"),
                           .append_ms = io_now_ms(w->io),
                           .sequence = i,
                           .announces = &announce,
                           .announce_count = 1,
                           .numbers = numbers,
                           .t_ms = t_ms,
                           .value_bits = bits,
                           .row_count = 2 };
        b.incarnation[0] = 9;
        struct world_record r = { .partition = 0, .bytes = buf_open(w->pool, 1000) };
        assert_ok(batch_encode(&b, &r.bytes));
        world_send(w, &r);
        assert_ok(log_pump(w->log));
        assert_int_equal(r.answer, WORLD_ACKED);
        if (i % 3 == 0)
            assert_ok(shards_cut_all(w->shards, world_soon(w)));
        if (i == 8)
            assert_ok(world_settle(w, 1000)); /* merges what is there */
        struct pool *pool = pool_open(w->pool, "read", POOL_BYTES_UNLIMITED);
        struct source_request request = { .tenant = slice_str("default"),
                                          .series_max = 10,
                                          .range = { WORLD_EPOCH_MS, WORLD_EPOCH_MS + 1000 } };
        struct source_set *set;
        struct sample_columns columns = sample_columns_open(pool);
        assert_ok(source->table->select(source, &request, pool, &set));
        assert_int_equal(source->table->set_count(set), 1);
        struct source_reader *reader;
        assert_ok(source->table->reader_open(set, &reader));
        assert_ok(source->table->read_samples(reader, 0, &columns));
        source->table->reader_close(reader);
        assert_int_equal(columns.count, 1);
        assert_true(columns.values[0] == (double)i);
        sample_columns_close(&columns);
        source->table->set_close(set);
        pool_close(pool);
    }
    assert_ok(world_settle(w, 1000));
    assert_true(shards_partition_sum(w->shards, 0).dropped_rows > 0);
}

static void names_and_values(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    for (int i = 0; i < 3; i++) {
        world_write(w, 60);
        struct source *source = shards_source(w->shards);
        struct source_request request = { .tenant = slice_str("default"),
                                          .range = { TIME_MS_MIN, TIME_MS_MAX },
                                          .series_max = SIZE_MAX };
        struct slice *items;
        size_t count;
        struct proof proof;
        assert_ok(source->table->label_names(source, &request, 1, 0, w->pool, &items, &count, &proof));
        assert_int_equal(count, 3);
        assert_true(slice_equal_str(items[0], "__name__"));
        assert_true(slice_equal_str(items[2], "partition"));
        assert_ok(source->table->label_values(source, slice_str("__name__"), &request, 1, 0, w->pool, &items,
                                              &count, &proof));
        assert_int_equal(count, 5);
        struct matcher m;
        assert_ok(matcher_init(w->pool, MATCH_EQUAL, slice_str("partition"), slice_str("1"), &m, NULL));
        request.matchers = &m;
        request.matcher_count = 1;
        assert_ok(source->table->label_values(source, slice_str("instance"), &request, 1, 3, w->pool, &items,
                                              &count, &proof));
        assert_int_equal(count, 3);
        assert_true(slice_equal_str(items[0], "host-0"));
        assert_true(proof.complete);
        matcher_done(&m);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
    }
}

/* A block of a segment is damaged while the node runs: who needs it is told, the rest is served, people hear of it
 * once, and merges go on without the segment. */
static void a_damaged_block_is_remembered(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    for (int merges_first = 0; merges_first < 2; merges_first++) {
        w->config.compact = false;
        assert_ok(world_open(w));
        for (int i = 0; i < 4; i++) {
            world_write(w, 40);
            assert_ok(shards_cut_all(w->shards, world_soon(w)));
        }
        struct partition *p = &w->shards->partitions[0];
        char path[IO_PATH_BYTES_MAX], key[SHARD_KEY_BYTES_MAX];
        size_t damaged = 0; /* the largest: not the wide one, which no merge takes */
        for (size_t i = 1; i < p->chain.segment_count; i++)
            damaged = p->chain.segments[i].bytes > p->chain.segments[damaged].bytes ? i : damaged;
        uint8_t digest[SHA256_BYTES];
        memcpy(digest, p->chain.segments[damaged].digest, sizeof digest);
        segment_key(0, digest, key);
        snprintf(path, sizeof path, "blob/%s", key);
        fixture_flip(f, path, 16); /* near the start, where the rows are */
        assert_int_equal(shards_usage(w->shards).quarantined_count, 0);
        atomic_store(&w->shards->compact, true);
        size_t before = p->chain.segment_count;
        if (merges_first) { /* the first fails, and finds out why */
            assert_ok(world_settle(w, 1000));
            assert_int_equal(shards_usage(w->shards).quarantined_count, 1);
            assert_true(p->compact_retry_ns > 0);
            p->compact_retry_ns = 0;
        }
        for (int i = 0; i < 2; i++) {
            assert_non_null(world_check(w));
            assert_false(w->was_complete);
            assert_int_equal(shards_usage(w->shards).quarantined_count, 1);
        }
        assert_ok(world_settle(w, 1000));
        assert_int_equal(p->compact_retry_ns, 0);
        assert_true(p->chain.segment_count < before);
        bool is_there = false;
        for (size_t i = 0; i < p->chain.segment_count; i++)
            is_there = is_there || memcmp(p->chain.segments[i].digest, digest, sizeof digest) == 0;
        assert_true(is_there);
        world_close_quick(w);
        fixture_remove(f, "log");
        fixture_remove(f, "stream");
        fixture_remove(f, "blob");
        world_init(w, f->io, f->pool, test_seed());
        world_producer_renew(w);
    }
}

static err select_range(struct world *w, struct time_range range)
{
    struct pool *pool = pool_open(w->pool, "select", POOL_BYTES_UNLIMITED);
    struct source *source = shards_source(w->shards);
    struct source_request request = { .tenant = slice_str("default"),
                                      .series_max = SIZE_MAX,
                                      .range = range };
    struct source_set *set;
    err e = source->table->select(source, &request, pool, &set);
    if (e == OK) {
        assert_true(source->table->set_count(set) > 0);
        assert_true(source->table->set_proof(set)->complete);
        source->table->set_close(set);
    }
    pool_close(pool);
    return e;
}

/* Any number of segments can be asked one after the other with the memory of a few; a question that needs more at
 * once than there is fails, and the next ones do not. */
static void open_segments_have_a_budget(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct time_range all = { TIME_MS_MIN, TIME_MS_MAX };
    w->config.compact = false;
    w->config.cache_bytes_max = 1; /* what is released is gone at once */
    assert_ok(world_open(w));
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 10; i++)
            assert_ok(world_append(w, (uint32_t)i % WORLD_PARTITIONS, 20, false));
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        for (uint32_t i = 0; i < WORLD_PARTITIONS * WORLD_SERIES; i++) /* no time is in two segments */
            w->next_t_ms[i / WORLD_SERIES][i % WORLD_SERIES] =
                WORLD_EPOCH_MS + (round + 1) * MS_PER_HOUR + (int64_t)i;
    }
    world_expect(w);
    size_t used = pool_used(w->shards->opened);
    assert_true(used > 0);
    world_close_quick(w);
    w->config.opened_bytes_max = used / 3;
    assert_ok(world_open(w));
    const struct partition *p = &w->shards->partitions[0];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < p->segment_count; i++) {
            int64_t t_ms = p->segments[i]->facts.range.min_ms;
            assert_ok(select_range(w, (struct time_range){ t_ms, t_ms }));
            assert_true(pool_used(w->shards->opened) <= used / 3);
        }
        assert_err(ERR_LIMIT, select_range(w, all));
    }
    world_close_quick(w);
    w->config.opened_bytes_max = 2 * used;
    assert_ok(world_open(w));
    assert_ok(select_range(w, all));
    world_expect(w);
}

/* Exemplars of all series of partition 0. */
static size_t count_exemplars(struct world *w)
{
    struct pool *pool = pool_open(w->pool, "read", POOL_BYTES_UNLIMITED);
    struct source *source = shards_source(w->shards);
    struct source_request request = { .tenant = slice_str("default"),
                                      .series_max = SIZE_MAX,
                                      .range = { TIME_MS_MIN, TIME_MS_MAX } };
    struct source_set *set;
    size_t total = 0;
    assert_ok(source->table->select(source, &request, pool, &set));
    for (size_t i = 0; i < source->table->set_count(set); i++) {
        struct source_exemplar *found;
        size_t count;
        assert_ok(source->table->set_exemplars(set, i, pool, &found, &count));
        total += count;
    }
    source->table->set_close(set);
    pool_close(pool);
    return total;
}

/* An exemplar that comes when the rows of its series are spilled already: alone in its head. */
static void exemplars_alone_are_kept(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    w->config.cut_group_count = 1000;
    assert_ok(world_open(w));
    assert_ok(world_append(w, 0, 40, false));
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    struct partition *p = &w->shards->partitions[0];
    io_mutex_lock(&p->lock);
    assert_ok(partition_freeze(p));
    io_mutex_unlock(&p->lock);
    uint32_t s = 0;
    while (!w->producer.announced[0][s])
        s++;
    struct world_record r = { .bytes = buf_open(w->pool, BATCH_BYTES_MAX) };
    struct batch b = world_batch(w, 0);
    struct batch_exemplar exemplar = { s, w->next_t_ms[0][s], 7, w->labels[0][s] };
    b.exemplars = &exemplar;
    b.exemplar_count = 1;
    assert_ok(batch_encode(&b, &r.bytes));
    world_send(w, &r);
    assert_ok(log_pump(w->log));
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    assert_int_equal(count_exemplars(w), 1);
    for (int life = 0; life < 2; life++) {
        world_close_quick(w);
        world_producer_renew(w);
        assert_ok(world_open(w));
        assert_ok(shards_wait_applied(w->shards, world_soon(w)));
        assert_int_equal(count_exemplars(w), 1);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        assert_int_equal(count_exemplars(w), 1);
        world_expect(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exemplars_alone_are_kept, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_view_keeps_its_series, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_canceled_question_does_not_wait, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(the_last_row_wins, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(names_and_values, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_block_is_remembered, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(open_segments_have_a_budget, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
