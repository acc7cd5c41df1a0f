/* Goal: the log keeps its contract on the real system: order, offsets, readers from memory and from disk, restart,
 * recycling, limits, threads. Method: small files in a fresh directory; a record's bytes are a function of its
 * partition and offset, so every reader checks every byte. Crashes and faults: log_simtest.c. */
#include "base/test.h"

#include <stdatomic.h>
#include <string.h>

#include "base/stat.h"
#include "base/time.h"
#include "io/thread.h"
#include "log/log_file.h"

#define PARTITIONS 4

struct fixture {
    struct io *io;
    struct pool *pool;
    struct log *log;
    char root[64];
    struct log_config config;
};

struct request {
    struct log_append append;
    struct slice part[2];
    uint8_t bytes[70000];
    err result;
    struct log_position position;
    int done_count;
};

static void request_done(struct log_append *append, err result, struct log_position position)
{
    struct request *request = append->context;
    request->result = result;
    request->position = position;
    request->done_count++;
}

static void fill(uint8_t *at, size_t len, uint32_t partition, uint64_t offset)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(hash_mix(partition * UINT64_C(1000003) + offset + i / 8) >> (i % 8 * 8));
}

static size_t length_of(uint32_t partition, uint64_t offset, size_t bytes_max)
{
    return (size_t)(hash_mix(offset * 7 + partition) % bytes_max);
}

static void open_log(struct fixture *f)
{
    struct err_at at;
    err e = log_open(&f->config, f->io, f->pool, &f->log, &at);
    if (e != OK)
        fail_msg("%s: %s", err_text(e), at.text);
}

static int set_up(void **state)
{
    struct fixture *f = test_calloc(1, sizeof *f);
    strcpy(f->root, "/tmp/log_test_XXXXXX");
    assert_non_null(mkdtemp(f->root));
    assert_ok(io_open(f->root, &f->io));
    f->pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    f->config = (struct log_config){
        .directory = "log",
        .cluster_id = "cluster-of-tests",
        .partition_count = PARTITIONS,
        .file_bytes = 256 << 10,
        .queue_bytes_max = 32 << 20,
        .tail_bytes_max = 1 << 20,
    };
    open_log(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    log_close(f->log);
    pool_close(f->pool);
    io_close(f->io);
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", f->root);
    assert_int_equal(0, system(command));
    test_free(f);
    return 0;
}

static void append_begin(struct fixture *f, struct request *r, uint32_t partition, uint64_t offset,
                         size_t bytes_max)
{
    size_t len = length_of(partition, offset, bytes_max);
    fill(r->bytes, len, partition, offset);
    r->part[0] = slice_of(r->bytes, len / 3);
    r->part[1] = slice_of(r->bytes + len / 3, len - len / 3);
    r->append = (struct log_append){
        .partition = partition,
        .parts = r->part,
        .part_count = 2,
        .done = request_done,
        .context = r,
    };
    r->done_count = 0;
    log_append(f->log, &r->append);
}

/* Append `count` records to each partition, from its present end, in groups of a few. */
static void append_many(struct fixture *f, uint64_t count, size_t bytes_max)
{
    struct request *requests = test_calloc(PARTITIONS, sizeof *requests);
    uint64_t from[PARTITIONS];
    for (uint32_t p = 0; p < PARTITIONS; p++)
        from[p] = log_watermarks(f->log, p).end_offset;
    for (uint64_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < PARTITIONS; p++)
            append_begin(f, &requests[p], p, from[p] + i, bytes_max);
        assert_ok(log_pump(f->log));
        while (requests[PARTITIONS - 1].done_count == 0)
            assert_ok(log_pump(f->log));
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            assert_int_equal(1, requests[p].done_count);
            assert_ok(requests[p].result);
            assert_int_equal(from[p] + i, requests[p].position.offset);
        }
    }
    test_free(requests);
}

static void expect_record(struct log_reader *reader, uint32_t partition, uint64_t offset, size_t bytes_max)
{
    static uint8_t expected[70000];
    struct log_record record;
    assert_ok(log_reader_next(reader, &record));
    assert_int_equal(offset, record.position.offset);
    assert_false(record.damaged);
    size_t len = length_of(partition, offset, bytes_max);
    assert_int_equal(len, record.bytes.len);
    fill(expected, len, partition, offset);
    assert_memory_equal(expected, record.bytes.at, len);
}

