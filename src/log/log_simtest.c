/* Goal: what the log acknowledged is there after any crash, with the same bytes, offset and order; nothing is
 * invented; what is damaged is named. Method: random workloads of appends, idle pumps, trims, tidying and
 * reopening on the simulated disk, which loses its power at every call in every pattern, also within
 * recovery, fails every call and every allocation, and rots at every bit; a model knows what was promised.
 *
 * A checker that never fails proves nothing: the same runs over builds with a planted bug must find it. */
#include "base/test.h"

#include <string.h>

#include "base/bytes.h"
#include "base/time.h"
#include "log/log_file.h"
#include "sim/io_sim.h"

#define PARTITIONS  3
#define OFFSETS_MAX 600
#define GROUP_MAX   5
#define RECORD_MAX  6000

/* What is known of an offset of a partition. */
enum promise { NOTHING, SEEN, ACKED };

struct request {
    struct log_append append;
    struct world *world;
    uint64_t id;
    struct slice part;
    uint8_t bytes[RECORD_MAX];
};

struct world {
    struct io *io;
    struct pool *pool;
    struct log *log;
    struct log_config config;
    unsigned plants;
    struct test_random random;
    size_t fixed_length; /* of records; 0 = random */
    uint64_t next_id;    /* of the next append; ids rise in the order of appends */
    uint32_t partition_of_id[OFFSETS_MAX * PARTITIONS];
    uint32_t length_of_id[OFFSETS_MAX * PARTITIONS];
    uint64_t ids[PARTITIONS][OFFSETS_MAX];
    uint8_t promises[PARTITIONS][OFFSETS_MAX];
    uint64_t ends[PARTITIONS]; /* above all promised offsets */
    uint64_t trims[PARTITIONS];
    bool damage_allowed; /* of what was not acknowledged */
    struct request requests[GROUP_MAX];
    char violation[160];
};

static void fill_record(uint8_t *at, size_t len, uint64_t id)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(hash_mix(id + i / 8 * 1000) >> (i % 8 * 8));
    if (len >= 8)
        put_le64(at, id);
}

static const char *violate(struct world *w, const char *what, uint32_t partition, uint64_t offset)
{
    snprintf(w->violation, sizeof w->violation, "%s: partition %u, offset %llu", what, partition,
             (unsigned long long)offset);
    return w->violation;
}

/* ---- the workload ---- */

static void on_done(struct log_append *append, err result, struct log_position position)
{
    struct request *request = append->context;
    struct world *w = request->world;
    uint32_t p = append->partition;
    if (result != OK)
        return;
    assert_true(position.offset < OFFSETS_MAX);
    w->ids[p][position.offset] = request->id;
    w->promises[p][position.offset] = ACKED;
    if (position.offset >= w->ends[p])
        w->ends[p] = position.offset + 1;
}

static void step_append(struct world *w)
{
    uint64_t count = 1 + test_random_below(&w->random, GROUP_MAX);
    for (uint64_t i = 0; i < count; i++) {
        struct request *request = &w->requests[i];
        size_t len = w->fixed_length != 0 ? w->fixed_length : 8 + test_random_below(&w->random, 1500);
        if (w->fixed_length == 0 && test_random_below(&w->random, 20) == 0)
            len = RECORD_MAX;
        uint32_t p = (uint32_t)test_random_below(&w->random, PARTITIONS);
        assert_true(w->next_id < OFFSETS_MAX * PARTITIONS);
        request->id = w->next_id++;
        request->world = w;
        w->partition_of_id[request->id] = p;
        w->length_of_id[request->id] = (uint32_t)len;
        fill_record(request->bytes, len, request->id);
        request->part = slice_of(request->bytes, len);
        request->append = (struct log_append){
            .partition = p,
            .parts = &request->part,
            .part_count = 1,
            .done = on_done,
            .context = request,
        };
        log_append(w->log, &request->append);
    }
    while (log_usage(w->log).queued_bytes != 0)
        ERR_IGNORE(log_pump(w->log)); /* each append hears of it */
}

