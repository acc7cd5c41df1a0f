/* Whose is each file of a data directory? The walk that gives every one a class, and what tools say of it. See
 * shard.h.
 *
 * Names and sizes come from the io; what a name means is the caller's: verify.c knows the objects and stream
 * files of its chains, node/ what lies around them. Sums go into struct shard_check, findings to the report.
 *
 * Invariants
 *  1. Every file below the directory is counted in exactly one class, but those of directories that the caller
 *     walks past.
 *  2. Nothing is opened: a file that cannot be read is told by who reads it. */
#include "shard/partition.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define DEPTH_MAX      16 /* directories below each other; ours have 6 */
#define TOLD_COUNT_MAX 100

void shard_tell(const struct shard_report *report, struct shard_check *check, bool is_damage,
                const char *format, ...)
{
    char text[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    check->damage_count += is_damage;
    if (report != NULL && report->line != NULL)
        report->line(report->context, is_damage, text);
}

uint64_t chain_number_parse(const char *name)
{
    size_t len = strlen(name);
    bool is_number =
        len >= 8 && len <= 18 && strspn(name, "0123456789") == len && (len == 8 || name[0] != '0');
    return is_number ? strtoull(name, NULL, 10) : 0;
}

bool object_name_parse(const char *name, struct object_name *out_name)
{
    if (strspn(name, "0123456789abcdef") != 2 * SHA256_BYTES)
        return false;
    for (int i = 0; i < SHA256_BYTES; i++) {
        char pair[3] = { name[2 * i], name[2 * i + 1], '\0' };
        out_name->digest[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    const char *era = name + 2 * SHA256_BYTES + 1;
    out_name->era = 0;
    if (era[-1] == '\0')
        return true;
    size_t len = strlen(era);
    bool is_number =
        era[-1] == '-' && len >= 1 && len <= 18 && strspn(era, "0123456789") == len && era[0] != '0';
    out_name->era = is_number ? strtoull(era, NULL, 10) : 0;
    return is_number;
}

bool shard_is_object(const char *path, uint32_t partition_count)
{
    struct object_name object;
    char prefix[SHARD_KEY_BYTES_MAX];
    unsigned partition;
    if (sscanf(path, "p%u/", &partition) != 1 || partition >= partition_count)
        return false;
    int len = snprintf(prefix, sizeof prefix, "p%03u/", partition);
    if (strncmp(path, prefix, (size_t)len) != 0)
        return false;
    const char *kind = path + len, *name = strchr(kind, '/');
    if (name == NULL)
        return false;
    size_t kind_len = (size_t)(name++ - kind);
    if (kind_len == 5 && memcmp(kind, "chain", 5) == 0)
        return chain_number_parse(name) > 0;
    bool is_named_by_digest = (kind_len == 7 && memcmp(kind, "segment", 7) == 0) ||
                              (kind_len == 5 && memcmp(kind, "state", 5) == 0);
    return is_named_by_digest && object_name_parse(name, &object);
}

/* ---- the walk ---- */

static const char *const class_words[SHARD_CLASS_COUNT] = {
    [SHARD_CLASS_LEFTOVER] = "left by a process that died, and removed by the next start",
    [SHARD_CLASS_ASIDE] = "set aside, and kept for a person",
    [SHARD_CLASS_FOREIGN] = "not Kelpie's: nothing reads it",
};

/* Files of one class: one, or all in a directory. */
static void count(const struct shard_walk *w, const char *path, int class, const char *why,
                  struct shard_class_sum sum, bool is_dir)
{
    struct shard_class_sum *all = &w->check->classes[class];
    all->file_count += sum.file_count;
    all->byte_count += sum.byte_count;
    if (sum.file_count == 0 || class_words[class] == NULL || ++all->told_count > TOLD_COUNT_MAX + 1)
        return;
    if (all->told_count == TOLD_COUNT_MAX + 1)
        shard_tell(w->report, w->check, false, "… and others that are %s: only their sum is told",
                   class_words[class]);
    else if (is_dir)
        shard_tell(w->report, w->check, false, "%s/ with %llu files, %llu bytes: %s", path,
                   (unsigned long long)sum.file_count, (unsigned long long)sum.byte_count,
                   why != NULL ? why : class_words[class]);
    else
        shard_tell(w->report, w->check, false, "%s, %llu bytes: %s", path, (unsigned long long)sum.byte_count,
                   why != NULL ? why : class_words[class]);
}

static err path_join(const char *directory, const char *name, char out_path[IO_PATH_BYTES_MAX])
{
    int len =
        snprintf(out_path, IO_PATH_BYTES_MAX, "%s%s%s", directory, directory[0] != '\0' ? "/" : "", name);
    return len < IO_PATH_BYTES_MAX ? OK : ERR_LIMIT;
}

/* What a directory holds, and whether it can be gone into. Told when it cannot. */
static err list(const struct shard_walk *w, const char *path, unsigned depth, struct pool *pool,
                struct io_dir_entry **out_entries, size_t *out_count)
{
    *out_count = 0;
    err e = depth < DEPTH_MAX ? io_dir_list(w->io, path[0] != '\0' ? path : ".", pool, out_entries, out_count)
                              : ERR_LIMIT;
    if (e == OK || e == ERR_NOT_FOUND)
        return OK;
    shard_tell(w->report, w->check, true, "the directory %s cannot be read: %s", path, err_text(e));
    return e == ERR_LIMIT && depth < DEPTH_MAX ? e : OK;
}

static uint64_t size_of(const struct shard_walk *w, const char *path)
{
    uint64_t size = 0;
    err e = io_path_size(w->io, path, &size, NULL);
    if (e != OK && e != ERR_NOT_FOUND) /* a symbolic link that leads nowhere */
        shard_tell(w->report, w->check, true, "%s cannot be looked at: %s", path, err_text(e));
    return e == OK ? size : 0;
}

/* Everything in a directory. */
static err sum_tree(const struct shard_walk *w, const char *path, unsigned depth, struct shard_class_sum *sum)
{
    struct pool *pool = pool_open(w->pool, "walk", POOL_BYTES_UNLIMITED);
    struct io_dir_entry *entries;
    size_t entry_count;
    err e = OK;
    TRY_OUT(list(w, path, depth, pool, &entries, &entry_count));
    for (size_t i = 0; i < entry_count; i++) {
        char child[IO_PATH_BYTES_MAX];
        TRY_OUT(path_join(path, entries[i].name, child));
        if (entries[i].is_dir) {
            TRY_OUT(sum_tree(w, child, depth + 1, sum));
            continue;
        }
        sum->file_count++;
        sum->byte_count += size_of(w, child);
    }
out:
    pool_close(pool);
    return e;
}

static err look(const struct shard_walk *w, const char *path, const char *below, unsigned depth);

static err look_at(const struct shard_walk *w, const char *path, const char *below, bool is_dir,
                   unsigned depth)
{
    const char *why = NULL;
    struct shard_class_sum sum = { 0 };
    int found = w->classify(w->context, below, is_dir, &why);
    if (found == SHARD_WALK_PAST)
        return OK;
    if (found == SHARD_WALK_INTO)
        return look(w, path, below, depth + 1);
    if (is_dir)
        TRY(sum_tree(w, path, depth + 1, &sum));
    else
        sum = (struct shard_class_sum){ .file_count = 1, .byte_count = size_of(w, path) };
    count(w, path, found, why, sum, is_dir);
    return OK;
}

static err look(const struct shard_walk *w, const char *path, const char *below, unsigned depth)
{
    struct pool *pool = pool_open(w->pool, "walk", POOL_BYTES_UNLIMITED);
    struct io_dir_entry *entries;
    size_t entry_count;
    err e = OK;
    TRY_OUT(list(w, path, depth, pool, &entries, &entry_count));
    for (size_t i = 0; i < entry_count; i++) {
        char child[IO_PATH_BYTES_MAX], child_below[IO_PATH_BYTES_MAX];
        TRY_OUT(path_join(path, entries[i].name, child));
        TRY_OUT(path_join(below, entries[i].name, child_below));
        TRY_OUT(look_at(w, child, child_below, entries[i].is_dir, depth));
    }
out:
    pool_close(pool);
    return e;
}

err shard_account(const struct shard_walk *walk, const char *directory)
{
    return look(walk, directory, "", 0);
}
