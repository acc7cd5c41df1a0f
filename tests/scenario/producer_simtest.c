/* The whole write path on the simulated disk, in one thread and from one seed: the real ingest, the real log and
 * the real shards of a node, which senders write to and whose power goes at any call. After each start, and at
 * the end:
 *
 *   every row of an acknowledged request is there, in its tenant, under its labels
 *   no row is there that nobody sent, and none is stored more often than it was sent
 *   every answer says that it is complete, and no row waits for its labels
 *
 * Senders: several tenants (one with few series), series that come and go, requests by rows and by text, some
 * rows that must be refused, requests that were not acknowledged sent again, also to the next life of the node.
 * Several requests are under way at a time, so that some are begun before others are answered; some are given up.
 *
 * Canary: a producer that takes series for announced when their labels are sent must be caught by the same
 * checks. The default set takes a sample of crashes; `--full` or KELPIE_SIM=full takes many. */
#include "base/test.h"

#include "base/bytes.h"
#include "base/time.h"
#include "blob/blob.h"
#include "ingest/ingest.h"
#include "log/log.h"
#include "model/labels.h"
#include "shard/shard.h"
#include "sim/io_sim.h"

#define PARTITIONS       2
#define TENANTS          3
#define TIGHT            2 /* the tenant that may have TIGHT_SERIES only */
#define TIGHT_SERIES     6
#define SERIES           3000 /* of a tenant, over all its time */
#define WINDOW           20   /* of them in use at a time */
#define ROWS_MAX         16384
#define REQUEST_ROWS_MAX 40
#define OPEN_MAX         6 /* requests under way; the node allows one less */
#define AGAIN_MAX        8 /* requests to be sent again */
#define LATE_MS          (10 * MS_PER_DAY)

static bool is_full;

enum row_kind { ROW_GOOD, ROW_NAMELESS, ROW_BEYOND };

/* A row's value is its index. */
struct row {
    uint32_t tenant, series;
    int64_t t_ms;
    enum row_kind kind;
    uint32_t sent;  /* attempts that may have stored it */
    uint32_t acked; /* … that did */
    uint32_t found; /* of the check under way */
};

struct attempt {
    struct ingest_request *request;
    uint32_t tenant;
    uint32_t rows[REQUEST_ROWS_MAX];
    size_t row_count;
    bool is_space_low; /* when it was sent: the log takes nothing */
};

struct counts {
    uint64_t requests, acked, refused, abandoned, starts, rows;
};

struct world {
    struct io *io;
    struct pool *pool;      /* of the model */
    struct pool *node_pool; /* of the node, NULL when it is down */
    struct log *log;
    struct blob *blob;
    struct shards *shards;
    struct ingest *ingest;
    uint32_t canary;
    bool fails_pumps; /* writes and syncs of the log fail now and then */
    bool is_space_low;
    int64_t start_ms;
    struct test_random random;
    uint32_t window[TENANTS]; /* first series in use */
    int64_t next_t_ms[TENANTS][SERIES];
    struct row *rows; /* ROWS_MAX */
    size_t row_count;
    struct attempt open[OPEN_MAX], again[AGAIN_MAX];
    size_t open_count, again_count;
    const char *wrong; /* what was found first */
    struct counts counts;
};

struct plan {
    uint64_t seed;
    uint64_t crash_at[2]; /* calls of the first and the second life; 0 = it ends in peace */
    uint64_t fault_at;    /* call of the first life that fails once; 0 = none */
    err fault;
    bool fails_pumps; /* calls of the log in all lives fail now and then */
    enum io_sim_keep keep;
    uint32_t canary;
};

static const char *const tenants[TENANTS] = { "default", "team-a", "tight" };

/* Made once. */
static struct pool *labels_pool;
static struct slice labels_of[SERIES], nameless;
static char pods[SERIES][65]; /* long and alike in nothing, so that a few requests fill a file of the log */

static uint64_t below(struct world *w, uint64_t bound) { return test_random_below(&w->random, bound); }

static void say(struct world *w, const char *wrong)
{
    if (w->wrong == NULL)
        w->wrong = wrong;
}

/* ---- the node ---- */

static bool is_space_low(void *context) { return ((struct world *)context)->is_space_low; }

static bool has_room(void *context, struct slice tenant, struct slice labels)
{
    return shards_have_room(((struct world *)context)->shards, tenant, labels);
}

