/* One scrape. From: a worker of scrape.c. To: rows for the sink.
 *
 *   fetch ─→ body ─ text_next ─→ line ─ known? → its series (or: dropped)          ─→ row
 *                                     └ new: target labels, honor_labels, limits, metric_relabel_configs,
 *                                            canonical form → cache ──────────────────┘
 *   then: series that were alive and did not come → stale markers; five rows about the scrape itself
 *
 * Invariants
 * 1. A scrape is stored whole or not at all: an error anywhere (transport, status, syntax, limits) leaves
 *    only up = 0, the rows about the scrape, and stale markers for what was alive.
 * 2. Rows borrow labels from the target's cache, which is trimmed only after they were written.
 * 3. A series gets one stale marker when it goes. Rows with their own timestamps get none (they may come
 *    late by design), unless track_timestamps_staleness says so.
 * 4. What a refused write held of things that are handed on once (exemplars, metadata, stale markers) is handed on
 *    again with the next scrape.
 * Semantics: Prometheus 3, scrape/scrape.go. */
#include "ingest/scrape_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/stat.h"
#include "base/time.h"
#include "ingest/text.h"
#include "io/io.h"
#include "model/sample.h"
#include "shim/number.h"

#define BODY_KEPT_BYTES  (16u << 20) /* a larger body's memory is given back after its scrape */
#define ARRAY_KEPT_BYTES (16u << 20) /* so is that of rows (300,000), exemplars, metadata */
#define ACCEPT                                                                                              \
    "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"                        \
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4," \
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.1"

/* The scrape in work. */
struct run {
    struct scrape_work *work;
    struct target *target;
    const struct scrape_job *job;
    int64_t t_ms;
    int64_t timeout_ms;
    char content_type[256];
    struct err_at at;
    struct slice family; /* of the last # TYPE, in the body */
    enum metric_type family_type;
    struct cache_line *last_line; /* of this scrape; its `next` is the guess */
    uint64_t scraped, kept, added;
};

err scrape_work_open(struct io *io, struct scrape_sink sink, const _Atomic bool *abort, struct pool *pool,
                     struct scrape_work *out_work)
{
    struct scrape_work work = { .io = io, .sink = sink, .abort = abort };
    work.pool = pool_open(pool, "scrape_worker", POOL_BYTES_UNLIMITED);
    err e = net_client_open(io, work.pool, &work.client);
    if (e != OK) {
        pool_close(work.pool);
        return e;
    }
    work.scratch = pool_open(work.pool, "scrape_scratch", POOL_BYTES_UNLIMITED);
    work.body = buf_open(work.pool, 0);
    *out_work = work;
    return OK;
}

void scrape_work_close(struct scrape_work *work)
{
    net_client_close(work->client);
    pool_close(work->scratch);
    pool_close(work->pool);
}

/* ---- fetching ---- */

/* A secret from a file, without the white space around it. */
static err read_secret(struct run *run, const char *path, const char **out_text)
{
    struct slice text;
    err e = io_read_file(run->work->io, path, SCRAPE_SECRET_BYTES_MAX, run->work->scratch, &text);
    if (e != OK)
        return err_set(&run->at, e, "cannot read %.300s: %s", path, err_text(e));
    while (text.len > 0 && text.at[text.len - 1] <= ' ')
        text.len--;
    while (text.len > 0 && text.at[0] <= ' ')
        text = slice_part(text, 1, text.len - 1);
    TRY(pool_copy(run->work->scratch, text, &text));
    if (strpbrk((const char *)text.at, "\r\n") != NULL)
        return err_set(&run->at, ERR_INPUT, "%.300s has more than one line", path);
    *out_text = (const char *)text.at;
    return OK;
}

static err set_credentials(struct run *run, struct net_client_request *request)
{
    const struct scrape_job *job = run->job;
    request->user = job->user;
    request->password = job->password;
    if (job->password_file != NULL)
        TRY(read_secret(run, job->password_file, &request->password));
    if (job->auth_type == NULL)
        return OK;
    const char *secret = job->credentials != NULL ? job->credentials : "";
    if (job->credentials_file != NULL)
        TRY(read_secret(run, job->credentials_file, &secret));
    struct buf value = buf_open(run->work->scratch, 2 * SCRAPE_SECRET_BYTES_MAX);
    buf_put_str(&value, job->auth_type);
    buf_put_u8(&value, ' ');
    buf_put_str(&value, secret);
    buf_put_u8(&value, 0);
    TRY(buf_err(&value));
    request->authorization = (const char *)value.at;
    return OK;
}

