/* Any bytes as what an S3 store, a metadata service or a credentials file says. Byte 0 chooses: 'x' a body in XML,
 * 'h' headers, one a line, 'j' credentials in JSON, 'f' a credentials file. What is taken holds the promises of
 * s3_answer.h and s3_credentials.h. */
#include "base/check.h"
#include "blob/s3_answer.h"
#include "blob/s3_credentials.h"

#include <stddef.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (64u << 20)

static void is_shown(const char *text)
{
    check(strlen(text) <= 200);
    for (; *text != 0; text++)
        check(*text >= ' ' && *text <= '~');
}

static void body(struct slice bytes, struct pool *pool)
{
    struct s3_answer answer;
    if (s3_answer_decode(bytes, pool, &answer) != OK)
        return;
    is_shown(answer.code);
    is_shown(answer.message);
    is_shown(answer.region);
    is_shown(answer.etag);
    check(answer.count <= S3_PAGE_COUNT_MAX);
    check(answer.kind != S3_ANSWER_ERROR || answer.code[0] != 0);
    check(answer.kind != S3_ANSWER_LIST || answer.is_truncated == (answer.next_token[0] != 0));
    check(strlen(answer.next_token) <= S3_VALUE_BYTES_MAX);
    for (size_t i = 0; i < answer.count; i++)
        check(strlen(answer.items[i].key) <= S3_VALUE_BYTES_MAX &&
              strlen(answer.items[i].upload_id) <= S3_VALUE_BYTES_MAX && answer.items[i].t_ms >= 0 &&
              answer.items[i].t_ms <= INT64_C(253402300800000)); /* the year 10000 */
}

static void headers(struct slice bytes)
{
    struct s3_response r;
    s3_response_init(&r);
    while (bytes.len > 0) {
        const uint8_t *end = memchr(bytes.at, '\n', bytes.len);
        size_t len = end != NULL ? (size_t)(end - bytes.at) : bytes.len;
        const uint8_t *colon = len > 0 ? memchr(bytes.at, ':', len) : NULL;
        size_t name_len = colon != NULL ? (size_t)(colon - bytes.at) : len;
        size_t value_at = name_len + (colon != NULL);
        s3_response_header(&r, slice_part(bytes, 0, name_len), slice_part(bytes, value_at, len - value_at));
        bytes = slice_part(bytes, len + (end != NULL), bytes.len - len - (end != NULL));
    }
    check(r.content_bytes >= -1 && r.retry_after_ms >= -1 && r.retry_after_ms <= 3600000);
    check((r.range_first < 0) == (r.range_bytes < 0) && r.range_first <= r.range_last);
    check(r.range_bytes < 0 || r.range_last < r.range_bytes);
    is_shown(r.etag);
    is_shown(r.region);
    check(r.sha256[0] == 0 || strlen(r.sha256) == sizeof r.sha256 - 1);
    check(r.put_id[0] == 0 || strlen(r.put_id) == sizeof r.put_id - 1);
}

static void secrets(struct slice bytes, bool is_json, struct pool *pool)
{
    struct s3_secret secret;
    struct err_at at = { .text = "" };
    err e = is_json ? s3_credentials_from_json(bytes, pool, &secret, &at)
                    : s3_credentials_from_file(bytes, "default", &secret, &at);
    check((e == OK) == (at.text[0] == 0));
    if (e != OK)
        return;
    check(secret.access_key[0] != 0 && strlen(secret.access_key) < sizeof secret.access_key);
    check(secret.secret_key[0] != 0 && strlen(secret.secret_key) < sizeof secret.secret_key);
    check(strlen(secret.session_token) < sizeof secret.session_token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    struct slice bytes = slice_of(data + 1, size - 1);
    if (data[0] == 'x')
        body(bytes, pool);
    else if (data[0] == 'h')
        headers(bytes);
    else
        secrets(bytes, data[0] == 'j', pool);
    pool_close(pool);
    return 0;
}
