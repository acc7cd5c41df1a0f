/* A node that runs for weeks of simulated time: continuous writes, series that come and go with every deployment,
 * producers that end, late rows, metadata that changes, sequences given up, restarts, retention of three days.
 * What it holds after 2 N days must be what it held after N: a structure that nothing empties shows here.
 *
 * N is 6 days by default, 60 with `--full` or KELPIE_SIM=full. */
#include "shard/workload.h"

#include "shard/partition.h"
#include "sim/io_sim.h"

#define TICK_MS        (2 * MS_PER_MINUTE) /* between two scrapes */
#define TICKS_PER_HOUR (MS_PER_HOUR / TICK_MS)
#define DEPLOY_HOURS   4  /* half of the series get other labels */
#define RENEW_HOURS    7  /* the producer takes a new incarnation */
#define RESTART_HOURS  20 /* less than retention waits when it would drop much */
#define RETENTION_MS   (3 * MS_PER_DAY)
#define SERIES_COUNT   16 /* of each partition, at a time */
#define FAMILY_COUNT   4
#define GIVEN_UP_EVERY 50 /* records: a sequence is not used */
#define METADATA_EVERY (TICKS_PER_HOUR / 2)

static bool is_full;

struct life {
    struct world w;
    uint64_t tick;
    uint64_t deployment;
    uint64_t record_count;
    bool announced[WORLD_PARTITIONS][SERIES_COUNT];
    uint32_t number[WORLD_PARTITIONS][SERIES_COUNT];
    uint32_t next_number[WORLD_PARTITIONS];
    err answer;
};

/* ---- writing ---- */

static struct slice series_labels(struct life *l, uint32_t partition, uint32_t series, struct pool *pool)
{
    struct buf b = buf_open(pool, 1000);
    char text[64];
    uint64_t deployment = series % 2 == 0 ? 0 : l->deployment;
    labels_put(&b, slice_str("__name__"), slice_str("requests_total"));
    snprintf(text, sizeof text, "pod-%u-%llu", series, (unsigned long long)hash_mix(deployment));
    labels_put(&b, slice_str("instance"), slice_str(text));
    snprintf(text, sizeof text, "%u", partition);
    labels_put(&b, slice_str("partition"), slice_str(text));
    assert_ok(buf_err(&b));
    return buf_slice(&b);
}

static void renew(struct life *l)
{
    world_producer_renew(&l->w);
    memset(l->announced, 0, sizeof l->announced);
    memset(l->next_number, 0, sizeof l->next_number);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        for (uint32_t s = 0; s < SERIES_COUNT; s++)
            l->number[p][s] = l->next_number[p]++;
}

static void deploy(struct life *l)
{
    l->deployment++;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        for (uint32_t s = 1; s < SERIES_COUNT; s += 2) {
            l->number[p][s] = l->next_number[p]++;
            l->announced[p][s] = false;
        }
}

static void done(struct log_append *append, err result, struct log_position position)
{
    struct life *l = append->context;
    l->answer = result;
}

static size_t put_metadata(struct life *l, struct pool *pool, struct batch_metadata *metadata)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++) {
        char family[32], help[128];
        snprintf(family, sizeof family, "family_%zu", i);
        snprintf(help, sizeof help, "What family %zu counts, as of build %llu.", i,
                 (unsigned long long)hash_mix(l->deployment));
        metadata[i] = (struct batch_metadata){ .type = METRIC_COUNTER };
        assert_ok(pool_copy(pool, slice_str(family), &metadata[i].family));
        assert_ok(pool_copy(pool, slice_str(help), &metadata[i].help));
    }
    return FAMILY_COUNT;
}

