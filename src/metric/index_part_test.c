/* Index parts. Goal: what is read equals what was added, selections mean what Prometheus means, hostile
 * images do no harm. Method: random label sets against a brute force over the sets themselves, with every
 * kind of matcher; every bit of a small image flipped, alone and several together; truncations. */
#include "base/test.h"

#include "metric/index_part.h"
#include "metric/index_part_format.h"
#include "model/labels.h"

struct world {
    struct pool *pool;
    struct slice *series;
    uint32_t count;
    struct buf image;
    struct metric_part part;
};

static const char *const values[] = { "a", "b", "ab", "abc", "b1", "b2", "zz", "a.b", "x" };
static const char *const names[] = { "__name__", "job", "instance", "le", "empty", "zone" };

static struct slice random_labels(struct test_random *random, struct pool *pool, uint32_t row)
{
    struct label labels[8];
    char unique[32];
    size_t count = 0;
    for (size_t n = 0; n < 6; n++) {
        uint64_t roll = test_random_below(random, 8);
        if (roll == 0)
            continue;
        size_t value_count = 1 + n * 2 < 9 ? 1 + n * 2 : 9;
        const char *value = n == 1 && roll < 7 ? "job" : values[test_random_below(random, value_count)];
        labels[count++] = (struct label){ slice_str(names[n]), slice_str(value) };
    }
    if (test_random_below(random, 3) != 0) {
        int len = snprintf(unique, sizeof unique, "u%u", row / (1 + (unsigned)test_random_below(random, 3)));
        labels[count++] = (struct label){ slice_str("unique"), slice_of(unique, (size_t)len) };
    }
    struct buf out = buf_open(pool, LABELS_BYTES_MAX);
    struct slice copy;
    assert_ok(labels_encode(labels, count, &out, NULL));
    assert_ok(pool_copy(pool, buf_slice(&out), &copy));
    buf_close(&out);
    return copy;
}

static struct world world_open(struct test_random *random, uint32_t count)
{
    struct world w = { .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED), .count = count };
    void *at;
    assert_ok(pool_alloc(w.pool, ((size_t)count + 1) * sizeof *w.series, &at));
    w.series = at;
    w.image = buf_open(w.pool, 1 << 30);
    struct metric_part_builder *builder;
    assert_ok(metric_part_builder_open(w.pool, &builder));
    for (uint32_t i = 0; i < count; i++) {
        bool repeat = i > 0 && test_random_below(random, 4) == 0;
        w.series[i] = repeat ? w.series[i - 1] : random_labels(random, w.pool, i);
        assert_ok(metric_part_builder_add(builder, w.series[i]));
    }
    assert_int_equal(metric_part_builder_count(builder), count);
    assert_true(metric_part_builder_bytes(builder) > 0);
    assert_ok(metric_part_builder_finish(builder, &w.image));
    metric_part_builder_close(builder);
    assert_ok(metric_part_open(buf_slice(&w.image), &w.part));
    return w;
}

static void world_close(struct world *w) { pool_close(w->pool); }

static void series_come_back(void **state)
{
    struct test_random random = test_random_begin("series_come_back");
    static const uint32_t counts[] = { 0, 1, 15, 16, 17, 300, 70000 };
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        struct world w = world_open(&random, counts[k]);
        struct buf out = buf_open(w.pool, LABELS_BYTES_MAX);
        for (uint32_t i = 0; i < w.count; i++) {
            uint32_t row = i % 2 ? i : (uint32_t)test_random_below(&random, w.count);
            buf_clear(&out);
            assert_ok(metric_part_labels(&w.part, row, &out));
            assert_true(slice_equal(buf_slice(&out), w.series[row]));
        }
        assert_err(ERR_NOT_FOUND, metric_part_labels(&w.part, w.count, &out));
        if (w.count > 0) {
            struct buf small = buf_open(w.pool, 1);
            uint32_t row = 0;
            while (row + 1 < w.count && w.series[row].len < 2)
                row++;
            if (w.series[row].len >= 2)
                assert_err(ERR_LIMIT, metric_part_labels(&w.part, row, &small));
        }
        assert_ok(metric_part_verify(&w.part, w.pool));
        world_close(&w);
    }
}

