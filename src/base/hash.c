/* XXH3 through the header-only library; CRC32C by the SSE 4.2 instruction, three streams at once
 * above a kilobyte, by table elsewhere. See hash.h.
 *
 * The three-way form: the crc32 instruction takes 3 cycles and can start each cycle, so three
 * independent thirds of a block run for the price of one. Their results are joined by multiplying
 * with x^(8·n) mod P, tabulated once per block length (Gopal et al., "Fast CRC computation for iSCSI
 * polynomial using CRC32 instruction", Intel 2011). */
#include "base/hash.h"

#include "base/bytes.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

static uint64_t process_secret;

void hash_secret_set(uint64_t secret) { process_secret = secret; }

uint64_t hash_secret(void) { return process_secret; }

uint64_t hash64(struct slice s, uint64_t seed) { return XXH3_64bits_withSeed(s.at, s.len, seed); }

struct hash128 hash128(struct slice s, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(s.at, s.len, seed);
    return (struct hash128){ .low = h.low64, .high = h.high64 };
}

/* hash_quick: four independent chains of folded 64 × 64 → 128-bit products over blocks of 64 bytes (the round of
 * wyhash, Wang Yi 2019), the last block overlapping the one before, so that no tail is walked in small steps. */
#define QUICK_BLOCK_BYTES 64

struct hash_quick_key hash_quick_key_of(uint64_t secret)
{
    struct hash_quick_key key;
    for (unsigned i = 0; i < 8; i++)
        key.word[i] = hash_mix(secret + (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
    return key;
}

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

struct quick_lanes {
    uint64_t a, b, c, d;
};

static inline struct quick_lanes quick_block(struct quick_lanes l, const uint8_t *at, const uint64_t *word)
{
    return (struct quick_lanes){ .a = fold(get_le64(at) ^ word[0], get_le64(at + 8) ^ l.a),
                                 .b = fold(get_le64(at + 16) ^ word[1], get_le64(at + 24) ^ l.b),
                                 .c = fold(get_le64(at + 32) ^ word[2], get_le64(at + 40) ^ l.c),
                                 .d = fold(get_le64(at + 48) ^ word[3], get_le64(at + 56) ^ l.d) };
}

uint64_t hash_quick(struct slice s, const struct hash_quick_key *key)
{
    const uint64_t *word = key->word;
    struct quick_lanes l = { word[4], word[5], word[6], word[7] };
    if (s.len < QUICK_BLOCK_BYTES) {
        uint8_t padded[QUICK_BLOCK_BYTES] = { 0 };
        if (s.len > 0)
            memcpy(padded, s.at, s.len);
        l = quick_block(l, padded, word);
    } else {
        for (size_t at = 0; at + QUICK_BLOCK_BYTES < s.len; at += QUICK_BLOCK_BYTES)
            l = quick_block(l, s.at + at, word);
        l = quick_block(l, s.at + s.len - QUICK_BLOCK_BYTES, word);
    }
    return fold(fold(l.a ^ word[1], l.b ^ s.len) ^ word[2], fold(l.c ^ word[3], l.d ^ word[0]) ^ word[5]);
}

#define CRC32C_POLYNOMIAL 0x82f63b78u /* reflected */

/* The effect on a checksum of one more byte v: the remainder of v · x^32, by eight shifts. */
static uint32_t crc_byte(uint32_t v)
{
    for (int bit = 0; bit < 8; bit++)
        v = v & 1 ? v >> 1 ^ CRC32C_POLYNOMIAL : v >> 1;
    return v;
}

uint32_t crc32c_portable(struct slice s, uint32_t crc)
{
    uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++)
        table[i] = crc_byte(i);
    crc = ~crc;
    for (size_t i = 0; i < s.len; i++)
        crc = table[(crc ^ s.at[i]) & 0xff] ^ crc >> 8;
    return ~crc;
}

#if defined(__x86_64__)
#define STREAM_DOUBLINGS 10
#define STREAM_BYTES     (1u << STREAM_DOUBLINGS)

/* crc after STREAM_BYTES zero bytes, as four tables of 256: built by the compiler's constant data would be opaque,
 * so it is computed once per thread. The map is linear over bits: what it makes of each bit is all of it. One
 * byte's map squared is that of two, so ten squarings of 32 by 32 bits and 1,024 entries: about 11,000 steps. */
struct shift_table {
    uint32_t of[4][256];
};

static uint32_t apply(const uint32_t basis[32], uint32_t crc)
{
    uint32_t sum = 0;
    for (unsigned bit = 0; bit < 32; bit++)
        sum ^= basis[bit] & (0u - (crc >> bit & 1));
    return sum;
}

static const struct shift_table *shift_table_get(void)
{
    static _Thread_local struct shift_table table;
    static _Thread_local bool ready;
    if (!ready) {
        uint32_t basis[32], twice[32];
        for (unsigned bit = 0; bit < 32; bit++) {
            uint32_t crc = 1u << bit;
            basis[bit] = crc_byte(crc & 0xff) ^ crc >> 8;
        }
        for (unsigned i = 0; i < STREAM_DOUBLINGS; i++) {
            for (unsigned bit = 0; bit < 32; bit++)
                twice[bit] = apply(basis, basis[bit]);
            memcpy(basis, twice, sizeof basis);
        }
        for (unsigned byte = 0; byte < 4; byte++)
            for (unsigned bit = 0; bit < 8; bit++)
                for (unsigned v = 0; v < 1u << bit; v++)
                    table.of[byte][v | 1u << bit] = table.of[byte][v] ^ basis[byte * 8 + bit];
        ready = true;
    }
    return &table;
}

static inline uint32_t shift_by_table(const struct shift_table *t, uint32_t crc)
{
    return t->of[0][crc & 0xff] ^ t->of[1][crc >> 8 & 0xff] ^ t->of[2][crc >> 16 & 0xff] ^
           t->of[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(struct slice s, uint32_t crc)
{
    const uint8_t *at = s.at;
    size_t left = s.len;
    uint64_t c = ~crc;
    if (left >= 3 * STREAM_BYTES) {
        const struct shift_table *table = shift_table_get();
        while (left >= 3 * STREAM_BYTES) {
            uint64_t c1 = 0, c2 = 0;
            for (size_t i = 0; i < STREAM_BYTES; i += 8) {
                c = _mm_crc32_u64(c, get_le64(at + i));
                c1 = _mm_crc32_u64(c1, get_le64(at + STREAM_BYTES + i));
                c2 = _mm_crc32_u64(c2, get_le64(at + 2 * STREAM_BYTES + i));
            }
            c = shift_by_table(table, (uint32_t)c) ^ c1;
            c = shift_by_table(table, (uint32_t)c) ^ c2;
            at += 3 * STREAM_BYTES;
            left -= 3 * STREAM_BYTES;
        }
    }
    for (; left >= 8; left -= 8, at += 8)
        c = _mm_crc32_u64(c, get_le64(at));
    for (; left != 0; left--, at++)
        c = _mm_crc32_u8((uint32_t)c, *at);
    return ~(uint32_t)c;
}
#endif

uint32_t crc32c(struct slice s, uint32_t crc)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse42(s, crc);
#endif
    return crc32c_portable(s, crc);
}
