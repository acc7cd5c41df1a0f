/* Targets as Prometheus makes them. From: groups of static_configs and discovery files. To: the schedule.
 *
 *   group ─ labels + __address__, defaults from the job ─→ discovered ─ relabel_configs ─→ dropped
 *                                                                       └→ URL, labels without __…
 *
 * Invariants
 * 1. Equal hash = equal tenant, job, labels and URL: such targets are one, whichever group named them, and however
 *    often they are to be scraped.
 * 2. Everything a spec holds is in the pool it was built in; a target copies what it keeps. */
#include "ingest/scrape_target.h"

#include <stdio.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"
#include "model/yaml.h"

#define PARAM_PREFIX "__param_"

static const char *const report_names[REPORT_COUNT] = {
#define REPORT_NAME(id, name) name,
    SCRAPE_REPORTS(REPORT_NAME)
#undef REPORT_NAME
};

static bool starts(struct slice s, const char *prefix) { return slice_starts(s, slice_str(prefix)); }

/* Canonical bytes of the set, or of its visible part. */
static err encode(const struct label_set *set, bool visible_only, struct pool *pool, struct slice *out_labels)
{
    struct label *copy;
    size_t count = 0;
    TRY(pool_alloc(pool, (set->count + 1) * sizeof *copy, (void **)&copy));
    for (size_t i = 0; i < set->count; i++) {
        if (!visible_only || !starts(set->labels[i].name, "__"))
            copy[count++] = set->labels[i];
    }
    struct buf out = buf_open(pool, LABELS_BYTES_MAX);
    err e = labels_encode(copy, count, &out, NULL);
    if (e == OK)
        e = buf_err(&out);
    if (e == OK)
        e = pool_copy(pool, buf_slice(&out), out_labels);
    buf_close(&out);
    return e;
}

static err put_default(struct label_set *set, const char *name, struct slice value)
{
    return label_set_get(set, slice_str(name)).len > 0 ? OK : label_set_put_str(set, name, value);
}

/* As Prometheus prints durations: "15s", "1m30s", "1d". */
static err put_duration(struct label_set *set, const char *name, int64_t ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
        bool only_exact;
    } units[] = {
        { "d", MS_PER_DAY, true },     { "h", MS_PER_HOUR, false }, { "m", MS_PER_MINUTE, false },
        { "s", MS_PER_SECOND, false }, { "ms", 1, false },
    };
    char text[80];
    size_t len = 0;
    struct slice copy;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        int64_t count = ms / units[i].ms;
        if (count == 0 || (units[i].only_exact && ms % units[i].ms != 0))
            continue;
        len += (size_t)snprintf(text + len, sizeof text - len, "%lld%s", (long long)count, units[i].unit);
        ms -= count * units[i].ms;
    }
    TRY(pool_copy(set->pool, slice_of(text, len), &copy));
    return put_default(set, name, copy);
}

/* Group labels, address, and the job's defaults. */
static err fill(const struct scrape_job *job, const struct scrape_group *group, size_t index,
                struct slice file, struct label_set *set)
{
    for (size_t i = 0; i < group->label_count; i++)
        TRY(label_set_put(set, group->labels[i].name, group->labels[i].value));
    TRY(label_set_put_str(set, "__address__", group->targets[index]));
    TRY(label_set_put_str(set, "__meta_filepath", file));
    TRY(put_default(set, "job", job->name));
    TRY(put_duration(set, "__scrape_interval__", job->interval_ms));
    TRY(put_duration(set, "__scrape_timeout__", job->timeout_ms));
    TRY(put_default(set, "__metrics_path__", job->metrics_path));
    TRY(put_default(set, "__scheme__", job->scheme));
    for (size_t i = 0; i < job->param_count; i++) {
        struct buf name = buf_open(set->pool, 4096);
        if (job->params[i].value_count == 0)
            continue;
        buf_put_str(&name, PARAM_PREFIX);
        buf_put_slice(&name, job->params[i].name);
        buf_put_u8(&name, 0);
        TRY(buf_err(&name));
        /* the name stays in the pool */
        TRY(put_default(set, (const char *)name.at, job->params[i].values[0]));
    }
    return OK;
}

