/* Answers of an S3 store: headers and XML → structs. From: s3_transport.c and s3_request.c. To: the driver.
 *
 *   body ─ expat: start, text, end ─ stack of names ─ field of the answer
 *
 * Invariants
 * 1. Input bytes, depth, entries and the length of each value are bounded; a document type, and with it every
 *    entity of the store's own, ends the parse.
 * 2. An element counts only at its place: <Key> is one only inside <Contents> inside <ListBucketResult>.
 * 3. Texts that are shown to people hold printable ASCII only. */
#include "blob/s3_answer.h"

#include <expat.h>
#include <stdio.h>

#include "base/check.h"
#include "base/time.h"

#define NAME_BYTES_MAX 40 /* the longest that matters has 29 */
#define SHOWN_BYTES    200

struct parse {
    XML_Parser expat;
    struct pool *pool;
    struct s3_answer *answer;
    size_t depth;
    char names[S3_ANSWER_DEPTH_MAX][NAME_BYTES_MAX];
    char text[S3_VALUE_BYTES_MAX];
    size_t text_len;
    bool is_too_long; /* the text of this element */
    bool is_encoded;  /* keys are, as asked for */
    bool has_end;     /* IsTruncated is true or false */
    err failed;
};

/* ---- times and numbers ---- */

/* Days since 1970-01-01 of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = year / 400;
    unsigned of_era = (unsigned)(year - era * 400);
    unsigned of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool digits(struct slice s, size_t from, size_t count, unsigned *out)
{
    unsigned v = 0;
    if (s.len < from + count)
        return false;
    for (size_t i = from; i < from + count; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
        v = v * 10 + (s.at[i] - '0');
    }
    *out = v;
    return true;
}

struct moment {
    unsigned year, month, day, hour, minute, second;
};

static bool moment_ms(const struct moment *m, int64_t *out_ms)
{
    if (m->year < 1970 || m->month < 1 || m->month > 12 || m->day < 1 || m->day > 31 || m->hour > 23 ||
        m->minute > 59 || m->second > 60)
        return false;
    *out_ms = days_of(m->year, m->month, m->day) * MS_PER_DAY + m->hour * MS_PER_HOUR +
              m->minute * MS_PER_MINUTE + m->second * MS_PER_SECOND;
    return true;
}

/* What stands between the seconds and the end: nothing, or a fraction, which is not counted. */
static bool is_fraction(struct slice s)
{
    for (size_t i = 1; i < s.len; i++)
        if (s.at[i] < '0' || s.at[i] > '9')
            return false;
    return s.len == 0 || (s.at[0] == '.' && s.len > 1);
}

bool s3_time_parse(struct slice s, int64_t *out_ms)
{
    struct moment m;
    return s.len >= 20 && is_fraction(slice_part(s, 19, s.len - 20)) && s.at[4] == '-' && s.at[7] == '-' &&
           s.at[10] == 'T' && s.at[13] == ':' && s.at[16] == ':' && s.at[s.len - 1] == 'Z' &&
           digits(s, 0, 4, &m.year) && digits(s, 5, 2, &m.month) && digits(s, 8, 2, &m.day) &&
           digits(s, 11, 2, &m.hour) && digits(s, 14, 2, &m.minute) && digits(s, 17, 2, &m.second) &&
           moment_ms(&m, out_ms);
}

bool s3_http_date_parse(struct slice s, int64_t *out_ms)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct moment m = { 0 };
    if (s.len != 29 || s.at[25] != ' ' || !digits(s, 5, 2, &m.day) || !digits(s, 12, 4, &m.year) ||
        !digits(s, 17, 2, &m.hour) || !digits(s, 20, 2, &m.minute) || !digits(s, 23, 2, &m.second))
        return false;
    for (unsigned i = 0; i < 12; i++)
        if (memcmp(s.at + 8, months + 3 * (size_t)i, 3) == 0)
            m.month = i + 1;
    return moment_ms(&m, out_ms);
}

