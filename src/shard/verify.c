/* Verify and fsck: every checksum of everything stored, offline. See shard.h.
 *
 * Per partition: the chain is folded, its live segments are read and decoded, its state is hashed, stream
 * files are read frame by frame and group by group; the log is read record by record. What nothing names is
 * counted. fsck moves what is damaged to the quarantine directory, where a person finds it; the node then
 * starts, builds again what the log still has, and names the rest in answers.
 *
 * Invariants
 *  1. Verify changes nothing. fsck never destroys a byte: it copies to the quarantine before it removes. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/time.h"

#include <stdarg.h>
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
    bool repairs;
};

static void say(struct verifier *v, bool is_damage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void say(struct verifier *v, bool is_damage, const char *format, ...)
{
    char text[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    v->check.damage_count += is_damage;
    if (v->report != NULL && v->report->line != NULL)
        v->report->line(v->report->context, is_damage, text);
}

/* ---- quarantine ---- */

/* A name without directories, kept unique by what it is made of. */
static err quarantine_path(struct verifier *v, const char *name, char out_path[IO_PATH_BYTES_MAX])
{
    int len = snprintf(out_path, IO_PATH_BYTES_MAX, "%s/%s", v->config->quarantine_directory, name);
    if (len >= IO_PATH_BYTES_MAX)
        return ERR_LIMIT;
    for (char *at = out_path + strlen(v->config->quarantine_directory) + 1; *at != '\0'; at++)
        if (*at == '/')
            *at = '_';
    err e = io_dir_create(v->io, v->config->quarantine_directory);
    return e == ERR_EXISTS ? OK : e;
}

static err quarantine_object(struct verifier *v, const char *key)
{
    char path[IO_PATH_BYTES_MAX];
    TRY(shard_quarantine(v->io, v->config, key, path));
    TRY(blob_delete(v->blob, key));
    say(v, false, "moved %s to %s", key, path);
    return OK;
}

static err quarantine_stream(struct verifier *v, const char *name)
{
    char from[IO_PATH_BYTES_MAX], to[IO_PATH_BYTES_MAX];
    if (snprintf(from, sizeof from, "%s/%s", v->config->stream_directory, name) >= IO_PATH_BYTES_MAX)
        return ERR_LIMIT;
    TRY(quarantine_path(v, name, to));
    size_t len = strlen(to);
    for (int copy = 1; io_exists(v->io, to); copy++) { /* a file of this name was damaged before */
        if (copy == 100 || len + 4 >= IO_PATH_BYTES_MAX)
            return ERR_LIMIT;
        snprintf(to + len, 4, ".%d", copy);
    }
    TRY(io_rename(v->io, from, to));
    TRY(io_dir_sync(v->io, v->config->quarantine_directory));
    TRY(io_dir_sync(v->io, v->config->stream_directory));
    say(v, false, "moved %s to %s; the log is replayed in its place", from, to);
    return OK;
}

/* ---- objects ---- */