static void step_trim(struct world *w)
{
    uint32_t p = (uint32_t)test_random_below(&w->random, PARTITIONS);
    struct log_watermarks marks = log_watermarks(w->log, p);
    uint64_t count = marks.end_offset - marks.start_offset;
    uint64_t before = marks.start_offset + test_random_below(&w->random, count + 1);
    if (before > w->trims[p])
        w->trims[p] = before;
    ERR_IGNORE(log_trim(w->log, p, before));
}

static err open_log(struct world *w)
{
    struct err_at at;
    return log_file_open(&w->config, w->io, w->pool, w->plants, &w->log, &at);
}

static void close_log(struct world *w)
{
    if (w->log != NULL)
        log_close(w->log);
    w->log = NULL;
}

static void workload(struct world *w, uint64_t steps)
{
    for (uint64_t i = 0; i < steps && w->log != NULL && !io_sim_is_down(w->io); i++) {
        uint64_t dice = test_random_below(&w->random, 20);
        if (dice < 12) {
            step_append(w);
        } else if (dice < 14) {
            ERR_IGNORE(log_pump(w->log));
        } else if (dice < 17) {
            step_trim(w);
        } else if (dice < 18) {
            io_sim_clock_advance(w->io, (int64_t)test_random_below(&w->random, 1000) * NS_PER_SECOND);
            ERR_IGNORE(log_tidy(w->log));
        } else {
            close_log(w);
            if (open_log(w) != OK)
                w->log = NULL;
        }
    }
}

static void world_begin(struct world *w, uint64_t seed, unsigned plants)
{
    memset(w, 0, offsetof(struct world, requests));
    w->violation[0] = '\0';
    assert_ok(io_sim_open(seed, &w->io));
    w->pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    w->random.state = seed;
    w->plants = plants;
    w->next_id = 1;
    w->fixed_length = test_random_below(&w->random, 3) == 0 ? LOG_PAGE_BYTES - LOG_FRAME_HEADER_BYTES : 0;
    w->config = (struct log_config){
        .directory = "log",
        .cluster_id = "cluster-of-tests",
        .partition_count = PARTITIONS,
        .file_bytes = 28u << 10,
        .queue_bytes_max = 1 << 20,
        .tail_bytes_max = 1 << 20,
    };
}

static void world_end(struct world *w)
{
    close_log(w);
    pool_close(w->pool);
    io_close(w->io);
}

/* ---- the oracle ---- */

static bool is_damaged(struct world *w, uint32_t partition, uint64_t offset)
{
    size_t count;
    const struct log_damage *damages = log_damages(w->log, &count);
    for (size_t i = 0; i < count; i++)
        if (damages[i].partition == partition && offset >= damages[i].from_offset &&
            offset < damages[i].to_offset)
            return true;
    return false;
}

/* Whether the bytes are a record that was once appended to the partition; its id. */
static bool is_known(struct world *w, uint32_t partition, struct slice bytes, uint64_t *out_id)
{
    static uint8_t expected[RECORD_MAX];
    if (bytes.len < 8)
        return false;
    uint64_t id = get_le64(bytes.at);
    if (id == 0 || id >= w->next_id || w->partition_of_id[id] != partition ||
        w->length_of_id[id] != bytes.len)
        return false;
    fill_record(expected, bytes.len, id);
    *out_id = id;
    return memcmp(expected, bytes.at, bytes.len) == 0;
}

