/* Compact metric segments against a naive model: arrays of rows.
 * Method: a drawn model (several tenants, counters, gauges, classic histograms, native histograms, start times,
 * duplicates, long and short series, gaps) is written, verified, read in random ranges, merged; every bit of a
 * small file is flipped; allocations fail one by one. */
#include "base/test.h"
#include "metric/metric.h"
#include "model/labels.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    char directory[64];
    struct io *io;
    struct pool *pool;
};

static void open_fixture(struct fixture *f)
{
    strcpy(f->directory, "/tmp/kelpie-compact-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    assert_ok(io_open(f->directory, &f->io));
    f->pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
}

static void close_fixture(struct fixture *f)
{
    io_close(f->io);
    pool_close(f->pool);
    assert_int_equal(rmdir(f->directory), 0);
}

/* ---- the model ---- */
struct row {
    int64_t t_ms, start_ms;
    uint64_t bits;
    struct slice histogram; /* at NULL: a float */
};

struct series {
    struct slice tenant, labels;
    struct row *rows;
    size_t count, capacity;
    size_t exemplars; /* that many, at the times of the first rows */
};

struct model {
    struct pool *pool;
    struct series *series;
    size_t count, capacity;
};

static struct slice labels_of(struct pool *pool, const char *name, const char *instance, const char *le)
{
    struct label l[3] = { { slice_str("__name__"), slice_str(name) },
                          { slice_str("instance"), slice_str(instance) },
                          { slice_str("le"), slice_str(le) } };
    struct buf b = buf_open(pool, 4096);
    struct slice copy;
    assert_ok(labels_encode(l, 3, &b, NULL));
    assert_ok(pool_copy(pool, buf_slice(&b), &copy));
    buf_close(&b);
    return copy;
}

static void add_row(struct model *m, struct series *s, struct row row)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity == 0 ? 64 : 2 * s->capacity;
        void *larger;
        assert_ok(pool_alloc(m->pool, capacity * sizeof row, &larger));
        if (s->count > 0)
            memcpy(larger, s->rows, s->count * sizeof row);
        s->rows = larger;
        s->capacity = capacity;
    }
    s->rows[s->count++] = row;
}

static struct series *add_series(struct model *m, struct slice tenant, struct slice labels)
{
    if (m->count == m->capacity) {
        size_t capacity = m->capacity == 0 ? 64 : 2 * m->capacity;
        void *larger;
        assert_ok(pool_alloc(m->pool, capacity * sizeof *m->series, &larger));
        if (m->count > 0)
            memcpy(larger, m->series, m->count * sizeof *m->series);
        m->series = larger;
        m->capacity = capacity;
    }
    m->series[m->count] = (struct series){ .tenant = tenant, .labels = labels };
    return &m->series[m->count++];
}

static int compare_series(const void *a, const void *b)
{
    const struct series *x = a, *y = b;
    int order = slice_compare(x->tenant, y->tenant);
    return order != 0 ? order : metric_series_compare(x->labels, y->labels);
}

static struct slice histogram_bytes(struct pool *pool, struct test_random *r)
{
    uint8_t bytes[2000]; /* the segment does not look inside */
    struct slice copy;
    size_t len = 1 + test_random_below(r, test_random_below(r, 20) == 0 ? 2000 : 60);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)test_random_below(r, 5);
    assert_ok(pool_copy(pool, slice_of(bytes, len), &copy));
    return copy;
}

struct shape {
    unsigned tenants, metrics, targets, rows;
    bool duplicates;
    int64_t from_ms;
};

static int64_t next_time(struct test_random *r, int64_t t_ms, const struct shape *shape)
{
    if (shape->duplicates && test_random_below(r, 20) == 0)
        return t_ms;
    return t_ms + 15000 + (test_random_below(r, 30) == 0 ? (int64_t)test_random_below(r, 40) : 0);
}