static struct log_config log_settings(struct world *w)
{
    return (struct log_config){ .directory = "log",
                                .cluster_id = { 7 },
                                .partition_count = PARTITIONS,
                                .ack = LOG_ACK_FSYNC,
                                .file_bytes = 16u << 10,
                                .queue_bytes_max = 1u << 20,
                                .tail_bytes_max = 1u << 20,
                                .is_space_low = is_space_low,
                                .space_context = w };
}

static struct shards_config shard_settings(void)
{
    struct shards_config c = shards_config_default(1u << 30);
    c.partition_count = PARTITIONS;
    c.head_rows_max = 64;
    c.cut_group_count = 4;
    c.compact_count_min = 2;
    c.cache_bytes_max = 4u << 20;
    c.chain_base_count = 2;
    return c;
}

static err open_ingest(struct world *w)
{
    struct ingest_tenant_limits tight = { slice_str(tenants[TIGHT]), ingest_limits_default() };
    struct ingest_config c = ingest_config_default();
    tight.limits.series_max = TIGHT_SERIES;
    c.partition_count = PARTITIONS;
    c.requests_max = OPEN_MAX - 1;
    c.decoded_bytes_max = 64u << 10;
    c.tenants = &tight;
    c.tenant_count = 1;
    c.has_room = has_room;
    c.context = w;
    c.canary = w->canary;
    return ingest_open(&c, w->io, w->log, w->node_pool, &w->ingest);
}

/* In the order of the server's stop. */
static void node_close(struct world *w)
{
    if (w->ingest != NULL)
        ingest_close(w->ingest);
    shards_close(w->shards);
    log_close(w->log);
    blob_close(w->blob);
    pool_close(w->node_pool);
    w->ingest = NULL;
    w->shards = NULL;
    w->log = NULL;
    w->blob = NULL;
    w->node_pool = NULL;
}

static err node_open(struct world *w)
{
    struct err_at at = { 0 };
    struct log_config log = log_settings(w);
    struct shards_config shards = shard_settings();
    w->node_pool = pool_open(NULL, "node", POOL_BYTES_UNLIMITED);
    err e = log_open(&log, w->io, w->node_pool, &w->log, &at);
    if (e == OK)
        e = blob_open_dir("blob", w->io, w->node_pool, &w->blob);
    if (e == OK)
        e = shards_open(&shards, w->io, w->log, w->blob, w->node_pool, &w->shards, &at);
    if (e == OK)
        e = open_ingest(w);
    w->counts.starts += e == OK;
    if (e != OK)
        node_close(w);
    return e;
}

static void work(struct world *w, int count)
{
    for (int i = 0; i < count; i++) {
        bool worked;
        ERR_IGNORE(shards_apply_step(w->shards, &worked));
        ERR_IGNORE(shards_spill_step(w->shards, &worked));
        ERR_IGNORE(shards_background_step(w->shards, &worked));
        ERR_IGNORE(log_pump(w->log));
    }
}

static void pass_ms(struct world *w, int64_t ms)
{
    io_sim_clock_advance(w->io, ms * NS_PER_MS);
    ingest_step(w->ingest);
}

/* ---- senders ---- */

static uint32_t row_make(struct world *w, uint32_t tenant, bool with_bad)
{
    assert_true(w->row_count < ROWS_MAX);
    uint32_t series = w->window[tenant] + (uint32_t)below(w, WINDOW);
    int64_t *next = &w->next_t_ms[tenant][series], now_ms = io_now_ms(w->io);
    struct row row = { .tenant = tenant, .series = series };
    row.t_ms = *next = *next >= now_ms ? *next + 1 : now_ms;
    if (below(w, 10) == 0) /* late, and a time of its own */
        row.t_ms = w->start_ms - LATE_MS + (int64_t)w->row_count;
    if (with_bad && below(w, 8) == 0)
        row.kind = below(w, 2) == 0 ? ROW_NAMELESS : ROW_BEYOND;
    w->rows[w->row_count] = row;
    return (uint32_t)w->row_count++;
}

static struct attempt attempt_make(struct world *w, bool with_bad)
{
    struct attempt a = { .tenant = (uint32_t)below(w, TENANTS) };
    /* One row alone where series may be refused, so that the answer says which row was. */
    size_t count = a.tenant == TIGHT ? 1 : 1 + below(w, REQUEST_ROWS_MAX);
    uint32_t *window = &w->window[a.tenant], step = below(w, 6) == 0 ? WINDOW : (uint32_t)below(w, 3);
    if (a.tenant != TIGHT || below(w, 8) == 0) /* some series end, or all: a deployment */
        *window = *window + step + WINDOW > SERIES ? 0 : *window + step;
    for (size_t i = 0; i < count; i++)
        a.rows[a.row_count++] = row_make(w, a.tenant, with_bad && a.tenant != TIGHT);
    return a;
}

