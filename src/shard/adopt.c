/* A node's store taken into a shared one, as the oldest part of it. See shard.h and
 * docs/decisions/0024-adopting-a-single-node.md.
 *
 *   chains of a snapshot ─ fold ─→ live segments, each: which partition has which series?
 *     ─→ a segment of each partition's series ─ put, read back ─→ do all add up to it?
 *   when all are written: each partition's chain ─→ ADOPT, which names its own
 *
 * Segment n of the source, counted through its partitions, each in position order, is at (0, first + n) of every
 * partition that has a row of it.
 *
 * Invariants
 *  1. Nothing is named before all of the source is written out and read back.
 *  2. No row is left behind but what a merge would drop: one older than the source's cut-off, and of several of
 *     one series and time in a segment all but the last. Proved for each segment by SUM.
 *  3. Of equal series and time the later position of the source wins, and the shared store's own over it: its
 *     generations begin at 1.
 *  4. ADOPTs tile generation 0, so that the same call again, after whatever end, appends nothing twice. */
#include "base/check.h"
#include "io/thread.h"
#include "model/labels.h"
#include "shard/object.h"
#include "shard/partition.h"

#include <stdlib.h>

#define TRIES_MAX   100                     /* of an append: commits come every few minutes */
#define CACHE_BYTES ((uint64_t)(64u << 20)) /* blocks of the segment that is read once for each partition */

struct output {
    uint64_t number; /* of the source's segment */
    struct chain_segment facts;
};

/* A partition of `to`. */
struct target {
    uint64_t era;   /* for keys */
    uint64_t first; /* offset in generation 0 where this adoption begins */
    struct output *outputs;
    size_t count, capacity;
};

struct shard_adoption {
    struct shard_adopt adopt;
    struct pool *pool;
    struct segment_cache *cache;
    struct chain *sources;  /* of each partition of `from` */
    uint64_t *source_first; /* number of its first segment */
    uint32_t source_count;
    uint64_t segment_count;
    struct chain_loss *losses; /* positions are filled in when they are named */
    size_t loss_count, loss_capacity;
    struct io_mutex lock; /* of outputs */
    struct target *targets;
};

/* ---- the source ---- */

static err read_source(struct shard_adoption *a, uint32_t partition, struct err_at *at)
{
    const struct chain_reader reader = { .config = a->adopt.from_config,
                                         .io = a->adopt.io,
                                         .blob = a->adopt.from,
                                         .pool = a->pool,
                                         .partition = partition };
    struct chain *chain = &a->sources[partition];
    a->source_count = partition + 1;
    TRY(shard_chain_read_whole(&reader, "snapshot", chain, at));
    a->source_first[partition] = a->segment_count;
    a->segment_count += chain->segment_count;
    return OK;
}

static err add_loss(struct shard_adoption *a, struct chain_loss loss)
{
    TRY(pool_block_reserve(a->pool, (void **)&a->losses, sizeof *a->losses, a->loss_count + 1,
                           &a->loss_capacity));
    a->losses[a->loss_count++] = loss;
    return a->loss_count <= CHAIN_LOSS_COUNT_MAX ? OK : ERR_LIMIT;
}

/* What the source does not have. Nobody knows which partitions here it would have come to. */
static err collect_losses(struct shard_adoption *a, const struct chain *chain)
{
    for (size_t i = 0; i < chain->loss_count; i++)
        if (!chain->losses[i].accepted)
            TRY(add_loss(a, (struct chain_loss){ .kind = chain->losses[i].kind,
                                                 .range = chain->losses[i].range }));
    if (chain->unresolved.count > 0)
        TRY(add_loss(a,
                     (struct chain_loss){ .kind = LOSS_UNRESOLVED, .range = { TIME_MS_MIN, TIME_MS_MAX } }));
    return OK;
}

static void count_source(struct shard_adopt_facts *facts, struct sha256 *names, const struct chain *chain)
{
    struct shard_facts of = shard_facts_of(chain);
    facts->segment_count += of.segment_count;
    facts->segment_bytes += of.segment_bytes;
    facts->row_count += of.row_count;
    facts->unresolved_rows += chain->unresolved.count;
    if (of.data_through_ms > facts->data_through_ms)
        facts->data_through_ms = of.data_through_ms;
    for (size_t i = 0; i < chain->segment_count; i++)
        sha256_add(names, slice_of(chain->segments[i].digest, SHA256_BYTES));
}

