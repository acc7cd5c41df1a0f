/* For simulated tests of this room: an ingest over a log in memory and a simulated clock, and requests of rows of
 * series that are numbered. Include after base/test.h and sim/io_sim.h in one
 * file. */
#ifndef INGEST_WRITE_FIXTURE_H
#define INGEST_WRITE_FIXTURE_H

#include "base/time.h"
#include "ingest/request.h"
#include "ingest/test_log.h"

static struct pool *pool;
static struct io *io;
static struct log *fake;
static struct ingest *ingest;

/* Over a log of that generation; 0: one that never goes back. */
static inline void open_over(uint64_t seed, struct ingest_config config, uint64_t generation)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_ok(io_sim_open(seed, &io));
    fake = fake_log_open(pool);
    fake->generation = generation;
    assert_ok(ingest_open(&config, io, fake, pool, &ingest));
}

static inline void open_all(uint64_t seed, struct ingest_config config) { open_over(seed, config, 0); }

static inline void pass_ms(int64_t ms) { io_sim_clock_advance(io, ms * NS_PER_MS); }

static inline void close_all(void)
{
    ingest_close(ingest);
    io_close(io);
    pool_close(pool);
}

static inline struct ingest_config one_partition(void)
{
    struct ingest_config config = ingest_config_default();
    config.partition_count = 1;
    return config;
}

static inline struct slice labels_of(uint64_t id)
{
    struct buf out = buf_open(pool, 4096);
    char text[60];
    snprintf(text, sizeof text, "__name__=m id=%llu", (unsigned long long)id);
    pb_labels(&out, text);
    return buf_slice(&out);
}

/* Begin to write rows of series [from, from + count). NULL: refused, because answers of the log are late. */
static inline struct ingest_request *try_begin(uint64_t from, uint64_t count)
{
    struct ingest_row rows[64];
    struct ingest_result refusal;
    for (uint64_t i = 0; i < count; i++)
        rows[i] = (struct ingest_row){ .labels = labels_of(from + i), .t_ms = 1, .value_bits = from + i };
    struct ingest_rows all = { .rows = rows, .row_count = count };
    struct ingest_request *request = ingest_begin_write(ingest, slice_str("t"), &all, &refusal);
    if (request == NULL)
        assert_true(refusal.status == 503 && refusal.retry_after_s > 0 && ingest->abandoned > 0);
    return request;
}

static inline struct ingest_request *begin(uint64_t from, uint64_t count)
{
    struct ingest_request *request = try_begin(from, count);
    assert_non_null(request);
    return request;
}

static inline struct ingest_result end(struct ingest_request *request)
{
    struct ingest_result result;
    assert_true(ingest_poll(request, &result));
    return result;
}

static inline struct ingest_result write_now(uint64_t from, uint64_t count)
{
    return end(begin(from, count));
}

#endif
