/* Verify and fsck: every checksum of everything stored, offline. See shard.h.
 *
 * Per partition: the chain is folded, its live segments are read and decoded, its state is hashed, stream
 * files are read frame by frame and group by group; the log is read record by record. Then every file of the
 * blob and stream directories gets a class (account.c): what nothing names is told. fsck moves what is damaged
 * to the quarantine directory, where a person finds it; the node then starts, builds again what the log still
 * has, and names the rest in answers.
 *
 * Invariants
 *  1. Verify changes nothing. fsck never destroys a byte: it copies to the quarantine before it removes.
 *  2. What a newer version wrote is no damage: it is named, counted, and left where it is. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/time.h"

#include <stdio.h>
#include <stdlib.h>

struct verifier {
    const struct shards_config *config;
    struct io *io;
    struct log *log;
    struct blob *blob;
    struct pool *pool; /* reset between objects */
    const struct shard_report *report;
    struct shard_check check;
    struct log_position *chain_ends; /* by partition */
    uint64_t total_bytes;            /* of objects, stream files and the log, for the progress */
    uint64_t done_bytes;
    bool repairs;
};

#define say(v, is_damage, ...) shard_tell((v)->report, &(v)->check, is_damage, __VA_ARGS__)

static void progress(struct verifier *v, uint64_t bytes)
{
    v->done_bytes += bytes;
    if (v->report != NULL && v->report->progress != NULL)
        v->report->progress(v->report->context, v->done_bytes, v->total_bytes);
}

/* A file or object that only a newer version reads. */
static void say_newer(struct verifier *v, const char *what, const char *name, const char *why)
{
    const char *text = err_text(ERR_VERSION);
    bool is_told = strncmp(why, text, strlen(text)) == 0;
    v->check.newer_count++;
    say(v, false, "%s %s: %s%s%s", what, name, is_told ? "" : text, is_told || why[0] == '\0' ? "" : ": ",
        why);
}

/* ---- quarantine ---- */

static err quarantine_object(struct verifier *v, const char *key)
{
    char path[IO_PATH_BYTES_MAX];
    TRY(shard_quarantine(v->io, v->config, v->config->blob_directory, key, path));
    TRY(blob_delete(v->blob, key));
    say(v, false, "moved %s to %s", key, path);
    return OK;
}

static err quarantine_stream(struct verifier *v, const char *name)
{
    char to[IO_PATH_BYTES_MAX];
    TRY(shard_set_aside(v->io, v->config, name, to));
    say(v, false, "moved %s/%s to %s; the log is replayed in its place", v->config->stream_directory, name,
        to);
    return OK;
}

/* ---- objects ---- */

static err verify_segment(struct verifier *v, uint32_t partition, const struct chain_segment *facts)
{
    char key[SHARD_KEY_BYTES_MAX];
    struct object object = { 0 };
    struct segment_info info;
    struct err_at at = { 0 };
    segment_key(partition, facts->digest, facts->era, key);
    pool_reset(v->pool);
    err e = object_open(v->blob, key, &object);
    if (e == OK) {
        struct segment_source source = object_source(&object);
        v->check.file_count++;
        v->check.byte_count += source.size;
        e = metric_compact_verify(source, facts->digest, v->pool, &info, &at);
        if (e == OK && (!sum_equal(info.sum, facts->sum) || source.size != facts->bytes))
            e = err_set(&at, ERR_CORRUPT, "its SUM or size is not the chain's");
    }
    object_close(&object);
    progress(v, facts->bytes);
    if (e == ERR_VERSION) {
        say_newer(v, "segment", key, at.text);
        return OK;
    }
    if (e == OK) {
        v->check.segment_count++;
        v->check.row_count += facts->sum.count;
        return OK;
    }
    if (!is_damage(e))
        return e;
    say(v, true, "segment %s with %llu rows: %s%s%s", key, (unsigned long long)facts->sum.count, err_text(e),
        at.text[0] != '\0' ? ": " : "", at.text);
    return v->repairs && e != ERR_NOT_FOUND ? quarantine_object(v, key) : OK;
}

