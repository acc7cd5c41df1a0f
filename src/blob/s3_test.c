/* Goal: opening and putting of the S3 driver keep the promises of blob.h whatever the store and the network
 * do. Method: a store in memory (s3_fake.h) with faults: lost requests and answers, errors, conflicts, wrong
 * ranges, damaged bytes, garbage. */
#include "blob/s3_fixture.h"

/* ---- opening ---- */

static void test_open_tries_the_store_and_cleans_up(void **state)
{
    struct blob_s3_config config = test_config();
    struct blob *blob;
    struct err_at at = { .text = "" };
    int64_t now_ms = io_now_ms(io);
    char old[100], young[100];
    fake_init(&fake, io, root);
    snprintf(old, sizeof old, PREFIX "/probe/%lld-ab", (long long)(now_ms - 2 * MS_PER_HOUR));
    snprintf(young, sizeof young, PREFIX "/probe/%lld-ab", (long long)(now_ms - MS_PER_MINUTE));
    fake_store(&fake, old, slice_str("x"), "", "");
    fake_store(&fake, young, slice_str("x"), "", "");
    fake_store(&fake, PREFIX "/probe/other", slice_str("x"), "", "");
    fake_begin(&fake, PREFIX "/p000/a", now_ms - 3 * MS_PER_DAY);
    fake_begin(&fake, PREFIX "/p000/b", now_ms - MS_PER_DAY - MS_PER_HOUR); /* it may still be sent */
    fake_begin(&fake, "elsewhere/p000/a", now_ms - 3 * MS_PER_DAY);
    assert_ok(blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
    assert_int_equal(fake.requests, 12 + 2); /* and what was left */
    assert_int_equal(fake.object_count, 2);
    assert_null(fake_find(&fake, old));
    assert_int_equal(fake_open_uploads(&fake), 2);
    assert_false(fake.uploads[0].is_open);
    blob_close(blob);
    assert_true(fake.is_closed);
    fake_init(&fake, io, root);
    config.as_is = true;
    assert_ok(blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
    assert_int_equal(fake.requests, 1);
    blob_close(blob);
}

/* Cleaning up after others is not worth waiting for. */
static void test_open_cleans_up_in_passing(void **state)
{
    struct blob_s3_config config = test_config();
    struct blob *blob;
    struct err_at at = { .text = "" };
    int64_t now_ms = io_now_ms(io);
    char key[100];
    for (int uploads = 0; uploads < 2; uploads++) {
        fake_init(&fake, io, root);
        for (int i = 0; i < 10; i++) {
            snprintf(key, sizeof key, PREFIX "/probe/%lld-%d", (long long)(now_ms - 2 * MS_PER_HOUR), i);
            if (uploads != 0)
                fake_begin(&fake, PREFIX "/p000/a", now_ms - 3 * MS_PER_DAY);
            else
                fake_store(&fake, key, slice_str("x"), "", "");
        }
        /* The probe's own upload and object come first. */
        fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "DELETE", .status = 500, .code = "InternalError",
                                             .skip = 3, .count = 1000 });
        assert_ok(blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
        assert_int_equal(fake.faults[0].count, 999);
        assert_int_equal(fake.object_count + fake_open_uploads(&fake), 9);
        blob_close(blob);
    }
}

/* A network that fails at any request of the probe says nothing of the store. */
static void test_open_blames_the_store_for_its_own_words_only(void **state)
{
    static const struct {
        struct fake_fault fault;
        err expected;
    } cases[] = {
        { { FAKE_LOST_BEFORE, .count = 1000 }, ERR_IO },
        { { FAKE_LOST_AFTER, .count = 1000 }, ERR_TIMEOUT },
        { { FAKE_STATUS, .status = 500, .code = "InternalError", .count = 1000 }, ERR_IO },
        { { FAKE_STATUS, .status = 503, .code = "SlowDown", .count = 1000 }, ERR_BUSY },
        { { FAKE_STATUS, .status = 404, .code = "", .count = 1000 }, ERR_IO },
        { { FAKE_STATUS, .status = 403, .code = "AccessDenied", .count = 1000 }, ERR_DENIED },
        { { FAKE_STATUS, .status = 501, .code = "NotImplemented", .count = 1000 }, ERR_UNSUPPORTED },
        { { FAKE_STATUS, .status = 400, .code = "InvalidArgument", .count = 1000 }, ERR_UNSUPPORTED },
    };
    struct blob_s3_config config = test_config();
    config.retry_ms = 5;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int skip = 0;; skip++) {
            struct blob *blob;
            struct err_at at = { .text = "" };
            fake_init(&fake, io, root);
            fake_add(&fake, cases[i].fault);
            fake.faults[0].skip = skip;
            err e = blob_open_s3_over(&config, &fake.base, io, root, &blob, &at);
            if (e == OK) {
                assert_true(skip >= 9); /* what fails now is the cleaning */
                blob_close(blob);
                break;
            }
            if (e != cases[i].expected)
                fail_msg("case %zu at request %d: %s: %s", i, skip, err_text(e), at.text);
        }
}

