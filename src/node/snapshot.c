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
#include "base/time.h"
#include "blob/blob.h"
#include "node/ask.h"
#include "node/commands.h"
#include "node/identity.h"
#include "node/options.h"
#include "shard/shard.h"

#include <stdio.h>
#include <string.h>

#define COPY_BYTES       (1u << 20)
#define ANSWER_BYTES_MAX (1u << 20)
#define TIMEOUT_MS       (10 * MS_PER_MINUTE)

/* ---- snapshot ---- */

/* POST to an administrative path of a running node and print its answer. Returns the exit status. */
static int ask_node(const char *name, const char *path, const struct ask_whom *whom)
{
    const struct ask_question question = {
        .command = name, .path = path, .answer_bytes_max = ANSWER_BYTES_MAX, .timeout_ms = TIMEOUT_MS
    };
    struct pool *pool = pool_open(NULL, name, POOL_BYTES_UNLIMITED);
    unsigned http_status;
    struct slice body;
    int status = 1;
    if (ask_post(whom, &question, pool, &http_status, &body)) {
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
    const struct option list[] = {
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
    return ask_node(self.name, "/api/v1/admin/tsdb/snapshot", &whom);
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
    return ask_node(self.name, "/api/v1/admin/retention/confirm", &whom);
}

/* ---- restore ---- */

static err copy_bytes(struct io_file *from, struct io_file *to, uint64_t size, struct pool *pool)
{
    void *room;
    TRY(pool_alloc(pool, COPY_BYTES, &room));
    for (uint64_t at = 0; at < size;) {
        size_t len = size - at < COPY_BYTES ? (size_t)(size - at) : COPY_BYTES;
        TRY(io_file_read(from, at, room, len, NULL));
        TRY(io_file_write(to, at, slice_of(room, len)));
        at += len;
    }
    return io_file_sync(to);
}

static err copy_file(struct io *io, const char *from, const char *to, struct pool *pool)
{
    struct io_file *in = NULL, *out = NULL;
    struct pool *scratch = pool_open(pool, "copy", POOL_BYTES_UNLIMITED);
    uint64_t size;
    err e = io_file_open(io, from, IO_READ, &in);
    if (e == OK)
        e = io_file_open(io, to, IO_CREATE, &out);
    if (e == OK)
        e = io_file_size(in, &size);
    if (e == OK)
        e = copy_bytes(in, out, size, scratch);
    io_file_close(in);
    io_file_close(out);
    pool_close(scratch);
    return e;
}

static err join(char out[IO_PATH_BYTES_MAX], const char *directory, const char *name)
{
    int len = snprintf(out, IO_PATH_BYTES_MAX, "%s/%s", directory, name);
    return len < IO_PATH_BYTES_MAX ? OK : ERR_LIMIT;
}

/* Link or copy a tree into a new directory. Depth is that of our own layout: bounded. */
static err copy_tree(struct io *io, const char *from, const char *to, unsigned depth, struct pool *pool)
{
    char from_path[IO_PATH_BYTES_MAX], to_path[IO_PATH_BYTES_MAX];
    struct io_dir_entry *entries;
    size_t count;
    if (depth == 0)
        return ERR_LIMIT;
    TRY(io_dir_create(io, to));
    TRY(io_dir_list(io, from, pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(join(from_path, from, entries[i].name));
        TRY(join(to_path, to, entries[i].name));
        if (entries[i].is_dir)
            TRY(copy_tree(io, from_path, to_path, depth - 1, pool));
        else if (io_link(io, from_path, to_path) != OK) /* another file system: copy */
            TRY(copy_file(io, from_path, to_path, pool));
    }
    return io_dir_sync(io, to);
}

/* data holds blob/ and nothing else yet. */
static err restore_chains(const char *data, const uint8_t node_bytes[IDENTITY_BYTES], struct pool *pool,
                          int64_t *out_through_ms, struct err_at *at)
{
    struct identity identity;
    struct io *io;
    struct blob *blob = NULL;
    TRY(identity_decode(node_bytes, &identity, at));
    TRY(io_open(data, &io));
    err e = blob_open_dir("blob", io, pool, &blob);
    if (e == OK) {
        struct shards_config config = shards_config_default(io_memory_bytes(io) / 2);
        config.partition_count = identity.partition_count;
        config.range_bytes_max = identity.range_bytes_max;
        e = shard_restore(&config, io, blob, pool, out_through_ms);
        blob_close(blob);
    }
    if (e == OK) /* last: only now may a node start here */
        e = io_replace_file(io, IDENTITY_FILE, slice_of(node_bytes, IDENTITY_BYTES));
    io_close(io);
    return e;
}

/* NODE, the last thing that a snapshot gets. */
static err read_identity(struct io *cwd, const char *snapshot, struct pool *pool, struct slice *out_bytes,
                         struct err_at *at)
{
    char path[IO_PATH_BYTES_MAX];
    TRY(join(path, snapshot, IDENTITY_SNAPSHOT_FILE));
    if (!io_exists(cwd, path))
        return err_set(at, ERR_INPUT, "%s is not a snapshot: there is no file %s in it", snapshot,
                       IDENTITY_SNAPSHOT_FILE);
    TRY(join(path, snapshot, "log"));
    if (io_exists(cwd, path))
        return err_set(
            at, ERR_INPUT,
            "%s is not a snapshot: there is a log in it, which restore would leave behind; if it is a"
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

static err restore(struct io *cwd, const char *snapshot, const char *data, struct pool *pool,
                   int64_t *out_through_ms, struct err_at *at)
{
    char from[IO_PATH_BYTES_MAX], to[IO_PATH_BYTES_MAX];
    struct slice node_bytes;
    TRY(read_identity(cwd, snapshot, pool, &node_bytes, at));
    err e = io_dir_create(cwd, data);
    if (e != OK)
        return err_set(at, e, "cannot create %s: %s", data,
                       e == ERR_EXISTS ? "it exists, and restore needs a directory that does not exist yet"
                       : e == ERR_NOT_FOUND ? "there is no directory to create it in"
                                            : err_text(e));
    TRY(io_dir_make(cwd, data)); /* its name, durably */
    TRY(join(from, snapshot, "blob"));
    TRY(join(to, data, "blob"));
    TRY(copy_tree(cwd, from, to, 8, pool));
    TRY(io_dir_sync(cwd, data));
    return restore_chains(data, node_bytes.at, pool, out_through_ms, at);
}

int command_restore(int argc, char **argv)
{
    const char *data = NULL;
    const struct option list[] = {
        { "--data", "DIR", "data directory to make; it must not exist", &data, NULL },
    };
    const struct command self = { .name = "restore",
                                  .operands = "SNAPSHOT_DIRECTORY",
                                  .options = list,
                                  .summary =
                                      "Make a data directory from a snapshot; links files where it can.",
                                  .option_count = 1,
                                  .operands_min = 1,
                                  .operands_max = 1 };
    const char *operands[OPTIONS_OPERANDS_MAX];
    int status;
    if (!options_parse(&self, argc, argv, operands, &status))
        return status;
    if (data == NULL) {
        fprintf(stderr, "kelpie restore: --data is missing; see kelpie restore --help\n");
        return 2;
    }
    struct io *cwd;
    struct err_at at = { 0 };
    int64_t through_ms = 0;
    char through[TIME_TEXT_BYTES];
    if (io_open(".", &cwd) != OK)
        return 1;
    struct pool *pool = pool_open(NULL, "restore", POOL_BYTES_UNLIMITED);
    err e = restore(cwd, operands[0], data, pool, &through_ms, &at);
    time_print(through_ms, through);
    if (e == OK)
        printf("restored to %s: samples reach to %s\nkelpie verify --data %s reads all of it; kelpie serve"
               " --data %s starts it\n",
               data, through, data, data);
    else
        fprintf(stderr, "kelpie restore: %s\n", at.text[0] != 0 ? at.text : err_text(e));
    pool_close(pool);
    io_close(cwd);
    return e == OK ? 0 : 1;
}
