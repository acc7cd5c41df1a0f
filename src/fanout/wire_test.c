/* Bytes between nodes. Goal: what is written is read back bit for bit, however the stream is cut; no damaged or
 * missing byte passes. Method: random requests and answers from a seed; every byte flipped, every prefix. */
#include "base/test.h"
#include "fanout/wire.h"
#include "model/histogram.h"
#include "model/labels.h"

#define SERIES_MAX 40

struct series {
    struct slice labels;
    struct sample_columns columns;
    struct source_exemplar exemplars[3000];
    size_t exemplar_count;
};

struct answer {
    struct series series[SERIES_MAX];
    size_t count;
    struct buf bytes;
};

static err collect(void *context, struct slice bytes)
{
    buf_put_slice(context, bytes);
    return buf_err(context);
}

static struct slice labels_of(struct pool *pool, unsigned number)
{
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    char text[32];
    snprintf(text, sizeof text, "%u", number);
    labels_put(&labels, slice_str("__name__"), slice_str("m_total"));
    labels_put(&labels, slice_str("instance"), slice_str(text));
    assert_ok(buf_err(&labels));
    return buf_slice(&labels);
}

static struct slice histogram_of(struct pool *pool, struct test_random *random)
{
    struct histogram h = {
        .schema = 0, .sum = (double)test_random_below(random, 100), .count_int = 3, .zero_count_int = 3
    };
    struct buf bytes = buf_open(pool, HISTOGRAM_BYTES_MAX);
    histogram_encode(&h, &bytes);
    assert_ok(buf_err(&bytes));
    return buf_slice(&bytes);
}

static void fill(struct pool *pool, struct test_random *random, struct series *series, size_t rows)
{
    int64_t t_ms = (int64_t)test_random_below(random, 1000) - 500;
    bool has_starts = test_random_below(random, 3) == 0, has_histograms = test_random_below(random, 3) == 0;
    for (size_t i = 0; i < rows; i++) {
        t_ms += 1 + (int64_t)test_random_below(random, 3) * 7000;
        int64_t start_ms = has_starts && test_random_below(random, 2) == 0 ? t_ms - 1000 : 0;
        uint64_t bits = test_random_below(random, 9) == 0   ? SAMPLE_STALE_BITS
                        : test_random_below(random, 2) == 0 ? test_random_u64(random)
                                                            : double_bits((double)i);
        if (has_histograms && test_random_below(random, 2) == 0)
            assert_ok(
                sample_columns_add_histogram(&series->columns, t_ms, histogram_of(pool, random), start_ms));
        else
            assert_ok(sample_columns_add(&series->columns, t_ms, bits_double(bits), start_ms));
    }
}

static void fill_exemplars(struct pool *pool, struct test_random *random, struct series *series, size_t count)
{
    for (size_t i = 0; i < count; i++)
        series->exemplars[i] = (struct source_exemplar){ labels_of(pool, (unsigned)i), (int64_t)(i / 2) - 100,
                                                         bits_double(test_random_u64(random)) };
    series->exemplar_count = count;
}

/* Some series are empty, some share their times, one is longer than a piece may be. */
static struct answer *answer_make(struct pool *pool, struct test_random *random)
{
    void *at;
    assert_ok(pool_zalloc(pool, sizeof(struct answer), &at));
    struct answer *answer = at;
    answer->count = 1 + test_random_below(random, SERIES_MAX);
    answer->bytes = buf_open(pool, 64u << 20);
    for (size_t i = 0; i < answer->count; i++) {
        struct series *series = &answer->series[i];
        series->labels = labels_of(pool, (unsigned)(i * 7));
        series->columns = sample_columns_open(pool);
        fill(pool, random, series,
             i == 3 ? 3 * WIRE_PIECE_ROW_COUNT_MAX + 5 : test_random_below(random, 300));
        if (i > 0 && test_random_below(random, 2) == 0 &&
            series->columns.count >= answer->series[i - 1].columns.count)
            memcpy(series->columns.t_ms, answer->series[i - 1].columns.t_ms,
                   answer->series[i - 1].columns.count * sizeof(int64_t));
        for (size_t k = 1; k < series->columns.count; k++) /* ascending again behind what was copied */
            if (series->columns.t_ms[k] <= series->columns.t_ms[k - 1])
                series->columns.t_ms[k] = series->columns.t_ms[k - 1] + 1;
        fill_exemplars(pool, random, series, i == 5 ? 3000 : test_random_below(random, 3));
    }
    return answer;
}

