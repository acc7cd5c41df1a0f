/* Goal: reads, lists and credentials of the S3 driver, whatever the store and the network do. Method: a store in
 * memory (s3_fake.h) with faults: wrong ranges, damaged bytes, garbage, pages without end. */
#include "blob/s3_fixture.h"

/* ---- reads ---- */

static void test_reads_give_exactly_what_was_asked_for(void **state)
{
    static const struct fake_fault faults[] = {
        { FAKE_TRUNCATED, "GET", .count = 2 },
        { FAKE_SHIFTED, "GET", .count = 2 },
        { FAKE_GARBAGE, "GET", .count = 2 },
        { FAKE_LOST_AFTER, "GET", .count = 2 },
        { FAKE_STATUS, "GET", .status = 503, .code = "SlowDown", .count = 2 },
        { FAKE_STATUS, "GET", .status = 404, .code = "", .count = 2 }, /* a proxy's, and so the rest */
        { FAKE_PAGE, "GET", .count = 2 },
        { FAKE_PAGE_ETAG, "GET", .count = 2 },
        { FAKE_BARE, "GET", .status = 412, .count = 2 },
        { FAKE_BARE, "GET", .status = 416, .count = 2 },
        { FAKE_BARE, "GET", .status = 203, .count = 2 },
        { FAKE_NO_METADATA, "GET", .count = 2 },
    };
    uint8_t at[3500];
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        for (int skip = 0; skip < 4; skip++) {
            struct blob *blob = open_blob();
            struct blob_handle *handle;
            struct slice got;
            store_ours("p000/f", slice_of(file_bytes, 3500));
            assert_ok(blob_open(blob, "p000/f", &handle));
            assert_int_equal(blob_handle_size(handle), 3500);
            fake_add(&fake, faults[i]);
            fake.faults[0].skip = skip;
            assert_ok(blob_read(handle, 100, at, 3300));
            assert_memory_equal(at, file_bytes + 100, 3300);
            fake.faults[0] = faults[i];
            fake.faults[0].skip = skip;
            assert_ok(blob_get(blob, "p000/f", 3500, root, &got));
            assert_true(slice_equal(got, slice_of(file_bytes, 3500)));
            assert_err(ERR_END, blob_read(handle, 3000, at, 501));
            blob_handle_close(handle);
            blob_close(blob);
        }
}

/* A proxy that never stops: an error, and none that says anything of the object. */
static void test_answers_of_others_are_no_objects(void **state)
{
    static const struct fake_fault faults[] = {
        { FAKE_PAGE, .count = 1 << 30 },
        { FAKE_PAGE_ETAG, .count = 1 << 30 },
        { FAKE_BARE, "GET", .status = 412, .count = 1 << 30 },
        { FAKE_BARE, "GET", .status = 416, .count = 1 << 30 },
        { FAKE_NO_METADATA, "GET", .count = 1 << 30 },
    };
    static const char page[] = "<html><body>Welcome!</html>"; /* as long as the proxy's */
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct blob *blob = open_blob();
        struct blob_handle *handle;
        struct slice got;
        char at[sizeof page - 1];
        store_ours("p000/f", slice_of(file_bytes, sizeof page - 1));
        assert_ok(blob_open(blob, "p000/f", &handle));
        be_hasty(blob);
        fake_add(&fake, faults[i]);
        assert_err(ERR_IO, blob_get(blob, "p000/f", 3500, root, &got));
        err e = blob_read(handle, 0, at, sizeof at);
        assert_err(faults[i].kind == FAKE_NO_METADATA ? OK : ERR_IO, e);
        blob_handle_close(handle);
        blob_close(blob);
    }
    /* Objects that were put without a digest, or with something else in its place. */
    struct blob *blob = open_blob();
    struct slice got;
    be_hasty(blob);
    fake_store(&fake, PREFIX "/p000/g", slice_str("bytes"), "", "");
    assert_err(ERR_IO, blob_get(blob, "p000/g", 3500, root, &got));
    fake_store(&fake, PREFIX "/p000/h", slice_str("bytes"), "123g", "");
    assert_err(ERR_IO, blob_get(blob, "p000/h", 3500, root, &got));
    fake_store(&fake, PREFIX "/p000/e", slice_str(""), "", "");
    assert_err(ERR_IO, blob_get(blob, "p000/e", 3500, root, &got));
    blob_close(blob);
}

