/* Labels: canonical form, checks, comparison, printing, routing hashes. See labels.h.
 *
 * Data comes from ingest (bytes of clients, whose order and UTF-8 nobody has looked at yet) and goes into
 * the log, the index and every hash, where it is trusted.
 *
 * Invariants
 *  1. A label set has exactly one canonical form: varints are minimal, names ascend strictly, no value is
 *     empty. So equal sets are equal bytes, and hashing the bytes is hashing the set.
 *  2. labels_next never reads past its reader and accepts non-minimal varints, because it also walks what
 *     clients sent; only labels_check decides what is canonical. */
#include "model/labels.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

#include <stdlib.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define TAG_LABEL 0x0a /* field 1 of TimeSeries, and field 1 (name) of Label: length-delimited */
#define TAG_VALUE 0x12 /* field 2 of Label */

bool labels_next(struct reader *r, struct label *out_label)
{
    if (r->at == r->end)
        return false;
    if (read_u8(r) != TAG_LABEL) {
        read_bad(r);
        return false;
    }
    struct reader field = reader_of(read_string(r));
    if (!r->ok || read_u8(&field) != TAG_LABEL) {
        read_bad(r);
        return false;
    }
    struct slice name = read_string(&field);
    if (!field.ok || read_u8(&field) != TAG_VALUE) {
        read_bad(r);
        return false;
    }
    struct slice value = read_string(&field);
    if (!field.ok || field.at != field.end) {
        read_bad(r);
        return false;
    }
    *out_label = (struct label){ .name = name, .value = value };
    return true;
}

static size_t varint_bytes(uint64_t v)
{
    size_t bytes = 1;
    while (v >= 0x80) {
        v >>= 7;
        bytes++;
    }
    return bytes;
}

static size_t label_rest_bytes(struct slice name, struct slice value)
{
    return 1 + varint_bytes(name.len) + name.len + 1 + varint_bytes(value.len) + value.len;
}

static size_t label_bytes(struct slice name, struct slice value)
{
    size_t rest = label_rest_bytes(name, value);
    return 1 + varint_bytes(rest) + rest;
}

size_t utf8_put(uint8_t *out, uint32_t code)
{
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    size_t len = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    out[0] = (uint8_t)(lead[len] | code);
    return len;
}

/* Table 3-7 of the Unicode standard: the second byte's range depends on the first, the rest are 80..bf. */
size_t utf8_sequence(const uint8_t *at, const uint8_t *end)
{
    uint8_t c = at[0];
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len < 2 || len > (size_t)(end - at))
        return len < 2 ? len : 0;
    uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

/* Length of the ASCII prefix, a multiple of what is looked at in one step or all of s. */
static size_t ascii_prefix(struct slice s)
{
    size_t at = 0;
#if defined(__SSE2__)
    for (; s.len - at >= 16; at += 16)
        if (_mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)(s.at + at))) != 0)
            return at;
#endif
    for (; s.len - at >= 8; at += 8)
        if ((get_le64(s.at + at) & UINT64_C(0x8080808080808080)) != 0)
            return at;
    while (at < s.len && s.at[at] < 0x80)
        at++;
    return at;
}

