/* The room as a whole on a real disk: what is written is read back the same from heads, row groups and
 * segments, over restarts, cuts, merges, retention and damage. Model and oracle: workload.h. What is about queries
 * alone: source_test.c. */
#include "shard/fixture.h"

#include "base/sha256.h"
#include "shard/partition.h"

static void rows_in_heads(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    w->config.head_rows_max = 4096;
    assert_ok(world_open(w));
    world_expect(w);
    world_write(w, 50);
    world_expect(w);
    assert_int_equal(shards_usage(w->shards).stream_rows, 0);
    assert_true(shards_usage(w->shards).head_rows > 0);
    world_close_quick(w); /* spills */
    assert_ok(world_open(w));
    world_expect(w);
    assert_true(shards_usage(w->shards).stream_rows > 0);
}

/* Partitions that fill alike are not full at the same moment, and no head is frozen before there is need. */
static void heads_freeze_one_after_another(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    bool worked;
    uint64_t spilled = 0;
    w->config.head_rows_max = 1000;
    w->config.cut_group_count = 1000;
    assert_ok(world_open(w));
    for (int i = 0; i < 200; i++) {
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            assert_ok(world_append(w, p, 20, false));
        do
            assert_ok(shards_apply_step(w->shards, &worked));
        while (worked); /* the first time also: ready */
        struct shards_usage before = shards_usage(w->shards);
        do
            assert_ok(shards_spill_step(w->shards, &worked));
        while (worked);
        struct shards_usage u = shards_usage(w->shards);
        assert_true(u.head_rows <= 1000 * (WORLD_PARTITIONS + 1) / 2);
        assert_true(before.head_rows <= u.head_rows + 1000 + 20);
        spilled = u.stream_group_count;
    }
    assert_in_range(spilled, 200 * 20 * WORLD_PARTITIONS / 1000 - WORLD_PARTITIONS,
                    200 * 20 * WORLD_PARTITIONS / 900);
    world_expect(w);
}

static void rows_everywhere_and_restarts(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    for (int round = 0; round < 6; round++) {
        world_write(w, 40);
        world_expect(w);
        assert_ok(world_settle(w, 1000));
        world_expect(w);
        if (round % 2 == 1) {
            world_close_quick(w);
            world_producer_renew(w);
            assert_ok(world_open(w));
            world_expect(w);
        }
    }
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    struct shards_usage u = shards_usage(w->shards);
    assert_int_equal(u.stream_rows + u.head_rows, 0);
    assert_true(u.segment_rows > 0);
    world_expect(w);
    world_close_quick(w);
    assert_ok(world_open(w));
    world_expect(w);
}

/* A control record that the log has not written yet when the node stops: it lies in memory that goes. */
static void a_cut_under_way_is_waited_for(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    struct control_append *cut;
    bool worked;
    w->config.cut_group_count = 1;
    assert_ok(world_open(w));
    cut = &w->shards->partitions[0].cut;
    for (int i = 0; i < 20; i++)
        assert_ok(world_append(w, 0, 20, false));
    assert_ok(shards_apply_step(w->shards, &worked));
    while (worked)
        assert_ok(shards_spill_step(w->shards, &worked));
    assert_ok(shards_background_step(w->shards, &worked));
    assert_true(cut->in_flight);
    world_close_quick(w);
    assert_ok(world_open(w));
    world_expect(w);
}

/* One damaged announcement may leave millions of rows over what is kept: that is one loss, not one each. Others
 * grow at the bound, and close nothing. */
