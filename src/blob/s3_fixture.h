/* What the tests of the S3 driver share: a store in memory, a driver opened on it. */
#ifndef BLOB_S3_FIXTURE_H
#define BLOB_S3_FIXTURE_H

#include "base/test.h"

#include <string.h>

#include "base/stat.h"
#include "base/time.h"
#include "blob/s3_fake.h"

#define PREFIX "pre/fix"

static struct pool *root;
static struct io *io;
static struct fake fake;
static uint8_t file_bytes[3500];

static inline struct blob_s3_config test_config(void)
{
    struct blob_s3_config config = blob_s3_defaults();
    config.endpoint = "http://127.0.0.1:1";
    config.bucket = "bucket";
    config.prefix = PREFIX;
    config.access_key = "AKID";
    config.secret_key = "SECRET-THAT-NOBODY-SEES";
    config.retry_ms = 60000; /* never the reason why something fails on a slow machine */
    config.backoff_ms = 1;
    config.retries_per_minute = 1000000;
    config.part_bytes = 1000;
    return config;
}

static inline struct blob *open_with(const struct blob_s3_config *config)
{
    struct blob *blob = NULL;
    struct err_at at = { .text = "" };
    fake_init(&fake, io, root);
    err e = blob_open_s3_over(config, &fake.base, io, root, &blob, &at);
    if (e != OK)
        fail_msg("%s: %s", err_text(e), at.text);
    fake.requests = 0;
    return blob;
}

/* For calls that are to fail: 50 ms of retries are enough. */
static inline void be_hasty(struct blob *blob) { ((struct s3_store *)blob)->config.retry_ms = 50; }

/* An object as this driver writes them, there without a request. */
static inline void store_ours(const char *key, struct slice bytes)
{
    uint8_t digest[SHA256_BYTES];
    char full[300], sha256[SHA256_HEX_BYTES];
    snprintf(full, sizeof full, PREFIX "/%s", key);
    sha256_of(bytes, digest);
    sha256_print(digest, sha256);
    fake_store(&fake, full, bytes, sha256, "00112233445566778899aabbccddeeff");
}

static inline struct blob *open_blob(void)
{
    struct blob_s3_config config = test_config();
    return open_with(&config);
}

static inline void assert_holds(const char *key, struct slice bytes)
{
    char full[300];
    snprintf(full, sizeof full, PREFIX "/%s", key);
    struct fake_object *object = fake_find(&fake, full);
    assert_non_null(object);
    assert_true(slice_equal(object->bytes, bytes));
}

static inline void make_file(const char *path, size_t len)
{
    struct io_file *file;
    ERR_IGNORE(io_unlink(io, path));
    assert_ok(io_file_open(io, path, IO_CREATE, &file));
    assert_ok(io_file_write(file, 0, slice_of(file_bytes, len)));
    io_file_close(file);
}

static inline int setup(void **state)
{
    char path[] = "/tmp/s3_test_XXXXXX";
    char *made = mkdtemp(path);
    assert_non_null(made);
    root = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct test_random random = test_random_begin("s3");
    for (size_t i = 0; i < sizeof file_bytes; i++)
        file_bytes[i] = (uint8_t)test_random_u64(&random);
    return io_open(path, &io) != OK;
}

static inline int teardown(void **state)
{
    pool_close(root);
    io_close(io);
    return 0;
}

#endif