static void put_escaped(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.at[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c != 0 && strchr("-_.~", c) != NULL);
        if (plain)
            buf_put_u8(out, c);
        else
            buf_printf(out, "%%%02X", c);
    }
}

static void put_pair(struct buf *out, bool *is_first, struct slice name, struct slice value)
{
    buf_put_u8(out, *is_first ? '?' : '&');
    *is_first = false;
    put_escaped(out, name);
    buf_put_u8(out, '=');
    put_escaped(out, value);
}

/* scheme://address/path?params; a __param_x label replaces the first value of x. */
static err make_url(const struct scrape_job *job, const struct label_set *set, struct pool *pool,
                    struct slice *out_url)
{
    struct buf url = buf_open(pool, NET_CLIENT_URL_BYTES_MAX);
    struct slice path = label_set_get(set, slice_str("__metrics_path__"));
    bool is_first = true;
    buf_put_slice(&url, label_set_get(set, slice_str("__scheme__")));
    buf_put_str(&url, "://");
    buf_put_slice(&url, label_set_get(set, slice_str("__address__")));
    if (path.len == 0 || path.at[0] != '/')
        buf_put_u8(&url, '/');
    for (size_t i = 0; i < path.len; i++) {
        if (path.at[i] <= ' ' || path.at[i] == '%' || path.at[i] > '~')
            buf_printf(&url, "%%%02X", path.at[i]);
        else
            buf_put_u8(&url, path.at[i]);
    }
    for (size_t i = 0; i < set->count; i++) {
        struct slice name = set->labels[i].name;
        if (starts(name, PARAM_PREFIX))
            put_pair(&url, &is_first,
                     slice_part(name, sizeof PARAM_PREFIX - 1, name.len - sizeof PARAM_PREFIX + 1),
                     set->labels[i].value);
    }
    for (size_t i = 0; i < job->param_count; i++) {
        for (size_t v = 1; v < job->params[i].value_count; v++)
            put_pair(&url, &is_first, job->params[i].name, job->params[i].values[v]);
    }
    err e = buf_err(&url);
    if (e == OK)
        e = pool_copy(pool, buf_slice(&url), out_url);
    buf_close(&url);
    return e;
}

/* Why the relabelled set cannot be scraped, or NULL. */
static const char *find_trouble(const struct label_set *set, struct target_spec *spec)
{
    struct slice scheme = label_set_get(set, slice_str("__scheme__"));
    struct slice address = label_set_get(set, slice_str("__address__"));
    if (address.len == 0)
        return "no address";
    if (memchr(address.at, '/', address.len) != NULL || memchr(address.at, '@', address.len) != NULL)
        return "the address is not a host and port";
    if (!slice_equal_str(scheme, "http") && !slice_equal_str(scheme, "https"))
        return "the scheme is neither http nor https";
    if (!yaml_duration_parse(label_set_get(set, slice_str("__scrape_interval__")), &spec->interval_ms) ||
        spec->interval_ms <= 0)
        return "__scrape_interval__ is not a duration above 0";
    if (!yaml_duration_parse(label_set_get(set, slice_str("__scrape_timeout__")), &spec->timeout_ms) ||
        spec->timeout_ms <= 0 || spec->timeout_ms > spec->interval_ms)
        return "__scrape_timeout__ is not a duration up to the interval";
    for (size_t i = 0; i < set->count; i++) {
        if (!utf8_valid(set->labels[i].name) || !utf8_valid(set->labels[i].value))
            return "a label is not UTF-8";
    }
    return NULL;
}

