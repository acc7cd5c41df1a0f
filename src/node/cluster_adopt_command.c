/* kelpie cluster adopt: what a single node had stored, from a snapshot of it, taken into a cluster's bucket, while
 * the cluster runs.
 *
 *   snapshot: NODE, chains ─ how much ─→ bucket: ADOPT, where each partition's adoption begins
 *     ─→ each segment, by the cluster's routing ─ put, read back ─→ an entry in each partition's chain
 *     ─→ adopted/ID, no ADOPT
 *
 * Invariants
 *  1. The snapshot is only read. The node that it is of may run.
 *  2. No partition names anything before all of the snapshot is written out and read back.
 *  3. Whoever runs it again goes on; with another snapshot it is refused until the first one is adopted, and one
 *     that was adopted is not adopted again. */
#include "base/time.h"
#include "blob/blob.h"
#include "model/labels.h"
#include "node/cluster_each.h"
#include "node/cluster_plan.h"
#include "node/cluster_stores.h"
#include "node/commands.h"
#include "node/identity.h"
#include "node/loaded.h"
#include "node/options.h"
#include "node/progress.h"
#include "node/snapshot.h"
#include "shard/shard.h"

#include <stdio.h>
#include <string.h>

#define ADOPTED_KEY_BYTES (sizeof "adopted/" + 32)

struct adopt {
    struct node_options options;
    const char *snapshot;
    bool is_dry, has_progress;

    struct io *io, *snapshot_io; /* the working directory's, and the snapshot's */
    struct pool *pool;
    struct loaded *loaded;
    struct blob *from, *to;
    struct shards_config from_config, to_config;
    struct cluster_mark mark;
    bool has_plan; /* an earlier run began */
    struct cluster_plan plan;
    char adopted_key[ADOPTED_KEY_BYTES];
    struct shard_adoption *adoption;
    struct shard_adopt_facts facts;
    _Atomic bool *cancel; /* of what runs */
    struct io_mutex lock; /* the two below */
    struct progress progress;
    uint64_t done_bytes;
    struct err_at at;
};

/* ---- opening ---- */

static err open_bucket(struct adopt *a)
{
    struct err_at why = { 0 };
    TRY(loaded_read(&a->options, a->io, a->pool, &a->loaded, &a->at));
    const struct config_cluster *cluster = &a->loaded->config.cluster;
    if (!cluster->is_given)
        return err_set(&a->at, ERR_INPUT, "%s: the configuration is not that of a node in a cluster",
                       a->options.config_file);
    err e = cluster_bucket_open_bare(cluster, &a->loaded->secrets, a->is_dry, a->io, a->pool, &a->to, &why);
    if (e != OK)
        return err_set(&a->at, e, "bucket %s%s%s: %s", cluster->s3.bucket,
                       cluster->s3.prefix[0] != 0 ? "/" : "", cluster->s3.prefix, why.text);
    e = cluster_mark_find(a->to, a->pool, &a->mark, &a->at);
    if (e == ERR_NOT_FOUND)
        return err_set(&a->at, e, "the bucket has no %s: start the cluster's first node before",
                       CLUSTER_MARK_NAME);
    TRY(e);
    a->to_config = cluster_shards_of(&a->mark, "the bucket", a->io);
    return a->mark.is_unfinished ? err_set(&a->at, ERR_CONFLICT, "the cluster is a copy that is not finished")
                                 : OK;
}

static err open_snapshot(struct adopt *a)
{
    struct slice bytes;
    struct identity identity;
    TRY(snapshot_read_identity(a->io, a->snapshot, a->pool, &bytes, &a->at));
    TRY(identity_decode(bytes.at, &identity, &a->at));
    if (identity.is_member) /* no node makes such a snapshot */
        return err_set(&a->at, ERR_INPUT, "its NODE is that of a node in a cluster");
    err e = io_open(a->snapshot, &a->snapshot_io);
    if (e == OK)
        e = blob_open_dir_as_is("blob", a->snapshot_io, a->pool, &a->from);
    if (e != OK)
        return err_set(&a->at, e, "cannot open %s: %s", a->snapshot, err_text(e));
    a->from_config = shards_config_default(io_memory_bytes(a->io) / 2);
    a->from_config.partition_count = identity.partition_count;
    a->from_config.range_bytes_max = identity.range_bytes_max;
    a->from_config.blob_directory = "the snapshot";
    a->from_config.read_only = true;
    return OK;
}

/* ---- what goes where ---- */

static err route(void *context, struct slice tenant, struct slice labels, struct buf *scratch,
                 uint32_t *out_partition)
{
    const struct adopt *a = context;
    struct series_hasher hasher = series_hasher_of(a->mark.hash_key, tenant);
    uint64_t to;
    TRY(series_route(hasher, series_hash(hasher, labels), labels, scratch, &to));
    *out_partition = jump_hash(to, a->mark.partition_count);
    return OK;
}