static err verify_segment(struct verifier *v, uint32_t partition, const struct chain_segment *facts)
{
    char key[SHARD_KEY_BYTES_MAX];
    struct blob_handle *handle = NULL;
    struct segment_info info;
    struct err_at at = { 0 };
    segment_key(partition, facts->digest, key);
    pool_reset(v->pool);
    err e = blob_open(v->blob, key, &handle);
    if (e == OK) {
        struct segment_source source = object_source(handle);
        v->check.file_count++;
        v->check.byte_count += source.size;
        e = metric_compact_verify(source, facts->digest, v->pool, &info, &at);
        if (e == OK && (!sum_equal(info.sum, facts->sum) || source.size != facts->bytes))
            e = err_set(&at, ERR_CORRUPT, "its SUM or size is not the chain's");
    }
    blob_handle_close(handle);
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

static err verify_state_object(struct verifier *v, const char *key, const uint8_t digest[SHA256_BYTES])
{
    uint8_t actual[SHA256_BYTES];
    struct slice bytes;
    pool_reset(v->pool);
    TRY(blob_get(v->blob, key, STATE_BYTES_MAX, v->pool, &bytes));
    struct sha256 *sha = sha256_open();
    sha256_add(sha, bytes);
    sha256_finish(sha, actual);
    v->check.file_count++;
    v->check.byte_count += bytes.len;
    return memcmp(digest, actual, SHA256_BYTES) == 0 ? state_object_check(bytes) : ERR_CORRUPT;
}

/* The newest state, and the one before it, which stands in for it and may be gone already. */
static err verify_states(struct verifier *v, const struct chain *chain)
{
    static const uint8_t none[SHA256_BYTES];
    for (int i = 0; i < 2; i++) {
        char key[SHARD_KEY_BYTES_MAX];
        if (memcmp(chain->state_digests[i], none, SHA256_BYTES) == 0)
            continue;
        state_key(chain->partition, chain->state_digests[i], key);
        err e = verify_state_object(v, key, chain->state_digests[i]);
        if (e == OK || (i == 1 && e == ERR_NOT_FOUND))
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

/* Objects of a kind that the fold does not name: left by a crash, removed or ignored by the node. */
static err count_unnamed(struct verifier *v, const struct chain *chain, const char *kind)
{
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t count;
    struct named named;
    snprintf(prefix, sizeof prefix, "p%03u/%s", chain->partition, kind);
    pool_reset(v->pool);
    TRY(named_open(chain, kind[1] == 't', v->pool, &named));
    TRY(blob_list(v->blob, prefix, v->pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        uint64_t size;
        if (named_has(&named, entries[i].key))
            continue;
        TRY(blob_size(v->blob, entries[i].key, &size));
        v->check.unaccounted_bytes += size;
        say(v, false, "%s is named by no entry (%llu bytes); the next start removes it", entries[i].key,
            (unsigned long long)size);
    }
    return OK;
}

static void report_entry(void *context, const struct chain_entry *in_place, err why)
{
    struct verifier *v = context;
    const char *verb = v->repairs ? "is" : "can be";
    if (in_place->kind == CHAIN_BASE)
        say(v, true, "manifest entry p%03u/chain/%08llu: %s; a later one holds all that it told",
            in_place->partition, (unsigned long long)in_place->number, err_text(why));
    else if (in_place->kind != CHAIN_LOST)
        say(v, true,
            "manifest entry p%03u/chain/%08llu: %s; it %s built again from its state and %zu segments",
            in_place->partition, (unsigned long long)in_place->number, err_text(why), verb,
            in_place->segment_count);
    else
        say(v, true,
            "manifest entry p%03u/chain/%08llu: %s; its place %s taken by what is known: %zu segments, and"
            " %s",
            in_place->partition, (unsigned long long)in_place->number, err_text(why), verb,
            in_place->segment_count,
            in_place->loss_count > 0 ? "answers will name the rest as missing" : "nothing is missing");
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
    struct err_at at = { 0 };
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
    err e = shard_chain_read(&reader, chain, &at);
    if (e != OK) {
        say(v, true, "%s", at.text);
        return e;
    }
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

static err verify_frames(struct verifier *v, struct io_file *file, uint64_t size)
{
    struct stream_part_header header;
    uint64_t offset = STREAM_FILE_HEADER_BYTES;
    TRY(stream_header_read(file, &header));
    for (;;) {
        struct stream_frame frame;
        pool_reset(v->pool);
        err e = stream_frame_read(file, offset, size, v->pool, &frame);
        if (e == ERR_END)
            return OK;
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
        offset = frame.next_offset;
    }
}

static err verify_streams(struct verifier *v, struct pool *pool)
{
    struct io_dir_entry *entries;
    size_t count;
    err e = io_dir_list(v->io, v->config->stream_directory, pool, &entries, &count);
    if (e == ERR_NOT_FOUND)
        return OK;
    TRY(e);
    for (size_t i = 0; i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        struct io_file *file;
        struct stream_name name;
        uint64_t size;
        if (snprintf(path, sizeof path, "%s/%s", v->config->stream_directory, entries[i].name) >=
            IO_PATH_BYTES_MAX)
            return ERR_LIMIT;
        TRY(io_path_size(v->io, path, &size, NULL));
        v->check.file_count++;
        v->check.byte_count += size;
        if (!stream_name_parse(entries[i].name, &name)) {
            v->check.unaccounted_bytes += size;
            say(v, false, "%s is no stream file (%llu bytes)", path, (unsigned long long)size);
            continue;
        }
        TRY(io_file_open(v->io, path, IO_READ, &file));
        e = verify_frames(v, file, size);
        io_file_close(file);
        if (e == OK)
            continue;
        if (!is_damage(e) && e != ERR_VERSION)
            return e;
        say(v, true, "stream file %s: %s; the log still has its records", path, err_text(e));
        if (v->repairs && e != ERR_VERSION)
            TRY(quarantine_stream(v, entries[i].name));
    }
    return OK;
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
    TRY(log_reader_open(v->log, partition, w.start_offset, &reader));
    err e = OK;
    while (e == OK) {
        struct log_record record;
        struct batch batch;
        e = log_reader_next(reader, &record);
        if (e != OK)
            break;
        v->check.record_count++;
        v->check.byte_count += record.bytes.len;
        if (record.damaged) {
            say(v, true, "log record at offset %llu of partition %u is damaged",
                (unsigned long long)record.position.offset, partition);
            continue;
        }
        pool_reset(v->pool);
        if (batch_signal(record.bytes) == SIGNAL_METRIC && batch_decode(record.bytes, v->pool, &batch) != OK)
            say(v, true, "log record at offset %llu of partition %u is no batch",
                (unsigned long long)record.position.offset, partition);
    }
    log_reader_close(reader);
    return e == ERR_END ? OK : e;
}

/* ---- the whole ---- */

static err verify_all(struct verifier *v)
{
    struct pool *pool = pool_open(v->pool, "chain", POOL_BYTES_UNLIMITED);
    err e = OK;
    for (uint32_t i = 0; i < v->config->partition_count; i++) {
        struct chain chain;
        pool_reset(pool);
        TRY_OUT(verify_chain(v, i, pool, &chain));
        for (size_t k = 0; k < chain.segment_count; k++)
            TRY_OUT(verify_segment(v, i, &chain.segments[k]));
        TRY_OUT(verify_states(v, &chain));
        TRY_OUT(count_unnamed(v, &chain, "segment"));
        TRY_OUT(count_unnamed(v, &chain, "state"));
        struct log_position chain_end = chain.end;
        chain_close(&chain);
        TRY_OUT(verify_log(v, i, chain_end));
    }
    e = verify_streams(v, pool);
out:
    pool_close(pool);
    return e;
}

static err run(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
               struct pool *pool, const struct shard_report *report, bool repairs,
               struct shard_check *out_check)
{
    struct verifier v = {
        .config = config, .io = io, .log = log, .blob = blob, .report = report, .repairs = repairs
    };
    v.pool = pool_open(pool, "verify", POOL_BYTES_UNLIMITED);
    err e = verify_all(&v);
    pool_close(v.pool);
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
