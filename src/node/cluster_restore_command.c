/* kelpie cluster restore: a cluster whose topics are gone begins again from its bucket, as itself.
 *
 *   CLUSTER, chains ─ who, how far ─→ topics (created where they are gone)
 *     ─→ RESTORE, which generation is to begin ─→ each chain: GENERATION at offset 0, with what is lost
 *     ─→ INIT ─→ CLUSTER with the topics' ids ─→ no RESTORE
 *
 * Invariants
 *  1. Until CLUSTER names the new topics no node begins: they refuse topics that it does not know.
 *  2. Every step is repeated by the next run if this one dies, and changes nothing that was done. RESTORE says for
 *     which topic it is: one that lies behind a restore that has ended is of no use, and removed.
 *  3. A topic that CLUSTER knows is gone on with: what it holds is not lost. No other that holds records is. */
#include "base/time.h"
#include "blob/blob.h"
#include "node/cluster_each.h"
#include "node/cluster_plan.h"
#include "node/cluster_stores.h"
#include "node/cluster_topics.h"
#include "node/commands.h"
#include "node/loaded.h"
#include "node/options.h"
#include "node/progress.h"
#include "shard/shard.h"

#include <stdio.h>
#include <string.h>

#define QUIET_MS (15 * MS_PER_MINUTE) /* nobody has appended to a chain for so long: no node writes */

struct restore {
    struct node_options options;
    bool is_dry, is_stopped, accepts_loss, has_progress;

    struct io *io;
    struct pool *pool;
    struct loaded *loaded;
    struct blob *bucket;
    struct shards_config config;
    struct cluster_mark mark;
    struct cluster_plan plan;
    bool has_plan; /* an earlier run began this restore */
    struct cluster_topics topics;
    struct shard_facts facts[CLUSTER_PARTITIONS_MAX];
    struct io_mutex lock; /* of the next two */
    struct progress progress;
    uint32_t done_count;
    struct err_at at;
};

/* ---- what is there ---- */

static err open_all(struct restore *r)
{
    TRY(loaded_read(&r->options, r->io, r->pool, &r->loaded, &r->at));
    const struct config_cluster *c = &r->loaded->config.cluster;
    if (!c->is_given)
        return err_set(&r->at, ERR_INPUT, "the configuration is not that of a node in a cluster");
    struct err_at why = { 0 };
    err e = cluster_bucket_open_bare(c, &r->loaded->secrets, r->is_dry, r->io, r->pool, &r->bucket, &why);
    if (e != OK)
        return err_set(&r->at, e, "bucket %s: %s", c->s3.bucket, why.text);
    e = cluster_mark_find(r->bucket, r->pool, &r->mark, &r->at);
    if (e == ERR_NOT_FOUND)
        return err_set(&r->at, e,
                       "the bucket has no %s: it is no cluster's, it is another prefix, or it was emptied",
                       CLUSTER_MARK_NAME);
    TRY(e);
    if (r->mark.is_unfinished)
        return err_set(&r->at, ERR_CONFLICT,
                       "kelpie cluster clone has not ended in this bucket: run that again");
    r->config = cluster_shards_of(&r->mark, "bucket", r->io);
    return OK;
}

/* Of a restore that has ended already only the object was left. */
static err find_plan(struct restore *r)
{
    err e = cluster_plan_find(r->bucket, CLUSTER_PLAN_RESTORE, r->pool, &r->plan, &r->at);
    if (e == ERR_NOT_FOUND)
        return OK;
    TRY(e);
    r->has_plan = memcmp(r->plan.of_id, r->mark.topic_id, sizeof r->plan.of_id) == 0 &&
                  memcmp(r->plan.cluster_id, r->mark.cluster_id, sizeof r->plan.cluster_id) == 0 &&
                  r->plan.partition_count == r->mark.partition_count;
    if (r->has_plan || r->is_dry)
        return OK;
    e = blob_delete(r->bucket, CLUSTER_PLAN_RESTORE);
    return e == OK || e == ERR_NOT_FOUND ? OK
                                         : err_set(&r->at, e, "the bucket's %s cannot be removed: %s",
                                                   CLUSTER_PLAN_RESTORE, err_text(e));
}

static void print_line(void *context, bool is_damage, const char *text)
{
    printf("%s%s\n", is_damage ? "DAMAGE " : "", text);
}

static void tell_done(struct restore *r)
{
    io_mutex_lock(&r->lock);
    progress_tell(&r->progress, ++r->done_count, r->mark.partition_count);
    io_mutex_unlock(&r->lock);
}

static err look_at(void *context, uint32_t partition, struct err_at *at)
{
    static const struct shard_report report = { .line = print_line };
    struct restore *r = context;
    TRY(shard_facts(&r->config, r->io, r->bucket, r->pool, partition, &report, &r->facts[partition], at));
    tell_done(r);
    return OK;
}

static err for_each(struct restore *r, err (*run)(void *context, uint32_t partition, struct err_at *at))
{
    struct cluster_each each = { .run = run, .context = r, .partition_count = r->mark.partition_count };
    r->done_count = 0;
    return cluster_each(&each, r->io, &r->at);
}