/* One scrape of a partition; behind_ms: how old its rows are. */
static void write_rows(struct life *l, uint32_t partition, uint32_t count, int64_t behind_ms)
{
    struct world *w = &l->w;
    struct pool *pool = pool_open(w->pool, "record", POOL_BYTES_UNLIMITED);
    uint32_t numbers[SERIES_COUNT];
    int64_t t_ms[SERIES_COUNT];
    uint64_t bits[SERIES_COUNT];
    struct batch_announce announces[SERIES_COUNT];
    struct batch_metadata metadata[FAMILY_COUNT];
    l->record_count++;
    w->producer.sequence[partition] += l->record_count % GIVEN_UP_EVERY == 0;
    struct batch b = world_batch(w, partition);
    b.announces = announces;
    b.numbers = numbers;
    b.t_ms = t_ms;
    b.value_bits = bits;
    b.row_count = count;
    b.metadata = metadata;
    if (l->tick % METADATA_EVERY == 0)
        b.metadata_count = put_metadata(l, pool, metadata);
    for (uint32_t s = 0; s < count; s++) {
        numbers[s] = l->number[partition][s];
        t_ms[s] = b.append_ms - behind_ms;
        bits[s] = double_bits((double)l->tick * (s + 1));
        if (!l->announced[partition][s])
            announces[b.announce_count++] =
                (struct batch_announce){ numbers[s], series_labels(l, partition, s, pool) };
        l->announced[partition][s] = true;
    }
    struct buf bytes = buf_open(pool, BATCH_BYTES_MAX);
    assert_ok(batch_encode(&b, &bytes));
    struct slice part = buf_slice(&bytes);
    struct log_append append = {
        .partition = partition, .parts = &part, .part_count = 1, .done = done, .context = l
    };
    l->answer = ERR_BUSY;
    log_append(w->log, &append);
    assert_ok(log_pump(w->log));
    assert_ok(l->answer);
    pool_close(pool);
}

static void steps(struct life *l)
{
    bool any = true;
    for (int i = 0; any && i < 64; i++) {
        bool worked;
        any = false;
        assert_ok(log_pump(l->w.log));
        assert_ok(shards_apply_step(l->w.shards, &worked));
        any = any || worked;
        assert_ok(shards_spill_step(l->w.shards, &worked));
        any = any || worked;
        assert_ok(shards_background_step(l->w.shards, &worked));
        any = any || worked;
    }
    assert_ok(shards_intake(l->w.shards));
}

static void run_hour(struct life *l)
{
    uint64_t hour = l->tick / TICKS_PER_HOUR;
    if (hour % DEPLOY_HOURS == DEPLOY_HOURS - 1)
        deploy(l);
    if (hour % RENEW_HOURS == RENEW_HOURS - 1)
        renew(l);
    if (hour % RESTART_HOURS == RESTART_HOURS - 1) {
        world_close_quick(&l->w);
        renew(l);
        assert_ok(world_open(&l->w));
    }
    for (int i = 0; i < TICKS_PER_HOUR; i++, l->tick++) {
        io_sim_clock_advance(l->w.io, TICK_MS * NS_PER_MS);
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
            write_rows(l, p, SERIES_COUNT, 0);
            if (i == 0)
                write_rows(l, p, 2, 36 * MS_PER_HOUR);
        }
        steps(l);
        assert_ok(log_tidy(l->w.log));
        /* A real disk does this by itself; the simulated one keeps every unsynced change of a name. */
        assert_ok(io_dir_sync(l->w.io, "blob/.tmp"));
        assert_ok(io_dir_sync(l->w.io, "stream"));
    }
}

/* ---- measuring ---- */

enum measure {
    SERIES,
    PRODUCERS,
    BINDINGS,
    INTERVALS,
    METADATA,
    UNRESOLVED,
    SEGMENTS,
    SEGMENT_BYTES,
    CHAIN_ENTRIES,
    CHAIN_BYTES,
    STATE_OBJECTS,
    STATE_BYTES,
    STREAM_FILES,
    LOG_BYTES,
    POOL_BYTES,
    DISK_BYTES,
    MEASURE_COUNT
};
static const char *const measure_names[] = {
    "series",       "producers",      "bindings",      "intervals",   "metadata",      "unresolved",
    "segments",     "segment bytes",  "chain entries", "chain bytes", "state objects", "state bytes",
    "stream files", "log file bytes", "pool bytes",    "disk bytes"
};

static uint64_t count_files(struct life *l, const char *path, uint64_t *out_bytes)
{
    struct io_dir_entry *entries;
    size_t count;
    uint64_t files = 0;
    struct pool *pool = pool_open(NULL, "list", POOL_BYTES_UNLIMITED);
    assert_ok(io_dir_list(l->w.io, path, pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        char name[IO_PATH_BYTES_MAX];
        uint64_t bytes;
        if (entries[i].is_dir)
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entries[i].name);
        assert_ok(io_path_size(l->w.io, name, &bytes, NULL));
        *out_bytes += bytes;
        files++;
    }
    pool_close(pool);
    return files;
}

