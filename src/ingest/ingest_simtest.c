/* Goal: whatever the log answers and whenever, a reader of what became durable can name every row, numbers are
 * never rebound, and labels are sent no more often than the rules ask. Method: a simulated clock and a log that
 * holds appends and answers them in any order; long random runs, and each rule once by hand. */
#include "base/test.h"

#include "base/stat.h"
#include "base/time.h"
#include "ingest/discovery_file.h"
#include "sim/io_sim.h"

#include "ingest/write_fixture.h"

static void labels_until_acknowledged(void **state)
{
    open_all(1, one_partition());
    fake->mode = FAKE_HOLD;
    struct ingest_request *first = begin(0, 3), *second = begin(0, 3), *third = begin(0, 3);
    fake_release(fake, 1, OK);
    assert_int_equal(fake->announce_count,
                     3); /* the second did not rely on the first, which is not answered */
    assert_int_equal(end(second).samples, 3);
    struct ingest_request *fourth = begin(0, 3);
    fake_release(fake, 2, OK);
    assert_int_equal(fake->announce_count, 3); /* the fourth relies on the second */
    end(fourth);
    fake_release(fake, 0, ERR_IO);
    assert_int_equal(end(first).status, 503);
    struct ingest_request *fifth = begin(0, 3);
    fake_release(fake, 1, OK);
    assert_int_equal(fake->announce_count, 6); /* a failure cleared the marks */
    end(fifth);
    fake_release(fake, 0, OK); /* begun before the failure: it marks nothing any more */
    assert_int_equal(end(third).status, 204);
    fake->mode = FAKE_ACK;
    uint64_t before = fake->announce_count;
    write_now(0, 3);
    assert_int_equal(fake->announce_count, before);
    assert_int_equal(fake->unbound, 0);
    close_all();
}

static void log_that_went_back(void **state)
{
    open_all(1, one_partition());
    write_now(0, 3);
    fake->offset[0] = 0; /* the next offset is not above the acknowledged one */
    struct ingest_result result = write_now(0, 3);
    assert_int_equal(result.status, 503);
    assert_non_null(strstr(result.text, "may be stored yet"));
    assert_int_equal(result.samples, 0);
    uint64_t before = fake->announce_count;
    write_now(0, 3);
    assert_int_equal(fake->announce_count, before + 3);
    close_all();
}

/* In a new generation no mark of the former counts, wherever its offsets are: the step clears them. Where it did
 * not yet, what was begun before is stored and not acknowledged, and the request after that brings its labels. */
static void log_in_a_new_generation(void **state)
{
    for (int is_told = 0; is_told < 2; is_told++) {
        open_over(1, one_partition(), 1);
        assert_int_equal(write_now(0, 3).status, 204);
        fake->generation = 2;
        if (is_told) {
            pass_ms(1000);
            ingest_step(ingest);
        } else {
            struct ingest_result result = write_now(0, 3);
            assert_true(result.status == 503 && result.samples == 0);
            assert_non_null(strstr(result.text, "may be stored yet"));
        }
        uint64_t before = fake->announce_count;
        assert_int_equal(write_now(0, 3).status, 204);
        assert_int_equal(fake->announce_count, before + 3);
        fake->generation = 3;
        fake->offset[0] = 0;
        pass_ms(1000);
        ingest_step(ingest);
        assert_int_equal(write_now(0, 3).status, 204); /* below the last one of the former generation */
        close_all();
    }
}

static void partitions_stand_alone(void **state)
{
    open_all(1, ingest_config_default());
    fake->mode = FAKE_HOLD;
    struct ingest_request *request = begin(0, 60);
    size_t records = fake->held_count;
    assert_true(records > 1);
    fake_release(fake, 0, ERR_SPACE);
    while (fake->held_count > 1)
        fake_release(fake, 0, OK);
    struct ingest_result result;
    assert_false(ingest_poll(request, &result));
    fake_release(fake, 0, ERR_BUSY);
    assert_true(ingest_poll(request, &result));
    assert_int_equal(result.status, 507);
    assert_non_null(strstr(result.text, "stored in part"));
    assert_in_range(result.samples, 1, 59);
    uint64_t stored = result.samples, announced = fake->announce_count;
    assert_int_equal(announced, stored);
    fake->mode = FAKE_ACK;
    assert_int_equal(write_now(0, 60).status, 204);
    assert_int_equal(fake->announce_count - announced, 60 - stored); /* each marked on its own answer */
    close_all();
}

/* The request is answered with 503 in time; the log answers later, with an error, or not before the end. What it
 * says then is no acknowledgement: labels come again. */