static void check_refused(const struct blob_s3_config *config, err expected, const char *text)
{
    struct blob *blob = NULL;
    struct err_at at = { .text = "" };
    err e = blob_open_s3_over(config, &fake.base, io, root, &blob, &at);
    if (e != expected || strstr(at.text, text) == NULL)
        fail_msg("%s (expected %s): \"%s\" (expected \"%s\")", err_text(e), err_text(expected), at.text,
                 text);
    assert_null(strstr(at.text, "SECRET"));
    assert_true(fake.is_closed);
    assert_int_equal(fake.object_count, 0);
    assert_int_equal(fake_open_uploads(&fake), 0);
}

static void test_open_refuses_by_name(void **state)
{
    struct blob_s3_config config = test_config();
    config.retry_ms = 100;
    static const struct {
        unsigned status;
        const char *code;
        err expected;
        const char *text;
    } cases[] = {
        { 404, "NoSuchBucket", ERR_NOT_FOUND, "there is no bucket bucket at http://127.0.0.1:1" },
        { 403, "SignatureDoesNotMatch", ERR_DENIED, "refuses access to the bucket" },
        { 403, "RequestTimeTooSkewed", ERR_DENIED, "clock is" },
        { 301, "PermanentRedirect", ERR_DENIED, "PermanentRedirect" },
        { 500, "InternalError", ERR_IO, "InternalError" },
        { 503, "SlowDown", ERR_BUSY, "SlowDown" },
        { 501, "NotImplemented", ERR_UNSUPPORTED, "NotImplemented" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_init(&fake, io, root);
        fake_add(&fake, (struct fake_fault){ FAKE_STATUS, .status = cases[i].status, .code = cases[i].code,
                                             .count = 1000 });
        check_refused(&config, cases[i].expected, cases[i].text);
    }
    fake_init(&fake, io, root);
    fake.date_ms = io_now_ms(io) + MS_PER_HOUR;
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, .status = 403, .code = "AccessDenied", .count = 1000 });
    check_refused(&config, ERR_DENIED, "behind the store's");
    fake_init(&fake, io, root);
    fake.ignores_condition = true;
    check_refused(&config, ERR_UNSUPPORTED, "ignores If-None-Match");
    fake_init(&fake, io, root);
    fake.ignores_condition_at_end = true;
    check_refused(&config, ERR_UNSUPPORTED, "ignores If-None-Match at the end of an upload in parts");
    fake_init(&fake, io, root);
    fake.drops_etags = true;
    check_refused(&config, ERR_UNSUPPORTED, "gives no ETag");
    fake_init(&fake, io, root);
    fake.drops_metadata = true;
    check_refused(&config, ERR_UNSUPPORTED, "does not keep metadata");
    fake_init(&fake, io, root);
    fake.ignores_range = true;
    check_refused(&config, ERR_UNSUPPORTED, "does not read ranges");
    fake_init(&fake, io, root);
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, .count = 1000 });
    check_refused(&config, ERR_IO, "connection refused");
}