static struct ingest_request *begin_rows(struct world *w, const struct attempt *a,
                                         struct ingest_result *out_refusal)
{
    struct ingest_row rows[REQUEST_ROWS_MAX];
    for (size_t i = 0; i < a->row_count; i++) {
        const struct row *row = &w->rows[a->rows[i]];
        rows[i] =
            (struct ingest_row){ .labels = row->kind == ROW_NAMELESS ? nameless : labels_of[row->series],
                                 .t_ms = row->kind == ROW_BEYOND ? TIME_MS_MAX + 1 : row->t_ms,
                                 .value_bits = double_bits((double)a->rows[i]) };
    }
    struct ingest_rows all = { .rows = rows, .row_count = a->row_count };
    return ingest_begin_write(w->ingest, slice_str(tenants[a->tenant]), &all, out_refusal);
}

/* Sometimes with a line in between that is no sample: what follows it is not sent. */
static struct ingest_request *begin_text(struct world *w, struct attempt *a,
                                         struct ingest_result *out_refusal)
{
    char text[REQUEST_ROWS_MAX * 200];
    size_t len = 0, cut = below(w, 4) == 0 ? 1 + below(w, REQUEST_ROWS_MAX) : SIZE_MAX;
    for (size_t i = 0; i < a->row_count; i++) {
        const struct row *row = &w->rows[a->rows[i]];
        if (i == cut)
            len += (size_t)snprintf(text + len, sizeof text - len, "no sample at all}\n");
        len += (size_t)snprintf(text + len, sizeof text - len,
                                "metric_%u{instance=\"host-%u\",pod=\"%s\"} %u %lld\n", row->series % 5,
                                row->series, pods[row->series], a->rows[i], (long long)row->t_ms);
    }
    assert_true(len < sizeof text);
    if (cut < a->row_count)
        a->row_count = cut;
    return ingest_begin_import_text(w->ingest, slice_str(tenants[a->tenant]), slice_str(""),
                                    slice_of(text, len), len, out_refusal);
}

static void keep_for_again(struct world *w, const struct attempt *a)
{
    size_t at = w->again_count < AGAIN_MAX ? w->again_count++ : (size_t)below(w, AGAIN_MAX);
    w->again[at] = *a;
}

static void count_sent(struct world *w, const struct attempt *a, uint32_t by)
{
    for (size_t i = 0; i < a->row_count; i++)
        if (w->rows[a->rows[i]].kind == ROW_GOOD)
            w->rows[a->rows[i]].sent += by;
}

static void send_one(struct world *w)
{
    struct ingest_result refusal;
    struct attempt a;
    bool as_text = below(w, 3) == 0;
    if (w->open_count == OPEN_MAX)
        return;
    if (w->again_count > 0 && below(w, 4) == 0) {
        size_t at = below(w, w->again_count);
        a = w->again[at];
        w->again[at] = w->again[--w->again_count];
        as_text = false;
    } else {
        a = attempt_make(w, !as_text);
    }
    a.is_space_low = w->is_space_low;
    a.request = as_text ? begin_text(w, &a, &refusal) : begin_rows(w, &a, &refusal);
    w->counts.requests++;
    if (a.request == NULL) {
        if (refusal.status != 429 && refusal.status != 503)
            say(w, "a request was refused with another status than 429 and 503");
        w->counts.refused++;
        keep_for_again(w, &a);
        return;
    }
    count_sent(w, &a, 1);
    w->open[w->open_count++] = a;
}

static void take_answer(struct world *w, const struct attempt *a, const struct ingest_result *result)
{
    if (result->status != 204 && result->status != 400) {
        w->counts.abandoned += strstr(result->text, "did not answer") != NULL;
        if (result->status != 503 && result->status != 507)
            say(w, "a request failed with another status than 503 and 507");
        if (a->is_space_low)
            count_sent(w, a, UINT32_MAX); /* one less */
        keep_for_again(w, a);
        return;
    }
    size_t stored = 0;
    bool is_over_limit = result->refused[INGEST_SERIES_LIMIT] > 0;
    for (size_t i = 0; i < a->row_count; i++) {
        struct row *row = &w->rows[a->rows[i]];
        if (row->kind != ROW_GOOD)
            continue;
        if (is_over_limit)
            row->sent--;
        else
            row->acked++;
        stored += !is_over_limit;
    }
    if (stored != result->samples)
        say(w, "an answer counts other rows than were sent");
    w->counts.acked++;
}