static void fill_rows(struct model *m, struct series *s, struct test_random *r, const int64_t *times,
                      size_t n, unsigned kind)
{
    uint64_t at = test_random_below(r, 100000);
    bool start = test_random_below(r, 5) == 0;
    for (size_t i = 0; i < n; i++) {
        struct row row = { .t_ms = times[i], .start_ms = start ? times[0] - 1000 : 0 };
        at += test_random_below(r, 100);
        row.bits = kind % 4 == 0   ? double_bits(7)
                   : kind % 4 == 1 ? double_bits((double)at)
                   : kind % 4 == 2 ? double_bits((double)at / 100)
                                   : test_random_u64(r);
        if (test_random_below(r, 500) == 0)
            row.bits = SAMPLE_STALE_BITS;
        if (kind % 8 == 7 && test_random_below(r, 3) != 0)
            row.histogram = histogram_bytes(m->pool, r);
        add_row(m, s, row);
    }
}

/* Buckets of one target: cumulative counts, and _count beside them. */
static void fill_buckets(struct model *m, struct test_random *r, struct slice tenant, const char *instance,
                         const int64_t *times, size_t n)
{
    static const char *const les[] = { "0.1", "0.5", "1", "2.5", "10", "+Inf" };
    uint64_t counts[6] = { 0 };
    size_t first = m->count;
    for (int i = 0; i < 6; i++)
        add_series(m, tenant, labels_of(m->pool, "http_seconds_bucket", instance, les[i]));
    add_series(m, tenant, labels_of(m->pool, "http_seconds_count", instance, ""));
    for (size_t k = 0; k < n; k++) {
        for (int hits = 0; hits < 5; hits++)
            for (size_t i = test_random_below(r, 6); i < 6; i++)
                counts[i]++;
        for (size_t i = 0; i < 7; i++)
            add_row(m, &m->series[first + i],
                    (struct row){ .t_ms = times[k], .bits = double_bits((double)counts[i < 6 ? i : 5]) });
    }
}

static struct model draw(struct pool *pool, struct test_random *r, struct shape shape)
{
    struct model m = { .pool = pool };
    int64_t *times = test_malloc(shape.rows * sizeof *times);
    for (unsigned t = 0; t < shape.tenants; t++)
        for (unsigned target = 0; target < shape.targets; target++) {
            char name[32], instance[32];
            struct slice tenant;
            snprintf(name, sizeof name, "team%u", t);
            snprintf(instance, sizeof instance, "host-%u:9100", target);
            assert_ok(pool_copy(pool, slice_str(name), &tenant));
            int64_t t_ms = shape.from_ms + (int64_t)test_random_below(r, 15000);
            for (unsigned i = 0; i < shape.rows; i++)
                times[i] = t_ms = next_time(r, t_ms, &shape);
            for (unsigned metric = 0; metric < shape.metrics; metric++) {
                size_t n = test_random_below(r, 10) == 0 ? 1 + test_random_below(r, shape.rows) : shape.rows;
                size_t skip = test_random_below(r, 3) == 0 ? shape.rows - n : 0;
                snprintf(name, sizeof name, "metric_%u", metric);
                struct series *s = add_series(&m, tenant, labels_of(pool, name, instance, ""));
                fill_rows(&m, s, r, times + skip, n, metric);
                s->exemplars = test_random_below(r, 4) == 0 ? 1 + test_random_below(r, 3) : 0;
                s->exemplars = s->exemplars < n ? s->exemplars : n;
            }
            fill_buckets(&m, r, tenant, instance, times, shape.rows);
        }
    test_free(times);
    qsort(m.series, m.count, sizeof *m.series, compare_series);
    return m;
}

/* ---- writing it ---- */
static err write_series(struct metric_compact_writer *w, const struct series *s)
{
    int64_t *t_ms = test_malloc(s->count * 8), *start_ms = test_malloc(s->count * 8);
    uint64_t *bits = test_malloc(s->count * 8);
    struct sample_histogram *histograms = test_malloc(s->count * sizeof *histograms);
    struct metric_rows rows = {
        .t_ms = t_ms, .value_bits = bits, .start_ms = start_ms, .count = s->count, .histograms = histograms
    };
    for (size_t i = 0; i < s->count; i++) {
        t_ms[i] = s->rows[i].t_ms;
        start_ms[i] = s->rows[i].start_ms;
        bits[i] = s->rows[i].bits;
        if (s->rows[i].histogram.at != NULL)
            histograms[rows.histogram_count++] =
                (struct sample_histogram){ .row = (uint32_t)i, .bytes = s->rows[i].histogram };
    }
    err e = metric_compact_writer_series(w, s->tenant, s->labels, &rows);
    struct source_exemplar x[3];
    for (size_t i = 0; i < s->exemplars; i++)
        x[i] = (struct source_exemplar){ .labels = s->labels, .t_ms = t_ms[i], .value = (double)i + 0.5 };
    if (e == OK)
        e = metric_compact_writer_exemplars(w, x, s->exemplars);
    test_free(t_ms);
    test_free(start_ms);
    test_free(bits);
    test_free(histograms);
    return e;
}

