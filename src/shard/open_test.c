/* Partitions that come and go on a real disk: what open queries keep, what new ones say, what stays on the
 * disk, and that every row is there again. Model and oracle: workload.h; with crashes and faults: shard_simtest.c.
 */
#include "shard/fixture.h"

#include "shard/partition.h"
#include "shard/source.h"

#define OTHER 0u
#define GOING 1u

/* A query over the partitions asked for, and its pool. */
static struct source_set *select_all(struct world *w, const uint64_t *partitions, struct pool **out_pool)
{
    struct source *source = shards_source(w->shards);
    struct source_request request = { .tenant = slice_str("default"),
                                      .range = { TIME_MS_MIN, TIME_MS_MAX },
                                      .series_max = SIZE_MAX,
                                      .partitions = partitions };
    struct source_set *set;
    *out_pool = pool_open(w->pool, "query", POOL_BYTES_UNLIMITED);
    assert_ok(source->table->select(source, &request, *out_pool, &set));
    return set;
}

/* Rows of a set, its labels read as well. */
static size_t count_rows(struct world *w, struct source_set *set, struct pool *pool)
{
    struct source *source = shards_source(w->shards);
    struct sample_columns columns = sample_columns_open(pool);
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct source_reader *reader;
    size_t count = 0;
    assert_ok(source->table->reader_open(set, &reader));
    for (size_t i = 0; i < source->table->set_count(set); i++) {
        buf_clear(&labels);
        assert_ok(source->table->read_labels(reader, i, &labels));
        assert_ok(source->table->read_samples(reader, i, &columns));
        count += columns.count;
    }
    source->table->reader_close(reader);
    sample_columns_close(&columns);
    buf_close(&labels);
    return count;
}

/* Rows of a query over the partitions asked for. */
static size_t ask(struct world *w, const uint64_t *partitions, bool *out_complete)
{
    struct pool *pool;
    struct source_set *set = select_all(w, partitions, &pool);
    size_t count = count_rows(w, set, pool);
    *out_complete = shards_source(w->shards)->table->set_proof(set)->complete;
    shards_source(w->shards)->table->set_close(set);
    pool_close(pool);
    return count;
}

static enum shard_stage stage_of(struct world *w) { return shards_partition_status(w->shards, GOING).stage; }

static void close_it(struct world *w)
{
    shards_partition_close(w->shards, GOING);
    assert_int_equal(stage_of(w), SHARD_CLOSING);
    for (int i = 0; i < 100 && stage_of(w) == SHARD_CLOSING; i++)
        assert_ok(world_settle(w, 1));
    assert_int_equal(stage_of(w), SHARD_CLOSED);
}

static void open_it(struct world *w)
{
    struct err_at at = { 0 };
    assert_ok(shards_partition_open(w->shards, GOING, &at));
    assert_int_equal(stage_of(w), SHARD_OPEN);
}

/* Rows in segments, row groups, and heads of all partitions. */
static void write_everywhere(struct world *w)
{
    world_write(w, 60);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_write(w, 40);
    assert_ok(world_settle(w, 1000));
    world_write(w, 8);
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    const struct partition *p = &w->shards->partitions[GOING];
    assert_true(p->segment_count > 0 && p->open_range->group_count > 0 && p->head_rows > 0);
}

static int setup(void **state)
{
    int result = fixture_setup(state);
    ((struct fixture *)*state)->world.config.cut_group_count =
        1000; /* what is written stays where it is put */
    return result;
}

