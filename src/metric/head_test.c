/* Head and columns. Goal: reads give exactly the rows appended, in arrival order, while the writer goes on.
 * Method: random appends against a plain array; one writer and three readers on real threads, where every
 * value tells the row that it belongs to (run under the thread sanitizer, too). */
#include "base/test.h"

#include "io/io.h"
#include "io/thread.h"
#include "metric/head.h"

#include <stdatomic.h>

struct row {
    uint32_t local;
    int64_t t_ms;
    uint64_t bits;
    int64_t start_ms;
    bool is_histogram;
    char text[24];
};

static struct metric_head *open_head(struct pool *pool, uint32_t rows_max)
{
    struct metric_head_config config = metric_head_config_default();
    config.rows_max = rows_max;
    config.histograms_max = 1000;
    config.exemplars_max = 40;
    config.metadata_max = 10;
    struct metric_head *head;
    assert_ok(metric_head_open(pool, &config, &head));
    return head;
}

static void append_some(struct test_random *random, struct metric_head *head, struct row *rows, size_t *count)
{
    uint32_t locals[64];
    int64_t t_ms[64];
    uint64_t bits[64];
    struct batch_start starts[64];
    size_t n = test_random_below(random, 64), start_count = 0;
    for (size_t i = 0; i < n; i++) {
        locals[i] = (uint32_t)test_random_below(random, test_random_below(random, 3) ? 20 : 40000);
        t_ms[i] = (int64_t)test_random_below(random, 1000) - 300;
        bits[i] = test_random_below(random, 10) == 0 ? SAMPLE_STALE_BITS : test_random_u64(random);
        struct row *row = &rows[(*count)++];
        *row = (struct row){ .local = locals[i], .t_ms = t_ms[i], .bits = bits[i] };
        if (test_random_below(random, 20) == 0) {
            row->start_ms = (int64_t)test_random_below(random, 100) + 1;
            starts[start_count++] = (struct batch_start){ .row = (uint32_t)i, .start_ms = row->start_ms };
        }
    }
    assert_ok(metric_head_append(head, locals, t_ms, bits, n, starts, start_count));
    for (uint64_t k = test_random_below(random, 3); k > 0; k--) {
        struct row *row = &rows[*count];
        *row = (struct row){ .local = (uint32_t)test_random_below(random, 25),
                             .is_histogram = true,
                             .t_ms = (int64_t)test_random_below(random, 1000) - 300,
                             .start_ms = (int64_t)test_random_below(random, 2) };
        snprintf(row->text, sizeof row->text, "h%zu", *count);
        assert_ok(
            metric_head_append_histogram(head, row->local, row->t_ms, row->start_ms, slice_str(row->text)));
        (*count)++;
    }
}

static void check_series(const struct metric_head_view *view, const struct row *rows, size_t count,
                         uint32_t local, struct time_range range, struct sample_columns *columns)
{
    size_t at = columns->count, h = columns->histogram_count;
    bool any = false;
    assert_ok(metric_head_read(view, local, range, columns));
    for (size_t i = 0; i < count; i++) {
        const struct row *row = &rows[i];
        any |= row->local == local;
        if (row->local != local || row->t_ms < range.min_ms || row->t_ms > range.max_ms)
            continue;
        assert_true(at < columns->count);
        assert_int_equal(columns->t_ms[at], row->t_ms);
        assert_int_equal(columns->start_ms == NULL ? 0 : columns->start_ms[at], row->start_ms);
        if (row->is_histogram) {
            assert_true(h < columns->histogram_count && columns->histograms[h].row == at);
            assert_true(slice_equal_str(columns->histograms[h++].bytes, row->text));
        } else {
            assert_true(double_bits(columns->values[at]) == row->bits);
        }
        at++;
    }
    assert_int_equal(at, columns->count);
    assert_int_equal(h, columns->histogram_count);
    assert_int_equal(any, metric_head_has(view, local));
}

static void head_equals_array(void **state)
{
    struct test_random random = test_random_begin("head_equals_array");
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct metric_head *head = open_head(pool, 30000);
    struct row *rows = malloc(40000 * sizeof *rows);
    size_t count = 0, old_count = 0;
    struct sample_columns columns = sample_columns_open(pool);
    struct metric_head_view old = metric_head_view(head);
    assert_true(old.range.min_ms > old.range.max_ms);
    while (metric_head_reserve(head, 64, 3, 64) == OK) {
        size_t visible = count;
        append_some(&random, head, rows, &count);
        struct metric_head_view hidden = metric_head_view(head);
        assert_int_equal(hidden.row_count + hidden.histogram_count, visible);
        metric_head_publish(head);
        struct metric_head_view view = metric_head_view(head);
        assert_int_equal(view.row_count + view.histogram_count, count);
        if (test_random_below(&random, 40) == 0) {
            if (test_random_below(&random, 2))
                sample_columns_clear(&columns);
            struct time_range range = { (int64_t)test_random_below(&random, 700) - 300, 900 };
            check_series(&view, rows, count, (uint32_t)test_random_below(&random, 30), range, &columns);
            check_series(&old, rows, old_count, (uint32_t)test_random_below(&random, 30), range, &columns);
            check_series(&view, rows, count, rows[test_random_below(&random, count)].local, range, &columns);
            check_series(&view, rows, count, 50000000, range, &columns);
        }
        if (test_random_below(&random, 100) == 0) {
            old = view;
            old_count = count;
        }
    }
    assert_err(ERR_FULL, metric_head_reserve(head, 64, 3, 64));
    assert_err(ERR_LIMIT, metric_head_reserve(head, BATCH_ROWS_MAX + 1, 0, 0));
    sample_columns_close(&columns);
    metric_head_unref(head);
    free(rows);
    pool_close(pool);
}

