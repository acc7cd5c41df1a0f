/* Row groups. Goal: a group gives back exactly the head's rows in (series, arrival) order, with its sums,
 * labels, exemplars and metadata; damage is noticed. Method: random heads with duplicates, disorder, NaN
 * payloads, start times and histograms against plain arrays, two groups of one stream file; flips and
 * truncations of a small group. */
#include "base/test.h"

#include "metric/group.h"
#include "metric/group_format.h"
#include "model/labels.h"

enum { LOCALS = 300 };

struct row {
    uint32_t local;
    int64_t t_ms;
    uint64_t bits;
    int64_t start_ms;
    bool is_histogram;
    char text[32];
};

struct world {
    struct pool *pool;
    struct metric_head *head;
    struct row *rows;
    size_t row_count;
    struct metric_stream_numbers numbers;
    uint32_t local_of[LOCALS]; /* by stream number */
    struct buf bytes;
    struct metric_group_result result;
};

static void put_local_labels(uint32_t local, struct buf *out)
{
    char text[40];
    snprintf(text, sizeof text, "metric_%u", local / 10);
    labels_put(out, slice_str("__name__"), slice_str(text));
    snprintf(text, sizeof text, "host-%u:9100", local % 10);
    labels_put(out, slice_str("instance"), slice_str(text));
}

static struct slice tenant_of(uint32_t local) { return slice_str(local % 50 == 7 ? "other" : "default"); }

static err describe(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    put_local_labels(local, labels);
    *out_tenant = tenant_of(local);
    return buf_err(labels);
}

static struct hash128 fingerprint_of_local(void *context, uint32_t local)
{
    struct world *w = context;
    struct buf labels = buf_open(w->pool, 1000);
    put_local_labels(local, &labels);
    struct hash128 hash = sum_series_hash(tenant_of(local), buf_slice(&labels));
    buf_close(&labels);
    return hash;
}

static struct hash128 fingerprint_of_number(void *context, uint32_t number)
{
    struct world *w = context;
    return fingerprint_of_local(w, w->local_of[number]);
}

static uint64_t random_bits(struct test_random *random, uint32_t local, size_t i)
{
    switch (local % 6) {
    case 0:
        return double_bits((double)(i * 3));
    case 1:
        return double_bits((double)test_random_below(random, 1000) / 10);
    case 2:
        return test_random_u64(random);
    case 3:
        return double_bits(42.0);
    case 4:
        return test_random_below(random, 3) == 0 ? SAMPLE_STALE_BITS : double_bits(-(double)i / 8);
    default:
        return test_random_below(random, 9) == 0 ? double_bits(-0.0) : double_bits(-1e9 + (double)i * 0.001);
    }
}

/* A head with `count` random rows. dense: at scrape-like times; else anything. */
static void fill(struct world *w, struct test_random *random, size_t count, bool dense)
{
    struct metric_head_config config = metric_head_config_default();
    assert_ok(metric_head_open(w->pool, &config, &w->head));
    void *at = NULL;
    assert_ok(pool_block_resize(w->pool, &at, (count + 1) * sizeof *w->rows));
    w->rows = at;
    w->row_count = 0;
    while (w->row_count < count) {
        size_t i = w->row_count;
        struct row row = { .local = (uint32_t)(dense ? i % 100 : test_random_below(random, LOCALS)) };
        row.t_ms = dense                                ? 1700000000000 + (int64_t)(i / 100) * 15000
                   : test_random_below(random, 50) == 0 ? (int64_t)test_random_u64(random)
                                                        : (int64_t)test_random_below(random, 100);
        row.bits = random_bits(random, row.local, i);
        struct batch_start start = { .row = 0, .start_ms = 1000 + row.local };
        bool has_start = !dense && row.local % 11 == 0 && test_random_below(random, 4) != 0;
        if (!dense && test_random_below(random, 20) == 0) {
            row.is_histogram = true;
            row.start_ms = (int64_t)test_random_below(random, 3);
            snprintf(row.text, sizeof row.text, "hist %zu", i);
            assert_ok(metric_head_append_histogram(w->head, row.local, row.t_ms, row.start_ms,
                                                   slice_str(row.text)));
        } else {
            row.start_ms = has_start ? start.start_ms : 0;
            assert_ok(metric_head_append(w->head, &row.local, &row.t_ms, &row.bits, 1, &start, has_start));
        }
        w->rows[w->row_count++] = row;
    }
    for (uint32_t i = 0; i < 5 && !dense; i++) {
        assert_ok(metric_head_append_exemplar(w->head, 290 + i, 10 + i, 0.25 * i, slice_str("trace")));
        struct batch_metadata m = { .family = slice_str("up"),
                                    .type = (uint8_t)i,
                                    .help = slice_str("Is it up?"),
                                    .unit = slice_str("") };
        assert_ok(metric_head_append_metadata(w->head, slice_str("default"), &m));
    }
    metric_head_publish(w->head);
}