/* known: the SUM told to the writer, NULL: it adds up. */
static err write_model_sum(struct fixture *f, const struct model *m, const char *path,
                           const struct sum *known, struct metric_compact_written *out_written)
{
    struct metric_compact_config config = { .path = path,
                                            .partition = 3,
                                            .from_generation = 1,
                                            .from_offset = 5,
                                            .to_generation = 1,
                                            .to_offset = 77,
                                            .sum_known = known != NULL };
    if (known != NULL)
        config.sum = *known;
    struct metric_compact_writer *w = NULL;
    struct batch_metadata metadata = { .family = slice_str("metric_1"),
                                       .type = METRIC_COUNTER,
                                       .help = slice_str("helps"),
                                       .unit = slice_str("") };
    err e = metric_compact_writer_open(f->io, &config, f->pool, &w);
    for (size_t i = 0; e == OK && i < m->count; i++)
        e = write_series(w, &m->series[i]);
    for (int i = 0; e == OK && i < 3; i++)
        e = metric_compact_writer_metadata(w, slice_str(i == 2 ? "teamx" : "team0"), &metadata);
    if (e == OK)
        e = metric_compact_writer_finish(w, NULL, NULL, out_written);
    metric_compact_writer_close(w);
    return e;
}

static err write_model(struct fixture *f, const struct model *m, const char *path,
                       struct metric_compact_written *out_written)
{
    return write_model_sum(f, m, path, NULL, out_written);
}

struct open_file {
    struct io_file *file;
    struct segment_source source;
    struct segment_cache *cache;
    struct metric_compact *compact;
};

static void open_file(struct fixture *f, const char *path, struct open_file *o)
{
    struct err_at at = { 0 };
    assert_ok(io_file_open(f->io, path, IO_READ, &o->file));
    assert_ok(segment_source_file(o->file, &o->source));
    assert_ok(segment_cache_open(f->pool, 1 << 20, 2, &o->cache));
    err e = metric_compact_open(o->source, o->cache, f->pool, &o->compact, &at);
    if (e != OK)
        fail_msg("open: %s: %s", err_text(e), at.text);
}

static void close_file(struct open_file *o)
{
    metric_compact_close(o->compact);
    segment_cache_close(o->cache);
    io_file_close(o->file);
}

/* Does reading a range give what the model says? */
static void compare_range(const struct series *s, struct time_range range, const struct sample_columns *c)
{
    size_t k = 0, h = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct row *row = &s->rows[i];
        if (row->t_ms < range.min_ms || row->t_ms > range.max_ms ||
            (i + 1 < s->count && s->rows[i + 1].t_ms == row->t_ms))
            continue;
        assert_true(k < c->count);
        assert_true(c->t_ms[k] == row->t_ms);
        assert_true((c->start_ms == NULL ? 0 : c->start_ms[k]) == row->start_ms);
        if (row->histogram.at != NULL) {
            assert_true(h < c->histogram_count && c->histograms[h].row == k);
            assert_true(slice_equal(c->histograms[h].bytes, row->histogram));
            assert_true(c->values[k] != c->values[k]);
            h++;
        } else {
            assert_true(double_bits(c->values[k]) == row->bits);
        }
        k++;
    }
    assert_int_equal(k, c->count);
    assert_int_equal(h, c->histogram_count);
}