static err fetch(struct run *run)
{
    struct scrape_work *w = run->work;
    char timeout_text[80];
    snprintf(timeout_text, sizeof timeout_text, "X-Prometheus-Scrape-Timeout-Seconds: %g",
             (double)run->timeout_ms / 1e3);
    const char *headers[] = { ACCEPT, "User-Agent: Kelpie/" KELPIE_VERSION, timeout_text };
    struct net_client_request request = { .url = (const char *)run->target->url.at,
                                          .headers = headers,
                                          .header_count = 3,
                                          .tls = run->job->tls,
                                          .follow_redirects = run->job->follow_redirects,
                                          .accept_gzip = run->job->enable_compression,
                                          .timeout_ms = run->timeout_ms,
                                          .encoded_bytes_max = run->job->limits.body_bytes,
                                          .abort = w->abort };
    struct net_client_response response;
    TRY(set_credentials(run, &request));
    buf_clear(&w->body);
    w->body.max = run->job->limits.body_bytes;
    TRY(net_client_do(w->client, &request, &w->body, &response, &run->at));
    stat_add(STAT_SCRAPE_BYTES, (int64_t)response.encoded_bytes);
    if (response.status != 200)
        return err_set(&run->at, ERR_IO, "server returned HTTP status %u", response.status);
    memcpy(run->content_type, response.content_type, sizeof run->content_type);
    return OK;
}

/* ---- labels of a new line ---- */

/* Go's strconv 'g' with shortest digits, ".0" added to whole numbers: how Prometheus 3 writes le and
 * quantile, so that "1", "1.0" and "1e0" are one series. */
static err normalise_float(struct pool *pool, struct slice text, struct slice *out_text)
{
    double v, back;
    char digits[40], out[64];
    if (!number_parse(text, false, &v) || v != v || v - v != 0) {
        *out_text = text; /* +Inf, NaN and what is no number stay */
        return OK;
    }
    for (int precision = 0; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, v);
        if (number_parse(slice_str(digits), false, &back) && back == v)
            break;
    }
    int exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    int len;
    if (exponent < -4 || exponent >= 6) {
        len = snprintf(out, sizeof out, "%s", digits);
    } else {
        bool has_point = strchr(digits, '.') != NULL;
        int digit_count = (int)(strchr(digits, 'e') - digits) - (digits[0] == '-') - has_point;
        int decimals = digit_count - 1 - exponent;
        len = snprintf(out, sizeof out, "%.*f", decimals > 0 ? decimals : 1, v);
    }
    return pool_copy(pool, slice_of(out, (size_t)len), out_text);
}

/* Is the sample of this name part of the family that # TYPE named? */
static bool is_of_family(const struct run *run, struct slice name, const char *suffix)
{
    struct slice family = run->family;
    return name.len == family.len + strlen(suffix) && slice_starts(name, family) &&
           slice_equal_str(slice_part(name, family.len, name.len - family.len), suffix);
}

static err normalise_labels(struct run *run, struct label_set *set)
{
    struct slice name = label_set_get(set, slice_str("__name__"));
    const char *label = NULL;
    if (run->family_type == METRIC_HISTOGRAM && is_of_family(run, name, "_bucket"))
        label = "le";
    else if (run->family_type == METRIC_SUMMARY && is_of_family(run, name, ""))
        label = "quantile";
    if (label == NULL)
        return OK;
    struct slice value = label_set_get(set, slice_str(label));
    if (value.len > 0)
        TRY(normalise_float(set->pool, value, &value));
    return label_set_put_str(set, label, value);
}