static err verify_state_object(struct verifier *v, const char *key, const uint8_t digest[SHA256_BYTES],
                               struct err_at *at)
{
    struct slice bytes;
    pool_reset(v->pool);
    err e = state_object_read(v->blob, key, digest, v->pool, &bytes);
    if (bytes.len > 0) {
        v->check.file_count++;
        v->check.byte_count += bytes.len;
        progress(v, bytes.len);
    }
    TRY(e);
    return state_object_check(bytes, at);
}

/* The newest state, and the one before it, which stands in for it and may be gone already. */
static err verify_states(struct verifier *v, const struct chain *chain)
{
    static const uint8_t none[SHA256_BYTES];
    for (int i = 0; i < 2; i++) {
        char key[SHARD_KEY_BYTES_MAX];
        if (memcmp(chain->state_digests[i], none, SHA256_BYTES) == 0)
            continue;
        state_key(chain->partition, chain->state_digests[i], chain->state_eras[i], key);
        struct err_at at = { 0 };
        err e = verify_state_object(v, key, chain->state_digests[i], &at);
        if (e == ERR_VERSION)
            say_newer(v, "state object", key, at.text);
        if (e == OK || e == ERR_VERSION || (i == 1 && e == ERR_NOT_FOUND))
            continue;
        if (!is_damage(e))
            return e;
        say(v, true, "state object %s: %s; %s", key, err_text(e),
            i == 1 ? "it is the older one, which nobody needs while the newest is whole"
                   : "the start goes on from the one before it");
        if (v->repairs && e != ERR_NOT_FOUND)
            TRY(quarantine_object(v, key));
    }
    return OK;
}

/* What the fold of a partition says of the objects of its directory. */
struct owned {
    const struct verifier *v;
    const struct chain *chain;
    struct named named;
};

static int classify_object(void *context, const char *path, bool is_dir, const char **out_why)
{
    const struct owned *o = context;
    char key[SHARD_KEY_BYTES_MAX];
    bool is_kind = strcmp(path, "chain") == 0 || strcmp(path, "segment") == 0 || strcmp(path, "state") == 0;
    if (is_kind)
        return SHARD_WALK_INTO;
    if (is_dir || snprintf(key, sizeof key, "p%03u/%s", o->chain->partition, path) >= (int)sizeof key)
        return SHARD_CLASS_FOREIGN;
    if (strcmp(path, "chain/" CHAIN_MARK) == 0)
        return SHARD_CLASS_LEFTOVER;
    if (!shard_is_object(key, o->v->config->partition_count))
        return SHARD_CLASS_FOREIGN;
    struct object_name name;
    bool is_entry = !object_name_parse(strrchr(path, '/') + 1, &name);
    if (is_entry || named_has(&o->named, &name))
        return SHARD_CLASS_LIVE;
    if (o->v->config->without_log)
        *out_why = "named by no entry; the first start of what is restored removes it";
    else if (o->chain->lost_count == 0)
        *out_why = "named by no entry; the next start removes it";
    else {
        *out_why = "named by no entry, and kept, since an entry that was lost may have done so";
        return SHARD_CLASS_ASIDE;
    }
    return SHARD_CLASS_LEFTOVER;
}

static err account_objects(struct verifier *v, const struct chain *chain)
{
    struct pool *pool = pool_open(v->pool, "account", POOL_BYTES_UNLIMITED);
    struct owned owned = { .v = v, .chain = chain, .named.pool = pool };
    struct shard_walk walk = { v->io, pool, v->report, &v->check, classify_object, &owned };
    char path[IO_PATH_BYTES_MAX];
    err e = OK;
    TRY_OUT(named_add_chain(&owned.named, chain));
    named_sort(&owned.named);
    if (snprintf(path, sizeof path, "%s/p%03u", v->config->blob_directory, chain->partition) >=
        IO_PATH_BYTES_MAX)
        TRY_OUT(ERR_LIMIT);
    e = shard_account(&walk, path);
out:
    pool_close(pool);
    return e;
}