static void compare_model(struct fixture *f, const struct model *m, struct test_random *r, const char *path)
{
    struct open_file o;
    struct err_at at = { 0 };
    struct metric_compact_cursor *cursor;
    struct metric_compact_labels reader;
    open_file(f, path, &o);
    assert_int_equal(metric_compact_info(o.compact)->series_count, m->count);
    assert_ok(metric_compact_labels_open(f->pool, &reader));
    assert_ok(metric_compact_cursor_open(o.compact, METRIC_COMPACT_TIMELINES_MAX, f->pool, &cursor));
    struct sample_columns c = sample_columns_open(f->pool);
    struct buf labels = buf_open(f->pool, LABELS_BYTES_MAX);
    for (size_t n = 0; n < 3 * m->count; n++) {
        size_t i = n < m->count ? n : test_random_below(r, m->count);
        const struct series *s = &m->series[i];
        struct time_range range = { INT64_MIN, INT64_MAX };
        if (n >= m->count) {
            size_t from = test_random_below(r, s->count), to = from + test_random_below(r, s->count - from);
            range.min_ms = s->rows[from].t_ms - (int64_t)test_random_below(r, 2);
            range.max_ms = s->rows[to].t_ms - (int64_t)test_random_below(r, 2);
        }
        buf_clear(&labels);
        assert_ok(metric_compact_labels_read(&reader, o.compact, (uint32_t)i, &labels, &at));
        assert_true(slice_equal(buf_slice(&labels), s->labels));
        sample_columns_close(&c);
        err e = metric_compact_read(cursor, (uint32_t)i, range, &c, &at);
        if (e != OK)
            fail_msg("read: %s: %s", err_text(e), at.text);
        compare_range(s, range, &c);
        struct time_range time;
        assert_ok(metric_compact_series_time(cursor, (uint32_t)i, &time, &at));
        assert_true(time.min_ms == s->rows[0].t_ms && time.max_ms == s->rows[s->count - 1].t_ms);
        struct source_exemplar *x;
        size_t count;
        assert_ok(metric_compact_exemplars(o.compact, (uint32_t)i, f->pool, &x, &count, &at));
        assert_int_equal(count, s->exemplars);
        for (size_t k = 0; k < count; k++)
            assert_true(x[k].t_ms == s->rows[k].t_ms && slice_equal(x[k].labels, s->labels));
    }
    buf_close(&labels);
    sample_columns_close(&c);
    metric_compact_labels_close(&reader);
    metric_compact_cursor_close(cursor);
    close_file(&o);
}

static err verify_result(struct fixture *f, const char *path, const uint8_t *digest, struct err_at *at)
{
    struct io_file *file;
    struct segment_source source;
    struct segment_info info;
    assert_ok(io_file_open(f->io, path, IO_READ, &file));
    assert_ok(segment_source_file(file, &source));
    err e = metric_compact_verify(source, digest, f->pool, &info, at);
    io_file_close(file);
    return e;
}

static void verify_path(struct fixture *f, const char *path, const uint8_t *digest)
{
    struct err_at at = { 0 };
    err e = verify_result(f, path, digest, &at);
    if (e != OK)
        fail_msg("verify: %s: %s", err_text(e), at.text);
}

/* A SUM that the writer is told gives the same file; a wrong one is found. */
static void check_known_sum(struct fixture *f, const struct model *m,
                            const struct metric_compact_written *written)
{
    struct metric_compact_written again;
    struct err_at at = { 0 };
    struct sum sum = written->info.sum;
    assert_ok(write_model_sum(f, m, "known", &sum, &again));
    assert_memory_equal(again.file.digest, written->file.digest, SHA256_BYTES);
    assert_ok(io_unlink(f->io, "known"));
    sum.low++;
    assert_ok(write_model_sum(f, m, "known", &sum, &again));
    assert_err(ERR_CORRUPT, verify_result(f, "known", NULL, &at));
    assert_ok(io_unlink(f->io, "known"));
}

static void test_model(void **state)
{
    struct test_random r = test_random_begin("compact model");
    static const struct shape shapes[] = {
        { 1, 1, 1, 1, false, 0 },
        { 3, 8, 3, 40, false, 1700000000000 },
        { 1, 9, 2, 1500, true, 1700000000000 },
        { 2, 8, 2, 14000, true, -500000 },
        { 2, 40, 12, 300, false, 1700000000000 },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct fixture f;
        struct metric_compact_written written;
        open_fixture(&f);
        struct pool *model_pool = pool_open(NULL, "model", POOL_BYTES_UNLIMITED);
        struct model m = draw(model_pool, &r, shapes[i]);
        assert_ok(write_model(&f, &m, "s", &written));
        verify_path(&f, "s", written.file.digest);
        compare_model(&f, &m, &r, "s");
        check_known_sum(&f, &m, &written);
        assert_ok(io_unlink(f.io, "s"));
        pool_close(model_pool);
        close_fixture(&f);
    }
}