/* ---- may it begin? ---- */

static err check_quiet(struct restore *r)
{
    char text[TIME_TEXT_BYTES];
    int64_t newest_ms = 0;
    if (r->has_plan || r->is_stopped)
        return OK;
    for (uint32_t i = 0; i < r->mark.partition_count; i++)
        newest_ms = r->facts[i].newest_ms > newest_ms ? r->facts[i].newest_ms : newest_ms;
    if (newest_ms < io_now_ms(r->io) - QUIET_MS)
        return OK;
    time_print(newest_ms, text);
    return err_set(
        &r->at, ERR_BUSY,
        "nodes may still run: the bucket's newest manifest entry is of %s. Stop all of them; if none runs,"
        " say --nodes-are-stopped",
        text);
}

static err look_at_topics(struct restore *r)
{
    const struct config_cluster *c = &r->loaded->config.cluster;
    for (int i = 0; i < 2; i++) {
        err e = cluster_topics_look(c, &r->loaded->secrets, i == 1, r->io, r->pool, &r->at);
        if (e != OK && e != ERR_NOT_FOUND)
            return e;
        printf("topic %s is %s\n", i == 1 ? c->kafka.control_topic : c->kafka.topic,
               e == OK ? "there: whether it is the cluster's is seen when this runs without --dry-run"
                       : "gone, and would be created");
    }
    return OK;
}

static err open_topics(struct restore *r)
{
    const struct config_cluster *c = &r->loaded->config.cluster;
    TRY(cluster_topics_open(c, &r->loaded->secrets, &r->mark, r->io, r->pool, &r->topics, &r->at));
    if (r->topics.is_log_kept && r->topics.is_control_kept)
        return err_set(
            &r->at, ERR_CONFLICT,
            "nothing is to be restored: both topics are there, as the bucket knows them. Start the nodes");
    if (!r->topics.is_log_kept && r->topics.written_count > 0)
        return err_set(
            &r->at, ERR_CONFLICT,
            "topic %s is not the one that the bucket knows, and holds records in %u partitions. Nothing"
            " deletes them but you: delete the topic if nobody needs it, and run this again",
            c->kafka.topic, r->topics.written_count);
    return OK;
}

/* ---- the steps ---- */

static err settle_plan(struct restore *r)
{
    if (r->has_plan || r->topics.is_log_kept)
        return OK;
    r->plan = (struct cluster_plan){ .t_ms = io_now_ms(r->io), .partition_count = r->mark.partition_count };
    memcpy(r->plan.cluster_id, r->mark.cluster_id, sizeof r->plan.cluster_id);
    memcpy(r->plan.of_id, r->mark.topic_id, sizeof r->plan.of_id);
    for (uint32_t i = 0; i < r->mark.partition_count; i++)
        r->plan.numbers[i] = r->facts[i].generation + 1;
    TRY(cluster_plan_settle(r->bucket, CLUSTER_PLAN_RESTORE, r->pool, &r->plan, &r->at));
    return r->plan.partition_count == r->mark.partition_count
               ? OK
               : err_set(&r->at, ERR_CORRUPT, "the bucket's %s is of another cluster", CLUSTER_PLAN_RESTORE);
}

static err revive(void *context, uint32_t partition, struct err_at *at)
{
    struct restore *r = context;
    struct shard_revival wanted = { .generation = r->plan.numbers[partition],
                                    .names_loss = true,
                                    .accepts_loss = r->accepts_loss,
                                    .lost_until_ms = r->plan.t_ms };
    TRY(shard_revive(&r->config, r->io, r->bucket, r->pool, partition, &wanted, at));
    tell_done(r);
    return OK;
}

static err write_mark(struct restore *r)
{
    uint8_t bytes[CLUSTER_MARK_BYTES];
    memcpy(r->mark.control_topic_id, r->topics.control_topic_id, sizeof r->mark.control_topic_id);
    memcpy(r->mark.topic_id, r->topics.topic_id, sizeof r->mark.topic_id);
    cluster_mark_encode(&r->mark, bytes);
    err e = blob_replace(r->bucket, CLUSTER_MARK_NAME, slice_of(bytes, sizeof bytes));
    if (e != OK)
        return err_set(&r->at, e, "the bucket's %s cannot be written: %s", CLUSTER_MARK_NAME, err_text(e));
    e = blob_delete(r->bucket, CLUSTER_PLAN_RESTORE); /* the next restore removes it if this one cannot */
    if (e != OK && e != ERR_NOT_FOUND)
        fprintf(stderr, "kelpie cluster restore: the bucket's %s stays: %s\n", CLUSTER_PLAN_RESTORE,
                err_text(e));
    return OK;
}

/* ---- what is told ---- */