static void test_open_refuses_configurations(void **state)
{
    const struct blob_s3_config good = test_config();
    struct blob_s3_config bad[16];
    size_t count = 0;
    for (size_t i = 0; i < 16; i++)
        bad[i] = good;
    bad[count++].endpoint = "127.0.0.1:1";
    bad[count++].endpoint = "ftp://host";
    bad[count++].endpoint = "http://";
    bad[count++].endpoint = "http://host/path";
    bad[count++].endpoint = "http://user@host";
    bad[count++].endpoint = "http://host:0";
    bad[count++].endpoint = "http://host:99999";
    bad[count++].bucket = "ab";
    bad[count++].bucket = "a/b/c";
    bad[count++].prefix = "/a";
    bad[count++].prefix = "a//b";
    bad[count++].region = "";
    bad[count++].access_key = "";
    bad[count++].secret_key = "with space";
    bad[count++].connections_max = 0;
    bad[count] = (struct blob_s3_config)good;
    bad[count].endpoint = "https://host";
    bad[count].bucket = "with.dot";
    bad[count++].virtual_host = true;
    for (size_t i = 0; i < count; i++) {
        struct blob *blob;
        struct err_at at = { .text = "" };
        fake_init(&fake, io, root);
        if (blob_open_s3_over(&bad[i], &fake.base, io, root, &blob, &at) != ERR_INPUT || at.text[0] == 0)
            fail_msg("configuration %zu is taken: %s", i, at.text);
        assert_null(strstr(at.text, "SECRET"));
        assert_int_equal(fake.requests, 0);
    }
    struct blob *blob;
    assert_err(ERR_INPUT, blob_open_s3(&good, io, root, &blob, NULL)); /* parts of 1,000 bytes */
}

static void test_addresses(void **state)
{
    static const struct {
        const char *endpoint;
        bool virtual_host;
        const char *host, *root;
    } cases[] = {
        { "http://host:9000/", false, "host:9000", "/bucket" },
        { "https://s3.region.example:443", false, "s3.region.example", "/bucket" },
        { "http://host:443", true, "bucket.host:443", "" },
        { "http://[::1]:80", false, "[::1]", "/bucket" },
        { "http://[::1]", false, "[::1]", "/bucket" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct blob_s3_config config = test_config();
        config.endpoint = cases[i].endpoint;
        config.virtual_host = cases[i].virtual_host;
        config.as_is = true;
        struct blob *blob = open_with(&config);
        assert_string_equal(((struct s3_store *)blob)->host, cases[i].host);
        assert_string_equal(((struct s3_store *)blob)->root, cases[i].root);
        blob_close(blob);
    }
}

/* ---- puts ---- */

static void test_a_put_survives_each_fault_of_each_request(void **state)
{
    static const struct fake_fault kinds[] = {
        { FAKE_LOST_BEFORE },
        { FAKE_LOST_AFTER },
        { FAKE_STATUS, .status = 500, .code = "InternalError" },
        { FAKE_STATUS_AFTER, .status = 500, .code = "InternalError" },
        { FAKE_STATUS_AFTER, .status = 502, .code = "" },
        { FAKE_STATUS, .status = 503, .code = "SlowDown", .retry_after_ms = 1 },
        { FAKE_STATUS, .status = 409, .code = "ConditionalRequestConflict" },
        { FAKE_STATUS_AFTER, .status = 409, .code = "ConditionalRequestConflict" },
        { FAKE_STATUS, .status = 404, .code = "" },
        { FAKE_STATUS, .status = 400, .code = "RequestTimeout" },
    };
    struct slice bytes = slice_str("some bytes");
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++)
        for (int skip = 0, count = 1; skip < 4; count = count % 3 + 1, skip += count == 1) {
            struct blob *blob = open_blob();
            struct fake_fault fault = kinds[kind];
            fault.skip = skip;
            fault.count = count;
            fake_add(&fake, fault);
            err e = blob_put(blob, "p000/x", bytes);
            if (e != OK)
                fail_msg("fault %zu at %d × %d: %s", kind, skip, count, err_text(e));
            assert_holds("p000/x", bytes);
            fake.fault_count = 0;
            assert_err(ERR_EXISTS, blob_put(blob, "p000/x", bytes));
            blob_close(blob);
        }
}