static void test_select(void **state)
{
    struct test_random r = test_random_begin("compact select");
    struct fixture f;
    struct metric_compact_written written;
    struct err_at at;
    open_fixture(&f);
    struct model m = draw(f.pool, &r, (struct shape){ 2, 5, 4, 10, false, 1000 });
    assert_ok(write_model(&f, &m, "s", &written));
    assert_int_equal(written.info.tenant_count, 2);
    struct open_file o;
    open_file(&f, "s", &o);
    struct matcher matcher;
    uint32_t *ordinals, first;
    size_t count;
    assert_ok(
        matcher_init(f.pool, MATCH_EQUAL, slice_str("instance"), slice_str("host-2:9100"), &matcher, &at));
    assert_ok(
        metric_compact_select(o.compact, slice_str("team1"), &matcher, 1, f.pool, &ordinals, &count, &at));
    assert_int_equal(count, 5 + 7);
    for (size_t i = 0; i < count; i++) {
        assert_true(slice_equal_str(m.series[ordinals[i]].tenant, "team1"));
        assert_true(matchers_match(&matcher, 1, m.series[ordinals[i]].labels));
    }
    assert_ok(
        metric_compact_select(o.compact, slice_str("nobody"), &matcher, 1, f.pool, &ordinals, &count, &at));
    assert_int_equal(count, 0);
    uint32_t tenant_count;
    metric_compact_tenant(o.compact, slice_str("team1"), &first, &tenant_count);
    assert_int_equal(first, m.count / 2);
    assert_int_equal(tenant_count, m.count / 2);
    struct metric_compact_index index;
    assert_err(ERR_NOT_FOUND, metric_compact_index_get(o.compact, slice_str("nobody"), &index, &at));
    assert_ok(metric_compact_index_get(o.compact, slice_str("team0"), &index, &at));
    assert_int_equal(index.part.series_count, m.count / 2);
    metric_compact_index_release(o.compact, &index);
    struct batch_metadata *metadata;
    assert_ok(metric_compact_metadata(o.compact, slice_str("team0"), f.pool, &metadata, &count, &at));
    assert_int_equal(count, 1);
    assert_true(slice_equal_str(metadata[0].help, "helps"));
    assert_ok(metric_compact_metadata(o.compact, slice_str("teamx"), f.pool, &metadata, &count, &at));
    assert_int_equal(count, 1);
    matcher_done(&matcher);
    close_file(&o);
    assert_ok(io_unlink(f.io, "s"));
    close_fixture(&f);
}

static void test_order(void **state)
{
    struct fixture f;
    open_fixture(&f);
    static const char *const les[] = { "", "+Inf", "10", "2.5", "1", "0.5", "-1", "x", "y" };
    for (size_t i = 0; i < 9; i++)
        for (size_t k = 0; k < 9; k++) {
            int order = metric_series_compare(labels_of(f.pool, "m", "a", les[i]),
                                              labels_of(f.pool, "m", "a", les[k]));
            assert_true(i < k ? order < 0 : i > k ? order > 0 : order == 0);
            assert_true(metric_series_compare(labels_of(f.pool, "m", "a", les[i]),
                                              labels_of(f.pool, "m", "b", les[k])) < 0);
        }
    struct metric_compact_config config = { .path = "s" };
    struct metric_compact_writer *w;
    int64_t t_ms[2] = { 5, 4 };
    uint64_t bits[2] = { 1, 2 };
    struct metric_rows rows = { .t_ms = t_ms, .value_bits = bits, .count = 1 };
    assert_ok(metric_compact_writer_open(f.io, &config, f.pool, &w));
    assert_ok(metric_compact_writer_series(w, slice_str("t"), labels_of(f.pool, "m", "b", ""), &rows));
    assert_err(ERR_ORDER,
               metric_compact_writer_series(w, slice_str("t"), labels_of(f.pool, "m", "b", ""), &rows));
    assert_err(ERR_ORDER,
               metric_compact_writer_series(w, slice_str("t"), labels_of(f.pool, "m", "a", ""), &rows));
    assert_err(ERR_ORDER,
               metric_compact_writer_series(w, slice_str("s"), labels_of(f.pool, "m", "c", ""), &rows));
    rows.count = 2;
    assert_err(ERR_ORDER,
               metric_compact_writer_series(w, slice_str("t"), labels_of(f.pool, "m", "c", ""), &rows));
    rows.count = METRIC_COMPACT_SERIES_ROWS_MAX + 1;
    assert_err(ERR_LIMIT,
               metric_compact_writer_series(w, slice_str("t"), labels_of(f.pool, "m", "c", ""), &rows));
    metric_compact_writer_close(w);
    assert_ok(io_unlink(f.io, "s"));
    close_fixture(&f);
}

