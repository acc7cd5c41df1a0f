/* Hashes: XXH3 for tables and series identity (not cryptographic: seed it with a secret where keys
 * come from outside), CRC32C for stored and sent bytes. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/slice.h"

#include <stdint.h>

struct hash128 {
    uint64_t low;
    uint64_t high;
};

static inline bool hash128_equal(struct hash128 a, struct hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

uint64_t hash64(struct slice s, uint64_t seed);
struct hash128 hash128(struct slice s, uint64_t seed);

/* A 64-bit hash for tables in memory, about a third of hash128's cost on 200 to 400 bytes. Keyed: whoever does
 * not know the key cannot make two inputs meet. Never stored or sent: it may change with any version. */
struct hash_quick_key {
    uint64_t word[8];
};
struct hash_quick_key hash_quick_key_of(uint64_t secret);
uint64_t hash_quick(struct slice s, const struct hash_quick_key *key);

/* Secret of this process, to seed hash64 for tables in memory over strings from outside: without it nobody can
 * make many of them meet. 0 until it is set, once, before other threads run. */
void hash_secret_set(uint64_t secret);
uint64_t hash_secret(void);

/* A 64-bit finaliser for integer keys (splitmix64). */
static inline uint64_t hash_mix(uint64_t v)
{
    v ^= v >> 30;
    v *= 0xbf58476d1ce4e5b9u;
    v ^= v >> 27;
    v *= 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

/* CRC32C (Castagnoli, RFC 3720 §12.1) of s, continued from `crc` (0 to begin).
 * crc32c(b, crc32c(a, 0)) is the checksum of a then b. */
uint32_t crc32c(struct slice s, uint32_t crc);

/* The table-driven form, for tests and machines without SSE 4.2. Same results. */
uint32_t crc32c_portable(struct slice s, uint32_t crc);

#endif
