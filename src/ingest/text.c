/* Exposition text, line by line. See text.h.
 *
 * Bytes come from scraped targets and from import requests. Each line is one item: a sample, or a comment that
 * means something (HELP, TYPE, UNIT, EOF). Nothing is copied but strings with escapes.
 *
 * Where the two formats differ, OpenMetrics is the stricter one: single spaces, no empty lines, no other comments,
 * `# EOF` at the end, timestamps in seconds, exemplars. Quoted metric and label names are accepted in both.
 *
 * Invariants
 *  1. A raw newline always ends a line: in quotes it must be written \n. So one memchr bounds all work.
 *  2. Unescaped bytes never exceed the line's bytes, so scratch memory is reserved once per line and slices into
 *     it stay valid while the line is parsed. */
#include "ingest/text.h"

#include "base/check.h"
#include "base/time.h"
#include "shim/number.h"

#define LINE_BYTES_MAX (1u << 20)
#define NAME_LABEL     "__name__"

struct cursor {
    const uint8_t *begin; /* of the line */
    const uint8_t *at;
    const uint8_t *end;
    uint32_t line;
    enum text_format format;
    struct buf *scratch;
    struct err_at *where;
};

static err bad(const struct cursor *c, const char *what)
{
    return err_set_pos(c->where, c->line, (uint32_t)(c->at - c->begin) + 1, ERR_INPUT, "%s", what);
}

enum text_format text_format_of(struct slice content_type)
{
    static const char name[] = "application/openmetrics-text";
    size_t len = sizeof name - 1;
    if (content_type.len < len || !slice_equal_fold(slice_part(content_type, 0, len), name))
        return TEXT_PROMETHEUS;
    bool ends = content_type.len == len || content_type.at[len] == ';' || content_type.at[len] == ' ';
    return ends ? TEXT_OPENMETRICS : TEXT_PROMETHEUS;
}

err text_open(struct text_parser *parser, struct slice body, enum text_format format, struct pool *pool)
{
    void *labels;
    TRY(pool_alloc(pool, (LABEL_COUNT_MAX + 1 + TEXT_EXEMPLAR_LABEL_COUNT_MAX) * sizeof(struct label),
                   &labels));
    *parser = (struct text_parser){
        .body = body, .format = format, .labels = labels, .scratch = buf_open(pool, LINE_BYTES_MAX)
    };
    return OK;
}

void text_close(struct text_parser *parser) { buf_close(&parser->scratch); }

static bool more(const struct cursor *c) { return c->at < c->end; }
static bool next_is(const struct cursor *c, uint8_t byte) { return c->at < c->end && *c->at == byte; }

static bool take(struct cursor *c, uint8_t byte)
{
    if (!next_is(c, byte))
        return false;
    c->at++;
    return true;
}

static bool take_word(struct cursor *c, const char *word)
{
    struct slice rest = slice_of(c->at, (size_t)(c->end - c->at));
    if (!slice_starts(rest, slice_str(word)))
        return false;
    c->at += strlen(word);
    return true;
}

/* Any blanks in the text format; nothing in OpenMetrics, whose grammar has none where this is called. */
static void skip_blanks(struct cursor *c)
{
    while (c->format == TEXT_PROMETHEUS && more(c) && (*c->at == ' ' || *c->at == '\t'))
        c->at++;
}

/* What separates two fields: one space, or in the text format any blanks. */
static bool take_gap(struct cursor *c)
{
    const uint8_t *begin = c->at;
    if (c->format == TEXT_OPENMETRICS)
        return take(c, ' ');
    skip_blanks(c);
    return c->at > begin;
}

static bool is_name_byte(uint8_t c, bool first, bool colons)
{
    return (uint8_t)((c | 0x20) - 'a') < 26 || c == '_' || (colons && c == ':') ||
           (!first && (uint8_t)(c - '0') < 10);
}

static struct slice take_name(struct cursor *c, bool colons)
{
    const uint8_t *begin = c->at;
    while (more(c) && is_name_byte(*c->at, c->at == begin, colons))
        c->at++;
    return slice_of(begin, (size_t)(c->at - begin));
}