static struct sum sum_of_rows(struct world *w)
{
    struct sum sum = { 0 };
    for (size_t i = 0; i < w->row_count; i++) {
        const struct row *row = &w->rows[i];
        uint64_t bits = row->is_histogram ? sum_histogram_bits(slice_str(row->text)) : row->bits;
        sum_add_hash(&sum, sum_row_hash(fingerprint_of_local(w, row->local), row->t_ms, bits, row->start_ms,
                                        row->is_histogram ? SAMPLE_HISTOGRAM : SAMPLE_FLOAT));
    }
    return sum;
}

static void encode(struct world *w)
{
    struct metric_head_view view = metric_head_view(w->head);
    struct metric_series_door door = { .describe = describe, .context = w };
    struct pool *scratch = pool_open(w->pool, "scratch", POOL_BYTES_UNLIMITED);
    w->bytes = buf_open(w->pool, METRIC_GROUP_BYTES_MAX);
    assert_ok(metric_group_encode(&view, sum_of_rows(w), &w->numbers, &door, scratch, &w->bytes, &w->result));
    for (uint32_t i = 0; i < w->result.new_count; i++) {
        w->local_of[w->numbers.count] = w->result.new_locals[i];
        assert_ok(metric_stream_numbers_add(&w->numbers, w->result.new_locals[i]));
    }
    pool_close(scratch);
}

static void world_open(struct world *w)
{
    *w = (struct world){ .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED) };
    w->numbers = metric_stream_numbers_open(w->pool);
}

static void world_next(struct world *w)
{
    metric_head_unref(w->head);
    pool_block_free(w->pool, w->rows);
    buf_close(&w->bytes);
}

static void world_close(struct world *w)
{
    world_next(w);
    metric_stream_numbers_close(&w->numbers);
    pool_close(w->pool);
}

static err read_bytes_at(void *context, uint64_t offset, void *at, size_t len)
{
    const struct slice *s = context;
    if (offset + len > s->len)
        return ERR_END;
    memcpy(at, s->at + offset, len);
    return OK;
}

static void check_counts(struct world *w, const struct metric_group *group)
{
    uint64_t counts[LOCALS] = { 0 };
    assert_ok(metric_group_count(group, w->pool, counts, w->numbers.count));
    for (size_t i = 0; i < w->row_count; i++)
        counts[metric_stream_number(&w->numbers, w->rows[i].local)]--;
    for (uint32_t n = 0; n < LOCALS; n++)
        assert_int_equal(counts[n], 0);
    if (w->row_count > 0)
        assert_err(ERR_CORRUPT, metric_group_count(group, w->pool, counts, 0));
}

static void check_walk(struct world *w, const struct metric_group *group)
{
    struct metric_group_walk *walk;
    struct metric_group_series s;
    size_t seen = 0;
    int64_t before = -1;
    err e;
    assert_ok(metric_group_walk_open(group, w->pool, &walk));
    while ((e = metric_group_walk_next(walk, &s)) == OK) {
        assert_true((int64_t)s.number > before);
        before = s.number;
        uint32_t local = w->local_of[s.number];
        size_t at = 0, h = 0;
        for (size_t i = 0; i < w->row_count; i++) {
            const struct row *row = &w->rows[i];
            if (row->local != local)
                continue;
            seen++;
            if (row->is_histogram) {
                assert_true(h < s.histogram_count);
                assert_int_equal(s.histograms[h].before, at);
                assert_true(s.histograms[h].t_ms == row->t_ms && s.histograms[h].start_ms == row->start_ms);
                assert_true(slice_equal_str(s.histograms[h].bytes, row->text));
                h++;
                continue;
            }
            assert_true(at < s.row_count && s.t_ms[at] == row->t_ms && s.value_bits[at] == row->bits);
            assert_int_equal(s.start_ms == NULL ? 0 : s.start_ms[at], row->start_ms);
            at++;
        }
        assert_true(at == s.row_count && h == s.histogram_count);
    }
    assert_err(ERR_END, e);
    assert_int_equal(seen, w->row_count);
    metric_group_walk_close(walk);
}