static void expect_all(struct fixture *f, uint64_t from, size_t bytes_max)
{
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct log_reader *reader;
        struct log_record record;
        assert_ok(log_reader_open(f->log, p, from, LOG_EPOCH_NONE, &reader));
        uint64_t end = log_watermarks(f->log, p).end_offset;
        for (uint64_t offset = from; offset < end; offset++)
            expect_record(reader, p, offset, bytes_max);
        assert_err(ERR_END, log_reader_next(reader, &record));
        log_reader_close(reader);
    }
}

static void reopen(struct fixture *f)
{
    log_close(f->log);
    open_log(f);
    size_t count;
    log_damages(f->log, &count);
    assert_int_equal(0, count);
}

static void test_append_read_reopen(void **state)
{
    struct fixture *f = *state;
    append_many(f, 300, 2000);
    expect_all(f, 0, 2000);
    reopen(f);
    expect_all(f, 0, 2000);
    append_many(f, 100, 2000);
    reopen(f);
    expect_all(f, 0, 2000);
    expect_all(f, 399, 2000);
}

static void test_large_and_empty_records(void **state)
{
    struct fixture *f = *state;
    append_many(f, 20, 70000); /* larger than a quarter of a file */
    append_many(f, 5, 1);      /* empty */
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct log_reader *reader;
        assert_ok(log_reader_open(f->log, p, 0, LOG_EPOCH_NONE, &reader));
        for (uint64_t i = 0; i < 25; i++)
            expect_record(reader, p, i, i < 20 ? 70000 : 1);
        log_reader_close(reader);
    }

    size_t len = LOG_RECORD_BYTES_MAX;
    uint8_t *bytes = test_calloc(1, len + 1);
    fill(bytes, len, 0, 25);
    struct slice part = slice_of(bytes, len + 1);
    struct request *r = test_calloc(1, sizeof *r);
    r->append = (struct log_append){ .parts = &part, .part_count = 1, .done = request_done, .context = r };
    log_append(f->log, &r->append);
    assert_int_equal(1, r->done_count);
    assert_err(ERR_LIMIT, r->result);
    part.len = len;
    log_append(f->log, &r->append);
    assert_ok(log_pump(f->log));
    assert_ok(r->result);
    reopen(f);
    struct log_reader *reader;
    struct log_record record;
    assert_ok(log_reader_open(f->log, 0, 25, LOG_EPOCH_NONE, &reader));
    assert_ok(log_reader_next(reader, &record));
    assert_int_equal(len, record.bytes.len);
    assert_memory_equal(bytes, record.bytes.at, len);
    log_reader_close(reader);
    test_free(r);
    test_free(bytes);
}

static void test_tail_is_served_from_memory(void **state)
{
    struct fixture *f = *state;
    struct log_reader *readers[PARTITIONS];
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_ok(log_reader_open(f->log, p, 0, LOG_EPOCH_NONE, &readers[p]));
    int64_t before = stat_get(STAT_LOG_RECORDS_FROM_DISK);
    for (uint64_t round = 0; round < 30; round++) {
        append_many(f, 5, 2000);
        for (uint32_t p = 0; p < PARTITIONS; p++)
            for (uint64_t i = 0; i < 5; i++)
                expect_record(readers[p], p, round * 5 + i, 2000);
    }
    assert_int_equal(before, stat_get(STAT_LOG_RECORDS_FROM_DISK));
    assert_ok(log_pump(f->log));
    assert_int_equal(0, log_file_of(f->log)->chunk_bytes); /* all passed, nothing is held */

    /* One reader stops: the tail holds what it needs up to the bound, then it reads disk. */
    size_t tail_bytes = 0;
    for (uint64_t round = 30; round < 300; round++) {
        append_many(f, 5, 2000);
        for (uint32_t p = 1; p < PARTITIONS; p++)
            for (uint64_t i = 0; i < 5; i++)
                expect_record(readers[p], p, round * 5 + i, 2000);
        tail_bytes = (size_t)log_file_of(f->log)->chunk_bytes;
        assert_true(tail_bytes <= f->config.tail_bytes_max + LOG_GROUP_BYTES_MAX);
    }
    assert_true(tail_bytes > f->config.tail_bytes_max / 2);
    for (uint64_t i = 150; i < 1500; i++)
        expect_record(readers[0], 0, i, 2000);
    assert_true(stat_get(STAT_LOG_RECORDS_FROM_DISK) > before);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        log_reader_close(readers[p]);
}