/* Later models win over earlier ones at equal times. */
static struct model merge_models(struct pool *pool, struct model *inputs, size_t n, struct time_range window,
                                 int64_t cutoff_ms)
{
    struct model all = { .pool = pool }, out = { .pool = pool };
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < inputs[i].count; k++) {
            struct series *s = NULL, *from = &inputs[i].series[k];
            for (size_t j = 0; j < all.count && s == NULL; j++)
                if (compare_series(&all.series[j], from) == 0)
                    s = &all.series[j];
            if (s == NULL)
                s = add_series(&all, from->tenant, from->labels);
            for (size_t j = 0; j < from->count; j++)
                if (from->rows[j].t_ms >= window.min_ms && from->rows[j].t_ms <= window.max_ms &&
                    from->rows[j].t_ms >= cutoff_ms) {
                    size_t place = s->count;
                    add_row(&all, s, from->rows[j]);
                    while (place > 0 && s->rows[place - 1].t_ms > from->rows[j].t_ms) {
                        s->rows[place] = s->rows[place - 1];
                        place--;
                    }
                    s->rows[place] = from->rows[j];
                }
        }
    qsort(all.series, all.count, sizeof *all.series, compare_series);
    for (size_t i = 0; i < all.count; i++)
        if (all.series[i].count > 0) {
            struct series *s = add_series(&out, all.series[i].tenant, all.series[i].labels);
            for (size_t k = 0; k < all.series[i].count; k++)
                if (k + 1 == all.series[i].count ||
                    all.series[i].rows[k + 1].t_ms != all.series[i].rows[k].t_ms)
                    add_row(&out, s, all.series[i].rows[k]);
        }
    return out;
}

static void test_merge(void **state)
{
    struct test_random r = test_random_begin("compact merge");
    struct fixture f;
    struct err_at at = { 0 };
    open_fixture(&f);
    struct model m[3];
    struct open_file o[3];
    struct metric_compact *inputs[3];
    struct sum total = { 0 }, parts = { 0 };
    static const char *const names[] = { "a", "b", "c" };
    for (int i = 0; i < 3; i++) {
        struct metric_compact_written written;
        m[i] = draw(f.pool, &r,
                    (struct shape){ 2, 8, 2 + (unsigned)i, 700, i != 1, 1700000000000 + i * 4000000 });
        for (size_t k = 0; k < m[i].count; k++)
            m[i].series[k].exemplars = 0;
        assert_ok(write_model(&f, &m[i], names[i], &written));
        sum_add(&total, written.info.sum);
        open_file(&f, names[i], &o[i]);
        inputs[i] = o[i].compact;
    }
    static const struct {
        int64_t min_ms, max_ms, cutoff_ms;
    } windows[] = {
        { INT64_MIN, 1700006000000, 1700001000000 },
        { 1700006000001, INT64_MAX, INT64_MIN },
    };
    for (int i = 0; i < 2; i++) {
        struct metric_compact_merge request = {
            .inputs = inputs,
            .input_count = 3,
            .window = { windows[i].min_ms, windows[i].max_ms },
            .cutoff_ms = windows[i].cutoff_ms,
        };
        struct metric_compact_config config = { .path = "out" };
        struct metric_compact_writer *w;
        struct metric_compact_written written;
        assert_ok(metric_compact_writer_open(f.io, &config, f.pool, &w));
        assert_ok(metric_compact_merge(&request, w, f.pool, &written, &at));
        assert_true(written.info.dropped.count > 0 && (written.info.expired.count > 0) == (i == 0));
        assert_true(sum_equal(written.info.sum, written.info.distinct));
        sum_add(&parts, written.info.sum);
        sum_add(&parts, written.info.dropped);
        sum_add(&parts, written.info.expired);
        metric_compact_writer_close(w);
        verify_path(&f, "out", written.file.digest);
        struct model expected = merge_models(f.pool, m, 3, request.window, request.cutoff_ms);
        compare_model(&f, &expected, &r, "out");
        assert_ok(io_unlink(f.io, "out"));
    }
    assert_true(sum_equal(total, parts));
    struct metric_compact_merge nothing = {
        .inputs = inputs, .input_count = 3, .window = { 0, 10 }, .cutoff_ms = INT64_MIN
    };
    struct metric_compact_config config = { .path = "out" };
    struct metric_compact_writer *w;
    struct metric_compact_written written;
    assert_ok(metric_compact_writer_open(f.io, &config, f.pool, &w));
    assert_err(ERR_NOT_FOUND, metric_compact_merge(&nothing, w, f.pool, &written, &at));
    metric_compact_writer_close(w);
    assert_ok(io_unlink(f.io, "out"));
    for (int i = 0; i < 3; i++) {
        close_file(&o[i]);
        assert_ok(io_unlink(f.io, names[i]));
    }
    close_fixture(&f);
}