static void the_log_answers_late(void **state)
{
    static const err answers[] = { OK, ERR_IO, ERR_CLOSED };
    for (size_t i = 0; i < 3; i++) {
        open_all(1, one_partition());
        write_now(0, 3);
        int64_t counted = stat_get(STAT_INGEST_REQUESTS_ABANDONED);
        fake->mode = FAKE_HOLD;
        struct ingest_request *request = begin(0, 4);
        struct ingest_result result;
        pass_ms(ingest->config.wait_ms_max - 1);
        assert_false(ingest_poll(request, &result));
        pass_ms(1);
        assert_true(ingest_poll(request, &result));
        assert_true(result.status == 503 && result.retry_after_s > 0 && result.samples == 0);
        assert_non_null(strstr(result.text, "the log did not answer within 10000 ms"));
        assert_int_equal(stat_get(STAT_INGEST_REQUESTS_ABANDONED), counted + 1);
        assert_null(try_begin(0, 4));
        assert_int_equal(ingest_usage(ingest).requests, 1); /* its memory is the log's */
        fake->mode = FAKE_ACK;
        if (answers[i] != ERR_CLOSED) {
            fake_release(fake, 0, answers[i]);
            uint64_t late = answers[i] == OK ? 1 : 0;
            assert_int_equal(ingest_usage(ingest).requests, 0);
            assert_int_equal(write_now(0, 4).status, 204);
            assert_int_equal(fake->announce_count, 3 + late + 4);
            assert_int_equal(write_now(0, 4).status, 204);
            assert_int_equal(fake->announce_count, 3 + late + 4);
            assert_int_equal(fake->row_count, 3 + 4 * late + 8);
            assert_int_equal(fake->unbound, 0);
        }
        close_all();
    }
}

/* Only the partition that did not answer has no acknowledgement, and what the others stored is counted. */
static void one_partition_answers_late(void **state)
{
    open_all(1, ingest_config_default());
    fake->mode = FAKE_HOLD;
    struct ingest_request *request = begin(0, 60);
    while (fake->held_count > 1)
        fake_release(fake, 0, OK);
    pass_ms(ingest->config.wait_ms_max);
    struct ingest_result result = end(request);
    assert_int_equal(result.status, 503);
    assert_in_range(result.samples, 1, 59);
    uint64_t late = 60 - result.samples;
    fake_release(fake, 0, OK);
    assert_int_equal(fake->announce_count, 60);
    fake->mode = FAKE_ACK;
    assert_int_equal(write_now(0, 60).status, 204);
    assert_int_equal(fake->announce_count, 60 + late);
    close_all();
}

/* Requests that were given up are no more than requests may be in work: the first of them closes the door. */
static void many_are_given_up(void **state)
{
    struct ingest_config config = one_partition();
    config.requests_max = 8;
    open_all(1, config);
    fake->mode = FAKE_HOLD;
    struct ingest_request *requests[8];
    for (uint64_t i = 0; i < 8; i++)
        requests[i] = begin(i, 20);
    pass_ms(config.wait_ms_max);
    for (uint64_t i = 0; i < 8; i++) {
        assert_int_equal(end(requests[i]).status, 503);
        assert_null(try_begin(0, 1));
    }
    assert_int_equal(ingest_usage(ingest).requests, 8);
    for (size_t i = 0; i < 8; i++) {
        assert_null(try_begin(0, 1));
        fake_release(fake, fake->held_count / 2, i % 2 == 0 ? OK : ERR_IO);
    }
    assert_int_equal(ingest_usage(ingest).requests, 0);
    fake->mode = FAKE_ACK;
    assert_int_equal(write_now(0, 20).status, 204);
    assert_int_equal(fake->unbound, 0);
    close_all();
}