bool utf8_valid(struct slice s)
{
    if (s.len == 0)
        return true; /* at may be NULL */
    const uint8_t *at = s.at, *end = s.at + s.len;
    while (at < end) {
        at += ascii_prefix(slice_of(at, (size_t)(end - at)));
        if (at == end)
            break;
        size_t len = utf8_sequence(at, end);
        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

/* The first eight bytes of a name, zeros behind its end, as a number: names with different numbers order like
 * them. end: of the bytes that may be read. */
static uint64_t name_order(const uint8_t *at, size_t len, const uint8_t *end)
{
    uint8_t padded[8] = { 0 };
    if ((size_t)(end - at) < 8)
        at = memcpy(padded, at, len);
    uint64_t v = __builtin_bswap64(get_le64(at));
    return len >= 8 ? v : v & ~(UINT64_MAX >> (8 * len));
}

/* Canonical in the way that nearly every series is: ASCII, every length in one byte. False says nothing. One
 * pass without readers takes a third of the general check's instructions, and every announcement and dictionary
 * entry is checked. */
static bool is_plain(struct slice s)
{
    if (s.len > LABELS_BYTES_MAX || ascii_prefix(s) != s.len)
        return false;
    const uint8_t *at = s.at, *end = s.at + s.len, *before = NULL;
    size_t before_len = 0, count = 0;
    uint64_t before_order = 0;
    for (; at != end; count++) {
        if (end - at < 6 || at[0] != TAG_LABEL || at[2] != TAG_LABEL)
            return false;
        size_t rest = at[1], name_len = at[3];
        if (rest > (size_t)(end - at) - 2 || name_len == 0 || name_len + 5 > rest)
            return false;
        const uint8_t *name = at + 4, *value = name + name_len;
        if (value[0] != TAG_VALUE || value[1] + name_len + 4 != rest)
            return false;
        uint64_t order = name_order(name, name_len, end);
        if (order < before_order ||
            (order == before_order &&
             (before == NULL || slice_compare(slice_of(before, before_len), slice_of(name, name_len)) >= 0)))
            return false;
        before = name;
        before_len = name_len;
        before_order = order;
        at += 2 + rest;
    }
    return count <= LABEL_COUNT_MAX;
}

err labels_check(struct slice s, struct err_at *at)
{
    if (s.len > 0 && is_plain(s))
        return OK;
    if (s.len > LABELS_BYTES_MAX)
        return err_set(at, ERR_LIMIT, "labels take %zu bytes, more than %u", s.len, LABELS_BYTES_MAX);
    struct reader r = reader_of(s);
    struct label label;
    struct slice before = slice_of(NULL, 0);
    const uint8_t *begin = r.at;
    size_t count = 0;
    bool ascii = ascii_prefix(s) == s.len; /* then all names and values are, whatever the lengths say */
    while (labels_next(&r, &label)) {
        if (++count > LABEL_COUNT_MAX)
            return err_set(at, ERR_LIMIT, "more than %d labels", LABEL_COUNT_MAX);
        if (label.name.len == 0)
            return err_set(at, ERR_INPUT, "empty label name");
        if (!ascii && !utf8_valid(label.name))
            return err_set(at, ERR_INPUT, "a label name is not UTF-8");
        if (label.value.len == 0)
            return err_set(at, ERR_INPUT, "empty value of label \"%.*s\"", SLICE_ARG(label.name));
        if (!ascii && !utf8_valid(label.value))
            return err_set(at, ERR_INPUT, "value of label \"%.*s\" is not UTF-8", SLICE_ARG(label.name));
        if (count > 1) {
            int order = slice_compare(before, label.name);
            if (order == 0)
                return err_set(at, ERR_INPUT, "duplicate label \"%.*s\"", SLICE_ARG(label.name));
            if (order > 0)
                return err_set(at, ERR_INPUT, "label \"%.*s\" is out of order", SLICE_ARG(label.name));
        }
        if ((size_t)(r.at - begin) != label_bytes(label.name, label.value))
            return err_set(at, ERR_INPUT, "a length of label \"%.*s\" is not minimal", SLICE_ARG(label.name));
        begin = r.at;
        before = label.name;
    }
    return r.ok ? OK : err_set(at, ERR_INPUT, "malformed label field");
}

struct slice labels_get(struct slice labels, struct slice name)
{
    struct reader r = reader_of(labels);
    struct label label;
    while (labels_next(&r, &label))
        if (slice_equal(label.name, name))
            return label.value;
    return slice_of(NULL, 0);
}

void labels_put(struct buf *out, struct slice name, struct slice value)
{
    size_t rest = label_rest_bytes(name, value);
    uint8_t *at = buf_room(out, label_bytes(name, value));
    if (at == NULL)
        return;
    uint8_t *to = at;
    *to++ = TAG_LABEL;
    to = put_varint(to, rest);
    *to++ = TAG_LABEL;
    to = put_varint(to, name.len);
    if (name.len != 0)
        memcpy(to, name.at, name.len);
    to += name.len;
    *to++ = TAG_VALUE;
    to = put_varint(to, value.len);
    if (value.len != 0)
        memcpy(to, value.at, value.len);
    to += value.len;
    out->len += (size_t)(to - at);
}

static int label_order(const void *a, const void *b)
{
    return slice_compare(((const struct label *)a)->name, ((const struct label *)b)->name);
}

/* Senders nearly always send sorted labels: look before sorting, and insert while the set is small. */
static void sort_labels(struct label *labels, size_t count)
{
    if (count > 32) {
        qsort(labels, count, sizeof labels[0], label_order);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        struct label label = labels[i];
        size_t to = i;
        while (to > 0 && slice_compare(label.name, labels[to - 1].name) < 0) {
            labels[to] = labels[to - 1];
            to--;
        }
        labels[to] = label;
    }
}

err labels_encode(struct label *labels, size_t count, struct buf *out, struct err_at *at)
{
    size_t kept = 0, bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (labels[i].name.len == 0)
            return err_set(at, ERR_INPUT, "empty label name");
        if (!utf8_valid(labels[i].name))
            return err_set(at, ERR_INPUT, "a label name is not UTF-8");
        if (!utf8_valid(labels[i].value))
            return err_set(at, ERR_INPUT, "value of label \"%.*s\" is not UTF-8", SLICE_ARG(labels[i].name));
    }
    sort_labels(labels, count);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && slice_equal(labels[i].name, labels[i - 1].name))
            return err_set(at, ERR_INPUT, "duplicate label \"%.*s\"", SLICE_ARG(labels[i].name));
        if (labels[i].value.len == 0)
            continue;
        kept++;
        bytes += label_bytes(labels[i].name, labels[i].value);
    }
    if (kept > LABEL_COUNT_MAX)
        return err_set(at, ERR_LIMIT, "%zu labels, more than %d", kept, LABEL_COUNT_MAX);
    if (bytes > LABELS_BYTES_MAX)
        return err_set(at, ERR_LIMIT, "labels take %zu bytes, more than %u", bytes, LABELS_BYTES_MAX);
    for (size_t i = 0; i < count; i++)
        if (labels[i].value.len != 0)
            labels_put(out, labels[i].name, labels[i].value);
    return buf_err(out);
}

