/* Test only: a node without its edges (log, blob store, shards), a producer, and a model of what was
 * acknowledged. Shared by shard_test.c (real disk) and shard_simtest.c (simulated disk).
 *
 * The model keeps every record ever handed to the log with its rows, each (series, t) unique over all but
 * where a test asks for duplicates. The oracle: every acknowledged record's rows are there, bit for bit; of
 * a record that was not
 * acknowledged all rows are there or none; nothing else is; and each partition's SUM is that of the
 * records that are there. */
#ifndef SHARD_WORKLOAD_H
#define SHARD_WORKLOAD_H

#include "base/test.h"

#include "blob/blob.h"
#include "log/log.h"
#include "model/batch.h"
#include "model/labels.h"
#include "shard/shard.h"

#define WORLD_PARTITIONS  2
#define WORLD_SERIES      24 /* of each partition */
#define WORLD_RECORDS_MAX 4096
#define WORLD_ROWS_MAX    64                     /* of a record */
#define WORLD_EPOCH_MS    INT64_C(1700006400000) /* a UTC midnight */

struct world_row {
    uint32_t series; /* within the partition */
    int64_t t_ms;
    uint64_t bits;
};

/* LOST: it was acknowledged, and then the log lost it. */
enum world_answer { WORLD_PENDING, WORLD_ACKED, WORLD_REFUSED, WORLD_LOST };

struct world_record {
    uint32_t partition;
    uint8_t incarnation[INCARNATION_BYTES];
    struct world_row rows[WORLD_ROWS_MAX];
    size_t row_count;
    struct sum sum;
    _Atomic enum world_answer answer; /* the thread of the log writes it */
    uint64_t offset;                  /* once it is acknowledged */
    int64_t append_ms;
    bool is_there; /* in the last check's answer */
    struct log_append append;
    struct slice part;
    struct buf bytes;
};

struct world_producer {
    uint8_t id[INCARNATION_BYTES];
    uint64_t sequence[WORLD_PARTITIONS];
    bool announced[WORLD_PARTITIONS][WORLD_SERIES];
};

struct world {
    struct io *io;
    struct pool *pool;      /* of the model, for ever */
    struct pool *node_pool; /* of the node, closed with it */
    struct shards_config config;
    struct log *log;
    struct blob *blob;
    struct shards *shards;
    struct world_producer producer;
    struct world_record *records[WORLD_RECORDS_MAX];
    size_t record_count;
    int64_t next_t_ms[WORLD_PARTITIONS][WORLD_SERIES];
    struct slice labels[WORLD_PARTITIONS][WORLD_SERIES];
    struct test_random random;
    uint64_t incarnation_count;
    bool announce_marks_at_send; /* canary: protocol §1.2 broken */
    uint64_t log_file_bytes, log_queue_bytes;
    uint32_t series_count;        /* of each partition, that records are made for */
    int64_t step_ms;              /* between the rows of a series */
    bool was_complete;            /* what the last check's answer said of itself */
    uint64_t alloc_fault_nth;     /* 0 = none; of the node, counted from its opening */
    uint64_t allocations_max;     /* the most of a life, while alloc_fault_nth is not 0 */
    bool is_space_low;            /* the log refuses appends */
    err (*wrap)(struct world *w); /* puts something before the blob store; NULL = nothing */
};

static inline struct shards_config world_config(void)
{
    struct shards_config c = shards_config_default(1u << 30);
    c.partition_count = WORLD_PARTITIONS;
    c.head_rows_max = 64;
    c.cut_group_count = 4;
    c.compact_count_min = 2;
    c.cache_bytes_max = 4u << 20;
    return c;
}