static void poll_all(struct world *w)
{
    for (size_t i = 0; i < w->open_count;) {
        struct ingest_result result;
        if (!ingest_poll(w->open[i].request, &result)) {
            i++;
            continue;
        }
        struct attempt a = w->open[i];
        w->open[i] = w->open[--w->open_count];
        take_answer(w, &a, &result);
    }
}

/* ---- a life of the node ---- */

/* The senders hang up; what the log still holds of them is drained by the close. */
static void stop(struct world *w)
{
    io_sim_clock_advance(w->io, ingest_config_default().wait_ms_max * NS_PER_MS);
    poll_all(w);
    assert_int_equal(w->open_count, 0);
    node_close(w);
}

static void be_silent(struct world *w, int64_t ms)
{
    for (int64_t passed_ms = 0; passed_ms < ms && !io_sim_is_down(w->io); passed_ms += 10 * MS_PER_MINUTE) {
        pass_ms(w, 10 * MS_PER_MINUTE);
        work(w, 6);
    }
}

static void do_something_rare(struct world *w)
{
    uint64_t what = below(w, 48);
    w->is_space_low = what < 8;
    if (what >= 8 && what < 16)
        pass_ms(w, ingest_config_default().wait_ms_max); /* those under way are given up */
    else if (what >= 16 && what < 24)
        pass_ms(w, 200 * MS_PER_SECOND); /* idle: cut */
    else if (what >= 24 && what < 28)
        pass_ms(w, 31 * MS_PER_MINUTE); /* all is announced again */
    else if (what == 28)
        be_silent(w, 4 * MS_PER_HOUR); /* producers are forgotten */
    else if (what > 28 && what < 34) {
        stop(w);
        ERR_IGNORE(node_open(w)); /* the power may be gone */
    }
}

/* A group of records may fail, and another, of requests that were sent before anybody knew, succeed. */
static void pump(struct world *w)
{
    bool fails = w->fails_pumps && w->open_count > 1 && below(w, 2) == 0;
    if (fails)
        io_sim_fault_at(w->io, 1 + below(w, 3), false, ERR_IO);
    ERR_IGNORE(log_pump(w->log));
    if (fails) {
        io_sim_fault_at(w->io, 0, false, OK);
        ERR_IGNORE(log_pump(w->log));
    }
}

static void live(struct world *w, int count)
{
    for (int i = 0; i < count && w->node_pool != NULL && !io_sim_is_down(w->io) && w->wrong == NULL; i++) {
        uint64_t action = below(w, 20);
        if (shards_intake(w->shards) == ERR_IO) { /* after a failed call: only a start opens it again */
            stop(w);
            ERR_IGNORE(node_open(w));
        } else if (action < 10) {
            if (shards_intake(w->shards) == OK)
                send_one(w);
        } else if (action < 13) {
            pump(w);
            poll_all(w);
        } else if (action < 17) {
            work(w, 1 + (int)below(w, 4));
            poll_all(w);
        } else if (action < 19) {
            pass_ms(w, (int64_t)below(w, 2000));
            poll_all(w);
        } else {
            do_something_rare(w);
        }
    }
    w->is_space_low = false;
}

/* ---- the checks ---- */

static bool is_labels_of(const struct world *w, const struct row *row, struct slice tenant,
                         struct slice labels)
{
    return slice_equal_str(tenant, tenants[row->tenant]) && slice_equal(labels, labels_of[row->series]);
}

static void find_rows(struct world *w, struct slice tenant, struct slice labels,
                      const struct sample_columns *c)
{
    for (size_t k = 0; k < c->count; k++) {
        if (!(c->values[k] >= 0 && c->values[k] < (double)w->row_count)) {
            say(w, "a row is there that nobody made");
            return;
        }
        struct row *row = &w->rows[(size_t)c->values[k]];
        if (c->t_ms[k] != row->t_ms || !is_labels_of(w, row, tenant, labels))
            say(w, "a row is there under another name or time");
        row->found++;
    }
}