/* An HTTP client or a proxy sends a PUT again on its own: the store says 412 to the second. */
static void test_a_put_knows_its_own_object(void **state)
{
    struct blob *blob = open_blob();
    struct slice bytes = slice_str("some bytes");
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS_AFTER, "PUT", .status = 412,
                                         .code = "PreconditionFailed", .count = 1 });
    assert_ok(blob_put(blob, "p000/x", bytes));
    assert_int_equal(fake.requests, 2);
    assert_err(ERR_EXISTS, blob_put(blob, "p000/x", bytes)); /* equal bytes, another's put */
    /* Another wins while our request is lost. */
    fake_store(&fake, PREFIX "/p000/y", slice_str("others"), "", "");
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, "PUT", .count = 1 });
    assert_err(ERR_EXISTS, blob_put(blob, "p000/y", bytes));
    assert_holds("p000/y", slice_str("others"));
    /* 412 for an object that is gone by the time we look. */
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "PUT", .status = 412, .code = "PreconditionFailed",
                                         .count = 1 });
    assert_ok(blob_put(blob, "p000/z", bytes));
    assert_holds("p000/z", bytes);
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_AFTER, "PUT", .count = 2 });
    assert_ok(blob_replace(blob, "p000/z", slice_str("new")));
    assert_holds("p000/z", slice_str("new"));
    blob_close(blob);
}

/* What is no store's success: other statuses, and pages of proxies. */
static void test_only_the_stores_word_is_success(void **state)
{
    static const unsigned statuses[] = { 201, 202, 203, 204, 206, 299, 0 };
    struct slice bytes = slice_str("some bytes");
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        struct fake_fault fault = { FAKE_BARE, .status = statuses[i], .count = 2 };
        if (statuses[i] == 0)
            fault.kind = FAKE_PAGE;
        struct blob *blob = open_blob();
        fault.method = "PUT";
        fake_add(&fake, fault);
        assert_ok(blob_put(blob, "p000/x", bytes));
        assert_holds("p000/x", bytes);
        fake.faults[0] = fault;
        assert_ok(blob_replace(blob, "p000/x", slice_str("new")));
        assert_holds("p000/x", slice_str("new"));
        fault.method = "DELETE";
        fake.faults[0] = fault;
        assert_ok(blob_delete(blob, "p000/x"));
        if (statuses[i] != 204 && statuses[i] != 0) /* the two that a store says, too */
            assert_null(fake_find(&fake, PREFIX "/p000/x"));
        blob_close(blob);
    }
}

/* Whose object it is must not be read off an answer that is no store's. */
static void test_a_look_is_not_fooled(void **state)
{
    struct blob *blob = open_blob();
    struct slice bytes = slice_str("some bytes");
    static const enum fake_fault_kind kinds[] = { FAKE_PAGE, FAKE_PAGE_ETAG };
    for (size_t i = 0; i < 2; i++) {
        char key[20];
        snprintf(key, sizeof key, "p000/%zu", i);
        fake.fault_count = 0;
        fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, "PUT", .count = 1 });
        fake_add(&fake, (struct fake_fault){ kinds[i], "HEAD", .count = 1 });
        fake_add(&fake, (struct fake_fault){ kinds[i], "GET", .count = 1 });
        assert_ok(blob_put(blob, key, bytes)); /* nobody wrote */
        assert_holds(key, bytes);
        fake_add(&fake, (struct fake_fault){ FAKE_LOST_AFTER, "PUT", .count = 1 });
        fake_add(&fake, (struct fake_fault){ FAKE_NO_METADATA, "HEAD", .count = 1 });
        snprintf(key, sizeof key, "p001/%zu", i);
        assert_ok(blob_put(blob, key, bytes)); /* this call wrote */
    }
    fake.fault_count = 0;
    fake_store(&fake, PREFIX "/p000/foreign", slice_str("x"), "", "");
    fake_store(&fake, PREFIX "/p000/empty", slice_str(""), "", "");
    fake.requests = 0;
    assert_err(ERR_EXISTS, blob_put(blob, "p000/foreign", bytes));
    assert_int_equal(fake.requests, 3); /* put, head, first byte */
    assert_err(ERR_EXISTS, blob_put(blob, "p000/empty", bytes));
    assert_ok(blob_replace(blob, "p000/foreign", bytes));
    assert_holds("p000/foreign", bytes);
    be_hasty(blob);
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, "PUT", .count = 1000 });
    fake_add(&fake, (struct fake_fault){ FAKE_PAGE_ETAG, .count = 1000 });
    assert_err(ERR_IO, blob_put(blob, "p000/w", bytes));
    blob_close(blob);
}