/* Bytes of the labels that both begin with, whole ones only. */
static size_t common_labels(struct slice a, struct slice b)
{
    size_t same = slice_common(a, b), at = 0;
    while (at + 2 <= same && a.at[at + 1] < 0x80 && at + 2 + a.at[at + 1] <= same)
        at += 2 + (size_t)a.at[at + 1];
    return at;
}

int labels_compare(struct slice a, struct slice b)
{
    size_t same = common_labels(a, b); /* sorted neighbours differ late: parse only from there */
    struct reader ra = reader_of(slice_part(a, same, a.len - same));
    struct reader rb = reader_of(slice_part(b, same, b.len - same));
    struct label la, lb;
    for (;;) {
        bool more_a = labels_next(&ra, &la), more_b = labels_next(&rb, &lb);
        if (!more_a || !more_b)
            return (int)more_a - (int)more_b;
        int order = slice_compare(la.name, lb.name);
        if (order == 0)
            order = slice_compare(la.value, lb.value);
        if (order != 0)
            return order;
    }
}

size_t labels_count(struct slice labels)
{
    struct reader r = reader_of(labels);
    struct label label;
    size_t count = 0;
    while (labels_next(&r, &label))
        count++;
    return r.ok ? count : 0;
}

/* As Go's strconv.Quote prints it, but printable or not is decided for ASCII only. */
static void put_quoted(struct buf *out, struct slice s)
{
    static const char named[] = "\aa\bb\ff\nn\rr\tt\vv\\\\\"\"";
    static const char hex[] = "0123456789abcdef";
    buf_put_u8(out, '"');
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.at[i];
        const char *found = c == 0 ? NULL : memchr(named, c, sizeof named - 1);
        if (found != NULL && (c < 0x20 || c == '"' || c == '\\')) {
            buf_put_u8(out, '\\');
            buf_put_u8(out, (uint8_t)named[((size_t)(found - named) & ~(size_t)1) + 1]);
        } else if (c < 0x20 || c == 0x7f) {
            const char escaped[4] = { '\\', 'x', hex[c >> 4], hex[c & 15] };
            buf_put(out, escaped, 4);
        } else {
            buf_put_u8(out, c);
        }
    }
    buf_put_u8(out, '"');
}

