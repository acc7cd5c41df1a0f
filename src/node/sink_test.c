/* Diagnostic lines: their exact form in both layouts, and the limit per message. Standard error is replaced by a
 * file while the sink writes. */
#include "base/test.h"

#include "base/stat.h"
#include "node/sink.h"

#include <stdio.h>
#include <string.h>

static struct io *io;
static struct pool *pool;
static char text[1 << 16];

/* What `lines` writes, in text; times are cut out. */
static void capture(bool is_json, void (*lines)(void))
{
    struct sink *sink;
    FILE *file = tmpfile(), *real = stderr;
    assert_non_null(file);
    stderr = file;
    err e = sink_open(io, pool, is_json, DIAG_INFO, &sink);
    if (e == OK) {
        lines();
        sink_close(sink);
    }
    stderr = real;
    assert_ok(e);
    rewind(file);
    size_t len = fread(text, 1, sizeof text - 1, file);
    text[len] = 0;
    fclose(file);
}

static void two_lines(void)
{
    diag(DIAG_WARN, "slow query", "tenant=a samples=%d query=\"up{a=\\\"b\\\"} > 1\"", 7);
    diag(DIAG_DEBUG, "not wanted", "%s", "");
    diag(DIAG_INFO, "stopped", "%s", "");
    diag(DIAG_ERROR, "line\nbreak", "path=a\nb");
}

static void logfmt(void **state)
{
    capture(false, two_lines);
    assert_memory_equal(text, "ts=20", 5);
    assert_non_null(strstr(text, "Z level=warn msg=\"slow query\" tenant=a samples=7 "
                                 "query=\"up{a=\\\"b\\\"} > 1\"\n"));
    assert_non_null(strstr(text, "Z level=info msg=\"stopped\"\n"));
    assert_non_null(strstr(text, "Z level=error msg=\"line break\" path=a b\n"));
    assert_null(strstr(text, "not wanted"));
}

static void json(void **state)
{
    capture(true, two_lines);
    assert_memory_equal(text, "{\"ts\":\"20", 9);
    assert_non_null(strstr(text,
                           "\",\"level\":\"warn\",\"msg\":\"slow query\",\"tenant\":\"a\",\"samples\":\"7\","
                           "\"query\":\"up{a=\\\"b\\\"} > 1\"}\n"));
    assert_non_null(strstr(text, "\",\"level\":\"info\",\"msg\":\"stopped\"}\n"));
}

static void many_lines(void)
{
    for (int i = 0; i < 1000; i++)
        diag(DIAG_WARN, "again and again", "i=%d", i);
    diag(DIAG_WARN, "something else", "%s", "");
}

static void one_message_is_limited(void **state)
{
    int64_t before = stat_get(STAT_DIAG_LINES_DROPPED);
    size_t lines = 0;
    capture(false, many_lines);
    for (const char *at = text; (at = strstr(at, "again and again")) != NULL; at++)
        lines++;
    assert_int_equal(lines, 20);
    assert_int_equal(stat_get(STAT_DIAG_LINES_DROPPED) - before, 980);
    assert_non_null(strstr(text, "something else"));
}

static void long_line(void)
{
    memset(text, 'x', 5000);
    diag(DIAG_WARN, "long", "a=\"%.5000s\"", text);
}

static void long_lines_are_cut(void **state)
{
    capture(true, long_line);
    size_t len = strlen(text);
    assert_true(len > 900 && len <= 4096);
    assert_string_equal(text + len - 2, "}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logfmt),
        cmocka_unit_test(json),
        cmocka_unit_test(one_message_is_limited),
        cmocka_unit_test(long_lines_are_cut),
    };
    if (io_open(".", &io) != OK)
        return 1;
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(pool);
    io_close(io);
    return failed;
}