static void answer_write(struct pool *pool, struct answer *answer)
{
    struct wire_out *out;
    struct proof proof = { .complete = true, .data_through_ms = 77 };
    assert_ok(wire_out_open(pool, WIRE_SAMPLES, collect, &answer->bytes, &out));
    for (size_t i = 0; i < answer->count; i++)
        assert_ok(wire_out_series(out, answer->series[i].labels, &answer->series[i].columns,
                                  answer->series[i].exemplars, answer->series[i].exemplar_count));
    assert_ok(wire_out_proof(out, &proof));
}

static void compare(const struct series *want, const struct sample_columns *got, size_t exemplar_count)
{
    const struct sample_columns *c = &want->columns;
    assert_int_equal(c->count, got->count);
    if (c->count > 0) {
        assert_memory_equal(c->t_ms, got->t_ms, c->count * sizeof *c->t_ms);
        assert_memory_equal(c->values, got->values, c->count * sizeof *c->values);
    }
    for (size_t i = 0; i < c->count; i++)
        assert_true((c->start_ms == NULL ? 0 : c->start_ms[i]) ==
                    (got->start_ms == NULL ? 0 : got->start_ms[i]));
    assert_int_equal(c->histogram_count, got->histogram_count);
    for (size_t i = 0; i < c->histogram_count; i++) {
        assert_int_equal(c->histograms[i].row, got->histograms[i].row);
        assert_true(slice_equal(c->histograms[i].bytes, got->histograms[i].bytes));
    }
    assert_int_equal(exemplar_count, want->exemplar_count);
}

static size_t exemplars_compare(const struct series *want, size_t from, const struct wire_entry *entry)
{
    struct wire_exemplars exemplars = wire_exemplars_of(entry);
    struct source_exemplar got;
    for (; wire_exemplar_next(&exemplars, &got); from++) {
        assert_true(from < want->exemplar_count && got.t_ms == want->exemplars[from].t_ms);
        assert_true(double_bits(got.value) == double_bits(want->exemplars[from].value));
        assert_true(slice_equal(got.labels, want->exemplars[from].labels));
    }
    return from;
}

/* Read an answer that comes in pieces of at most `cut` bytes, and compare. */
static void answer_read(struct pool *pool, const struct answer *answer, size_t cut)
{
    struct wire_in in = { .pool = pool, .kind = WIRE_SAMPLES };
    struct slice all = buf_slice(&answer->bytes), chunk = slice_of("", 0);
    struct sample_columns columns = sample_columns_open(pool);
    struct wire_series *series;
    struct wire_block block = { 0 };
    struct wire_entry entry;
    size_t at = SIZE_MAX, exemplar_count = 0, used = 0;
    assert_ok(wire_series_open(pool, &series));
    while (block.type != WIRE_BLOCK_PROOF) {
        err e = wire_in_next(&in, &chunk, &block);
        if (e == ERR_END) {
            assert_true(used < all.len);
            chunk = slice_part(all, used, all.len - used < cut ? all.len - used : cut);
            used += chunk.len;
            continue;
        }
        assert_ok(e);
        if (block.type != WIRE_BLOCK_SERIES)
            continue;
        wire_series_block(series, block.body);
        while ((e = wire_series_next(series, &entry)) == OK) {
            if (!entry.continues) {
                if (at != SIZE_MAX)
                    compare(&answer->series[at], &columns, exemplar_count);
                sample_columns_clear(&columns);
                at++;
                exemplar_count = 0;
            }
            assert_true(slice_equal(entry.labels, answer->series[at].labels));
            assert_ok(wire_piece_read(&entry.piece, &columns));
            exemplar_count = exemplars_compare(&answer->series[at], exemplar_count, &entry);
        }
        assert_err(ERR_END, e);
    }
    compare(&answer->series[at], &columns, exemplar_count);
    assert_int_equal(at + 1, answer->count);
    assert_true(used == all.len && chunk.len == 0 && in.ended);
    wire_series_close(series);
}

