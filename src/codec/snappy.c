/* Snappy blocks. See snappy.h.
 *
 * Input comes from sockets. The only number believed early is the claimed length, and only up to what the
 * densest element could produce: a copy of 64 bytes takes 3 bytes, so a block of n bytes never decodes to more
 * than 22 n. A small body therefore cannot make us allocate much.
 *
 * Encoding is the library's. Decoding is here because it is the largest single cost of remote write: the
 * library as distributions build it calls memmove for every element, 60 ns a sample of 300 bytes; copies of
 * whole 16-byte blocks in line take two thirds of that.
 *
 *   block    varint32 length, elements
 *   element  tag byte, its low two bits: 0 literal, 1 copy (offset of 11 bits), 2 copy (16), 3 copy (32)
 *
 * Invariants
 *  1. Nothing is read outside `in` and nothing written outside the claimed length: blocks of 16 are moved only
 *     where NEAR_BYTES are left on both sides, the rest byte for byte.
 *  2. A copy's offset is at least 1 and at most what is already decoded.
 *  3. Success means that the elements used up the input and filled the claimed length exactly. */
#include "codec/snappy.h"

#include <snappy-c.h>

#define EXPANSION_MAX 22
#define COPY_BYTES_MAX 64
#define NEAR_BYTES (COPY_BYTES_MAX + 16)   /* a tag and the longest short element, rounded up to blocks */

struct decoder {
    const uint8_t *in, *in_end;
    uint8_t *begin, *at, *end;
};

static inline void move_16(uint8_t *restrict to, const uint8_t *restrict from)
{
    memcpy(to, from, 16);
}

/* 64 bytes at most, with room for whole blocks on both sides; a source that overlaps lies 16 or more before. */
static inline void move_blocks(uint8_t *to, const uint8_t *from, size_t len)
{
    move_16(to, from);
    move_16(to + 16, from + 16);
    if (len > 32) {
        move_16(to + 32, from + 32);
        move_16(to + 48, from + 48);
    }
}

/* The bytes of a literal whose tag is read: 1 to 4 bytes of length for the long ones. */
static bool literal(struct decoder *d, uint8_t tag)
{
    size_t len = (size_t)(tag >> 2) + 1;
    if (len > 60) {
        size_t extra = len - 60;
        if ((size_t)(d->in_end - d->in) < extra)
            return false;
        len = 0;
        for (size_t i = 0; i < extra; i++)
            len |= (size_t)d->in[i] << 8 * i;
        len++;
        d->in += extra;
    }
    if (len > (size_t)(d->in_end - d->in) || len > (size_t)(d->end - d->at))
        return false;
    memcpy(d->at, d->in, len);
    d->in += len;
    d->at += len;
    return true;
}

/* A copy, byte for byte: near an end, or from so near that it overlaps itself. */
static bool copy_slowly(struct decoder *d, size_t len, size_t offset)
{
    if (offset == 0 || offset > (size_t)(d->at - d->begin) || len > (size_t)(d->end - d->at))
        return false;
    const uint8_t *from = d->at - offset;
    for (size_t i = 0; i < len; i++)
        d->at[i] = from[i];
    d->at += len;
    return true;
}

/* Any element, anywhere. */
static bool element_slowly(struct decoder *d)
{
    uint8_t tag = *d->in++;
    unsigned kind = tag & 3;
    if (kind == 0)
        return literal(d, tag);
    size_t len = kind == 1 ? (size_t)(tag >> 2 & 7) + 4 : (size_t)(tag >> 2) + 1;
    size_t offset = kind == 1 ? (size_t)(tag & 0xe0) << 3 : 0, offset_bytes = kind == 3 ? 4 : kind;
    if ((size_t)(d->in_end - d->in) < offset_bytes)
        return false;
    for (size_t i = 0; i < offset_bytes; i++)
        offset |= (size_t)d->in[i] << 8 * i;
    d->in += offset_bytes;
    return copy_slowly(d, len, offset);
}

static bool decode(struct decoder *all)
{
    struct decoder d = *all;   /* stays in registers, the way into the slow functions leads through *all */
    while (d.in_end - d.in >= NEAR_BYTES && d.end - d.at >= NEAR_BYTES) {
        uint8_t tag = *d.in;
        unsigned kind = tag & 3;
        size_t len = kind == 1 ? (size_t)(tag >> 2 & 7) + 4 : (size_t)(tag >> 2) + 1;
        size_t offset = kind == 1 ? (size_t)(tag & 0xe0) << 3 | d.in[1] : get_le16(d.in + 1);
        if (kind == 0 && len <= 60) {
            move_blocks(d.at, d.in + 1, len);
            d.in += len + 1;
            d.at += len;
        } else if (kind - 1 < 2 && offset >= 16 && offset <= (size_t)(d.at - d.begin)) {
            move_blocks(d.at, d.at - offset, len);
            d.in += kind + 1;
            d.at += len;
        } else {
            *all = d;
            if (!element_slowly(all))
                return false;
            d = *all;
        }
    }
    *all = d;
    while (all->in != all->in_end)
        if (!element_slowly(all))
            return false;
    return all->at == all->end;
}

/* The claimed length; false: malformed. */
static bool read_claim(const uint8_t **at, const uint8_t *end, size_t *out_claimed)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 35 && *at != end; shift += 7) {
        uint8_t byte = *(*at)++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out_claimed = (size_t)v;
            return v <= UINT32_MAX;
        }
    }
    return false;
}

err snappy_block_decode(struct slice in, size_t bytes_max, struct buf *out)
{
    size_t claimed = 0;
    const uint8_t *from = in.at, *end = in.at + in.len;
    if (!read_claim(&from, end, &claimed))
        return ERR_INPUT;
    if (claimed > bytes_max)
        return ERR_LIMIT;
    if (claimed / EXPANSION_MAX > in.len)
        return ERR_INPUT;
    uint8_t *at = buf_room(out, claimed == 0 ? 1 : claimed);
    if (at == NULL)
        return buf_err(out);
    struct decoder d = { .in = from, .in_end = end, .begin = at, .at = at, .end = at + claimed };
    if (!decode(&d))
        return ERR_INPUT;
    out->len += claimed;
    return OK;
}

err snappy_block_encode(struct slice in, struct buf *out)
{
    size_t written = snappy_max_compressed_length(in.len);
    uint8_t *at = buf_room(out, written);
    if (at == NULL)
        return buf_err(out);
    if (snappy_compress((const char *)in.at, in.len, (char *)at, &written) != SNAPPY_OK)
        return ERR_INPUT;
    out->len += written;
    return OK;
}