static void measure(struct life *l, uint64_t m[MEASURE_COUNT])
{
    memset(m, 0, MEASURE_COUNT * sizeof *m);
    struct shards_usage u = shards_usage(l->w.shards);
    struct log_usage log = log_usage(l->w.log);
    uint64_t unused = 0;
    m[SERIES] = u.series_count;
    m[UNRESOLVED] = u.unresolved_rows;
    m[SEGMENTS] = u.segment_count;
    m[SEGMENT_BYTES] = u.segment_bytes;
    m[LOG_BYTES] = log.live_bytes + log.recycled_bytes;
    m[STREAM_FILES] = count_files(l, "stream", &unused);
    m[POOL_BYTES] = pool_used(l->w.node_pool);
    m[DISK_BYTES] = io_sim_used(l->w.io);
    for (uint32_t i = 0; i < WORLD_PARTITIONS; i++) {
        const struct partition *p = &l->w.shards->partitions[i];
        char path[SHARD_KEY_BYTES_MAX];
        snprintf(path, sizeof path, "blob/p%03u/chain", i);
        m[CHAIN_ENTRIES] += count_files(l, path, &m[CHAIN_BYTES]);
        snprintf(path, sizeof path, "blob/p%03u/state", i);
        m[STATE_OBJECTS] += count_files(l, path, &m[STATE_BYTES]);
        m[METADATA] += p->metadata_count;
        m[PRODUCERS] += p->producer_count;
        for (size_t k = 0; k < p->producer_count; k++) {
            m[BINDINGS] += p->producers[k].bound_count;
            m[INTERVALS] += p->producers[k].seen.count;
        }
    }
}

/* The most of each measure over a day: what grows and is let go within it is not what we look for. */
static void run_day(struct life *l, uint64_t most[MEASURE_COUNT])
{
    memset(most, 0, MEASURE_COUNT * sizeof *most);
    for (int hour = 0; hour < 24; hour++) {
        uint64_t m[MEASURE_COUNT];
        run_hour(l);
        measure(l, m);
        for (int i = 0; i < MEASURE_COUNT; i++)
            most[i] = m[i] > most[i] ? m[i] : most[i];
    }
}

static struct life *life_open(struct pool **out_pool)
{
    struct life *l = calloc(1, sizeof *l);
    struct io *io;
    *out_pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    assert_ok(io_sim_open(21, &io));
    world_init(&l->w, io, *out_pool, 21);
    l->w.config.head_rows_max = 4096;
    renew(l);
    return l;
}

static void life_close(struct life *l, struct pool *pool)
{
    struct io *io = l->w.io;
    world_close_quick(&l->w);
    io_close(io);
    pool_close(pool);
    free(l);
}

static void nothing_grows_for_ever(void **unused)
{
    int days = is_full ? 60 : 6;
    struct pool *pool;
    struct life *l = life_open(&pool);
    uint64_t first[MEASURE_COUNT] = { 0 }, second[MEASURE_COUNT] = { 0 }, day[MEASURE_COUNT];
    l->w.log_file_bytes = 256u << 10;
    l->w.config.cut_group_count = 32;
    l->w.config.compact_count_min = 4;
    l->w.config.retention_ms = RETENTION_MS;
    l->w.config.chain_base_count = 64;
    assert_ok(world_open(&l->w));
    for (int i = 0; i < 2 * days; i++) {
        run_day(l, day);
        uint64_t *most = i < days ? first : second;
        for (int k = 0; i % days >= days - 2 && k < MEASURE_COUNT; k++) /* the last two days of each half */
            most[k] = day[k] > most[k] ? day[k] : most[k];
    }
    for (int i = 0; i < MEASURE_COUNT; i++)
        print_message("%-14s %10llu %10llu\n", measure_names[i], (unsigned long long)first[i],
                      (unsigned long long)second[i]);
    for (int i = 0; i < MEASURE_COUNT; i++)
        if (second[i] > first[i] + first[i] / 8 + 2)
            fail_msg("%s: %llu after %d days, %llu after %d", measure_names[i], (unsigned long long)first[i],
                     days, (unsigned long long)second[i], 2 * days);
    life_close(l, pool);
}