static void begin_check(struct world *w)
{
    for (size_t i = 0; i < w->row_count; i++)
        w->rows[i].found = 0;
}

/* once: a query's answer, else what is stored. */
static void end_check(struct world *w, bool once)
{
    for (size_t i = 0; i < w->row_count; i++) {
        const struct row *row = &w->rows[i];
        if (row->found > 0 && (row->sent == 0 || row->kind != ROW_GOOD))
            say(w, "a row is there that nobody sent, or that was refused");
        if (row->found > (once ? 1 : row->sent))
            say(w, "a row is there more often than it was sent");
        if (row->acked > 0 && row->found == 0)
            say(w, "an acknowledged row is lost");
    }
}

static void check_tenant(struct world *w, const char *tenant)
{
    struct source *source = shards_source(w->shards);
    struct pool *pool = pool_open(w->pool, "check", POOL_BYTES_UNLIMITED);
    struct sample_columns columns = sample_columns_open(pool);
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct source_request request = { .tenant = slice_str(tenant),
                                      .range = { TIME_MS_MIN, TIME_MS_MAX },
                                      .series_max = SIZE_MAX };
    struct source_reader *reader = NULL;
    struct source_set *set = NULL;
    if (source->table->select(source, &request, pool, &set) != OK) {
        say(w, "select failed");
        goto out;
    }
    if (source->table->reader_open(set, &reader) != OK)
        say(w, "no reader");
    for (size_t i = 0; reader != NULL && i < source->table->set_count(set); i++) {
        buf_clear(&labels);
        if (source->table->read_labels(reader, i, &labels) != OK ||
            source->table->read_samples(reader, i, &columns) != OK)
            say(w, "a series cannot be read");
        else
            find_rows(w, request.tenant, buf_slice(&labels), &columns);
    }
    source->table->reader_close(reader);
    if (!source->table->set_proof(set)->complete)
        say(w, "the answer says it is not complete");
    source->table->set_close(set);
out:
    sample_columns_close(&columns);
    buf_close(&labels);
    pool_close(pool);
}

/* What queries see. */
static void check_answers(struct world *w)
{
    begin_check(w);
    for (uint32_t t = 0; t < TENANTS; t++)
        check_tenant(w, tenants[t]);
    end_check(w, true);
    struct shards_usage usage = shards_usage(w->shards);
    if (usage.unresolved_rows > 0)
        say(w, "rows wait for their labels");
    if (usage.losses > 0)
        say(w, "something is named as lost");
}

static err see(void *context, const struct shard_rows *rows)
{
    struct world *w = context;
    if (rows->incarnation != NULL)
        say(w, "a row without labels is stored");
    else
        find_rows(w, rows->tenant, rows->labels, rows->columns);
    return OK;
}

/* What is stored, as often as it is. The node is closed. */
static void check_stored(struct world *w)
{
    struct log_config config = log_settings(w);
    struct shards_config shards = shard_settings();
    struct shard_rows_door door = { see, w };
    struct shard_exported exported;
    struct err_at at = { 0 };
    struct log *log;
    struct blob *blob;
    struct pool *pool = pool_open(NULL, "tool", POOL_BYTES_UNLIMITED);
    config.read_only = true;
    assert_ok(log_open(&config, w->io, pool, &log, &at));
    assert_ok(blob_open_dir_as_is("blob", w->io, pool, &blob));
    begin_check(w);
    if (shard_export(&shards, w->io, log, blob, pool, &door, &exported, &at) != OK)
        say(w, "export failed");
    else if (exported.lost_record_count > 0)
        say(w, "records are lost");
    end_check(w, false);
    log_close(log);
    blob_close(blob);
    pool_close(pool);
}

/* ---- one plan ---- */

static void world_init(struct world *w, struct io *io, struct pool *pool, const struct plan *plan)
{
    void *rows;
    memset(w, 0, sizeof *w);
    w->io = io;
    w->pool = pool;
    w->canary = plan->canary;
    w->fails_pumps = plan->fails_pumps;
    w->start_ms = io_now_ms(io);
    w->random = (struct test_random){ .state = plan->seed };
    assert_ok(pool_zalloc(pool, ROWS_MAX * sizeof w->rows[0], &rows));
    w->rows = rows;
}