static struct matcher random_matcher(struct test_random *random, struct pool *pool)
{
    static const char *const patterns[] = { "a.*", "a|b",     "",     ".*",   ".+",        "b[12]", "(ab|zz)",
                                            "a|",  "nothing", "u1.*", "ab.*", "x|a\\.b|x", "(?i)A" };
    enum match_type type = (enum match_type)test_random_below(random, 4);
    bool regex = type == MATCH_REGEX || type == MATCH_NOT_REGEX;
    const char *name = test_random_below(random, 8) == 0   ? "absent"
                       : test_random_below(random, 6) == 0 ? "unique"
                                                           : names[test_random_below(random, 6)];
    const char *value = regex ? patterns[test_random_below(random, sizeof patterns / sizeof *patterns)]
                        : test_random_below(random, 6) == 0 ? ""
                        : test_random_below(random, 4) == 0 ? "job"
                                                            : values[test_random_below(random, 9)];
    struct matcher m;
    assert_ok(matcher_init(pool, type, slice_str(name), slice_str(value), &m, NULL));
    return m;
}

static void selections_equal_brute_force(void **state)
{
    struct test_random random = test_random_begin("selections_equal_brute_force");
    static const uint32_t counts[] = { 0, 1, 40, 1000, 67000 };
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        struct world w = world_open(&random, counts[k]);
        for (int round = 0; round < (counts[k] > 1000 ? 40 : 400); round++) {
            struct pool *pool = pool_open(w.pool, "round", POOL_BYTES_UNLIMITED);
            struct matcher matchers[4];
            size_t count = test_random_below(&random, 5), found, expected = 0;
            for (size_t i = 0; i < count; i++)
                matchers[i] = random_matcher(&random, pool);
            uint32_t *ordinals;
            assert_ok(metric_part_select(&w.part, matchers, count, pool, &ordinals, &found));
            for (uint32_t row = 0; row < w.count; row++) {
                if (!matchers_match(matchers, count, w.series[row]))
                    continue;
                assert_true(expected < found);
                assert_int_equal(ordinals[expected], row);
                expected++;
            }
            assert_int_equal(expected, found);
            for (size_t i = 0; i < count; i++)
                matcher_done(&matchers[i]);
            pool_close(pool);
        }
        world_close(&w);
    }
}

static bool in_list(const struct slice *list, size_t count, struct slice s)
{
    for (size_t i = 0; i < count; i++)
        if (slice_equal(list[i], s))
            return true;
    return false;
}

static void check_sorted(const struct slice *list, size_t count)
{
    for (size_t i = 1; i < count; i++)
        assert_true(slice_compare(list[i - 1], list[i]) < 0);
}

static void names_and_values(void **state)
{
    struct test_random random = test_random_begin("names_and_values");
    struct world w = world_open(&random, 500);
    for (int round = 0; round < 60; round++) {
        uint32_t ordinals[500];
        size_t count = 0;
        for (uint32_t row = 0; row < 500; row++)
            if (test_random_below(&random, 50) < (uint64_t)round)
                ordinals[count++] = row;
        const uint32_t *given = round == 0 ? NULL : ordinals;
        struct slice *found;
        size_t found_count, seen = 0;
        assert_ok(metric_part_names(&w.part, given, count, w.pool, &found, &found_count));
        check_sorted(found, found_count);
        struct slice all[16];
        for (size_t i = 0; i < (given == NULL ? 500 : count); i++) {
            struct reader r = reader_of(w.series[given == NULL ? i : given[i]]);
            struct label label;
            while (labels_next(&r, &label)) {
                assert_true(in_list(found, found_count, label.name));
                if (!in_list(all, seen, label.name))
                    all[seen++] = label.name;
            }
        }
        assert_int_equal(seen, found_count);
        struct slice *texts;
        size_t text_count, hits = 0;
        assert_ok(metric_part_values(&w.part, slice_str("zone"), given, count, w.pool, &texts, &text_count));
        check_sorted(texts, text_count);
        seen = 0;
        for (size_t i = 0; i < (given == NULL ? 500 : count); i++) {
            struct slice value = labels_get(w.series[given == NULL ? i : given[i]], slice_str("zone"));
            if (value.len == 0)
                continue;
            hits++;
            assert_true(in_list(texts, text_count, value));
            if (!in_list(all, seen, value))
                all[seen++] = value;
        }
        assert_int_equal(seen, text_count);
        assert_ok(
            metric_part_values(&w.part, slice_str("absent"), given, count, w.pool, &texts, &text_count));
        assert_int_equal(text_count, 0);
    }
    world_close(&w);
}

