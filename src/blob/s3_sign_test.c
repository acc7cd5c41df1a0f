/* Goal: signatures as AWS calculates them. Method: the examples of its documentation ("Signature Calculations for
 * the Authorization Header", "Deriving a signing key"). */
#include "base/test.h"

#include <string.h>

#include "blob/s3_sign.h"

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SECRET       "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define DATE         "20130524T000000Z"
#define HOST         "examplebucket.s3.amazonaws.com"

static struct pool *root;

static void check_signature(const struct s3_to_sign *given, const char *expected)
{
    struct s3_to_sign r = *given;
    struct s3_signing_key key;
    struct buf out = buf_open(root, 4096);
    r.date = DATE;
    r.region = "us-east-1";
    r.access_key = "AKIAIOSFODNN7EXAMPLE";
    s3_signing_key_of(SECRET, DATE, r.region, &key);
    s3_sign(&r, &key, &out);
    buf_put_u8(&out, 0);
    assert_ok(buf_err(&out));
    assert_string_equal((char *)out.at, expected);
    buf_close(&out);
}

#define BEGIN \
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="

static void test_documented_examples(void **state)
{
    const struct s3_pair plain[] = { { "x-amz-date", DATE },
                                     { "x-amz-content-sha256", EMPTY_SHA256 },
                                     { "host", HOST } };
    const struct s3_pair range[] = { { "host", HOST },
                                     { "range", "bytes=0-9" },
                                     { "x-amz-content-sha256", EMPTY_SHA256 },
                                     { "x-amz-date", DATE } };
    static const char body_sha256[] = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    const struct s3_pair put[] = { { "x-amz-storage-class", "REDUCED_REDUNDANCY" },
                                   { "date", "Fri, 24 May 2013 00:00:00 GMT" },
                                   { "host", HOST },
                                   { "x-amz-content-sha256", body_sha256 },
                                   { "x-amz-date", DATE } };
    const struct s3_pair lifecycle[] = { { "lifecycle", "" } };
    const struct s3_pair list[] = { { "prefix", "J" }, { "max-keys", "2" } };
    check_signature(&(struct s3_to_sign){ "GET", "/test.txt", NULL, 0, range, 4, EMPTY_SHA256 },
                    BEGIN "host;range;x-amz-content-sha256;x-amz-date,Signature="
                          "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    check_signature(&(struct s3_to_sign){ "PUT", "/test$file.text", NULL, 0, put, 5, body_sha256 },
                    BEGIN "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,Signature="
                          "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    check_signature(&(struct s3_to_sign){ "GET", "/", lifecycle, 1, plain, 3, EMPTY_SHA256 },
                    BEGIN "host;x-amz-content-sha256;x-amz-date,Signature="
                          "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    check_signature(&(struct s3_to_sign){ "GET", "/", list, 2, plain, 3, EMPTY_SHA256 },
                    BEGIN "host;x-amz-content-sha256;x-amz-date,Signature="
                          "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void test_too_long_is_an_error(void **state)
{
    static char path[S3_SIGNED_MAX + 2];
    memset(path, '/', sizeof path - 1);
    struct s3_to_sign r = { "GET", path, NULL, 0, NULL, 0, EMPTY_SHA256, DATE, "r", "a" };
    struct s3_signing_key key;
    struct buf out = buf_open(root, 4096);
    s3_signing_key_of(SECRET, DATE, "r", &key);
    s3_sign(&r, &key, &out);
    assert_err(ERR_LIMIT, buf_err(&out));
    buf_close(&out);
}

static void test_texts(void **state)
{
    char date[S3_DATE_BYTES], crc[S3_BASE64_BYTES_4];
    s3_date_print(INT64_C(1369353600000), date);
    assert_string_equal(date, DATE);
    s3_date_print(INT64_C(1769903999999), date);
    assert_string_equal(date, "20260131T235959Z");
    /* CRC32C of "123456789" is e3069283 (RFC 3720 §B.4 describes it); base64 of those bytes. */
    assert_int_equal(crc32c(slice_str("123456789"), 0), 0xe3069283);
    s3_crc_print(0xe3069283, crc);
    assert_string_equal(crc, "4waSgw==");
    const struct s3_pair params[] = { { "uploadId", "a+b/c=" }, { "partNumber", "1" }, { "empty", "" } };
    struct buf out = buf_open(root, 4096);
    s3_put_query(&out, params, 3);
    assert_true(slice_equal_str(buf_slice(&out), "empty=&partNumber=1&uploadId=a%2Bb%2Fc%3D"));
    buf_clear(&out);
    s3_put_encoded(&out, slice_str("/a b/ü~"), true);
    assert_true(slice_equal_str(buf_slice(&out), "/a%20b/%C3%BC~"));
    buf_close(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documented_examples),
        cmocka_unit_test(test_too_long_is_an_error),
        cmocka_unit_test(test_texts),
    };
    root = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(root);
    return failed;
}
