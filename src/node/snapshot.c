/* kelpie snapshot, kelpie retention and kelpie restore.
 *
 * A snapshot is made by the running node (POST /api/v1/admin/tsdb/snapshot): data/snapshots/NAME holds a blob
 * directory of links, a copy of NODE and the marker SNAPSHOT, consistent up to the moment of the cut. restore
 * takes nothing else: what a data directory acknowledged is more than its objects. It makes a new data
 * directory: links where it can, copies where it must, then a generation is appended to every chain, so that a
 * fresh log begins behind what is stored.
 *
 * Invariant: a restore never touches an existing directory, and a restore that fails leaves no NODE behind, so
 * that no node starts on half of it. */
#include "node/snapshot.h"
#include "base/time.h"
#include "blob/blob.h"
#include "node/ask.h"
#include "node/commands.h"
#include "node/identity.h"
#include "node/options.h"
#include "node/progress.h"
#include "shard/shard.h"

#include <stdio.h>
#include <string.h>

#define COPY_BYTES       (1u << 20)
#define ANSWER_BYTES_MAX (1u << 20)
#define TIMEOUT_MS       (10 * MS_PER_MINUTE)

/* ---- snapshot ---- */

/* POST to an administrative path of a running node and print its answer. Returns the exit status. */
static int ask_node(const char *name, const char *path, const struct ask_whom *whom, bool has_progress)
{
    const struct ask_question question = {
        .command = name, .path = path, .answer_bytes_max = ANSWER_BYTES_MAX, .timeout_ms = TIMEOUT_MS
    };
    struct pool *pool = pool_open(NULL, name, POOL_BYTES_UNLIMITED);
    unsigned http_status;
    struct slice body;
    int status = 1;
    struct io *io;
    err e = io_open(".", &io);
    if (e != OK) {
        fprintf(stderr, "kelpie %s: cannot open the working directory: %s\n", name, err_text(e));
        pool_close(pool);
        return status;
    }
    struct progress progress = progress_open(name, io, has_progress);
    progress_wait_begin(&progress);
    bool is_answered = ask_post(whom, &question, pool, &http_status, &body);
    progress_wait_end(&progress);
    io_close(io);
    if (is_answered) {
        if (http_status == 200) {
            printf("%.*s\n", SLICE_ARG(body));
            status = 0;
        } else {
            fprintf(stderr, "kelpie %s: %s: status %u: %.*s\n", name, whom->url, http_status,
                    SLICE_ARG(body));
        }
    }
    pool_close(pool);
    return status;
}

int command_snapshot(int argc, char **argv)
{
    struct ask_whom whom = ASK_WHOM_DEFAULT;
    bool has_progress = false;
    const struct option list[] = {
        PROGRESS_OPTION(&has_progress),
        ASK_OPTIONS(&whom),
    };
    const struct command self = { .name = "snapshot",
                                  .operands = "",
                                  .options = list,
                                  .summary =
                                      "Let a running node make a snapshot below its data directory and print"
                                      " its name.",
                                  .option_count = sizeof list / sizeof list[0] };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    return ask_node(self.name, "/api/v1/admin/tsdb/snapshot", &whom, has_progress);
}

int command_retention(int argc, char **argv)
{
    struct ask_whom whom = ASK_WHOM_DEFAULT;
    bool is_confirmed = false;
    const struct option list[] = {
        { "--confirm", NULL, "let the step that waits go ahead", NULL, &is_confirmed },
        ASK_OPTIONS(&whom),
    };
    const struct command self = { .name = "retention",
                                  .operands = "",
                                  .options = list,
                                  .summary =
                                      "Confirm a step of retention that would drop much at once and waits"
                                      " (kelpie_retention_waiting_partitions); print its cut-off.",
                                  .option_count = sizeof list / sizeof list[0] };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (!is_confirmed) {
        fprintf(stderr, "kelpie retention: nothing is dropped without --confirm\n");
        return 2;
    }
    return ask_node(self.name, "/api/v1/admin/retention/confirm", &whom, false);
}

/* ---- restore ---- */

struct restore {
    struct io *cwd;
    struct pool *pool;
    const char *snapshot, *data;
    bool takes_unreadable; /* --accept-unreadable: a read error counts as damage */
    bool has_progress;
    struct progress progress;
    uint64_t done_bytes, total_bytes;
    uint64_t left_out_count; /* files that could not be copied */
    struct shard_restored restored;
    struct err_at at;
};

static err copy_bytes(struct io_file *from, struct io_file *to, uint64_t size, struct pool *pool,
                      bool *out_is_source)
{
    void *room;
    *out_is_source = false;
    TRY(pool_alloc(pool, COPY_BYTES, &room));
    for (uint64_t at = 0; at < size;) {
        size_t len = size - at < COPY_BYTES ? (size_t)(size - at) : COPY_BYTES;
        *out_is_source = true;
        TRY(io_file_read(from, at, room, len, NULL));
        *out_is_source = false;
        TRY(io_file_write(to, at, slice_of(room, len)));
        at += len;
    }
    return io_file_sync(to);
}

