/* Labels: what names a series.
 *
 * Canonical form, used in memory, in the log and for hashing: the protobuf label fields of a remote
 * write 1.0 TimeSeries, sorted by name, each with minimal varints, concatenated:
 *     0x0a  varint(len of rest)  0x0a varint(len name) name  0x12 varint(len value) value
 * so a request from a well-behaved sender needs no re-encoding: its bytes are the canonical bytes.
 * Names are unique and not empty, values not empty (an empty value is an absent label), both UTF-8.
 * docs/format/labels.md. A canonical label set is passed around as a plain `struct slice`. */
#ifndef MODEL_LABELS_H
#define MODEL_LABELS_H

#include "base/buf.h"
#include "base/hash.h"
#include "base/slice.h"

#include <stdbool.h>

#define LABELS_BYTES_MAX (64u << 10) /* canonical bytes of one series */
#define LABEL_COUNT_MAX  1024        /* hard bound; tenants' limits are lower */
#define TENANT_BYTES_MAX 150         /* as Mimir's and Loki's */

struct label {
    struct slice name;
    struct slice value;
};

/* Is it a valid tenant: 1 … TENANT_BYTES_MAX of [A-Za-z0-9!-_.*'()], not "." or ".."? (Mimir's rule.) */
bool tenant_valid(struct slice tenant);

/* Walk canonical labels: reader_of(labels), then labels_next until false. Borrowed from the input.
 * False at the end and (with r->ok false) on malformed bytes. */
bool labels_next(struct reader *r, struct label *out_label);

/* Is s a canonical label set: form, order, uniqueness, non-empty, UTF-8, bounds? OK, ERR_INPUT (with
 * the reason in at), ERR_LIMIT. The empty set is canonical. */
err labels_check(struct slice s, struct err_at *at);

/* The value of a label; an empty slice when absent. Borrowed from labels. */
struct slice labels_get(struct slice labels, struct slice name);

/* Append the canonical form of `count` labels to out; sorts the array in place, drops labels with an
 * empty value. ERR_INPUT: empty or duplicate name, bad UTF-8 (text in at); ERR_LIMIT. */
err labels_encode(struct label *labels, size_t count, struct buf *out, struct err_at *at);

/* Append one label field in canonical form; the caller keeps the order. */
void labels_put(struct buf *out, struct slice name, struct slice value);

/* Order of label sets as Prometheus sorts them: pairwise by name, then value, a prefix first. */
int labels_compare(struct slice a, struct slice b);
/* The numbers 0 … count - 1 in the order of their label sets, equal ones in the order given, in arena memory of
 * pool. ERR_LIMIT. */
err labels_order(const struct slice *labels, uint32_t count, struct pool *pool, uint32_t **out_order);

/* Number of labels, 0 for malformed input. */
size_t labels_count(struct slice labels);

/* {__name__="x", a="b"} as Prometheus prints it: x{a="b"}, values Go-quoted; for messages and errors. */
void labels_print(struct slice labels, struct buf *out);

/* Is s valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF)? */
bool utf8_valid(struct slice s);
/* Bytes of the UTF-8 sequence that begins at `at` < end, 0 when it is malformed. */
size_t utf8_sequence(const uint8_t *at, const uint8_t *end);
/* Write a code point as UTF-8 at `out`, which has room for 4 bytes. The bytes written, 0 for a surrogate and
 * beyond U+10FFFF. */
size_t utf8_put(uint8_t *out, uint32_t code);

/* Routing and identity: XXH3-128 of the canonical labels, seeded with the cluster's hash_key and the
 * tenant. docs/format/labels.md §2. */
struct series_hasher {
    uint64_t seed;
};
struct series_hasher series_hasher_of(const uint8_t hash_key[16], struct slice tenant);

static inline struct hash128 series_hash(struct series_hasher h, struct slice labels)
{
    return hash128(labels, h.seed);
}

/* What decides the partition of a series, as jump_hash(route, P): the hash of its labels, but one for all buckets
 * of a classic histogram and its _count, so that they meet in one segment, where they are stored as differences
 * (docs/format/labels.md §2). hash: series_hash of the canonical labels; scratch: overwritten. ERR_LIMIT. */
err series_route(struct series_hasher h, struct hash128 hash, struct slice labels, struct buf *scratch,
                 uint64_t *out_route);

/* … and that of the metadata of a metric family. */
static inline uint64_t family_route(struct series_hasher h, struct slice family)
{
    return hash64(family, h.seed);
}

/* jump_hash (Lamping, Veach 2014): bucket of key in [0, count). */
uint32_t jump_hash(uint64_t key, uint32_t count);

#endif