static const char *check_partition(struct world *w, uint32_t p, bool rots)
{
    struct log_watermarks marks = log_watermarks(w->log, p);
    if (marks.start_offset > w->trims[p] && w->ends[p] > w->trims[p])
        return violate(w, "needed records are gone", p, marks.start_offset);
    if (marks.end_offset < w->ends[p])
        return violate(w, "promised records are missing", p, marks.end_offset);
    struct log_reader *reader;
    assert_ok(log_reader_open(w->log, p, marks.start_offset, LOG_EPOCH_NONE, &reader));
    uint64_t last_id = 0;
    const char *violation = NULL;
    for (uint64_t offset = marks.start_offset; offset < marks.end_offset && violation == NULL; offset++) {
        struct log_record record;
        uint64_t id = 0;
        assert_ok(log_reader_next(reader, &record));
        assert_int_equal(offset, record.position.offset);
        enum promise promise = offset < OFFSETS_MAX ? (enum promise)w->promises[p][offset] : NOTHING;
        if (record.damaged) {
            if (!is_damaged(w, p, offset))
                violation = violate(w, "a damaged record is not named", p, offset);
            else if (!rots && !(w->damage_allowed && promise != ACKED))
                violation = violate(w, "damage without rot", p, offset);
            continue;
        }
        if (!is_known(w, p, record.bytes, &id))
            violation = violate(w, "a record was invented", p, offset);
        else if (id <= last_id)
            violation = violate(w, "records changed places", p, offset);
        else if (promise != NOTHING && w->ids[p][offset] != id && !(w->damage_allowed && promise == SEEN))
            violation = violate(w, "another record stands there", p, offset);
        last_id = id;
        if (violation == NULL && promise == NOTHING && offset < OFFSETS_MAX) {
            w->ids[p][offset] = id; /* from now on it stays */
            w->promises[p][offset] = SEEN;
            if (offset >= w->ends[p] && !w->damage_allowed)
                w->ends[p] = offset + 1;
        }
    }
    log_reader_close(reader);
    return violation;
}

/* Open after a crash and compare with the model. NULL: all is as promised. */
static const char *verify(struct world *w, bool rots)
{
    struct err_at at;
    err e = log_file_open(&w->config, w->io, w->pool, w->plants, &w->log, &at);
    if (e != OK) {
        snprintf(w->violation, sizeof w->violation, "does not open: %.120s", at.text);
        return w->violation;
    }
    const char *violation = NULL;
    for (uint32_t p = 0; p < PARTITIONS && violation == NULL; p++)
        violation = check_partition(w, p, rots);
    return violation;
}

/* ---- crashes ---- */

static enum io_sim_keep any_keep(struct world *w)
{
    return (enum io_sim_keep)test_random_below(&w->random, IO_SIM_KEEP_COUNT);
}

/* Recover, with the power going once or twice more on the way. */
static const char *recover(struct world *w)
{
    for (int again = 0; again < 2; again++) {
        io_sim_crash_at_call(w->io, 1 + test_random_below(&w->random, 14));
        bool opened = open_log(w) == OK;
        if (opened && !io_sim_is_down(w->io))
            workload(w, 1);
        close_log(w);
        io_sim_crash(w->io, any_keep(w), test_random_u64(&w->random));
    }
    return verify(w, false);
}

/* One life: work until the power goes at `call`, recover, work on, die in some way, recover. */
static const char *live(struct world *w, uint64_t seed, unsigned plants, uint64_t call, enum io_sim_keep keep,
                        bool *out_was_down)
{
    world_begin(w, seed, plants);
    assert_ok(open_log(w));
    workload(w, 2);
    io_sim_crash_at_call(w->io, call);
    workload(w, 30);
    *out_was_down = io_sim_is_down(w->io);
    w->random.state ^= hash_mix(call * 8 + keep);
    close_log(w);
    io_sim_crash(w->io, keep, seed ^ call);
    const char *violation = recover(w);
    for (int round = 0; round < 2 && violation == NULL; round++) {
        workload(w, test_random_below(&w->random, 6));
        if (test_random_below(&w->random, 2) == 0) {
            io_sim_crash_at_call(w->io, 1 + test_random_below(&w->random, 6));
            workload(w, 2); /* dies between a write and its sync, among others */
            io_sim_crash_at_call(w->io, 1);
            close_log(w);
            io_sim_kill(w->io);
            violation = verify(w, false);
            if (violation != NULL)
                break;
            workload(w, test_random_below(&w->random, 3));
        }
        io_sim_crash_at_call(w->io, 1); /* closing writes nothing more */
        close_log(w);
        io_sim_crash(w->io, any_keep(w), test_random_u64(&w->random));
        violation = verify(w, false);
    }
    return violation;
}

