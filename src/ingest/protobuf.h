/* A strict pull reader for protobuf messages: bounded by its bytes, allocates nothing, knows no schema.
 *
 * Fields come one by one; unknown ones are skipped by the caller simply not looking at them. Groups (wire types
 * 3 and 4), which nobody sends, are malformed. Source: protobuf encoding specification. */
#ifndef INGEST_PROTOBUF_H
#define INGEST_PROTOBUF_H

#include "base/bytes.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct field {
    uint32_t number;
    enum wire_type wire;
    uint64_t value;     /* of the three integer types */
    struct slice bytes; /* of WIRE_BYTES, borrowed */
};

/* The next field. False at the end and, with !r->ok, on malformed bytes. */
static inline bool field_next(struct reader *r, struct field *out_field)
{
    if (r->at == r->end)
        return false;
    uint64_t tag = read_varint(r);
    struct field f = { .number = (uint32_t)(tag >> 3), .wire = (enum wire_type)(tag & 7) };
    if (tag >> 3 == 0 || tag >> 3 > (1u << 29) - 1) {
        read_bad(r);
        return false;
    }
    switch (f.wire) {
    case WIRE_VARINT:
        f.value = read_varint(r);
        break;
    case WIRE_64:
        f.value = read_le64(r);
        break;
    case WIRE_BYTES:
        f.bytes = read_string(r);
        break;
    case WIRE_32:
        f.value = read_le32(r);
        break;
    default:
        read_bad(r);
    }
    *out_field = f;
    return r->ok;
}

static inline bool field_is(const struct field *f, uint32_t number, enum wire_type wire)
{
    return f->number == number && f->wire == wire;
}

/* sint32 and sint64 are zigzag, int32 and int64 plain two's complement of 64 bits. */
static inline int64_t field_int(const struct field *f) { return (int64_t)f->value; }
static inline int64_t field_sint(const struct field *f) { return unzigzag(f->value); }
static inline double field_double(const struct field *f) { return bits_double(f->value); }

#endif
