/* SHA-256 (FIPS 180-4), streaming: digests that name segments and objects; and HMAC over it. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include "base/slice.h"

#define SHA256_BYTES 32

struct sha256;

/* Open, feed any number of times, then finish, which closes. sha256_open aborts only when the
 * library itself refuses memory. */
struct sha256 *sha256_open(void);
void sha256_add(struct sha256 *state, struct slice s);
void sha256_finish(struct sha256 *state, uint8_t out_digest[SHA256_BYTES]);

/* The digest of s at once. */
void sha256_of(struct slice s, uint8_t out_digest[SHA256_BYTES]);

/* HMAC-SHA256 (RFC 2104) of s with a key of any length. out may be the key's memory. */
void sha256_hmac(struct slice key, struct slice s, uint8_t out[SHA256_BYTES]);

/* A digest as text: lower-case hexadecimal, NUL-terminated. */
#define SHA256_HEX_BYTES (2 * SHA256_BYTES + 1)
void sha256_print(const uint8_t digest[SHA256_BYTES], char out[SHA256_HEX_BYTES]);

#endif