/* A request that got stuck arrives after a later one. */
static void test_a_late_put_changes_nothing(void **state)
{
    struct blob *blob = open_blob();
    fake_add(&fake, (struct fake_fault){ FAKE_DELAYED, "PUT", .count = 2 });
    assert_ok(blob_put(blob, "p000/x", slice_str("first")));
    assert_int_equal(fake.delayed_count, 2);
    assert_ok(blob_replace(blob, "p000/x", slice_str("second")));
    fake_land(&fake);
    assert_holds("p000/x", slice_str("second"));
    fake.faults[0].count = 2;
    assert_ok(blob_replace(blob, "p000/x", slice_str("third")));
    assert_int_equal(fake.delayed_count, 2);
    assert_ok(blob_replace(blob, "p000/x", slice_str("fourth")));
    fake_land(&fake);
    assert_holds("p000/x", slice_str("fourth"));
    fake.faults[0].count = 1; /* of nothing there, too */
    assert_ok(blob_replace(blob, "p000/y", slice_str("third")));
    assert_ok(blob_replace(blob, "p000/y", slice_str("fourth")));
    fake_land(&fake);
    assert_holds("p000/y", slice_str("fourth"));
    blob_close(blob);
}

static void replace_meanwhile(void)
{
    if (fake.requests % 2 == 0)
        store_ours("p000/x", slice_str("others"));
}

static void delete_meanwhile(void)
{
    if (fake.requests == 2)
        fake_remove(&fake, PREFIX "/p000/x");
}

/* Others replace the same object between the look and the put. */
static void test_replacing_against_others(void **state)
{
    struct blob *blob = open_blob();
    store_ours("p000/x", slice_str("there"));
    assert_ok(blob_replace(blob, "p000/x", slice_str("mine")));
    assert_int_equal(fake.requests, 2);
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "PUT", .status = 412, .code = "PreconditionFailed",
                                         .count = 3 });
    assert_ok(blob_replace(blob, "p000/x", slice_str("mine")));
    assert_holds("p000/x", slice_str("mine"));
    fake.requests = 0;
    fake.meanwhile = delete_meanwhile;
    assert_ok(blob_replace(blob, "p000/x", slice_str("again")));
    assert_holds("p000/x", slice_str("again"));
    be_hasty(blob);
    fake.requests = 0;
    fake.meanwhile = replace_meanwhile;
    assert_err(ERR_BUSY, blob_replace(blob, "p000/x", slice_str("mine")));
    fake.meanwhile = NULL;
    assert_holds("p000/x", slice_str("others"));
    blob_close(blob);
}

