/* struct slice: borrowed bytes. A slice never owns; whoever hands one out says until when it lives. */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *at;
    size_t len;
};

/* "%.*s" takes SLICE_ARG(s). */
#define SLICE_ARG(s) ((int)(s).len), ((const char *)(s).at)

/* The same, cut to 200 bytes: for messages that quote input. */
#define SLICE_SHORT_ARG(s) ((int)((s).len > 200 ? 200 : (s).len)), ((const char *)(s).at)

static inline struct slice slice_of(const void *at, size_t len)
{
    return (struct slice){ .at = (const uint8_t *)at, .len = len };
}

/* The bytes of a C string, without its NUL. */
static inline struct slice slice_str(const char *text) { return slice_of(text, strlen(text)); }

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static inline bool slice_equal_str(struct slice a, const char *text)
{
    return slice_equal(a, slice_str(text));
}

/* The same but for the case of ASCII letters; lower has none in upper case. */
static inline bool slice_equal_fold(struct slice a, const char *lower)
{
    if (a.len != strlen(lower))
        return false;
    for (size_t i = 0; i < a.len; i++) {
        uint8_t c = a.at[i];
        if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != (uint8_t)lower[i])
            return false;
    }
    return true;
}

/* Byte order, a shorter prefix first: < 0, 0, > 0. */
static inline int slice_compare(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.at, b.at, len);
    if (order != 0)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

/* Bytes that both begin with: by eight, and the first difference in a word is its lowest byte. */
static inline size_t slice_common(struct slice a, struct slice b)
{
    size_t most = a.len < b.len ? a.len : b.len, same = 0;
    for (uint64_t x, y; same + 8 <= most; same += 8) {
        memcpy(&x, a.at + same, 8);
        memcpy(&y, b.at + same, 8);
        if (x != y)
            return same + (size_t)__builtin_ctzll(x ^ y) / 8;
    }
    while (same < most && a.at[same] == b.at[same])
        same++;
    return same;
}

static inline bool slice_starts(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.at, prefix.at, prefix.len) == 0);
}

/* The part [from, from + len). The caller has checked the bounds. */
static inline struct slice slice_part(struct slice s, size_t from, size_t len)
{
    return slice_of(s.at + from, len);
}

#endif