/* Add the target's labels; what clashes is renamed to exported_…, or kept with honor_labels. */
static err add_target_labels(struct run *run, const struct text_item *item, struct label_set *set)
{
    const struct target *t = run->target;
    struct slice moved_names[LABEL_SET_COUNT_MAX], moved_values[LABEL_SET_COUNT_MAX];
    size_t moved_count = 0;
    for (size_t i = 0; i < t->label_count; i++) {
        struct label label = t->label_list[i];
        struct slice old = label_set_get(set, label.name);
        bool is_there = old.len > 0;
        for (size_t n = 0; n < item->label_count && run->job->honor_labels && !is_there; n++)
            is_there = slice_equal(item->labels[n].name, label.name); /* an empty value counts here */
        if (run->job->honor_labels && is_there)
            continue;
        if (old.len > 0) {
            moved_names[moved_count] = label.name;
            moved_values[moved_count++] = old;
        }
        TRY(label_set_put(set, label.name, label.value));
    }
    for (size_t i = 0; i < moved_count; i++) {
        struct buf name = buf_open(set->pool, LABELS_BYTES_MAX);
        struct slice text = moved_names[i];
        do {
            buf_clear(&name);
            buf_put_str(&name, "exported_");
            buf_put_slice(&name, text);
            TRY(buf_err(&name));
            TRY(pool_copy(set->pool, buf_slice(&name), &text));
        } while (label_set_get(set, text).len > 0);
        buf_close(&name);
        TRY(label_set_put(set, text, moved_values[i]));
    }
    return OK;
}

static err check_limits(struct run *run, const struct label_set *set)
{
    const struct scrape_limits *limits = &run->job->limits;
    if (limits->labels > 0 && set->count > limits->labels)
        return err_set(&run->at, ERR_LIMIT, "label_limit exceeded: %zu labels, limit %" PRIu64, set->count,
                       limits->labels);
    for (size_t i = 0; i < set->count; i++) {
        const struct label *label = &set->labels[i];
        if (limits->name_bytes > 0 && label->name.len > limits->name_bytes)
            return err_set(&run->at, ERR_LIMIT, "label_name_length_limit exceeded by %.*s",
                           SLICE_SHORT_ARG(label->name));
        if (limits->value_bytes > 0 && label->value.len > limits->value_bytes)
            return err_set(&run->at, ERR_LIMIT, "label_value_length_limit exceeded by a value of %.*s",
                           SLICE_SHORT_ARG(label->name));
    }
    return OK;
}

/* A text that is not in the cache: make its series and put both there. */
static err add_line(struct run *run, const struct text_item *item, struct cache_line **out_line)
{
    struct label_set set = { .pool = run->work->scratch };
    struct buf labels = buf_open(run->work->scratch, LABELS_BYTES_MAX);
    struct slice bytes;
    bool keep, is_new;
    err e = OK;
    for (size_t i = 0; i < item->label_count; i++)
        TRY_OUT(label_set_put(&set, item->labels[i].name, item->labels[i].value));
    TRY_OUT(normalise_labels(run, &set));
    TRY_OUT(add_target_labels(run, item, &set));
    TRY_OUT(relabel_apply(&run->job->metric_rules, &set, &keep));
    if (keep) {
        if (label_set_get(&set, slice_str("__name__")).len == 0)
            TRY_OUT(err_set(&run->at, ERR_INPUT, "missing metric name (__name__ label)"));
        TRY_OUT(check_limits(run, &set));
        TRY_OUT(labels_encode(set.labels, set.count, &labels, &run->at));
        bytes = buf_slice(&labels);
    }
    TRY_OUT(scrape_cache_add(&run->target->cache, item->series, keep ? &bytes : NULL, out_line, &is_new));
    run->added += is_new;
out:
    buf_close(&labels);
    pool_block_free(run->work->scratch, set.labels);
    return e;
}

/* ---- rows ---- */

static err add_row(struct scrape_work *w, struct slice labels, int64_t t_ms, uint64_t bits)
{
    TRY(pool_block_reserve(w->pool, (void **)&w->rows, sizeof *w->rows, w->row_count + 1, &w->row_capacity));
    w->rows[w->row_count++] = (struct ingest_row){ .labels = labels, .t_ms = t_ms, .value_bits = bits };
    return OK;
}

