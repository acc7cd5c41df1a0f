/* SHA-256 (FIPS 180-4), streaming: digests that name segments and objects. */
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

#endif