static void test_a_put_that_fails_says_why(void **state)
{
    static const struct {
        struct fake_fault fault;
        err expected;
        int requests_max;
    } cases[] = {
        { { FAKE_LOST_BEFORE, .count = 1000 }, ERR_IO, 100 },
        { { FAKE_LOST_AFTER, .count = 1000 }, ERR_TIMEOUT, 100 },
        { { FAKE_STATUS, .status = 500, .code = "InternalError", .count = 1000 }, ERR_IO, 100 },
        { { FAKE_STATUS, .status = 403, .code = "AccessDenied", .count = 1000 }, ERR_DENIED, 1 },
        { { FAKE_STATUS, .status = 404, .code = "NoSuchBucket", .count = 1000 }, ERR_IO, 1 },
        { { FAKE_STATUS, .status = 507, .code = "Full", .count = 1000 }, ERR_SPACE, 1 },
        { { FAKE_STATUS, .status = 418, .code = "Teapot", .count = 1000 }, ERR_IO, 1 },
        { { FAKE_STATUS, .status = 409, .code = "ObjectParentIsFile", .count = 1000 }, ERR_UNSUPPORTED, 1 },
        { { FAKE_STATUS, .status = 400, .code = "EntityTooLarge", .count = 1000 }, ERR_LIMIT, 1 },
        { { FAKE_STATUS, .status = 503, .code = "SlowDown", .retry_after_ms = 60000, .count = 1000 },
          ERR_BUSY,
          1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct blob *blob = open_blob();
        struct err_at at;
        be_hasty(blob);
        int64_t failures = stat_get(STAT_BLOB_S3_FAILURES);
        fake_add(&fake, cases[i].fault);
        err e = blob_put(blob, "p000/x", slice_str("x"));
        if (e != cases[i].expected || fake.requests > cases[i].requests_max)
            fail_msg("case %zu: %s after %d requests", i, err_text(e), fake.requests);
        assert_int_equal(stat_get(STAT_BLOB_S3_FAILURES), failures + 1);
        blob_s3_last_failure(blob, &at);
        assert_true(at.text[0] != 0);
        int before = fake.requests;
        if (e == ERR_BUSY) { /* left alone, by every call */
            assert_err(ERR_BUSY, blob_put(blob, "p000/y", slice_str("x")));
            assert_int_equal(fake.requests, before);
        }
        blob_close(blob);
    }
}

static void test_a_store_that_is_down_is_not_hammered(void **state)
{
    struct blob_s3_config config = test_config();
    config.retries_per_minute = 5;
    config.retry_ms = 60000;
    struct blob *blob = open_with(&config);
    uint64_t size;
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, .count = 100000 });
    for (int i = 0; i < 50; i++)
        assert_err(ERR_IO, blob_size(blob, "p000/x", &size));
    assert_true(fake.requests <= 50 + 5 + 1); /* a retry more may have been earned meanwhile */
    blob_close(blob);
}

/* One retry a minute, and calls that come every few milliseconds: half a second is earned all the same. */
static void test_retries_are_earned_by_the_millisecond(void **state)
{
    struct blob_s3_config config = test_config();
    config.retries_per_minute = 1;
    struct blob *blob = open_with(&config);
    uint64_t size;
    int calls = 0;
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, .count = 1 << 30 });
    ((struct s3_store *)blob)->retry_parts = MS_PER_MINUTE - 500;
    int64_t begun_ns = io_monotonic_ns(io);
    for (; fake.requests == calls && io_monotonic_ns(io) - begun_ns < 30 * NS_PER_MS * 1000; calls++) {
        assert_err(ERR_IO, blob_size(blob, "p000/x", &size));
        io_sleep_ns(io, NS_PER_MS);
    }
    assert_true(fake.requests > calls);
    blob_close(blob);
}

static _Atomic bool is_aborted;
static void abort_meanwhile(void) { atomic_store(&is_aborted, true); }