static uint32_t route_family(void *context, struct slice tenant, struct slice family)
{
    const struct adopt *a = context;
    return jump_hash(family_route(series_hasher_of(a->mark.hash_key, tenant), family),
                     a->mark.partition_count);
}

static void on_written(void *context, uint64_t bytes)
{
    struct adopt *a = context;
    io_mutex_lock(&a->lock);
    a->done_bytes += bytes;
    progress_tell(&a->progress, a->done_bytes, a->facts.segment_bytes);
    io_mutex_unlock(&a->lock);
}

/* ---- looking ---- */

/* cluster_each, whose flag ends what runs. */
static err for_each(struct adopt *a, uint32_t count,
                    err (*run)(void *context, uint32_t partition, struct err_at *at))
{
    struct cluster_each each = { .run = run, .context = a, .partition_count = count };
    a->cancel = &each.cancel;
    err e = cluster_each(&each, a->io, &a->at);
    a->cancel = NULL;
    return e;
}

static err look_at(void *context, uint32_t partition, struct err_at *at)
{
    struct adopt *a = context;
    uint64_t end;
    TRY(shard_adoption_look(a->adoption, partition, &end, at));
    if (!a->has_plan)
        a->plan.numbers[partition] = end;
    return OK;
}

/* It is adopted, and says so. */
static err finish(struct adopt *a)
{
    err e = blob_put(a->to, a->adopted_key, slice_str("adopted\n"));
    if (e == OK || e == ERR_EXISTS)
        e = blob_delete(a->to, CLUSTER_PLAN_ADOPT);
    return e == OK || e == ERR_NOT_FOUND
               ? OK
               : err_set(&a->at, e,
                         "all is adopted, but the bucket's %s cannot be removed: %s; run this again",
                         CLUSTER_PLAN_ADOPT, err_text(e));
}

/* Has somebody begun to adopt something, and is it this? */
static err find_plan(struct adopt *a)
{
    uint64_t size;
    snprintf(a->adopted_key, sizeof a->adopted_key, "adopted/");
    for (size_t i = 0; i < 16; i++)
        snprintf(a->adopted_key + 8 + 2 * i, 3, "%02x", a->facts.digest[i]);
    err adopted = blob_size(a->to, a->adopted_key, &size);
    if (adopted != OK && adopted != ERR_NOT_FOUND)
        return err_set(&a->at, adopted, "the bucket cannot be read: %s", err_text(adopted));
    err e = cluster_plan_find(a->to, CLUSTER_PLAN_ADOPT, a->pool, &a->plan, &a->at);
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    a->has_plan = e == OK;
    bool is_this = a->has_plan && memcmp(a->plan.of_id, a->facts.digest, sizeof a->plan.of_id) == 0;
    if (adopted == OK && is_this && !a->is_dry) /* killed before its last step */
        TRY(finish(a));
    if (adopted == OK)
        return err_set(&a->at, ERR_EXISTS, "the cluster has adopted this snapshot before");
    if (!a->has_plan)
        return OK;
    bool is_here = memcmp(a->plan.cluster_id, a->mark.cluster_id, sizeof a->plan.cluster_id) == 0 &&
                   a->plan.partition_count == a->mark.partition_count;
    return is_this && is_here
               ? OK
               : err_set(&a->at, ERR_CONFLICT,
                         "the adoption of another snapshot was begun: run it to its end; or, if that snapshot"
                         " is gone, remove the object %s from the bucket",
                         CLUSTER_PLAN_ADOPT);
}

static void print_facts(const struct adopt *a)
{
    char text[TIME_TEXT_BYTES];
    const struct shard_adopt_facts *f = &a->facts;
    printf("%llu rows in %llu segments of %u partitions, %llu bytes, are to go to %u partitions\n",
           (unsigned long long)f->row_count, (unsigned long long)f->segment_count,
           a->from_config.partition_count, (unsigned long long)f->segment_bytes, a->mark.partition_count);
    if (f->data_through_ms != INT64_MIN) {
        time_print(f->data_through_ms, text);
        printf("the snapshot holds what was acknowledged through %s\n", text);
    }
    if (f->unresolved_rows > 0)
        printf("LOSS %llu rows whose labels never came stay behind\n",
               (unsigned long long)f->unresolved_rows);
    if (f->loss_count > 0)
        printf("LOSS %llu losses that nobody accepted go along: answers about their times will say that they"
               " are not complete\n",
               (unsigned long long)f->loss_count);
}

/* ---- the steps ---- */