static void pairs_count_series(void **state)
{
    struct test_random random = test_random_begin("pairs_count_series");
    struct world w = world_open(&random, 3000);
    uint64_t total = 0;
    for (uint32_t i = 0; i < w.part.pair_count; i++) {
        struct metric_part_pair pair;
        uint32_t expected = 0;
        assert_ok(metric_part_pair_at(&w.part, i, &pair));
        if (i % 7 == 0) {
            for (uint32_t row = 0; row < w.count; row++)
                expected += slice_equal(labels_get(w.series[row], pair.name), pair.value);
            assert_int_equal(expected, pair.series_count);
        }
        total += pair.series_count;
    }
    assert_int_equal(total, w.part.posting_count);
    world_close(&w);
}

static void merging_is_adding_again(void **state)
{
    struct test_random random = test_random_begin("merging_is_adding_again");
    struct world a = world_open(&random, 900), b = world_open(&random, 66000);
    struct pool *pool = pool_open(NULL, "merge", POOL_BYTES_UNLIMITED);
    struct metric_part_builder *merged, *plain;
    uint64_t *keep;
    void *at;
    assert_ok(pool_zalloc(pool, 66000 / 8 + 8, &at));
    keep = at;
    assert_ok(metric_part_builder_open(pool, &merged));
    assert_ok(metric_part_builder_open(pool, &plain));
    for (uint32_t i = 0; i < a.count; i++)
        assert_ok(metric_part_builder_add(plain, a.series[i]));
    for (uint32_t i = 0; i < b.count; i++) {
        if (test_random_below(&random, 3) == 0)
            continue;
        keep[i / 64] |= UINT64_C(1) << i % 64;
        assert_ok(metric_part_builder_add(plain, b.series[i]));
    }
    assert_ok(metric_part_builder_add_part(merged, &a.part, NULL));
    assert_ok(metric_part_builder_add_part(merged, &b.part, keep));
    struct buf x = buf_open(pool, 1 << 30), y = buf_open(pool, 1 << 30);
    assert_ok(metric_part_builder_finish(merged, &x));
    assert_ok(metric_part_builder_finish(plain, &y));
    assert_true(slice_equal(buf_slice(&x), buf_slice(&y)));
    metric_part_builder_close(merged);
    metric_part_builder_close(plain);
    pool_close(pool);
    world_close(&a);
    world_close(&b);
}