/* Whatever a call was doing, or waiting for. */
static void test_abort_ends_calls(void **state)
{
    static const struct fake_fault faults[] = {
        { FAKE_LOST_BEFORE, .count = 1000 },
        { FAKE_STATUS, .status = 503, .code = "SlowDown", .retry_after_ms = 20000, .count = 1000 },
        { FAKE_STATUS, .status = 409, .code = "ConditionalRequestConflict", .count = 1000 },
        { FAKE_STATUS, "PUT", .status = 412, .code = "PreconditionFailed", .count = 1000 },
    };
    struct blob_s3_config config = test_config();
    config.backoff_ms = 10000;
    config.abort = &is_aborted;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        for (int call = 0; call < 7; call++) {
            atomic_store(&is_aborted, false);
            struct blob *blob = open_with(&config);
            struct blob_entry *entries;
            struct slice got;
            size_t count;
            uint64_t size;
            make_file("temp", call == 5 ? 3500 : 10);
            fake_add(&fake, faults[i]);
            fake.meanwhile = abort_meanwhile;
            err e = call == 0   ? blob_put(blob, "p000/x", slice_str("x"))
                    : call == 1 ? blob_replace(blob, "p000/x", slice_str("x"))
                    : call == 2 ? blob_size(blob, "p000/x", &size)
                    : call == 3 ? blob_get(blob, "p000/x", 10, root, &got)
                    : call == 4 ? blob_list(blob, "p000", root, &entries, &count)
                                : blob_put_file(blob, "p000/x", "temp");
            bool is_hit = faults[i].method == NULL || call < 2 || call > 4;
            if (is_hit ? e != ERR_CANCELED : e != OK && e != ERR_NOT_FOUND && e != ERR_CANCELED)
                fail_msg("fault %zu, call %d: %s", i, call, err_text(e));
            int before = fake.requests;
            assert_err(ERR_CANCELED, blob_put(blob, "p000/x", slice_str("x")));
            assert_int_equal(fake.requests, before);
            blob_close(blob);
            struct err_at at;
            atomic_store(&is_aborted, false);
            fake_init(&fake, io, root);
            fake_add(&fake, faults[i]);
            fake.meanwhile = abort_meanwhile;
            assert_err(ERR_CANCELED, blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
        }
}

/* ---- the gate ---- */

static struct blob *busy_blob;
static err busy_e;
static int busy_requests;

static void call_meanwhile(void)
{
    uint64_t size;
    fake.meanwhile = NULL;
    busy_requests = fake.requests;
    busy_e = blob_size(busy_blob, "p000/x", &size);
    busy_requests = fake.requests - busy_requests;
}

/* A call waits before it makes anything, not for ever, and not after abort. */
static void test_calls_wait_for_their_turn(void **state)
{
    struct blob_s3_config config = test_config();
    config.connections_max = 1;
    config.abort = &is_aborted;
    atomic_store(&is_aborted, false);
    busy_blob = open_with(&config);
    be_hasty(busy_blob);
    fake.meanwhile = call_meanwhile;
    assert_ok(blob_put(busy_blob, "p000/x", slice_str("x")));
    assert_err(ERR_BUSY, busy_e);
    assert_int_equal(busy_requests, 0);
    ((struct s3_store *)busy_blob)->config.retry_ms = 60000;
    assert_ok(s3_gate_enter(&((struct s3_store *)busy_blob)->gate, false, 0, NULL));
    atomic_store(&is_aborted, true);
    uint64_t size;
    assert_err(ERR_CANCELED, blob_size(busy_blob, "p000/x", &size));
    s3_gate_leave(&((struct s3_store *)busy_blob)->gate, false);
    atomic_store(&is_aborted, false);
    assert_ok(blob_size(busy_blob, "p000/x", &size));
    blob_close(busy_blob);
}

/* ---- two writers of one key, between whose requests the other's happen, with faults ---- */

static struct race {
    struct test_random random;
    struct blob *other;
    const char *key;
    err other_e;
    bool is_other_done, is_file;
    int faults;
} race;

static struct slice writer_bytes(int writer)
{
    return race.is_file ? slice_of(file_bytes + writer, 2500) : slice_of(file_bytes + writer, 50);
}

static err writer_put(struct blob *blob, int writer)
{
    char path[20];
    if (!race.is_file)
        return blob_put(blob, race.key, writer_bytes(writer));
    struct io_file *file;
    snprintf(path, sizeof path, "race-%d", writer);
    ERR_IGNORE(io_unlink(io, path));
    assert_ok(io_file_open(io, path, IO_CREATE, &file));
    assert_ok(io_file_write(file, 0, writer_bytes(writer)));
    io_file_close(file);
    return blob_put_file(blob, race.key, path);
}

static void race_meanwhile(void)
{
    static const struct fake_fault kinds[] = {
        { FAKE_LOST_BEFORE, .count = 1 },
        { FAKE_LOST_AFTER, .count = 1 },
        { FAKE_STATUS, .status = 500, .code = "InternalError", .count = 1 },
        { FAKE_STATUS_AFTER, .status = 503, .code = "SlowDown", .count = 1 },
        { FAKE_STATUS, .status = 409, .code = "ConditionalRequestConflict", .count = 1 },
        { FAKE_STATUS_AFTER, "PUT", .status = 412, .code = "PreconditionFailed",
          .count = 1 }, /* sent twice */
    };
    if (!race.is_other_done && test_random_below(&race.random, 4) == 0) {
        race.is_other_done = true;
        race.other_e = writer_put(race.other, 1);
    }
    fake.fault_count = 0;
    if (test_random_below(&race.random, 3) == 0) {
        fake_add(&fake, kinds[test_random_below(&race.random, sizeof kinds / sizeof kinds[0])]);
        race.faults++;
    }
}

static void test_at_most_one_writer_wins(void **state)
{
    int won[2] = { 0 }, unknown = 0;
    struct blob_s3_config config = test_config();
    struct err_at at;
    struct blob *first = NULL;
    race = (struct race){ .random = test_random_begin("s3_race") };
    for (int round = 0; round < 2000; round++) {
        if (round % 20 == 0 && round > 0) {
            blob_close(race.other);
            blob_close(first);
        }
        if (round % 20 == 0) {
            first = open_with(&config);
            assert_ok(blob_open_s3_over(&config, &fake.base, io, root, &race.other, &at));
        }
        char key[32], full[64];
        snprintf(key, sizeof key, "p000/r%d", round);
        snprintf(full, sizeof full, PREFIX "/%s", key);
        race.key = key;
        race.is_file = round % 4 == 0;
        race.is_other_done = false;
        fake.upload_count = 0;
        fake.meanwhile = race_meanwhile;
        err mine = writer_put(first, 0);
        if (!race.is_other_done)
            race.other_e = writer_put(race.other, 1);
        fake.meanwhile = NULL;
        fake.fault_count = 0;
        struct fake_object *object = fake_find(&fake, full);
        err got[2] = { mine, race.other_e };
        assert_false(got[0] == OK && got[1] == OK);
        for (int writer = 0; writer < 2; writer++) {
            bool is_there = object != NULL && slice_equal(object->bytes, writer_bytes(writer));
            if ((got[writer] == OK && !is_there) ||
                (got[writer] == ERR_EXISTS && (object == NULL || is_there)))
                fail_msg("round %d, writer %d: %s", round, writer, err_text(got[writer]));
            won[writer] += got[writer] == OK;
            unknown += got[writer] != OK && got[writer] != ERR_EXISTS;
        }
    }
    blob_close(race.other);
    blob_close(first);
    printf("# s3_race: %d and %d won, %d unknown, %d faults\n", won[0], won[1], unknown, race.faults);
    assert_true(won[0] > 100 && won[1] > 100 && unknown == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_tries_the_store_and_cleans_up),
        cmocka_unit_test(test_open_cleans_up_in_passing),
        cmocka_unit_test(test_open_blames_the_store_for_its_own_words_only),
        cmocka_unit_test(test_open_refuses_by_name),
        cmocka_unit_test(test_open_refuses_configurations),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_a_put_survives_each_fault_of_each_request),
        cmocka_unit_test(test_a_put_knows_its_own_object),
        cmocka_unit_test(test_only_the_stores_word_is_success),
        cmocka_unit_test(test_a_look_is_not_fooled),
        cmocka_unit_test(test_a_late_put_changes_nothing),
        cmocka_unit_test(test_replacing_against_others),
        cmocka_unit_test(test_a_put_that_fails_says_why),
        cmocka_unit_test(test_a_store_that_is_down_is_not_hammered),
        cmocka_unit_test(test_retries_are_earned_by_the_millisecond),
        cmocka_unit_test(test_abort_ends_calls),
        cmocka_unit_test(test_calls_wait_for_their_turn),
        cmocka_unit_test(test_at_most_one_writer_wins),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