static err read_sources(struct shard_adoption *a, struct shard_adopt_facts *out_facts, struct err_at *at)
{
    struct shard_adopt_facts facts = { .data_through_ms = INT64_MIN };
    struct sha256 *names = sha256_open();
    err e = OK;
    for (uint32_t i = 0; i < a->adopt.from_config->partition_count && e == OK; i++) {
        e = read_source(a, i, at);
        if (e == OK)
            e = collect_losses(a, &a->sources[i]);
        if (e == OK)
            count_source(&facts, names, &a->sources[i]);
    }
    sha256_finish(names, facts.digest);
    facts.loss_count = a->loss_count;
    *out_facts = facts;
    return e;
}

err shard_adoption_open(const struct shard_adopt *adopt, struct shard_adoption **out_adoption,
                        struct shard_adopt_facts *out_facts, struct err_at *at)
{
    struct pool *pool = pool_open(adopt->pool, "adopt", POOL_BYTES_UNLIMITED);
    struct shard_adoption *a = NULL;
    uint32_t sources = adopt->from_config->partition_count, targets = adopt->to_config->partition_count;
    err e = OK;
    check(adopt->from_config->read_only && adopt->to_config->is_shared && targets <= UINT16_MAX);
    TRY_OUT(pool_zalloc(pool, sizeof *a, (void **)&a));
    a->adopt = *adopt;
    a->pool = pool;
    io_mutex_init(&a->lock);
    TRY_OUT(pool_zalloc(pool, sources * sizeof *a->sources, (void **)&a->sources));
    TRY_OUT(pool_zalloc(pool, sources * sizeof *a->source_first, (void **)&a->source_first));
    TRY_OUT(pool_zalloc(pool, targets * sizeof *a->targets, (void **)&a->targets));
    TRY_OUT(segment_cache_open(pool, CACHE_BYTES, 1, &a->cache));
    TRY_OUT(read_sources(a, out_facts, at));
    *out_adoption = a;
    return OK;
out:
    if (a != NULL)
        shard_adoption_close(a);
    else
        pool_close(pool);
    return e;
}

void shard_adoption_close(struct shard_adoption *a)
{
    if (a == NULL)
        return;
    for (uint32_t i = 0; i < a->source_count; i++)
        chain_close(&a->sources[i]);
    for (uint32_t i = 0; a->targets != NULL && i < a->adopt.to_config->partition_count; i++)
        pool_block_free(a->pool, a->targets[i].outputs);
    pool_block_free(a->pool, a->losses);
    segment_cache_close(a->cache);
    io_mutex_done(&a->lock);
    pool_close(a->pool);
}

/* ---- where it goes ---- */

static err read_target(struct shard_adoption *a, uint32_t partition, struct pool *pool,
                       struct chain *out_chain, struct err_at *at)
{
    const struct chain_reader reader = { .config = a->adopt.to_config,
                                         .io = a->adopt.io,
                                         .blob = a->adopt.to,
                                         .pool = pool,
                                         .partition = partition };
    return shard_chain_read_whole(&reader, "bucket", out_chain, at);
}

err shard_adoption_look(struct shard_adoption *a, uint32_t partition, uint64_t *out_end, struct err_at *at)
{
    struct pool *scratch = pool_open(a->adopt.pool, "look", POOL_BYTES_UNLIMITED);
    struct target *target = &a->targets[partition];
    struct chain chain;
    err e = read_target(a, partition, scratch, &chain, at);
    if (e == OK) {
        target->era = chain_put_era(&chain);
        target->first = *out_end = chain.adopted_end.offset;
    }
    chain_close(&chain);
    pool_close(scratch);
    return e;
}

void shard_adoption_begin(struct shard_adoption *a, uint32_t partition, uint64_t first)
{
    a->targets[partition].first = first;
}

/* ---- a segment of the source ---- */

/* One that is being written out; its memory goes with it. */
struct cutter {
    struct shard_adoption *a;
    const struct chain *source;
    const struct chain_segment *facts;
    uint64_t number;
    const char *temp_path;
    struct pool *pool;
    char key[SHARD_KEY_BYTES_MAX]; /* of the object */
    struct object object;
    struct metric_compact *compact;
    uint16_t *partition_of_series; /* by ordinal */
    uint32_t *series_counts;       /* of each partition */
    uint32_t some_partition;       /* that has a series: it takes metadata of those that have none */
    struct sum out;                /* rows written, and dropped by the way */
    struct err_at detail;          /* of reading the source */
    struct err_at *at;
};

