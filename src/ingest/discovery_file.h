/* file_sd_configs: targets from JSON and YAML files that other programs write. */
#ifndef INGEST_DISCOVERY_FILE_H
#define INGEST_DISCOVERY_FILE_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "ingest/scrape_config.h"

#include <stdbool.h>

struct io;

#define DISCOVERY_FILE_BYTES_MAX  (64u << 20) /* of one file */
#define DISCOVERY_FILES_FOUND_MAX 10000       /* by the patterns of a job */

struct discovery_file {
    struct slice path;
    int64_t modified_ms;
    uint64_t size;
    struct pool *pool;           /* of path and groups */
    struct scrape_group *groups; /* of the last good content; a bad one keeps them */
    size_t group_count;
    bool is_found;
};

/* The files of one job. */
struct discovery_files {
    struct pool *pool;
    struct discovery_file *files;
    size_t count;
    size_t capacity;
    int64_t read_ms; /* when everything was last read, changed or not */
};

void discovery_files_open(struct pool *pool, struct discovery_files *out_files);
void discovery_files_close(struct discovery_files *files);

/* Look at the patterns of the job; read what is new or changed (everything once refresh_interval passed).
 * *out_changed: the groups are not what they were. Files that cannot be read or parsed keep their last
 * groups and are told in at (the last one). Errors ERR_LIMIT; a directory that is missing has no files. */
err discovery_files_refresh(struct discovery_files *files, struct io *io, const struct scrape_job *job,
                            bool *out_changed, struct err_at *at);

/* Does name match pattern, which has at most one '*'? */
bool discovery_matches(struct slice pattern, struct slice name);

#endif