struct tally {
    uint64_t states;
    char violation[160];
};

/* All calls of one workload, all patterns. False: a violation was found. */
static bool explore_crashes(uint64_t seed, unsigned plants, uint64_t stride, struct tally *tally)
{
    static struct world w;
    bool was_down = true;
    for (uint64_t call = 1; was_down; call += stride) {
        for (int keep = 0; keep < IO_SIM_KEEP_COUNT; keep++) {
            const char *violation = live(&w, seed, plants, call, (enum io_sim_keep)keep, &was_down);
            tally->states++;
            if (violation != NULL)
                snprintf(tally->violation, sizeof tally->violation, "%.150s", violation);
            world_end(&w);
            if (violation != NULL) {
                printf("# seed 0x%llx, call %llu, pattern %d: %s\n", (unsigned long long)seed,
                       (unsigned long long)call, keep, tally->violation);
                return false;
            }
        }
    }
    return true;
}

static void test_crash_at_every_call(void **state)
{
    struct test_random random = test_random_begin("crashes");
    struct tally tally = { 0 };
    for (int workload_index = 0; workload_index < 4; workload_index++)
        assert_true(explore_crashes(test_random_u64(&random), 0, 1, &tally));
    printf("# %llu crash states\n", (unsigned long long)tally.states);
}

/* ---- failing calls and allocations ---- */

static const char *live_with_fault(struct world *w, uint64_t seed, unsigned plants, uint64_t call,
                                   bool sticky, err error, bool *out_failed)
{
    world_begin(w, seed, plants);
    w->damage_allowed = true; /* a failed sync within an open leaves unacknowledged records in doubt */
    assert_ok(open_log(w));
    workload(w, 2);
    io_sim_fault_at(w->io, call, sticky, error);
    workload(w, 30);
    *out_failed = io_sim_faults(w->io) != 0;
    io_sim_fault_at(w->io, 0, false, OK);
    if (w->log == NULL)
        assert_ok(open_log(w));
    uint64_t end = log_watermarks(w->log, 0).end_offset + log_watermarks(w->log, 1).end_offset +
                   log_watermarks(w->log, 2).end_offset;
    step_append(w); /* writes resume by themselves */
    uint64_t new_end = log_watermarks(w->log, 0).end_offset + log_watermarks(w->log, 1).end_offset +
                       log_watermarks(w->log, 2).end_offset;
    if (new_end == end)
        return violate(w, "writes do not resume", 0, end);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        const char *violation = check_partition(w, p, false);
        if (violation != NULL)
            return violation;
    }
    io_sim_crash_at_call(w->io, 1);
    close_log(w);
    io_sim_crash(w->io, any_keep(w), seed ^ call);
    return verify(w, false);
}

static bool explore_faults(uint64_t seed, unsigned plants, struct tally *tally)
{
    static struct world w;
    static const err errors[] = { ERR_IO, ERR_SPACE };
    for (size_t error = 0; error < 2; error++) {
        for (int sticky = 0; sticky < 2; sticky++) {
            bool failed = true;
            for (uint64_t call = 1; failed; call++) {
                const char *violation =
                    live_with_fault(&w, seed, plants, call, sticky != 0, errors[error], &failed);
                tally->states++;
                if (violation != NULL)
                    snprintf(tally->violation, sizeof tally->violation, "%.150s", violation);
                world_end(&w);
                if (violation != NULL) {
                    printf("# seed 0x%llx, call %llu fails with %s%s: %s\n", (unsigned long long)seed,
                           (unsigned long long)call, err_text(errors[error]), sticky ? " from there on" : "",
                           tally->violation);
                    return false;
                }
            }
        }
    }
    return true;
}