static void losses_are_bounded(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    struct range *range = w->shards->partitions[0].open_range;
    for (int64_t i = 0; i < 3 * CHAIN_LOSS_COUNT_MAX; i++) {
        struct chain_loss loss = { .kind = LOSS_UNRESOLVED,
                                   .from = { 1, 5 + (uint64_t)i / 5 * 2 }, /* every other record */
                                   .to = { 1, 6 + (uint64_t)i / 5 * 2 },
                                   .range = { i, i },
                                   .row_count = 1 };
        assert_ok(range_loss_add(range, &loss));
    }
    assert_int_equal(range->loss_count, 1);
    assert_int_equal(range->losses[0].row_count, 3 * CHAIN_LOSS_COUNT_MAX);
    assert_int_equal(range->losses[0].range.max_ms, 3 * CHAIN_LOSS_COUNT_MAX - 1);
    for (uint64_t i = 0; i < 2 * CHAIN_LOSS_COUNT_MAX;
         i++) { /* of another kind, and apart: up to the bound */
        struct chain_loss loss = { .kind = LOSS_LOG, .from = { 2, 2 * i }, .to = { 2, 2 * i + 1 } };
        assert_ok(range_loss_add(range, &loss));
    }
    assert_int_equal(range->loss_count, CHAIN_LOSS_COUNT_MAX);
    assert_int_equal(range->losses[CHAIN_LOSS_COUNT_MAX - 1].to.offset, 4 * CHAIN_LOSS_COUNT_MAX - 1);
}

static void a_quiet_range_waits_as_long_as_it_is_small(void **state)
{
    static const struct {
        uint64_t log_bytes;
        int64_t silent_s;
        bool cut;
    } cases[] = { { 1u << 20, 19, false },  { 1u << 20, 21, true }, { 800u << 10, 35, false },
                  { 800u << 10, 41, true }, { 1, 290, false },      { 1, 301, true } };
    struct world *w = &((struct fixture *)*state)->world;
    struct partition *p;
    bool worked;
    assert_ok(world_open(w));
    p = &w->shards->partitions[0];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(world_append(w, 0, 20, false));
        assert_ok(world_settle(w, 1000));
        p->open_range->log_bytes = cases[i].log_bytes;
        p->heard_ns = io_monotonic_ns(w->io) - cases[i].silent_s * NS_PER_SECOND;
        assert_ok(shards_background_step(w->shards, &worked));
        assert_int_equal(p->cut.in_flight, cases[i].cut);
        assert_ok(world_settle(w, 1000));
        assert_int_equal(p->open_range->row_count, cases[i].cut ? 0 : 20);
    }
    world_expect(w);
}

static void a_resent_record_counts_once(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    for (int i = 0; i < 30; i++) {
        struct world_record *r = world_record_make(w, 0, 5, false);
        world_send(w, r);
        assert_ok(log_pump(w->log));
        world_answered(w, r);
        world_send(w, r); /* as after a lost answer */
        assert_ok(log_pump(w->log));
        if (i == 15) {
            assert_ok(shards_cut_all(w->shards, world_soon(w)));
            world_close_quick(w);
            assert_ok(world_open(w));
            world_send(w, r);
            assert_ok(log_pump(w->log));
        }
    }
    world_expect(w);
    assert_true(shards_usage(w->shards).duplicate_records > 10);
}

static void what_is_in_the_log_alone_has_an_age(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    struct partition *p = &w->shards->partitions[0];
    assert_true(shards_unsaved(w->shards).since_ms == INT64_MAX);
    for (int i = 0; i < 2; i++) {
        assert_ok(world_append(w, 0, 20, false));
        assert_ok(world_settle(w, 1000));
        assert_int_equal(p->open_range->first_ms, LOG_TIME_NONE); /* this log has no times */
        int64_t saved_ms = p->chain.data_through_ms;
        assert_true(shards_unsaved(w->shards).since_ms == (i == 0 ? INT64_MAX : saved_ms));
        p->open_range->first_ms = 7;
        assert_true(shards_unsaved(w->shards).since_ms == 7);
        assert_ok(world_append(w, 0, 20, false));
        assert_ok(world_settle(w, 1000));
        assert_true(shards_unsaved(w->shards).since_ms == 7);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        assert_true(shards_unsaved(w->shards).since_ms == INT64_MAX);
    }
    p->newest_ms = 9;
    p->apply_failed = ERR_ORDER; /* what is behind is not known */
    assert_true(shards_unsaved(w->shards).since_ms == 9 && shards_unsaved(w->shards).newest_ms == 9);
    p->apply_failed = OK;
}

