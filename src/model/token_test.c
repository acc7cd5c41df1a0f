/* Goal: a token tells what was written, several tell the highest of each, one that is too long asks for
 * everything, and nothing else is taken: not another cluster's, not a damaged one, whatever its lengths say. */
#include "base/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "model/token.h"

#define COUNT 128

static const uint8_t cluster[16] = { 1, 2, 3 }, another[16] = { 1, 2, 4 };

static err read_text(const char *text, uint64_t *ends, bool *out_all)
{
    struct err_at at;
    return token_read(token_seed(cluster), slice_str(text), COUNT, ends, out_all, &at);
}

/* Written and read again. */
static void assert_kept(const uint64_t *ends)
{
    char text[TOKEN_LEN_MAX + 1];
    uint64_t back[COUNT] = { 0 };
    bool all = false;
    size_t len = token_write(token_seed(cluster), ends, COUNT, text);
    assert_true(len > 0 && len <= TOKEN_LEN_MAX && len == strlen(text));
    assert_ok(read_text(text, back, &all));
    assert_memory_equal(back, ends, sizeof back);
    assert_false(all);
}

static void what_was_written_is_told(void **state)
{
    uint64_t ends[COUNT] = { 0 };
    char text[TOKEN_LEN_MAX + 1];
    assert_int_equal(token_write(token_seed(cluster), ends, COUNT, text), 0);
    assert_string_equal(text, "");
    ends[0] = 1;
    assert_kept(ends);
    ends[COUNT - 1] = UINT64_MAX - 1;
    assert_kept(ends);
    for (int round = 0; round < 1000; round++) {
        memset(ends, 0, sizeof ends);
        for (int i = rand() % 40; i >= 0; i--)
            ends[rand() % COUNT] = 1 + ((uint64_t)rand() << rand() % 20);
        assert_kept(ends);
    }
    for (int p = 0; p < COUNT; p++)
        ends[p] = UINT64_C(30000000000) + (uint64_t)p; /* five bytes each */
    assert_kept(ends);
}

static void several_tell_the_highest(void **state)
{
    uint64_t first[COUNT] = { 7, 9 }, second[COUNT] = { 8, 2, 5 }, back[COUNT] = { 0, 0, 0, 4 };
    char text[2 * TOKEN_LEN_MAX + 8];
    bool all = false;
    size_t len = token_write(token_seed(cluster), first, COUNT, text);
    memcpy(text + len, " , ", 3);
    token_write(token_seed(cluster), second, COUNT, text + len + 3);
    assert_ok(read_text(text, back, &all));
    assert_true(back[0] == 8 && back[1] == 9 && back[2] == 5 && back[3] == 4 && !all);
    assert_ok(read_text("", back, &all));
    assert_ok(read_text(" ,", back, &all));
}

static void what_is_too_long_asks_for_all(void **state)
{
    static uint64_t ends[1024], back[1024];
    char text[TOKEN_LEN_MAX + 1];
    bool all = false;
    for (uint32_t p = 0; p < 1024; p++)
        ends[p] = 1 + p;
    assert_true(token_write(token_seed(cluster), ends, 1024, text) > 0);
    struct err_at at;
    assert_ok(token_read(token_seed(cluster), slice_str(text), 1024, back, &all, &at));
    assert_true(all && back[0] == 0);
}

/* A token of these bytes, right but for what they say. */
static err read_made_up(uint8_t version, uint8_t kind, const uint8_t *body, size_t len)
{
    uint8_t bytes[600] = { version, kind };
    char text[BASE64_LEN(600) + 1];
    uint64_t ends[COUNT] = { 0 };
    bool all = false;
    memcpy(bytes + 6, body, len);
    put_le32(bytes + 2, crc32c(slice_of(bytes + 6, len), token_seed(cluster) ^ kind));
    base64_encode(slice_of(bytes, len + 6), text);
    return read_text(text, ends, &all);
}

static void nothing_else_is_taken(void **state)
{
    uint64_t ends[COUNT] = { 300, 2 }, back[COUNT];
    char text[TOKEN_LEN_MAX + 1], other[TOKEN_LEN_MAX + 1];
    bool all = false;
    size_t len = token_write(token_seed(cluster), ends, COUNT, text);
    for (size_t i = 0; i < len && text[i] != '='; i++) {
        memcpy(other, text, sizeof other);
        other[i] = other[i] == 'A' ? 'B' : 'A';
        if (read_text(other, back, &all) == OK)
            assert_memory_equal(text, other, i); /* the bits that nobody reads, of the last character */
        other[i] = 0;
        if (i > 0)
            assert_err(ERR_INPUT, read_text(other, back, &all));
    }
    token_write(token_seed(another), ends, COUNT, other);
    assert_err(ERR_INPUT, read_text(other, back, &all));
    assert_err(ERR_INPUT, read_text("hello", back, &all));
    assert_ok(read_made_up(1, 1, (uint8_t[]){ 127, 1, 5 }, 3));
    assert_err(ERR_INPUT, read_made_up(2, 1, (uint8_t[]){ 127, 1, 5 }, 3));
    assert_err(ERR_INPUT, read_made_up(1, 3, (uint8_t[]){ 127, 1, 5 }, 3));
    assert_err(ERR_INPUT, read_made_up(1, 1, (uint8_t[]){ 127, 2, 5, 5 }, 4)); /* beyond the last partition */
    assert_err(ERR_INPUT, read_made_up(1, 1, (uint8_t[]){ 0x80, 1, 1, 5 }, 4));
    assert_err(ERR_INPUT, read_made_up(1, 1, (uint8_t[]){ 1, 0 }, 2));    /* a run of none */
    assert_err(ERR_INPUT, read_made_up(1, 1, (uint8_t[]){ 1, 2, 5 }, 3)); /* cut */
    uint8_t never[12] = { 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1 };
    assert_err(ERR_INPUT, read_made_up(1, 1, never, 12));
    never[2] = 0xfe;
    assert_ok(read_made_up(1, 1, never, 12));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_told),
        cmocka_unit_test(several_tell_the_highest),
        cmocka_unit_test(what_is_too_long_asks_for_all),
        cmocka_unit_test(nothing_else_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