static void test_absence_is_only_what_the_store_says(void **state)
{
    struct blob *blob = open_blob();
    struct blob_handle *handle;
    struct slice got;
    uint64_t size;
    assert_err(ERR_NOT_FOUND, blob_size(blob, "p000/x", &size));
    assert_err(ERR_NOT_FOUND, blob_get(blob, "p000/x", 100, root, &got));
    assert_err(ERR_NOT_FOUND, blob_open(blob, "p000/x", &handle));
    assert_err(ERR_NOT_FOUND, blob_delete(blob, "p000/x"));
    static const struct fake_fault others[] = {
        { FAKE_STATUS, .status = 404, .code = "NoSuchBucket", .count = 1000 },
        { FAKE_STATUS, .status = 404, .code = "", .count = 1000 },
        { FAKE_STATUS, .status = 404, .code = "PageNotFound", .count = 1000 },
    };
    be_hasty(blob);
    for (size_t i = 0; i < 3; i++) {
        fake.fault_count = 0;
        fake_add(&fake, others[i]);
        assert_err(ERR_IO, blob_size(blob, "p000/x", &size));
        assert_err(ERR_IO, blob_get(blob, "p000/x", 100, root, &got));
        assert_err(ERR_IO, blob_open(blob, "p000/x", &handle));
        assert_err(ERR_IO, blob_delete(blob, "p000/x"));
    }
    /* A HEAD that finds nothing while a GET does. */
    fake.fault_count = 0;
    fake_store(&fake, PREFIX "/p000/y", slice_str("y"), "", "");
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "HEAD", .status = 404, .code = "", .count = 1 });
    assert_ok(blob_size(blob, "p000/y", &size));
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "HEAD", .status = 404, .code = "", .count = 1000 });
    assert_err(ERR_IO, blob_size(blob, "p000/y", &size));
    blob_close(blob);
}

static void test_replaced_and_deleted_meanwhile(void **state)
{
    struct blob *blob = open_blob();
    struct blob_handle *handle;
    char at[4];
    store_ours("p000/x", slice_str("long"));
    assert_ok(blob_open(blob, "p000/x", &handle));
    store_ours("p000/x", slice_str("more"));
    assert_err(ERR_CONFLICT, blob_read(handle, 0, at, 4));
    store_ours("p000/x", slice_str("l"));
    assert_err(ERR_CONFLICT, blob_read(handle, 3, at, 1));
    fake_remove(&fake, PREFIX "/p000/x");
    assert_err(ERR_NOT_FOUND, blob_read(handle, 0, at, 4));
    /* Equal bytes under another ETag are what was opened. */
    for (int i = 0; i < 3; i++) {
        store_ours("p000/x", slice_str("long"));
        memset(at, 0, sizeof at);
        assert_ok(blob_read(handle, 0, at, 4));
        assert_memory_equal(at, "long", 4);
    }
    fake.requests = 0;
    assert_ok(blob_read(handle, 0, at, 4));
    assert_int_equal(fake.requests, 1);
    assert_ok(blob_replace(blob, "p000/x", slice_str("long")));
    assert_ok(blob_read(handle, 1, at, 3));
    blob_handle_close(handle);
    /* Nobody can tell of an object without a digest. */
    fake_store(&fake, PREFIX "/p000/y", slice_str("long"), "", "");
    assert_ok(blob_open(blob, "p000/y", &handle));
    fake_store(&fake, PREFIX "/p000/y", slice_str("long"), "", "");
    assert_err(ERR_CONFLICT, blob_read(handle, 0, at, 4));
    blob_handle_close(handle);
    blob_close(blob);
}

static size_t newer_bytes;
static int newer_from, newer_count;
static void replace_meanwhile(void)
{
    if (fake.requests >= newer_from && newer_count > 0) {
        newer_count--;
        store_ours("p000/x", slice_of(file_bytes + newer_count, newer_bytes));
    }
}