/* Copy s into scratch with \\, \n and (if quotes) \" replaced; other backslashes stay, as in Prometheus. */
static struct slice unescape(struct cursor *c, struct slice s, bool quotes)
{
    uint8_t *begin = c->scratch->at + c->scratch->len, *to = begin;
    check(s.len <= c->scratch->capacity - c->scratch->len);
    for (size_t i = 0; i < s.len; i++) {
        uint8_t byte = s.at[i];
        if (byte == '\\' && i + 1 < s.len) {
            uint8_t next = s.at[i + 1];
            if (next == '\\' || next == 'n' || (quotes && next == '"')) {
                byte = next == 'n' ? '\n' : next;
                i++;
            }
        }
        *to++ = byte;
    }
    c->scratch->len += (size_t)(to - begin);
    return slice_of(begin, (size_t)(to - begin));
}

/* A string in double quotes, at its opening one. */
static err take_quoted(struct cursor *c, struct slice *out_text)
{
    const uint8_t *opening = c->at;
    if (!take(c, '"'))
        return bad(c, "expected \"");
    const uint8_t *begin = c->at;
    bool escaped = false;
    while (more(c) && *c->at != '"') {
        if (*c->at == '\\') {
            escaped = true;
            c->at++;
            if (!more(c))
                break;
        }
        c->at++;
    }
    struct slice raw = slice_of(begin, (size_t)(c->at - begin));
    if (!take(c, '"')) {
        c->at = opening;
        return bad(c, "string without closing quote");
    }
    *out_text = escaped ? unescape(c, raw, true) : raw;
    return OK;
}

/* The inside of braces, behind the opening one, up to and including the closing one. A quoted string that is not
 * followed by = is the metric's name; out_name is NULL where that is not allowed. */
static err take_labels(struct cursor *c, struct label *labels, size_t count_max, size_t *out_count,
                       struct slice *out_name)
{
    size_t count = 0;
    for (bool first = true;; first = false) {
        skip_blanks(c);
        if (next_is(c, '}') && (first || c->format == TEXT_PROMETHEUS))
            break;
        struct label label;
        bool quoted = next_is(c, '"');
        if (quoted)
            TRY(take_quoted(c, &label.name));
        else
            label.name = take_name(c, false);
        if (label.name.len == 0)
            return bad(c, "expected a label name");
        skip_blanks(c);
        if (quoted && !next_is(c, '=')) {
            if (out_name == NULL || out_name->len != 0)
                return bad(c, "expected =");
            *out_name = label.name;
        } else {
            if (!take(c, '='))
                return bad(c, "expected =");
            skip_blanks(c);
            TRY(take_quoted(c, &label.value));
            if (count == count_max)
                return bad(c, "too many labels");
            labels[count++] = label;
        }
        skip_blanks(c);
        if (!take(c, ','))
            break;
    }
    if (!take(c, '}'))
        return bad(c, "expected , or }");
    *out_count = count;
    return OK;
}

static struct slice take_token(struct cursor *c)
{
    const uint8_t *begin = c->at;
    while (more(c) && *c->at != ' ' && *c->at != '\t')
        c->at++;
    return slice_of(begin, (size_t)(c->at - begin));
}

/* Whole numbers of few digits, which most values are, without the library. */
static bool parse_whole(struct slice s, double *out_v)
{
    if (s.len == 0 || s.len > 15)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t digit = (uint8_t)(s.at[i] - '0');
        if (digit > 9)
            return false;
        v = v * 10 + digit;
    }
    *out_v = (double)v;
    return true;
}

static err take_value(struct cursor *c, double *out_v)
{
    const uint8_t *begin = c->at;
    struct slice token = take_token(c);
    if (parse_whole(token, out_v) || (token.len > 0 && number_parse(token, false, out_v)))
        return OK;
    c->at = begin;
    return bad(c, "expected a number");
}

/* Milliseconds as an integer, or in OpenMetrics seconds as a float, cut to milliseconds as Prometheus does. */
static err take_time(struct cursor *c, int64_t *out_t_ms)
{
    const uint8_t *begin = c->at;
    struct slice token = take_token(c);
    if (c->format == TEXT_OPENMETRICS) {
        double seconds;
        if (token.len > 0 && number_parse(token, false, &seconds) &&
            seconds >= (double)(TIME_MS_MIN / 1000) && seconds <= (double)(TIME_MS_MAX / 1000)) {
            *out_t_ms = (int64_t)(seconds * 1000);
            return OK;
        }
        c->at = begin;
        return bad(c, "expected a time in seconds");
    }
    bool negative = token.len > 0 && token.at[0] == '-';
    int64_t t_ms = 0;
    size_t i = negative || (token.len > 0 && token.at[0] == '+') ? 1 : 0;
    bool ok = i < token.len;
    for (; i < token.len && ok; i++) {
        uint8_t digit = (uint8_t)(token.at[i] - '0');
        ok = digit <= 9 && !__builtin_mul_overflow(t_ms, 10, &t_ms) &&
             !__builtin_add_overflow(t_ms, digit, &t_ms);
    }
    c->at = ok ? c->at : begin;
    *out_t_ms = negative ? -t_ms : t_ms;
    return ok ? OK : bad(c, "expected a time in milliseconds");
}