static void answers_survive_any_cut(void **state)
{
    struct test_random random = test_random_begin("answers");
    for (unsigned turn = 0; turn < 30; turn++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct answer *answer = answer_make(pool, &random);
        answer_write(pool, answer);
        answer_read(pool, answer, SIZE_MAX);
        answer_read(pool, answer, 1 + test_random_below(&random, 20000));
        if (turn < 3)
            answer_read(pool, answer, 1);
        pool_close(pool);
    }
}

/* Does an answer come to its good end? */
static bool is_whole(struct pool *pool, struct slice bytes)
{
    struct wire_in in = { .pool = pool, .kind = WIRE_SAMPLES };
    struct wire_block block = { 0 };
    struct proof proof;
    struct wire_series *series;
    struct wire_entry entry;
    err e = OK;
    assert_ok(wire_series_open(pool, &series));
    while (e == OK && block.type != WIRE_BLOCK_PROOF) {
        e = wire_in_next(&in, &bytes, &block);
        if (e == OK && block.type == WIRE_BLOCK_SERIES) {
            wire_series_block(series, block.body);
            while (e == OK)
                e = wire_series_next(series, &entry);
            e = e == ERR_END ? OK : e;
        }
    }
    wire_series_close(series);
    return e == OK && bytes.len == 0 && wire_proof_read(block.body, pool, &proof) == OK;
}

static void no_damaged_or_missing_byte_passes(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct test_random random = test_random_begin("damage");
    struct answer *answer = answer_make(pool, &random);
    answer->count = 2;
    answer_write(pool, answer);
    struct buf *b = &answer->bytes;
    assert_true(is_whole(pool, buf_slice(b)));
    for (size_t i = 0; i < b->len; i++) {
        struct pool *one = pool_open(NULL, "one", POOL_BYTES_UNLIMITED);
        b->at[i] ^= (uint8_t)(1u << i % 8);
        assert_false(is_whole(one, buf_slice(b)));
        b->at[i] ^= (uint8_t)(1u << i % 8);
        assert_false(is_whole(one, slice_of(b->at, i)));
        pool_close(one);
    }
    buf_put_u8(b, 0);
    assert_false(is_whole(pool, buf_slice(b))); /* something behind the end */
    pool_close(pool);
}

/* ---- requests ---- */

struct request {
    struct wire_request wire;
    struct wire_selector selectors[4];
    struct wire_matcher matchers[4][3];
    uint64_t partitions[16];
    struct source_position after[8];
};

static void request_make(struct test_random *random, struct request *r)
{
    static const char *const words[] = { "", "a", "job", "x.*|y", "__name__" };
    *r = (struct request){ .wire = {
                               .kind = WIRE_NAMES, .tenant = slice_str("t"), .selectors = r->selectors } };
    struct wire_request *w = &r->wire;
    w->left_ms = test_random_below(random, 100000);
    w->limit = test_random_below(random, 3);
    w->series_max = test_random_below(random, 2) == 0 ? UINT64_MAX : test_random_below(random, 1000);
    w->samples_max = test_random_u64(random);
    w->partition_count = (uint32_t)test_random_below(random, WIRE_PARTITION_COUNT_MAX + 1);
    w->partitions = w->partition_count == 0 ? NULL : r->partitions;
    for (uint32_t i = 0; i < w->partition_count; i++)
        if (test_random_below(random, 2) == 0)
            r->partitions[i / 64] |= UINT64_C(1) << i % 64;
    w->after = r->after;
    w->after_count = test_random_below(random, 9);
    for (size_t i = 0; i < w->after_count; i++)
        r->after[i] = (struct source_position){ (uint32_t)(i * 120 + test_random_below(random, 100)),
                                                test_random_below(random, 3), test_random_u64(random) };
    w->selector_count = 1 + test_random_below(random, 4);
    for (size_t i = 0; i < w->selector_count; i++) {
        r->selectors[i] = (struct wire_selector){ .range = { (int64_t)test_random_u64(random), INT64_MAX },
                                                  .matchers = r->matchers[i],
                                                  .matcher_count = test_random_below(random, 4) };
        for (size_t k = 0; k < r->selectors[i].matcher_count; k++)
            r->matchers[i][k] = (struct wire_matcher){ (enum match_type)test_random_below(random, 4),
                                                       slice_str(words[test_random_below(random, 5)]),
                                                       slice_str(words[test_random_below(random, 5)]) };
    }
}

