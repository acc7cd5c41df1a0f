/* The S3 driver against a real store, driven by tests/integration/test_s3.py.
 *
 *     s3_battery ENDPOINT BUCKET COMMAND [COUNT [KEYS]]
 *
 * with S3_ACCESS, S3_SECRET; S3_CLOCK_MS: is added to the clock; S3_CA: certificates to trust; S3_VIRTUAL:
 * bucket.host; S3_METADATA: credentials from there, as a role of the machine.
 *
 *     make           make the bucket            open     open it: "OK", or the error and its text, and status 1
 *     battery COUNT KEYS  every call of blob.h, COUNT races of 20 writers, a list of KEYS; one line a check with
 *                    its figures
 *     load COUNT     COUNT numbered objects by 4 threads, each put until it is acknowledged
 *     verify COUNT   all of them are there, whole, and no others
 *     all commands but make work below the prefix "test" */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "blob/s3.h"
#include "io/io.h"
#include "net/client.h"

#define WRITERS    20
#define RACES_MAX  30
#define LISTERS    8
#define FILE_BYTES ((12u << 20) + 12345)
#define PART_BYTES (5u << 20)

static struct io *io;
static struct pool *root;
static struct blob *blob;
static int64_t clock_ms;
static struct net_tls_options tls;

int64_t __real_io_now_ms(struct io *of);
int64_t __wrap_io_now_ms(struct io *of); /* the linker puts it in the place of io_now_ms */
int64_t __wrap_io_now_ms(struct io *of) { return __real_io_now_ms(of) + clock_ms; }

