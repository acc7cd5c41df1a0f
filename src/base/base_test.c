/* Floor 0: pools keep their budgets and undo refused charges, buffers stick to their maximum, readers
 * never pass the end, digits are those of the C library, CRC32C agrees with the published vector and with its
 * table form. */
#include "base/test.h"

#include "base/base64.h"
#include "base/buf.h"
#include "base/decimal.h"
#include "base/sha256.h"

#include <math.h>

static void pool_budget_holds(void **state)
{
    struct pool *root = pool_open(NULL, "root", 64 << 10);
    struct pool *child = pool_open(root, "child", POOL_BYTES_UNLIMITED);
    void *at = NULL;
    assert_err(ERR_LIMIT, pool_alloc(child, 65 << 10, &at));
    assert_int_equal(pool_used(root), 0);
    assert_ok(pool_alloc(child, 32 << 10, &at));
    assert_true(pool_used(root) >= 32 << 10);
    assert_err(ERR_LIMIT, pool_alloc(child, 32 << 10, &at));
    void *block = NULL;
    assert_ok(pool_block_resize(child, &block, 1000));
    assert_ok(pool_block_resize(child, &block, 100));
    pool_reset(child);
    pool_close(child);
    assert_int_equal(pool_used(root), 0);
    assert_ok(pool_zalloc(root, 0, &at)); /* of a pool without memory too: a pointer, to nothing */
    assert_non_null(at);
    pool_close(root);
}

static void pool_faults_are_injected(void **state)
{
    struct pool *root = pool_open(NULL, "root", POOL_BYTES_UNLIMITED);
    void *at;
    pool_fault_at(root, 2, false);
    assert_ok(pool_alloc(root, 8, &at));
    assert_err(ERR_LIMIT, pool_alloc(root, 8, &at));
    assert_ok(pool_alloc(root, 8, &at));
    pool_fault_at(root, 1, true);
    assert_err(ERR_LIMIT, pool_alloc(root, 8, &at));
    assert_err(ERR_LIMIT, pool_alloc(root, 8, &at));
    pool_close(root);
}

static void buf_sticks_to_its_maximum(void **state)
{
    struct pool *root = pool_open(NULL, "root", POOL_BYTES_UNLIMITED);
    struct buf b = buf_open(root, 100);
    for (int i = 0; i < 10; i++)
        buf_put(&b, "0123456789", 10);
    assert_ok(buf_err(&b));
    assert_int_equal(b.len, 100);
    buf_put_u8(&b, 1);
    assert_err(ERR_LIMIT, buf_err(&b));
    buf_clear(&b);
    buf_printf(&b, "%d", 42);
    assert_true(slice_equal_str(buf_slice(&b), "42"));
    buf_close(&b);
    pool_close(root);
}

static void integers_print(void **state)
{
    struct test_random random = test_random_begin("integers_print");
    for (int i = 0; i < 100000; i++) {
        uint64_t v = i < 12 ? (uint64_t)i : test_random_u64(&random) >> test_random_below(&random, 64);
        char text[DECIMAL_TEXT_BYTES_MAX + 1], expected[32];
        text[decimal_print(v, text)] = 0;
        snprintf(expected, sizeof expected, "%llu", (unsigned long long)v);
        assert_string_equal(text, expected);
    }
}

/* Digits of a text without point and leading zeros. */
static void strip(const char *text, char *out)
{
    for (; *text != 0; text++)
        if (*text != '.' && (*text != '0' || *out != 0)) {
            *out++ = *text;
            *out = 0;
        }
}

/* The digits of the first precision that comes back: the shortest, the nearest of its length. Where the library
 * leaves the choice (the interval of a power of two is lopsided) only that it comes back. */
static void assert_shortest(double v)
{
    char text[DECIMAL_TEXT_BYTES_MAX + 1], expected[40], digits[40] = "", expected_digits[40] = "";
    if (v == floor(v))
        return;
    size_t len = decimal_print_double(v, text);
    text[len] = 0;
    assert_true(len > 2 && strtod(text, NULL) == v);
    if ((double_bits(v) & ((UINT64_C(1) << 52) - 1)) == 0)
        return;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(expected, sizeof expected, "%.*e", precision, v);
        if (strtod(expected, NULL) == v)
            break;
    }
    expected[strcspn(expected, "e")] = 0;
    strip(expected, expected_digits);
    strip(text, digits);
    assert_string_equal(digits, expected_digits);
}

