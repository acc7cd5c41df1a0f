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