static void retention_hides_and_drops(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    world_write(w, 60);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    struct shards_config config = w->config;
    config.retention_ms = MS_PER_DAY;
    assert_ok(shards_reconfigure(w->shards, &config, NULL));
    assert_ok(world_settle(w, 1000));
    assert_int_equal(shards_usage(w->shards).retention_waits, WORLD_PARTITIONS); /* it would drop all */
    assert_true(shards_usage(w->shards).segment_rows > 0);
    int64_t cutoff_ms;
    assert_ok(shards_retention_confirm(w->shards, &cutoff_ms));
    assert_ok(world_settle(w, 1000));
    assert_int_equal(shards_usage(w->shards).segment_rows, 0);
    assert_int_equal(shards_usage(w->shards).retention_waits, 0);
    assert_err(ERR_NOT_FOUND, shards_retention_confirm(w->shards, &cutoff_ms));
    world_close_quick(w);
    assert_ok(world_open(w));
    assert_int_equal(shards_usage(w->shards).segment_rows, 0);
}

/* Series of a process that ended leave the live index while others are written all the time and heads are never
 * empty. */
static void series_leave_under_load(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    world_write(w, 60);
    assert_ok(world_settle(w, 1000));
    assert_int_equal(shards_usage(w->shards).series_count, WORLD_PARTITIONS * WORLD_SERIES);
    world_close_quick(w);
    world_producer_renew(w);
    assert_ok(world_open(w));
    w->series_count = 3;
    for (int round = 0; round < 200; round++) {
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            assert_ok(world_append(w, p, 7, true));
        assert_ok(world_settle(w, 3));
    }
    assert_true(shards_usage(w->shards).head_rows > 0);
    assert_int_equal(shards_usage(w->shards).series_count, WORLD_PARTITIONS * 3);
    world_expect(w);
    world_close_quick(w);
    assert_ok(world_open(w));
    world_expect(w);
}

static void a_damaged_stream_file_is_replayed(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    w->config.cut_group_count = 1000;
    assert_ok(world_open(w));
    world_write(w, 80);
    assert_ok(world_settle(w, 1000));
    world_close_quick(w);
    struct io_dir_entry *entries;
    size_t count;
    assert_ok(io_dir_list(f->io, "stream", f->pool, &entries, &count));
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        snprintf(path, sizeof path, "stream/%s", entries[i].name);
        fixture_flip(f, path, 2);
    }
    assert_ok(world_open(w));
    world_expect(w);
    world_write(w, 40);
    assert_ok(world_settle(w, 1000));
    world_expect(w);
    world_close_quick(w);
    assert_ok(world_open(w));
    world_expect(w);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
}

static bool is_complete(struct world *w)
{
    struct source *source = shards_source(w->shards);
    struct source_request request = { .tenant = slice_str("default"),
                                      .range = { TIME_MS_MIN, TIME_MS_MAX },
                                      .series_max = SIZE_MAX };
    struct pool *pool = pool_open(w->pool, "ask", POOL_BYTES_UNLIMITED);
    struct source_set *set;
    assert_ok(source->table->select(source, &request, pool, &set));
    bool complete = source->table->set_proof(set)->complete;
    source->table->set_close(set);
    pool_close(pool);
    return complete;
}

/* The log is gone, or put back from an older time, and stream files tell of more than it has: that is named for
 * good, the files are kept, and offsets that are given again are not taken for those in them. */
