/* Goal: a label set has one canonical form, everything else is refused with a reason, and walking never
 * leaves the bytes. Method: tables, random sets against a naive model, truncation and bit flips. */
#include "base/test.h"

#include "model/labels.h"

static struct pool *pool;

static int setup(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    return 0;
}
static int teardown(void **state)
{
    pool_close(pool);
    return 0;
}

static struct slice encode(struct label *labels, size_t count)
{
    struct buf b = buf_open(pool, 1 << 20);
    assert_ok(labels_encode(labels, count, &b, NULL));
    return buf_slice(&b);
}

static struct label pair(const char *name, const char *value)
{
    return (struct label){ slice_str(name), slice_str(value) };
}

static void golden_bytes(void **state)
{
    struct label labels[] = { pair("job", "a"), pair("__name__", "up"), pair("empty", "") };
    struct slice s = encode(labels, 3);
    static const char expected[] = "\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x08\x0a\x03job\x12\x01"
                                   "a";
    assert_int_equal(s.len, sizeof expected - 1);
    assert_memory_equal(s.at, expected, s.len);
    assert_ok(labels_check(s, NULL));
    assert_int_equal(labels_count(s), 2);
    assert_true(slice_equal_str(labels_get(s, slice_str("job")), "a"));
    assert_int_equal(labels_get(s, slice_str("none")).len, 0);
}

static void refusals(void **state)
{
    struct err_at at;
    struct label duplicate[] = { pair("a", "1"), pair("b", "1"), pair("a", "2") };
    struct buf b = buf_open(pool, 1 << 20);
    assert_err(ERR_INPUT, labels_encode(duplicate, 3, &b, &at));
    assert_non_null(strstr(at.text, "duplicate label \"a\""));
    struct label unnamed[] = { pair("", "1") };
    assert_err(ERR_INPUT, labels_encode(unnamed, 1, &b, &at));
    struct label garbled[] = { pair("a", "\xc0\x80") };
    assert_err(ERR_INPUT, labels_encode(garbled, 1, &b, &at));
    struct label garbled_name[] = { pair("\xff", "a") };
    assert_err(ERR_INPUT, labels_encode(garbled_name, 1, &b, &at));
    assert_int_equal(b.len, 0);

    static char long_value[LABELS_BYTES_MAX + 1];
    memset(long_value, 'x', sizeof long_value);
    struct label large[] = { { slice_str("a"), slice_of(long_value, sizeof long_value) } };
    assert_err(ERR_LIMIT, labels_encode(large, 1, &b, &at));

    static struct label many[LABEL_COUNT_MAX + 1];
    static char names[LABEL_COUNT_MAX + 1][8];
    for (size_t i = 0; i <= LABEL_COUNT_MAX; i++) {
        snprintf(names[i], sizeof names[i], "n%zu", i);
        many[i] = pair(names[i], "v");
    }
    assert_err(ERR_LIMIT, labels_encode(many, LABEL_COUNT_MAX + 1, &b, &at));
    assert_ok(labels_encode(many, LABEL_COUNT_MAX, &b, &at));
    assert_ok(labels_check(buf_slice(&b), &at));
    labels_put(&b, slice_str("zzz"), slice_str("v"));
    assert_err(ERR_LIMIT, labels_check(buf_slice(&b), &at));
}