/* Opening takes a window of a file, not all of it: a small budget opens large files. */
static void test_large_files_open_in_little_memory(void **state)
{
    struct fixture *f = *state;
    log_close(f->log);
    f->config.file_bytes = 16u << 20;
    open_log(f);
    append_many(f, 100, 70000);
    uint64_t largest = 0;
    for (size_t i = 0; i < log_file_of(f->log)->file_count; i++)
        if (log_file_of(f->log)->files[i]->size > largest)
            largest = log_file_of(f->log)->files[i]->size;
    assert_int_equal(f->config.file_bytes, largest);
    log_close(f->log);
    pool_set_budget(f->pool, pool_used(f->pool) + (2u << 20));
    open_log(f);
    pool_set_budget(f->pool, POOL_BYTES_UNLIMITED);
    expect_all(f, 0, 70000);
}

/* One reader among sixteen partitions: frames are read one by one, without the shared blocks. */
static void test_sparse_reader(void **state)
{
    struct fixture *f = *state;
    log_close(f->log);
    f->config.directory = "sparse/log";
    f->config.partition_count = 16;
    assert_ok(io_dir_create(f->io, "sparse"));
    open_log(f);
    append_many(f, 30, 70000);
    expect_all(f, 0, 70000);
    assert_int_equal(0, log_file_of(f->log)->block_count);
    reopen(f);
    expect_all(f, 7, 70000);
}

/* Bytes that rot while the log is open: that record is told as damaged, the next ones are read. */
static void test_rot_while_open(void **state)
{
    struct fixture *f = *state;
    append_many(f, 20, 2000);
    reopen(f);
    char path[128];
    snprintf(path, sizeof path, "%s/log/00000001.log", f->root);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(0, fseek(file, (long)log_data_start(PARTITIONS) + 17, SEEK_SET));
    assert_int_equal(1, fwrite("?", 1, 1, file)); /* in the header of the first record of partition 0 */
    assert_int_equal(0, fclose(file));
    struct log_reader *reader;
    struct log_record record;
    assert_ok(log_reader_open(f->log, 0, 0, LOG_EPOCH_NONE, &reader));
    assert_ok(log_reader_next(reader, &record));
    assert_true(record.damaged);
    assert_int_equal(0, record.bytes.len);
    for (uint64_t offset = 1; offset < 20; offset++)
        expect_record(reader, 0, offset, 2000);
    log_reader_close(reader);

    log_close(f->log); /* and recovery names it */
    open_log(f);
    size_t count;
    const struct log_damage *damages = log_damages(f->log, &count);
    assert_int_equal(1, count);
    assert_int_equal(0, damages[0].partition);
    assert_int_equal(0, damages[0].from_offset);
    assert_int_equal(1, damages[0].to_offset);
    assert_string_equal("log/00000001.log", damages[0].file);
    assert_ok(log_reader_open(f->log, 0, 0, LOG_EPOCH_NONE, &reader));
    assert_ok(log_reader_next(reader, &record));
    assert_true(record.damaged);
    expect_record(reader, 0, 1, 2000);
    log_reader_close(reader);
}

static void test_trim_recycles(void **state)
{
    struct fixture *f = *state;
    append_many(f, 600, 2000); /* about ten files */
    size_t files = log_file_of(f->log)->file_count;
    assert_true(files > 5);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_ok(log_trim(f->log, p, 500));
    assert_int_equal(500, log_watermarks(f->log, 0).start_offset);
    assert_true(log_file_of(f->log)->file_count < 5);
    assert_true(log_usage(f->log).recycled_bytes > 0);
    assert_true(log_usage(f->log).recycled_bytes <= 2 * f->config.file_bytes);
    struct log_reader *reader;
    assert_err(ERR_NOT_FOUND, log_reader_open(f->log, 1, 499, LOG_EPOCH_NONE, &reader));
    assert_err(ERR_ORDER, log_reader_open(f->log, 1, 601, LOG_EPOCH_NONE, &reader));
    expect_all(f, 500, 2000);
    append_many(f, 200, 2000); /* over the recycled files */
    expect_all(f, 500, 2000);
    reopen(f);
    assert_int_equal(500, log_watermarks(f->log, 0).start_offset); /* a header since then names the trim */
    expect_all(f, 500, 2000);

    /* A reader that is overtaken by the trim. */
    struct log_record record;
    assert_ok(log_reader_open(f->log, 0, 500, LOG_EPOCH_NONE, &reader));
    assert_ok(log_trim(f->log, 0, 510));
    assert_err(ERR_NOT_FOUND, log_reader_next(reader, &record));
    for (uint32_t p = 0; p < PARTITIONS; p++) /* and its file goes, while others write */
        assert_ok(log_trim(f->log, p, 790));
    assert_true(log_file_of(f->log)->files[0]->places[0].first > 500);
    append_many(f, 1, 2000);
    assert_err(ERR_NOT_FOUND, log_reader_next(reader, &record));
    log_reader_close(reader);
}