static void test_every_bit(void **state)
{
    struct test_random r = test_random_begin("compact bits");
    struct fixture f;
    struct metric_compact_written written;
    struct err_at at;
    open_fixture(&f);
    struct model m = draw(f.pool, &r, (struct shape){ 1, 3, 1, 20, true, 1000 });
    assert_ok(write_model(&f, &m, "s", &written));
    struct slice all;
    assert_ok(io_read_file(f.io, "s", 1 << 20, f.pool, &all));
    uint8_t *bytes = test_malloc(all.len);
    struct slice memory = slice_of(bytes, all.len);
    struct segment_source source = segment_source_bytes(&memory);
    memcpy(bytes, all.at, all.len);
    assert_ok(metric_compact_verify(source, NULL, f.pool, NULL, &at));
    for (size_t bit = 0; bit < all.len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        err e = metric_compact_verify(source, NULL, f.pool, NULL, &at);
        if (e != ERR_CORRUPT && e != ERR_VERSION)
            fail_msg("bit %zu: %s", bit, err_text(e));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    test_free(bytes);
    assert_ok(io_unlink(f.io, "s"));
    close_fixture(&f);
}

/* Fail every allocation once, of writing, then of reading. */
static void test_allocations(void **state)
{
    struct test_random r = test_random_begin("compact allocations");
    struct fixture f;
    struct pool *model_pool = pool_open(NULL, "model", POOL_BYTES_UNLIMITED);
    open_fixture(&f);
    struct model m = draw(model_pool, &r, (struct shape){ 2, 8, 2, 300, true, 1000 });
    err e = ERR_LIMIT;
    for (uint64_t nth = 1; e != OK; nth++) {
        struct metric_compact_written written;
        pool_fault_at(f.pool, nth, false);
        e = write_model(&f, &m, "s", &written);
        pool_fault_at(f.pool, 0, false);
        assert_true(e == OK || e == ERR_LIMIT);
        err gone = e == OK ? OK : io_unlink(f.io, "s");
        assert_true(gone == OK || gone == ERR_NOT_FOUND);
    }
    struct io_file *file;
    struct segment_source source;
    struct err_at at;
    assert_ok(io_file_open(f.io, "s", IO_READ, &file));
    assert_ok(segment_source_file(file, &source));
    e = ERR_LIMIT;
    for (uint64_t nth = 1; e != OK; nth++) {
        pool_fault_at(f.pool, nth, false);
        e = metric_compact_verify(source, NULL, f.pool, NULL, &at);
        pool_fault_at(f.pool, 0, false);
        assert_true(e == OK || e == ERR_LIMIT);
    }
    io_file_close(file);
    assert_ok(io_unlink(f.io, "s"));
    pool_close(model_pool);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order), cmocka_unit_test(test_model),     cmocka_unit_test(test_select),
        cmocka_unit_test(test_merge), cmocka_unit_test(test_every_bit), cmocka_unit_test(test_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