static void check_read(struct world *w, const struct metric_group *group, struct test_random *random)
{
    struct pool *scratch = pool_open(w->pool, "scratch", POOL_BYTES_UNLIMITED);
    struct pool *answer = pool_open(w->pool, "answer", POOL_BYTES_UNLIMITED);
    struct sample_columns columns = sample_columns_open(answer);
    for (uint32_t number = 0; number < w->numbers.count + 5; number++) {
        struct time_range range = { INT64_MIN, INT64_MAX };
        if (number % 3 == 0)
            range = (struct time_range){ (int64_t)test_random_below(random, 50), 80 };
        if (number % 7 != 0)
            sample_columns_clear(&columns);
        size_t at = columns.count, h = columns.histogram_count;
        assert_ok(metric_group_read(group, number, range, scratch, &columns));
        for (size_t i = 0; i < w->row_count && number < w->numbers.count; i++) {
            const struct row *row = &w->rows[i];
            if (row->local != w->local_of[number] || row->t_ms < range.min_ms || row->t_ms > range.max_ms)
                continue;
            assert_true(at < columns.count && columns.t_ms[at] == row->t_ms);
            assert_int_equal(columns.start_ms == NULL ? 0 : columns.start_ms[at], row->start_ms);
            if (row->is_histogram) {
                assert_int_equal(columns.histograms[h].row, at);
                assert_true(slice_equal_str(columns.histograms[h++].bytes, row->text));
            } else {
                assert_true(double_bits(columns.values[at]) == row->bits);
            }
            at++;
        }
        assert_true(at == columns.count && h == columns.histogram_count);
        pool_reset(scratch);
    }
    sample_columns_close(&columns);
    pool_close(answer);
    pool_close(scratch);
}

/* Blocks decoded for many series give what reading each alone gives. */
static void check_blocks(struct world *w, const struct metric_group *group, struct test_random *random)
{
    struct pool *scratch = pool_open(w->pool, "scratch", POOL_BYTES_UNLIMITED);
    struct sample_columns alone = sample_columns_open(w->pool), together = sample_columns_open(w->pool);
    struct time_range range = { 20, 1700000060000 };
    uint64_t wanted[LOCALS / 64 + 1] = { 0 };
    for (uint32_t number = 0; number < w->numbers.count; number++)
        if (test_random_below(random, 3) != 0)
            wanted[number / 64] |= UINT64_C(1) << number % 64;
    for (uint32_t number = 0; number < w->numbers.count; number++) {
        uint32_t block = metric_group_block_find(group, number);
        if (block == metric_group_block_count(group))
            continue;
        struct metric_group_rows *rows;
        bool other;
        sample_columns_clear(&alone);
        sample_columns_clear(&together);
        assert_ok(metric_group_block_load(group, block, wanted, w->numbers.count, range, scratch, &rows));
        assert_ok(metric_group_rows_add(rows, number, &together, &other));
        assert_ok(metric_group_read(group, number, range, scratch, &alone));
        if ((wanted[number / 64] >> number % 64 & 1) == 0)
            alone.count = alone.histogram_count = 0;
        if (other)
            assert_true(together.count == 0);
        else
            assert_true(together.count == alone.count && alone.histogram_count == 0);
        for (size_t i = 0; i < together.count; i++)
            assert_true(together.t_ms[i] == alone.t_ms[i] &&
                        double_bits(together.values[i]) == double_bits(alone.values[i]));
        pool_reset(scratch);
    }
    sample_columns_close(&alone);
    sample_columns_close(&together);
    pool_close(scratch);
}