/* An error of reading the source or of writing the temporary file. */
static err fail(struct cutter *c, err e)
{
    if (c->detail.text[0] != '\0')
        return err_set(c->at, e, "object %s in the snapshot: %s", c->key, c->detail.text);
    return err_set(c->at, e, "object %s of the snapshot cannot be written out by way of %s: %s", c->key,
                   c->temp_path, err_text(e));
}

static err open_source(struct cutter *c)
{
    segment_key(c->source->partition, c->facts->digest, c->facts->era, c->key);
    err e = object_open(c->a->adopt.from, c->key, &c->object);
    if (e == OK)
        e = metric_compact_open(object_source(&c->object), c->a->cache, c->pool, &c->compact, &c->detail);
    if (e == OK || c->detail.text[0] != '\0')
        return e == OK ? OK : fail(c, e);
    return shard_refuse_object(e, "snapshot", c->key, c->at);
}

static err route_tenant(struct cutter *c, struct slice tenant, struct metric_compact_labels *reader,
                        struct buf *labels, struct buf *scratch)
{
    const struct shard_adopt *adopt = &c->a->adopt;
    uint32_t first, count, partition;
    metric_compact_tenant(c->compact, tenant, &first, &count);
    for (uint32_t i = first; i < first + count; i++) {
        buf_clear(labels);
        TRY(metric_compact_labels_read(reader, c->compact, i, labels, &c->detail));
        TRY(adopt->route(adopt->context, tenant, buf_slice(labels), scratch, &partition));
        check(partition < adopt->to_config->partition_count);
        c->partition_of_series[i] = (uint16_t)partition;
        c->series_counts[partition]++;
        c->some_partition = partition;
    }
    return OK;
}

/* Which series goes where. */
static err route_series(struct cutter *c)
{
    const struct segment_info *info = metric_compact_info(c->compact);
    struct buf labels = buf_open(c->pool, LABELS_BYTES_MAX), scratch = buf_open(c->pool, LABELS_BYTES_MAX);
    struct metric_compact_labels reader = { 0 };
    err e = OK;
    TRY_OUT(pool_alloc(c->pool, info->series_count * sizeof *c->partition_of_series + 1,
                       (void **)&c->partition_of_series));
    TRY_OUT(pool_zalloc(c->pool, c->a->adopt.to_config->partition_count * sizeof *c->series_counts,
                        (void **)&c->series_counts));
    TRY_OUT(metric_compact_labels_open(c->pool, &reader));
    for (uint32_t i = 0; i < info->tenant_count; i++)
        TRY_OUT(route_tenant(c, info->tenants[i], &reader, &labels, &scratch));
out:
    metric_compact_labels_close(&reader);
    buf_close(&labels);
    buf_close(&scratch);
    return e == OK ? OK : fail(c, e);
}

static bool takes_metadata(const struct metric_compact_share *share, struct slice tenant, struct slice family)
{
    const struct cutter *c = share->context;
    const struct shard_adopt *adopt = &c->a->adopt;
    uint32_t partition = adopt->route_family(adopt->context, tenant, family);
    return share->number == (c->series_counts[partition] > 0 ? partition : c->some_partition);
}

/* The series of a partition into the temporary file. *out_any false: all their rows are below the cut-off. */
static err write_share(struct cutter *c, uint32_t partition, struct pool *pool,
                       struct chain_segment *out_facts, bool *out_any)
{
    const struct target *target = &c->a->targets[partition];
    struct log_position from = { 0, target->first + c->number }, to = { 0, from.offset + 1 };
    const struct metric_compact_config config = {
        .path = c->temp_path, .partition = partition, .from_offset = from.offset, .to_offset = to.offset
    };
    const struct metric_compact_share share = { .number_of_series = c->partition_of_series,
                                                .number = (uint16_t)partition,
                                                .takes_metadata = takes_metadata,
                                                .context = c };
    const struct metric_compact_merge merge = {
        .inputs = &c->compact,
        .input_count = 1,
        .window = { TIME_MS_MIN, TIME_MS_MAX },
        .cutoff_ms = c->source->cutoff_ms == TIME_MS_MIN ? INT64_MIN : c->source->cutoff_ms,
        .share = &share,
    };
    struct metric_compact_writer *writer;
    struct metric_compact_written written;
    TRY(metric_compact_writer_open(c->a->adopt.io, &config, pool, &writer));
    err e = metric_compact_merge(&merge, writer, pool, &written, &c->detail);
    *out_any = e == OK;
    if (e == OK || e == ERR_NOT_FOUND) {
        sum_add(&c->out, written.info.dropped);
        sum_add(&c->out, written.info.expired);
    }
    if (e == OK) {
        *out_facts = (struct chain_segment){ .era = target->era,
                                             .bytes = written.file.size,
                                             .from = from,
                                             .to = to,
                                             .range = written.info.time,
                                             .sum = written.info.sum,
                                             .format_version = METRIC_COMPACT_VERSION,
                                             .flags = c->facts->flags };
        memcpy(out_facts->digest, written.file.digest, SHA256_BYTES);
        sum_add(&c->out, written.info.sum);
    }
    metric_compact_writer_close(writer);
    return e == ERR_NOT_FOUND ? OK : e;
}