err target_build(const struct scrape_job *job, const struct scrape_group *group, size_t index,
                 struct slice file, struct pool *pool, struct target_spec *out_spec)
{
    struct target_spec spec = { 0 };
    struct label_set set = { .pool = pool };
    struct slice all;
    bool keep;
    err e = OK;
    TRY_OUT(fill(job, group, index, file, &set));
    e = encode(&set, false, pool, &spec.discovered);
    if (e == ERR_INPUT) {
        spec.trouble = "a label is not valid";
        spec.is_dropped = true;
        e = OK;
        *out_spec = spec;
        goto out;
    }
    TRY_OUT(e);
    TRY_OUT(relabel_apply(&job->target_rules, &set, &keep));
    spec.trouble = keep ? find_trouble(&set, &spec) : NULL;
    spec.is_dropped = !keep || spec.trouble != NULL;
    if (!spec.is_dropped) {
        TRY_OUT(put_default(&set, "instance", label_set_get(&set, slice_str("__address__"))));
        TRY_OUT(make_url(job, &set, pool, &spec.url));
        label_set_remove(&set, slice_str("__scrape_interval__")); /* these may change in place */
        label_set_remove(&set, slice_str("__scrape_timeout__"));
        TRY_OUT(encode(&set, false, pool, &all));
        TRY_OUT(encode(&set, true, pool, &spec.labels));
        spec.hash = hash64(spec.url, hash64(all, hash64(job->name, hash64(job->tenant, 0))));
    }
    *out_spec = spec;
out:
    pool_block_free(pool, set.labels);
    return e;
}

err labels_list(struct slice labels, struct pool *pool, struct label **out_list, size_t *out_count)
{
    struct reader r = reader_of(labels);
    size_t count = labels_count(labels);
    TRY(pool_alloc(pool, (count + 1) * sizeof **out_list, (void **)out_list));
    for (size_t i = 0; i < count; i++) {
        bool more = labels_next(&r, &(*out_list)[i]);
        check(more);
    }
    *out_count = count;
    return OK;
}

static err make_reports(struct target *t)
{
    struct label *labels;
    TRY(pool_alloc(t->pool, (t->label_count + 1) * sizeof *labels, (void **)&labels));
    for (size_t i = 0; i < REPORT_COUNT; i++) {
        struct buf out = buf_open(t->pool, LABELS_BYTES_MAX);
        labels[0] = (struct label){ slice_str("__name__"), slice_str(report_names[i]) };
        memcpy(labels + 1, t->label_list, t->label_count * sizeof *labels);
        err e = labels_encode(labels, t->label_count + 1, &out, NULL);
        if (e == OK)
            e = pool_copy(t->pool, buf_slice(&out), &t->reports[i]);
        buf_close(&out);
        if (e != OK)
            return ERR_LIMIT; /* labels that just fit do not with a name */
    }
    return OK;
}

err target_open(const struct target_spec *spec, const struct scrape_job *job, struct pool *pool,
                struct target **out_target)
{
    struct pool *own = pool_open(pool, "scrape_target", POOL_BYTES_UNLIMITED);
    struct target *t;
    err e = OK;
    TRY_OUT(pool_zalloc(own, sizeof *t, (void **)&t));
    t->pool = own;
    t->hash = spec->hash;
    t->interval_ms = spec->interval_ms;
    t->timeout_ms = spec->timeout_ms;
    t->heap_index = SIZE_MAX;
    t->is_new = true;
    TRY_OUT(pool_copy(own, spec->labels, &t->labels));
    TRY_OUT(pool_copy(own, spec->url, &t->url));
    TRY_OUT(labels_list(t->labels, own, &t->label_list, &t->label_count));
    TRY_OUT(make_reports(t));
    t->job = job;
    t->config = scrape_config_hold(job->config);
    *out_target = t;
out:
    if (e != OK)
        pool_close(own);
    return e;
}

void target_close(struct target *t)
{
    if (t->has_cache)
        scrape_cache_close(&t->cache);
    scrape_config_release(t->config);
    pool_close(t->pool);
}
