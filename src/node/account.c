/* Whose is each file of a data directory, around what the shards know. See account.h.
 *
 * From: the names in the directory. To: struct shard_check, together with what shard_verify found in blob/ and
 * stream/. A snapshot's own directory holds NODE, SNAPSHOT and blob/, nothing else. */
#include "node/account.h"

#include <stdio.h>
#include <string.h>

#define SNAPSHOTS "snapshots"
#define LOG       "log"

/* Below snapshots/. A directory without NODE is what a node left that died while it made one. */
static int classify_snapshot(const struct offline *offline, const char *path, bool is_dir,
                             const char **out_why)
{
    char node[IO_PATH_BYTES_MAX];
    const char *inside = strchr(path + strlen(SNAPSHOTS "/"), '/');
    if (inside == NULL) {
        snprintf(node, sizeof node, "%s/%s", path, IDENTITY_FILE);
        if (!is_dir || io_exists(offline->io, node))
            return is_dir ? SHARD_WALK_INTO : SHARD_CLASS_FOREIGN;
        *out_why = "a snapshot that was not finished: remove it";
        return SHARD_CLASS_ASIDE;
    }
    inside++;
    if (strcmp(inside, IDENTITY_FILE) == 0 || strcmp(inside, IDENTITY_SNAPSHOT_FILE) == 0)
        return is_dir ? SHARD_CLASS_FOREIGN : SHARD_CLASS_SNAPSHOT;
    bool is_blob = strncmp(inside, "blob", 4) == 0 && (inside[4] == '/' || inside[4] == '\0');
    if (is_blob && is_dir)
        return SHARD_WALK_INTO;
    return is_blob && inside[4] == '/' && shard_is_object(inside + 5, offline->identity.partition_count)
               ? SHARD_CLASS_SNAPSHOT
               : SHARD_CLASS_FOREIGN;
}

static int classify_log(const char *name, bool is_dir, const char **out_why)
{
    switch (is_dir ? LOG_NAME_FOREIGN : log_name_kind(name)) {
    case LOG_NAME_RECORDS:
        return SHARD_CLASS_LIVE;
    case LOG_NAME_FREE:
        return SHARD_CLASS_SPACE;
    case LOG_NAME_LOST:
        *out_why =
            "a log file that no other leads to, set aside by a start, for it may hold records; remove it when"
            " nobody will look into it";
        return SHARD_CLASS_ASIDE;
    default:
        return SHARD_CLASS_FOREIGN;
    }
}

/* What a file system puts at its root; where its files are those of other people, they cannot be looked at. */
static bool is_lost_and_found(const struct offline *offline, const char *path)
{
    struct io_dir_entry *entries;
    size_t count = 0;
    struct pool *pool = pool_open(offline->pool, "list", POOL_BYTES_UNLIMITED);
    bool is_it = strcmp(path, "lost+found") == 0;
    if (is_it)
        is_it = io_dir_list(offline->io, path, pool, &entries, &count) == ERR_DENIED || count == 0;
    pool_close(pool);
    return is_it;
}

static int classify(void *context, const char *path, bool is_dir, const char **out_why)
{
    const struct offline *offline = context;
    if (strcmp(path, IDENTITY_FILE) == 0)
        return SHARD_CLASS_LIVE;
    if (strcmp(path, offline->config.blob_directory) == 0)
        return SHARD_WALK_PAST;
    if (is_dir && is_lost_and_found(offline, path))
        return SHARD_WALK_PAST;
    if (offline->is_snapshot)
        return strcmp(path, IDENTITY_SNAPSHOT_FILE) == 0 ? SHARD_CLASS_LIVE : SHARD_CLASS_FOREIGN;
    if (strcmp(path, offline->config.stream_directory) == 0)
        return SHARD_WALK_PAST;
    if (strcmp(path, LOG) == 0 || strcmp(path, SNAPSHOTS) == 0)
        return SHARD_WALK_INTO;
    if (strcmp(path, offline->config.quarantine_directory) == 0) {
        *out_why =
            "damaged files that fsck or a start set aside; remove them when nobody will look into them";
        return is_dir ? SHARD_CLASS_ASIDE : SHARD_WALK_INTO; /* a symbolic link to one */
    }
    size_t len = strlen(offline->config.quarantine_directory);
    if (strncmp(path, offline->config.quarantine_directory, len) == 0 && path[len] == '/')
        return SHARD_CLASS_ASIDE;
    if (strncmp(path, LOG "/", strlen(LOG "/")) == 0)
        return classify_log(path + strlen(LOG "/"), is_dir, out_why);
    if (strncmp(path, SNAPSHOTS "/", strlen(SNAPSHOTS "/")) == 0)
        return classify_snapshot(offline, path, is_dir, out_why);
    return SHARD_CLASS_FOREIGN;
}