/* Is it there, every row of it? ERR_NOT_FOUND, ERR_CORRUPT. */
static err read_back(struct cutter *c, const char *key, const struct chain_segment *facts, struct pool *pool)
{
    struct object object;
    struct segment_info info;
    struct err_at ignored = { 0 };
    TRY(object_open(c->a->adopt.to, key, &object));
    err e = metric_compact_verify(object_source(&object), facts->digest, pool, &info, &ignored);
    object_close(&object);
    if (e == ERR_VERSION || e == ERR_END || e == ERR_CONFLICT ||
        (e == OK && !sum_equal(info.sum, facts->sum)))
        e = ERR_CORRUPT;
    return e;
}

static err put_share(struct cutter *c, uint32_t partition, const struct chain_segment *facts,
                     struct pool *pool)
{
    char key[SHARD_KEY_BYTES_MAX];
    struct blob *to = c->a->adopt.to;
    segment_key(partition, facts->digest, facts->era, key);
    err e = read_back(c, key, facts, pool);
    if (e == OK)
        return OK; /* an earlier run put it */
    if (e == ERR_NOT_FOUND)
        e = blob_put_file(to, key, c->temp_path);
    else if (e == ERR_CORRUPT)
        e = blob_replace_file(to, key, c->temp_path);
    if (e == OK || e == ERR_EXISTS)
        e = read_back(c, key, facts, pool);
    return e == OK ? OK : shard_refuse_object(e, "bucket", key, c->at);
}

static err keep_output(struct cutter *c, uint32_t partition, const struct chain_segment *facts)
{
    struct shard_adoption *a = c->a;
    struct target *target = &a->targets[partition];
    io_mutex_lock(&a->lock);
    err e = pool_block_reserve(a->pool, (void **)&target->outputs, sizeof *target->outputs, target->count + 1,
                               &target->capacity);
    if (e == OK)
        target->outputs[target->count++] = (struct output){ c->number, *facts };
    io_mutex_unlock(&a->lock);
    return e;
}

static err remove_temp(struct cutter *c)
{
    err e = io_unlink(c->a->adopt.io, c->temp_path);
    return e == ERR_NOT_FOUND ? OK : e;
}

static err cut_share(struct cutter *c, uint32_t partition)
{
    struct pool *pool = pool_open(c->pool, "share", POOL_BYTES_UNLIMITED);
    struct chain_segment facts;
    bool any = false;
    err e = remove_temp(c); /* of a process that died */
    if (e == OK)
        e = write_share(c, partition, pool, &facts, &any);
    if (e != OK)
        e = fail(c, e);
    if (e == OK && any)
        e = put_share(c, partition, &facts, pool);
    if (e == OK && any)
        e = keep_output(c, partition, &facts);
    ERR_IGNORE(remove_temp(c)); /* the next one does it again */
    pool_close(pool);
    return e;
}

static err cut_shares(struct cutter *c)
{
    char name[SHA256_HEX_BYTES];
    TRY(open_source(c));
    TRY(route_series(c));
    for (uint32_t p = 0; p < c->a->adopt.to_config->partition_count; p++)
        if (c->series_counts[p] > 0)
            TRY(cut_share(c, p));
    sha256_print(c->facts->digest, name);
    return sum_equal(c->out, c->facts->sum)
               ? OK
               : err_set(c->at, ERR_CORRUPT,
                         "segment %s of the snapshot does not add up to what was written of it", name);
}