static void test_fail_every_call(void **state)
{
    struct test_random random = test_random_begin("faults");
    struct tally tally = { 0 };
    for (int workload_index = 0; workload_index < 3; workload_index++)
        assert_true(explore_faults(test_random_u64(&random), 0, &tally));
    printf("# %llu failing calls\n", (unsigned long long)tally.states);
}

static void test_fail_every_allocation(void **state)
{
    static struct world w;
    struct test_random random = test_random_begin("allocations");
    uint64_t seed = test_random_u64(&random);
    for (int sticky = 0; sticky < 2; sticky++) {
        for (uint64_t nth = 1;; nth++) {
            world_begin(&w, seed, 0);
            assert_ok(open_log(&w));
            pool_fault_at(w.pool, nth, sticky != 0);
            workload(&w, 30);
            bool failed = pool_fault_count(w.pool) >= nth;
            pool_fault_at(w.pool, 0, false);
            if (w.log == NULL)
                assert_ok(open_log(&w));
            step_append(&w);
            io_sim_crash_at_call(w.io, 1);
            close_log(&w);
            io_sim_crash(w.io, IO_SIM_KEEP_NONE, nth);
            const char *violation = verify(&w, false);
            if (violation != NULL)
                fail_msg("allocation %llu: %s", (unsigned long long)nth, violation);
            world_end(&w);
            if (!failed)
                break;
        }
    }
}

/* ---- disk full ---- */

static void test_disk_full(void **state)
{
    static struct world w;
    struct test_random random = test_random_begin("disk full");
    for (uint64_t capacity = 8000; capacity < 200000; capacity += 9000) {
        world_begin(&w, test_random_u64(&random), 0);
        assert_ok(open_log(&w));
        io_sim_set_capacity(w.io, capacity);
        workload(&w, 40);
        if (w.log == NULL)
            assert_ok(open_log(&w));
        io_sim_set_capacity(w.io, 0);
        uint64_t ids = w.next_id;
        step_append(&w);
        uint64_t acked = 0;
        for (uint32_t p = 0; p < PARTITIONS; p++)
            for (uint64_t offset = 0; offset < OFFSETS_MAX; offset++)
                acked += w.promises[p][offset] == ACKED && w.ids[p][offset] >= ids;
        assert_int_equal(w.next_id - ids, acked);
        close_log(&w);
        io_sim_crash(w.io, IO_SIM_KEEP_NONE, 1);
        assert_null(verify(&w, false));
        world_end(&w);
    }
}

/* ---- disk use ---- */

/* A burst grows the files; when all is trimmed and quiet, one small file is left. */
static void test_idle_log_is_small(void **state)
{
    static struct world w;
    static uint8_t bytes[256 << 10];
    world_begin(&w, 3, 0);
    w.config.file_bytes = 8u << 20;
    w.config.queue_bytes_max = 64u << 20;
    assert_ok(open_log(&w));
    struct request *request = &w.requests[0];
    request->world = &w;
    request->part = slice_of(bytes, sizeof bytes);
    request->append = (struct log_append){
        .partition = 1,
        .parts = &request->part,
        .part_count = 1,
        .done = on_done,
        .context = request,
    };
    for (int i = 0; i < 100; i++) {
        log_append(w.log, &request->append);
        assert_ok(log_pump(w.log));
    }
    assert_int_equal(100, w.ends[1]);
    assert_true(log_usage(w.log).live_bytes > 100 * sizeof bytes);
    assert_true(log_file_of(w.log)->file_count < 8); /* few large files, not many small ones */
    assert_ok(log_trim(w.log, 1, 100));
    assert_ok(log_tidy(w.log));
    assert_true(io_sim_used(w.io) <= 3 * w.config.file_bytes);
    io_sim_clock_advance(w.io, 601 * NS_PER_SECOND);
    for (int i = 0; i < 3; i++) {
        assert_ok(log_tidy(w.log));
        assert_ok(log_pump(w.log));
        io_sim_clock_advance(w.io, 601 * NS_PER_SECOND);
    }
    assert_true(io_sim_used(w.io) <= LOG_FILE_BYTES_SMALL);
    assert_int_equal(LOG_FILE_BYTES_SMALL, log_usage(w.log).live_bytes);
    assert_int_equal(0, log_usage(w.log).recycled_bytes);
    close_log(&w);
    io_sim_crash(w.io, IO_SIM_KEEP_NONE, 1);
    assert_ok(open_log(&w));
    assert_int_equal(100, log_watermarks(w.log, 1).end_offset);
    assert_int_equal(100, log_watermarks(w.log, 1).start_offset);
    world_end(&w);
}