static void what_a_query_has_it_keeps(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    const uint64_t other = UINT64_C(1) << OTHER, going = UINT64_C(1) << GOING;
    struct pool *pool;
    bool complete, worked;
    assert_ok(world_open(w));
    write_everywhere(w);
    size_t all = ask(w, NULL, &complete), others = ask(w, &other, &complete);
    assert_true(complete && others > 0 && others < all);
    uint64_t series = shards_usage(w->shards).series_count;
    struct source_set *set = select_all(w, NULL, &pool);
    close_it(w);
    assert_ok(world_settle(w, 10));
    assert_int_equal(shards_usage(w->shards).series_count, series); /* the set may still look them up */
    assert_int_equal(count_rows(w, set, pool), all);
    assert_true(shards_source(w->shards)->table->set_proof(set)->complete);

    assert_int_equal(ask(w, NULL, &complete), others);
    assert_false(complete);
    assert_int_equal(ask(w, &other, &complete), others);
    assert_true(complete);
    assert_int_equal(ask(w, &going, &complete), 0);
    assert_false(complete);

    shards_source(w->shards)->table->set_close(set);
    pool_close(pool);
    assert_ok(shards_apply_step(w->shards, &worked));
    assert_true(shards_usage(w->shards).series_count < series);
    assert_null(w->shards->partitions[GOING].ended);
    open_it(w);
    world_expect(w);
    assert_int_equal(shards_usage(w->shards).series_count, series);
}

/* A view that was taken, but has not looked into the index yet. */
static void a_view_finds_the_series_of_its_heads(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct source_request request = { .range = { TIME_MS_MIN, TIME_MS_MAX } };
    struct views views;
    bool worked;
    assert_ok(world_open(w));
    world_write(w, 8);
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    uint64_t series = shards_usage(w->shards).series_count;
    assert_ok(views_open(w->shards, &request, request.range, w->pool, &views));
    close_it(w);
    for (int i = 0; i < 3; i++)
        assert_ok(shards_apply_step(w->shards, &worked));
    assert_int_equal(shards_usage(w->shards).series_count, series);
    views_close(&views);
    assert_ok(shards_apply_step(w->shards, &worked));
    assert_true(shards_usage(w->shards).series_count < series);
}

static void it_goes_on_where_it_was(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct err_at at = { 0 };
    assert_ok(world_open(w));
    for (int round = 0; round < 6; round++) {
        write_everywhere(w);
        assert_err(ERR_EXISTS, shards_partition_open(w->shards, GOING, &at));
        if (round % 2 == 1) { /* a CUT of it is under way */
            const struct partition *p = &w->shards->partitions[GOING];
            struct control cut = { .kind = CONTROL_CUT,
                                   .position = p->open_range->start,
                                   .reason = CUT_ASKED };
            cut.format_version = METRIC_COMPACT_VERSION;
            control_send(&w->shards->partitions[GOING], &w->shards->partitions[GOING].cut, &cut);
            assert_true(p->cut.in_flight);
        }
        shards_partition_close(w->shards, GOING);
        assert_err(ERR_BUSY, shards_partition_open(w->shards, GOING, &at));
        for (int i = 0; i < 20; i++)
            assert_ok(world_append(w, (uint32_t)i % WORLD_PARTITIONS, 30, true));
        assert_ok(world_settle(w, 100));
        assert_int_equal(stage_of(w), SHARD_CLOSED);
        assert_false(shards_partition_status(w->shards, GOING).is_replayed);
        assert_int_equal(shards_partition_sum(w->shards, GOING).sum.count, 0);
        shards_partition_close(w->shards, GOING); /* nothing */
        if (round == 4) {
            world_close_quick(w);
            world_producer_renew(w);
            w->config.starts_closed = true;
            assert_ok(world_open(w));
            assert_ok(world_settle(w, 10));
            assert_true(shards_ready(w->shards));
            assert_ok(shards_partition_open(w->shards, OTHER, &at));
        }
        open_it(w);
        assert_ok(shards_wait_applied(w->shards, world_soon(w)));
        assert_true(shards_partition_status(w->shards, GOING).is_replayed);
        world_expect(w);
    }
}

static size_t stream_files(struct world *w, uint32_t partition)
{
    struct io_dir_entry *entries;
    size_t count, own = 0;
    char prefix[16];
    snprintf(prefix, sizeof prefix, "p%03u", partition);
    assert_ok(io_dir_list(w->io, "stream", w->pool, &entries, &count));
    for (size_t i = 0; i < count; i++)
        own += strncmp(entries[i].name, prefix, strlen(prefix)) == 0;
    return own;
}