/* What lies beside the directories of the partitions. */
static int classify_beside(void *context, const char *path, bool is_dir, const char **out_why)
{
    const struct verifier *v = context;
    char own[SHARD_KEY_BYTES_MAX];
    unsigned partition;
    if (strcmp(path, ".tmp") == 0) /* of blob/ */
        return SHARD_CLASS_LEFTOVER;
    if (sscanf(path, "p%u", &partition) != 1 || partition >= v->config->partition_count)
        return SHARD_CLASS_FOREIGN;
    snprintf(own, sizeof own, "p%03u", partition);
    return strcmp(path, own) == 0 ? SHARD_WALK_PAST : SHARD_CLASS_FOREIGN;
}

static void report_entry(void *context, const struct chain_entry *in_place, err why)
{
    struct verifier *v = context;
    shard_tell_stand_in(v->report, &v->check, v->repairs ? "is" : "can be", in_place, why);
}

static void list_losses(struct verifier *v, const struct chain *chain)
{
    for (size_t i = 0; i < chain->loss_count; i++) {
        const struct chain_loss *l = &chain->losses[i];
        char from[TIME_TEXT_BYTES], to[TIME_TEXT_BYTES];
        time_print(l->range.min_ms, from);
        time_print(l->range.max_ms, to);
        say(v, false, "p%03u: %s: %s, offsets %llu to %llu of generation %llu, sample times %s to %s",
            chain->partition,
            l->accepted ? "loss accepted by a person" : "loss, named in answers until fsck --confirm-loss",
            shard_loss_text(l->kind), (unsigned long long)l->from.offset, (unsigned long long)l->to.offset,
            (unsigned long long)l->from.generation, from, to);
    }
}

