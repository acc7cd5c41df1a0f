/* File discovery. From: files named by patterns. To: groups of targets, which scrape.c turns into targets.
 *
 * Changes are found by size and modification time, which is looked at often (it costs one stat a file); the
 * configured refresh_interval re-reads everything, for file systems that tell neither.
 *
 * Invariants
 * 1. A file that is missing has no targets; a file that is damaged keeps those it had: a writer caught in
 *    the middle must not stop the scraping.
 * 2. Each file's content is in a pool of its own, replaced as a whole. */
#include "ingest/discovery_file.h"

#include "base/check.h"
#include "io/io.h"

bool discovery_matches(struct slice pattern, struct slice name)
{
    const uint8_t *star = pattern.len == 0 ? NULL : memchr(pattern.at, '*', pattern.len);
    if (star == NULL)
        return slice_equal(pattern, name);
    size_t head = (size_t)(star - pattern.at), tail = pattern.len - head - 1;
    return name.len >= head + tail && memcmp(name.at, pattern.at, head) == 0 &&
           memcmp(name.at + name.len - tail, star + 1, tail) == 0;
}

void discovery_files_open(struct pool *pool, struct discovery_files *out_files)
{
    *out_files = (struct discovery_files){ .pool = pool_open(pool, "discovery", POOL_BYTES_UNLIMITED),
                                           .read_ms = INT64_MIN };
}

void discovery_files_close(struct discovery_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        pool_close(files->files[i].pool);
    pool_close(files->pool);
}

/* Read and parse into a pool of its own. */
static err read_groups(struct io *io, struct pool *parent, struct discovery_file *file, struct err_at *at)
{
    struct pool *pool = pool_open(parent, "discovery_file", POOL_BYTES_UNLIMITED);
    struct pool *scratch = pool_open(parent, "discovery_text", POOL_BYTES_UNLIMITED);
    struct discovery_file fresh = *file;
    struct slice text;
    struct yaml_node *root;
    struct err_at why = { 0 };
    err e = OK;
    fresh.pool = pool;
    TRY_OUT(pool_copy(pool, file->path, &fresh.path));
    TRY_OUT(io_read_file(io, (const char *)fresh.path.at, DISCOVERY_FILE_BYTES_MAX, scratch, &text));
    TRY_OUT(yaml_parse(text, scratch, &root, &why));
    if (root->type != YAML_SEQUENCE && root->count > 0)
        TRY_OUT(yaml_error(root, ERR_INPUT, &why, "expected a list of groups"));
    fresh.group_count = root->type == YAML_SEQUENCE ? root->count : 0;
    TRY_OUT(scrape_groups_load(root->items, fresh.group_count, pool, &fresh.groups, &why));
    if (file->pool != NULL)
        pool_close(file->pool);
    *file = fresh;
out:
    pool_close(scratch);
    if (e != OK) {
        pool_close(pool);
        return err_set(at, e, "%.200s: %s", (const char *)file->path.at,
                       why.text[0] != 0 ? why.text : err_text(e));
    }
    return OK;
}

static struct discovery_file *find(struct discovery_files *files, struct slice path)
{
    for (size_t i = 0; i < files->count; i++) {
        if (slice_equal(files->files[i].path, path))
            return &files->files[i];
    }
    return NULL;
}

/* Let go of files that the look did not find; before it is over, of those only that are gone. */
static bool drop_gone(struct discovery_files *files, struct io *io, bool is_over)
{
    size_t kept = 0, before = files->count;
    for (size_t i = 0; i < before; i++) {
        struct discovery_file *file = &files->files[i];
        if (file->is_found || (!is_over && io_exists(io, (const char *)file->path.at)))
            files->files[kept++] = *file;
        else
            pool_close(file->pool);
    }
    files->count = kept;
    return kept < before;
}