static err parse_exemplar(struct cursor *c, struct text_item *item)
{
    if (!take_word(c, "# {"))
        return bad(c, "expected an exemplar");
    item->has_exemplar = true;
    TRY(take_labels(c, item->exemplar_labels, TEXT_EXEMPLAR_LABEL_COUNT_MAX, &item->exemplar_label_count,
                    NULL));
    if (!take_gap(c))
        return bad(c, "expected a value");
    TRY(take_value(c, &item->exemplar_value));
    if (!more(c))
        return OK;
    if (!take_gap(c))
        return bad(c, "expected a time");
    item->exemplar_has_time = true;
    return take_time(c, &item->exemplar_t_ms);
}

/* Step over the series text that the caller expects and the gap behind it. False: something else is there. */
static bool take_expected(struct cursor *c, struct slice expected)
{
    if (expected.len == 0 || (size_t)(c->end - c->at) <= expected.len || c->at[expected.len] != ' ' ||
        memcmp(c->at, expected.at, expected.len) != 0)
        return false;
    const uint8_t *begin = c->at;
    c->at += expected.len;
    take_gap(c);
    if (!next_is(c, '{'))
        return true;
    c->at = begin; /* "name {…": the text goes on */
    return false;
}

/* Labels, or for an expected series none, and the gap before the value. */
static err parse_series(struct cursor *c, struct text_parser *parser, struct text_item *item)
{
    const uint8_t *begin = c->at;
    struct slice name = take_name(c, true);
    const uint8_t *end = c->at;
    if (name.len > 0)
        skip_blanks(c);
    if (take(c, '{')) {
        TRY(take_labels(c, item->labels + 1, LABEL_COUNT_MAX, &item->label_count,
                        name.len > 0 ? NULL : &name));
        end = c->at;
        if (more(c) && *c->at != ' ' && *c->at != '\t' && c->format == TEXT_OPENMETRICS)
            return bad(c, "expected a space");
        take_gap(c);
    } else if (name.len > 0 && c->at == end && !take_gap(c)) {
        return bad(c, "expected a space or { after the metric name");
    }
    if (name.len == 0)
        return bad(c, "expected a metric name");
    item->series = slice_of(begin, (size_t)(end - begin));
    item->labels[0] = (struct label){ slice_str(NAME_LABEL), name };
    item->label_count++;
    return OK;
}

static err parse_sample(struct cursor *c, struct text_parser *parser, struct text_item *item)
{
    const uint8_t *begin = c->at;
    item->type = TEXT_SAMPLE;
    item->labels = parser->labels;
    item->exemplar_labels = parser->labels + LABEL_COUNT_MAX + 1;
    if (take_expected(c, parser->expected))
        item->series = slice_of(begin, parser->expected.len);
    else
        TRY(parse_series(c, parser, item));
    TRY(take_value(c, &item->value));
    if (!more(c))
        return OK;
    if (!take_gap(c))
        return bad(c, "expected a space");
    if (!more(c) && c->format == TEXT_PROMETHEUS)
        return OK;
    if (!next_is(c, '#') || c->format == TEXT_PROMETHEUS) {
        item->has_time = true;
        TRY(take_time(c, &item->t_ms));
        skip_blanks(c);
        if (!more(c))
            return OK;
        if (c->format == TEXT_PROMETHEUS || !take_gap(c))
            return bad(c, "expected the end of the line");
    }
    TRY(parse_exemplar(c, item));
    return more(c) ? bad(c, "expected the end of the line") : OK;
}

static enum metric_type type_of(struct slice word)
{
    if (slice_equal_str(word, "untyped"))
        return METRIC_UNKNOWN;
    for (unsigned i = 0; i < METRIC_TYPE_COUNT; i++)
        if (slice_equal_str(word, metric_type_text((enum metric_type)i)))
            return (enum metric_type)i;
    return METRIC_TYPE_COUNT;
}

