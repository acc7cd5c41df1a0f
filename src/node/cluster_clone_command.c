/* kelpie cluster clone: another cluster of the same partitions, made of a first one's bucket as of a moment, while
 * that goes on.
 *
 *   source: CLUSTER, chains ─ as of when, how much ─→ destination: CLUSTER (new id, unfinished)
 *     ─→ CLONE, up to which entries ─→ each partition: objects, entries, GENERATION
 *     ─→ topics, INIT ─→ CLUSTER, finished ─→ no CLONE
 *
 * Invariants
 *  1. The source is only read.
 *  2. No node begins in the destination before all of it is there: CLUSTER says that it is unfinished.
 *  3. Whoever runs it again copies what lacks, up to the same entries. Nothing that lay in the destination
 *     before is taken for a copy: a chain there without CLUSTER is refused. */
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
#include <stdlib.h>
#include <string.h>

struct clone {
    struct node_options from_options, to_options;
    const char *at_time;
    bool is_dry, has_progress;

    struct io *io;
    struct pool *pool;
    struct loaded *from_loaded, *to_loaded;
    struct blob *from, *to;
    struct shards_config config;
    struct cluster_mark source, mark; /* the copy's */
    bool has_mark, has_plan;          /* an earlier run began this copy */
    struct cluster_plan plan;
    struct cluster_topics topics;
    struct shard_facts facts[CLUSTER_PARTITIONS_MAX];
    _Atomic bool *cancel;
    uint64_t total_bytes;
    struct io_mutex lock; /* all below but at */
    struct progress progress;
    uint64_t done_bytes, copied_bytes;
    uint64_t object_count, copied_count;
    uint32_t done_count;
    struct err_at at;
};

/* ---- opening ---- */

static err load(struct clone *c, const struct node_options *options, struct loaded **out_loaded)
{
    TRY(loaded_read(options, c->io, c->pool, out_loaded, &c->at));
    return (*out_loaded)->config.cluster.is_given
               ? OK
               : err_set(&c->at, ERR_INPUT, "%s: the configuration is not that of a node in a cluster",
                         options->config_file);
}

static err open_bucket(struct clone *c, const struct loaded *loaded, bool is_reader, struct blob **out_bucket)
{
    const struct config_cluster *cluster = &loaded->config.cluster;
    struct err_at why = { 0 };
    err e = cluster_bucket_open_bare(cluster, &loaded->secrets, is_reader, c->io, c->pool, out_bucket, &why);
    return e == OK ? OK
                   : err_set(&c->at, e, "bucket %s%s%s: %s", cluster->s3.bucket,
                             cluster->s3.prefix[0] != 0 ? "/" : "", cluster->s3.prefix, why.text);
}

/* Both configurations, and the source. */
static err open_source(struct clone *c)
{
    TRY(load(c, &c->from_options, &c->from_loaded));
    TRY(load(c, &c->to_options, &c->to_loaded));
    TRY(open_bucket(c, c->from_loaded, true, &c->from));
    err e = cluster_mark_find(c->from, c->pool, &c->source, &c->at);
    if (e == ERR_NOT_FOUND)
        return err_set(&c->at, e,
                       "the source's bucket has no %s: it is no cluster's, or it is another prefix",
                       CLUSTER_MARK_NAME);
    TRY(e);
    if (c->source.is_unfinished)
        return err_set(&c->at, ERR_CONFLICT, "the source is a copy that is not finished");
    c->config = cluster_shards_of(&c->source, "the source", c->io);
    return OK;
}

/* Is what was begun in the destination no copy of this source? */
static bool is_of_another(const struct clone *c)
{
    bool is_like = memcmp(c->mark.hash_key, c->source.hash_key, 16) == 0 &&
                   c->mark.partition_count == c->source.partition_count &&
                   c->mark.range_bytes_max == c->source.range_bytes_max;
    bool is_planned = c->has_mark && memcmp(c->plan.cluster_id, c->mark.cluster_id, 16) == 0 &&
                      memcmp(c->plan.of_id, c->source.cluster_id, 16) == 0 &&
                      c->plan.partition_count == c->source.partition_count;
    return (c->has_mark && !is_like) || (c->has_plan && !is_planned);
}