/* Everything a reader may be asked, on an image that may be anything. Errors are fine, bad accesses not. */
static void exercise(struct slice image)
{
    struct metric_part part;
    if (metric_part_open(image, &part) != OK)
        return;
    struct pool *pool = pool_open(NULL, "exercise", (size_t)64 << 20);
    struct buf out = buf_open(pool, 1 << 20);
    for (uint32_t i = 0; i < part.series_count && i < 50; i++) {
        buf_clear(&out);
        ERR_IGNORE(metric_part_labels(&part, i, &out));
    }
    for (uint32_t i = 0; i < part.pair_count && i < 50; i++) {
        struct metric_part_pair pair;
        ERR_IGNORE(metric_part_pair_at(&part, i, &pair));
    }
    static const char *const patterns[] = { "a.*", ".+", "b" };
    for (size_t i = 0; i < 12; i++) {
        struct matcher m;
        uint32_t *ordinals;
        size_t count;
        assert_ok(matcher_init(pool, (enum match_type)(i % 4), slice_str(names[i % 3]),
                               slice_str(patterns[i % 3]), &m, NULL));
        if (metric_part_select(&part, &m, 1, pool, &ordinals, &count) == OK) {
            struct slice *texts;
            size_t text_count;
            for (size_t k = 0; k < count; k++)
                assert_true(ordinals[k] < part.series_count && (k == 0 || ordinals[k - 1] < ordinals[k]));
            ERR_IGNORE(metric_part_names(&part, ordinals, count, pool, &texts, &text_count));
            ERR_IGNORE(
                metric_part_values(&part, slice_str("job"), ordinals, count, pool, &texts, &text_count));
        }
        matcher_done(&m);
    }
    ERR_IGNORE(metric_part_verify(&part, pool));
    pool_close(pool);
}

/* An image that verify accepts fits together, whatever it tells: every pair selects the series that have it. */
static void check_consistent(struct slice image, struct pool *pool)
{
    struct metric_part part;
    struct slice series[60];
    assert_ok(metric_part_open(image, &part));
    assert_true(part.series_count <= 60);
    for (uint32_t row = 0; row < part.series_count; row++) {
        struct buf out = buf_open(pool, LABELS_BYTES_MAX);
        assert_ok(metric_part_labels(&part, row, &out));
        series[row] = buf_slice(&out);
    }
    for (uint32_t i = 0; i < part.pair_count; i++) {
        struct metric_part_pair pair;
        struct matcher m;
        uint32_t *ordinals;
        size_t count, expected = 0;
        assert_ok(metric_part_pair_at(&part, i, &pair));
        assert_ok(matcher_init(pool, MATCH_EQUAL, pair.name, pair.value, &m, NULL));
        assert_ok(metric_part_select(&part, &m, 1, pool, &ordinals, &count));
        for (uint32_t row = 0; row < part.series_count; row++)
            if (matchers_match(&m, 1, series[row])) {
                assert_true(expected < count);
                assert_int_equal(ordinals[expected++], row);
            }
        assert_int_equal(expected, count);
        matcher_done(&m);
    }
}

/* A part has no checksum of its own: a letter of a label can change unseen here (what stores the part has one, and
 * compact_test.c flips every bit under that). All else is refused, or fits together. */
static void every_bit_is_noticed_or_harmless(void **state)
{
    struct test_random random = test_random_begin("every_bit_is_noticed_or_harmless");
    struct world w = world_open(&random, 60);
    struct slice image = buf_slice(&w.image);
    size_t refused = 0, accepted = 0;
    for (size_t bit = 0; bit < image.len * 8; bit++) {
        struct metric_part part;
        struct pool *pool = pool_open(NULL, "bit", POOL_BYTES_UNLIMITED);
        uint8_t *bytes = malloc(image.len); /* an exact block, so that a sanitizer sees one byte too far */
        struct slice changed = slice_of(bytes, image.len);
        memcpy(bytes, image.at, image.len);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        exercise(changed);
        if (metric_part_open(changed, &part) == OK && metric_part_verify(&part, pool) == OK) {
            check_consistent(changed, pool);
            accepted++;
        } else {
            refused++;
        }
        free(bytes);
        pool_close(pool);
    }
    printf("# %zu flipped bits refused, %zu accepted as another part that fits together\n", refused,
           accepted);
    assert_true(refused > accepted);
    world_close(&w);
}