static err add_exemplar(struct run *run, const struct text_item *item, struct cache_series *series)
{
    struct scrape_work *w = run->work;
    struct buf labels = buf_open(w->scratch, LABELS_BYTES_MAX);
    struct ingest_row_exemplar exemplar = { .row = (uint32_t)(w->row_count - 1),
                                            .value = item->exemplar_value,
                                            .t_ms =
                                                item->exemplar_has_time ? item->exemplar_t_ms : run->t_ms };
    err e = OK;
    TRY_OUT(labels_encode(item->exemplar_labels, item->exemplar_label_count, &labels, &run->at));
    TRY_OUT(pool_copy(w->scratch, buf_slice(&labels), &exemplar.labels));
    uint64_t time_bits = item->exemplar_has_time ? (uint64_t)exemplar.t_ms : 0;
    uint64_t hash = hash64(exemplar.labels, double_bits(exemplar.value) ^ time_bits);
    if (hash == series->exemplar_hash)
        goto out; /* targets repeat the last one until there is another */
    TRY_OUT(pool_block_reserve(w->pool, (void **)&w->exemplars, sizeof *w->exemplars, w->exemplar_count + 1,
                               &w->exemplar_capacity));
    w->exemplars[w->exemplar_count++] = exemplar;
    series->exemplar_hash = hash;
out:
    buf_close(&labels);
    return e;
}

static err on_sample(struct run *run, const struct text_item *item)
{
    struct scrape_cache *cache = &run->target->cache;
    run->scraped++;
    struct cache_line *guess = run->last_line != NULL ? run->last_line->next : NULL;
    struct cache_line *line = item->label_count == 0 ? guess : scrape_cache_line(cache, item->series, guess);
    if (line == NULL)
        TRY(add_line(run, item, &line));
    if (run->last_line != NULL && line != guess)
        run->last_line->next = line;
    run->last_line = line;
    line->seen = cache->scrape;
    if (line->series == NULL)
        return OK;
    line->series->seen = cache->scrape; /* with its line, whatever becomes of the sample */
    run->kept++;
    if (run->job->limits.samples > 0 && run->kept > run->job->limits.samples)
        return OK; /* counted to the end, so that the rows about the scrape tell how many there were */
    bool has_own_time = item->has_time && run->job->honor_timestamps;
    line->series->is_tracked = !has_own_time || run->job->track_timestamps_staleness;
    TRY(add_row(run->work, line->series->key, has_own_time ? item->t_ms : run->t_ms,
                double_bits(item->value)));
    return item->has_exemplar ? add_exemplar(run, item, line->series) : OK;
}

/* HELP, TYPE and UNIT come apart; one entry collects a family's. Known again → nothing to hand on. */
static err on_metadata(struct run *run, const struct text_item *item)
{
    struct scrape_work *w = run->work;
    if (item->type == TEXT_TYPE) {
        TRY(pool_copy(w->scratch, item->family, &run->family));
        run->family_type = item->metric_type;
    }
    struct batch_metadata *last = w->metadata_count > 0 ? &w->metadata[w->metadata_count - 1] : NULL;
    if (last == NULL || !slice_equal(last->family, item->family)) {
        TRY(pool_block_reserve(w->pool, (void **)&w->metadata, sizeof *w->metadata, w->metadata_count + 1,
                               &w->metadata_capacity));
        last = &w->metadata[w->metadata_count++];
        *last = (struct batch_metadata){ .type = METRIC_UNKNOWN };
        TRY(pool_copy(w->scratch, item->family, &last->family));
    }
    if (item->type == TEXT_TYPE) {
        last->type = (uint8_t)item->metric_type;
        return OK;
    }
    return pool_copy(w->scratch, item->text, item->type == TEXT_HELP ? &last->help : &last->unit);
}

static uint64_t metadata_hash(const struct batch_metadata *m)
{
    return hash64(m->help, hash64(m->unit, m->type + 1u));
}

/* Keep only the metadata that is new or has changed. */
static err filter_metadata(struct run *run)
{
    struct scrape_work *w = run->work;
    size_t kept = 0;
    for (size_t i = 0; i < w->metadata_count; i++) {
        const struct batch_metadata *m = &w->metadata[i];
        struct cache_family *family;
        TRY(scrape_cache_family(&run->target->cache, m->family, &family));
        if (family->metadata_hash != metadata_hash(m))
            w->metadata[kept++] = *m;
    }
    w->metadata_count = kept;
    return OK;
}