static inline void world_init(struct world *w, struct io *io, struct pool *pool, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->io = io;
    w->pool = pool;
    w->config = world_config();
    w->log_file_bytes = 16u << 10;
    w->log_queue_bytes = 32u << 20;
    w->series_count = WORLD_SERIES;
    w->step_ms = 15000;
    w->random = (struct test_random){ .state = seed };
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        for (uint32_t s = 0; s < WORLD_SERIES; s++) {
            struct buf b = buf_open(pool, 1000);
            char text[32];
            snprintf(text, sizeof text, "metric_%u", s % 5);
            labels_put(&b, slice_str("__name__"), slice_str(text));
            snprintf(text, sizeof text, "host-%u", s);
            labels_put(&b, slice_str("instance"), slice_str(text));
            snprintf(text, sizeof text, "%u", p);
            labels_put(&b, slice_str("partition"), slice_str(text));
            assert_ok(buf_err(&b));
            w->labels[p][s] = buf_slice(&b);
            w->next_t_ms[p][s] = WORLD_EPOCH_MS + (int64_t)s;
        }
}

/* A new life of the producer: new incarnation, nothing announced. */
static inline void world_producer_renew(struct world *w)
{
    memset(&w->producer, 0, sizeof w->producer);
    w->incarnation_count++;
    put_le64(w->producer.id, hash_mix(w->incarnation_count));
}

static inline void world_count_allocations(struct world *w)
{
    uint64_t count = pool_fault_count(w->node_pool);
    w->allocations_max = count > w->allocations_max ? count : w->allocations_max;
}

static inline void world_close_quick(struct world *w)
{
    shards_close(w->shards);
    log_close(w->log);
    blob_close(w->blob);
    if (w->node_pool != NULL)
        world_count_allocations(w);
    pool_close(w->node_pool);
    w->shards = NULL;
    w->log = NULL;
    w->blob = NULL;
    w->node_pool = NULL;
}

static inline bool world_is_space_low(void *context) { return ((struct world *)context)->is_space_low; }

static inline err world_open(struct world *w)
{
    struct err_at at = { 0 };
    struct log_config config = { .directory = "log",
                                 .cluster_id = { 7 },
                                 .partition_count = WORLD_PARTITIONS,
                                 .ack = LOG_ACK_FSYNC,
                                 .file_bytes = w->log_file_bytes,
                                 .queue_bytes_max = w->log_queue_bytes,
                                 .tail_bytes_max = 1u << 20,
                                 .is_space_low = world_is_space_low,
                                 .space_context = w };
    w->node_pool = pool_open(NULL, "node", POOL_BYTES_UNLIMITED); /* a root: its allocations can be failed
                                                                       apart */
    pool_fault_at(w->node_pool, w->alloc_fault_nth, false);
    err e = log_open(&config, w->io, w->node_pool, &w->log, &at);
    if (e == OK)
        e = blob_open_dir("blob", w->io, w->node_pool, &w->blob);
    if (e == OK && w->wrap != NULL)
        e = w->wrap(w);
    if (e == OK)
        e = shards_open(&w->config, w->io, w->log, w->blob, w->node_pool, &w->shards, &at);
    if (e != OK)
        world_close_quick(w);
    return e;
}

static inline void world_done(struct log_append *append, err result, struct log_position position)
{
    struct world_record *r = append->context;
    /* By the log's thread, if there is one. */
    r->offset = position.offset;
    atomic_store(&r->answer, result == OK ? WORLD_ACKED : WORLD_REFUSED);
}

/* Hand a record to the log; log_pump answers it. */
static inline void world_send(struct world *w, struct world_record *r)
{
    r->part = buf_slice(&r->bytes);
    r->append = (struct log_append){
        .partition = r->partition, .parts = &r->part, .part_count = 1, .done = world_done, .context = r
    };
    log_append(w->log, &r->append);
}

/* The next batch of the producer to a partition, with nothing in it. */
static inline struct batch world_batch(struct world *w, uint32_t partition)
{
    struct batch b = { .signal = SIGNAL_METRIC,
                       .tenant = slice_str("default"),
                       .append_ms = io_now_ms(w->io),
                       .sequence = w->producer.sequence[partition]++ };
    memcpy(b.incarnation, w->producer.id, INCARNATION_BYTES);
    return b;
}