/* A header that names a wrong file before it leaves one with records outside the chain: that one is set aside and
 * what it held is named. Other files outside the chain that are newer than its oldest never had a record. */
static void test_file_outside_the_chain(void **state)
{
    struct fixture *f = *state;
    append_many(f, 300, 2000);
    struct log_file *log = log_file_of(f->log);
    size_t files = log->file_count;
    assert_true(files >= 4);
    uint64_t number = log->files[files - 2]->number;
    uint64_t starts[PARTITIONS], trims[PARTITIONS] = { 0 };
    for (uint32_t p = 0; p < PARTITIONS; p++)
        starts[p] = log->files[files - 1]->places[p].first;
    struct log_file_header header = {
        .partition_count = PARTITIONS,
        .number = log->files[files - 1]->number,
        .previous_number = log->files[files - 3]->number,
        .previous_end = log->files[files - 3]->end,
        .starts = starts,
        .trims = trims,
    };
    memcpy(header.cluster_id, f->config.cluster_id, sizeof header.cluster_id);
    uint64_t from = log->files[files - 2]->places[1].first;
    char newest[LOG_PATH_BYTES], outside[LOG_PATH_BYTES], aside[LOG_PATH_BYTES], empty[LOG_PATH_BYTES];
    log_store_path(log, header.number, ".log", newest);
    log_store_path(log, number, ".log", outside);
    log_store_path(log, number, ".lost", aside);
    log_close(f->log);

    uint64_t copy_bytes = log_header_copy_bytes(PARTITIONS);
    uint8_t *copy = test_calloc(1, (size_t)copy_bytes);
    log_header_encode(&header, copy);
    struct slice copies[2] = { slice_of(copy, (size_t)copy_bytes), slice_of(copy, (size_t)copy_bytes) };
    struct io_file *file;
    assert_ok(io_file_open(f->io, newest, IO_WRITE, &file));
    assert_ok(io_file_write_all(file, 0, copies, 2));
    io_file_close(file);
    test_free(copy);

    open_log(f);
    assert_false(io_exists(f->io, outside));
    assert_true(io_exists(f->io, aside));
    size_t count;
    const struct log_damage *damages = log_damages(f->log, &count);
    assert_int_equal(PARTITIONS, count);
    assert_int_equal(1, damages[1].partition);
    assert_int_equal(from, damages[1].from_offset);
    assert_int_equal(starts[1], damages[1].to_offset);

    append_many(f, 1, 2000); /* its number and those around it are not used again */
    log_store_path(log_file_of(f->log), header.number + 1, ".log", empty);
    assert_true(io_exists(f->io, empty));
    log_close(f->log);
    open_log(f);
    assert_true(io_exists(f->io, aside));
}

/* A .log file without a frame that the chain does not lead to: opening it had failed, and so had its removal. */
static void test_leftover_without_records(void **state)
{
    struct fixture *f = *state;
    append_many(f, 1, 100);
    struct log_file *log = log_file_of(f->log);
    uint64_t offsets[PARTITIONS] = { 0 };
    struct log_file_header header = {
        .partition_count = PARTITIONS,
        .number = 2,
        .previous_number = 1,
        .previous_end = log->active->end,
        .starts = offsets,
        .trims = offsets,
    };
    memcpy(header.cluster_id, f->config.cluster_id, sizeof header.cluster_id);
    uint64_t copy_bytes = log_header_copy_bytes(PARTITIONS);
    uint8_t *copy = test_calloc(1, (size_t)copy_bytes);
    log_header_encode(&header, copy);
    struct slice copies[2] = { slice_of(copy, (size_t)copy_bytes), slice_of(copy, (size_t)copy_bytes) };
    struct io_file *file;
    assert_ok(io_file_open(f->io, "log/00000002.log", IO_CREATE, &file));
    assert_ok(io_file_write_all(file, 0, copies, 2));
    assert_ok(io_file_allocate(file, 64 << 10));
    io_file_close(file);
    assert_ok(io_file_open(f->io, "log/00000003.log", IO_CREATE, &file)); /* not even a header */
    assert_ok(io_file_allocate(file, 64 << 10));
    io_file_close(file);
    log->next_number = 4;
    log->active = NULL;
    append_many(f, 1, 100);
    log_close(f->log);
    open_log(f);
    assert_true(io_exists(f->io, "log/00000004.log"));
    assert_false(io_exists(f->io, "log/00000002.log"));
    assert_false(io_exists(f->io, "log/00000002.lost"));
    assert_false(io_exists(f->io, "log/00000003.log"));
    assert_true(io_exists(f->io, "log/00000003.lost"));
    expect_all(f, 0, 100);
    test_free(copy);
}

