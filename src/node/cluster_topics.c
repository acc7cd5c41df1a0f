/* See cluster_topics.h.
 *
 *   topic not there ─ created ─┐
 *   topic there ───────────────┴→ connected ─→ its id: the mark's? ─→ ends ─→ an agent that never joins reads the
 *   control log, appends INIT where it is empty, and says what it found
 *
 * Invariants
 *  1. No topic is deleted, and none that is there is changed.
 *  2. INIT is appended only behind a confirmed end of an empty log: that is the agent's own rule. Of two that are
 *     appended at once the first counts, and both say the same. */
#include "node/cluster_topics.h"

#include "agent/agent.h"
#include "base/time.h"
#include "io/thread.h"
#include "node/cluster_stores.h"

#include <stdio.h>
#include <string.h>

#define LOOK_MS   50
#define FOUND_MS  20000 /* to look for a topic, and to create it */
#define WAIT_MS   60000 /* for a topic to be known, for its ends, for the control log's */
#define LOG_BYTES (32u << 20)

/* ---- topics ---- */

static struct log_kafka_settings log_settings(const struct config_cluster *config,
                                              const struct secrets *secrets, const struct cluster_mark *mark)
{
    struct log_kafka_settings settings = cluster_log_settings(config, secrets);
    settings.partition_count = mark->partition_count;
    settings.bytes_max = LOG_BYTES;
    memcpy(settings.cluster_id, mark->cluster_id, sizeof settings.cluster_id);
    return settings;
}

err cluster_topics_look(const struct config_cluster *config, const struct secrets *secrets, bool is_control,
                        struct io *io, struct pool *pool, struct err_at *at)
{
    struct err_at why = { 0 };
    struct log_kafka_settings settings =
        is_control ? cluster_control_settings(config, secrets) : cluster_log_settings(config, secrets);
    settings.bytes_max = LOG_BYTES;
    err e = log_kafka_is_there(&settings, FOUND_MS, io, pool, &why);
    return e == OK || e == ERR_NOT_FOUND ? e : err_set(at, e, "topic %s: %s", settings.topic, why.text);
}

static err found(const struct cluster_topics *t, const struct log_kafka_settings *settings, struct err_at *at)
{
    const struct config_kafka *k = &t->config->kafka;
    struct err_at why = { 0 };
    err e = log_kafka_found(settings, (uint32_t)k->replicas, k->retention_ms, FOUND_MS, t->io, t->pool, &why);
    return e == OK ? OK : err_set(at, e, "topic %s: %s", settings->topic, why.text);
}

static err await_stage(const struct cluster_topics *t, struct log *log, const char *topic, struct err_at *at)
{
    int64_t end_ns = io_boottime_ns(t->io) + WAIT_MS * NS_PER_MS;
    for (;;) {
        struct err_at why = { 0 };
        enum log_kafka_stage stage = log_kafka_stage(log, &why);
        if (stage == LOG_KAFKA_RUNNING)
            return OK;
        if (stage == LOG_KAFKA_REFUSED)
            return err_set(at, ERR_CONFLICT, "topic %s: %s", topic, why.text);
        if (io_boottime_ns(t->io) >= end_ns)
            return err_set(at, ERR_TIMEOUT, "topic %s: %s", topic, why.text);
        io_sleep_ns(t->io, LOOK_MS * NS_PER_MS);
    }
}

static err connect(const struct cluster_topics *t, const struct log_kafka_settings *settings,
                   struct log **out_log, struct err_at *at)
{
    TRY(found(t, settings, at));
    TRY(log_kafka_connect(settings, t->io, t->pool, out_log, at));
    TRY(log_run_thread(*out_log));
    return await_stage(t, *out_log, settings->topic, at);
}

/* How many partitions of the log have ever had a record. */
static err count_written(struct cluster_topics *t, uint32_t partition_count, struct err_at *at)
{
    int64_t end_ns = io_boottime_ns(t->io) + WAIT_MS * NS_PER_MS;
    for (uint32_t p = 0; p < partition_count;) {
        struct log_watermarks w = log_watermarks(t->log, p);
        if (w.confirmed_ns != INT64_MIN) {
            t->written_count += w.end_offset > 0;
            p++;
            continue;
        }
        if (io_boottime_ns(t->io) >= end_ns)
            return err_set(at, ERR_TIMEOUT, "topic %s: nobody tells the end of partition %u",
                           t->config->kafka.topic, p);
        io_sleep_ns(t->io, LOOK_MS * NS_PER_MS);
    }
    return OK;
}

/* Brokers that give no ids prove nothing. */
static bool is_same(const uint8_t *id, const uint8_t *known)
{
    static const uint8_t none[16];
    return memcmp(id, none, sizeof none) != 0 && memcmp(id, known, sizeof none) == 0;
}

