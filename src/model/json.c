/* The JSON writer. See json.h.
 *
 * Data comes from whoever answers in JSON, one call a token, and goes into the buf of an answer or of a chunk.
 *
 * Invariant: j->comma is true exactly when the next value or name must be preceded by a comma: set by
 * every complete value, cleared by an opening bracket and by a name. */
#include "model/json.h"

#include "base/decimal.h"
#include "model/labels.h"
#include "shim/number.h"

#include <math.h>

static void token(struct json *j)
{
    if (j->comma)
        buf_put_u8(j->out, ',');
}

void json_open(struct json *j, char bracket)
{
    token(j);
    buf_put_u8(j->out, (uint8_t)bracket);
    j->comma = false;
}

void json_close(struct json *j, char bracket)
{
    buf_put_u8(j->out, (uint8_t)bracket);
    j->comma = true;
}

struct json *json_key(struct json *j, const char *name)
{
    token(j);
    buf_put_u8(j->out, '"');
    buf_put_str(j->out, name);
    buf_put(j->out, "\":", 2);
    j->comma = false;
    return j;
}

static void put_escape(struct buf *out, uint8_t c)
{
    switch (c) {
    case '"':
        buf_put(out, "\\\"", 2);
        return;
    case '\\':
        buf_put(out, "\\\\", 2);
        return;
    case '\n':
        buf_put(out, "\\n", 2);
        return;
    case '\r':
        buf_put(out, "\\r", 2);
        return;
    case '\t':
        buf_put(out, "\\t", 2);
        return;
    default:
        buf_printf(out, "\\u%04x", c);
        return;
    }
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Eight bytes of which each is plain ASCII: none below 0x20, from 0x80 on, a quote or a backslash. A byte that
 * subtraction takes below 0 has its high bit set then; what it borrows can only add false alarms. */
static bool eight_plain(const uint8_t *at)
{
    uint64_t x = get_le64(at), quote = x ^ EACH('"'), slash = x ^ EACH('\\');
    return ((x | (x - EACH(0x20)) | (quote - EACH(1)) | (slash - EACH(1))) & EACH(0x80)) == 0;
}

static void put_quoted(struct buf *out, struct slice text)
{
    if (text.len == 0)
        return buf_put(out, "\"\"", 2);
    const uint8_t *at = text.at, *end = text.at + text.len, *plain = at;
    buf_put_u8(out, '"');
    while (at < end) {
        if (end - at >= 8 && eight_plain(at)) {
            at += 8;
            continue;
        }
        uint8_t c = *at;
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            at++;
            continue;
        }
        size_t len = utf8_sequence(at, end);
        if (c >= 0x80 && len != 0) {
            at += len;
            continue;
        }
        buf_put(out, plain, (size_t)(at - plain));
        if (c >= 0x80)
            buf_put_str(out, "\xef\xbf\xbd");
        else
            put_escape(out, c);
        plain = ++at;
    }
    buf_put(out, plain, (size_t)(at - plain));
    buf_put_u8(out, '"');
}

struct json *json_key_slice(struct json *j, struct slice name)
{
    token(j);
    put_quoted(j->out, name);
    buf_put_u8(j->out, ':');
    j->comma = false;
    return j;
}

void json_string(struct json *j, struct slice text)
{
    token(j);
    put_quoted(j->out, text);
    j->comma = true;
}

void json_str(struct json *j, const char *text) { json_string(j, slice_str(text)); }

/* A token that is written as it is. */
static void put_plain(struct json *j, const char *text, size_t len)
{
    token(j);
    buf_put(j->out, text, len);
    j->comma = true;
}

void json_bool(struct json *j, bool value)
{
    if (value)
        put_plain(j, "true", 4);
    else
        put_plain(j, "false", 5);
}

void json_null(struct json *j) { put_plain(j, "null", 4); }

void json_uint(struct json *j, uint64_t value)
{
    char text[DECIMAL_TEXT_BYTES_MAX];
    put_plain(j, text, decimal_print(value, text));
}

void json_int(struct json *j, int64_t value)
{
    char text[DECIMAL_TEXT_BYTES_MAX + 1] = "-";
    size_t len = decimal_print(value < 0 ? 0 - (uint64_t)value : (uint64_t)value, text + 1);
    put_plain(j, value < 0 ? text : text + 1, value < 0 ? len + 1 : len);
}

void json_seconds(struct json *j, double seconds)
{
    if (!isfinite(seconds))
        seconds = 0;
    char text[NUMBER_TEXT_BYTES_MAX];
    /* Nanoseconds are what our clocks count; more digits would be noise of the division. */
    size_t len = number_print_fixed(round(seconds * 1e9) / 1e9, text);
    put_plain(j, text, len);
}

void json_value(struct json *j, double value)
{
    char text[NUMBER_TEXT_BYTES_MAX + 2];
    text[0] = '"';
    size_t len = number_print_json(value, text + 1);
    text[len + 1] = '"';
    put_plain(j, text, len + 2);
}

#define TIME_TEXT_BYTES_MAX (DECIMAL_TEXT_BYTES_MAX + 8)

/* Milliseconds as seconds; returns the length. */
static size_t print_time(int64_t t_ms, char out[TIME_TEXT_BYTES_MAX])
{
    uint64_t ms = t_ms < 0 ? 0 - (uint64_t)t_ms : (uint64_t)t_ms, fraction = ms % 1000;
    char *to = out;
    if (t_ms < 0)
        *to++ = '-';
    to += decimal_print(ms / 1000, to);
    if (fraction != 0) {
        *to++ = '.';
        *to++ = (char)('0' + fraction / 100);
        *to++ = (char)('0' + fraction / 10 % 10);
        *to++ = (char)('0' + fraction % 10);
    }
    return (size_t)(to - out);
}

void json_time(struct json *j, int64_t t_ms)
{
    char text[TIME_TEXT_BYTES_MAX];
    put_plain(j, text, print_time(t_ms, text));
}

void json_point(struct json *j, int64_t t_ms, double value)
{
    char *begin = (char *)buf_room(j->out, TIME_TEXT_BYTES_MAX + NUMBER_TEXT_BYTES_MAX + 6), *to = begin;
    if (begin == NULL)
        return;
    if (j->comma)
        *to++ = ',';
    *to++ = '[';
    to += print_time(t_ms, to);
    *to++ = ',';
    *to++ = '"';
    to += number_print_json(value, to);
    *to++ = '"';
    *to++ = ']';
    j->out->len += (size_t)(to - begin);
    j->comma = true;
}

void json_labels(struct json *j, struct slice labels)
{
    struct reader r = reader_of(labels);
    struct label label;
    json_open(j, '{');
    while (labels_next(&r, &label))
        json_string(json_key_slice(j, label.name), label.value);
    json_close(j, '}');
}