static void move(struct shard_check *check, enum shard_class from, enum shard_class to, uint64_t bytes)
{
    check->classes[from].byte_count -= bytes;
    check->classes[to].byte_count += bytes;
}

/* Only the records of the log's files were read. Files that their headers do not lead to are left over. */
static err split_log(struct offline *offline, const struct shard_report *report, struct shard_check *check)
{
    struct pool *pool = pool_open(offline->pool, "list", POOL_BYTES_UNLIMITED);
    struct io_dir_entry *entries;
    size_t count = 0;
    uint64_t all_bytes = 0, live_bytes = log_usage(offline->log).live_bytes;
    err e = io_dir_list(offline->io, LOG, pool, &entries, &count);
    for (size_t i = 0; e == OK && i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        uint64_t bytes;
        snprintf(path, sizeof path, LOG "/%s", entries[i].name);
        bool is_ours = !entries[i].is_dir && log_name_kind(entries[i].name) == LOG_NAME_RECORDS;
        if (is_ours && io_path_size(offline->io, path, &bytes, NULL) == OK)
            all_bytes += bytes;
    }
    pool_close(pool);
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    if (all_bytes > live_bytes) {
        move(check, SHARD_CLASS_LIVE, SHARD_CLASS_LEFTOVER, all_bytes - live_bytes);
        shard_tell(
            report, check, false,
            "%llu bytes are of log files that no other leads to; the next start removes them, or sets them"
            " aside as .lost where they may hold records",
            (unsigned long long)(all_bytes - live_bytes));
    }
    uint64_t known_bytes = all_bytes < live_bytes ? all_bytes : live_bytes;
    if (known_bytes > check->record_bytes)
        move(check, SHARD_CLASS_LIVE, SHARD_CLASS_SPACE, known_bytes - check->record_bytes);
    return OK;
}

err account_directory(struct offline *offline, const struct shard_report *report, struct shard_check *check)
{
    struct shard_walk walk = { offline->io, offline->pool, report, check, classify, offline };
    uint64_t node_bytes;
    TRY(shard_account(&walk, ""));
    TRY(io_path_size(offline->io, IDENTITY_FILE, &node_bytes, NULL));
    if (node_bytes > IDENTITY_BYTES) {
        move(check, SHARD_CLASS_LIVE, SHARD_CLASS_FOREIGN, node_bytes - IDENTITY_BYTES);
        shard_tell(report, check, false, "%s, %llu bytes behind its end: not Kelpie's: nothing reads them",
                   IDENTITY_FILE, (unsigned long long)(node_bytes - IDENTITY_BYTES));
    }
    return offline->is_snapshot ? OK : split_log(offline, report, check);
}

void account_print(const struct shard_check *check)
{
    static const char *const texts[SHARD_CLASS_COUNT] = {
        [SHARD_CLASS_LIVE] = "live      ",     [SHARD_CLASS_SPACE] = "log space ",
        [SHARD_CLASS_LEFTOVER] = "left over ", [SHARD_CLASS_SNAPSHOT] = "snapshots ",
        [SHARD_CLASS_ASIDE] = "set aside ",    [SHARD_CLASS_FOREIGN] = "foreign   ",
    };
    static const char *const meanings[SHARD_CLASS_COUNT] = {
        [SHARD_CLASS_LIVE] = "all of it was read",
        [SHARD_CLASS_SPACE] = "room in log files, and records that are stored elsewhere by now",
        [SHARD_CLASS_LEFTOVER] = "by a process that died; the next start removes it",
        [SHARD_CLASS_SNAPSHOT] = "second names of live files, or copies; verify reads each by --data",
        [SHARD_CLASS_ASIDE] = "for a person",
        [SHARD_CLASS_FOREIGN] = "not Kelpie's",
    };
    for (int i = 0; i < SHARD_CLASS_COUNT; i++) {
        const struct shard_class_sum *sum = &check->classes[i];
        if (sum->file_count > 0 || sum->byte_count > 0)
            printf("%s %8llu files %14llu bytes: %s\n", texts[i], (unsigned long long)sum->file_count,
                   (unsigned long long)sum->byte_count, meanings[i]);
    }
}