static err check_entry(void *context, uint32_t number, struct slice tenant, struct slice labels)
{
    struct world *w = context;
    struct buf expected = buf_open(w->pool, 1000);
    put_local_labels(w->local_of[number], &expected);
    assert_true(slice_equal(labels, buf_slice(&expected)));
    assert_true(slice_equal(tenant, tenant_of(w->local_of[number])));
    buf_close(&expected);
    return OK;
}

static void check_extra(struct world *w, const struct metric_group *group, uint32_t count)
{
    struct metric_exemplar *exemplars;
    struct metric_metadata *metadata;
    size_t exemplar_count, metadata_count;
    assert_ok(metric_group_exemplars(group, w->pool, &exemplars, &exemplar_count));
    assert_ok(metric_group_metadata(group, w->pool, &metadata, &metadata_count));
    assert_true(exemplar_count == count && metadata_count == count);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(w->local_of[exemplars[i].series] == 290 + i && exemplars[i].value == 0.25 * i);
        assert_true(exemplars[i].t_ms == 10 + i && slice_equal_str(exemplars[i].labels, "trace"));
        assert_true(metadata[i].type == i && slice_equal_str(metadata[i].help, "Is it up?"));
    }
}

static void groups_of_one_file(void **state)
{
    struct test_random random = test_random_begin("groups_of_one_file");
    static const size_t counts[] = { 0, 1, 50, 3000, 40000 };
    for (int dense = 0; dense < 2; dense++) {
        struct world w;
        world_open(&w);
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            uint32_t first = w.numbers.count;
            fill(&w, &random, counts[k], dense == 1);
            encode(&w);
            struct slice bytes = buf_slice(&w.bytes);
            struct metric_group_bytes source = { read_bytes_at, &bytes, bytes.len };
            struct metric_group *group;
            assert_ok(metric_group_open(w.pool, &source, &group));
            struct metric_group_facts facts = metric_group_facts(group);
            assert_int_equal(facts.first_new_number, first);
            assert_int_equal(facts.first_new_number + facts.new_count, w.numbers.count);
            assert_int_equal(facts.row_count + facts.histogram_count, counts[k]);
            assert_int_equal(facts.sum.count, counts[k]);
            if (counts[k] > 0)
                assert_true(facts.range.min_ms == metric_head_view(w.head).range.min_ms);
            check_walk(&w, group);
            check_counts(&w, group);
            check_read(&w, group, &random);
            check_blocks(&w, group, &random);
            assert_ok(metric_group_dictionary(group, w.pool, check_entry, &w));
            check_extra(&w, group, dense ? 0 : 5);
            assert_ok(metric_group_verify(group, w.pool, fingerprint_of_number, &w));
            printf("# %s, %zu rows: %.2f B a row\n", dense ? "dense" : "random", counts[k],
                   counts[k] == 0 ? 0.0 : (double)bytes.len / (double)counts[k]);
            metric_group_close(group);
            world_next(&w);
            w.head = NULL;
            w.rows = NULL;
        }
        world_close(&w);
    }
}

static err refuse_entry(void *context, uint32_t number, struct slice tenant, struct slice labels)
{
    return ERR_CANCELED;
}

/* Everything a reader may be asked. True when every answer was an error or right by its checksums. */
static void exercise(struct world *w, struct slice bytes, bool *out_opened, bool *out_verified)
{
    struct metric_group_bytes source = { read_bytes_at, &bytes, bytes.len };
    struct metric_group *group;
    struct pool *pool = pool_open(NULL, "exercise", (size_t)64 << 20);
    *out_opened = *out_verified = false;
    if (metric_group_open(pool, &source, &group) == OK) {
        struct sample_columns columns = sample_columns_open(pool);
        struct time_range all = { INT64_MIN, INT64_MAX };
        for (uint32_t number = 0; number < 20; number++)
            ERR_IGNORE(metric_group_read(group, number, all, pool, &columns));
        sample_columns_close(&columns);
        *out_opened = true;
        *out_verified = metric_group_verify(group, pool, fingerprint_of_number, w) == OK;
        metric_group_close(group);
    }
    pool_close(pool);
}