err cluster_topics_open(const struct config_cluster *config, const struct secrets *secrets,
                        const struct cluster_mark *mark, struct io *io, struct pool *pool,
                        struct cluster_topics *out_topics, struct err_at *at)
{
    struct cluster_topics *t = out_topics;
    *t = (struct cluster_topics){ .io = io, .pool = pool, .config = config, .secrets = secrets };
    struct log_kafka_settings control = cluster_control_settings(config, secrets);
    struct log_kafka_settings log = log_settings(config, secrets, mark);
    TRY(connect(t, &log, &t->log, at));
    TRY(count_written(t, mark->partition_count, at));
    TRY(connect(t, &control, &t->control, at));
    log_kafka_topic_id(t->log, t->topic_id);
    log_kafka_topic_id(t->control, t->control_topic_id);
    t->is_log_kept = is_same(t->topic_id, mark->topic_id);
    t->is_control_kept = is_same(t->control_topic_id, mark->control_topic_id);
    return OK;
}

void cluster_topics_close(struct cluster_topics *t)
{
    if (t->log != NULL)
        log_close(t->log);
    if (t->control != NULL)
        log_close(t->control);
    t->log = t->control = NULL;
}

/* ---- the control log ---- */

/* An agent that reads, and never joins. */
struct watcher {
    struct io_mutex lock;
    char ended_why[AGENT_WHY_BYTES_MAX]; /* under lock */
};

static void on_probe(void *context, const struct agent_probe *probe) {}
static void on_open(void *context, uint32_t partition, uint64_t opening) {}
static void on_close(void *context, uint32_t partition) {}
static void on_trouble(void *context, const char *why) {}

static void on_stop(void *context, const char *why, enum core_end end)
{
    struct watcher *watcher = context;
    io_mutex_lock(&watcher->lock);
    snprintf(watcher->ended_why, sizeof watcher->ended_why, "%s", why);
    io_mutex_unlock(&watcher->lock);
}

static struct control_init init_of(const struct cluster_topics *t, const struct cluster_mark *mark)
{
    struct control_init init = cluster_init(t->config, t->io);
    init.partition_count = mark->partition_count;
    init.replica_count = mark->replica_count;
    init.range_bytes_max = mark->range_bytes_max;
    memcpy(init.hash_key, mark->hash_key, sizeof init.hash_key);
    return init;
}

static err open_agent(const struct cluster_topics *t, const struct cluster_mark *mark,
                      struct watcher *watcher, struct agent **out_agent)
{
    struct control_init init = init_of(t, mark);
    struct agent_config config = { .log = t->control,
                                   .calls = { .probe = on_probe,
                                              .open_partition = on_open,
                                              .close_partition = on_close,
                                              .trouble = on_trouble,
                                              .stop = on_stop },
                                   .context = watcher };
    struct core_config *core = &config.core;
    memcpy(core->cluster_id, mark->cluster_id, sizeof core->cluster_id);
    memcpy(core->init_id, mark->cluster_id, sizeof core->init_id);
    core->init = &init;
    core->holds_back = true;
    core->self.name = slice_str(t->config->name);
    core->self.zone = slice_str(t->config->zone);
    core->self.address = slice_str(t->config->address);
    core->self.format_min = core->self.format_max = 1;
    io_random(t->io, core->self.disk_id, sizeof core->self.disk_id);
    io_random(t->io, core->self.process_id, sizeof core->self.process_id);
    return agent_open(&config, t->io, t->pool, out_agent);
}

static err await_beginning(const struct cluster_topics *t, struct agent *agent, struct watcher *watcher,
                           struct agent_view *out_view, struct err_at *at)
{
    int64_t end_ns = io_boottime_ns(t->io) + WAIT_MS * NS_PER_MS;
    const char *topic = t->config->kafka.control_topic;
    for (;;) {
        char why[AGENT_WHY_BYTES_MAX];
        agent_view(agent, out_view);
        io_mutex_lock(&watcher->lock);
        memcpy(why, watcher->ended_why, sizeof why);
        io_mutex_unlock(&watcher->lock);
        if (why[0] != 0 || out_view->has_ended)
            return err_set(at, ERR_CONFLICT, "topic %s: %s; delete the topic if nobody needs it", topic, why);
        if (out_view->has_begun && out_view->known_ns != INT64_MIN)
            return OK;
        if (io_boottime_ns(t->io) >= end_ns)
            return err_set(at, ERR_TIMEOUT, "topic %s: it cannot be read to its end, or takes no records",
                           topic);
        io_sleep_ns(t->io, LOOK_MS * NS_PER_MS);
    }
}

err cluster_topics_begin(struct cluster_topics *t, const struct cluster_mark *mark, uint32_t *out_up_count,
                         struct err_at *at)
{
    struct watcher watcher = { 0 };
    struct agent *agent = NULL;
    struct agent_view view;
    io_mutex_init(&watcher.lock);
    err e = open_agent(t, mark, &watcher, &agent);
    if (e == OK)
        e = agent_run_thread(agent);
    if (e == OK)
        e = await_beginning(t, agent, &watcher, &view, at);
    if (agent != NULL)
        agent_stop(agent);
    log_close(t->control); /* answers what is on its way */
    t->control = NULL;
    if (agent != NULL)
        agent_close(agent);
    io_mutex_done(&watcher.lock);
    if (e != OK)
        return at->text[0] != 0 ? e : err_set(at, e, "the control log cannot be read: %s", err_text(e));
    struct cluster_mark begun = cluster_mark_of(view.cluster_id, &view.init);
    *out_up_count = view.up_count;
    return cluster_mark_check(mark, &begun, "the bucket", at);
}
