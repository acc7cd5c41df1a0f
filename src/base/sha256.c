/* SHA-256 by OpenSSL's EVP interface, which uses the SHA instructions where they exist. */
#include "base/sha256.h"

#include "base/check.h"

#include <openssl/evp.h>

struct sha256 *sha256_open(void)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    check(context != NULL);
    int started = EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    check(started == 1);
    return (struct sha256 *)context;
}

void sha256_add(struct sha256 *state, struct slice s)
{
    int added = EVP_DigestUpdate((EVP_MD_CTX *)state, s.at, s.len);
    check(added == 1);
}

void sha256_finish(struct sha256 *state, uint8_t out_digest[SHA256_BYTES])
{
    unsigned len = 0;
    int finished = EVP_DigestFinal_ex((EVP_MD_CTX *)state, out_digest, &len);
    check(finished == 1);
    check(len == SHA256_BYTES);
    EVP_MD_CTX_free((EVP_MD_CTX *)state);
}

void sha256_of(struct slice s, uint8_t out_digest[SHA256_BYTES])
{
    struct sha256 *state = sha256_open();
    sha256_add(state, s);
    sha256_finish(state, out_digest);
}

#define BLOCK_BYTES 64 /* of SHA-256: RFC 2104 pads the key to it */

static void hmac_pass(const uint8_t padded[BLOCK_BYTES], uint8_t with, struct slice s, uint8_t *out)
{
    uint8_t pad[BLOCK_BYTES];
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        pad[i] = padded[i] ^ with;
    struct sha256 *state = sha256_open();
    sha256_add(state, slice_of(pad, sizeof pad));
    sha256_add(state, s);
    sha256_finish(state, out);
    explicit_bzero(pad, sizeof pad);
}

void sha256_hmac(struct slice key, struct slice s, uint8_t out[SHA256_BYTES])
{
    uint8_t padded[BLOCK_BYTES] = { 0 }, inner[SHA256_BYTES];
    if (key.len > BLOCK_BYTES)
        sha256_of(key, padded);
    else if (key.len > 0)
        memcpy(padded, key.at, key.len);
    hmac_pass(padded, 0x36, s, inner);
    hmac_pass(padded, 0x5c, slice_of(inner, sizeof inner), out);
    explicit_bzero(padded, sizeof padded);
}

void sha256_print(const uint8_t digest[SHA256_BYTES], char out[SHA256_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * SHA256_BYTES] = 0;
}