/* Make a record of `count` rows of one partition. late: some rows a few days older. */
static inline struct world_record *world_record_make(struct world *w, uint32_t partition, size_t count,
                                                     bool late)
{
    assert_true(w->record_count < WORLD_RECORDS_MAX && count <= WORLD_ROWS_MAX);
    void *at;
    assert_ok(pool_zalloc(w->pool, sizeof(struct world_record), &at));
    struct world_record *r = at;
    uint32_t numbers[WORLD_ROWS_MAX];
    int64_t t_ms[WORLD_ROWS_MAX];
    uint64_t bits[WORLD_ROWS_MAX];
    struct batch_announce announces[WORLD_SERIES];
    bool here[WORLD_SERIES] = { false };
    struct batch b = world_batch(w, partition);
    b.announces = announces;
    b.numbers = numbers;
    b.t_ms = t_ms;
    b.value_bits = bits;
    b.row_count = count;
    r->partition = partition;
    r->append_ms = b.append_ms;
    memcpy(r->incarnation, w->producer.id, INCARNATION_BYTES);
    for (size_t i = 0; i < count; i++) {
        uint32_t s = (uint32_t)test_random_below(&w->random, w->series_count);
        int64_t t = w->next_t_ms[partition][s];
        w->next_t_ms[partition][s] += w->step_ms;
        if (late && test_random_below(&w->random, 8) == 0)
            t -= 3 * MS_PER_DAY; /* still unique: nothing else is written there */
        uint64_t v = double_bits((double)test_random_below(&w->random, 1000));
        if (test_random_below(&w->random, 3) == 0)
            v = test_random_u64(&w->random);
        numbers[i] = s;
        t_ms[i] = t;
        bits[i] = v;
        r->rows[r->row_count++] = (struct world_row){ s, t, v };
        sum_add_hash(&r->sum,
                     sum_row_hash(sum_series_hash(b.tenant, w->labels[partition][s]), t, v, 0, SAMPLE_FLOAT));
        if (!w->producer.announced[partition][s] && !here[s]) {
            here[s] = true;
            announces[b.announce_count++] = (struct batch_announce){ s, w->labels[partition][s] };
            if (w->announce_marks_at_send)
                w->producer.announced[partition][s] = true;
        }
    }
    r->bytes = buf_open(w->pool, BATCH_BYTES_MAX);
    assert_ok(batch_encode(&b, &r->bytes));
    w->records[w->record_count++] = r;
    return r;
}

/* After its answer: announcements count once acknowledged, and none do after a refusal. */
static inline void world_answered(struct world *w, const struct world_record *r)
{
    if (w->announce_marks_at_send)
        return;
    if (r->answer != WORLD_ACKED)
        memset(w->producer.announced[r->partition], 0, sizeof w->producer.announced[r->partition]);
    else
        for (size_t i = 0; i < r->row_count; i++)
            w->producer.announced[r->partition][r->rows[i].series] = true;
}

/* Append a record and pump. */
static inline err world_append(struct world *w, uint32_t partition, size_t count, bool late)
{
    struct world_record *r = world_record_make(w, partition, count, late);
    world_send(w, r);
    err e = log_pump(w->log);
    world_answered(w, r);
    return e;
}

#define WORLD_NO_ANSWER "select failed"
#define WORLD_NOT_THERE "an acknowledged record is lost"
#define WORLD_NOT_NAMED "a record that was lost is not named"

/* ---- the oracle ---- */

struct world_seen {
    int64_t t_ms;
    uint64_t bits;
};

/* What the source says of one series, as sorted rows. */
static inline size_t world_read(struct world *w, struct source_set *set, uint32_t partition, uint32_t series,
                                struct pool *pool, struct world_seen *seen, size_t max)
{
    struct source *source = shards_source(w->shards);
    struct sample_columns columns = sample_columns_open(pool);
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct source_reader *reader;
    size_t count = 0;
    assert_ok(source->table->reader_open(set, &reader));
    for (size_t i = 0; i < source->table->set_count(set); i++) {
        buf_clear(&labels);
        assert_ok(source->table->read_labels(reader, i, &labels));
        if (!slice_equal(buf_slice(&labels), w->labels[partition][series]))
            continue;
        assert_ok(source->table->read_samples(reader, i, &columns));
        assert_true(columns.count <= max);
        for (size_t k = 0; k < columns.count; k++) {
            seen[count++] = (struct world_seen){ columns.t_ms[k], double_bits(columns.values[k]) };
            if (k > 0)
                assert_true(columns.t_ms[k - 1] < columns.t_ms[k]);
        }
    }
    source->table->reader_close(reader);
    sample_columns_close(&columns);
    buf_close(&labels);
    return count;
}