static err look_at(struct discovery_files *files, struct io *io, struct slice path, bool read_all,
                   bool *changed, struct err_at *at)
{
    struct discovery_file *file = find(files, path);
    uint64_t size;
    int64_t modified_ms;
    if (file != NULL && file->is_found)
        return OK; /* two patterns name it */
    if (io_path_size(io, (const char *)path.at, &size, &modified_ms) != OK)
        return OK; /* gone between listing and looking, or never there */
    if (file == NULL) {
        if (files->count == DISCOVERY_FILES_FOUND_MAX) /* many may have got other names since */
            *changed = drop_gone(files, io, false) || *changed;
        if (files->count == DISCOVERY_FILES_FOUND_MAX)
            return err_set(at, ERR_LIMIT, "more than %d discovery files", DISCOVERY_FILES_FOUND_MAX);
        TRY(pool_block_reserve(files->pool, (void **)&files->files, sizeof *files->files, files->count + 1,
                               &files->capacity));
        file = &files->files[files->count];
        *file = (struct discovery_file){ .modified_ms = INT64_MIN };
        file->pool = pool_open(files->pool, "discovery_file", POOL_BYTES_UNLIMITED);
        err e = pool_copy(file->pool, path, &file->path);
        if (e != OK) {
            pool_close(file->pool);
            return e;
        }
        files->count++;
    }
    file->is_found = true;
    if (!read_all && file->modified_ms == modified_ms && file->size == size)
        return OK;
    *changed = *changed || file->modified_ms != modified_ms || file->size != size || read_all;
    file->modified_ms = modified_ms;
    file->size = size;
    ERR_IGNORE(read_groups(io, files->pool, file, at)); /* told in at; the old groups stay */
    return OK;
}

static err look_at_pattern(struct discovery_files *files, struct io *io, struct slice pattern, bool read_all,
                           bool *changed, struct pool *scratch, struct err_at *at)
{
    if (memchr(pattern.at, '*', pattern.len) == NULL)
        return look_at(files, io, pattern, read_all, changed, at);
    size_t slash = pattern.len;
    while (slash > 0 && pattern.at[slash - 1] != '/')
        slash--;
    struct slice dir, name = slice_part(pattern, slash, pattern.len - slash);
    struct io_dir_entry *entries;
    size_t count;
    TRY(pool_copy(scratch, slash == 0 ? slice_str(".") : slice_part(pattern, 0, slash == 1 ? 1 : slash - 1),
                  &dir));
    err e = io_dir_list(io, (const char *)dir.at, scratch, &entries, &count);
    if (e != OK)
        return e == ERR_LIMIT ? e : OK;
    for (size_t i = 0; i < count; i++) {
        if (entries[i].is_dir || !discovery_matches(name, slice_str(entries[i].name)))
            continue;
        struct buf path = buf_open(scratch, IO_PATH_BYTES_MAX);
        buf_put_slice(&path, slice_part(pattern, 0, slash));
        buf_put_str(&path, entries[i].name);
        buf_put_u8(&path, 0);
        TRY(buf_err(&path));
        TRY(look_at(files, io, slice_of(path.at, path.len - 1), read_all, changed, at));
    }
    return OK;
}

err discovery_files_refresh(struct discovery_files *files, struct io *io, const struct scrape_job *job,
                            bool *out_changed, struct err_at *at)
{
    struct pool *scratch = pool_open(files->pool, "discovery_list", POOL_BYTES_UNLIMITED);
    int64_t now_ms = io_monotonic_ns(io) / 1000000;
    bool changed = false, read_all = files->read_ms == INT64_MIN;
    err e = OK;
    for (size_t i = 0; i < files->count; i++)
        files->files[i].is_found = false;
    for (size_t i = 0; i < job->file_count; i++)
        read_all = read_all || now_ms - files->read_ms >= job->files[i].refresh_ms;
    for (size_t i = 0; i < job->file_count; i++) {
        for (size_t p = 0; p < job->files[i].pattern_count; p++)
            TRY_OUT(look_at_pattern(files, io, job->files[i].patterns[p], read_all, &changed, scratch, at));
    }
    if (read_all)
        files->read_ms = now_ms;
    *out_changed = drop_gone(files, io, true) || changed;
out:
    pool_close(scratch);
    return e;
}