static void random_runs(void **state)
{
    for (int run = 0; run < 30; run++) {
        struct test_random r = { .state = test_seed() + (uint64_t)run };
        struct ingest_config config = one_partition();
        config.partition_count = run % 2 == 0 ? 1 : 3;
        config.wait_ms_max = run % 3 == 0 ? config.wait_ms_max : MS_PER_HOUR;
        open_all(test_random_u64(&r), config);
        fake->mode = FAKE_HOLD;
        struct ingest_request *open_requests[20];
        size_t open_count = 0;
        for (int step = 0; step < 400; step++) {
            uint64_t action = test_random_below(&r, 10);
            if (action < 4 && open_count < 20) {
                uint64_t from = test_random_below(&r, 50), count = 1 + test_random_below(&r, 20);
                struct ingest_request *request = try_begin(from, count);
                if (request != NULL)
                    open_requests[open_count++] = request;
            } else if (action < 8 && fake->held_count > 0) {
                size_t which = test_random_below(&r, 3) == 0 ? test_random_below(&r, fake->held_count) : 0;
                fake_release(fake, which, test_random_below(&r, 6) == 0 ? ERR_IO : OK);
            } else if (action == 8) {
                io_sim_clock_advance(io, (int64_t)test_random_below(&r, 40) * 60 * NS_PER_SECOND);
                ingest_step(ingest);
            }
            for (size_t i = 0; i < open_count;) {
                struct ingest_result result;
                if (ingest_poll(open_requests[i], &result))
                    open_requests[i] = open_requests[--open_count];
                else
                    i++;
            }
        }
        while (fake->held_count > 0)
            fake_release(fake, 0, OK);
        for (size_t i = 0; i < open_count; i++)
            end(open_requests[i]);
        assert_int_equal(fake->unbound, 0);
        for (size_t i = 0; i < fake->row_count; i++) /* a row's value says which series it was */
            assert_true(slice_equal(fake->rows[i].labels, labels_of(fake->rows[i].bits)));
        close_all();
    }
}

static void idle_series_are_dropped(void **state)
{
    struct ingest_config config = one_partition();
    config.limits.series_max = 60;
    open_all(1, config);
    write_now(0, 60);
    assert_int_equal(write_now(100, 1).status, 400);
    for (int minute = 0; minute < 120; minute++) {
        io_sim_clock_advance(io, 60 * NS_PER_SECOND);
        write_now(0, 10);
        ingest_step(ingest);
    }
    assert_int_equal(ingest_usage(ingest).series, 10);
    assert_int_equal(ingest_tenant_series(ingest, slice_str("t")), 10);
    assert_int_equal(write_now(20, 40).status, 204);
    io_sim_clock_advance(io, config.announce_ms * NS_PER_MS);
    int64_t minute = io_monotonic_ns(io) / NS_PER_SECOND / 60;
    for (uint32_t id = 0; id < ingest->table.id_count; id++)
        series_at(&ingest->table, id)->used = (uint16_t)(minute + 1); /* it begins during the step */
    ingest_step(ingest);
    assert_int_equal(ingest_usage(ingest).series, 50);
    assert_int_equal(fake->unbound, 0);
    close_all();
}

/* Every live series is announced again within the interval, spread over it. */
static void announced_again(void **state)
{
    open_all(1, one_partition());
    write_now(0, 60);
    uint64_t before = fake->announce_count, most = 0;
    for (int minute = 0; minute < 31; minute++) {
        uint64_t count = fake->announce_count;
        io_sim_clock_advance(io, 60 * NS_PER_SECOND);
        ingest_step(ingest);
        write_now(0, 60);
        most = fake->announce_count - count > most ? fake->announce_count - count : most;
    }
    assert_in_range(fake->announce_count - before, 60, 66);
    assert_in_range(most, 1, 6);
    close_all();
}

/* More dead than live numbers: a new incarnation, at most hourly; rows of both are named. */
static void new_incarnation(void **state)
{
    open_all(1, one_partition());
    uint64_t id = 100;
    uint8_t lives[10][INCARNATION_BYTES];
    size_t life_count = 0;
    for (int minute = 0; minute < 600; minute++) {
        io_sim_clock_advance(io, 60 * NS_PER_SECOND);
        for (int k = 0; k < 1; k++, id += 20)
            write_now(id, 20);
        write_now(0, 10);
        ingest_step(ingest);
    }
    for (size_t i = 0; i < FAKE_BINDING_COUNT; i++) {
        if (fake->bindings[i].labels.at == NULL)
            continue;
        size_t k = 0;
        while (k < life_count && memcmp(lives[k], fake->bindings[i].key, INCARNATION_BYTES) != 0)
            k++;
        assert_true(k < 10);
        if (k == life_count)
            memcpy(lives[life_count++], fake->bindings[i].key, INCARNATION_BYTES);
    }
    assert_in_range(life_count, 2, 10);
    assert_int_equal(fake->unbound, 0);
    for (size_t i = 0; i < fake->row_count; i++)
        assert_true(slice_equal(fake->rows[i].labels, labels_of(fake->rows[i].bits)));
    assert_in_range(ingest_usage(ingest).series, 100, 3000);
    close_all();
}

/* Sequences given up are gaps that storage keeps for the whole life of an incarnation: at some number it ends,
 * within the hour if they are very many. */