/* An object that is replaced while its pieces are fetched is fetched anew, whole. */
static void test_get_starts_over(void **state)
{
    static const size_t sizes[] = { 3500 - 9, 2500, 1000, 10, 0 };
    struct blob *blob = open_blob();
    struct slice got;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int count = 1; count < 3; count++) {
            store_ours("p000/x", slice_of(file_bytes + 9, 3500 - 9));
            fake.requests = 0;
            newer_bytes = sizes[i];
            newer_from = 2;
            newer_count = count;
            fake.meanwhile = replace_meanwhile;
            assert_ok(blob_get(blob, "p000/x", 3500, root, &got));
            assert_true(slice_equal(got, slice_of(file_bytes, sizes[i])));
        }
    newer_bytes = 3400;
    newer_count = 100;
    assert_err(ERR_BUSY, blob_get(blob, "p000/x", 3500, root, &got));
    fake.meanwhile = NULL;
    blob_close(blob);
}

static void test_get_checks_the_bytes(void **state)
{
    struct blob *blob = open_blob();
    struct slice got;
    assert_ok(blob_put(blob, "p000/x", slice_str("some bytes")));
    fake_add(&fake, (struct fake_fault){ FAKE_FLIPPED, "GET", .count = 2 });
    assert_ok(blob_get(blob, "p000/x", 100, root, &got));
    assert_true(slice_equal_str(got, "some bytes"));
    assert_err(ERR_LIMIT, blob_get(blob, "p000/x", 9, root, &got));
    fake.gives_whole = true;
    assert_ok(blob_get(blob, "p000/x", 100, root, &got));
    fake_add(&fake, (struct fake_fault){ FAKE_TRUNCATED, "GET", .count = 3 }); /* it is not damaged there */
    assert_ok(blob_get(blob, "p000/x", 100, root, &got));
    fake.requests = 0;
    fake.faults[0].count = 1000;
    assert_err(ERR_CORRUPT, blob_get(blob, "p000/x", 100, root, &got));
    assert_int_equal(fake.requests, 3);
    fake.fault_count = 0;
    make_file("temp", 3500);
    assert_ok(blob_put_file(blob, "p000/f", "temp"));
    for (int skip = 0; skip < 4; skip++) { /* in any piece: all of it is asked for three times */
        fake.fault_count = 0;
        fake_add(&fake, (struct fake_fault){ FAKE_FLIPPED, "GET", .skip = skip, .count = 2 });
        assert_ok(blob_get(blob, "p000/f", 3500, root, &got));
        assert_true(slice_equal(got, slice_of(file_bytes, 3500)));
    }
    fake.requests = 0;
    fake.faults[0] = (struct fake_fault){ FAKE_FLIPPED, "GET", .count = 1000 };
    assert_err(ERR_CORRUPT, blob_get(blob, "p000/f", 3500, root, &got));
    assert_int_equal(fake.requests, 3 * 4);
    /* Other failures between do not count. */
    fake.fault_count = 0;
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, "GET", .count = 3 });
    fake_add(&fake, (struct fake_fault){ FAKE_FLIPPED, "GET", .count = 2 });
    assert_ok(blob_get(blob, "p000/x", 100, root, &got));
    /* Without retries left nobody knows whether it is damaged. */
    fake.fault_count = 0;
    fake_add(&fake, (struct fake_fault){ FAKE_FLIPPED, "GET", .count = 1 });
    ((struct s3_store *)blob)->config.retries_per_minute = 0;
    assert_err(ERR_IO, blob_get(blob, "p000/x", 100, root, &got));
    blob_close(blob);
}

/* ---- lists ---- */

#define FIRST_MS INT64_C(1700000000123)