static inline int world_seen_order(const void *a, const void *b)
{
    const struct world_seen *x = a, *y = b;
    return x->t_ms < y->t_ms ? -1 : x->t_ms > y->t_ms;
}

/* Text of what is wrong, NULL when all is well. complete: the proof must say so. */
static inline const char *world_check(struct world *w)
{
    static struct world_seen seen[WORLD_PARTITIONS][WORLD_SERIES][WORLD_RECORDS_MAX];
    static size_t seen_count[WORLD_PARTITIONS][WORLD_SERIES];
    const char *wrong = NULL;
    struct pool *pool = pool_open(w->pool, "check", POOL_BYTES_UNLIMITED);
    struct source *source = shards_source(w->shards);
    struct source_request request = { .tenant = slice_str("default"),
                                      .range = { TIME_MS_MIN, TIME_MS_MAX },
                                      .series_max = SIZE_MAX };
    struct source_set *set;
    if (source->table->select(source, &request, pool, &set) != OK) {
        pool_close(pool);
        return WORLD_NO_ANSWER;
    }
    size_t stored = 0, expected = 0, lost = 0;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        for (uint32_t s = 0; s < WORLD_SERIES; s++) {
            seen_count[p][s] = world_read(w, set, p, s, pool, seen[p][s], WORLD_RECORDS_MAX);
            stored += seen_count[p][s];
        }
    struct sum sums[WORLD_PARTITIONS] = { 0 };
    for (size_t i = 0; i < w->record_count && wrong == NULL; i++) {
        struct world_record *r = w->records[i];
        size_t there = 0;
        for (size_t k = 0; k < r->row_count; k++) {
            struct world_seen key = { r->rows[k].t_ms, 0 };
            uint32_t s = r->rows[k].series;
            const struct world_seen *found =
                seen_count[r->partition][s] == 0
                    ? NULL
                    : bsearch(&key, seen[r->partition][s], seen_count[r->partition][s], sizeof key,
                              world_seen_order);
            if (found == NULL)
                continue;
            there++;
            if (found->bits != r->rows[k].bits)
                wrong = "a row has another value";
        }
        if (there != r->row_count && there != 0)
            wrong = "a record is there in part";
        else if (there == 0 && r->answer == WORLD_ACKED && r->row_count > 0)
            wrong = WORLD_NOT_THERE;
        r->is_there = there > 0;
        lost += there == 0 && r->answer == WORLD_LOST;
        if (there > 0)
            sum_add(&sums[r->partition], r->sum);
        expected += there;
    }
    if (wrong == NULL && expected != stored)
        wrong = "rows are there that nobody wrote";
    for (uint32_t p = 0; p < WORLD_PARTITIONS && wrong == NULL; p++)
        if (!sum_equal(shards_partition_sum(w->shards, p).sum, sums[p]))
            wrong = "the stored SUM is not that of the records";
    w->was_complete = source->table->set_proof(set)->complete;
    if (wrong == NULL && w->was_complete && lost > 0)
        wrong = WORLD_NOT_NAMED;
    if (wrong == NULL && !w->was_complete)
        wrong = "the answer says it is not complete";
    source->table->set_close(set);
    pool_close(pool);
    return wrong;
}

/* Every kind of step until none finds work; at most `rounds`. */
static inline err world_settle(struct world *w, int rounds)
{
    for (bool any = true; any && rounds > 0; rounds--) {
        bool worked;
        any = false;
        TRY(log_pump(w->log));
        TRY(shards_apply_step(w->shards, &worked));
        any = any || worked;
        TRY(shards_spill_step(w->shards, &worked));
        any = any || worked;
        TRY(shards_background_step(w->shards, &worked));
        any = any || worked;
    }
    return OK;
}

#endif