/* Is the destination empty, or a copy of this source that was begun? */
static err open_copy(struct clone *c)
{
    TRY(open_bucket(c, c->to_loaded, c->is_dry, &c->to));
    err e = cluster_mark_find(c->to, c->pool, &c->mark, &c->at);
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    c->has_mark = e == OK;
    e = cluster_plan_find(c->to, CLUSTER_PLAN_CLONE, c->pool, &c->plan, &c->at);
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    c->has_plan = e == OK;
    if (c->has_mark && !c->mark.is_unfinished && !c->has_plan)
        return err_set(&c->at, ERR_EXISTS, "the destination's bucket is a cluster's already%s",
                       memcmp(c->mark.cluster_id, c->source.cluster_id, 16) == 0 ? ": the source's own" : "");
    return is_of_another(c)
               ? err_set(&c->at, ERR_CONFLICT, "in the destination's bucket is the beginning of another copy")
               : OK;
}

/* ---- looking ---- */

static struct shard_clone door_of(struct clone *c)
{
    return (struct shard_clone){
        .config = &c->config, .io = c->io, .pool = c->pool, .from = c->from, .to = c->to, .cancel = c->cancel
    };
}

static err parse_time(struct clone *c, int64_t *out_ms)
{
    char *end = NULL;
    *out_ms = INT64_MAX;
    if (c->at_time == NULL)
        return OK;
    long long seconds = strtoll(c->at_time, &end, 10);
    if (*c->at_time == 0 || *end != 0 || seconds < 0 || seconds > TIME_MS_MAX / MS_PER_SECOND)
        return err_set(&c->at, ERR_INPUT,
                       "--at-time takes Unix seconds, as date -d '1 hour ago' +%%s prints them");
    *out_ms = seconds * MS_PER_SECOND;
    return OK;
}

static err look_at(void *context, uint32_t partition, struct err_at *at)
{
    struct clone *c = context;
    struct shard_clone door = door_of(c);
    return shard_clone_look(&door, partition, c->plan.t_ms, &c->facts[partition], at);
}

static err for_each(struct clone *c, err (*run)(void *context, uint32_t partition, struct err_at *at))
{
    struct cluster_each each = { .run = run, .context = c, .partition_count = c->source.partition_count };
    c->cancel = &each.cancel;
    err e = cluster_each(&each, c->io, &c->at);
    c->cancel = NULL;
    return e;
}

static void print_facts(struct clone *c)
{
    char text[2][TIME_TEXT_BYTES];
    struct cluster_total total = cluster_total_of(c->facts, c->source.partition_count);
    c->total_bytes = total.bytes;
    printf("%u partitions: %llu rows in %llu segments, %llu bytes, beside states and manifest entries\n",
           c->source.partition_count, (unsigned long long)total.rows, (unsigned long long)total.segments,
           (unsigned long long)c->total_bytes);
    if (total.newest_ms == INT64_MIN)
        return;
    time_print(total.oldest_ms, text[0]);
    time_print(total.newest_ms, text[1]);
    printf("the copy holds what was acknowledged through %s to %s, by partition\n", text[0], text[1]);
}

/* ---- the steps ---- */

/* No chain may be there that this copy did not begin. */
static err check_empty(void *context, uint32_t partition, struct err_at *at)
{
    struct clone *c = context;
    struct shard_facts facts;
    TRY(shard_facts(&c->config, c->io, c->to, c->pool, partition, NULL, &facts, at));
    return facts.last_number == 0
               ? OK
               : err_set(at, ERR_EXISTS,
                         "the destination's bucket has entries of partition %u, and no %s: it is"
                         " not empty",
                         partition, CLUSTER_MARK_NAME);
}

