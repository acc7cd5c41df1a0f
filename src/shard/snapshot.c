/* Snapshot of the stored part of all partitions. See shard.h; restore.c makes it the beginning of a node.
 *
 * A snapshot is a blob directory of links: chain entries, live segments, and the newest state objects, as they
 * are after a cut of everything. Objects are immutable, so that a link is a copy. Log and stream files are
 * not in it.
 *
 * Invariant: every object that a copied entry's fold needs is linked before the snapshot counts: it is complete
 * when shards_snapshot returned OK. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"

#include <stdio.h>
#include <stdlib.h>

static err link_object(struct shards *shards, const char *to, const char *key)
{
    char from_path[IO_PATH_BYTES_MAX], to_path[IO_PATH_BYTES_MAX];
    int from_len = snprintf(from_path, sizeof from_path, "%s/%s", shards->config.blob_directory, key);
    int to_len = snprintf(to_path, sizeof to_path, "%s/%s", to, key);
    if (from_len >= IO_PATH_BYTES_MAX || to_len >= IO_PATH_BYTES_MAX)
        return ERR_LIMIT;
    err e = io_link(shards->io, from_path, to_path);
    if (e != ERR_NOT_FOUND)
        return e;
    diag(DIAG_ERROR, "An object is missing; the snapshot lacks it, too, and answers from it will say so.",
         "object=%s", key);
    return OK;
}

static err make_directory(struct io *io, const char *to, const char *below)
{
    char path[IO_PATH_BYTES_MAX];
    if (snprintf(path, sizeof path, "%s%s", to, below) >= IO_PATH_BYTES_MAX)
        return ERR_LIMIT;
    return io_dir_create(io, path);
}

static err sync_directory(struct io *io, const char *to, const char *below)
{
    char path[IO_PATH_BYTES_MAX];
    if (snprintf(path, sizeof path, "%s%s", to, below) >= IO_PATH_BYTES_MAX)
        return ERR_LIMIT;
    return io_dir_sync(io, path);
}

static err link_partition(struct partition *p, const char *to)
{
    static const char *const kinds[] = { "", "/chain", "/segment", "/state" };
    char key[SHARD_KEY_BYTES_MAX];
    uint8_t zero[SHA256_BYTES] = { 0 };
    for (int i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "/p%03u%s", p->number, kinds[i]);
        TRY(make_directory(p->shards->io, to, key));
    }
    for (size_t i = 0; i < p->chain.segment_count; i++) {
        segment_key(p->number, p->chain.segments[i].digest, p->chain.segments[i].era, key);
        TRY(link_object(p->shards, to, key));
    }
    if (memcmp(p->chain.state_digests[0], zero, SHA256_BYTES) != 0) {
        state_key(p->number, p->chain.state_digests[0], p->chain.state_eras[0], key);
        TRY(link_object(p->shards, to, key));
    }
    for (uint64_t number = p->chain.first_number; number < p->chain.next_number; number++) {
        chain_key(p->number, number, key);
        TRY(link_object(p->shards, to, key));
    }
    for (int i = 3; i >= 0; i--) {
        snprintf(key, sizeof key, "/p%03u%s", p->number, kinds[i]);
        TRY(sync_directory(p->shards->io, to, key));
    }
    return OK;
}

static err link_all(struct shards *shards, const char *to, int64_t deadline_ns)
{
    TRY(shards_cut_all(shards, deadline_ns));
    TRY(io_dir_create(shards->io, to));
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        io_mutex_lock(&p->chain_lock); /* no entry comes, so no segment goes, until all are linked */
        bool is_open = atomic_load(&p->stage) == SHARD_OPEN; /* else it may not have been cut */
        err e = is_open ? link_partition(p, to) : ERR_CLOSED;
        io_mutex_unlock(&p->chain_lock);
        TRY(e);
    }
    return io_dir_sync(shards->io, to);
}

err shards_snapshot(struct shards *shards, const char *to, int64_t deadline_ns)
{
    uint32_t pinned = 0;
    while (pinned < shards->config.partition_count && partition_pin(&shards->partitions[pinned]))
        pinned++;
    err e = pinned < shards->config.partition_count ? ERR_CLOSED : link_all(shards, to, deadline_ns);
    while (pinned > 0)
        partition_unpin(&shards->partitions[--pinned]);
    return e;
}