static void requests_compare(const struct wire_request *a, const struct wire_request *b)
{
    assert_true(a->kind == b->kind && slice_equal(a->tenant, b->tenant) && slice_equal(a->name, b->name));
    assert_true(a->left_ms == b->left_ms && a->limit == b->limit && a->series_max == b->series_max);
    assert_true(a->samples_max == b->samples_max && a->partition_count == b->partition_count);
    for (uint32_t i = 0; i < a->partition_count; i++)
        assert_true(source_asks(a->partitions, i) == source_asks(b->partitions, i));
    assert_int_equal(a->after_count, b->after_count);
    for (size_t i = 0; i < a->after_count; i++)
        assert_true(a->after[i].partition == b->after[i].partition &&
                    a->after[i].generation == b->after[i].generation &&
                    a->after[i].offset == b->after[i].offset);
    assert_int_equal(a->selector_count, b->selector_count);
    for (size_t i = 0; i < a->selector_count; i++) {
        const struct wire_selector *x = &a->selectors[i], *y = &b->selectors[i];
        assert_true(x->range.min_ms == y->range.min_ms && x->range.max_ms == y->range.max_ms);
        assert_int_equal(x->matcher_count, y->matcher_count);
        for (size_t k = 0; k < x->matcher_count; k++)
            assert_true(x->matchers[k].type == y->matchers[k].type &&
                        slice_equal(x->matchers[k].name, y->matchers[k].name) &&
                        slice_equal(x->matchers[k].value, y->matchers[k].value));
    }
}

static void requests_survive_and_damage_does_not(void **state)
{
    struct test_random random = test_random_begin("requests");
    for (unsigned turn = 0; turn < 300; turn++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct request request;
        struct wire_request got;
        struct buf bytes = buf_open(pool, WIRE_REQUEST_BYTES_MAX);
        request_make(&random, &request);
        assert_ok(wire_request_encode(&request.wire, &bytes));
        assert_ok(wire_request_decode(buf_slice(&bytes), pool, &got, NULL));
        requests_compare(&request.wire, &got);
        size_t at = test_random_below(&random, bytes.len);
        assert_true(wire_request_decode(slice_of(bytes.at, at), pool, &got, NULL) != OK);
        bytes.at[at] ^= (uint8_t)(1 + test_random_below(&random, 255));
        assert_true(wire_request_decode(buf_slice(&bytes), pool, &got, NULL) != OK);
        pool_close(pool);
    }
}

static void newer_versions_are_refused_by_name(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct test_random random = { 1 };
    struct request request;
    struct wire_request got;
    struct buf bytes = buf_open(pool, WIRE_REQUEST_BYTES_MAX);
    request_make(&random, &request);
    assert_ok(wire_request_encode(&request.wire, &bytes));
    bytes.at[4] = WIRE_VERSION + 1;
    assert_err(ERR_VERSION, wire_request_decode(buf_slice(&bytes), pool, &got, NULL));
    pool_close(pool);
}

static void errors_end_an_answer(void **state)
{
    static const err errors[] = { ERR_LIMIT, ERR_BUSY, ERR_TIMEOUT, ERR_CANCELED, ERR_CLOSED };
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct buf bytes = buf_open(pool, 10000);
        struct wire_out *out;
        struct wire_in in = { .pool = pool, .kind = WIRE_NAMES };
        struct wire_block block;
        err error;
        uint64_t series_over;
        assert_ok(wire_out_open(pool, WIRE_NAMES, collect, &bytes, &out));
        assert_ok(wire_out_text(out, slice_str("gone")));
        assert_ok(wire_out_error(out, errors[i], 1000));
        struct slice left = buf_slice(&bytes);
        assert_ok(wire_in_next(&in, &left, &block));
        assert_int_equal(block.type, WIRE_BLOCK_ERROR); /* what was not sent yet is void */
        assert_ok(wire_error_read(block.body, &error, &series_over));
        assert_int_equal(error, errors[i]);
        assert_int_equal(series_over, 1000);
        pool_close(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_survive_any_cut),
        cmocka_unit_test(no_damaged_or_missing_byte_passes),
        cmocka_unit_test(requests_survive_and_damage_does_not),
        cmocka_unit_test(newer_versions_are_refused_by_name),
        cmocka_unit_test(errors_end_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