static void a_lost_log_is_named(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    w->config.cut_group_count = 1000;
    assert_ok(world_open(w));
    world_write(w, 40);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    uint64_t committed = shards_usage(w->shards).segment_rows;
    world_write(w, 80);
    assert_ok(world_settle(w, 1000));
    world_close_quick(w);
    struct io_dir_entry *entries;
    size_t stream_count, kept_count;
    assert_ok(io_dir_list(f->io, "stream", f->pool, &entries, &stream_count));
    assert_true(stream_count > 0);
    assert_ok(io_rename(f->io, "log", "log_before"));
    for (int life = 0; life < 3; life++) {
        world_producer_renew(w);
        assert_ok(world_open(w));
        assert_false(is_complete(w));
        uint64_t before = shards_usage(w->shards).applied_records;
        world_write(w, 100); /* beyond the offsets that the stream files had */
        assert_ok(world_settle(w, 1000));
        assert_true(shards_usage(w->shards).applied_records - before >= 100);
        assert_int_equal(shards_usage(w->shards).duplicate_records, 0);
        assert_true(shards_usage(w->shards).segment_rows >= committed);
        assert_true(shards_partition_sum(w->shards, 0).generation == 2);
        world_close_quick(w);
    }
    assert_ok(io_dir_list(f->io, "quarantine", f->pool, &entries, &kept_count));
    assert_int_equal(kept_count, stream_count);
}

static void threads_do_it_too(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    assert_ok(log_run_thread(w->log));
    assert_ok(shards_run_threads(w->shards));
    for (int i = 0; i < 300; i++) {
        struct world_record *r = world_record_make(w, (uint32_t)i % WORLD_PARTITIONS, 20, true);
        world_send(w, r);
        while (r->answer == WORLD_PENDING)
            io_sleep_ns(w->io, 50000);
        world_answered(w, r);
        if (i % 50 == 49)
            world_expect(w);
    }
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
    assert_true(shards_ready(w->shards));
    assert_ok(shards_intake(w->shards));
    world_close_quick(w);
    assert_ok(world_open(w));
    world_expect(w);
}

/* What no thread has applied yet is replayed by several at the next start. */
static void threads_replay_too(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    for (int round = 0; round < 3; round++) {
        assert_ok(world_open(w));
        for (int i = 0; i < 600; i++)
            assert_ok(world_append(w, (uint32_t)i % WORLD_PARTITIONS, 20, true));
        world_close_quick(w);
        assert_ok(world_open(w));
        assert_ok(log_run_thread(w->log));
        assert_ok(shards_run_threads(w->shards));
        assert_ok(shards_wait_applied(w->shards, world_soon(w)));
        world_expect(w);
        while (!shards_ready(w->shards) || shards_intake(w->shards) != OK) /* heads wait for spill */
            io_sleep_ns(w->io, 50000);
        world_expect(w);
        world_close_quick(w);
        world_producer_renew(w);
    }
}

/* ---- one log, applied again and again ---- */

struct applied {
    struct chain_segment *segments[WORLD_PARTITIONS];
    size_t counts[WORLD_PARTITIONS];
    struct sum sums[WORLD_PARTITIONS];
};

static void copy_files(struct fixture *f, const char *from, const char *to)
{
    struct pool *pool = pool_open(f->pool, "copy", POOL_BYTES_UNLIMITED);
    struct io_dir_entry *entries;
    size_t count;
    fixture_remove(f, to);
    assert_ok(io_dir_create(f->io, to));
    assert_ok(io_dir_list(f->io, from, pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        struct slice bytes;
        snprintf(path, sizeof path, "%s/%s", from, entries[i].name);
        assert_ok(io_read_file(f->io, path, 1u << 30, pool, &bytes));
        snprintf(path, sizeof path, "%s/%s", to, entries[i].name);
        assert_ok(io_replace_file(f->io, path, bytes));
    }
    pool_close(pool);
}

/* What was committed. Every segment's bytes are hashed here: its name is what a writer said of them. */
static struct applied applied_take(struct fixture *f)
{
    struct world *w = &f->world;
    struct applied a;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        const struct chain *chain = &w->shards->partitions[p].chain;
        void *at;
        a.counts[p] = chain->segment_count;
        a.sums[p] = shards_partition_sum(w->shards, p).sum;
        assert_ok(pool_alloc(f->pool, chain->segment_count * sizeof *a.segments[p], &at));
        a.segments[p] = at;
        memcpy(at, chain->segments, chain->segment_count * sizeof *a.segments[p]);
        for (size_t i = 0; i < chain->segment_count; i++) {
            char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
            uint8_t digest[SHA256_BYTES];
            struct slice bytes;
            segment_key(p, chain->segments[i].digest, 0, key);
            snprintf(path, sizeof path, "blob/%s", key);
            assert_ok(io_read_file(f->io, path, 1u << 30, f->pool, &bytes));
            sha256_of(bytes, digest);
            assert_memory_equal(digest, chain->segments[i].digest, SHA256_BYTES);
        }
    }
    return a;
}