static void large_record_fits_an_empty_head(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct metric_head *head = open_head(pool, 10);
    enum { ROWS = 50000 };
    uint32_t *locals = calloc(ROWS, sizeof *locals);
    int64_t *t_ms = calloc(ROWS, sizeof *t_ms);
    uint64_t *bits = calloc(ROWS, sizeof *bits);
    assert_ok(metric_head_reserve(head, ROWS, 0, 0));
    assert_ok(metric_head_append(head, locals, t_ms, bits, ROWS, NULL, 0));
    assert_err(ERR_FULL, metric_head_reserve(head, 1, 0, 0));
    metric_head_publish(head);
    struct metric_head_view view = metric_head_view(head);
    struct sample_columns columns = sample_columns_open(pool);
    assert_ok(metric_head_read(&view, 0, (struct time_range){ 0, 0 }, &columns));
    assert_int_equal(columns.count, ROWS);
    assert_ok(metric_columns_resolve(&columns));
    assert_int_equal(columns.count, 1);
    locals[0] = METRIC_ROW_NONE;
    assert_err(ERR_LIMIT, metric_head_append(head, locals, t_ms, bits, 1, NULL, 0));
    assert_err(ERR_LIMIT, metric_head_append(head, locals, t_ms, bits, (size_t)BATCH_ROWS_MAX * 4, NULL, 0));
    sample_columns_close(&columns);
    metric_head_unref(head);
    free(locals);
    free(t_ms);
    free(bits);
    pool_close(pool);
}

static void exemplars_and_metadata(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct metric_head *head = open_head(pool, 100);
    for (uint32_t i = 0; i < 50; i++)
        assert_ok(metric_head_append_exemplar(head, i % 2, i, i * 0.5, slice_str("labels")));
    assert_int_equal(metric_head_dropped(head), 10);
    char help[16];
    for (uint32_t i = 0; i < 24; i++) {
        snprintf(help, sizeof help, "help %u", i / 2);
        struct batch_metadata m = {
            .family = slice_str("up"), .type = METRIC_GAUGE, .help = slice_str(help), .unit = slice_str("")
        };
        assert_ok(metric_head_append_metadata(head, slice_str("default"), &m));
    }
    assert_int_equal(metric_head_dropped(head), 14);
    metric_head_publish(head);
    struct metric_head_view view = metric_head_view(head);
    struct metric_exemplar *exemplars;
    struct metric_metadata *metadata;
    size_t count;
    assert_ok(metric_head_exemplars(&view, 1, (struct time_range){ 10, 20 }, pool, &exemplars, &count));
    assert_int_equal(count, 5);
    assert_int_equal(exemplars[0].t_ms, 11);
    assert_true(exemplars[0].value == 5.5 && slice_equal_str(exemplars[0].labels, "labels"));
    assert_ok(metric_head_metadata(&view, slice_str("default"), slice_str(""), pool, &metadata, &count));
    assert_int_equal(count, 10);
    assert_true(slice_equal_str(metadata[9].help, "help 9") && metadata[9].type == METRIC_GAUGE);
    assert_ok(metric_head_metadata(&view, slice_str("default"), slice_str("down"), pool, &metadata, &count));
    assert_int_equal(count, 0);
    assert_ok(metric_head_metadata(&view, slice_str("other"), slice_str(""), pool, &metadata, &count));
    assert_int_equal(count, 0);
    metric_head_unref(head);
    pool_close(pool);
}