static void test_lists(void **state)
{
    struct blob *blob = open_blob();
    struct blob_entry *entries;
    size_t count;
    char key[64], expected[64];
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, PREFIX "/p000/chain/%08d", (i * 37) % 300);
        fake_store(&fake, key, slice_str("x"), "", "");
        fake_find(&fake, key)->t_ms = FIRST_MS + (int64_t)((i * 37) % 300) * MS_PER_HOUR;
    }
    fake_store(&fake, PREFIX "/p000/chain/sub/a", slice_str("x"), "", "");
    fake_store(&fake, PREFIX "/p000/chain/", slice_str("x"), "", "");
    fake_store(&fake, PREFIX "/p000/chain/.hidden", slice_str("x"), "", "");
    fake_store(&fake, PREFIX "/p000/chain/not ours", slice_str("x"), "", "");
    fake_store(&fake, PREFIX "/p000/chain.a", slice_str("x"), "", "");
    fake_store(&fake, "p000/chain/other", slice_str("x"), "", "");
    static const int pages[] = { 1000, 7, 299, 1 };
    for (size_t i = 0; i < 4; i++) {
        fake.page_count = pages[i];
        fake.fault_count = 0;
        fake_add(&fake, (struct fake_fault){ FAKE_GARBAGE, "GET", .skip = 1, .count = 1 });
        fake_add(&fake, (struct fake_fault){ FAKE_TRUNCATED, "GET", .skip = 1, .count = 1 });
        fake_add(&fake, (struct fake_fault){ FAKE_LOST_AFTER, "GET", .skip = 2, .count = 1 });
        assert_ok(blob_list(blob, "p000/chain", root, &entries, &count));
        assert_int_equal(count, 300);
        for (size_t k = 0; k < count; k++) {
            snprintf(expected, sizeof expected, "p000/chain/%08zu", k);
            assert_string_equal(entries[k].key, expected);
            assert_int_equal(entries[k].t_ms,
                             (FIRST_MS + (int64_t)k * MS_PER_HOUR) / MS_PER_SECOND * MS_PER_SECOND);
        }
    }
    assert_ok(blob_list(blob, "p000/nothing", root, &entries, &count));
    assert_int_equal(count, 0);
    fake.fault_count = 0;
    fake_add(&fake, (struct fake_fault){ FAKE_GARBAGE, "GET", .count = 1000 });
    be_hasty(blob);
    assert_err(ERR_IO, blob_list(blob, "p000/chain", root, &entries, &count));
    blob_close(blob);
}

#define LIST(text) "<ListBucketResult>" text "</ListBucketResult>"
#define KEY(text)  "<Contents><Key>" text "</Key></Contents>"
#define LAST       "<IsTruncated>false</IsTruncated>"
#define ENCODED    "<EncodingType>url</EncodingType>"

/* A time that is not one is not known, and of two the later counts. */
static void test_times_of_a_list(void **state)
{
    static const struct {
        const char *text;
        int64_t t_ms;
    } cases[] = {
        { "2009-10-12T17:50:30.000Z", INT64_C(1255369830000) },
        { "2009-10-12T17:50:30.999999999Z", INT64_C(1255369830000) },
        { "2009-10-12T17:50:30Z", INT64_C(1255369830000) },
        { "1970-01-01T00:00:00Z", 0 },
        { "9999-12-31T23:59:60Z", INT64_C(253402300800000) },
        { "2009-10-12T17:50:30", 0 },
        { "2009-10-12T17:50:30+01:00", 0 },
        { "2009-10-12T17:50:30.Z", 0 },
        { "2009-10-12T17:50:30.1Z.Z", 0 },
        { "2009-10-12T17:50:30 or soZ", 0 },
        { "2009-13-12T17:50:30Z", 0 },
        { "2009-10-32T17:50:30Z", 0 },
        { "2009-10-12T24:50:30Z", 0 },
        { "1969-10-12T17:50:30Z", 0 },
        { "-009-10-12T17:50:30Z", 0 },
        { "Mon, 12 Oct 2009 17:50:30 GMT", 0 },
        { "", 0 },
    };
    struct blob *blob = open_blob();
    struct blob_entry *entries;
    size_t count;
    char list[1000];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(list, sizeof list,
                 LIST("<LastModified>2009-10-12T17:50:30Z</LastModified><Contents><Key>pre/fix/a/b</Key>"
                      "<Owner><LastModified>2009-10-12T17:50:30Z</LastModified></Owner>"
                      "<LastModified>%s</LastModified></Contents>" LAST),
                 cases[i].text);
        fake.list = list;
        assert_ok(blob_list(blob, "a", root, &entries, &count));
        assert_int_equal(count, 1);
        if (entries[0].t_ms != cases[i].t_ms)
            fail_msg("%s: %lld", cases[i].text, (long long)entries[0].t_ms);
    }
    fake.list = LIST(
        "<Contents><Key>pre/fix/a/b</Key><LastModified>2009-10-12T17:50:30Z</LastModified></Contents>"
        "<Contents><Key>pre/fix/a/b</Key><LastModified>2009-10-12T17:50:32Z</LastModified></Contents>"
        "<Contents><Key>pre/fix/a/b</Key><LastModified>2009-10-12T17:50:31Z</LastModified></Contents>" LAST);
    assert_ok(blob_list(blob, "a", root, &entries, &count));
    assert_int_equal(count, 1);
    assert_int_equal(entries[0].t_ms, INT64_C(1255369832000));
    blob_close(blob);
}