static void expect_same(const struct applied *a, const struct applied *b)
{
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        assert_int_equal(a->counts[p], b->counts[p]);
        assert_true(sum_equal(a->sums[p], b->sums[p]));
        for (size_t i = 0; i < a->counts[p]; i++) {
            const struct chain_segment *x = &a->segments[p][i], *y = &b->segments[p][i];
            assert_true(position_compare(x->from, y->from) == 0 && position_compare(x->to, y->to) == 0);
            assert_int_equal(x->bytes, y->bytes);
            assert_memory_equal(x->digest, y->digest, SHA256_BYTES);
        }
    }
}

/* Steps in an order of their own: a kind is taken `weights` times as often as the others. */
static void settle_at_random(struct world *w, const uint32_t weights[3])
{
    for (int idle = 0; idle < 60;) {
        uint64_t roll = test_random_below(&w->random, weights[0] + weights[1] + weights[2]);
        bool worked;
        assert_ok(log_pump(w->log));
        if (roll < weights[0])
            assert_ok(shards_apply_step(w->shards, &worked));
        else if (roll < weights[0] + weights[1])
            assert_ok(shards_spill_step(w->shards, &worked));
        else
            assert_ok(shards_background_step(w->shards, &worked));
        idle = worked ? 0 : idle + 1;
    }
}

/* Replay of one log gives the same files, whatever the sizes of heads, the order of steps and the threads: with
 * the ends of ranges that are in it, and rows late, sent twice, of several producers and of several days. */
static void a_log_gives_the_same_files(void **state)
{
    static const struct {
        uint64_t head_rows;
        uint32_t cut_groups, threads, weights[3];
    } ways[] = { { 64, 4, 0, { 1, 1, 1 } },   { 7, 1000, 0, { 1, 8, 1 } }, { 100000, 4, 0, { 1, 1, 30 } },
                 { 300, 2, 0, { 30, 1, 1 } }, { 20, 5, 1, { 0 } },         { 200, 1000, 3, { 0 } } };
    struct fixture *f = *state;
    struct world *w = &f->world;
    w->log_file_bytes = 16u << 20; /* one file, which trims nothing */
    w->config.compact = false;
    assert_ok(world_open(w));
    for (int i = 0; i < 400; i++) {
        struct world_record *r =
            world_record_make(w, (uint32_t)i % WORLD_PARTITIONS, 1 + (uint32_t)i % 40, true);
        for (int times = i % 9 == 0 ? 2 : 1; times > 0; times--) {
            world_send(w, r);
            assert_ok(log_pump(w->log));
        }
        world_answered(w, r);
        if (i % 90 == 89)
            world_producer_renew(w);
        if (i % 130 == 129)
            assert_ok(shards_cut_all(w->shards, world_soon(w)));
        else if (i % 3 == 0)
            assert_ok(world_settle(w, 2));
    }
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
    struct applied first = applied_take(f);
    assert_true(first.counts[0] > 10 && first.counts[1] > 10);
    copy_files(f, "log", "kept");
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        world_close_quick(w);
        fixture_remove(f, "blob");
        fixture_remove(f, "stream");
        copy_files(f, "kept", "log");
        w->config.head_rows_max = ways[i].head_rows;
        w->config.cut_group_count = ways[i].cut_groups;
        w->config.thread_count = ways[i].threads;
        assert_ok(world_open(w));
        assert_int_equal(shards_usage(w->shards).segment_count, 0);
        if (ways[i].threads > 0) {
            assert_ok(log_run_thread(w->log));
            assert_ok(shards_run_threads(w->shards));
            assert_ok(shards_wait_applied(w->shards, world_soon(w)));
        } else {
            settle_at_random(w, ways[i].weights);
        }
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        struct applied again = applied_take(f);
        expect_same(&first, &again);
        world_expect(w);
    }
}