static void lease_all(struct world *w, int64_t until_ns)
{
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        shards_partition_rank(w->shards, p, 0, until_ns);
}

static void open_leased(struct world *w)
{
    assert_ok(world_open(w));
    lease_all(w, INT64_MAX);
}

/* A partition that went for good leaves no files; one that is back soon finds them. */
static void files_go_after_an_hour(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    w->config.is_shared = true; /* else nobody else has what is in them */
    open_leased(w);
    write_everywhere(w);
    size_t before = stream_files(w, GOING), others = stream_files(w, OTHER);
    assert_true(before > 0 && others > 0);
    close_it(w);
    assert_ok(world_settle(w, 100));
    assert_int_equal(stream_files(w, GOING), before);
    w->shards->partitions[GOING].closed_ns -= 3600 * NS_PER_SECOND;
    assert_ok(world_settle(w, 100));
    assert_int_equal(stream_files(w, GOING), 0);
    assert_int_equal(stream_files(w, OTHER), others);
    assert_int_equal(stage_of(w), SHARD_CLOSED);
    open_it(w);
    world_expect(w);
}

/* Opening fails: it is closed as before, and opens when the reason is gone. */
static void a_failed_opening_leaves_it_closed(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct err_at at = { 0 };
    assert_ok(world_open(w));
    write_everywhere(w);
    close_it(w);
    uint64_t failed = 0;
    for (uint64_t nth = 1;; nth++) {
        pool_fault_at(w->node_pool, nth, false);
        err e = shards_partition_open(w->shards, GOING, &at);
        pool_fault_at(w->node_pool, 0, false);
        if (e == OK)
            break;
        assert_err(ERR_LIMIT, e);
        assert_int_equal(stage_of(w), SHARD_CLOSED);
        failed++;
    }
    assert_true(failed > 10);
    world_expect(w);
}

static void cut_everything(struct world *w)
{
    world_write(w, 20);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
}

/* What one replica cannot read others may: it makes no base of what it has in its place. */
static void what_stands_in_is_not_passed_on(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    w->config.is_shared = true;
    w->config.chain_base_count = 100;
    open_leased(w);
    for (int i = 0; i < 4; i++)
        cut_everything(w);
    world_close_quick(w);
    fixture_flip(f, "blob/p001/chain/00000002", 2);
    w->config.chain_base_count = 1;
    open_leased(w);
    for (int i = 0; i < 4; i++)
        cut_everything(w);
    assert_true(w->shards->partitions[OTHER].chain.base_number > 0);
    assert_int_equal(w->shards->partitions[GOING].chain.base_number, 0);
    world_close_quick(w);
    fixture_flip(f, "blob/p001/chain/00000002", 2); /* whole again, as others saw it all the while */
    open_leased(w);
    for (int i = 0; i < 4; i++)
        cut_everything(w);
    assert_true(w->shards->partitions[GOING].chain.base_number > 0);
    world_expect(w);
    world_close_quick(w);
    fixture_flip(f, "blob/p001/chain/00000001", 2); /* before the newest base nothing is read */
    open_leased(w);
    const struct chain *chain = &w->shards->partitions[GOING].chain;
    assert_true(chain->first_number == chain->base_number && chain->lost_count == 0 && !chain->has_stand_in);
    world_expect(w);
}

static uint64_t chain_entries(const struct world *w)
{
    uint64_t count = 0;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        count += w->shards->partitions[p].chain.next_number;
    return count;
}

static uint64_t log_ends(const struct world *w)
{
    uint64_t sum = 0;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        sum += log_watermarks(w->log, p).end_offset;
    return sum;
}