/* ---- one thing at a time ---- */

/* A FORGET that a record overtook came to nothing: it is sent again. */
static void a_producer_is_forgotten_later(void **unused)
{
    struct pool *pool;
    struct life *l = life_open(&pool);
    struct partition *p;
    assert_ok(world_open(&l->w));
    p = &l->w.shards->partitions[0];
    write_rows(l, 0, 4, 0);
    steps(l);
    io_sim_clock_advance(l->w.io, 4 * MS_PER_HOUR * NS_PER_MS);
    write_rows(l, 0, 4, 0); /* in the log, not applied */
    for (int i = 0; i < 8; i++) {
        bool worked;
        assert_ok(shards_background_step(l->w.shards, &worked)); /* sends it */
    }
    steps(l);
    assert_int_equal(p->producer_count, 1);
    for (int hour = 0; hour < 6; hour++) {
        io_sim_clock_advance(l->w.io, MS_PER_HOUR * NS_PER_MS);
        steps(l);
    }
    assert_int_equal(p->producer_count, 0);
    life_close(l, pool);
}

/* The disk stays full for hours: a retry every two seconds costs no files, descriptors or part numbers. */
static void a_full_disk_is_waited_for(void **unused)
{
    static const uint64_t left_bytes[] = { 10, 100 }; /* too few for a part's header, and for a frame */
    for (int i = 0; i < 2; i++) {
        struct pool *pool;
        struct life *l = life_open(&pool);
        uint64_t bytes = 0;
        assert_ok(world_open(&l->w));
        write_rows(l, 0, SERIES_COUNT, 0);
        steps(l);
        io_sim_clock_advance(l->w.io, MS_PER_HOUR * NS_PER_MS / 2); /* the head is old: it is to be spilled */
        io_sim_set_capacity(l->w.io, io_sim_used(l->w.io) + left_bytes[i]);
        for (int k = 0; k < 2000; k++) {
            bool worked;
            io_sim_clock_advance(l->w.io, 3 * NS_PER_SECOND);
            assert_ok(shards_apply_step(l->w.shards, &worked));
            assert_ok(shards_spill_step(l->w.shards, &worked));
        }
        assert_err(ERR_SPACE, shards_intake(l->w.shards));
        assert_in_range(count_files(l, "stream", &bytes), 0, 1);
        assert_in_range(l->w.shards->partitions[0].open_range->part_count, 0, 2);
        io_sim_set_capacity(l->w.io, 0);
        for (int k = 0; k < 4; k++) {
            bool worked;
            io_sim_clock_advance(l->w.io, 3 * NS_PER_SECOND);
            assert_ok(shards_spill_step(l->w.shards, &worked));
        }
        assert_int_equal(shards_usage(l->w.shards).stream_rows, SERIES_COUNT);
        world_close_quick(&l->w);
        assert_ok(world_open(&l->w));
        assert_int_equal(shards_usage(l->w.shards).stream_rows, SERIES_COUNT);
        life_close(l, pool);
    }
}

/* One damaged segment among many: the others are merged around it, and nobody tries it again and again. */
static void compaction_goes_around_damage(void **unused)
{
    struct pool *pool;
    struct life *l = life_open(&pool);
    l->w.config.compact = false;
    assert_ok(world_open(&l->w));
    const struct chain *chain = &l->w.shards->partitions[0].chain;
    int64_t of_day_ms = io_now_ms(l->w.io) % MS_PER_DAY; /* all in one window */
    io_sim_clock_advance(l->w.io, (MS_PER_DAY - of_day_ms) * NS_PER_MS);
    for (int i = 0; i < 9; i++) {
        write_rows(l, 0, SERIES_COUNT, 0);
        io_sim_clock_advance(l->w.io, 61 * MS_PER_MINUTE * NS_PER_MS);
        steps(l);
    }
    assert_int_equal(chain->segment_count, 9);
    char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
    segment_key(0, chain->segments[4].digest, 0, key);
    snprintf(path, sizeof path, "blob/%s", key);
    assert_ok(io_sim_flip(l->w.io, path, 8 * 100));
    struct shards_config config = l->w.config;
    config.compact = true;
    assert_ok(shards_reconfigure(l->w.shards, &config, NULL));
    for (int minute = 0; minute < 30; minute++) {
        io_sim_clock_advance(l->w.io, 61 * NS_PER_SECOND);
        steps(l);
    }
    assert_int_equal(chain->segment_count, 3);
    life_close(l, pool);
}