/* A file that cannot be read is left out where that is accepted: it is missing then, and named so. */
static err copy_file(struct restore *r, const char *from, const char *to)
{
    struct io_file *in = NULL, *out = NULL;
    struct pool *scratch = pool_open(r->pool, "copy", POOL_BYTES_UNLIMITED);
    uint64_t size;
    bool is_source = true;
    err e = io_file_open(r->cwd, from, IO_READ, &in);
    if (e == OK)
        e = io_file_size(in, &size);
    if (e == OK) {
        is_source = false;
        e = io_file_open(r->cwd, to, IO_CREATE, &out);
    }
    if (e == OK)
        e = copy_bytes(in, out, size, scratch, &is_source);
    io_file_close(in);
    io_file_close(out);
    pool_close(scratch);
    if (e == ERR_IO && is_source && r->takes_unreadable) {
        printf("DAMAGE %s cannot be read (%s) and is left out\n", from, err_text(e));
        r->left_out_count++;
        e = io_unlink(r->cwd, to);
        return e == ERR_NOT_FOUND ? OK : e;
    }
    return e == OK ? OK : err_set(&r->at, e, "cannot copy %s to %s: %s", from, to, err_text(e));
}

static err join(char out[IO_PATH_BYTES_MAX], const char *directory, const char *name)
{
    int len = snprintf(out, IO_PATH_BYTES_MAX, "%s/%s", directory, name);
    return len < IO_PATH_BYTES_MAX ? OK : ERR_LIMIT;
}

static uint64_t size_of(struct io *io, const char *path)
{
    uint64_t bytes;
    return io_path_size(io, path, &bytes, NULL) == OK ? bytes : 0;
}

/* What is to be linked or copied, for the progress alone. */
static uint64_t tree_bytes(struct restore *r, const char *path, unsigned depth)
{
    char below[IO_PATH_BYTES_MAX];
    struct io_dir_entry *entries;
    size_t count;
    uint64_t bytes = 0;
    if (depth == 0 || io_dir_list(r->cwd, path, r->pool, &entries, &count) != OK)
        return 0;
    for (size_t i = 0; i < count; i++)
        if (join(below, path, entries[i].name) == OK)
            bytes += entries[i].is_dir ? tree_bytes(r, below, depth - 1) : size_of(r->cwd, below);
    return bytes;
}