/* A life that may end with the power's. False: it could not even begin, though nothing failed. */
static bool live_and_die(struct world *w, const struct plan *plan, int index)
{
    io_sim_crash_at_call(w->io, plan->crash_at[index]);
    if (index == 0)
        io_sim_fault_at(w->io, plan->fault_at, false, plan->fault);
    bool can_fail = plan->crash_at[index] > 0 || (index == 0 && plan->fault_at > 0);
    if (node_open(w) != OK && !can_fail)
        return false;
    if (index > 0 && w->node_pool != NULL) {
        const char *before = w->wrong;
        check_answers(w);
        if (io_sim_is_down(w->io)) /* what it saw is not what is there */
            w->wrong = before;
    }
    live(w, 150);
    if (w->node_pool != NULL)
        stop(w);
    io_sim_fault_at(w->io, 0, false, OK);
    if (plan->crash_at[index] > 0)
        io_sim_crash(w->io, plan->keep, plan->seed + (uint64_t)index);
    return true;
}

/* A life without trouble, which shows what the ones before left. */
static void live_in_peace(struct world *w)
{
    check_answers(w);
    live(w, 60);
    poll_all(w);
    work(w, 10);
    check_answers(w);
    if (w->node_pool == NULL || w->wrong != NULL)
        return;
    stop(w);
    check_stored(w);
    if (node_open(w) != OK) {
        say(w, "the start after a peaceful life failed");
        return;
    }
    be_silent(w, 4 * MS_PER_HOUR); /* every producer before is forgotten, with what waits for its labels */
    check_answers(w);
    if (shards_cut_all(w->shards, INT64_MAX) != OK)
        say(w, "cutting all failed");
    check_answers(w);
}

/* What is wrong, or NULL. */
static const char *run(const struct plan *plan, struct counts *out_counts, uint64_t *out_trace)
{
    static struct world w;
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct io *io;
    assert_ok(io_sim_open(plan->seed, &io));
    world_init(&w, io, pool, plan);
    for (int i = 0; i < 2 && w.wrong == NULL; i++)
        if (!live_and_die(&w, plan, i))
            say(&w, "a start failed");
    if (w.wrong == NULL && node_open(&w) != OK)
        say(&w, "the last start failed");
    if (w.wrong == NULL)
        live_in_peace(&w);
    if (w.node_pool != NULL)
        stop(&w);
    if (out_counts != NULL) {
        w.counts.rows = w.row_count;
        *out_counts = w.counts;
    }
    if (out_trace != NULL)
        *out_trace = io_sim_trace(io);
    io_close(io);
    pool_close(pool);
    return w.wrong;
}

static void must_be_right(const struct plan *plan)
{
    const char *wrong = run(plan, NULL, NULL);
    if (wrong != NULL)
        fail_msg("%s: seed=%llu crash_at=%llu, %llu keep=%d fault_at=%llu fault=\"%s\" fails_pumps=%d", wrong,
                 (unsigned long long)plan->seed, (unsigned long long)plan->crash_at[0],
                 (unsigned long long)plan->crash_at[1], (int)plan->keep, (unsigned long long)plan->fault_at,
                 err_text(plan->fault), plan->fails_pumps);
}

/* ---- tests ---- */

static int make_labels(void **state)
{
    labels_pool = pool_open(NULL, "labels", POOL_BYTES_UNLIMITED);
    struct buf b = buf_open(labels_pool, 1000);
    labels_put(&b, slice_str("instance"), slice_str("host-0"));
    assert_ok(pool_copy(labels_pool, buf_slice(&b), &nameless));
    for (uint32_t s = 0; s < SERIES; s++) {
        char text[32];
        for (size_t i = 0; i < 4; i++)
            snprintf(pods[s] + 16 * i, 17, "%016llx", (unsigned long long)hash_mix(4 * s + i + 1));
        buf_clear(&b);
        snprintf(text, sizeof text, "metric_%u", s % 5);
        labels_put(&b, slice_str("__name__"), slice_str(text));
        snprintf(text, sizeof text, "host-%u", s);
        labels_put(&b, slice_str("instance"), slice_str(text));
        labels_put(&b, slice_str("pod"), slice_str(pods[s]));
        assert_ok(buf_err(&b));
        assert_ok(pool_copy(labels_pool, buf_slice(&b), &labels_of[s]));
    }
    return 0;
}

static int free_labels(void **state)
{
    pool_close(labels_pool);
    return 0;
}