static void test_lists_of_a_hostile_store(void **state)
{
    struct blob *blob = open_blob();
    struct blob_entry *entries;
    size_t count;
    fake.list = LIST(KEY("pre%2Ffix%2Fa%2Fb%2ec") KEY("%70re/fix/a/b") ENCODED LAST);
    assert_ok(blob_list(blob, "a", root, &entries, &count));
    assert_int_equal(count, 2);
    assert_string_equal(entries[0].key, "a/b");
    assert_string_equal(entries[1].key, "a/b.c");
    /* Twice on a page, encoded, with what cannot be a key. */
    fake.list = LIST(KEY("pre%2Ffix%2Fa%2Fb") KEY("pre/fix/a/b") KEY("pre/fix/a/%00") KEY("pre/fix/a/b%00c")
                         KEY("pre/fix/a/%2E%2E") KEY("pre/fix/a/") ENCODED LAST);
    assert_ok(blob_list(blob, "a", root, &entries, &count));
    assert_int_equal(count, 1);
    assert_string_equal(entries[0].key, "a/b");
    be_hasty(blob);
    /* The same page for ever, and pages without an end. */
    fake.list = LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>");
    assert_err(ERR_IO, blob_list(blob, "a", root, &entries, &count));
    assert_true(fake.requests < 1000);
    /* Whether it is the last page is said clearly or not at all, and keys are those that were asked for. */
    static const char *const lies[] = {
        LIST("<IsTruncated>true</IsTruncated>"),
        LIST(""),
        LIST(KEY("pre/fix/a/b")),
        LIST(KEY("pre/fix/a/b") "<IsTruncated></IsTruncated>"),
        LIST(KEY("pre/fix/a/b") "<IsTruncated>False</IsTruncated>"),
        LIST(KEY("pre/fix/a/b") "<IsTruncated>1</IsTruncated>"),
        LIST(KEY("pre/fix/a/b") LAST "<NextContinuationToken>t</NextContinuationToken>"),
        LIST(KEY("pre/fix/a/b") KEY("other/a/b") LAST),
        LIST(KEY("pre/fix/a/b") KEY("pre/fix/a") LAST),
        LIST(KEY("pre/fix/a/b") KEY("") LAST),
        LIST(KEY("pre/fix/a/b") "<Contents></Contents>" LAST),
        LIST(KEY("pre/fix/a/%zz") ENCODED LAST),
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        fake.list = lies[i];
        if (blob_list(blob, "a", root, &entries, &count) != ERR_IO)
            fail_msg("taken: %s", lies[i]);
    }
    fake.list = LIST(LAST "<NextContinuationToken></NextContinuationToken>");
    assert_ok(blob_list(blob, "a", root, &entries, &count));
    assert_int_equal(count, 0);
    fake.list = "<Error><Code>InternalError</Code></Error>";
    assert_err(ERR_IO, blob_list(blob, "a", root, &entries, &count));
    blob_close(blob);
}

/* ---- credentials ---- */

#define JSON(access, expires)                                                                \
    "{ \"Code\" : \"Success\", \"Type\" : \"AWS-HMAC\",\n \"AccessKeyId\" : \"" access "\"," \
    " \"SecretAccessKey\" : \"s/e+c=\", \"Token\" : \"t/o+k==\", \"Expiration\" : \"" expires "\" }"