/* Decimal digits up to `end` of s, from *at on, which moves behind them. False: none, or too many. */
static bool number(struct slice s, size_t *at, int64_t *out)
{
    size_t begin = *at;
    int64_t v = 0;
    for (; *at < s.len && s.at[*at] >= '0' && s.at[*at] <= '9'; (*at)++) {
        if (v > (INT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (s.at[*at] - '0');
    }
    *out = v;
    return *at > begin;
}

/* ---- headers ---- */

void s3_response_init(struct s3_response *out)
{
    *out = (struct s3_response){ .content_bytes = -1,
                                 .range_first = -1,
                                 .range_last = -1,
                                 .range_bytes = -1,
                                 .retry_after_ms = -1,
                                 .date_ms = -1 };
}

static void take_range(struct s3_response *r, struct slice value)
{
    static const char unit[] = "bytes ";
    size_t at = sizeof unit - 1;
    int64_t first, last, bytes;
    if (!slice_starts(value, slice_str(unit)) || !number(value, &at, &first) || at >= value.len ||
        value.at[at++] != '-' || !number(value, &at, &last) || at >= value.len || value.at[at++] != '/' ||
        !number(value, &at, &bytes) || at != value.len || first > last || last >= bytes)
        return;
    r->range_first = first;
    r->range_last = last;
    r->range_bytes = bytes;
}

static void take_text(struct slice value, char *out, size_t out_bytes)
{
    out[0] = 0;
    if (value.len >= out_bytes)
        return;
    for (size_t i = 0; i < value.len; i++)
        if (value.at[i] <= ' ' || value.at[i] > '~')
            return;
    memcpy(out, value.at, value.len);
    out[value.len] = 0;
}

/* Exactly out_bytes - 1 hexadecimal digits, in lower case as we write them. */
static void take_digits(struct slice value, char *out, size_t out_bytes)
{
    take_text(value, out, out_bytes);
    if (strlen(out) != out_bytes - 1 || strspn(out, "0123456789abcdef") != out_bytes - 1)
        out[0] = 0;
}

/* A whole number in value; -1 when it is none. */
static int64_t whole_number(struct slice value)
{
    size_t at = 0;
    int64_t v;
    return number(value, &at, &v) && at == value.len ? v : -1;
}

void s3_response_header(struct s3_response *r, struct slice name, struct slice value)
{
    int64_t v;
    if (name.len == 0) {
        unsigned status = r->status;
        s3_response_init(r);
        r->status = status;
    } else if (slice_equal_fold(name, "content-length")) {
        r->content_bytes = whole_number(value);
    } else if (slice_equal_fold(name, "content-range")) {
        take_range(r, value);
    } else if (slice_equal_fold(name, "etag")) {
        take_text(value, r->etag, sizeof r->etag);
    } else if (slice_equal_fold(name, S3_META_SHA256)) {
        take_digits(value, r->sha256, sizeof r->sha256);
    } else if (slice_equal_fold(name, S3_META_PUT)) {
        take_digits(value, r->put_id, sizeof r->put_id);
    } else if (slice_equal_fold(name, "x-amz-bucket-region")) {
        take_text(value, r->region, sizeof r->region);
    } else if (slice_equal_fold(name, "retry-after")) {
        v = whole_number(value); /* the form with a date is as good as none */
        r->retry_after_ms = v < 0 ? -1 : (v < 3600 ? v : 3600) * MS_PER_SECOND;
    } else if (slice_equal_fold(name, "date")) {
        r->date_ms = s3_http_date_parse(value, &v) ? v : -1;
    }
}

/* ---- XML ---- */

static void fail(struct parse *p, err e)
{
    if (p->failed == OK)
        p->failed = e;
    XML_StopParser(p->expat, XML_FALSE);
}

static const struct {
    const char *name;
    enum s3_answer_kind kind;
    const char *entry; /* the element of an item */
} roots[] = {
    { "Error", S3_ANSWER_ERROR, NULL },
    { "ListBucketResult", S3_ANSWER_LIST, "Contents" },
    { "ListMultipartUploadsResult", S3_ANSWER_UPLOADS, "Upload" },
    { "InitiateMultipartUploadResult", S3_ANSWER_INITIATED, NULL },
    { "CompleteMultipartUploadResult", S3_ANSWER_COMPLETED, NULL },
};

static void begin_root(struct parse *p, const char *name)
{
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++)
        if (strcmp(roots[i].name, name) == 0) {
            p->answer->kind = roots[i].kind;
            return;
        }
    fail(p, ERR_INPUT);
}

static bool is_in_item(const struct parse *p)
{
    const char *entry = roots[p->answer->kind].entry;
    return p->depth == 3 && entry != NULL && strcmp(p->names[1], entry) == 0;
}

static void begin_item(struct parse *p)
{
    struct s3_answer *answer = p->answer;
    if (answer->count == S3_PAGE_COUNT_MAX) {
        fail(p, ERR_LIMIT);
        return;
    }
    void *at = answer->items;
    err e = at == NULL ? pool_alloc(p->pool, S3_PAGE_COUNT_MAX * sizeof answer->items[0], &at) : OK;
    if (e != OK) {
        fail(p, e);
        return;
    }
    answer->items = at;
    answer->items[answer->count++] = (struct s3_item){ .key = "", .upload_id = "" };
}

static void on_start(void *context, const char *name, const char **attributes)
{
    struct parse *p = context;
    if (p->failed != OK)
        return;
    if (p->depth == S3_ANSWER_DEPTH_MAX) {
        fail(p, ERR_LIMIT);
        return;
    }
    snprintf(p->names[p->depth], NAME_BYTES_MAX, "%s", name); /* what is cut matches nothing */
    p->depth++;
    p->text_len = 0;
    p->is_too_long = false;
    if (p->depth == 1)
        begin_root(p, name);
    else if (p->depth == 2 && roots[p->answer->kind].entry != NULL &&
             strcmp(name, roots[p->answer->kind].entry) == 0)
        begin_item(p);
}

static void on_text(void *context, const char *text, int len)
{
    struct parse *p = context;
    if ((size_t)len > S3_VALUE_BYTES_MAX - p->text_len)
        p->is_too_long = true;
    else
        memcpy(p->text + p->text_len, text, (size_t)len);
    p->text_len += p->is_too_long ? 0 : (size_t)len;
}

/* The text of this element into the pool. */
static void take(struct parse *p, const char **out)
{
    struct slice copy;
    err e = p->is_too_long ? ERR_LIMIT : pool_copy(p->pool, slice_of(p->text, p->text_len), &copy);
    if (e == OK)
        *out = (const char *)copy.at;
    else
        fail(p, e);
}

/* The same, cut and cleaned for people. */
static void take_shown(struct parse *p, const char **out)
{
    p->is_too_long = false;
    if (p->text_len > SHOWN_BYTES)
        p->text_len = SHOWN_BYTES;
    for (size_t i = 0; i < p->text_len; i++)
        if (p->text[i] < ' ' || p->text[i] > '~')
            p->text[i] = '?';
    take(p, out);
}

static void end_in_item(struct parse *p, const char *name)
{
    struct s3_item *item = &p->answer->items[p->answer->count - 1];
    if (strcmp(name, "Key") == 0)
        take(p, &item->key);
    else if (strcmp(name, "UploadId") == 0)
        take(p, &item->upload_id);
    else if ((strcmp(name, "LastModified") == 0 || strcmp(name, "Initiated") == 0) &&
             !s3_time_parse(slice_of(p->text, p->text_len), &item->t_ms))
        item->t_ms = 0;
}

static void take_end(struct parse *p)
{
    struct slice text = slice_of(p->text, p->text_len);
    p->answer->is_truncated = slice_equal_str(text, "true");
    p->has_end = p->answer->is_truncated || slice_equal_str(text, "false");
}

static void end_in_root(struct parse *p, const char *name)
{
    struct s3_answer *answer = p->answer;
    if (strcmp(name, "Code") == 0)
        take_shown(p, &answer->code);
    else if (strcmp(name, "Message") == 0)
        take_shown(p, &answer->message);
    else if (strcmp(name, "Region") == 0)
        take_shown(p, &answer->region);
    else if (strcmp(name, "ETag") == 0)
        take_shown(p, &answer->etag);
    else if (strcmp(name, "UploadId") == 0)
        take(p, &answer->upload_id);
    else if (strcmp(name, "NextContinuationToken") == 0)
        take(p, &answer->next_token);
    else if (strcmp(name, "IsTruncated") == 0)
        take_end(p);
    else if (strcmp(name, "EncodingType") == 0)
        p->is_encoded = slice_equal_str(slice_of(p->text, p->text_len), "url");
}

static void on_end(void *context, const char *name)
{
    struct parse *p = context;
    if (p->failed != OK)
        return;
    if (p->depth == 2)
        end_in_root(p, name);
    else if (is_in_item(p))
        end_in_item(p, name);
    p->depth--;
    p->text_len = 0;
}

static void on_doctype(void *context, const char *name, const char *system, const char *public,
                       int has_subset)
{
    fail(context, ERR_INPUT);
}

static int nibble(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* Undo the encoding of a key in its place. A NUL becomes \x01. False: malformed. */
static bool decode_key(char *key)
{
    char *to = key;
    for (const char *from = key; *from != 0; from++) {
        char c = *from == '+' ? ' ' : *from;
        if (c == '%') {
            int high = nibble(from[1]), low = high >= 0 ? nibble(from[2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high << 4 | low);
            from += 2;
        }
        *to++ = c == 0 ? '\x01' : c; /* never before `from` has read it */
    }
    *to = 0;
    return true;
}

static err finish(struct parse *p)
{
    struct s3_answer *answer = p->answer;
    for (size_t i = 0; p->is_encoded && i < answer->count; i++)
        if (answer->items[i].key[0] != 0 && !decode_key((char *)answer->items[i].key)) /* in our pool */
            return ERR_INPUT;
    if (answer->kind == S3_ANSWER_ERROR && answer->code[0] == 0)
        return ERR_INPUT;
    bool has_next = answer->next_token[0] != 0;
    if (answer->kind == S3_ANSWER_LIST && (!p->has_end || answer->is_truncated != has_next))
        return ERR_INPUT;
    if (answer->kind == S3_ANSWER_INITIATED &&
        (answer->upload_id[0] == 0 || strlen(answer->upload_id) >= S3_UPLOAD_ID_BYTES_MAX))
        return ERR_INPUT;
    return OK;
}

err s3_answer_decode(struct slice body, struct pool *pool, struct s3_answer *out_answer)
{
    if (body.len > S3_ANSWER_BYTES_MAX)
        return ERR_LIMIT;
    while (body.len > 0 &&
           body.at[0] <= ' ') /* sent to keep a connection alive while parts are put together */
        body = slice_part(body, 1, body.len - 1);
    struct parse *p;
    TRY(pool_zalloc(pool, sizeof *p, (void **)&p));
    struct s3_answer answer = {
        .code = "", .message = "", .region = "", .etag = "", .upload_id = "", .next_token = ""
    };
    p->pool = pool;
    p->answer = &answer;
    p->expat = XML_ParserCreate("UTF-8");
    check(p->expat != NULL); /* the system refusing memory aborts */
    XML_SetUserData(p->expat, p);
    XML_SetElementHandler(p->expat, on_start, on_end);
    XML_SetCharacterDataHandler(p->expat, on_text);
    XML_SetStartDoctypeDeclHandler(p->expat, on_doctype);
    enum XML_Status status = XML_Parse(p->expat, (const char *)body.at, (int)body.len, 1);
    XML_ParserFree(p->expat);
    TRY(p->failed);
    if (status != XML_STATUS_OK)
        return ERR_INPUT;
    TRY(finish(p));
    *out_answer = answer;
    return OK;
}