static err settle_plan(struct adopt *a)
{
    memcpy(a->plan.cluster_id, a->mark.cluster_id, sizeof a->plan.cluster_id);
    memcpy(a->plan.of_id, a->facts.digest, sizeof a->plan.of_id);
    a->plan.partition_count = a->mark.partition_count;
    a->plan.t_ms = io_now_ms(a->io);
    TRY(cluster_plan_settle(a->to, CLUSTER_PLAN_ADOPT, a->pool, &a->plan, &a->at));
    return memcmp(a->plan.of_id, a->facts.digest, sizeof a->plan.of_id) == 0
               ? OK
               : err_set(&a->at, ERR_BUSY, "somebody else begins to adopt another snapshot");
}

static void begin(struct adopt *a)
{
    for (uint32_t i = 0; i < a->plan.partition_count; i++)
        shard_adoption_begin(a->adoption, i, a->plan.numbers[i]);
}

static err write_partition(void *context, uint32_t partition, struct err_at *at)
{
    struct adopt *a = context;
    char temp[64];
    snprintf(temp, sizeof temp, "kelpie-adopt-%u.tmp", partition);
    return shard_adoption_write(a->adoption, partition, temp, at);
}

static err name_partition(void *context, uint32_t partition, struct err_at *at)
{
    struct adopt *a = context;
    return shard_adoption_name(a->adoption, partition, at);
}

static bool is_canceled_by(void *context)
{
    const struct adopt *a = context;
    return a->cancel != NULL && atomic_load(a->cancel);
}

static err adopt_all(struct adopt *a)
{
    TRY(open_bucket(a));
    TRY(open_snapshot(a));
    const struct shard_adopt door = { .from_config = &a->from_config,
                                      .to_config = &a->to_config,
                                      .io = a->io,
                                      .pool = a->pool,
                                      .from = a->from,
                                      .to = a->to,
                                      .route = route,
                                      .route_family = route_family,
                                      .is_canceled = is_canceled_by,
                                      .written = on_written,
                                      .context = a };
    TRY(shard_adoption_open(&door, &a->adoption, &a->facts, &a->at));
    print_facts(a);
    TRY(find_plan(a));
    if (a->has_plan)
        printf("its adoption was begun before, and is gone on with\n");
    TRY(for_each(a, a->mark.partition_count, look_at));
    if (a->is_dry)
        return OK;
    if (!a->has_plan)
        TRY(settle_plan(a));
    begin(a);
    TRY(for_each(a, a->from_config.partition_count, write_partition));
    TRY(for_each(a, a->mark.partition_count, name_partition));
    return finish(a);
}

static int run(struct adopt *a)
{
    err e = io_open(".", &a->io);
    if (e != OK) {
        fprintf(stderr, "kelpie cluster adopt: cannot open the working directory: %s\n", err_text(e));
        return 1;
    }
    a->pool = pool_open(NULL, "adopt", POOL_BYTES_UNLIMITED);
    a->progress = progress_open("cluster adopt", a->io, a->has_progress);
    io_mutex_init(&a->lock);
    e = adopt_all(a);
    shard_adoption_close(a->adoption);
    if (a->from != NULL)
        blob_close(a->from);
    if (a->to != NULL)
        blob_close(a->to);
    if (a->snapshot_io != NULL)
        io_close(a->snapshot_io);
    loaded_free(a->loaded);
    io_mutex_done(&a->lock);
    pool_close(a->pool);
    io_close(a->io);
    if (e != OK)
        fprintf(stderr, "kelpie cluster adopt: %s\n", a->at.text[0] != 0 ? a->at.text : err_text(e));
    else if (!a->is_dry)
        printf("adopted: within half a minute the cluster's answers have it\n");
    return e == OK ? 0 : 1;
}

int command_cluster_adopt(int argc, char **argv)
{
    struct adopt a = { 0 };
    const struct option list[] = {
        { "--config", "FILE", "configuration of a node of the cluster (YAML)", &a.options.config_file, NULL },
        { "--dry-run", NULL, "say how much would be adopted; change nothing", NULL, &a.is_dry },
        PROGRESS_OPTION(&a.has_progress),
    };
    const struct command self = {
        .name = "cluster adopt",
        .operands = "SNAPSHOT",
        .options = list,
        .option_count = sizeof list / sizeof list[0],
        .operands_max = 1,
        .summary =
            "Take what a single node has stored into a cluster, from a directory that kelpie snapshot "
            "made, while\n"
            "both run. Where both have a sample of one series and time, the cluster's wins. Everything "
            "is read back\n"
            "before any of it is named; then it is there, partition by partition. Segments pass through "
            "files in the\n"
            "working directory. If it ends midway, run it again with the same snapshot: it goes on. "
            "Exit status 1\n"
            "if it failed.",
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    a.snapshot = operands[0];
    if (a.options.config_file == NULL || a.snapshot == NULL) {
        fprintf(stderr, "kelpie cluster adopt: %s is missing; see kelpie cluster adopt --help\n",
                a.options.config_file == NULL ? "--config" : "SNAPSHOT");
        return 2;
    }
    return run(&a);
}