static err parse(struct run *run)
{
    struct scrape_work *w = run->work;
    struct text_parser parser;
    TRY(text_open(&parser, buf_slice(&w->body), text_format_of(slice_str(run->content_type)), w->scratch));
    err e = OK;
    for (;;) {
        struct text_item item;
        const struct cache_line *guess = run->last_line != NULL ? run->last_line->next : NULL;
        parser.expected = guess != NULL ? guess->key : slice_of("", 0);
        e = text_next(&parser, &item, &run->at);
        if (e != OK)
            break;
        TRY_OUT(item.type == TEXT_SAMPLE ? on_sample(run, &item) : on_metadata(run, &item));
    }
    if (e == ERR_END)
        e = OK;
    if (e == OK && run->job->limits.samples > 0 && run->kept > run->job->limits.samples)
        e = err_set(&run->at, ERR_LIMIT, "sample limit exceeded: %" PRIu64 " samples, limit %" PRIu64,
                    run->kept, run->job->limits.samples);
    if (e == OK)
        e = filter_metadata(run);
out:
    text_close(&parser);
    return e;
}

/* Stale markers for what was alive and is not in this scrape (all of it after a failure). */
static err add_stale(struct run *run, bool is_failed)
{
    struct scrape_cache *cache = &run->target->cache;
    for (size_t i = 0; i < cache->series.capacity; i++) {
        struct cache_series *series = cache->series.slots[i];
        if (series == NULL)
            continue;
        bool came = !is_failed && series->seen == cache->scrape;
        if (series->is_live && !came)
            TRY(add_row(run->work, series->key, run->t_ms, SAMPLE_STALE_BITS));
        series->is_live = came && series->is_tracked;
    }
    return OK;
}

/* Metadata was stored: not again. */
static void remember_metadata(struct run *run, const struct ingest_rows *rows)
{
    struct cache_family *family;
    for (size_t i = 0; i < rows->metadata_count; i++)
        if (scrape_cache_family(&run->target->cache, rows->metadata[i].family, &family) == OK)
            family->metadata_hash = metadata_hash(&rows->metadata[i]);
}

static void forget_exemplars(struct run *run, const struct ingest_rows *rows)
{
    for (size_t i = 0; i < rows->exemplar_count; i++) {
        struct slice labels = rows->rows[rows->exemplars[i].row].labels;
        scrape_cache_series(&run->target->cache, labels)->exemplar_hash = 0;
    }
}

/* Rows were refused, or a part of them: what is handed on once is owed again. */
static void take_back(struct run *run, const struct ingest_rows *rows)
{
    forget_exemplars(run, rows);
    for (size_t i = 0; i < rows->row_count && run->target->has_cache; i++) {
        if (rows->rows[i].value_bits != SAMPLE_STALE_BITS)
            continue;
        struct cache_series *series = scrape_cache_series(&run->target->cache, rows->rows[i].labels);
        if (series != NULL) /* a row about the scrape has none */
            series->is_live = true;
    }
}

static void write_rows(struct run *run, struct scrape_outcome *outcome)
{
    struct scrape_work *w = run->work;
    size_t exemplar = 0;
    for (size_t from = 0; from < w->row_count; from += SCRAPE_ROWS_PER_WRITE) {
        size_t left = w->row_count - from;
        size_t count = left < SCRAPE_ROWS_PER_WRITE ? left : SCRAPE_ROWS_PER_WRITE;
        size_t first = exemplar;
        for (; exemplar < w->exemplar_count && w->exemplars[exemplar].row < from + count; exemplar++)
            w->exemplars[exemplar].row -= (uint32_t)from;
        struct ingest_rows rows = { .rows = w->rows + from,
                                    .row_count = count,
                                    .exemplars = first < exemplar ? &w->exemplars[first] : NULL,
                                    .exemplar_count = exemplar - first,
                                    .metadata = w->metadata,
                                    .metadata_count = from == 0 ? w->metadata_count : 0 };
        struct ingest_result result = { 0 };
        w->sink.write(w->sink.context, run->job->tenant, &rows, &result);
        stat_add(STAT_SCRAPE_SAMPLES, (int64_t)result.samples);
        if (result.status / 100 == 2 || result.status == 400) /* 400: what is missing is refused again, too */
            remember_metadata(run, &rows);
        else
            take_back(run, &rows);
        if (result.status / 100 != 2 && outcome->error[0] == 0)
            snprintf(outcome->error, sizeof outcome->error, "storing failed (%d): %.400s", result.status,
                     result.text);
    }
}

