/* Goal: round trips of both faces of gzip, whole and in pieces; bombs and damage end in errors.
 * Method: random texts of many sizes, cut at random places. */
#include "base/test.h"

#include "codec/gzip.h"

static struct pool *root;

static struct slice random_text(struct test_random *r, size_t len)
{
    uint8_t *at;
    assert_ok(pool_alloc(root, len + 1, (void **)&at));
    for (size_t i = 0; i < len; i++)
        at[i] = i > 20 && test_random_below(r, 3) > 0 ? at[i - 1 - test_random_below(r, 20)]
                                                      : (uint8_t)test_random_u64(r);
    return slice_of(at, len);
}

static void test_round_trips(void **state)
{
    struct test_random r = test_random_begin("gzip round trips");
    for (int round = 0; round < 60; round++) {
        struct slice text = random_text(&r, test_random_below(&r, round % 4 == 0 ? 300000 : 2000));
        struct buf small = buf_open(root, 1 << 20), back = buf_open(root, text.len),
                   parts = buf_open(root, text.len);
        if (round % 2 == 0) {
            assert_ok(gzip_compress(text, 1 + round % 12, &small));
        } else {
            struct gzip_writer *writer;
            assert_ok(gzip_writer_open(root, 1 + round % 9, &writer));
            size_t cut = test_random_below(&r, text.len + 1);
            assert_ok(gzip_writer_add(writer, slice_part(text, 0, cut), false, &small));
            assert_ok(gzip_writer_add(writer, slice_part(text, cut, text.len - cut), true, &small));
            gzip_writer_close(writer);
        }
        assert_ok(gzip_decompress(buf_slice(&small), &back));
        assert_true(slice_equal(buf_slice(&back), text));

        struct gzip_reader *reader;
        assert_ok(gzip_reader_open(root, &reader));
        for (size_t at = 0; at < small.len;) {
            size_t len = 1 + test_random_below(&r, small.len - at);
            assert_false(gzip_reader_ended(reader));
            assert_ok(gzip_reader_add(reader, slice_of(small.at + at, len), &parts));
            at += len;
        }
        assert_true(gzip_reader_ended(reader));
        gzip_reader_close(reader);
        assert_true(slice_equal(buf_slice(&parts), text));
        buf_close(&small);
        buf_close(&back);
        buf_close(&parts);
        pool_reset(root);
    }
}

static void test_members_follow_each_other(void **state)
{
    struct buf two = buf_open(root, 1000), out = buf_open(root, 100);
    assert_ok(gzip_compress(slice_str("hello "), 6, &two));
    assert_ok(gzip_compress(slice_str("world"), 6, &two));
    assert_ok(gzip_decompress(buf_slice(&two), &out));
    assert_true(slice_equal_str(buf_slice(&out), "hello world"));
    buf_clear(&out);
    struct gzip_reader *reader;
    assert_ok(gzip_reader_open(root, &reader));
    assert_ok(gzip_reader_add(reader, buf_slice(&two), &out));
    assert_true(gzip_reader_ended(reader));
    assert_true(slice_equal_str(buf_slice(&out), "hello world"));
    gzip_reader_close(reader);
    buf_put_str(&two, "garbage");
    buf_clear(&out);
    assert_err(ERR_INPUT, gzip_decompress(buf_slice(&two), &out));
    buf_close(&two);
    buf_close(&out);
}

static void test_bomb(void **state)
{
    struct buf zeros = buf_open(root, 8 << 20), bomb = buf_open(root, 1 << 20), out = buf_open(root, 1 << 20);
    uint8_t *at = buf_room(&zeros, 8 << 20);
    assert_non_null(at);
    memset(at, 0, 8 << 20);
    zeros.len = 8 << 20;
    assert_ok(gzip_compress(buf_slice(&zeros), 6, &bomb));
    assert_err(ERR_LIMIT, gzip_decompress(buf_slice(&bomb), &out));
    /* a trailer that lies does not buy memory, nor does it hide the size */
    put_le32(bomb.at + bomb.len - 4, 10);
    buf_clear(&out);
    assert_err(ERR_LIMIT, gzip_decompress(buf_slice(&bomb), &out));
    struct gzip_reader *reader;
    assert_ok(gzip_reader_open(root, &reader));
    buf_clear(&out);
    assert_err(ERR_LIMIT, gzip_reader_add(reader, buf_slice(&bomb), &out));
    assert_true(out.len <= 1 << 20);
    gzip_reader_close(reader);
    buf_close(&zeros);
    buf_close(&bomb);
    buf_close(&out);
}

static void test_damage(void **state)
{
    struct test_random r = test_random_begin("gzip damage");
    struct slice text = random_text(&r, 3000);
    struct buf good = buf_open(root, 1 << 20), out = buf_open(root, 1 << 20);
    assert_ok(gzip_compress(text, 6, &good));
    for (size_t len = 0; len < good.len; len += 7) {
        buf_clear(&out);
        assert_err(ERR_INPUT, gzip_decompress(slice_of(good.at, len), &out));
        struct gzip_reader *reader;
        assert_ok(gzip_reader_open(root, &reader));
        buf_clear(&out);
        assert_ok(gzip_reader_add(reader, slice_of(good.at, len), &out));
        assert_false(gzip_reader_ended(reader));
        gzip_reader_close(reader);
    }
    for (int round = 0; round < 500; round++) {
        size_t at = 10 + test_random_below(&r, good.len - 10);
        uint8_t old = good.at[at];
        good.at[at] ^= (uint8_t)(1 + test_random_below(&r, 255));
        buf_clear(&out);
        err e = gzip_decompress(buf_slice(&good), &out);
        assert_true(e == ERR_INPUT || e == ERR_LIMIT);
        good.at[at] = old;
    }
    buf_clear(&out);
    assert_err(ERR_INPUT, gzip_decompress(slice_str("not gzip at all, but long enough"), &out));
    struct gzip_reader *reader;
    assert_ok(gzip_reader_open(root, &reader));
    assert_err(ERR_INPUT, gzip_reader_add(reader, slice_str("not gzip"), &out));
    gzip_reader_close(reader);
    buf_close(&good);
    buf_close(&out);
}

static void test_zlib(void **state)
{
    static const uint8_t hello[] = { 0x78, 0x9c, 0xcb, 0x48, 0xcd, 0xc9, 0xc9,
                                     0x07, 0x00, 0x06, 0x2c, 0x02, 0x15 };
    struct buf out = buf_open(root, 100);
    assert_ok(gzip_decompress_zlib(slice_of(hello, sizeof hello), &out));
    assert_true(slice_equal_str(buf_slice(&out), "hello"));
    assert_err(ERR_INPUT, gzip_decompress_zlib(slice_of(hello, sizeof hello - 1), &out));
    assert_err(ERR_INPUT, gzip_decompress_zlib(slice_of(hello, 0), &out));
    buf_close(&out);
    struct buf tight = buf_open(root, 4);
    assert_err(ERR_LIMIT, gzip_decompress_zlib(slice_of(hello, sizeof hello), &tight));
    buf_close(&tight);
}

int main(void)
{
    root = pool_open(NULL, "gzip_test", POOL_BYTES_UNLIMITED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_members_follow_each_other),
        cmocka_unit_test(test_bomb),        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_zlib),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(root);
    return failed;
}