/* Returns how many partitions have damaged entries. */
static uint64_t print_facts(const struct restore *r)
{
    char text[2][TIME_TEXT_BYTES];
    struct cluster_total total = cluster_total_of(r->facts, r->mark.partition_count);
    printf("the bucket has %u partitions: %llu rows in %llu segments, %llu bytes\n", r->mark.partition_count,
           (unsigned long long)total.rows, (unsigned long long)total.segments,
           (unsigned long long)total.bytes);
    if (total.newest_ms != INT64_MIN) {
        time_print(total.oldest_ms, text[0]);
        time_print(total.newest_ms, text[1]);
        printf("they hold what was acknowledged through %s to %s\n", text[0], text[1]);
    }
    if (total.empty > 0)
        printf("%u partitions have never been stored anything of\n", total.empty);
    return total.damages;
}

static void print_partitions(const struct restore *r)
{
    printf("%-10s %-26s %12s %16s\n", "partition", "acknowledged through", "generation", "lost from offset");
    for (uint32_t i = 0; i < r->mark.partition_count; i++) {
        const struct shard_facts *f = &r->facts[i];
        char text[TIME_TEXT_BYTES] = "-";
        if (f->data_through_ms != INT64_MIN)
            time_print(f->data_through_ms, text);
        printf("%-10u %-26s %12llu %16llu\n", i, text, (unsigned long long)f->generation,
               (unsigned long long)f->end_offset);
    }
}

static void print_end(const struct restore *r, uint32_t up_count)
{
    if (r->topics.is_log_kept)
        printf("the log's topic is there: nothing of it is lost\n");
    else
        printf("what the log held behind those ends is lost: %s\n",
               r->accepts_loss ? "that is accepted, and answers do not name it"
                               : "answers name it (--confirm-loss would have accepted it)");
    if (r->topics.is_control_kept)
        printf("the control log is there, with %u members\n", up_count);
    printf("the cluster can be started: each node with its configuration, its directory as it is or empty\n");
}

/* ---- all of it ---- */

static err restore(struct restore *r, uint64_t *out_damages)
{
    uint32_t up_count = 0;
    TRY(open_all(r));
    TRY(find_plan(r));
    TRY(for_each(r, look_at));
    *out_damages = print_facts(r);
    if (r->is_dry)
        print_partitions(r);
    TRY(check_quiet(r));
    if (r->is_dry)
        return look_at_topics(r);
    TRY(open_topics(r));
    TRY(settle_plan(r));
    if (!r->topics.is_log_kept)
        TRY(for_each(r, revive));
    TRY(cluster_topics_begin(&r->topics, &r->mark, &up_count, &r->at));
    TRY(write_mark(r));
    print_partitions(r);
    print_end(r, up_count);
    return OK;
}

static int run(struct restore *r)
{
    uint64_t damages = 0;
    err e = io_open(".", &r->io);
    if (e != OK) {
        fprintf(stderr, "kelpie cluster restore: cannot open the working directory: %s\n", err_text(e));
        return 1;
    }
    r->pool = pool_open(NULL, "restore", POOL_BYTES_UNLIMITED);
    r->progress = progress_open("cluster restore", r->io, r->has_progress);
    r->progress.unit = "partitions";
    io_mutex_init(&r->lock);
    e = restore(r, &damages);
    cluster_topics_close(&r->topics);
    if (r->bucket != NULL)
        blob_close(r->bucket);
    loaded_free(r->loaded);
    io_mutex_done(&r->lock);
    pool_close(r->pool);
    io_close(r->io);
    if (e != OK)
        fprintf(stderr, "kelpie cluster restore: %s\n", r->at.text[0] != 0 ? r->at.text : err_text(e));
    return e == OK && damages == 0 ? 0 : 1;
}

int command_cluster_restore(int argc, char **argv)
{
    struct restore r = { 0 };
    const struct option list[] = {
        { "--config", "FILE", "configuration of a node of the cluster (YAML)", &r.options.config_file, NULL },
        { "--dry-run", NULL, "say what there is and what would be lost; change nothing", NULL, &r.is_dry },
        { "--nodes-are-stopped", NULL, "no node runs, though the bucket was written to a moment ago", NULL,
          &r.is_stopped },
        { "--confirm-loss", NULL, "accept what is lost: answers are complete without it", NULL,
          &r.accepts_loss },
        PROGRESS_OPTION(&r.has_progress),
    };
    const struct command self = {
        .name = "cluster restore",
        .operands = "",
        .options = list,
        .option_count = sizeof list / sizeof list[0],
        .summary = "Let a cluster whose topics are gone begin again from its bucket, as the same cluster: "
                   "creates the\n"
                   "topics anew and begins the control log. Stop all nodes before. What was acknowledged and "
                   "is not in the\n"
                   "bucket is lost, and named. A topic that is still there is gone on with. If it ends "
                   "midway, run it\n"
                   "again. Exit status 1 if it failed, or if an entry in the bucket is damaged, each told.",
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (r.options.config_file == NULL) {
        fprintf(stderr, "kelpie cluster restore: --config is missing; see kelpie cluster restore --help\n");
        return 2;
    }
    return run(&r);
}