static void check_refuses(const char *bytes, size_t len, const char *reason)
{
    struct err_at at;
    assert_err(ERR_INPUT, labels_check(slice_of(bytes, len), &at));
    if (strstr(at.text, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", at.text, reason);
}

static void check_names_the_reason(void **state)
{
#define REFUSES(bytes, reason) check_refuses(bytes, sizeof bytes - 1, reason)
    REFUSES("\x0a\x06\x0a\x01"
            "b\x12\x01"
            "1\x0a\x06\x0a\x01"
            "a\x12\x01"
            "1",
            "out of order");
    REFUSES("\x0a\x06\x0a\x01"
            "b\x12\x01"
            "1\x0a\x06\x0a\x01"
            "b\x12\x01"
            "1",
            "duplicate");
    REFUSES("\x0a\x05\x0a\x01"
            "b\x12\x00",
            "empty value");
    REFUSES("\x0a\x05\x0a\x00\x12\x01"
            "1",
            "empty label name");
    REFUSES("\x0a\x07\x0a\x81\x00"
            "b\x12\x01"
            "1",
            "not minimal");
    REFUSES("\x0a\x86\x00\x0a\x01"
            "b\x12\x01"
            "1",
            "not minimal");
    REFUSES("\x0a\x06\x0a\x01"
            "b\x12\x01\xff",
            "not UTF-8");
    REFUSES("\x0a\x06\x0a\x01\xff\x12\x01"
            "b",
            "not UTF-8");
    REFUSES("\x0a\x06\x12\x01"
            "b\x0a\x01"
            "1",
            "malformed");
    REFUSES("\x12\x06\x0a\x01"
            "b\x12\x01"
            "1",
            "malformed");
    REFUSES("\x0a\x07\x0a\x01"
            "b\x12\x01"
            "1x",
            "malformed");
    REFUSES("\x0a", "malformed");
    assert_ok(labels_check(slice_of("", 0), NULL));
    static uint8_t large[LABELS_BYTES_MAX + 1];
    assert_err(ERR_LIMIT, labels_check(slice_of(large, sizeof large), NULL));
}

/* The definition: what encoding its labels gives again. */
static bool is_canonical(const uint8_t *at, size_t len)
{
    struct label labels[64], label;
    size_t count = 0;
    struct reader r = reader_of(slice_of(at, len));
    while (count < 64 && labels_next(&r, &label))
        labels[count++] = label;
    struct buf b = buf_open(pool, 1 << 20);
    bool is = r.ok && r.at == r.end && labels_encode(labels, count, &b, NULL) == OK &&
              slice_equal(buf_slice(&b), slice_of(at, len));
    buf_close(&b);
    return is;
}

static void random_sets(void **state)
{
    struct test_random r = test_random_begin("random_sets");
    for (int round = 0; round < 2000; round++) {
        pool_reset(pool);
        size_t count = test_random_below(&r, 40);
        struct label labels[40], shuffled[40];
        for (size_t i = 0; i < count; i++) {
            char name[16], value[300];
            int name_len = snprintf(name, sizeof name, "n%02zu", i);
            size_t value_len = 1 + test_random_below(&r, 290);
            memset(value, 'a' + (int)test_random_below(&r, 26), value_len);
            assert_ok(pool_copy(pool, slice_of(name, (size_t)name_len), &labels[i].name));
            assert_ok(pool_copy(pool, slice_of(value, value_len), &labels[i].value));
            shuffled[i] = labels[i];
        }
        for (size_t i = count; i > 1; i--) {
            size_t other = test_random_below(&r, i);
            struct label swap = shuffled[i - 1];
            shuffled[i - 1] = shuffled[other];
            shuffled[other] = swap;
        }
        struct slice s = encode(labels, count);
        assert_true(slice_equal(s, encode(shuffled, count)));
        assert_ok(labels_check(s, NULL));
        struct reader walk = reader_of(s);
        struct label label;
        for (size_t i = 0; i < count; i++) {
            assert_true(labels_next(&walk, &label));
            assert_true(slice_equal(label.name, labels[i].name) && slice_equal(label.value, labels[i].value));
        }
        assert_false(labels_next(&walk, &label));
        assert_true(walk.ok);
        /* Broken bytes: exact-size copies, so that a sanitizer sees a step too far. */
        for (int i = 0; i < 5 && s.len > 0; i++) {
            size_t len = 1 + test_random_below(&r, s.len);
            uint8_t *broken = malloc(len);
            memcpy(broken, s.at, len);
            broken[test_random_below(&r, len)] ^= (uint8_t)(1u << test_random_below(&r, 8));
            assert_int_equal(labels_check(slice_of(broken, len), NULL) == OK, is_canonical(broken, len));
            labels_count(slice_of(broken, len));
            labels_get(slice_of(broken, len), slice_str("n03"));
            free(broken);
        }
    }
}

/* Names that differ early, late or by their length alone, bytes 0 among them: what is in order and what is not. */
static void order_of_names(void **state)
{
    static const uint8_t alphabet[] = { 0, 'a', 'b' };
    struct test_random r = test_random_begin("order_of_names");
    for (int round = 0; round < 20000; round++) {
        struct slice names[3];
        struct buf b = buf_open(pool, 1 << 20);
        bool ascend = true;
        for (size_t i = 0; i < 3; i++) {
            uint8_t name[12];
            size_t len = 1 + test_random_below(&r, sizeof name);
            for (size_t k = 0; k < len; k++)
                name[k] = alphabet[k < 7 && test_random_below(&r, 8) != 0 ? 1 : test_random_below(&r, 3)];
            assert_ok(pool_copy(pool, slice_of(name, len), &names[i]));
            ascend = ascend && (i == 0 || slice_compare(names[i - 1], names[i]) < 0);
            labels_put(&b, names[i], slice_str("v"));
        }
        assert_int_equal(labels_check(buf_slice(&b), NULL) == OK, ascend);
        buf_close(&b);
    }
}

static void order(void **state)
{
    struct label a[] = { pair("a", "1") }, ab[] = { pair("a", "1"), pair("b", "1") };
    struct label a2[] = { pair("a", "2") }, b[] = { pair("b", "0") };
    struct slice sets[] = { slice_of("", 0), encode(a, 1), encode(ab, 2), encode(a2, 1), encode(b, 1) };
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            int got = labels_compare(sets[i], sets[j]);
            assert_int_equal((got > 0) - (got < 0), (i > j) - (i < j));
        }
}

static void printing(void **state)
{
    struct {
        struct label labels[3];
        size_t count;
        const char *text;
    } rows[] = {
        { { pair("__name__", "up"), pair("job", "a\"b\n\x01") }, 2, "up{job=\"a\\\"b\\n\\x01\"}" },
        { { pair("__name__", "up") }, 1, "up" },
        { { pair("job", "a") }, 1, "{job=\"a\"}" },
        { { pair("__name__", "my.name"), pair("a.b", "\\") }, 2, "{\"my.name\", \"a.b\"=\"\\\\\"}" },
        { { pair("a", "1"), pair("b", "2") }, 2, "{a=\"1\", b=\"2\"}" },
        { { pair("", "") }, 0, "{}" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf b = buf_open(pool, 1 << 20);
        labels_print(encode(rows[i].labels, rows[i].count), &b);
        if (!slice_equal_str(buf_slice(&b), rows[i].text))
            fail_msg("%.*s, expected %s", SLICE_ARG(buf_slice(&b)), rows[i].text);
    }
}

/* Every sequence of up to three bytes, and four-byte edges, against the definition by code point. */
static bool utf8_naive(const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = at[i] < 0x80 ? 1 : at[i] >> 5 == 6 ? 2 : at[i] >> 4 == 14 ? 3 : at[i] >> 3 == 30 ? 4 : 0;
        if (n == 0 || i + n > len)
            return false;
        uint32_t point = n == 1 ? at[i] : at[i] & (0xffu >> (n + 1));
        for (size_t k = 1; k < n; k++) {
            if (at[i + k] >> 6 != 2)
                return false;
            point = point << 6 | (at[i + k] & 0x3f);
        }
        static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
        if (point < least[n] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
            return false;
        i += n;
    }
    return true;
}

static void utf8(void **state)
{
    uint8_t bytes[20];
    for (uint32_t v = 0; v < 1u << 24; v += v < 1u << 16 ? 1 : 7) {
        bytes[0] = (uint8_t)(v >> 16);
        bytes[1] = (uint8_t)(v >> 8);
        bytes[2] = (uint8_t)v;
        if (utf8_valid(slice_of(bytes, 3)) != utf8_naive(bytes, 3))
            fail_msg("%06x", v);
    }
    struct test_random r = test_random_begin("utf8");
    for (int i = 0; i < 1000000; i++) {
        memset(bytes, 'a', sizeof bytes);
        uint32_t v = (uint32_t)test_random_u64(&r) | 0x80000000u;
        size_t where = test_random_below(&r, 17);
        bytes[where] = (uint8_t)(0xf0 | (v & 7));
        for (int k = 1; k < 4; k++)
            bytes[where + (size_t)k] = (uint8_t)(0x80 | (v >> (8 * k) & 0x3f));
        if (utf8_valid(slice_of(bytes, sizeof bytes)) != utf8_naive(bytes, sizeof bytes))
            fail_msg("%08x at %zu", v, where);
    }
    assert_true(utf8_valid(slice_of("", 0)));
}

static void jump(void **state)
{
    struct test_random r = test_random_begin("jump");
    uint32_t counts[8] = { 0 };
    for (int i = 0; i < 80000; i++) {
        uint64_t key = test_random_u64(&r);
        uint32_t eight = jump_hash(key, 8), nine = jump_hash(key, 9);
        assert_true(nine == eight || nine == 8); /* a new bucket takes, the others keep */
        counts[eight]++;
        assert_int_equal(jump_hash(key, 1), 0);
    }
    for (int i = 0; i < 8; i++)
        assert_in_range(counts[i], 9500, 10500);
    /* Fixed for ever: where a series lives depends on it. */
    assert_int_equal(jump_hash(UINT64_C(10863919174838991), 11), 6);
    assert_int_equal(jump_hash(UINT64_C(0), 60), 0);
    assert_int_equal(jump_hash(UINT64_C(1), 60), 55);
    static const uint8_t key_a[16] = { 1 }, key_b[16] = { 2 };
    uint64_t seed = series_hasher_of(key_a, slice_str("x")).seed;
    assert_int_not_equal(seed, series_hasher_of(key_b, slice_str("x")).seed);
    assert_int_not_equal(seed, series_hasher_of(key_a, slice_str("y")).seed);
}

/* labels_order is a stable sort by labels_compare, for any mixture of runs. */
static void order_of_many(void **state)
{
    struct test_random r = test_random_begin("order of many");
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t count = (uint32_t)test_random_below(&r, 300), *order;
        struct slice sets[300];
        uint32_t run = 1 + (uint32_t)test_random_below(&r, 40), number = 0;
        for (uint32_t i = 0; i < count; i++) {
            char text[16];
            number = i % run == 0 ? (uint32_t)test_random_below(&r, 50) : number + 1;
            snprintf(text, sizeof text, "%03u", number);
            struct label one = pair("a", text);
            sets[i] = encode(&one, 1);
        }
        assert_ok(labels_order(sets, count, pool, &order));
        for (uint32_t i = 1; i < count; i++) {
            int compared = labels_compare(sets[order[i - 1]], sets[order[i]]);
            assert_true(compared < 0 || (compared == 0 && order[i - 1] < order[i]));
        }
    }
}

static void tenants(void **state)
{
    char long_name[TENANT_BYTES_MAX + 2];
    memset(long_name, 'a', sizeof long_name);
    assert_true(tenant_valid(slice_str("team-1_(x)!*.'")));
    assert_true(tenant_valid(slice_of(long_name, TENANT_BYTES_MAX)));
    assert_false(tenant_valid(slice_of(long_name, TENANT_BYTES_MAX + 1)));
    assert_false(tenant_valid(slice_str("")));
    assert_false(tenant_valid(slice_str(".")) || tenant_valid(slice_str("..")));
    assert_false(tenant_valid(slice_str("a/b")) || tenant_valid(slice_str("a|b")));
    assert_false(tenant_valid(slice_of("a\0b", 3)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tenants),     cmocka_unit_test(golden_bytes),
        cmocka_unit_test(refusals),    cmocka_unit_test(check_names_the_reason),
        cmocka_unit_test(random_sets), cmocka_unit_test(order_of_names),
        cmocka_unit_test(order),       cmocka_unit_test(order_of_many),
        cmocka_unit_test(printing),    cmocka_unit_test(utf8),
        cmocka_unit_test(jump),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
