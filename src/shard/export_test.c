/* Export on a real disk: what comes out is what was stored, row for row, wherever the rows lie, and the directory
 * is the same before and after. A doubled row is planted (records applied twice), so that the count is seen to
 * fail when it must: the kill tests of the whole program rely on it. Method: SUM is additive over a multiset, so
 * count and SUM of what comes out against those of the model's records. */
#include "shard/fixture.h"

#include "base/hash.h"

/* Every name and every byte below path. */
static uint64_t fingerprint(struct fixture *f, const char *path)
{
    struct io_dir_entry *entries;
    size_t count;
    uint64_t hash = 1;
    if (io_dir_list(f->io, path, f->pool, &entries, &count) != OK)
        return 0;
    for (size_t i = 0; i < count; i++) {
        char child[IO_PATH_BYTES_MAX];
        struct slice bytes;
        snprintf(child, sizeof child, "%s/%s", path, entries[i].name);
        hash = hash_mix(hash + crc32c(slice_str(child), 0));
        if (entries[i].is_dir) {
            hash = hash_mix(hash + fingerprint(f, child));
            continue;
        }
        assert_ok(io_read_file(f->io, child, 64u << 20, f->pool, &bytes));
        hash = hash_mix(hash + crc32c(bytes, 0) + ((uint64_t)bytes.len << 32));
    }
    return hash;
}

struct seen {
    struct sum sum;
    uint64_t histogram_count, unresolved_count;
};

static err see(void *context, const struct shard_rows *rows)
{
    struct seen *seen = context;
    const struct sample_columns *c = rows->columns;
    seen->histogram_count += c->histogram_count;
    if (rows->incarnation != NULL) {
        seen->unresolved_count += c->count;
        return OK;
    }
    struct hash128 hash = sum_series_hash(rows->tenant, rows->labels);
    size_t histogram = 0;
    for (size_t i = 0; i < c->count; i++) {
        bool is_histogram = histogram < c->histogram_count && c->histograms[histogram].row == i;
        uint64_t bits =
            is_histogram ? sum_histogram_bits(c->histograms[histogram++].bytes) : double_bits(c->values[i]);
        sum_add_hash(&seen->sum,
                     sum_row_hash(hash, c->t_ms[i], bits, c->start_ms != NULL ? c->start_ms[i] : 0,
                                  is_histogram ? SAMPLE_HISTOGRAM : SAMPLE_FLOAT));
    }
    return OK;
}

/* The node is closed. Everything is opened as the command does, and nothing may change on the disk. */
static struct seen export_all(struct fixture *f)
{
    struct world *w = &f->world;
    struct log_config config = { .directory = "log",
                                 .cluster_id = { 7 },
                                 .partition_count = WORLD_PARTITIONS,
                                 .ack = LOG_ACK_FSYNC,
                                 .file_bytes = 16u << 10,
                                 .queue_bytes_max = 32u << 20,
                                 .tail_bytes_max = 1u << 20,
                                 .read_only = true };
    struct log *log;
    struct blob *blob;
    struct err_at at = { 0 };
    struct seen seen = { 0 };
    struct shard_rows_door door = { see, &seen };
    struct shard_exported exported;
    struct pool *pool = pool_open(NULL, "tool", POOL_BYTES_UNLIMITED);
    uint64_t before = fingerprint(f, ".");
    assert_ok(log_open(&config, w->io, pool, &log, &at));
    assert_ok(blob_open_dir_as_is("blob", w->io, pool, &blob));
    assert_ok(shard_export(&w->config, w->io, log, blob, pool, &door, &exported, &at));
    assert_int_equal(exported.row_count, seen.sum.count);
    assert_int_equal(exported.unresolved_count, seen.unresolved_count);
    log_close(log);
    blob_close(blob);
    pool_close(pool);
    assert_int_equal(fingerprint(f, "."), before);
    return seen;
}

static struct sum model_sum(struct world *w)
{
    struct sum sum = { 0 };
    for (size_t i = 0; i < w->record_count; i++)
        if (w->records[i]->answer == WORLD_ACKED)
            sum_add(&sum, w->records[i]->sum);
    return sum;
}

static void expect_model(struct fixture *f)
{
    struct seen seen = export_all(f);
    struct sum sum = model_sum(&f->world);
    assert_int_equal(seen.sum.count, sum.count);
    assert_true(sum_equal(seen.sum, sum));
}

static void rows_come_out_wherever_they_lie(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    assert_ok(world_open(w));
    world_write(w, 40);
    assert_ok(world_settle(w, 1000));
    world_close_quick(w);
    expect_model(f); /* row groups, and segments of what was cut */
    assert_ok(world_open(w));
    world_write(w, 60);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_close_quick(w);
    expect_model(f); /* segments only */
    assert_ok(world_open(w));
    world_write(w, 60);
    world_close_quick(w);
    expect_model(f); /* both */
    fixture_remove(f, "stream");
    expect_model(f); /* the log in place of stream files, in more heads than may wait */
}

static void a_record_sent_twice_is_stored_once(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    assert_ok(world_open(w));
    for (int i = 0; i < 10; i++) {
        struct world_record *r = world_record_make(w, 0, 5, false);
        for (int times = 0; times < 2; times++) {
            world_send(w, r);
            assert_ok(log_pump(w->log));
        }
        world_answered(w, r);
    }
    world_close_quick(w);
    expect_model(f);
    fixture_remove(f, "stream");
    expect_model(f);
}

/* The planted fault: what export counts is what lies in the files, so the doubled rows are seen. */
static void a_doubled_row_is_seen(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    for (int is_cut = 0; is_cut < 2; is_cut++) {
        uint64_t before = model_sum(w).count, extra = w->record_count > 0 ? 5 : 0;
        w->config.canary = SHARD_CANARY_NO_DEDUPE;
        assert_ok(world_open(w));
        struct world_record *r = world_record_make(w, 0, 5, false);
        for (int times = 0; times < 2; times++) {
            world_send(w, r);
            assert_ok(log_pump(w->log));
        }
        world_answered(w, r);
        if (is_cut)
            assert_ok(shards_cut_all(w->shards, world_soon(w)));
        else
            assert_ok(shards_wait_applied(w->shards, INT64_MAX));
        world_close_quick(w);
        w->config.canary = 0;
        struct seen seen = export_all(f);
        assert_int_equal(seen.sum.count, before + extra + 5 + 5);
        assert_false(sum_equal(seen.sum, model_sum(w)));
    }
}

static err refuse(void *context, const struct shard_rows *rows) { return ERR_CANCELED; }

static void errors_come_through(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct shard_rows_door door = { refuse, NULL };
    struct shard_exported exported;
    struct err_at at = { 0 };
    assert_ok(world_open(w));
    world_write(w, 5);
    shards_close(w->shards);
    w->shards = NULL;
    assert_err(ERR_CANCELED,
               shard_export(&w->config, w->io, w->log, w->blob, w->node_pool, &door, &exported, &at));
    w->config.partition_count = 0;
    assert_err(ERR_INPUT,
               shard_export(&w->config, w->io, w->log, w->blob, w->node_pool, &door, &exported, &at));
    w->config.partition_count = WORLD_PARTITIONS;
    world_close_quick(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_come_out_wherever_they_lie, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_record_sent_twice_is_stored_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_doubled_row_is_seen, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(errors_come_through, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
