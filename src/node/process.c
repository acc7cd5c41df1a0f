/* process_* metrics from /proc/self (proc(5)). See process.h. */
#include "node/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROC_BYTES_MAX   8192
#define TICKS_PER_SECOND 100 /* USER_HZ, which proc(5) counts in, is 100 on every Linux we build for */

/* A file of /proc as text; empty when it cannot be read. /proc files have no size, so read until the end. */
static void read_proc(struct io *io, const char *path, char out[PROC_BYTES_MAX])
{
    struct io_file *file;
    size_t len = 0;
    out[0] = 0;
    if (io_file_open(io, path, IO_READ, &file) != OK)
        return;
    ERR_IGNORE(io_file_read(file, 0, out, PROC_BYTES_MAX - 1, &len)); /* ERR_END is what we expect */
    out[len] = 0;
    io_file_close(file);
}

static void put_metric(struct buf *out, const char *name, const char *type, const char *help, double value)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, type, name, value);
}

/* The number behind "key:" in a file of lines; false when it is not there. */
static bool find_number(const char *text, const char *key, double *out_value)
{
    const char *at = strstr(text, key);
    if (at == NULL)
        return false;
    *out_value = strtod(at + strlen(key), NULL);
    return true;
}

static void put_cpu(struct io *io, char *text, struct buf *out)
{
    unsigned long long user = 0, system = 0;
    read_proc(io, "/proc/self/stat", text);
    const char *behind = strrchr(text, ')'); /* the name may hold anything, parentheses too */
    if (behind != NULL &&
        sscanf(behind + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2)
        put_metric(out, "process_cpu_seconds_total", "counter",
                   "Total user and system CPU time spent in seconds.",
                   (double)(user + system) / TICKS_PER_SECOND);
}

static void put_files(struct io *io, char *text, struct buf *out)
{
    struct pool *pool = pool_open(NULL, "process", 1u << 22);
    struct io_dir_entry *entries;
    size_t count;
    double limit;
    if (io_dir_list(io, "/proc/self/fd", pool, &entries, &count) == OK)
        put_metric(out, "process_open_fds", "gauge", "Number of open file descriptors.", (double)count);
    pool_close(pool);
    read_proc(io, "/proc/self/limits", text);
    if (find_number(text, "Max open files", &limit))
        put_metric(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.", limit);
}

void process_metrics(struct io *io, int64_t start_ms, struct buf *out)
{
    char text[PROC_BYTES_MAX];
    double value;
    put_cpu(io, text, out);
    read_proc(io, "/proc/self/status", text);
    if (find_number(text, "VmRSS:", &value))
        put_metric(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
                   value * 1024);
    if (find_number(text, "VmSize:", &value))
        put_metric(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
                   value * 1024);
    if (find_number(text, "Threads:", &value))
        put_metric(out, "process_threads", "gauge", "Number of threads.", value);
    put_files(io, text, out);
    put_metric(out, "process_start_time_seconds", "gauge",
               "Start time of the process since unix epoch in seconds.", (double)start_ms / 1000);
}