static void damage_is_harmless(void **state)
{
    struct test_random random = test_random_begin("damage_is_harmless");
    struct world w = world_open(&random, 60);
    struct slice image = buf_slice(&w.image);
    void *at;
    for (size_t len = 0; len < image.len; len += 1 + len / 16) {
        at = malloc(len + 1); /* an exact block, so that a sanitizer sees one byte too far */
        memcpy(at, image.at, len);
        struct metric_part part;
        assert_err(ERR_CORRUPT, metric_part_open(slice_of(at, len), &part));
        free(at);
    }
    for (int round = 0; round < 3000; round++) {
        at = malloc(image.len);
        memcpy(at, image.at, image.len);
        uint8_t *bytes = at;
        for (uint64_t flips = 1 + test_random_below(&random, 3); flips > 0; flips--)
            bytes[test_random_below(&random, image.len)] ^= (uint8_t)(1u << test_random_below(&random, 8));
        exercise(slice_of(at, image.len));
        free(at);
    }
    world_close(&w);
}

static void headers_are_checked(void **state)
{
    struct test_random random = test_random_begin("headers_are_checked");
    struct world w = world_open(&random, 20);
    struct metric_part part;
    put_le16(w.image.at + 4, PART_VERSION + 1);
    assert_err(ERR_VERSION, metric_part_open(buf_slice(&w.image), &part));
    put_le16(w.image.at + 4, PART_VERSION);
    put_le32(w.image.at + 8, 21);
    if (metric_part_open(buf_slice(&w.image), &part) == OK)
        assert_err(ERR_CORRUPT, metric_part_verify(&part, w.pool));
    world_close(&w);
}

static void bad_labels_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        { "\x0a", 1 },
        { "\x0a\x06\x0a\x01"
          "a\x12\x02"
          "b",
          8 },
        { "\x0a\x05\x0a\x01"
          "a\x12\x00",
          7 },
        { "\x0a\x06\x0a\x01"
          "b\x12\x01"
          "x\x0a\x06\x0a\x01"
          "a\x12\x01"
          "x",
          16 },
        { "\x0a\x86\x00\x0a\x01"
          "b\x12\x01"
          "x",
          9 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pool *pool = pool_open(NULL, "bad", POOL_BYTES_UNLIMITED);
        struct metric_part_builder *builder;
        assert_ok(metric_part_builder_open(pool, &builder));
        assert_err(ERR_INPUT, metric_part_builder_add(builder, slice_of(bad[i].bytes, bad[i].len)));
        metric_part_builder_close(builder);
        pool_close(pool);
    }
}

static void allocation_failures_are_reported(void **state)
{
    struct test_random random = test_random_begin("allocation_failures_are_reported");
    struct world w = world_open(&random, 200);
    for (uint64_t nth = 1;; nth++) {
        struct pool *pool = pool_open(NULL, "torture", POOL_BYTES_UNLIMITED);
        struct buf out = buf_open(pool, 1 << 20);
        struct metric_part_builder *builder = NULL;
        pool_fault_at(pool, nth, false);
        err e = metric_part_builder_open(pool, &builder);
        for (uint32_t i = 0; i < w.count && e == OK; i++)
            e = metric_part_builder_add(builder, w.series[i]);
        if (e == OK)
            e = metric_part_builder_finish(builder, &out);
        bool done = pool_fault_count(pool) < nth;
        pool_fault_at(pool, 0, false);
        metric_part_builder_close(builder);
        if (done)
            assert_ok(e);
        else
            assert_err(ERR_LIMIT, e);
        pool_close(pool);
        if (done)
            break;
    }
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(series_come_back),        cmocka_unit_test(selections_equal_brute_force),
        cmocka_unit_test(names_and_values),        cmocka_unit_test(pairs_count_series),
        cmocka_unit_test(merging_is_adding_again), cmocka_unit_test(every_bit_is_noticed_or_harmless),
        cmocka_unit_test(damage_is_harmless),      cmocka_unit_test(headers_are_checked),
        cmocka_unit_test(bad_labels_are_refused),  cmocka_unit_test(allocation_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