/* Offline: everything is read; a damaged segment is named, set aside by fsck, and answers say so. */
static void verify_finds_and_fsck_sets_aside(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    assert_ok(world_open(w));
    world_write(w, 60);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_write(w, 20);
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    char path[IO_PATH_BYTES_MAX], key[SHARD_KEY_BYTES_MAX];
    segment_key(0, w->shards->partitions[0].chain.segments[0].digest, 0, key);
    snprintf(path, sizeof path, "blob/%s", key);
    shards_close(w->shards); /* log and blob stay open: the tools take them */
    w->shards = NULL;
    int damages = 0;
    struct shard_report report = { fixture_count_damage, &damages };
    struct shard_check check;
    assert_ok(shard_verify(&w->config, f->io, w->log, w->blob, w->pool, &report, &check));
    assert_int_equal(check.damage_count, 0);
    assert_true(check.segment_count > 0 && check.group_count > 0 && check.record_count > 0);
    fixture_flip(f, path, 3);
    assert_ok(shard_verify(&w->config, f->io, w->log, w->blob, w->pool, &report, &check));
    assert_int_equal(check.damage_count, 1);
    assert_int_equal(damages, 1);
    assert_ok(shard_fsck(&w->config, f->io, w->log, w->blob, w->pool, &report, &check));
    assert_false(io_exists(f->io, path));
    log_close(w->log);
    blob_close(w->blob);
    pool_close(w->node_pool);
    assert_ok(world_open(w));
    assert_non_null(world_check(w)); /* rows are missing, and the proof says so: */
    struct pool *pool = pool_open(w->pool, "read", POOL_BYTES_UNLIMITED);
    struct source *source = shards_source(w->shards);
    struct source_request request = { .tenant = slice_str("default"),
                                      .series_max = SIZE_MAX,
                                      .range = { TIME_MS_MIN, TIME_MS_MAX } };
    struct source_set *set;
    assert_ok(source->table->select(source, &request, pool, &set));
    assert_false(source->table->set_proof(set)->complete);
    assert_int_equal(source->table->set_proof(set)->missing_count, 1);
    source->table->set_close(set);
    pool_close(pool);
}

static size_t count_segments(const struct world *w, uint8_t flags)
{
    size_t count = 0;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        for (size_t i = 0; i < w->shards->partitions[p].chain.segment_count; i++)
            count += (w->shards->partitions[p].chain.segments[i].flags & flags) == flags;
    return count;
}

/* Years in one range: a segment a day, in several passes. Times without rhyme: the most of them share one. */
static void ranges_of_many_days(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    w->config.compact = false;
    w->config.cut_group_count = 1000;
    w->step_ms = MS_PER_DAY / 3; /* 72 rows a day */
    assert_ok(world_open(w));
    for (int i = 0; i < 400; i++)
        assert_ok(world_append(w, 0, 60, false));
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    size_t count = count_segments(w, 0);
    assert_true(count > 280 && count < 400);
    assert_true(count_segments(w, CHAIN_SEGMENT_WIDE) <= 1); /* the last days, which few series reached */
    world_expect(w);
    for (uint32_t s = 0; s < WORLD_SERIES; s++)
        w->next_t_ms[1][s] = WORLD_EPOCH_MS - (int64_t)s * 1000 * MS_PER_DAY;
    for (int i = 0; i < 200; i++)
        assert_ok(world_append(w, 1, 60, false));
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    assert_in_range(count_segments(w, CHAIN_SEGMENT_WIDE), 1, 2);
    assert_true(count_segments(w, 0) < count + 300);
    world_expect(w);
    world_close_quick(w);
    assert_ok(world_open(w));
    world_expect(w);
}