static err put_mark(struct clone *c)
{
    uint8_t bytes[CLUSTER_MARK_BYTES];
    if (c->has_mark)
        return OK;
    TRY(for_each(c, check_empty));
    c->mark = c->source;
    io_random(c->io, c->mark.cluster_id, sizeof c->mark.cluster_id);
    memset(c->mark.control_topic_id, 0, sizeof c->mark.control_topic_id);
    memset(c->mark.topic_id, 0, sizeof c->mark.topic_id);
    c->mark.is_unfinished = true;
    cluster_mark_encode(&c->mark, bytes);
    err e = blob_put(c->to, CLUSTER_MARK_NAME, slice_of(bytes, sizeof bytes));
    return e == OK ? OK
                   : err_set(&c->at, e, "the destination's %s cannot be written: %s", CLUSTER_MARK_NAME,
                             e == ERR_EXISTS ? "somebody else begins a cluster there" : err_text(e));
}

static err settle_plan(struct clone *c)
{
    if (c->has_plan)
        return OK;
    memcpy(c->plan.cluster_id, c->mark.cluster_id, sizeof c->plan.cluster_id);
    memcpy(c->plan.of_id, c->source.cluster_id, sizeof c->plan.of_id);
    c->plan.partition_count = c->source.partition_count;
    for (uint32_t i = 0; i < c->source.partition_count; i++)
        c->plan.numbers[i] = c->facts[i].last_number;
    return cluster_plan_settle(c->to, CLUSTER_PLAN_CLONE, c->pool, &c->plan, &c->at);
}

static void on_copied(void *context, uint64_t bytes, bool was_there)
{
    struct clone *c = context;
    io_mutex_lock(&c->lock);
    c->object_count++;
    c->copied_count += !was_there;
    c->copied_bytes += was_there ? 0 : bytes;
    c->done_bytes += bytes;
    progress_tell(&c->progress, c->done_bytes, c->total_bytes);
    io_mutex_unlock(&c->lock);
}

static err copy_partition(void *context, uint32_t partition, struct err_at *at)
{
    struct clone *c = context;
    char temp[64];
    struct shard_clone door = door_of(c);
    snprintf(temp, sizeof temp, "kelpie-clone-%u.tmp", partition);
    door.temp_path = temp;
    door.copied = on_copied;
    door.context = c;
    return shard_clone_partition(&door, partition, c->plan.numbers[partition], at);
}

/* The topics of the new cluster, and its end: nodes may begin. */
static err finish(struct clone *c)
{
    uint8_t bytes[CLUSTER_MARK_BYTES];
    uint32_t up_count;
    struct cluster_mark mark = c->mark;
    const struct config_kafka *k = &c->to_loaded->config.cluster.kafka;
    mark.is_unfinished = false;
    TRY(cluster_topics_open(&c->to_loaded->config.cluster, &c->to_loaded->secrets, &mark, c->io, c->pool,
                            &c->topics, &c->at));
    if (c->topics.written_count > 0)
        return err_set(
            &c->at, ERR_CONFLICT,
            "topic %s holds records in %u partitions: the copy needs topics of its own; everything else is"
            " copied. Name another one, or delete it, and run this again",
            k->topic, c->topics.written_count);
    TRY(cluster_topics_begin(&c->topics, &mark, &up_count, &c->at));
    memcpy(mark.control_topic_id, c->topics.control_topic_id, sizeof mark.control_topic_id);
    memcpy(mark.topic_id, c->topics.topic_id, sizeof mark.topic_id);
    cluster_mark_encode(&mark, bytes);
    err e = blob_replace(c->to, CLUSTER_MARK_NAME, slice_of(bytes, sizeof bytes));
    return e == OK ? OK
                   : err_set(&c->at, e, "the destination's %s cannot be written: %s", CLUSTER_MARK_NAME,
                             err_text(e));
}

static err remove_plan(struct clone *c)
{
    err e = blob_delete(c->to, CLUSTER_PLAN_CLONE);
    return e == OK || e == ERR_NOT_FOUND
               ? OK
               : err_set(&c->at, e, "the copy is whole, but its %s cannot be removed: %s; run this again",
                         CLUSTER_PLAN_CLONE, err_text(e));
}

