/* Diagnostics to standard error. See sink.h.
 *
 * A line comes from diag() in any thread as a sentence and "key=value key2="quoted value"" fields, and leaves
 * as one write:
 *     ts=2026-01-31T12:00:00.000Z level=warn msg="slow query" tenant=default query="up"
 *     {"ts":"2026-01-31T12:00:00.000Z","level":"warn","msg":"slow query","tenant":"default","query":"up"}
 *
 * Invariant: of one message (compared as text) at most LINES_MAX lines leave in WINDOW_NS; the first line of
 * the next window says how many were dropped. A full table forgets its oldest window. */
#include "node/sink.h"

#include "base/hash.h"
#include "base/stat.h"
#include "base/time.h"
#include "io/thread.h"

#include <stdio.h>
#include <string.h>

#define MESSAGE_COUNT_MAX 256
#define LINES_MAX         20
#define WINDOW_NS         (10 * NS_PER_SECOND)
#define LINE_BYTES_MAX    4096

struct window {
    uint64_t message_hash; /* 0 = free */
    int64_t begin_ns;
    uint32_t lines;
    uint32_t dropped;
};

struct sink {
    struct io *io;
    bool is_json;
    struct io_mutex mutex;
    struct window windows[MESSAGE_COUNT_MAX];
};

static const char *level_text(enum diag_level level)
{
    switch (level) {
    case DIAG_DEBUG:
        return "debug";
    case DIAG_INFO:
        return "info";
    case DIAG_WARN:
        return "warn";
    default:
        return "error";
    }
}

/* The window of a message; the oldest one is taken over when the table is full. */
static struct window *find_window(struct sink *sink, uint64_t hash)
{
    struct window *oldest = &sink->windows[0];
    for (size_t i = 0; i < MESSAGE_COUNT_MAX; i++) {
        struct window *window = &sink->windows[i];
        if (window->message_hash == hash)
            return window;
        if (window->message_hash == 0) {
            window->message_hash = hash;
            return window;
        }
        if (window->begin_ns < oldest->begin_ns)
            oldest = window;
    }
    *oldest = (struct window){ .message_hash = hash };
    return oldest;
}

/* May this line leave? *out_dropped: lines of the message lost in the window before. */
static bool admit(struct sink *sink, const char *message, uint32_t *out_dropped)
{
    int64_t now_ns = io_monotonic_ns(sink->io);
    struct window *window = find_window(sink, hash64(slice_str(message), 0) | 1);
    *out_dropped = 0;
    if (window->begin_ns == 0 || now_ns - window->begin_ns > WINDOW_NS) {
        *out_dropped = window->dropped;
        window->begin_ns = now_ns;
        window->lines = window->dropped = 0;
    }
    if (window->lines < LINES_MAX) {
        window->lines++;
        return true;
    }
    window->dropped++;
    stat_add(STAT_DIAG_LINES_DROPPED, 1);
    return false;
}

struct line {
    char at[LINE_BYTES_MAX];
    size_t len;
};

/* What does not fit is cut; 2 bytes stay free for the end. */
static void put(struct line *line, const char *text, size_t len)
{
    size_t room = LINE_BYTES_MAX - 2 - line->len;
    if (len > room)
        len = room;
    memcpy(line->at + line->len, text, len);
    line->len += len;
}

static void put_str(struct line *line, const char *text) { put(line, text, strlen(text)); }

static void put_quoted(struct line *line, const char *text, size_t len)
{
    put(line, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            put(line, "\\", 1);
        if (c < 0x20)
            put(line, " ", 1);
        else
            put(line, &text[i], 1);
    }
    put(line, "\"", 1);
}

/* "key=value key2="a \"b\"" " as JSON members. A piece without '=' is skipped. */
static void put_json_fields(struct line *line, const char *at)
{
    while (*at != 0) {
        at += strspn(at, " ");
        size_t key_len = strcspn(at, "= ");
        if (at[key_len] != '=' || key_len == 0) {
            at += key_len;
            continue;
        }
        put(line, ",", 1);
        put_quoted(line, at, key_len);
        put(line, ":", 1);
        at += key_len + 1;
        if (*at != '"') {
            size_t len = strcspn(at, " ");
            put_quoted(line, at, len);
            at += len;
            continue;
        }
        const char *end = at + 1; /* quoted already, with the escapes that JSON has, too */
        while (*end != 0 && *end != '"' && !(*end == '\\' && end[1] == 0)) /* a cut escape is left out */
            end += *end == '\\' ? 2 : 1;
        put(line, at, (size_t)(end - at));
        put(line, "\"", 1);
        at = *end != 0 ? end + 1 : end;
    }
}

static void compose(struct line *line, bool is_json, const char *time, enum diag_level level,
                    const char *message, const char *fields, uint32_t dropped)
{
    char count[32];
    snprintf(count, sizeof count, "%u", dropped);
    put_str(line, is_json ? "{\"ts\":\"" : "ts=");
    put_str(line, time);
    put_str(line, is_json ? "\",\"level\":\"" : " level=");
    put_str(line, level_text(level));
    put_str(line, is_json ? "\",\"msg\":" : " msg=");
    put_quoted(line, message, strlen(message));
    if (is_json) {
        put_json_fields(line, fields);
    } else if (fields[0] != 0) {
        put(line, " ", 1);
        for (const char *c = fields; *c != 0; c++) /* a line is a line, whatever a name contains */
            put(line, (unsigned char)*c < 0x20 ? " " : c, 1);
    }
    if (dropped > 0) {
        put_str(line, is_json ? ",\"dropped_before\":\"" : " dropped_before=");
        put_str(line, count);
        if (is_json)
            put(line, "\"", 1);
    }
    if (is_json)
        line->at[line->len++] = '}';
    line->at[line->len++] = '\n';
}

static void sink_line(void *context, enum diag_level level, const char *message, const char *fields)
{
    struct sink *sink = context;
    struct line line = { .len = 0 };
    char time[TIME_TEXT_BYTES];
    uint32_t dropped;
    time_print(io_now_ms(sink->io), time);

    io_mutex_lock(&sink->mutex);
    if (admit(sink, message, &dropped)) {
        compose(&line, sink->is_json, time, level, message, fields, dropped);
        fwrite(line.at, 1, line.len, stderr);
        fflush(stderr);
    }
    io_mutex_unlock(&sink->mutex);
}

err sink_open(struct io *io, struct pool *pool, bool is_json, enum diag_level min_level,
              struct sink **out_sink)
{
    void *room;
    TRY(pool_zalloc(pool, sizeof(struct sink), &room));
    struct sink *sink = room;
    sink->io = io;
    sink->is_json = is_json;
    io_mutex_init(&sink->mutex);
    diag_set_sink(sink_line, sink, min_level);
    *out_sink = sink;
    return OK;
}

void sink_set_level(struct sink *sink, enum diag_level min_level)
{
    diag_set_sink(sink_line, sink, min_level);
}

void sink_close(struct sink *sink)
{
    if (sink == NULL)
        return;
    diag_set_sink(NULL, NULL, DIAG_ERROR);
    io_mutex_done(&sink->mutex);
}