static void resolve_equals_model(void **state)
{
    struct test_random random = test_random_begin("resolve_equals_model");
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct sample_columns columns = sample_columns_open(pool);
    for (int round = 0; round < 2000; round++) {
        enum { TIMES = 120 };
        struct row last[TIMES];
        bool seen[TIMES] = { false };
        sample_columns_clear(&columns);
        size_t count = test_random_below(&random, round % 4 == 0 ? 300 : 12),
               step = test_random_below(&random, 3);
        for (size_t i = 0; i < count; i++) {
            size_t t = step == 0   ? i % TIMES
                       : step == 1 ? i * TIMES / count
                                   : test_random_below(&random, TIMES);
            struct row row = { .t_ms = (int64_t)t - 60,
                               .bits = test_random_u64(&random),
                               .is_histogram = test_random_below(&random, 5) == 0,
                               .start_ms = round % 3 == 0 ? (int64_t)test_random_below(&random, 3) : 0 };
            snprintf(row.text, sizeof row.text, "%zu", i);
            last[t] = row;
            seen[t] = true;
            static char texts[300][24];
            snprintf(texts[i], sizeof texts[i], "%zu", i);
            if (row.is_histogram)
                assert_ok(
                    sample_columns_add_histogram(&columns, row.t_ms, slice_str(texts[i]), row.start_ms));
            else
                assert_ok(sample_columns_add(&columns, row.t_ms, bits_double(row.bits), row.start_ms));
        }
        assert_ok(metric_columns_resolve(&columns));
        size_t at = 0, h = 0;
        for (size_t t = 0; t < TIMES; t++) {
            if (!seen[t])
                continue;
            assert_true(at < columns.count);
            assert_int_equal(columns.t_ms[at], last[t].t_ms);
            assert_int_equal(columns.start_ms == NULL ? 0 : columns.start_ms[at], last[t].start_ms);
            if (last[t].is_histogram) {
                assert_int_equal(columns.histograms[h].row, at);
                assert_true(slice_equal_str(columns.histograms[h++].bytes, last[t].text));
            } else {
                assert_true(double_bits(columns.values[at]) == last[t].bits);
            }
            at++;
        }
        assert_int_equal(at, columns.count);
        assert_int_equal(h, columns.histogram_count);
    }
    sample_columns_close(&columns);
    pool_close(pool);
}

/* ---- one writer, three readers ---- */

enum { LOCALS = 50, RECORDS = 1500, RECORD_ROWS = 40 };

struct shared {
    struct pool *pool;
    struct metric_head *head;
    _Atomic bool done;
    _Atomic uint32_t faults;
};

static void read_always(void *context)
{
    struct shared *s = context;
    struct pool *pool = pool_open(s->pool, "reader", POOL_BYTES_UNLIMITED);
    struct sample_columns columns = sample_columns_open(pool);
    struct metric_head *head = metric_head_ref(s->head);
    for (uint32_t local = 0; !atomic_load(&s->done); local = (local + 7) % LOCALS) {
        struct metric_head_view view = metric_head_view(head);
        uint64_t expected = 0;
        if (view.row_count % RECORD_ROWS != 0)
            atomic_fetch_add(&s->faults, 1); /* half a record was visible */
        for (uint32_t row = local; row < view.row_count; row += LOCALS)
            expected++;
        sample_columns_clear(&columns);
        if (metric_head_read(&view, local, (struct time_range){ INT64_MIN, INT64_MAX }, &columns) != OK)
            atomic_fetch_add(&s->faults, 1);
        uint64_t floats = columns.count - columns.histogram_count;
        if (floats != expected)
            atomic_fetch_add(&s->faults, 1);
        for (size_t i = 0; i < columns.count; i++)
            if ((uint64_t)columns.t_ms[i] % LOCALS != local)
                atomic_fetch_add(&s->faults, 1);
    }
    sample_columns_close(&columns);
    metric_head_unref(head);
    pool_close(pool);
}

static void readers_beside_the_writer(void **state)
{
    struct io *io;
    struct io_thread *threads[3];
    struct shared s = { .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED) };
    assert_ok(io_open(".", &io));
    s.head = open_head(s.pool, RECORDS * RECORD_ROWS);
    for (int i = 0; i < 3; i++)
        assert_ok(io_thread_start(io, "reader", read_always, &s, &threads[i]));
    for (uint32_t record = 0, row = 0; record < RECORDS; record++) {
        uint32_t locals[RECORD_ROWS];
        int64_t t_ms[RECORD_ROWS];
        uint64_t bits[RECORD_ROWS];
        for (int i = 0; i < RECORD_ROWS; i++, row++) {
            locals[i] = row % LOCALS;
            t_ms[i] = row;
            bits[i] = row;
        }
        struct batch_start start = { .row = record % RECORD_ROWS, .start_ms = 1 };
        assert_ok(metric_head_append(s.head, locals, t_ms, bits, RECORD_ROWS, &start, record % 5 == 0));
        if (record % 10 == 0)
            assert_ok(
                metric_head_append_histogram(s.head, record % LOCALS, record % LOCALS, 0, slice_str("x")));
        metric_head_publish(s.head);
    }
    atomic_store(&s.done, true);
    for (int i = 0; i < 3; i++)
        io_thread_join(threads[i]);
    assert_int_equal(atomic_load(&s.faults), 0);
    metric_head_unref(s.head);
    io_close(io);
    pool_close(s.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_equals_array),         cmocka_unit_test(large_record_fits_an_empty_head),
        cmocka_unit_test(exemplars_and_metadata),    cmocka_unit_test(resolve_equals_model),
        cmocka_unit_test(readers_beside_the_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