static err copy(struct clone *c)
{
    TRY(put_mark(c));
    TRY(settle_plan(c));
    TRY(for_each(c, copy_partition));
    TRY(finish(c));
    return remove_plan(c);
}

static err clone_cluster(struct clone *c)
{
    int64_t at_ms;
    TRY(parse_time(c, &at_ms));
    TRY(open_source(c));
    TRY(open_copy(c));
    if (c->has_mark && !c->mark.is_unfinished) /* an earlier run did all but this */
        return c->is_dry ? OK : remove_plan(c);
    if (c->has_plan)
        printf("a copy was begun here, and is gone on with, as of the same entries\n");
    else
        c->plan.t_ms = at_ms;
    TRY(for_each(c, look_at));
    print_facts(c);
    return c->is_dry ? OK : copy(c);
}

static void print_end(const struct clone *c)
{
    char id[33];
    for (int i = 0; i < 16; i++)
        snprintf(id + 2 * (size_t)i, 3, "%02x", c->mark.cluster_id[i]);
    printf("%llu objects are copied and read back, %llu of them now (%llu bytes)\n",
           (unsigned long long)c->object_count, (unsigned long long)c->copied_count,
           (unsigned long long)c->copied_bytes);
    printf("cluster %s can be started: each node with a configuration of the copy and an empty directory\n",
           id);
}

static int run(struct clone *c)
{
    err e = io_open(".", &c->io);
    if (e != OK) {
        fprintf(stderr, "kelpie cluster clone: cannot open the working directory: %s\n", err_text(e));
        return 1;
    }
    c->pool = pool_open(NULL, "clone", POOL_BYTES_UNLIMITED);
    c->progress = progress_open("cluster clone", c->io, c->has_progress);
    io_mutex_init(&c->lock);
    e = clone_cluster(c);
    cluster_topics_close(&c->topics);
    if (c->to != NULL)
        blob_close(c->to);
    if (c->from != NULL)
        blob_close(c->from);
    loaded_free(c->to_loaded);
    loaded_free(c->from_loaded);
    io_mutex_done(&c->lock);
    pool_close(c->pool);
    io_close(c->io);
    if (e != OK)
        fprintf(stderr, "kelpie cluster clone: %s\n", c->at.text[0] != 0 ? c->at.text : err_text(e));
    else if (!c->is_dry)
        print_end(c);
    return e == OK ? 0 : 1;
}

int command_cluster_clone(int argc, char **argv)
{
    struct clone c = { 0 };
    const struct option list[] = {
        { "--config", "FILE", "configuration of a node of the source (YAML)", &c.from_options.config_file,
          NULL },
        { "--to", "FILE", "configuration of a node of the copy: its bucket or prefix, its topics",
          &c.to_options.config_file, NULL },
        { "--at-time", "SECONDS", "as the bucket was then (Unix seconds), at most a day ago; else as it is",
          &c.at_time, NULL },
        { "--dry-run", NULL, "say how much would be copied; change nothing", NULL, &c.is_dry },
        PROGRESS_OPTION(&c.has_progress),
    };
    const struct command self = {
        .name = "cluster clone",
        .operands = "",
        .options = list,
        .option_count = sizeof list / sizeof list[0],
        .summary = "Make another cluster of what a cluster has in its bucket, while that goes on: same "
                   "partitions, same\n"
                   "routing, an identity, a bucket (or prefix) and topics of its own. Every object is read "
                   "back; a damaged\n"
                   "one is refused by its name. Large ones pass through a file in the working directory. If "
                   "it ends\n"
                   "midway, run it again: it goes on. Exit status 1 if it failed.",
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (c.from_options.config_file == NULL || c.to_options.config_file == NULL) {
        fprintf(stderr, "kelpie cluster clone: %s is missing; see kelpie cluster clone --help\n",
                c.from_options.config_file == NULL ? "--config" : "--to");
        return 2;
    }
    return run(&c);
}