#define MUST(condition)                                                               \
    do {                                                                              \
        if (!(condition)) {                                                           \
            struct err_at must_at;                                                    \
            blob_s3_last_failure(blob, &must_at);                                     \
            fprintf(stderr, "line %d: %s; %s\n", __LINE__, #condition, must_at.text); \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

static double seconds(void) { return (double)io_monotonic_ns(io) / 1e9; }

static struct blob_s3_config config_of(const char *endpoint, const char *bucket)
{
    struct blob_s3_config config = blob_s3_defaults();
    config.endpoint = endpoint;
    config.bucket = bucket;
    config.prefix = "test";
    config.tls = &tls;
    config.virtual_host = getenv("S3_VIRTUAL") != NULL;
    if (getenv("S3_METADATA") != NULL) {
        config.source = BLOB_S3_INSTANCE;
        config.metadata_url = getenv("S3_METADATA");
    }
    config.access_key = getenv("S3_ACCESS");
    config.secret_key = getenv("S3_SECRET");
    config.connections_max = WRITERS;
    config.part_bytes = PART_BYTES;
    return config;
}

static int open_store(const char *endpoint, const char *bucket)
{
    struct blob_s3_config config = config_of(endpoint, bucket);
    struct err_at at = { .text = "" };
    config.retry_ms = 3000;
    err e = blob_open_s3(&config, io, root, &blob, &at);
    printf("%s%s%s\n", e == OK ? "OK" : err_text(e), at.text[0] != 0 ? ": " : "", at.text);
    return e != OK;
}

/* PUT of the bucket itself, which the driver never does. */
static int make_bucket(const char *endpoint, const char *bucket)
{
    char url[512], path[128], date[S3_DATE_BYTES], lines[3][400];
    struct s3_signing_key key;
    struct s3_transport *transport;
    struct s3_response response = { 0 };
    struct err_at at = { .text = "" };
    struct buf authorization = buf_open(root, 4096), body = buf_open(root, 65536);
    snprintf(path, sizeof path, "/%s", bucket);
    snprintf(url, sizeof url, "%s%s", endpoint, path);
    s3_date_print(io_now_ms(io), date);
    s3_signing_key_of(getenv("S3_SECRET"), date, "us-east-1", &key);
    const struct s3_pair headers[] = { { "host", strstr(endpoint, "//") + 2 },
                                       { "x-amz-date", date },
                                       { "x-amz-content-sha256", S3_EMPTY_SHA256 },
                                       { "content-type", "text/plain" } };
    struct s3_to_sign sign = {
        "PUT", path, NULL, 0, headers, 4, S3_EMPTY_SHA256, date, "us-east-1", getenv("S3_ACCESS")
    };
    s3_sign(&sign, &key, &authorization);
    snprintf(lines[0], sizeof lines[0], "Authorization: %.*s", SLICE_ARG(buf_slice(&authorization)));
    snprintf(lines[1], sizeof lines[1], "x-amz-date: %s", date);
    snprintf(lines[2], sizeof lines[2], "x-amz-content-sha256: %s", S3_EMPTY_SHA256);
    const char *all[] = { lines[0], lines[1], lines[2], "content-type: text/plain" };
    struct s3_request request = { .method = "PUT",
                                  .url = url,
                                  .headers = all,
                                  .header_count = 4,
                                  .timeout_ms = 20000,
                                  .answer_bytes_max = 65536 };
    check(s3_transport_open(io, root, &tls, 1, NULL, &transport) == OK);
    err e = transport->exchange(transport, &request, &body, &response, &at);
    printf("%s %u %s %.*s\n", err_text(e), response.status, at.text, SLICE_ARG(buf_slice(&body)));
    transport->close(transport);
    return e != OK || response.status / 100 != 2;
}

/* ---- the race: WRITERS put each key, with bytes of their own ---- */

static _Atomic int race_won[RACES_MAX], race_lost[RACES_MAX], race_failed;
static pthread_barrier_t barrier;
static int argument, list_count = 1200; /* two pages */

static void race_key(int round, char out[64]) { snprintf(out, 64, "race/%03d", round); }

static void *race(void *context)
{
    int writer = (int)(intptr_t)context;
    for (int round = 0; round < argument; round++) {
        char key[64], bytes[64];
        race_key(round, key);
        snprintf(bytes, sizeof bytes, "writer %02d of round %03d", writer, round);
        pthread_barrier_wait(&barrier);
        err e = blob_put(blob, key, slice_str(bytes));
        atomic_fetch_add(e == OK ? &race_won[round] : e == ERR_EXISTS ? &race_lost[round] : &race_failed, 1);
    }
    return NULL;
}

static void run_race(void)
{
    pthread_t threads[WRITERS];
    check(argument <= RACES_MAX);
    double begin = seconds();
    check(pthread_barrier_init(&barrier, NULL, WRITERS) == 0);
    for (int i = 0; i < WRITERS; i++)
        check(pthread_create(&threads[i], NULL, race, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < argument; i++)
        MUST(race_won[i] == 1 && race_lost[i] == WRITERS - 1);
    MUST(race_failed == 0);
    printf("race: %d writers, %d keys, one winner each, %.2f s\n", WRITERS, argument, seconds() - begin);
}

/* ---- one call after another ---- */

/* One request with If-Match, which is what makes a late replacement harmless. */
static err put_if_match(const char *key, const char *etag, struct s3_result *r)
{
    struct s3_call call = { .method = "PUT",
                            .key = key,
                            .headers = { { "if-match", etag } },
                            .header_count = 1,
                            .answer_bytes_max = 65536 };
    return s3_try((struct s3_store *)blob, &call, r);
}

static void run_conditions(void)
{
    static const char key[] = "p000/chain/00000005";
    char etag[S3_ETAG_BYTES_MAX];
    struct s3_patience patience = { 0 };
    struct s3_result r;
    s3_result_open((struct s3_store *)blob, &r);
    MUST(blob_put(blob, key, slice_str("there")) == OK);
    MUST(s3_head((struct s3_store *)blob, key, true, &r, &patience) == OK);
    memcpy(etag, r.response.etag, sizeof etag);
    MUST(put_if_match(key, "\"0123456789abcdef0123456789abcdef\"", &r) == ERR_EXISTS);
    MUST(put_if_match(key, etag, &r) == OK);
    MUST(put_if_match(key, etag, &r) == ERR_EXISTS);
    MUST(blob_delete(blob, key) == OK);
    MUST(put_if_match(key, etag, &r) == ERR_EXISTS);
    s3_result_close(&r);
}

static void run_objects(void)
{
    struct slice got;
    uint64_t size = 0;
    char part[10];
    struct blob_handle *handle;
    MUST(blob_put(blob, "p000/chain/00000001", slice_str("0123456789abcdef")) == OK);
    MUST(blob_put(blob, "p000/chain/00000001", slice_str("0123456789abcdef")) == ERR_EXISTS);
    MUST(blob_put(blob, "p000/chain/00000002", slice_str("")) == OK);
    MUST(blob_size(blob, "p000/chain/00000001", &size) == OK && size == 16);
    MUST(blob_size(blob, "p000/chain/00000003", &size) == ERR_NOT_FOUND);
    MUST(blob_get(blob, "p000/chain/00000003", 100, root, &got) == ERR_NOT_FOUND);
    MUST(blob_get(blob, "p000/chain/00000001", 100, root, &got) == OK &&
         slice_equal_str(got, "0123456789abcdef"));
    MUST(blob_get(blob, "p000/chain/00000001", 15, root, &got) == ERR_LIMIT);
    MUST(blob_get(blob, "p000/chain/00000002", 100, root, &got) == OK && got.len == 0);
    MUST(blob_get(blob, "p000/chain/00000002", 0, root, &got) == OK && got.len == 0);
    MUST(blob_open(blob, "p000/chain/00000003", &handle) == ERR_NOT_FOUND);
    MUST(blob_open(blob, "p000/chain/00000001", &handle) == OK && blob_handle_size(handle) == 16);
    MUST(blob_read(handle, 6, part, 10) == OK && memcmp(part, "6789abcdef", 10) == 0);
    MUST(blob_read(handle, 15, part, 1) == OK && part[0] == 'f');
    MUST(blob_read(handle, 16, part, 0) == OK);
    MUST(blob_read(handle, 15, part, 2) == ERR_END);
    MUST(blob_replace(blob, "p000/chain/00000001", slice_str("0123456789abcdef")) == OK);
    MUST(blob_read(handle, 6, part, 10) == OK && memcmp(part, "6789abcdef", 10) == 0);
    MUST(blob_replace(blob, "p000/chain/00000001", slice_str("other bytes here")) == OK);
    MUST(blob_read(handle, 0, part, 5) == ERR_CONFLICT); /* another object is there now */
    blob_handle_close(handle);
    MUST(blob_replace(blob, "p000/chain/00000004", slice_str("of nothing")) == OK);
    MUST(blob_delete(blob, "p000/chain/00000004") == OK);
    run_conditions();
    MUST(blob_get(blob, "p000/chain/00000001", 100, root, &got) == OK &&
         slice_equal_str(got, "other bytes here"));
    MUST(blob_delete(blob, "p000/chain/00000001") == OK);
    MUST(blob_delete(blob, "p000/chain/00000001") == ERR_NOT_FOUND);
    MUST(blob_delete(blob, "p000/chain/00000002") == OK);
    printf("objects: put, get, read, replace, delete\n");
}

static void *put_listed(void *context)
{
    char key[64];
    for (int i = (int)(intptr_t)context; i < list_count; i += LISTERS) {
        snprintf(key, sizeof key, "list/%04d", (i * 7919) % list_count);
        MUST(blob_put(blob, key, slice_str("x")) == OK);
    }
    return NULL;
}

static void run_list(void)
{
    struct blob_entry *entries;
    size_t count;
    char key[64];
    pthread_t threads[LISTERS];
    double begin = seconds();
    for (int i = 0; i < LISTERS; i++)
        check(pthread_create(&threads[i], NULL, put_listed, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < LISTERS; i++)
        pthread_join(threads[i], NULL);
    double put_s = seconds() - begin; /* and now below, beside and around '/' */
    MUST(blob_put(blob, "list/sub/0001", slice_str("x")) == OK);
    MUST(blob_put(blob, "list.a/0001", slice_str("x")) == OK &&
         blob_put(blob, "lis/0001", slice_str("x")) == OK);
    begin = seconds();
    MUST(blob_list(blob, "list", root, &entries, &count) == OK && count == (size_t)list_count);
    double list_s = seconds() - begin;
    for (int i = 0; i < list_count; i++) {
        snprintf(key, sizeof key, "list/%04d", i);
        MUST(strcmp(entries[i].key, key) == 0);
        int64_t age_ms = io_now_ms(io) - entries[i].t_ms; /* its clock is this machine's, cut to seconds */
        MUST(age_ms >= -1000 && age_ms <= 600000);
    }
    MUST(blob_list(blob, "list/sub", root, &entries, &count) == OK && count == 1);
    MUST(blob_list(blob, "nothing", root, &entries, &count) == OK && count == 0);
    printf("list: %d keys put at %.0f/s, listed in %.0f ms\n", list_count, list_count / put_s, list_s * 1e3);
}

static void make_file(const char *path, uint8_t *bytes)
{
    struct io_file *file;
    ERR_IGNORE(io_unlink(io, path));
    MUST(io_file_open(io, path, IO_CREATE, &file) == OK);
    MUST(io_file_write(file, 0, slice_of(bytes, FILE_BYTES)) == OK);
    io_file_close(file);
}

static void run_files(void)
{
    struct slice got;
    struct blob_handle *handle;
    uint8_t *bytes, *read;
    char path[64];
    MUST(pool_alloc(root, FILE_BYTES, (void **)&bytes) == OK &&
         pool_alloc(root, FILE_BYTES, (void **)&read) == OK);
    io_random(io, bytes, FILE_BYTES);
    snprintf(path, sizeof path, "/tmp/s3_battery_%d", getpid());
    make_file(path, bytes);
    double begin = seconds();
    MUST(blob_put_file(blob, "p000/segment/abc", path) == OK);
    double put_s = seconds() - begin;
    MUST(!io_exists(io, path));
    make_file(path, bytes);
    MUST(blob_put_file(blob, "p000/segment/abc", path) == ERR_EXISTS && io_exists(io, path));
    MUST(blob_open(blob, "p000/segment/abc", &handle) == OK && blob_handle_size(handle) == FILE_BYTES);
    begin = seconds();
    MUST(blob_read(handle, 0, read, FILE_BYTES) == OK && memcmp(read, bytes, FILE_BYTES) == 0);
    double read_s = seconds() - begin;
    MUST(blob_read(handle, PART_BYTES - 10, read, 20) == OK &&
         memcmp(read, bytes + PART_BYTES - 10, 20) == 0);
    blob_handle_close(handle);
    MUST(blob_get(blob, "p000/segment/abc", FILE_BYTES, root, &got) == OK && got.len == FILE_BYTES);
    MUST(memcmp(got.at, bytes, FILE_BYTES) == 0);
    MUST(blob_open(blob, "p000/segment/abc", &handle) == OK);
    MUST(blob_replace(blob, "p000/segment/abc", slice_of(bytes, FILE_BYTES)) == OK); /* whole: another ETag */
    MUST(blob_read(handle, PART_BYTES - 10, read, 20) == OK &&
         memcmp(read, bytes + PART_BYTES - 10, 20) == 0);
    blob_handle_close(handle);
    bytes[FILE_BYTES / 2] ^= 1;
    make_file(path, bytes);
    MUST(blob_replace_file(blob, "p000/segment/abc", path) == OK);
    MUST(blob_get(blob, "p000/segment/abc", FILE_BYTES, root, &got) == OK &&
         memcmp(got.at, bytes, FILE_BYTES) == 0);
    MUST(blob_delete(blob, "p000/segment/abc") == OK);
    printf("files: 12 MiB in parts of 5 MiB, put at %.0f MB/s, read at %.0f MB/s\n", FILE_BYTES / put_s / 1e6,
           FILE_BYTES / read_s / 1e6);
}

static bool is_segment(const char *key) { return strstr(key, "/segment/") != NULL; }

/* A cache of 64 MiB in front of the store; both are closed at the end. */
static void run_cache(void)
{
    struct blob_cache_config config = blob_cache_defaults();
    struct blob_handle *handle;
    struct blob *cache;
    struct err_at at;
    uint8_t *bytes, *read;
    char path[64], directory[64];
    MUST(pool_alloc(root, FILE_BYTES, (void **)&bytes) == OK &&
         pool_alloc(root, FILE_BYTES, (void **)&read) == OK);
    io_random(io, bytes, FILE_BYTES);
    snprintf(path, sizeof path, "/tmp/s3_battery_%d", getpid());
    snprintf(directory, sizeof directory, "/tmp/s3_battery_cache_%d", getpid());
    config.directory = directory;
    config.bytes_max = 64u << 20;
    config.is_immutable = is_segment;
    MUST(blob_open_cached(blob, &config, io, root, &cache, &at) == OK);
    make_file(path, bytes);
    MUST(blob_put_file(cache, "p000/segment/cached", path) == OK);
    int64_t requests = stat_get(STAT_BLOB_S3_REQUESTS);
    MUST(blob_open(cache, "p000/segment/cached", &handle) == OK && blob_handle_size(handle) == FILE_BYTES);
    MUST(blob_read(handle, 0, read, FILE_BYTES) == OK && memcmp(read, bytes, FILE_BYTES) == 0);
    MUST(stat_get(STAT_BLOB_S3_REQUESTS) == requests);
    MUST(blob_doubt(cache, "p000/segment/cached"));
    double begin = seconds();
    for (size_t from = 0; from < FILE_BYTES; from += 65536) { /* as a merge reads */
        size_t len = FILE_BYTES - from < 65536 ? FILE_BYTES - from : 65536;
        MUST(blob_read(handle, from, read + from, len) == OK);
    }
    double miss_s = seconds() - begin;
    MUST(memcmp(read, bytes, FILE_BYTES) == 0);
    MUST(stat_get(STAT_BLOB_S3_REQUESTS) == requests + 14); /* one for its version, and 13 blocks */
    begin = seconds();
    for (size_t from = 0; from + 65536 <= FILE_BYTES; from += 65536)
        MUST(blob_read(handle, from, read + from, 65536) == OK);
    double hit_s = seconds() - begin;
    MUST(stat_get(STAT_BLOB_S3_REQUESTS) == requests + 14 && memcmp(read, bytes, FILE_BYTES) == 0);
    MUST(stat_get(STAT_BLOB_CACHE_DAMAGED) == 0 && stat_get(STAT_BLOB_CACHE_FAILURES) == 0);
    blob_handle_close(handle);
    MUST(blob_delete(cache, "p000/segment/cached") == OK);
    MUST(io_dir_remove(io, directory) == OK); /* it is empty */
    printf("cache: 12 MiB by 64 KiB, from the store at %.0f MB/s, from the disk at %.0f MB/s\n",
           FILE_BYTES / miss_s / 1e6, FILE_BYTES / hit_s / 1e6);
    blob_close(cache);
    blob = NULL;
}

static int battery(void)
{
    run_objects();
    run_race();
    run_list();
    run_files();
    run_cache();
    printf("requests %lld, retries %lld, failures %lld\n", (long long)stat_get(STAT_BLOB_S3_REQUESTS),
           (long long)stat_get(STAT_BLOB_S3_RETRIES), (long long)stat_get(STAT_BLOB_S3_FAILURES));
    return 0;
}

/* ---- load and verify ---- */

static _Atomic int next_number, exists_count;

static void content(int number, char out[256])
{
    snprintf(out, 256, "object %d %0200d", number, number * 31);
}

static void *load(void *context)
{
    for (int n; (n = atomic_fetch_add(&next_number, 1)) < argument;) {
        char key[64], bytes[256];
        snprintf(key, sizeof key, "load/%06d", n);
        content(n, bytes);
        err e = ERR_IO;
        for (int i = 0; i < 100 && e != OK && e != ERR_EXISTS; i++) {
            e = blob_put(blob, key, slice_str(bytes));
            if (e != OK && e != ERR_EXISTS)
                io_sleep_ns(io, 200 * NS_PER_MS);
        }
        MUST(e == OK || e == ERR_EXISTS);
        atomic_fetch_add(&exists_count, e == ERR_EXISTS);
        if (n % 50 == 0) {
            printf("at %d\n", n);
            fflush(stdout);
        }
    }
    return NULL;
}

static int run_load(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        check(pthread_create(&threads[i], NULL, load, NULL) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("loaded %d, there already %d, retries %lld, failures %lld\n", argument, exists_count,
           (long long)stat_get(STAT_BLOB_S3_RETRIES), (long long)stat_get(STAT_BLOB_S3_FAILURES));
    return 0;
}

static int run_verify(void)
{
    struct blob_entry *entries;
    size_t count;
    struct slice got;
    char bytes[256];
    MUST(blob_list(blob, "load", root, &entries, &count) == OK && count == (size_t)argument);
    for (int i = 0; i < argument; i++) {
        content(i, bytes);
        MUST(blob_get(blob, entries[i].key, 1000, root, &got) == OK && slice_equal_str(got, bytes));
    }
    printf("verified %d\n", argument);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 4 || getenv("S3_ACCESS") == NULL || getenv("S3_SECRET") == NULL)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    clock_ms = getenv("S3_CLOCK_MS") != NULL ? strtoll(getenv("S3_CLOCK_MS"), NULL, 10) : 0;
    tls.ca_file = getenv("S3_CA");
    argument = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 0;
    list_count = argc > 5 ? (int)strtol(argv[5], NULL, 10) : list_count;
    check(io_open("/tmp", &io) == OK);
    root = pool_open(NULL, "battery", POOL_BYTES_UNLIMITED);
    const char *command = argv[3];
    int status = strcmp(command, "make") == 0 ? make_bucket(argv[1], argv[2]) : open_store(argv[1], argv[2]);
    if (status == 0 && strcmp(command, "battery") == 0)
        status = battery();
    else if (status == 0 && strcmp(command, "load") == 0)
        status = run_load();
    else if (status == 0 && strcmp(command, "verify") == 0)
        status = run_verify();
    blob_close(blob);
    pool_close(root);
    io_close(io);
    return status;
}