static err add_reports(struct run *run, bool is_up, int64_t duration_ns)
{
    double values[REPORT_COUNT] = { [REPORT_UP] = is_up,
                                    [REPORT_DURATION] = (double)duration_ns / 1e9,
                                    [REPORT_SCRAPED] = (double)run->scraped,
                                    [REPORT_KEPT] = (double)run->kept,
                                    [REPORT_ADDED] = (double)run->added };
    for (size_t i = 0; i < REPORT_COUNT; i++)
        TRY(add_row(run->work, run->target->reports[i], run->t_ms, double_bits(values[i])));
    return OK;
}

static void begin(struct scrape_work *w)
{
    pool_reset(w->scratch);
    w->row_count = w->exemplar_count = w->metadata_count = 0;
}

static err open_cache(struct run *run)
{
    struct target *t = run->target;
    uint64_t seed;
    if (t->has_cache)
        return OK;
    io_random(run->work->io, &seed, sizeof seed); /* texts come from outside */
    TRY(scrape_cache_open(t->pool, seed, &t->cache));
    t->has_cache = true;
    return OK;
}

/* An array that one large scrape made. */
static void shrink(struct scrape_work *work, void **array, size_t item_bytes, size_t *capacity)
{
    if (*capacity * item_bytes <= ARRAY_KEPT_BYTES)
        return;
    pool_block_free(work->pool, *array);
    *array = NULL;
    *capacity = 0;
}

void scrape_run(struct scrape_work *work, struct target *target, const struct scrape_job *job,
                int64_t timeout_ms, int64_t t_ms, struct scrape_outcome *out_outcome)
{
    struct run run = { .work = work, .target = target, .job = job, .t_ms = t_ms, .timeout_ms = timeout_ms };
    *out_outcome = (struct scrape_outcome){ .health = SCRAPE_UP };
    int64_t start_ns = io_monotonic_ns(work->io);
    begin(work);
    err e = open_cache(&run);
    if (e == OK) {
        scrape_cache_begin(&target->cache);
        e = fetch(&run);
    }
    if (e == OK)
        e = parse(&run);
    out_outcome->duration_ns = io_monotonic_ns(work->io) - start_ns;
    if (e == ERR_CANCELED) { /* the node stops: nothing is known about the target */
        out_outcome->health = SCRAPE_UNKNOWN;
        return;
    }
    stat_add(STAT_SCRAPES, 1);
    if (e != OK) {
        stat_add(STAT_SCRAPES_FAILED, 1);
        out_outcome->health = SCRAPE_DOWN;
        snprintf(out_outcome->error, sizeof out_outcome->error, "%s",
                 run.at.text[0] != 0 ? run.at.text : err_text(e));
        forget_exemplars(&run, &(struct ingest_rows){ .rows = work->rows,
                                                      .exemplars = work->exemplars,
                                                      .exemplar_count = work->exemplar_count });
        work->row_count = work->exemplar_count = work->metadata_count = 0;
        run.added = 0;
    }
    err stored = target->has_cache ? add_stale(&run, e != OK) : OK;
    if (stored == OK)
        stored = add_reports(&run, e == OK, out_outcome->duration_ns);
    if (stored != OK && out_outcome->error[0] == 0)
        snprintf(out_outcome->error, sizeof out_outcome->error, "%s", err_text(stored));
    write_rows(&run, out_outcome);
    if (target->has_cache)
        ERR_IGNORE(scrape_cache_trim(&target->cache)); /* no memory now: it is tried again */
    if (work->body.capacity > BODY_KEPT_BYTES)
        buf_close(&work->body);
    shrink(work, (void **)&work->rows, sizeof *work->rows, &work->row_capacity);
    shrink(work, (void **)&work->exemplars, sizeof *work->exemplars, &work->exemplar_capacity);
    shrink(work, (void **)&work->metadata, sizeof *work->metadata, &work->metadata_capacity);
}

void scrape_end(struct scrape_work *work, struct target *target, const struct scrape_job *job, int64_t t_ms)
{
    struct run run = { .work = work, .target = target, .job = job, .t_ms = t_ms };
    struct scrape_outcome outcome = { 0 };
    begin(work);
    err e = target->has_cache ? add_stale(&run, true) : OK;
    for (size_t i = 0; i < REPORT_COUNT && e == OK && target->last_scrape_ms != 0; i++)
        e = add_row(work, target->reports[i], t_ms, SAMPLE_STALE_BITS);
    write_rows(&run, &outcome);
}