static void doubles_print_shortest(void **state)
{
    struct test_random random = test_random_begin("doubles_print_shortest");
    for (int i = 0; i < 30000; i++) {
        uint64_t mantissa = test_random_u64(&random) >> 12, exponent = test_random_below(&random, 90) + 986;
        uint64_t few = i % 2 == 0 ? 0 : (UINT64_C(1) << test_random_below(&random, 52)) - 1;
        assert_shortest(bits_double(exponent << 52 | (mantissa & ~few)));
        assert_shortest((double)test_random_below(&random, 1000000) / 1000);
        assert_shortest((double)test_random_below(&random, 1000) /
                        (double)(1 + test_random_below(&random, 99)));
    }
    const struct {
        double v;
        const char *text;
    } rows[] = { { 0.5, "0.5" },
                 { 0.1, "0.1" },
                 { 12.34, "12.34" },
                 { 0x1p-37, "0.000000000007275957614183426" },
                 { 4503599627370495.5, "4503599627370495.5" },
                 { 0.30000000000000004, "0.30000000000000004" },
                 { 1e-11, "0.00000000001" } };
    char text[DECIMAL_TEXT_BYTES_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(slice_equal_str(slice_of(text, decimal_print_double(rows[i].v, text)), rows[i].text));
    const double refused[] = { 0, -0.5, 1e-12, 0x1p53, __builtin_nan(""), __builtin_inf() };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_int_equal(decimal_print_double(refused[i], text), 0);
}

static void varints_round_trip(void **state)
{
    const uint64_t values[] = { 0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX, UINT64_MAX >> 1 };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        uint8_t bytes[VARINT_BYTES_MAX];
        size_t len = (size_t)(put_varint(bytes, values[i]) - bytes);
        struct reader r = reader_of(slice_of(bytes, len));
        assert_true(read_varint(&r) == values[i]);
        assert_true(r.ok && read_left(&r) == 0);
        for (size_t cut = 0; cut < len; cut++) {
            r = reader_of(slice_of(bytes, cut));
            assert_true(read_varint(&r) == 0);
            assert_false(r.ok);
        }
    }
    const uint8_t overlong[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02 };
    struct reader r = reader_of(slice_of(overlong, sizeof overlong));
    (void)read_varint(&r);
    assert_false(r.ok);
    assert_true(unzigzag(zigzag(INT64_MIN)) == INT64_MIN);
    assert_true(unzigzag(zigzag(-1)) == -1);
}

/* RFC 4648 §10, and what is no base64. */
static void base64_matches_vectors(void **state)
{
    static const char *const vectors[][2] = { { "", "" },
                                              { "f", "Zg==" },
                                              { "fo", "Zm8=" },
                                              { "foo", "Zm9v" },
                                              { "foob", "Zm9vYg==" },
                                              { "fooba", "Zm9vYmE=" },
                                              { "foobar", "Zm9vYmFy" } };
    uint8_t bytes[16];
    char text[BASE64_LEN(16) + 1];
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        size_t len = strlen(vectors[i][0]);
        assert_int_equal(base64_encode(slice_str(vectors[i][0]), text), BASE64_LEN(len));
        assert_string_equal(text, vectors[i][1]);
        assert_int_equal(base64_decode(slice_str(text), bytes, len), len);
        assert_memory_equal(bytes, vectors[i][0], len);
        assert_true(len == 0 || base64_decode(slice_str(text), bytes, len - 1) == -1);
    }
    static const uint8_t all[3] = { 0xfb, 0xff, 0xbf };
    assert_int_equal(base64_encode(slice_of(all, 3), text), 4);
    assert_string_equal(text, "+/+/");
    assert_int_equal(base64_decode(slice_str("Zm9"), bytes, 2), 2); /* not padded */
    assert_int_equal(base64_decode(slice_str("Zm-v"), bytes, 16), -1);
}

