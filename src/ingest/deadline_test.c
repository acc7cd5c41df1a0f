/* Goal: a write is answered in time whatever the log does, and its memory goes exactly once, whoever is the last
 * to need it. Method: threads that write with a deadline of a few milliseconds, and a thread that answers for the
 * log, early, late and wrongly; at the end answers are still owed. */
#include "base/test.h"

#include "base/time.h"
#include "ingest/request.h"
#include "ingest/test_log.h"

#define WRITERS  3
#define REQUESTS 400 /* of a writer */
#define ROWS     20  /* of a request */

static struct pool *pool;
static struct io *io;
static struct log *fake;
static struct ingest *ingest;
static struct slice labels[ROWS];
static _Atomic bool is_over;

struct writer {
    struct io_thread *thread;
    uint32_t index;
    int status[REQUESTS];
};

static void open_all(int64_t wait_ms)
{
    struct ingest_config config = ingest_config_default();
    config.partition_count = 2;
    config.wait_ms_max = wait_ms;
    config.gives_tokens = true;
    config.token_seed = 5;
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_ok(io_open("/tmp", &io));
    fake = fake_log_open(pool);
    fake->mode = FAKE_HOLD;
    assert_ok(ingest_open(&config, io, fake, pool, &ingest));
    for (int i = 0; i < ROWS; i++) {
        char text[60];
        struct buf out = buf_open(pool, 1000);
        snprintf(text, sizeof text, "__name__=m id=%d", i);
        pb_labels(&out, text);
        labels[i] = buf_slice(&out);
    }
}

static void close_all(void)
{
    ingest_close(ingest);
    io_close(io);
    pool_close(pool);
}

static void fill_rows(struct ingest_row rows[ROWS], uint64_t request)
{
    for (int i = 0; i < ROWS; i++)
        rows[i] = (struct ingest_row){ .labels = labels[i], .t_ms = 1, .value_bits = request };
}

/* The rows' values say which request they are of. */
static struct ingest_result write_once(uint64_t request)
{
    struct ingest_row rows[ROWS];
    struct ingest_result result;
    fill_rows(rows, request);
    ingest_write(ingest, slice_str("t"), &(struct ingest_rows){ .rows = rows, .row_count = ROWS }, &result);
    return result;
}

static void run_writer(void *context)
{
    struct writer *w = context;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        w->status[i] = write_once((uint64_t)w->index * REQUESTS + i).status;
        if (w->status[i] != 204)
            io_sleep_ns(io, NS_PER_MS / 10);
    }
}

static void run_log(void *context)
{
    struct test_random *r = context;
    while (!atomic_load(&is_over)) {
        io_sleep_ns(io, (int64_t)test_random_below(r, 16) == 0 ? 4 * NS_PER_MS : NS_PER_MS / 20);
        io_mutex_lock(&fake->mutex);
        for (uint64_t i = test_random_below(r, 8); i > 0 && fake->held_count > 0; i--)
            fake_release(fake, test_random_below(r, 4) == 0 ? fake->held_count - 1 : 0,
                         test_random_below(r, 10) == 0 ? ERR_IO : OK);
        io_mutex_unlock(&fake->mutex);
    }
}

static void answers_early_and_late(void **state)
{
    static struct writer writers[WRITERS];
    static uint32_t found[WRITERS * REQUESTS];
    struct test_random r = test_random_begin("answers_early_and_late");
    struct io_thread *log;
    memset(found, 0, sizeof found);
    open_all(2);
    atomic_store(&is_over, false);
    assert_ok(io_thread_start(io, "log", run_log, &r, &log));
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i].index = i;
        assert_ok(io_thread_start(io, "writer", run_writer, &writers[i], &writers[i].thread));
    }
    for (uint32_t i = 0; i < WRITERS; i++)
        io_thread_join(writers[i].thread);
    atomic_store(&is_over, true);
    io_thread_join(log);
    assert_int_equal(fake->unbound, 0);
    for (size_t i = 0; i < fake->row_count; i++) {
        assert_true(fake->rows[i].bits < WRITERS * REQUESTS);
        found[fake->rows[i].bits]++;
    }
    size_t stored = 0;
    for (uint32_t i = 0; i < WRITERS * REQUESTS; i++) {
        int status = writers[i / REQUESTS].status[i % REQUESTS];
        assert_true(status == 204 || status == 503);
        assert_true(status == 204 ? found[i] == ROWS : found[i] <= ROWS);
        stored += status == 204;
    }
    printf("# %zu of %d requests were acknowledged\n", stored, WRITERS * REQUESTS);
    close_all();
}

/* A log that never answers: writers go on, and what it holds goes when it is closed. */
static void no_answer_before_the_end(void **state)
{
    open_all(1);
    struct ingest_result result = write_once(1);
    assert_true(result.status == 503 && result.retry_after_s > 0);
    assert_int_equal(ingest_usage(ingest).requests, 1);
    assert_int_equal(write_once(2).status, 503); /* at once: it would wait behind the first */
    assert_int_equal(ingest_usage(ingest).requests, 1);
    assert_int_equal(fake->held_count, 2); /* a record for each partition */
    close_all();
}

static void a_token_tells_what_is_durable(void **state)
{
    struct ingest_row rows[ROWS];
    struct ingest_result result;
    struct err_at at;
    uint64_t ends[2] = { 0 };
    bool all = false;
    open_all(10000);
    fill_rows(rows, 1);
    struct ingest_rows whole = { .rows = rows, .row_count = ROWS };
    struct ingest_request *request = ingest_begin_write(ingest, slice_str("t"), &whole, &result);
    assert_non_null(request);
    assert_int_equal(fake->held_count, 2);
    uint32_t durable = fake->held[0]->partition;
    fake_release(fake, 0, OK);
    fake_release(fake, 0, ERR_BUSY);
    assert_true(ingest_poll(request, &result));
    assert_true(result.status == 503 && result.token_len == strlen(result.token));
    assert_ok(token_read(5, slice_str(result.token), 2, ends, &all, &at));
    assert_true(ends[durable] == fake->offset[durable] + 1 && ends[1 - durable] == 0 && !all);
    fake->mode = FAKE_ACK;
    fake->answer = ERR_BUSY;
    result = write_once(2);
    assert_true(result.status == 503 && result.token_len == 0 && result.token[0] == 0);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_early_and_late),
        cmocka_unit_test(no_answer_before_the_end),
        cmocka_unit_test(a_token_tells_what_is_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
