/* Bytes on disk and on the wire: little-endian integers and varints, never a cast struct.
 *
 * Readers work on `struct reader`, a cursor that goes bad instead of past the end: after the first
 * short or malformed read every further read yields 0 and `ok` is false, so that a decoder checks
 * once per unit of work, not once per field. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the helpers below store native order");

static inline uint16_t get_le16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, 2);
    return v;
}
static inline uint32_t get_le32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, 4);
    return v;
}
static inline uint64_t get_le64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, 8);
    return v;
}
static inline void put_le16(uint8_t *at, uint16_t v) { memcpy(at, &v, 2); }
static inline void put_le32(uint8_t *at, uint32_t v) { memcpy(at, &v, 4); }
static inline void put_le64(uint8_t *at, uint64_t v) { memcpy(at, &v, 8); }

static inline uint64_t double_bits(double v)
{
    uint64_t b;
    memcpy(&b, &v, 8);
    return b;
}
static inline double bits_double(uint64_t b)
{
    double v;
    memcpy(&v, &b, 8);
    return v;
}

static inline uint64_t zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static inline int64_t unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }

/* The value of a hexadecimal digit of either case, -1 of anything else. */
static inline int hex_value(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

#define VARINT_BYTES_MAX 10

/* Write v as LEB128 at `at`, which has room for VARINT_BYTES_MAX. Returns the end. */
static inline uint8_t *put_varint(uint8_t *at, uint64_t v)
{
    while (v >= 0x80) {
        *at++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *at++ = (uint8_t)v;
    return at;
}

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool ok;
};

static inline struct reader reader_of(struct slice s)
{
    /* NULL + 0 is undefined, and an empty slice may be NULL. */
    return (struct reader){ .at = s.at, .end = s.len == 0 ? s.at : s.at + s.len, .ok = true };
}

static inline size_t read_left(const struct reader *r) { return (size_t)(r->end - r->at); }

static inline void read_bad(struct reader *r)
{
    r->ok = false;
    r->at = r->end;
}

/* Borrow the next len bytes; an empty slice and !ok when fewer are left. */
static inline struct slice read_bytes(struct reader *r, size_t len)
{
    if (len > read_left(r)) {
        read_bad(r);
        return slice_of(r->end, 0);
    }
    struct slice s = slice_of(r->at, len);
    r->at += len;
    return s;
}

static inline uint8_t read_u8(struct reader *r)
{
    struct slice s = read_bytes(r, 1);
    return s.len == 1 ? s.at[0] : 0;
}

static inline uint16_t read_le16(struct reader *r)
{
    struct slice s = read_bytes(r, 2);
    return s.len == 2 ? get_le16(s.at) : 0;
}

static inline uint32_t read_le32(struct reader *r)
{
    struct slice s = read_bytes(r, 4);
    return s.len == 4 ? get_le32(s.at) : 0;
}

static inline uint64_t read_le64(struct reader *r)
{
    struct slice s = read_bytes(r, 8);
    return s.len == 8 ? get_le64(s.at) : 0;
}

/* LEB128 of at most 64 bits; longer or overflowing forms are malformed. */
static inline uint64_t read_varint(struct reader *r)
{
    if (r->at != r->end && *r->at < 0x80)
        return *r->at++; /* nearly always */
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->at == r->end)
            break;
        uint8_t b = *r->at++;
        if (shift == 63 && b > 1)
            break;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return v;
    }
    read_bad(r);
    return 0;
}

static inline int64_t read_zigzag(struct reader *r) { return unzigzag(read_varint(r)); }

/* A varint length, then that many bytes, borrowed. */
static inline struct slice read_string(struct reader *r)
{
    uint64_t len = read_varint(r);
    if (len > read_left(r)) {
        read_bad(r);
        return slice_of(r->end, 0);
    }
    return read_bytes(r, (size_t)len);
}

#endif