static void readers_go_bad_not_past_the_end(void **state)
{
    struct reader r = reader_of(slice_str("\x05"
                                          "abc"));
    struct slice s = read_string(&r);
    assert_int_equal(s.len, 0);
    assert_false(r.ok);
    assert_int_equal(read_le64(&r), 0);
    assert_int_equal(read_u8(&r), 0);
}

static void crc32c_matches_vectors(void **state)
{
    assert_int_equal(crc32c(slice_str("123456789"), 0), 0xe3069283); /* RFC 3720 appendix B.4 family */
    uint8_t bytes[10000];
    struct test_random random = test_random_begin("crc32c");
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)test_random_u64(&random);
    for (size_t len = 0; len < sizeof bytes; len += len < 64 ? 1 : 331) {
        struct slice s = slice_of(bytes, len);
        assert_int_equal(crc32c(s, 0), crc32c_portable(s, 0));
        struct slice a = slice_part(s, 0, len / 3), b = slice_part(s, len / 3, len - len / 3);
        assert_int_equal(crc32c(b, crc32c(a, 0)), crc32c(s, 0));
    }
}

/* Every length, every single flipped bit and every key give another hash; where the bytes lie does not matter. */
static void quick_hash_tells_apart(void **state)
{
    static uint8_t bytes[300], moved[301];
    uint64_t seen[300];
    struct hash_quick_key key = hash_quick_key_of(1), other = hash_quick_key_of(2);
    for (size_t len = 0; len < sizeof bytes; len++) { /* all zero: only the length differs */
        seen[len] = hash_quick(slice_of(bytes, len), &key);
        assert_true(seen[len] != hash_quick(slice_of(bytes, len), &other));
        for (size_t i = 0; i < len; i++)
            assert_true(seen[i] != seen[len]);
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 151);
    memcpy(moved + 1, bytes, sizeof bytes);
    for (size_t len = 1; len < sizeof bytes; len++) {
        uint64_t whole = hash_quick(slice_of(bytes, len), &key);
        assert_true(whole == hash_quick(slice_of(moved + 1, len), &key));
        for (size_t bit = 0; bit < 8 * len; bit++) {
            moved[1 + bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_true(whole != hash_quick(slice_of(moved + 1, len), &key));
            moved[1 + bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

static void sha256_matches_a_vector(void **state)
{
    const uint8_t expected[4] = { 0xba, 0x78, 0x16, 0xbf }; /* FIPS 180-4 "abc" */
    uint8_t digest[SHA256_BYTES];
    struct sha256 *s = sha256_open();
    sha256_add(s, slice_str("a"));
    sha256_add(s, slice_str("bc"));
    sha256_finish(s, digest);
    assert_memory_equal(digest, expected, sizeof expected);
}

/* RFC 4231 §4.2, §4.3 and §4.7 (a key longer than a block). */
static void hmac_matches_vectors(void **state)
{
    uint8_t key[131], out[SHA256_BYTES];
    char text[SHA256_HEX_BYTES];
    memset(key, 0x0b, 20);
    sha256_hmac(slice_of(key, 20), slice_str("Hi There"), out);
    sha256_print(out, text);
    assert_string_equal(text, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    sha256_hmac(slice_str("Jefe"), slice_str("what do ya want for nothing?"), out);
    sha256_print(out, text);
    assert_string_equal(text, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    sha256_hmac(slice_of(key, sizeof key),
                slice_str("Test Using Larger Than Block-Size Key - Hash Key First"), out);
    sha256_print(out, text);
    assert_string_equal(text, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_budget_holds),
        cmocka_unit_test(pool_faults_are_injected),
        cmocka_unit_test(buf_sticks_to_its_maximum),
        cmocka_unit_test(integers_print),
        cmocka_unit_test(doubles_print_shortest),
        cmocka_unit_test(varints_round_trip),
        cmocka_unit_test(readers_go_bad_not_past_the_end),
        cmocka_unit_test(base64_matches_vectors),
        cmocka_unit_test(crc32c_matches_vectors),
        cmocka_unit_test(quick_hash_tells_apart),
        cmocka_unit_test(sha256_matches_a_vector),
        cmocka_unit_test(hmac_matches_vectors),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