/* A file that could not be removed goes with a later tidy, before any younger one, whichever call failed. */
static void test_removal_tried_again(void **state)
{
    static struct world w;
    for (uint64_t call = 1; call <= 3; call++) {
        for (int kept = 0; kept < 2; kept++) {
            world_begin(&w, 5, 0);
            w.fixed_length = 4000;
            assert_ok(open_log(&w));
            struct log_file *log = log_file_of(w.log);
            while (log->file_count < 4)
                step_append(&w);
            if (kept == 0)
                log->size_wanted = 1; /* too large to be kept */
            io_sim_fault_at(w.io, call, false, ERR_IO);
            for (uint32_t p = 0; p < PARTITIONS; p++)
                ERR_IGNORE(log_trim(w.log, p, w.ends[p]));
            bool failed = io_sim_faults(w.io) != 0;
            io_sim_fault_at(w.io, 0, false, OK);
            assert_true(failed);
            assert_ok(log_tidy(w.log));
            assert_int_equal(1, log->file_count);
            struct io_dir_entry *entries;
            size_t count;
            assert_ok(io_dir_list(w.io, "log", w.pool, &entries, &count));
            assert_int_equal(log->file_count + log->free_count, count);
            close_log(&w);
            io_sim_crash(w.io, IO_SIM_KEEP_NONE, 1);
            assert_ok(open_log(&w));
            assert_ok(io_dir_list(w.io, "log", w.pool, &entries, &count));
            for (size_t i = 0; i < count; i++)
                assert_null(strstr(entries[i].name, ".lost"));
            world_end(&w);
        }
    }
}

/* ---- rot ---- */

/* Flip every bit that is in use of every file and look. A second process life (`reopened`) makes two files. */
static bool explore_rot(unsigned plants, bool is_marked, struct tally *tally)
{
    static struct world w;
    world_begin(&w, 11, plants);
    w.fixed_length = 40;
    assert_ok(open_log(&w));
    for (int i = 0; i < 3; i++)
        step_append(&w);
    close_log(&w);
    assert_ok(open_log(&w));
    for (int i = 0; i < 3; i++)
        step_append(&w);
    uint64_t last_group_ids = w.next_id;
    if (!is_marked) {
        step_append(&w); /* and the power goes at once */
        io_sim_crash_at_call(w.io, 1);
    }
    close_log(&w);
    io_sim_crash(w.io, IO_SIM_KEEP_NONE, 1);

    struct io_dir_entry *entries;
    size_t count;
    assert_ok(io_dir_list(w.io, "log", w.pool, &entries, &count));
    uint64_t header_bytes = log_data_start(PARTITIONS);
    uint64_t promised[PARTITIONS];
    memcpy(promised, w.ends, sizeof promised);
    const char *violation = NULL;
    for (size_t i = 0; i < count && violation == NULL; i++) {
        char path[400];
        snprintf(path, sizeof path, "log/%s", entries[i].name);
        for (uint64_t bit = 0; bit < 8 * (header_bytes + 2000) && violation == NULL; bit++) {
            uint64_t byte = bit / 8;
            if (byte < header_bytes && byte % LOG_PAGE_BYTES > 140 && bit % 997 != 0)
                continue; /* zeros that nobody reads */
            if (io_sim_flip(w.io, path, bit) != OK)
                break;
            if (!is_marked) /* what the page essay of docs/format/log.md §5 admits: the last group of all */
                for (uint32_t p = 0; p < PARTITIONS; p++)
                    while (w.ends[p] > 0 && w.ids[p][w.ends[p] - 1] >= last_group_ids)
                        w.ends[p]--;
            violation = verify(&w, true);
            tally->states++;
            close_log(&w);
            assert_ok(io_sim_flip(w.io, path, bit));
            memcpy(w.ends, promised, sizeof promised);
            if (violation != NULL)
                printf("# %s, bit %llu: %s\n", path, (unsigned long long)bit, violation);
        }
    }
    if (violation == NULL) {
        violation = verify(&w, false);
        assert_null(violation);
    }
    world_end(&w);
    return violation == NULL;
}