/* ---- a chain that begins at a base ---- */

static uint64_t rows_of(struct life *l)
{
    struct shards_usage u = shards_usage(l->w.shards);
    assert_int_equal(u.losses, 0);
    return u.segment_rows + u.stream_rows + u.head_rows;
}

static void write_hours(struct life *l, int hours)
{
    for (int i = 0; i < hours; i++) {
        write_rows(l, 0, SERIES_COUNT, 0);
        io_sim_clock_advance(l->w.io, 61 * MS_PER_MINUTE * NS_PER_MS);
        steps(l);
    }
}

static void no_line(void *context, bool is_damage, const char *text) {}

/* Damage found by verify while the node is down. */
static uint64_t damages(struct life *l)
{
    struct shard_report report = { no_line, NULL };
    struct shard_check check;
    shards_close(l->w.shards);
    l->w.shards = NULL;
    assert_ok(shard_verify(&l->w.config, l->w.io, l->w.log, l->w.blob, l->w.pool, &report, &check));
    log_close(l->w.log);
    blob_close(l->w.blob);
    pool_close(l->w.node_pool);
    return check.damage_count;
}

static void flip_entry(struct life *l, uint64_t number)
{
    char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
    chain_key(0, number, key);
    snprintf(path, sizeof path, "blob/%s", key);
    assert_ok(io_sim_flip(l->w.io, path, 8 * 50));
}

/* Old entries are gone, the node starts without them; also when the older of the two bases is damaged, and when
 * both are, which is the one case that loses something, and says so. */
static void a_chain_begins_at_a_base(void **unused)
{
    struct pool *pool;
    struct life *l = life_open(&pool);
    l->w.config.chain_base_count = 6;
    assert_ok(world_open(&l->w));
    const struct chain *chain = &l->w.shards->partitions[0].chain;
    write_hours(l, 40);
    assert_true(chain->first_number > 20 && chain->first_number == chain->older_number);
    assert_in_range(chain->next_number - chain->first_number, 6, 15);
    uint64_t rows = rows_of(l);
    assert_int_equal(damages(l), 0);
    assert_ok(world_open(&l->w));
    chain = &l->w.shards->partitions[0].chain;
    assert_int_equal(rows_of(l), rows);
    uint64_t older = chain->older_number;

    flip_entry(l, older);
    assert_int_equal(damages(l), 1);
    assert_ok(world_open(&l->w));
    chain = &l->w.shards->partitions[0].chain;
    assert_int_equal(rows_of(l), rows);
    assert_int_equal(chain->lost_count, 0);
    write_hours(l, 40); /* and it goes on: two new bases, the entries before them removed */
    assert_true(chain->first_number > older + 20 && chain->first_number == chain->older_number);
    rows = rows_of(l);
    assert_int_equal(damages(l), 0);

    assert_ok(world_open(&l->w));
    chain = &l->w.shards->partitions[0].chain;
    flip_entry(l, chain->older_number);
    flip_entry(l, chain->base_number);
    world_close_quick(&l->w);
    assert_ok(world_open(&l->w));
    chain = &l->w.shards->partitions[0].chain;
    assert_true(chain->lost_count > 0);
    assert_true(shards_usage(l->w.shards).losses > 0);
    assert_int_equal(shards_usage(l->w.shards).segment_rows, rows); /* whole segments were found */
    life_close(l, pool);
}

int main(int argc, char **argv)
{
    is_full = (argc > 1 && strcmp(argv[1], "--full") == 0) ||
              (getenv("KELPIE_SIM") != NULL && strcmp(getenv("KELPIE_SIM"), "full") == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_grows_for_ever),    cmocka_unit_test(a_producer_is_forgotten_later),
        cmocka_unit_test(a_full_disk_is_waited_for), cmocka_unit_test(compaction_goes_around_damage),
        cmocka_unit_test(a_chain_begins_at_a_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