static void gaps_end_a_life(void **state)
{
    static const int failures[] = { 5000, 70000 }, minutes[] = { 61, 1 };
    for (int i = 0; i < 2; i++) {
        open_all(1, one_partition());
        write_now(0, 1);
        uint8_t first[INCARNATION_BYTES];
        memcpy(first, ingest->producers[0].incarnation, sizeof first);
        fake->answer = ERR_BUSY;
        for (int k = 0; k < failures[i]; k++)
            write_now(0, 1);
        fake->answer = OK;
        for (int minute = 0; minute < minutes[i]; minute++) {
            io_sim_clock_advance(io, 60 * NS_PER_SECOND);
            write_now(0, 1);
            ingest_step(ingest);
        }
        assert_memory_not_equal(first, ingest->producers[0].incarnation, sizeof first);
        close_all();
    }
}

/* A request that is given up after records of it were complete takes no sequences: they would be gaps, too. */
static void refused_requests_leave_no_gap(void **state)
{
    enum { LINES = 70000 };
    struct ingest_config config = one_partition();
    config.limits.samples_per_request_max = LINES - 1;
    open_all(1, config);
    struct buf text = buf_open(pool, 8u << 20);
    struct ingest_result result;
    for (int i = 0; i < LINES; i++)
        buf_put_str(&text, "m 1\n");
    for (int i = 0; i < 3; i++) {
        struct ingest_request *request =
            ingest_begin_import_text(ingest, slice_str("t"), slice_str(""),
                                     slice_part(buf_slice(&text), 0, text.len - (i == 2) * 4), text.len,
                                     &result);
        assert_int_equal(end(request).status, i == 2 ? 204 : 413);
    }
    assert_int_equal(fake->record_count, 2);
    assert_int_equal(atomic_load(&ingest->producers[0].sequence), 2);
    close_all();
}

/* More files than may be known, half of them under other names than a moment ago. */
static void discovery_files_get_other_names(void **state)
{
    enum { FILES = 6000 };
    open_all(1, one_partition());
    struct slice pattern = slice_str("sd-*.json");
    struct scrape_files patterns = { .patterns = &pattern, .pattern_count = 1, .refresh_ms = 1000 };
    struct scrape_job job = { .files = &patterns, .file_count = 1 };
    struct discovery_files files;
    discovery_files_open(pool, &files);
    for (int life = 0; life < 3; life++) {
        bool changed;
        struct err_at at = { 0 };
        for (int i = 0; i < FILES; i++) {
            char name[40];
            struct io_file *file;
            snprintf(name, sizeof name, "sd-%d-%d.json", life - 1, i);
            assert_true(life == 0 || io_unlink(io, name) == OK);
            snprintf(name, sizeof name, "sd-%d-%d.json", life, i);
            assert_ok(io_file_open(io, name, IO_CREATE, &file));
            assert_ok(io_file_write(file, 0, slice_str("[]")));
            io_file_close(file);
        }
        assert_ok(discovery_files_refresh(&files, io, &job, &changed, &at));
        assert_true(changed);
        assert_int_equal(files.count, FILES);
    }
    discovery_files_close(&files);
    close_all();
}

/* A tenant that went away gives its place back. */
static void tenants_come_and_go(void **state)
{
    open_all(1, one_partition());
    struct ingest_row row = { .labels = labels_of(1), .t_ms = 1 };
    struct ingest_rows rows = { .rows = &row, .row_count = 1 };
    for (int round = 0; round < 3; round++) {
        char name[40];
        struct ingest_result result;
        for (int i = 0; i < 4096; i++) {
            snprintf(name, sizeof name, "t%d-%d", round, i);
            struct ingest_request *request = ingest_begin_write(ingest, slice_str(name), &rows, &result);
            assert_int_equal(end(request).status, 204);
        }
        assert_null(ingest_begin_write(ingest, slice_str("one too many"), &rows, &result));
        assert_int_equal(result.status, 429);
        for (int minute = 0; minute < 130; minute++) {
            io_sim_clock_advance(io, 60 * NS_PER_SECOND);
            ingest_step(ingest);
        }
        assert_int_equal(ingest_usage(ingest).series, 0);
    }
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_until_acknowledged),
        cmocka_unit_test(log_that_went_back),
        cmocka_unit_test(log_in_a_new_generation),
        cmocka_unit_test(partitions_stand_alone),
        cmocka_unit_test(the_log_answers_late),
        cmocka_unit_test(one_partition_answers_late),
        cmocka_unit_test(many_are_given_up),
        cmocka_unit_test(random_runs),
        cmocka_unit_test(idle_series_are_dropped),
        cmocka_unit_test(announced_again),
        cmocka_unit_test(new_incarnation),
        cmocka_unit_test(tenants_come_and_go),
        cmocka_unit_test(gaps_end_a_life),
        cmocka_unit_test(refused_requests_leave_no_gap),
        cmocka_unit_test(discovery_files_get_other_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
