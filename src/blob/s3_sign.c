/* Signature Version 4 for S3. From: a request as s3_request.c makes it. To: the value of its Authorization header.
 *
 *   canonical request ─ SHA-256 ─→ string to sign ─ HMAC with the day's key ─→ signature
 *
 * Own, not curl's: curl before 8.14 signs paths, queries and headers of many shapes wrongly.
 *
 * Invariants
 * 1. Parameters are sorted and encoded by one function for the signature and for the URL.
 * 2. The day of the key is the day of the date that is signed. */
#include "blob/s3_sign.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/time.h"

#define SERVICE "s3"

void s3_date_print(int64_t t_ms, char out[S3_DATE_BYTES])
{
    char text[TIME_TEXT_BYTES]; /* 2026-01-31T23:59:59.000Z */
    time_print(t_ms, text);
    size_t len = 0;
    for (const char *c = text; *c != 0 && *c != '.' && len < S3_DATE_BYTES - 2; c++)
        if (*c != '-' && *c != ':')
            out[len++] = *c;
    out[len++] = 'Z';
    out[len] = 0;
}

void s3_put_encoded(struct buf *out, struct slice s, bool keep_slash)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.at[i];
        bool is_bare = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slash);
        if (is_bare)
            buf_put_u8(out, c);
        else
            buf_printf(out, "%%%02X", c);
    }
}

/* Indexes of pairs by name, then value. */
static void sort(const struct s3_pair *pairs, size_t count, uint8_t order[S3_PAIRS_MAX])
{
    check(count <= S3_PAIRS_MAX);
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0; at--) {
            const struct s3_pair *before = &pairs[order[at - 1]];
            int by_name = strcmp(before->name, pairs[i].name);
            if (by_name < 0 || (by_name == 0 && strcmp(before->value, pairs[i].value) <= 0))
                break;
            order[at] = order[at - 1];
        }
        order[at] = (uint8_t)i;
    }
}

void s3_put_query(struct buf *out, const struct s3_pair *params, size_t count)
{
    uint8_t order[S3_PAIRS_MAX];
    sort(params, count, order);
    for (size_t i = 0; i < count; i++) {
        const struct s3_pair *param = &params[order[i]];
        if (i > 0)
            buf_put_u8(out, '&');
        s3_put_encoded(out, slice_str(param->name), false);
        buf_put_u8(out, '=');
        s3_put_encoded(out, slice_str(param->value), false);
    }
}

static void step(uint8_t key[SHA256_BYTES], const char *text)
{
    sha256_hmac(slice_of(key, SHA256_BYTES), slice_str(text), key);
}

void s3_signing_key_of(const char *secret_key, const char *date, const char *region,
                       struct s3_signing_key *out_key)
{
    char first[4 + 256];
    int len = snprintf(first, sizeof first, "AWS4%s", secret_key);
    check(len > 0 && len < (int)sizeof first && strlen(date) >= S3_DAY_BYTES - 1);
    memcpy(out_key->day, date, S3_DAY_BYTES - 1);
    out_key->day[S3_DAY_BYTES - 1] = 0;
    sha256_hmac(slice_of(first, (size_t)len), slice_str(out_key->day), out_key->key);
    step(out_key->key, region);
    step(out_key->key, SERVICE);
    step(out_key->key, "aws4_request");
    explicit_bzero(first, sizeof first);
}

static void put_signed_names(struct buf *out, const struct s3_to_sign *r, const uint8_t order[S3_PAIRS_MAX])
{
    for (size_t i = 0; i < r->header_count; i++) {
        if (i > 0)
            buf_put_u8(out, ';');
        buf_put_str(out, r->headers[order[i]].name);
    }
}

static void put_canonical(struct buf *out, const struct s3_to_sign *r, const uint8_t order[S3_PAIRS_MAX])
{
    buf_put_str(out, r->method);
    buf_put_u8(out, '\n');
    s3_put_encoded(out, slice_str(r->path), true);
    buf_put_u8(out, '\n');
    s3_put_query(out, r->params, r->param_count);
    buf_put_u8(out, '\n');
    for (size_t i = 0; i < r->header_count; i++) {
        const struct s3_pair *header = &r->headers[order[i]];
        buf_put_str(out, header->name);
        buf_put_u8(out, ':');
        buf_put_str(out, header->value);
        buf_put_u8(out, '\n');
    }
    buf_put_u8(out, '\n');
    put_signed_names(out, r, order);
    buf_put_u8(out, '\n');
    buf_put_str(out, r->payload_sha256);
}

void s3_sign(const struct s3_to_sign *r, const struct s3_signing_key *key, struct buf *out)
{
    check(strncmp(key->day, r->date, S3_DAY_BYTES - 1) == 0);
    uint8_t order[S3_PAIRS_MAX], digest[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    sort(r->headers, r->header_count, order);
    struct buf text = buf_open(out->pool, S3_SIGNED_MAX);
    put_canonical(&text, r, order);
    sha256_of(buf_slice(&text), digest);
    sha256_print(digest, hex);
    if (buf_err(&text) != OK)
        out->failed = buf_err(&text);
    buf_clear(&text);
    buf_printf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/" SERVICE "/aws4_request\n%s", r->date, key->day,
               r->region, hex);
    sha256_hmac(slice_of(key->key, sizeof key->key), buf_slice(&text), digest);
    sha256_print(digest, hex);
    buf_printf(out,
               "AWS4-HMAC-SHA256 Credential=%s/%s/%s/" SERVICE "/aws4_request,SignedHeaders=", r->access_key,
               key->day, r->region);
    put_signed_names(out, r, order);
    buf_printf(out, ",Signature=%s", hex);
    if (buf_err(&text) != OK)
        out->failed = buf_err(&text);
    buf_close(&text);
}

void s3_crc_print(uint32_t crc, char out[S3_BASE64_BYTES_4])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint64_t bits = (uint64_t)crc << 4; /* 32 bits as six digits of 6 bits */
    for (int i = 0; i < 6; i++)
        out[i] = digits[bits >> (30 - 6 * i) & 63];
    out[6] = out[7] = '=';
    out[8] = 0;
}