static void in_peace(void **state)
{
    struct counts sum = { 0 };
    struct test_random r = test_random_begin("in_peace");
    for (int i = 0; i < 10; i++) {
        struct plan plan = { .seed = test_random_u64(&r) >> 32 };
        struct counts c;
        const char *wrong = run(&plan, &c, NULL);
        if (wrong != NULL)
            fail_msg("%s: seed=%llu, nothing crashed", wrong, (unsigned long long)plan.seed);
        sum.requests += c.requests;
        sum.acked += c.acked;
        sum.refused += c.refused;
        sum.abandoned += c.abandoned;
        sum.starts += c.starts;
        sum.rows += c.rows;
    }
    printf("# %llu requests with %llu rows: %llu acknowledged, %llu refused, %llu given up; %llu starts\n",
           (unsigned long long)sum.requests, (unsigned long long)sum.rows, (unsigned long long)sum.acked,
           (unsigned long long)sum.refused, (unsigned long long)sum.abandoned,
           (unsigned long long)sum.starts);
    assert_true(sum.acked > 0 && sum.refused > 0 && sum.abandoned > 0);
}

static void same_seed_same_trace(void **state)
{
    struct plan plan = { .seed = 5, .crash_at = { 400, 300 }, .keep = IO_SIM_KEEP_SECTORS };
    uint64_t traces[2];
    for (int i = 0; i < 2; i++)
        assert_null(run(&plan, NULL, &traces[i]));
    assert_int_equal(traces[0], traces[1]);
}

static void power_goes(void **state)
{
    struct test_random r = test_random_begin("power_goes");
    uint64_t states = is_full ? 6000 : 200;
    for (uint64_t i = 0; i < states; i++) {
        struct plan plan = { .seed = test_random_u64(&r) >> 32,
                             .keep = (enum io_sim_keep)test_random_below(&r, IO_SIM_KEEP_COUNT) };
        plan.crash_at[0] = 1 + test_random_below(&r, 1500);
        /* Now and then within the recovery from the first. */
        plan.crash_at[1] = 1 + test_random_below(&r, i % 3 == 0 ? 150 : 1500);
        must_be_right(&plan);
    }
    printf("# %llu crash states, twice each\n", (unsigned long long)states);
}

static void calls_fail(void **state)
{
    struct test_random r = test_random_begin("calls_fail");
    uint64_t states = is_full ? 4000 : 120;
    for (uint64_t i = 0; i < states; i++) {
        struct plan plan = { .seed = test_random_u64(&r) >> 32,
                             .keep = (enum io_sim_keep)test_random_below(&r, IO_SIM_KEEP_COUNT),
                             .fault_at = 1 + test_random_below(&r, 1000),
                             .fault = test_random_below(&r, 2) == 0 ? ERR_IO : ERR_SPACE };
        plan.crash_at[0] = i % 2 == 0 ? 0 : plan.fault_at + test_random_below(&r, 500);
        plan.fails_pumps = i % 3 == 0;
        plan.fault_at = plan.fails_pumps ? 0 : plan.fault_at;
        must_be_right(&plan);
    }
}

/* A producer with the planted bug, whose log fails now and then: some row must be found without a name. */
static void canary_is_caught(void **state)
{
    struct test_random r = test_random_begin("canary_is_caught");
    for (int i = 0; i < 1000; i++) {
        struct plan plan = { .seed = test_random_u64(&r) >> 32,
                             .fails_pumps = true,
                             .canary = INGEST_CANARY_MARK_AT_SEND };
        plan.crash_at[0] = 1 + test_random_below(&r, 1500);
        const char *wrong = run(&plan, NULL, NULL);
        if (wrong == NULL)
            continue;
        printf("# announcement marked at send: caught by run %d (%s): seed=%llu crash_at=%llu\n", i + 1,
               wrong, (unsigned long long)plan.seed, (unsigned long long)plan.crash_at[0]);
        plan.canary = 0;
        must_be_right(&plan); /* it was the bug */
        return;
    }
    fail_msg("announcement marked at send was not caught");
}

int main(int argc, char **argv)
{
    is_full = (argc > 1 && strcmp(argv[1], "--full") == 0) ||
              (getenv("KELPIE_SIM") != NULL && strcmp(getenv("KELPIE_SIM"), "full") == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_peace),   cmocka_unit_test(same_seed_same_trace), cmocka_unit_test(power_goes),
        cmocka_unit_test(calls_fail), cmocka_unit_test(canary_is_caught),
    };
    return cmocka_run_group_tests(tests, make_labels, free_labels);
}
