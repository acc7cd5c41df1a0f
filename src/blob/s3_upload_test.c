/* Goal: files that are put into an S3 store, whole or in parts, whatever the store and the network do. Method: a
 * store in memory (s3_fake.h) with faults: lost requests and answers, conflicts, uploads that others give up, ends
 * that arrive late. */
#include "blob/s3_fixture.h"

static void test_files_of_all_sizes(void **state)
{
    static const size_t sizes[] = { 0, 1, 999, 1000, 1001, 2000, 3500 };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct blob *blob = open_blob();
        struct slice got;
        make_file("temp", sizes[i]);
        assert_ok(blob_put_file(blob, "p000/f", "temp"));
        assert_false(io_exists(io, "temp"));
        assert_holds("p000/f", slice_of(file_bytes, sizes[i]));
        assert_ok(blob_get(blob, "p000/f", 10000, root, &got));
        assert_true(slice_equal(got, slice_of(file_bytes, sizes[i])));
        make_file("temp", sizes[i]);
        assert_err(ERR_EXISTS, blob_put_file(blob, "p000/f", "temp"));
        assert_true(io_exists(io, "temp"));
        assert_ok(blob_replace_file(blob, "p000/f", "temp"));
        assert_int_equal(fake_open_uploads(&fake), 0);
        blob_close(blob);
    }
    struct blob *blob = open_blob();
    assert_err(ERR_NOT_FOUND, blob_put_file(blob, "p000/g", "no-such-file"));
    blob_close(blob);
}

static void test_an_upload_survives_each_fault_of_each_request(void **state)
{
    static const struct fake_fault kinds[] = {
        { FAKE_LOST_BEFORE },
        { FAKE_LOST_AFTER },
        { FAKE_STATUS, .status = 500, .code = "InternalError" },
        { FAKE_STATUS_AFTER, .status = 500, .code = "InternalError" },
        { FAKE_STATUS, .status = 200,
          .code = "InternalError" }, /* an end that fails after it began to answer */
        { FAKE_STATUS_AFTER, .status = 200, .code = "InternalError" },
        { FAKE_STATUS, .status = 409, .code = "ConditionalRequestConflict" },
    };
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++)
        for (int skip = 0; skip < 8; skip++) {
            bool is_replace = skip % 2 == 1;
            struct blob *blob = open_blob();
            struct fake_fault fault = kinds[kind];
            make_file("temp", 3500);
            fault.skip = skip / 2 + 1;
            fault.count = 1;
            fault.method =
                fault.status == 200 ? "POST" : NULL; /* what a status of 200 to a PUT says is true */
            fake_add(&fake, fault);
            err e = is_replace ? blob_replace_file(blob, "p000/f", "temp")
                               : blob_put_file(blob, "p000/f", "temp");
            if (e != OK)
                fail_msg("fault %zu at %d: %s", kind, skip, err_text(e));
            assert_holds("p000/f", slice_of(file_bytes, 3500));
            /* Where the answer to a begin was lost, nobody knows of the upload: it is swept later. */
            assert_true(fake_open_uploads(&fake) <= 1);
            blob_close(blob);
        }
}

static void check_upload(struct fake_fault fault, err expected, size_t begun)
{
    struct blob *blob = open_blob();
    size_t before = fake.upload_count;
    if (expected != OK)
        be_hasty(blob);
    make_file("temp", 3500);
    fake_add(&fake, fault);
    assert_err(expected, blob_put_file(blob, "p000/f", "temp"));
    assert_int_equal(fake.upload_count - before, begun);
    assert_int_equal(fake_open_uploads(&fake), 0);
    assert_int_equal(io_exists(io, "temp"), expected != OK);
    if (expected == OK)
        assert_holds("p000/f", slice_of(file_bytes, 3500));
    blob_close(blob);
}

static void test_ends_of_uploads(void **state)
{
    check_upload((struct fake_fault){ FAKE_STATUS, "POST", "uploadId", 409, "ConditionalRequestConflict",
                                      .count = 1 },
                 OK, 2);
    check_upload((struct fake_fault){ FAKE_STATUS, "POST", "uploadId", 409, "ConditionalRequestConflict",
                                      .count = 99 },
                 ERR_BUSY, 3);
    check_upload((struct fake_fault){ FAKE_STATUS, "POST", "uploadId", 404, "NoSuchUpload", .count = 1 }, OK,
                 2);
    check_upload((struct fake_fault){ FAKE_STATUS_AFTER, "POST", "uploadId", 412, "PreconditionFailed",
                                      .count = 1 },
                 OK, 1);
    check_upload((struct fake_fault){ FAKE_STATUS_AFTER, "POST", "uploadId", 200, "PreconditionFailed",
                                      .count = 1 },
                 OK, 1);
    check_upload((struct fake_fault){ FAKE_GARBAGE, "POST", "uploadId", .count = 1 }, OK, 1);
    check_upload((struct fake_fault){ FAKE_STATUS, "POST", "uploads", 200, "Odd", .count = 1000 }, ERR_IO, 0);
    check_upload((struct fake_fault){ FAKE_STATUS, "PUT", "partNumber=2", 403, "AccessDenied",
                                      .count = 1000 },
                 ERR_DENIED, 1);
    check_upload((struct fake_fault){ FAKE_STATUS, "PUT", "partNumber=4", 500, "InternalError",
                                      .count = 1000 },
                 ERR_IO, 1);
}

/* ---- uploads that others touch ---- */