static void test_every_flipped_bit(void **state)
{
    struct tally tally = { 0 };
    assert_true(explore_rot(0, true, &tally));
    assert_true(explore_rot(0, false, &tally));
    printf("# %llu flipped bits\n", (unsigned long long)tally.states);
}

/* ---- canaries ---- */

static void test_planted_bugs_are_found(void **state)
{
    static const struct {
        enum log_plant plant;
        const char *name;
    } plants[] = {
        { LOG_PLANT_ACK_BEFORE_SYNC, "acknowledged before the sync" },
        { LOG_PLANT_NO_DIR_SYNC, "a new file's name not synced" },
        { LOG_PLANT_UNSEEDED, "checksums not seeded" },
        { LOG_PLANT_RETRY_SYNC, "a failed sync retried" },
        { LOG_PLANT_SAME_FILE, "written behind a torn tail" },
        { LOG_PLANT_EARLY_RECYCLE, "recycled too early" },
        { LOG_PLANT_NO_OPEN_SYNC, "page cache believed at open" },
        { LOG_PLANT_NO_DURABLE, "no durable position in frames" },
    };
    for (size_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        struct test_random random = { .state = UINT64_C(0x6b656c706965) }; /* when it is found is chance */
        struct tally tally = { 0 };
        bool found = false;
        for (int round = 0; round < 12 && !found; round++) {
            uint64_t seed = test_random_u64(&random);
            found =
                !explore_crashes(seed, plants[i].plant, 3, &tally) ||
                (plants[i].plant == LOG_PLANT_RETRY_SYNC && !explore_faults(seed, plants[i].plant, &tally)) ||
                (plants[i].plant == LOG_PLANT_NO_DURABLE && !explore_rot(plants[i].plant, true, &tally));
        }
        printf("# %s: found after %llu states\n", plants[i].name, (unsigned long long)tally.states);
        if (!found)
            fail_msg("not found: %s", plants[i].name);
    }
}

static void test_same_seed_same_trace(void **state)
{
    static struct world w;
    uint64_t traces[2];
    for (int i = 0; i < 2; i++) {
        bool was_down;
        assert_null(live(&w, 77, 0, 60, IO_SIM_KEEP_TORN, &was_down));
        traces[i] = io_sim_trace(w.io);
        world_end(&w);
    }
    assert_true(traces[0] == traces[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_trace),   cmocka_unit_test(test_removal_tried_again),
        cmocka_unit_test(test_crash_at_every_call),    cmocka_unit_test(test_fail_every_call),
        cmocka_unit_test(test_fail_every_allocation),  cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_idle_log_is_small),      cmocka_unit_test(test_every_flipped_bit),
        cmocka_unit_test(test_planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