/* A merge ends when the node stops, leaves nothing behind, and is done by the next life. */
static void a_stop_ends_merges(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    w->config.compact = false;
    assert_ok(world_open(w));
    for (int i = 0; i < 4; i++) {
        world_write(w, 20);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
    }
    world_write(w, 20);
    const struct partition *p = &w->shards->partitions[0];
    size_t before = p->chain.segment_count;
    bool worked;
    atomic_store(&w->shards->compact, true);
    atomic_store(&w->shards->stopping.canceled, true);
    for (int i = 0; i < 4; i++) {
        assert_ok(shards_compact_step(w->shards, &worked));
        assert_false(worked);
    }
    assert_int_equal(p->chain.segment_count, before);
    world_close_quick(w);
    world_producer_renew(w);
    assert_ok(world_open(w));
    atomic_store(&w->shards->compact, true);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    assert_ok(world_settle(w, 1000));
    assert_true(w->shards->partitions[0].chain.segment_count < before);
    world_expect(w);
    assert_int_equal(shards_usage(w->shards).quarantined_count, 0);
}

static void a_snapshot_comes_back(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    assert_ok(world_open(w));
    world_write(w, 50);
    assert_ok(shards_snapshot(w->shards, "copy", world_soon(w)));
    assert_err(ERR_EXISTS, shards_snapshot(w->shards, "copy", world_soon(w)));
    world_close_quick(w);
    fixture_remove(f, "blob");
    fixture_remove(f, "log");
    fixture_remove(f, "stream");
    assert_ok(io_rename(f->io, "copy", "blob"));
    struct blob *blob;
    struct shard_restored restored;
    assert_ok(blob_open_dir("blob", f->io, f->pool, &blob));
    assert_ok(shard_restore(&w->config, f->io, blob, f->pool, false, NULL, &restored, NULL));
    assert_true(restored.data_through_ms > WORLD_EPOCH_MS);
    assert_int_equal(restored.damage_count, 0);
    blob_close(blob);
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
    assert_int_equal(shards_partition_sum(w->shards, 0).generation, 2);
    world_write(w, 50);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
    world_close_quick(w);
    assert_ok(world_open(w));
    world_expect(w);
}

static void bad_configurations(void **state)
{
    struct err_at at;
    struct shards_config good = world_config(), c;
    assert_ok(shards_config_check(&good, &at));
    c = good;
    c.partition_count = 0;
    assert_err(ERR_INPUT, shards_config_check(&c, &at));
    c = good;
    c.head_rows_max = 0;
    assert_err(ERR_INPUT, shards_config_check(&c, &at));
    c = good;
    c.window_ms = 7;
    assert_err(ERR_INPUT, shards_config_check(&c, &at));
    c = good;
    c.cut_bytes = 0;
    assert_err(ERR_INPUT, shards_config_check(&c, &at));
    c = good;
    c.cut_age_ms = 2 * MS_PER_HOUR;
    assert_err(ERR_INPUT, shards_config_check(&c, &at));
    c = good;
    c.compact_count_min = 1;
    assert_err(ERR_INPUT, shards_config_check(&c, &at));
    c = good;
    c.retention_ms = -1;
    assert_err(ERR_INPUT, shards_config_check(&c, &at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configurations),
        cmocka_unit_test_setup_teardown(rows_in_heads, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(heads_freeze_one_after_another, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(rows_everywhere_and_restarts, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_cut_under_way_is_waited_for, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(losses_are_bounded, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_quiet_range_waits_as_long_as_it_is_small, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(a_resent_record_counts_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(what_is_in_the_log_alone_has_an_age, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(retention_hides_and_drops, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(series_leave_under_load, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_stream_file_is_replayed, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_lost_log_is_named, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(verify_finds_and_fsck_sets_aside, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(ranges_of_many_days, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_stop_ends_merges, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_snapshot_comes_back, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(threads_do_it_too, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(threads_replay_too, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_log_gives_the_same_files, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