static err verify_chain(struct verifier *v, uint32_t partition, struct pool *pool, struct chain *chain)
{
    struct chain_reader reader = { .config = v->config,
                                   .io = v->io,
                                   .blob = v->blob,
                                   .pool = pool,
                                   .partition = partition,
                                   .log_start = log_watermarks(v->log, partition).start_offset,
                                   .now_ms = io_now_ms(v->io),
                                   .mends_io = true,
                                   .damaged = report_entry,
                                   .context = v };
    *chain = chain_open(pool, partition, (struct log_position){ .generation = 1 });
    TRY(shard_chain_read(&reader, chain, &v->check.at));
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t count;
    snprintf(prefix, sizeof prefix, "p%03u/chain", partition);
    pool_reset(v->pool);
    TRY(blob_list(v->blob, prefix, v->pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        uint64_t size;
        TRY(blob_size(v->blob, entries[i].key, &size));
        v->check.byte_count += size;
        v->check.file_count++;
        progress(v, size);
    }
    if (chain->ignored_count > 0)
        say(v, false, "p%03u: %llu manifest entries are not valid and ignored", partition,
            (unsigned long long)chain->ignored_count);
    list_losses(v, chain);
    return OK;
}

/* ---- stream files ---- */

struct file_group {
    struct io_file *file;
    uint64_t offset;
};

static err group_read(void *context, uint64_t offset, void *at, size_t len)
{
    const struct file_group *g = context;
    return io_file_read(g->file, g->offset + offset, at, len, NULL);
}

struct stream_file {
    struct stream_name name;
    const char *file_name;
    char path[IO_PATH_BYTES_MAX];
    uint64_t size;
    uint64_t valid_end; /* bytes that the next part says count; UINT64_MAX: there is none that says so */
};

/* The frames behind the header; *end is behind the last whole one. *out_is_cut: with an error, the bytes just
 * end too early. */
static err verify_frames(struct verifier *v, struct io_file *file, uint64_t size, uint64_t *end,
                         bool *out_is_cut)
{
    for (;;) {
        struct stream_frame frame;
        pool_reset(v->pool);
        err e = stream_frame_read(file, *end, size, v->pool, &frame);
        if (e == ERR_END)
            return OK;
        *out_is_cut = e == ERR_CORRUPT && stream_frame_is_cut(file, *end, size);
        TRY(e);
        if (frame.group_bytes > 0) {
            struct file_group g = { file, frame.group_offset };
            struct metric_group_bytes bytes = { group_read, &g, frame.group_bytes };
            struct metric_group *group;
            TRY(metric_group_open(v->pool, &bytes, &group));
            v->check.group_count++;
            v->check.row_count += metric_group_facts(group).row_count;
            e = metric_group_verify(group, v->pool, NULL, NULL);
            metric_group_close(group);
            TRY(e);
        }
        *end = frame.next_offset;
    }
}

/* What reading a part came to. A write that was cut short, a part that never got a header or follows bytes that
 * do not count: a start replays the log there, and so it is after any death of a process; no damage. */
struct stream_found {
    uint64_t live_bytes;
    const char *unused_why; /* of the bytes behind those; NULL: there are none */
    const char *damage;     /* NULL: none */
};

static err read_stream(struct verifier *v, const struct stream_file *f, struct io_file *file,
                       uint64_t *used_end, struct stream_found *found, struct err_at *at)
{
    struct stream_part_header header;
    uint64_t end = STREAM_FILE_HEADER_BYTES, size = f->size < f->valid_end ? f->size : f->valid_end;
    bool is_cut = false, is_told = f->valid_end != UINT64_MAX;
    *found = (struct stream_found){ .live_bytes = f->size };
    err e = stream_header_read(file, &header, at);
    if (e == ERR_END && (!is_told || f->valid_end == *used_end)) {
        *found = (struct stream_found){ 0, "a part that never got its header", NULL };
        return OK;
    }
    if (e == OK && header.before_bytes != *used_end) {
        *found = (struct stream_found){ 0, "they follow bytes of the part before that do not count", NULL };
        return OK;
    }
    if (e == OK)
        e = verify_frames(v, file, size, &end, &is_cut);
    *used_end = end;
    if (is_told && f->size < f->valid_end)
        found->damage = "it is shorter than the part behind it says";
    else if (e == OK && f->size > size)
        *found = (struct stream_found){ size, "a write that failed", NULL };
    else if (e != OK && is_cut && !is_told)
        *found = (struct stream_found){ end, "a write that was cut short", NULL };
    else if (is_damage(e))
        found->damage = err_text(e);
    else
        return e;
    return OK;
}

/* used_end: of the part before, as far as it counts; becomes that of this one. */
static err verify_stream(struct verifier *v, const struct stream_file *f, uint64_t *used_end)
{
    struct io_file *file;
    struct err_at at = { 0 };
    struct stream_found found;
    TRY(io_file_open(v->io, f->path, IO_READ, &file));
    err e = read_stream(v, f, file, used_end, &found, &at);
    io_file_close(file);
    progress(v, f->size);
    if (e == ERR_VERSION)
        say_newer(v, "stream file", f->path, at.text);
    else if (e != OK)
        return err_set(&v->check.at, e, "stream file %s: %s", f->path, err_text(e));
    if (found.damage != NULL) {
        say(v, true, "stream file %s: %s; the log still has its records", f->path, found.damage);
        if (v->repairs)
            return quarantine_stream(v, f->file_name);
    }
    uint64_t unused = f->size - found.live_bytes;
    v->check.classes[SHARD_CLASS_LIVE].file_count += found.live_bytes > 0;
    v->check.classes[SHARD_CLASS_LIVE].byte_count += found.live_bytes;
    v->check.classes[SHARD_CLASS_LEFTOVER].file_count += found.live_bytes == 0;
    v->check.classes[SHARD_CLASS_LEFTOVER].byte_count += unused;
    if (found.unused_why != NULL)
        say(v, false, "stream file %s: %llu bytes do not count (%s); the log has their records", f->path,
            (unsigned long long)unused, found.unused_why);
    return OK;
}

static int stream_order(const void *a, const void *b)
{
    const struct stream_name *x = &((const struct stream_file *)a)->name,
                             *y = &((const struct stream_file *)b)->name;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    int order = position_compare(x->start, y->start);
    return order != 0 ? order : x->part < y->part ? -1 : x->part > y->part;
}

static bool is_same_range(const struct stream_file *a, const struct stream_file *b)
{
    return a->name.partition == b->name.partition && position_compare(a->name.start, b->name.start) == 0;
}

/* The first of the parts behind it that has a header says how much of it counts. */
static void find_valid_end(struct verifier *v, struct stream_file *f, const struct stream_file *end)
{
    f->valid_end = UINT64_MAX;
    for (const struct stream_file *next = f + 1; next < end && is_same_range(f, next); next++) {
        struct stream_part_header header;
        struct io_file *file;
        if (io_file_open(v->io, next->path, IO_READ, &file) != OK)
            continue;
        err e = stream_header_read(file, &header, NULL);
        io_file_close(file);
        if (e == OK && header.before_bytes >= STREAM_FILE_HEADER_BYTES) {
            f->valid_end = header.before_bytes;
            return;
        }
    }
}

/* What the walk finds that is a stream file behind its partition's chain is read; of the rest it gives the
 * class. */
static int classify_stream(void *context, const char *path, bool is_dir, const char **out_why)
{
    const struct verifier *v = context;
    struct stream_name name;
    size_t len = strlen(path);
    if (!is_dir && len > 4 && strcmp(path + len - 4, ".tmp") == 0)
        return SHARD_CLASS_LEFTOVER;
    if (is_dir || !stream_name_parse(path, &name) || name.partition >= v->config->partition_count)
        return SHARD_CLASS_FOREIGN;
    const struct log_position *end = &v->chain_ends[name.partition];
    if (name.start.generation < end->generation) {
        *out_why = "of a log that is gone; the next start sets it aside";
        return SHARD_CLASS_ASIDE;
    }
    if (position_compare(name.start, *end) >= 0)
        return SHARD_WALK_PAST;
    *out_why = "its rows are in segments; the next start removes it";
    return SHARD_CLASS_LEFTOVER;
}

static err verify_streams(struct verifier *v, struct pool *pool)
{
    struct shard_walk walk = { v->io, pool, v->report, &v->check, classify_stream, v };
    struct io_dir_entry *entries;
    size_t entry_count, count = 0;
    void *at;
    err e = io_dir_list(v->io, v->config->stream_directory, pool, &entries, &entry_count);
    if (e == ERR_NOT_FOUND)
        return OK;
    TRY(e);
    TRY(pool_zalloc(pool, entry_count * sizeof(struct stream_file) + 1, &at));
    struct stream_file *files = at;
    for (size_t i = 0; i < entry_count; i++) {
        struct stream_file *f = &files[count];
        const char *why;
        if (classify_stream(v, entries[i].name, entries[i].is_dir, &why) != SHARD_WALK_PAST)
            continue;
        (void)stream_name_parse(entries[i].name, &f->name);
        f->file_name = entries[i].name;
        TRY(stream_path(v->config->stream_directory, &f->name, f->path));
        TRY(io_path_size(v->io, f->path, &f->size, NULL));
        v->check.file_count++;
        v->check.byte_count += f->size;
        count++;
    }
    qsort(files, count, sizeof *files, stream_order);
    for (size_t i = 0; i < count; i++)
        find_valid_end(v, &files[i], files + count);
    uint64_t used_end = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || !is_same_range(&files[i - 1], &files[i]))
            used_end = 0;
        TRY(verify_stream(v, &files[i], &used_end));
    }
    return shard_account(&walk, v->config->stream_directory);
}