/* Everything that could be done is tried, as often as it takes; what is asked for, too. */
static void expect_nothing_decided(struct world *w)
{
    uint64_t entries = chain_entries(w), ends = log_ends(w);
    assert_err(ERR_TIMEOUT, shards_cut_all(w->shards, io_monotonic_ns(w->io) + 50 * NS_PER_MS));
    for (int i = 0; i < 100; i++) {
        bool worked;
        assert_ok(shards_background_step(w->shards, &worked));
        assert_ok(world_settle(w, 1));
    }
    assert_true(chain_entries(w) == entries && log_ends(w) == ends);
}

/* Of a shared partition who was told nothing decides nothing, nor who was told so, nor whose time is over; what
 * was cut by others then is committed by others. */
static void without_a_lease_nothing_is_decided(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct partition *p;
    w->config.is_shared = true;
    assert_ok(world_open(w));
    world_write(w, 40);
    expect_nothing_decided(w);
    lease_all(w, io_boottime_ns(w->io));
    expect_nothing_decided(w);
    lease_all(w, INT64_MIN);
    p = &w->shards->partitions[GOING];
    struct control cut = { .kind = CONTROL_CUT, .position = p->open_range->start, .reason = CUT_ASKED };
    cut.format_version = METRIC_COMPACT_VERSION;
    control_send(p, &p->cut, &cut);
    assert_ok(world_settle(w, 100));
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    assert_true(p->ranges->closed);
    expect_nothing_decided(w);
    assert_int_equal(w->shards->temp_number, 0); /* nor was anything built */
    lease_all(w, io_boottime_ns(w->io) + 3600 * NS_PER_SECOND);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    assert_true(p->chain.commit_count > 0);
    world_expect(w);
}

/* It ends while a range is built: the entry is not put, what is lost is named all the same. */
static void a_lease_that_ends_meanwhile_is_over(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct partition *p;
    struct pool *scratch = pool_open(w->pool, "scratch", POOL_BYTES_UNLIMITED);
    w->config.is_shared = true;
    open_leased(w);
    p = &w->shards->partitions[GOING];
    struct chain_loss loss = { LOSS_LOG, { 1, 0 }, { 1, 1 }, { 0, 1 }, 0, false };
    struct chain_entry accept = { .kind = CHAIN_ACCEPT, .end = p->chain.end }, lost = {
        .kind = CHAIN_LOSSES, .leader_epoch = LOG_EPOCH_NONE, .losses = &loss, .loss_count = 1
    };
    lease_all(w, INT64_MIN);
    io_mutex_lock(&p->chain_lock);
    assert_err(ERR_BUSY, partition_entry_put(p, &accept, scratch));
    assert_ok(partition_entry_put(p, &lost, scratch));
    io_mutex_unlock(&p->chain_lock);
    pool_close(scratch);
}

/* All of it at once, with the threads of a node: a race is for the thread sanitizer to see. */
static void while_everything_runs(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct err_at at = { 0 };
    bool complete;
    assert_ok(world_open(w));
    assert_ok(log_run_thread(w->log));
    assert_ok(shards_run_threads(w->shards));
    for (int i = 0; i < 400; i++) {
        struct world_record *r = world_record_make(w, (uint32_t)i % WORLD_PARTITIONS, 20, true);
        world_send(w, r);
        while (atomic_load(&r->answer) == WORLD_PENDING)
            io_sleep_ns(w->io, 50000);
        world_answered(w, r);
        if (i % 8 == 3)
            shards_partition_close(w->shards, GOING);
        if (i % 8 == 5)
            (void)ask(w, NULL, &complete);
        if (i % 8 == 7) {
            err e;
            while ((e = shards_partition_open(w->shards, GOING, &at)) == ERR_BUSY)
                io_sleep_ns(w->io, 50000);
            assert_ok(e);
        }
    }
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
    assert_ok(shards_intake(w->shards));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_query_has_it_keeps, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_view_finds_the_series_of_its_heads, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(it_goes_on_where_it_was, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(files_go_after_an_hour, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_failed_opening_leaves_it_closed, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(what_stands_in_is_not_passed_on, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(without_a_lease_nothing_is_decided, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_lease_that_ends_meanwhile_is_over, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(while_everything_runs, setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