err shard_adoption_write(struct shard_adoption *a, uint32_t from_partition, const char *temp_path,
                         struct err_at *at)
{
    const struct chain *source = &a->sources[from_partition];
    err e = OK;
    for (size_t i = 0; i < source->segment_count && e == OK; i++) {
        struct cutter c = { .a = a,
                            .source = source,
                            .facts = &source->segments[i],
                            .number = a->source_first[from_partition] + i,
                            .temp_path = temp_path,
                            .pool = pool_open(a->adopt.pool, "segment", POOL_BYTES_UNLIMITED),
                            .at = at };
        if (a->adopt.is_canceled != NULL && a->adopt.is_canceled(a->adopt.context))
            e = ERR_CANCELED;
        else
            e = cut_shares(&c);
        if (c.compact != NULL)
            metric_compact_close(c.compact);
        object_close(&c.object);
        pool_close(c.pool);
        if (e == OK && a->adopt.written != NULL)
            a->adopt.written(a->adopt.context, source->segments[i].bytes);
    }
    return e;
}

/* ---- naming ---- */

static int output_order(const void *x, const void *y)
{
    const struct output *a = x, *b = y;
    return a->number < b->number ? -1 : a->number > b->number;
}

/* The next entry that the chain lacks. ERR_NOT_FOUND: it lacks none. */
static err next_entry(struct shard_adoption *a, const struct target *target, const struct chain *chain,
                      struct pool *pool, struct chain_entry *out_entry)
{
    uint64_t begin = chain->adopted_end.offset, end = target->first + a->segment_count;
    struct chain_entry entry = { .kind = CHAIN_ADOPT, .leader_epoch = LOG_EPOCH_NONE };
    size_t from = 0,
           most = a->adopt.entry_segments_max > 0 ? a->adopt.entry_segments_max : CHAIN_SEGMENT_COUNT_MAX;
    if (begin >= end)
        return ERR_NOT_FOUND;
    if (begin < target->first)
        return ERR_ORDER;
    while (from < target->count && target->first + target->outputs[from].number < begin)
        from++;
    entry.segment_count = target->count - from;
    if (entry.segment_count > most) {
        entry.segment_count = most;
        end = target->first + target->outputs[from + most].number;
    }
    TRY(pool_alloc(pool, entry.segment_count * sizeof *entry.segments + 1, (void **)&entry.segments));
    for (size_t i = 0; i < entry.segment_count; i++) {
        entry.segments[i] = target->outputs[from + i].facts;
        sum_add(&entry.sum, entry.segments[i].sum);
    }
    entry.start = (struct log_position){ 0, begin };
    entry.end = (struct log_position){ 0, end };
    if (begin == target->first) {
        entry.loss_count = a->loss_count;
        TRY(pool_alloc(pool, a->loss_count * sizeof *entry.losses + 1, (void **)&entry.losses));
        for (size_t i = 0; i < a->loss_count; i++) {
            entry.losses[i] = a->losses[i];
            entry.losses[i].from = entry.start;
            entry.losses[i].to = (struct log_position){ 0, target->first + a->segment_count };
        }
    }
    *out_entry = entry;
    return OK;
}

/* Look, and append what lacks. *out_done: nothing lacks. */
static err name_next(struct shard_adoption *a, uint32_t partition, struct pool *scratch, bool *out_done,
                     struct err_at *at)
{
    struct chain chain;
    struct chain_entry entry;
    bool valid;
    err e = read_target(a, partition, scratch, &chain, at);
    if (e == OK)
        e = next_entry(a, &a->targets[partition], &chain, scratch, &entry);
    *out_done = e == ERR_NOT_FOUND;
    if (e == OK)
        e = chain_would_take(&chain, &entry, &valid);
    if (e == OK && !valid)
        e = ERR_ORDER;
    if (e == OK)
        e = shard_entry_put(a->adopt.io, a->adopt.to, &chain, &entry, scratch);
    chain_close(&chain);
    return e;
}

err shard_adoption_name(struct shard_adoption *a, uint32_t partition, struct err_at *at)
{
    struct target *target = &a->targets[partition];
    bool is_done = false;
    err e = OK;
    if (target->count > 0)
        qsort(target->outputs, target->count, sizeof *target->outputs, output_order);
    for (int i = 0; i < TRIES_MAX && !is_done && (e == OK || e == ERR_EXISTS); i++) {
        struct pool *scratch = pool_open(a->adopt.pool, "name", POOL_BYTES_UNLIMITED);
        e = name_next(a, partition, scratch, &is_done, at);
        pool_close(scratch);
    }
    if (is_done)
        return OK;
    if (e == ERR_ORDER)
        return err_set(at, e,
                       "partition %u takes it no more: it took so long that what was put may be swept, or"
                       " somebody else adopts; run this again",
                       partition);
    return e == OK || e == ERR_EXISTS
               ? err_set(at, ERR_BUSY, "others append to the chain of partition %u all the time", partition)
               : e;
}