static void test_the_machines_role(void **state)
{
    struct blob_s3_config config = test_config();
    struct blob *blob;
    struct err_at at;
    uint64_t size;
    config.source = BLOB_S3_INSTANCE;
    config.access_key = config.secret_key = NULL;
    fake_init(&fake, io, root);
    fake.json = JSON("FIRST", "2999-01-01T00:00:00Z");
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, "PUT", "/latest/", .count = 1 });
    assert_ok(blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
    fake_store(&fake, PREFIX "/p000/x", slice_str("x"), "", "");
    /* Refused as expired: fetched anew, but not more often than every 10 s. */
    fake.denied_access = "FIRST";
    fake.json = JSON("SECOND", "2999-01-01T00:00:00Z");
    fake.requests = 0;
    assert_err(ERR_DENIED, blob_size(blob, "p000/x", &size));
    assert_int_equal(fake.requests, 1);
    blob_close(blob);
    /* Expired already: due at once, and without new ones there are none. */
    fake_init(&fake, io, root);
    fake.json = JSON("FIRST", "2020-01-01T00:00:00Z");
    assert_err(ERR_DENIED, blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
    assert_non_null(strstr(at.text, "expired"));
    fake_init(&fake, io, root);
    fake.json = "{}";
    assert_err(ERR_DENIED, blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
    assert_non_null(strstr(at.text, "no credentials from http://169.254.169.254"));
    fake_init(&fake, io, root);
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "GET", "/latest/", 404, "x", .count = 9 });
    assert_err(ERR_DENIED, blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
    assert_non_null(strstr(at.text, "with 404"));
}

/* What passes is not told as a refusal, and not kept for long. */
static void test_a_metadata_service_that_is_not_there_now(void **state)
{
    static const struct {
        unsigned status;
        err unreachable, expected;
    } cases[] = {
        { 429, OK, ERR_BUSY },
        { 500, OK, ERR_IO },
        { 503, OK, ERR_IO },
        { 0, ERR_NOT_FOUND, ERR_IO }, /* a resolver */
        { 0, ERR_IO, ERR_IO },
        { 0, ERR_TIMEOUT, ERR_TIMEOUT },
        { 0, ERR_CANCELED, ERR_CANCELED },
        { 403, OK, ERR_DENIED },
        { 404, OK, ERR_DENIED },
    };
    struct blob_s3_config config = test_config();
    config.source = BLOB_S3_INSTANCE;
    config.retry_ms = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct blob *blob;
        struct err_at at = { .text = "" };
        fake_init(&fake, io, root);
        fake.json = JSON("FIRST", "2999-01-01T00:00:00Z");
        fake.metadata_status = cases[i].status;
        fake.metadata_err = cases[i].unreachable;
        err e = blob_open_s3_over(&config, &fake.base, io, root, &blob, &at);
        if (e != cases[i].expected)
            fail_msg("case %zu: %s: %s", i, err_text(e), at.text);
        assert_int_equal(fake.requests, cases[i].status / 100 == 4 && cases[i].status != 429 ? 1
                                        : cases[i].unreachable == ERR_CANCELED               ? 1
                                                                                             : 3);
    }
}

static void write_text(const char *path, const char *text)
{
    assert_ok(io_replace_file(io, path, slice_str(text)));
}

static void test_a_credentials_file(void **state)
{
    struct blob_s3_config config = test_config();
    struct blob *blob;
    struct err_at at = { .text = "" };
    config.source = BLOB_S3_FILE;
    config.credentials_file = "credentials";
    config.profile = "mine";
    write_text("credentials",
               "# ours\n[default]\naws_access_key_id=D\n[ mine ]\r\naws_access_key_id = AK \r\n"
               "aws_secret_access_key = SK=\r\naws_session_token=T\nregion=x\n[more]\n");
    blob = open_with(&config);
    blob_close(blob);
    static const struct {
        const char *text, *why;
    } bad[] = {
        { "[default]\naws_access_key_id=D\n", "no profile [mine]" },
        { "[mine]\naws_access_key_id=D\n", "secret key is missing" },
        { "[mine]\naws_access_key_id=D\naws_secret_access_key=a b\n", "aws_secret_access_key has a byte" },
        { "", "no profile" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_text("credentials", bad[i].text);
        fake_init(&fake, io, root);
        assert_err(ERR_DENIED, blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
        if (strstr(at.text, bad[i].why) == NULL)
            fail_msg("%s: %s", bad[i].why, at.text);
    }
    config.credentials_file = "nowhere";
    fake_init(&fake, io, root);
    assert_err(ERR_DENIED, blob_open_s3_over(&config, &fake.base, io, root, &blob, &at));
    assert_non_null(strstr(at.text, "nowhere: not found"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_give_exactly_what_was_asked_for),
        cmocka_unit_test(test_answers_of_others_are_no_objects),
        cmocka_unit_test(test_absence_is_only_what_the_store_says),
        cmocka_unit_test(test_replaced_and_deleted_meanwhile),
        cmocka_unit_test(test_get_starts_over),
        cmocka_unit_test(test_get_checks_the_bytes),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_lists_of_a_hostile_store),
        cmocka_unit_test(test_times_of_a_list),
        cmocka_unit_test(test_the_machines_role),
        cmocka_unit_test(test_a_metadata_service_that_is_not_there_now),
        cmocka_unit_test(test_a_credentials_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