/* ---- the log ---- */

static err verify_log(struct verifier *v, uint32_t partition, struct log_position chain_end)
{
    struct log_reader *reader;
    struct log_watermarks w = log_watermarks(v->log, partition);
    if (v->config->without_log)
        return OK;
    if (w.end_offset < chain_end.offset)
        say(v, true,
            "the log of partition %u ends at offset %llu, before %llu where the manifest chain goes on",
            partition, (unsigned long long)w.end_offset, (unsigned long long)chain_end.offset);
    if (w.start_offset > chain_end.offset)
        say(v, true,
            "the log of partition %u begins at offset %llu, behind %llu where the manifest chain ends",
            partition, (unsigned long long)w.start_offset, (unsigned long long)chain_end.offset);
    TRY(log_reader_open(v->log, partition, w.start_offset, LOG_EPOCH_NONE, &reader));
    err e = OK;
    while (e == OK) {
        struct log_record record;
        struct batch batch;
        e = log_reader_next(reader, &record);
        if (e != OK)
            break;
        v->check.record_count++;
        v->check.record_bytes += record.bytes.len;
        v->check.byte_count += record.bytes.len;
        if (record.damaged) {
            say(v, true, "log record at offset %llu of partition %u is damaged",
                (unsigned long long)record.position.offset, partition);
            continue;
        }
        pool_reset(v->pool);
        err decoded =
            batch_signal(record.bytes) == SIGNAL_METRIC ? batch_decode(record.bytes, v->pool, &batch) : OK;
        v->check.newer_count += decoded == ERR_VERSION;
        if (decoded != OK)
            say(v, decoded != ERR_VERSION, "log record at offset %llu of partition %u %s",
                (unsigned long long)record.position.offset, partition,
                decoded == ERR_VERSION ? "was written by a newer version" : "is no batch");
    }
    log_reader_close(reader);
    return e == ERR_END ? OK : e;
}