static void test_offsets_survive_a_full_trim(void **state)
{
    struct fixture *f = *state;
    append_many(f, 50, 2000);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_ok(log_trim(f->log, p, 50));
    for (int round = 0; round < 3; round++) {
        reopen(f);
        assert_int_equal(50 + round, log_watermarks(f->log, 2).end_offset);
        append_many(f, 1, 2000);
        for (uint32_t p = 0; p < PARTITIONS; p++)
            assert_ok(log_trim(f->log, p, 51 + (uint64_t)round));
        assert_ok(log_tidy(f->log));
        assert_int_equal(1, log_file_of(f->log)->file_count);
    }
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    struct request *a = test_calloc(1, sizeof *a);
    log_close(f->log);
    f->config.queue_bytes_max = 100;
    open_log(f);
    struct slice part = slice_of("0123456789012345678901234567890123456789012345678901234567890123", 64);
    a->append = (struct log_append){ .parts = &part, .part_count = 1, .done = request_done, .context = a };
    struct request *b = test_calloc(1, sizeof *b);
    b->append = a->append;
    b->append.context = b;
    log_append(f->log, &a->append);
    log_append(f->log, &b->append);
    assert_int_equal(0, a->done_count);
    assert_int_equal(1, b->done_count);
    assert_err(ERR_BUSY, b->result);
    assert_int_equal(64, log_usage(f->log).queued_bytes);
    log_close(f->log); /* pumps what waits */
    assert_ok(a->result);
    f->log = NULL;

    struct log_config other = f->config;
    struct err_at at;
    other.cluster_id[3] ^= 1;
    assert_err(ERR_CONFLICT, log_open(&other, f->io, f->pool, &f->log, &at));
    other = f->config;
    other.partition_count = 8;
    assert_err(ERR_CONFLICT, log_open(&other, f->io, f->pool, &f->log, &at));
    other.partition_count = 2;
    assert_err(ERR_CONFLICT, log_open(&other, f->io, f->pool, &f->log, &at));
    other.partition_count = 0;
    assert_err(ERR_LIMIT, log_open(&other, f->io, f->pool, &f->log, &at));
    other = f->config;
    other.file_bytes = 100;
    assert_err(ERR_LIMIT, log_open(&other, f->io, f->pool, &f->log, &at));
    open_log(f);
    test_free(a);
    test_free(b);
}

static bool space_is_low(void *context) { return *(bool *)context; }

static void test_space_floor(void **state)
{
    struct fixture *f = *state;
    bool low = true;
    struct request *r = test_calloc(1, sizeof *r);
    log_close(f->log);
    f->config.is_space_low = space_is_low;
    f->config.space_context = &low;
    open_log(f);
    append_begin(f, r, 0, 0, 100);
    assert_int_equal(1, r->done_count);
    assert_err(ERR_SPACE, r->result);
    r->append.frees_space = true;
    log_append(f->log, &r->append);
    assert_ok(log_pump(f->log));
    assert_int_equal(2, r->done_count);
    assert_ok(r->result);
    low = false;
    append_many(f, 1, 100);
    f->config.is_space_low = NULL;
    reopen(f);
    expect_all(f, 0, 100);
    test_free(r);
}

static void test_ack_os(void **state)
{
    struct fixture *f = *state;
    log_close(f->log);
    f->config.ack = LOG_ACK_OS;
    open_log(f);
    int64_t before = stat_get(STAT_LOG_SYNCS);
    append_many(f, 50, 2000);
    assert_true(stat_get(STAT_LOG_SYNCS) - before <= 2);
    expect_all(f, 0, 2000);
    reopen(f);
    expect_all(f, 0, 2000);
}

/* ---- threads ---- */

struct waiter {
    struct io_mutex mutex;
    struct io_cond cond;
};