bool tenant_valid(struct slice tenant)
{
    if (tenant.len == 0 || tenant.len > TENANT_BYTES_MAX || slice_equal_str(tenant, ".") ||
        slice_equal_str(tenant, ".."))
        return false;
    for (size_t i = 0; i < tenant.len; i++) {
        uint8_t c = tenant.at[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (c == 0 || strchr("!-_.*'()", c) == NULL))
            return false;
    }
    return true;
}

/* A name that PromQL takes without quotes: [a-zA-Z_][a-zA-Z0-9_]*, a metric's also with colons. */
static bool name_is_plain(struct slice s, bool colons)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.at[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!letter && c != '_' && !(colons && c == ':') && !(i > 0 && c >= '0' && c <= '9'))
            return false;
    }
    return s.len > 0;
}

void labels_print(struct slice labels, struct buf *out)
{
    struct slice metric = labels_get(labels, slice_str("__name__"));
    bool plain = name_is_plain(metric, true);
    bool any = false;
    if (plain)
        buf_put_slice(out, metric);
    struct reader r = reader_of(labels);
    struct label label;
    if (metric.len != 0 && !plain) {
        buf_put_u8(out, '{');
        put_quoted(out, metric);
        any = true;
    }
    while (labels_next(&r, &label)) {
        if (slice_equal_str(label.name, "__name__"))
            continue;
        buf_put_str(out, any ? ", " : "{");
        any = true;
        if (name_is_plain(label.name, false))
            buf_put_slice(out, label.name);
        else
            put_quoted(out, label.name);
        buf_put_u8(out, '=');
        put_quoted(out, label.value);
    }
    if (any)
        buf_put_u8(out, '}');
    else if (metric.len == 0)
        buf_put_str(out, "{}");
}

struct series_hasher series_hasher_of(const uint8_t hash_key[16], struct slice tenant)
{
    return (struct series_hasher){ .seed = hash64(tenant, hash64(slice_of(hash_key, 16), 0)) };
}

static bool ends_with(struct slice s, const char *end)
{
    size_t len = strlen(end);
    return s.len > len && memcmp(s.at + s.len - len, end, len) == 0;
}

err series_route(struct series_hasher h, struct hash128 hash, struct slice labels, struct buf *scratch,
                 uint64_t *out_route)
{
    static const struct slice name_label = { (const uint8_t *)"__name__", 8 };
    *out_route = hash.low;
    struct slice name = labels_get(labels, name_label);
    size_t suffix = ends_with(name, "_bucket") ? 7 : ends_with(name, "_count") ? 6 : 0;
    if (suffix == 0)
        return OK;
    struct reader walk = reader_of(labels);
    struct label label;
    buf_clear(scratch);
    while (labels_next(&walk, &label)) {
        if (slice_equal_str(label.name, "le"))
            continue;
        if (slice_equal(label.name, name_label))
            label.value.len -= suffix;
        labels_put(scratch, label.name, label.value);
    }
    *out_route = series_hash(h, buf_slice(scratch)).low;
    return buf_err(scratch);
}

uint32_t jump_hash(uint64_t key, uint32_t count)
{
    check(count > 0);
    int64_t bucket = -1, next = 0;
    while (next < (int64_t)count) {
        bucket = next;
        key = key * UINT64_C(2862933555777941757) + 1;
        next = (int64_t)((double)(bucket + 1) * ((double)(INT64_C(1) << 31) / (double)((key >> 33) + 1)));
    }
    return (uint32_t)bucket;
}