/* ---- the whole ---- */

static int classify_any(void *context, const char *path, bool is_dir, const char **out_why)
{
    return SHARD_CLASS_LIVE;
}

/* What there is to read, for the progress alone. */
static err find_total(struct verifier *v)
{
    struct shard_check sum = { 0 };
    struct shard_walk walk = { v->io, v->pool, NULL, &sum, classify_any, NULL };
    if (v->report == NULL || v->report->progress == NULL)
        return OK;
    TRY(shard_account(&walk, v->config->blob_directory));
    TRY(shard_account(&walk, v->config->stream_directory));
    v->total_bytes = sum.classes[SHARD_CLASS_LIVE].byte_count + log_usage(v->log).live_bytes;
    return OK;
}

static err verify_partition(struct verifier *v, uint32_t partition, struct pool *pool)
{
    struct chain chain;
    pool_reset(pool);
    TRY(verify_chain(v, partition, pool, &chain));
    for (size_t k = 0; k < chain.segment_count; k++)
        TRY(verify_segment(v, partition, &chain.segments[k]));
    TRY(verify_states(v, &chain));
    TRY(account_objects(v, &chain));
    v->chain_ends[partition] = chain.end;
    chain_close(&chain);
    TRY(verify_log(v, partition, v->chain_ends[partition]));
    progress(v, log_usage(v->log).live_bytes / v->config->partition_count);
    return OK;
}

static err verify_all(struct verifier *v, struct pool *own, struct pool *pool)
{
    struct shard_walk beside = { v->io, pool, v->report, &v->check, classify_beside, v };
    void *at;
    TRY(pool_zalloc(own, v->config->partition_count * sizeof *v->chain_ends, &at));
    v->chain_ends = at;
    TRY(find_total(v));
    for (uint32_t i = 0; i < v->config->partition_count; i++)
        TRY(verify_partition(v, i, pool));
    pool_reset(pool);
    TRY(verify_streams(v, pool));
    return shard_account(&beside, v->config->blob_directory);
}

static err run(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
               struct pool *pool, const struct shard_report *report, bool repairs,
               struct shard_check *out_check)
{
    struct verifier v = {
        .config = config, .io = io, .log = log, .blob = blob, .report = report, .repairs = repairs
    };
    struct pool *own = pool_open(pool, "verifier", POOL_BYTES_UNLIMITED);
    struct pool *chains = pool_open(own, "chains", POOL_BYTES_UNLIMITED);
    v.pool = pool_open(own, "verify", POOL_BYTES_UNLIMITED);
    err e = verify_all(&v, own, chains);
    pool_close(v.pool);
    pool_close(chains);
    pool_close(own);
    *out_check = v.check;
    return e;
}

err shard_verify(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
                 struct pool *pool, const struct shard_report *report, struct shard_check *out_check)
{
    return run(config, io, log, blob, pool, report, false, out_check);
}

err shard_fsck(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
               struct pool *pool, const struct shard_report *report, struct shard_check *out_check)
{
    return run(config, io, log, blob, pool, report, true, out_check);
}