static int give_up_count; /* how many of the uploads somebody gives up while parts are sent */

static void give_up_meanwhile(void)
{
    struct fake_upload *upload = fake.upload_count > 0 ? &fake.uploads[fake.upload_count - 1] : NULL;
    if (upload != NULL && upload->is_open && upload->part_count == 2 && give_up_count > 0) {
        give_up_count--;
        upload->is_open = false;
    }
}

static void check_given_up(int count, bool is_replace, err expected)
{
    struct blob *blob = open_blob();
    make_file("temp", 3500);
    give_up_count = count;
    fake.meanwhile = give_up_meanwhile;
    err e = is_replace ? blob_replace_file(blob, "p000/f", "temp") : blob_put_file(blob, "p000/f", "temp");
    fake.meanwhile = NULL;
    assert_err(expected, e);
    if (expected == OK)
        assert_holds("p000/f", slice_of(file_bytes, 3500));
    assert_int_equal(fake_open_uploads(&fake), 0);
    blob_close(blob);
}

static void test_an_upload_that_another_gives_up_begins_anew(void **state)
{
    for (int is_replace = 0; is_replace < 2; is_replace++) {
        check_given_up(1, is_replace != 0, OK);
        check_given_up(2, is_replace != 0, OK);
        check_given_up(99, is_replace != 0, ERR_BUSY);
    }
    /* "Not found" is said of the local file alone. */
    static const char *const words[] = { "NoSuchKey", "NoSuchUpload" };
    for (size_t i = 0; i < 2; i++) {
        struct blob *blob = open_blob();
        make_file("temp", 3500);
        be_hasty(blob);
        fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "POST", "uploads=", 404, words[i], .count = 1000 });
        assert_err(ERR_IO, blob_put_file(blob, "p000/f", "temp"));
        blob_close(blob);
    }
}

static void land_meanwhile(void)
{
    if (fake.delayed_count > 0 && fake.upload_count > 1 &&
        fake.uploads[fake.upload_count - 1].part_count == 3)
        fake_land(&fake);
}

/* The end of a first upload arrives while a second one is sent: its object is ours, and no parts stay behind. */
static void test_a_late_end_of_an_earlier_upload(void **state)
{
    struct blob *blob = open_blob();
    make_file("temp", 3500);
    fake.upload_count = 0;
    fake_add(&fake, (struct fake_fault){ FAKE_DELAYED, "POST", "uploadId", .count = 1 });
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "POST", "uploadId", 409, "ConditionalRequestConflict",
                                         .count = 1 });
    fake_add(&fake,
             (struct fake_fault){ FAKE_STATUS, "DELETE", "uploadId", 403, "AccessDenied", .count = 1 });
    fake.meanwhile = land_meanwhile;
    assert_ok(blob_put_file(blob, "p000/f", "temp"));
    fake.meanwhile = NULL;
    assert_int_equal(fake.upload_count, 2);
    assert_int_equal(fake.delayed_count, 0);
    assert_holds("p000/f", slice_of(file_bytes, 3500));
    assert_int_equal(fake_open_uploads(&fake), 0);
    blob_close(blob);
}

/* An end that got stuck arrives after another replaced the object. */
static void test_a_late_end_replaces_nothing(void **state)
{
    struct blob *blob = open_blob();
    make_file("temp", 3500);
    store_ours("p000/f", slice_str("there"));
    fake_add(&fake, (struct fake_fault){ FAKE_DELAYED, "POST", "uploadId", .count = 1 });
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "POST", "uploadId", 403, "AccessDenied", .count = 1 });
    fake_add(&fake,
             (struct fake_fault){ FAKE_STATUS, "DELETE", "uploadId", 403, "AccessDenied", .count = 1 });
    assert_err(ERR_DENIED, blob_replace_file(blob, "p000/f", "temp"));
    assert_ok(blob_replace(blob, "p000/f", slice_str("newer")));
    fake_land(&fake);
    assert_holds("p000/f", slice_str("newer"));
    blob_close(blob);
}

static void slow_meanwhile(void)
{
    struct fake_upload *upload = fake.upload_count > 0 ? &fake.uploads[fake.upload_count - 1] : NULL;
    if (upload != NULL && upload->is_open && upload->part_count == 1)
        io_sleep_ns(io, 400 * NS_PER_MS);
}

/* What failed before an upload, however long ago, is not held against the next. */
static void test_each_upload_has_its_own_patience(void **state)
{
    struct blob_s3_config config = test_config();
    config.retry_ms = 300;
    struct blob *blob = open_with(&config);
    make_file("temp", 3500);
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_BEFORE, "HEAD", .count = 1 });
    fake_add(&fake, (struct fake_fault){ FAKE_STATUS, "POST", "uploadId", 409, "ConditionalRequestConflict",
                                         .count = 2 });
    fake.meanwhile = slow_meanwhile;
    assert_ok(blob_put_file(blob, "p000/f", "temp"));
    fake.meanwhile = NULL;
    blob_close(blob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_of_all_sizes),
        cmocka_unit_test(test_an_upload_survives_each_fault_of_each_request),
        cmocka_unit_test(test_ends_of_uploads),
        cmocka_unit_test(test_an_upload_that_another_gives_up_begins_anew),
        cmocka_unit_test(test_a_late_end_of_an_earlier_upload),
        cmocka_unit_test(test_a_late_end_replaces_nothing),
        cmocka_unit_test(test_each_upload_has_its_own_patience),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