struct client {
    struct fixture *f;
    struct waiter *waiter;
    uint32_t partition;
    uint64_t count;
    bool is_done;
    err result;
    struct io_thread *thread;
};

static void client_done(struct log_append *append, err result, struct log_position position)
{
    struct client *c = append->context;
    io_mutex_lock(&c->waiter->mutex);
    c->result = result;
    c->is_done = true;
    io_cond_broadcast(&c->waiter->cond);
    io_mutex_unlock(&c->waiter->mutex);
}

static void client_run(void *context)
{
    struct client *c = context;
    static const uint8_t bytes[4096];
    struct slice part = slice_of(bytes, sizeof bytes);
    for (uint64_t i = 0; i < c->count; i++) {
        struct log_append append = {
            .partition = c->partition,
            .parts = &part,
            .part_count = 1,
            .done = client_done,
            .context = c,
        };
        c->is_done = false;
        log_append(c->f->log, &append);
        io_mutex_lock(&c->waiter->mutex);
        while (!c->is_done)
            io_cond_wait(&c->waiter->cond, &c->waiter->mutex);
        io_mutex_unlock(&c->waiter->mutex);
        assert_ok(c->result);
    }
}

static void test_threads(void **state)
{
    struct fixture *f = *state;
    struct waiter waiters[8];
    struct client clients[8];
    assert_ok(log_run_thread(f->log));
    int64_t begin_ns = io_monotonic_ns(f->io);
    for (uint32_t i = 0; i < 8; i++) {
        io_mutex_init(&waiters[i].mutex);
        io_cond_init(&waiters[i].cond);
        clients[i] =
            (struct client){ .f = f, .waiter = &waiters[i], .partition = i % PARTITIONS, .count = 100 };
        assert_ok(io_thread_start(f->io, "client", client_run, &clients[i], &clients[i].thread));
    }
    struct log_reader *reader;
    struct log_record record;
    assert_ok(log_reader_open(f->log, 0, 0, LOG_EPOCH_NONE, &reader));
    uint64_t seen = 0;
    while (seen < 200) {
        err e = log_reader_next(reader, &record);
        if (e == OK) {
            assert_int_equal(seen, record.position.offset);
            assert_int_equal(4096, record.bytes.len);
            seen++;
            if (seen % 50 == 0)
                assert_ok(log_trim(f->log, 0, seen - 10));
        } else {
            assert_err(ERR_END, e);
            io_sleep_ns(f->io, 100000);
        }
    }
    log_reader_close(reader);
    for (uint32_t i = 0; i < 8; i++) {
        io_thread_join(clients[i].thread);
        io_mutex_done(&waiters[i].mutex);
        io_cond_done(&waiters[i].cond);
    }
    printf("# 800 records of 4 KiB from 8 threads: %lld us each\n",
           (long long)((io_monotonic_ns(f->io) - begin_ns) / 1000 / 800));
    reopen(f);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_int_equal(200, log_watermarks(f->log, p).end_offset);
}

struct trimmer {
    struct log *log;
    _Atomic bool stop;
    struct io_thread *thread;
};

static void trimmer_run(void *context)
{
    struct trimmer *t = context;
    while (!atomic_load(&t->stop))
        for (uint32_t p = 0; p < PARTITIONS; p++)
            assert_ok(log_trim(t->log, p, log_watermarks(t->log, p).end_offset));
}

/* Files go on one thread while the pump opens new ones: each header names the file before it. */
static void test_trim_while_rotating(void **state)
{
    struct fixture *f = *state;
    log_close(f->log);
    f->config.file_bytes = LOG_FILE_BYTES_MIN;
    f->config.ack = LOG_ACK_OS;
    open_log(f);
    struct trimmer trimmer = { .log = f->log };
    assert_ok(io_thread_start(f->io, "trimmer", trimmer_run, &trimmer, &trimmer.thread));
    append_many(f, 500, 2000);
    atomic_store(&trimmer.stop, true);
    io_thread_join(trimmer.thread);
    append_many(f, 5, 2000);
    reopen(f);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_int_equal(505, log_watermarks(f->log, p).end_offset);
    expect_all(f, 500, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_append_read_reopen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_and_empty_records, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tail_is_served_from_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large_files_open_in_little_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sparse_reader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rot_while_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trim_recycles, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file_outside_the_chain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_leftover_without_records, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_offsets_survive_a_full_trim, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_space_floor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ack_os, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trim_while_rotating, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