static void damage_is_noticed(void **state)
{
    struct test_random random = test_random_begin("damage_is_noticed");
    struct world w;
    bool opened, verified;
    world_open(&w);
    fill(&w, &random, 400, false);
    encode(&w);
    exercise(&w, buf_slice(&w.bytes), &opened, &verified);
    assert_true(opened && verified);
    for (size_t len = 0; len < w.bytes.len; len += 1 + len / 8) {
        void *copy = malloc(len + 1);
        memcpy(copy, w.bytes.at, len);
        exercise(&w, slice_of(copy, len), &opened, &verified);
        assert_false(opened);
        free(copy);
    }
    for (size_t bit = 0; bit < w.bytes.len * 8; bit++) {
        w.bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
        exercise(&w, buf_slice(&w.bytes), &opened, &verified);
        if (verified) /* every byte stands under some checksum or is a checksum */
            fail_msg("bit %zu of %zu bytes is not noticed", bit, w.bytes.len);
        w.bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    put_le16(w.bytes.at + 4, GROUP_VERSION + 1);
    put_le32(w.bytes.at + 124, crc32c(slice_of(w.bytes.at, 124), 0));
    struct slice bytes = buf_slice(&w.bytes);
    struct metric_group_bytes source = { read_bytes_at, &bytes, bytes.len };
    struct metric_group *group;
    assert_err(ERR_VERSION, metric_group_open(w.pool, &source, &group));
    world_close(&w);
}

static err fail_read(void *context, uint64_t offset, void *at, size_t len)
{
    return offset > 0 ? ERR_IO : read_bytes_at(context, offset, at, len);
}

static err fail_describe(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    return ERR_NOT_FOUND;
}

static void callbacks_may_fail(void **state)
{
    struct test_random random = test_random_begin("callbacks_may_fail");
    struct world w;
    world_open(&w);
    fill(&w, &random, 400, false);
    struct metric_head_view view = metric_head_view(w.head);
    struct metric_series_door door = { .describe = fail_describe, .context = &w };
    struct sum sum = { 0 };
    struct buf out = buf_open(w.pool, METRIC_GROUP_BYTES_MAX), small = buf_open(w.pool, 1000);
    assert_err(ERR_NOT_FOUND, metric_group_encode(&view, sum, &w.numbers, &door, w.pool, &out, &w.result));
    door.describe = describe;
    assert_err(ERR_LIMIT, metric_group_encode(&view, sum, &w.numbers, &door, w.pool, &small, &w.result));
    buf_close(&out);
    encode(&w);
    struct slice bytes = buf_slice(&w.bytes);
    struct metric_group_bytes source = { fail_read, &bytes, bytes.len };
    struct metric_group *group;
    assert_err(ERR_IO, metric_group_open(w.pool, &source, &group));
    source.read = read_bytes_at;
    assert_ok(metric_group_open(w.pool, &source, &group));
    assert_err(ERR_CANCELED, metric_group_dictionary(group, w.pool, refuse_entry, NULL));
    metric_group_close(group);
    world_close(&w);
}

static void allocation_failures_are_reported(void **state)
{
    struct test_random random = test_random_begin("allocation_failures_are_reported");
    struct world w;
    world_open(&w);
    fill(&w, &random, 300, false);
    encode(&w);
    struct slice bytes = buf_slice(&w.bytes);
    struct metric_group_bytes source = { read_bytes_at, &bytes, bytes.len };
    for (uint64_t nth = 1;; nth++) {
        struct pool *pool = pool_open(NULL, "torture", POOL_BYTES_UNLIMITED);
        struct metric_group *group = NULL;
        pool_fault_at(pool, nth, false);
        err e = metric_group_open(pool, &source, &group);
        if (e == OK)
            e = metric_group_verify(group, pool, NULL, NULL);
        bool done = pool_fault_count(pool) < nth;
        pool_fault_at(pool, 0, false);
        metric_group_close(group);
        pool_close(pool);
        assert_err(done ? OK : ERR_LIMIT, e);
        if (done)
            break;
    }
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_of_one_file),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(callbacks_may_fail),
        cmocka_unit_test(allocation_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