/* The family and the rest of a HELP, TYPE or UNIT line, behind the word. */
static err parse_metadata(struct cursor *c, struct text_item *item)
{
    if (!take_gap(c))
        return bad(c, "expected a space");
    if (next_is(c, '"'))
        TRY(take_quoted(c, &item->family));
    else
        item->family = take_name(c, true);
    if (item->family.len == 0)
        return bad(c, "expected a metric name");
    if (more(c) && !take_gap(c))
        return bad(c, "expected a space");
    struct slice rest = slice_of(c->at, (size_t)(c->end - c->at));
    if (item->type == TEXT_TYPE) {
        const uint8_t *end = rest.at + rest.len;
        while (c->format == TEXT_PROMETHEUS && end > rest.at && (end[-1] == ' ' || end[-1] == '\t'))
            end--;
        rest.len = (size_t)(end - rest.at);
        item->metric_type = type_of(rest);
        return item->metric_type == METRIC_TYPE_COUNT ? bad(c, "unknown metric type") : OK;
    }
    if (!utf8_valid(rest))
        return bad(c, "not UTF-8");
    bool escaped = item->type == TEXT_HELP && rest.len > 0 && memchr(rest.at, '\\', rest.len) != NULL;
    item->text = escaped ? unescape(c, rest, c->format == TEXT_OPENMETRICS) : rest;
    return OK;
}

/* A line that begins with #. *out_is_item is false for what means nothing. */
static err parse_comment(struct cursor *c, struct text_parser *parser, struct text_item *item,
                         bool *out_is_item)
{
    const uint8_t *begin = c->at++;
    if (c->format == TEXT_OPENMETRICS &&
        slice_equal_str(slice_of(begin, (size_t)(c->end - begin)), "# EOF")) {
        parser->ended = true;
        return OK;
    }
    bool gap = take_gap(c);
    static const struct {
        const char *word;
        enum text_item_type type;
    } words[] = {
        { "HELP", TEXT_HELP },
        { "TYPE", TEXT_TYPE },
        { "UNIT", TEXT_UNIT },
    };
    for (size_t i = 0; gap && i < sizeof words / sizeof words[0]; i++) {
        if (words[i].type == TEXT_UNIT && c->format == TEXT_PROMETHEUS)
            continue;
        const uint8_t *back = c->at;
        if (take_word(c, words[i].word) && more(c) && (*c->at == ' ' || *c->at == '\t')) {
            item->type = words[i].type;
            *out_is_item = true;
            return parse_metadata(c, item);
        }
        c->at = back;
    }
    c->at = begin;
    return c->format == TEXT_OPENMETRICS ? bad(c, "unknown comment") : OK;
}

err text_next(struct text_parser *parser, struct text_item *out_item, struct err_at *at)
{
    while (parser->at < parser->body.len) {
        const uint8_t *begin = parser->body.at + parser->at;
        size_t left = parser->body.len - parser->at;
        const uint8_t *end = memchr(begin, '\n', left);
        size_t len = end == NULL ? left : (size_t)(end - begin);
        parser->at += len + (end != NULL);
        parser->line++;
        buf_clear(&parser->scratch);
        struct cursor c = { begin, begin, begin + len, parser->line, parser->format, &parser->scratch, at };
        if (parser->ended)
            return bad(&c, "bytes after # EOF");
        if (len > LINE_BYTES_MAX)
            return bad(&c, "line is longer than 1 MiB");
        if (memchr(begin, '\\', len) != NULL && buf_room(&parser->scratch, len) == NULL)
            return ERR_LIMIT;
        skip_blanks(&c);
        if (!more(&c)) {
            if (parser->format == TEXT_OPENMETRICS)
                return bad(&c, "empty line");
            continue;
        }
        struct text_item item = { .type = TEXT_SAMPLE };
        bool is_item = false;
        if (*c.at == '#') {
            TRY(parse_comment(&c, parser, &item, &is_item));
        } else {
            TRY(parse_sample(&c, parser, &item));
            is_item = true;
        }
        if (is_item) {
            *out_item = item;
            return OK;
        }
    }
    if (parser->format == TEXT_OPENMETRICS && !parser->ended) {
        parser->ended = true;
        return err_set_pos(at, parser->line + 1, 1, ERR_INPUT, "# EOF is missing");
    }
    return ERR_END;
}