/* Link or copy a tree into a new directory. Depth is that of our own layout: bounded. */
static err copy_tree(struct restore *r, const char *from, const char *to, unsigned depth)
{
    char from_path[IO_PATH_BYTES_MAX], to_path[IO_PATH_BYTES_MAX];
    struct io_dir_entry *entries;
    size_t count;
    if (depth == 0)
        return ERR_LIMIT;
    TRY(io_dir_create(r->cwd, to));
    TRY(io_dir_list(r->cwd, from, r->pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(join(from_path, from, entries[i].name));
        TRY(join(to_path, to, entries[i].name));
        if (entries[i].is_dir) {
            TRY(copy_tree(r, from_path, to_path, depth - 1));
            continue;
        }
        if (io_link(r->cwd, from_path, to_path) != OK) /* another file system: copy */
            TRY(copy_file(r, from_path, to_path));
        r->done_bytes += size_of(r->cwd, from_path);
        progress_tell(&r->progress, r->done_bytes, r->total_bytes);
    }
    return io_dir_sync(r->cwd, to);
}

static void print_line(void *context, bool is_damage, const char *text)
{
    printf("%s%s\n", is_damage ? "DAMAGE " : "", text);
}

/* data holds blob/ and nothing else yet. */
static err restore_chains(struct restore *r, const uint8_t node_bytes[IDENTITY_BYTES])
{
    const struct shard_report report = { .line = print_line };
    struct identity identity;
    struct io *io;
    struct blob *blob = NULL;
    TRY(identity_decode(node_bytes, &identity, &r->at));
    if (identity.is_member) /* no node makes such a snapshot */
        return err_set(&r->at, ERR_INPUT, "its NODE is that of a node in a cluster");
    TRY(io_open(r->data, &io));
    err e = blob_open_dir("blob", io, r->pool, &blob);
    if (e == OK) {
        struct shards_config config = shards_config_default(io_memory_bytes(io) / 2);
        config.partition_count = identity.partition_count;
        config.range_bytes_max = identity.range_bytes_max;
        e = shard_restore(&config, io, blob, r->pool, r->takes_unreadable, &report, &r->restored, &r->at);
        blob_close(blob);
    }
    if (e == OK) /* last: only now may a node start here */
        e = io_replace_file(io, IDENTITY_FILE, slice_of(node_bytes, IDENTITY_BYTES));
    io_close(io);
    return e;
}

err snapshot_read_identity(struct io *cwd, const char *snapshot, struct pool *pool, struct slice *out_bytes,
                           struct err_at *at)
{
    char path[IO_PATH_BYTES_MAX];
    TRY(join(path, snapshot, IDENTITY_SNAPSHOT_FILE));
    if (!io_exists(cwd, path))
        return err_set(at, ERR_INPUT, "%s is not a snapshot: there is no file %s in it", snapshot,
                       IDENTITY_SNAPSHOT_FILE);
    TRY(join(path, snapshot, "log"));
    if (io_exists(cwd, path))
        return err_set(at, ERR_INPUT,
                       "%s is not a snapshot: there is a log in it, which would be left behind; if it is a"
                       " data directory, remove %s from it",
                       snapshot, IDENTITY_SNAPSHOT_FILE);
    TRY(join(path, snapshot, IDENTITY_FILE));
    err e = io_read_file(cwd, path, IDENTITY_BYTES, pool, out_bytes);
    if (e == OK && out_bytes->len == IDENTITY_BYTES)
        return OK;
    return e == ERR_NOT_FOUND ? err_set(at, e, "%s is no whole snapshot: there is no NODE in it", snapshot)
                              : err_set(at, e != OK ? e : ERR_CORRUPT, "cannot read %s: %s", path,
                                        err_text(e != OK ? e : ERR_CORRUPT));
}

static err restore(struct restore *r)
{
    char from[IO_PATH_BYTES_MAX], to[IO_PATH_BYTES_MAX];
    struct slice node_bytes;
    TRY(snapshot_read_identity(r->cwd, r->snapshot, r->pool, &node_bytes, &r->at));
    err e = io_dir_create(r->cwd, r->data);
    if (e != OK)
        return err_set(&r->at, e, "cannot create %s: %s", r->data,
                       e == ERR_EXISTS ? "it exists, and restore needs a directory that does not exist yet"
                       : e == ERR_NOT_FOUND ? "there is no directory to create it in"
                                            : err_text(e));
    TRY(io_dir_make(r->cwd, r->data)); /* its name, durably */
    TRY(join(from, r->snapshot, "blob"));
    TRY(join(to, r->data, "blob"));
    r->total_bytes = tree_bytes(r, from, 8);
    TRY(copy_tree(r, from, to, 8));
    TRY(io_dir_sync(r->cwd, r->data));
    return restore_chains(r, node_bytes.at);
}

/* What came of it. Returns the exit status. */
static int report_restore(const struct restore *r, err e)
{
    char through[TIME_TEXT_BYTES];
    uint64_t damages = r->restored.damage_count + r->left_out_count;
    if (e != OK) {
        fprintf(stderr, "kelpie restore: %s\n", r->at.text[0] != 0 ? r->at.text : err_text(e));
        if (e == ERR_IO && !r->takes_unreadable)
            fprintf(stderr,
                    "A read error may pass: look at the disk, remove %s, and restore again. "
                    "--accept-unreadable takes"
                    " what cannot be read for lost.\n",
                    r->data);
        return 1;
    }
    if (r->restored.data_through_ms == INT64_MIN) {
        printf("restored to %s: the snapshot holds no rows\n", r->data);
    } else {
        time_print(r->restored.data_through_ms, through);
        printf("restored to %s: it holds what was acknowledged through %s\n", r->data, through);
    }
    if (damages > 0)
        printf("the snapshot is damaged in %llu places, told above; kelpie verify --data %s says what is "
               "lost, and"
               " answers name it\n",
               (unsigned long long)damages, r->data);
    printf("kelpie verify --data %s reads all of it; kelpie serve --data %s starts it\n", r->data, r->data);
    return damages == 0 ? 0 : 1;
}

int command_restore(int argc, char **argv)
{
    struct restore r = { .restored.data_through_ms = INT64_MIN };
    const struct option list[] = {
        { "--data", "DIR", "data directory to make; it must not exist", &r.data, NULL },
        { "--accept-unreadable", NULL, "take what the disk does not give (a read error) for lost, and go on",
          NULL, &r.takes_unreadable },
        PROGRESS_OPTION(&r.has_progress),
    };
    const struct command self = {
        .name = "restore",
        .operands = "SNAPSHOT_DIRECTORY",
        .options = list,
        .summary = "Make a data directory from a snapshot; links files where it can. Exit status 1"
                   " if it failed, or\nif the snapshot is damaged: what stands in for that is told.",
        .option_count = sizeof list / sizeof list[0],
        .operands_min = 1,
        .operands_max = 1
    };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (r.data == NULL) {
        fprintf(stderr, "kelpie restore: --data is missing; see kelpie restore --help\n");
        return 2;
    }
    r.snapshot = operands[0];
    if (io_open(".", &r.cwd) != OK)
        return 1;
    r.pool = pool_open(NULL, "restore", POOL_BYTES_UNLIMITED);
    r.progress = progress_open("restore", r.cwd, r.has_progress);
    status = report_restore(&r, restore(&r));
    pool_close(r.pool);
    io_close(r.cwd);
    return status;
}
